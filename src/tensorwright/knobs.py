# SPDX-License-Identifier: Apache-2.0
"""Every environment variable, typed and self-listing. No other file reads `os.environ`.

knobs.THREADS.get()   # parsed and checked at each call, so tests may set variables at any time
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from tensorwright.errors import TensorwrightError

if TYPE_CHECKING:
    import logging

T = TypeVar("T")

LOG_TOPICS = ("build", "import", "passes", "lower", "tune", "run")


@dataclass(frozen=True, slots=True)
class Knob(Generic[T]):
    """One environment variable: `parse` turns its text into a value or raises ValueError saying what it takes."""

    name: str
    default: T
    help: str
    parse: Callable[[str], T]

    def get(self) -> T:
        """The value; the default when the variable is unset or empty. Raises TensorwrightError T101 on bad text."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise TensorwrightError(
                f"environment variable {self.name} is {text!r}",
                why=str(error),
                do=f"unset {self.name} or correct it ({self.help})",
                code="T101",
            ) from None

    def as_dict(self) -> dict[str, object]:
        """The knob for listings: name, default, whether it is set, value in force and help."""
        is_set = bool(os.environ.get(self.name, "").strip())
        return {
            "name": self.name,
            "default": _plain(self.default),
            "is_set": is_set,
            "value": _plain(self.get()),
            "help": self.help,
        }


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"it takes a whole number of at least {low}") from None
        if value < low:
            raise ValueError(f"it takes a whole number of at least {low}")
        return value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"it takes one of {', '.join(choices)}")
        return text.lower()

    return parse


def _topics(text: str) -> tuple[str, ...]:
    topics = tuple(part.strip() for part in text.split(",") if part.strip())
    if topics == ("all",):
        return LOG_TOPICS
    unknown = [topic for topic in topics if topic not in LOG_TOPICS]
    if unknown:
        raise ValueError(f"unknown topic {', '.join(unknown)}; there are {', '.join(LOG_TOPICS)} and all")
    return topics


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".cache") / "tensorwright"


THREADS: Knob[int | None] = Knob(
    "TENSORWRIGHT_THREADS", None, "most worker threads; default: the cores this process may use", _at_least(1)
)
SPIN_US: Knob[int] = Knob(
    "TENSORWRIGHT_SPIN_US", 50, "microseconds a worker waits actively for the next run before it sleeps", _at_least(0)
)
STOP_AFTER_EDITS: Knob[int | None] = Knob(
    "TENSORWRIGHT_STOP_AFTER_EDITS",
    None,
    "stop optimising after so many edits (to bisect a wrong result)",
    _at_least(0),
)
CHECK: Knob[str] = Knob(
    "TENSORWRIGHT_CHECK",
    "stage",
    "verify the graph never (off), after every edit or after every stage",
    _one_of("off", "edit", "stage"),
)
LOG: Knob[tuple[str, ...]] = Knob(
    "TENSORWRIGHT_LOG", (), f"topics to log on stderr, comma-separated: {', '.join(LOG_TOPICS)}, or all", _topics
)
CACHE: Knob[Path] = Knob(
    "TENSORWRIGHT_CACHE",
    _default_cache(),
    "folder of the timing cache, and of large weights that a build computes, while they are in use",
    lambda text: Path(text).expanduser(),
)

AnyKnob = Knob[int | None] | Knob[int] | Knob[str] | Knob[tuple[str, ...]] | Knob[Path]
ALL: tuple[AnyKnob, ...] = (THREADS, SPIN_US, STOP_AFTER_EDITS, CHECK, LOG, CACHE)
"""Every knob, for listings."""


def logger(topic: str) -> logging.Logger:
    """The logger of a topic of `LOG_TOPICS`; it writes to stderr when `TENSORWRIGHT_LOG` names the topic.

    An application may also configure `logging.getLogger("tensorwright")` as it likes.
    """
    import logging  # not at import time: most runs log nothing

    log = logging.getLogger(f"tensorwright.{topic}")
    if topic in LOG.get() and not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        log.propagate = False
    return log
