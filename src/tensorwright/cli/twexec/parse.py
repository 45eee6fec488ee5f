# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to flags with values: `--name=value`, or `--name value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorwright.cli.twexec.flags import Flag, nearest
from tensorwright.cli.twexec.table_run import FLAGS
from tensorwright.errors import TensorwrightError


@dataclass(frozen=True, slots=True)
class Given:
    """One flag of a command line, as it was spelt (`name`), with its value; a switch has True."""

    flag: Flag
    name: str
    value: Any


class CommandLine:
    """The flags of a command line, in order."""

    def __init__(self, given: Sequence[Given]) -> None:
        self.given = tuple(given)

    def has(self, name: str) -> bool:
        """Whether the flag of this (first) name was given."""
        return any(g.flag.name == name for g in self.given)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a flag that is given once."""
        return next((g.value for g in reversed(self.given) if g.flag.name == name), default)

    def all(self, name: str) -> list[Any]:
        """The values of a flag that may be repeated, in order."""
        return [g.value for g in self.given if g.flag.name == name]


def parse(words: Sequence[str]) -> CommandLine:
    """Read the words after the program's name.

    Raises TensorwrightError T120 with all that is wrong with single words: an unknown flag (with the nearest known
    one), a missing or wrong value, a flag given twice.
    """
    given: list[Given] = []
    problems: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        flag = FLAGS.get(name.removeprefix("--")) if name.startswith("--") else None
        if flag is None:
            problems.append(_unknown(word, name))
            if not equals and name.startswith("--") and rest and not rest[0].startswith("-"):
                rest.pop(0)  # most likely its value
            continue
        try:
            value = _value(flag, text if equals else None, rest)
        except ValueError as error:
            problems.append(f"{name}: {error}" + (f", not {text!r}" if equals and not flag.kind.is_switch else ""))
            continue
        given.append(Given(flag, name.removeprefix("--"), value))
    problems += _repeated(given)
    if problems:
        count = "a mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise TensorwrightError(
            f"the command line has {count}",
            why=problems,
            do="correct it; `twexec --help` lists all flags",
            code="T120",
        )
    return CommandLine(given)


def _value(flag: Flag, text: str | None, rest: list[str]) -> Any:
    """The value of a flag, from behind its `=` or from the next word. Raises ValueError."""
    kind = flag.kind
    if kind.is_switch:
        if text is not None:
            raise ValueError("it takes no value")
        return True
    if text is None and kind.optional:
        return True
    if text is None:
        if not rest or rest[0].startswith("--"):
            raise ValueError(f"it needs a value, {kind.shown}")
        text = rest.pop(0)
        try:
            return kind.parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, not {text!r}") from None
    return kind.parse(text)


def _unknown(word: str, name: str) -> str:
    if not word.startswith("-"):
        return f"{word!r} belongs to no flag"
    close = nearest(name.lstrip("-"), FLAGS)
    return f"there is no flag {name}" + (f"; did you mean --{close}?" if close else "")


def _repeated(given: Sequence[Given]) -> list[str]:
    """Flags with two different values, of those that can have one only."""
    first: dict[str, Given] = {}
    problems = []
    for g in given:
        before = first.setdefault(g.flag.name, g)
        if before.value != g.value and not g.flag.repeats:
            names = dict.fromkeys((f"--{before.name}", f"--{g.name}"))
            problems.append(f"{' and '.join(names)} give two values, {before.value} and {g.value}")
    return problems
