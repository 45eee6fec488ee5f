# SPDX-License-Identifier: Apache-2.0
"""What a flag is: its names, the value it takes, and what becomes of it on this target."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Effect(StrEnum):
    """What a flag does here."""

    ACTS = "acts"
    IDLE = "no meaning here"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Kind:
    """The value of a flag: how help shows it, and how its text is read (ValueError says what it takes).

    `shown` is empty for a switch, which takes none.
    """

    shown: str
    parse: Callable[[str], Any]
    optional: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone."""
        return not self.shown


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `versions` are those of trtexec that know it ("classic": giexec); `help` says what it does, or, for one
    without meaning or refused, why."""

    name: str
    kind: Kind
    versions: str
    help: str
    effect: Effect = Effect.ACTS
    aliases: tuple[str, ...] = ()
    default: str = ""
    repeats: bool = False

    @property
    def usage(self) -> str:
        """The flag with its value and aliases, as help and documentation show it."""
        value = f"[={self.kind.shown}]" if self.kind.optional else f"={self.kind.shown}" if self.kind.shown else ""
        return ", ".join((f"--{self.name}{value}", *(f"--{name}" for name in self.aliases)))


# -- values -----------------------------------------------------------------------------------------
def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("it takes a text, not nothing")
    return text


_MOST: Final = 1e9


def whole(low: int, high: int | None = None, shown: str = "N") -> Kind:
    """A whole number within bounds."""
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"it takes a whole number {bounds}") from None
        if value < low or (high is not None and value > high):
            raise ValueError(f"it takes a whole number {bounds}")
        return value

    return Kind(shown, parse)


def number(low: float, shown: str = "N", also: float | None = None) -> Kind:
    """A number from `low` to 1e9, or the value `also`."""
    more = f", or {also:g}" if also is not None else ""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -math.inf
        if not (low <= value <= _MOST or value == also):
            raise ValueError(f"it takes a number from {low:g} to {_MOST:g}{more}")
        return value

    return Kind(shown, parse)


def one_of(*choices: str) -> Kind:
    """One of some words, in any case."""
    by_text = {choice.lower(): choice for choice in choices}

    def parse(text: str) -> str:
        if text.lower() not in by_text:
            raise ValueError(f"it takes one of {', '.join(choices)}")
        return by_text[text.lower()]

    return Kind("|".join(choices), parse)


def text(shown: str, *, optional: bool = False) -> Kind:
    """Any text but nothing."""
    return Kind(shown, _text, optional)


SWITCH: Final = Kind("", _text)
FILE: Final = text("<file>")
SPEC: Final = text("<spec>")


# -- rows -------------------------------------------------------------------------------------------
def acts(
    name: str,
    kind: Kind,
    versions: str,
    help: str,
    *,
    aliases: tuple[str, ...] = (),
    default: str = "",
    repeats: bool = False,
) -> Flag:
    """A flag that does something here."""
    return Flag(name, kind, versions, help, Effect.ACTS, aliases, default, repeats)


def idle(name: str, kind: Kind, versions: str, why: str, *, aliases: tuple[str, ...] = ()) -> Flag:
    """A flag that is accepted, and has no meaning here: a line says why."""
    return Flag(name, kind, versions, why, Effect.IDLE, aliases, repeats=True)


def refused(name: str, kind: Kind, versions: str, why: str, *, aliases: tuple[str, ...] = ()) -> Flag:
    """A flag whose request cannot be met: leaving it out silently would change the result."""
    return Flag(name, kind, versions, why, Effect.REFUSED, aliases, repeats=True)


# -- lookup -----------------------------------------------------------------------------------------
def by_name(groups: Mapping[str, Iterable[Flag]]) -> dict[str, Flag]:
    """Every flag under each of its names."""
    return {name: flag for flags in groups.values() for flag in flags for name in (flag.name, *flag.aliases)}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is spelt most like `name`, if any is."""
    by_text = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_text, 1, 0.5)
    return by_text[close[0]] if close else None
