# SPDX-License-Identifier: Apache-2.0
"""What is printed: lines with a time and a level, as scripts know them."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator
from typing import IO

_LETTERS = {logging.DEBUG: "V", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}


class Log:
    """Writes `[MM/DD/YYYY-HH:MM:SS] [I] text`; lines of level V only when `verbose`.

    `seen` keeps what the library itself logged.
    """

    def __init__(self, stream: IO[str], verbose: bool = False) -> None:
        self.stream, self.verbose = stream, verbose
        self.seen: list[str] = []

    def raw(self, line: str) -> None:
        """A line as it is. What the stream cannot encode (bytes in the name of a file, say) is escaped."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()

    def write(self, letter: str, text: str) -> None:
        """Lines of one level."""
        if letter == "V" and not self.verbose:
            return
        now = datetime.datetime.now().strftime("%m/%d/%Y-%H:%M:%S")
        self.raw("\n".join(f"[{now}] [{letter}] {line}".rstrip() for line in text.split("\n")))

    def info(self, text: str = "") -> None:
        """What happens."""
        self.write("I", text)

    def warning(self, text: str) -> None:
        """What the user should know."""
        self.write("W", text)

    def error(self, text: str) -> None:
        """Why it failed."""
        self.write("E", text)

    def detail(self, text: str) -> None:
        """For --verbose only."""
        self.write("V", text)

    @contextlib.contextmanager
    def library(self) -> Iterator[None]:
        """Print what the library logs as well, marked [TW]."""
        root = logging.getLogger("tensorwright")
        handler = _Handler(self)
        before = root.level, root.propagate
        root.addHandler(handler)
        root.propagate = False
        root.setLevel(logging.DEBUG if self.verbose else min(root.level or logging.WARNING, logging.WARNING))
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(before[0])
            root.propagate = before[1]


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._log.seen.append(text)
        level = max((known for known in _LETTERS if known <= record.levelno), default=logging.DEBUG)
        self._log.write(_LETTERS[level], f"[TW] {text}")
