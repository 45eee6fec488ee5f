# SPDX-License-Identifier: Apache-2.0
"""The timing cache: a readable file of tuning records, one line of JSON for each target and workload.

Saving appends lines; a later line replaces an earlier one of the same target and workload. Lines are parsed when they
are asked for: a build pays for the workloads it has, not for all that were ever tuned. A cache may come from anywhere:
what cannot be read, belongs to another format or to another target is not used, and is never an error; `notes` say so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tensorwright import knobs
from tensorwright.tune.record import Record

FORMAT: Final = 2
_HEAD: Final = f'{{"tensorwright_tuning": {FORMAT}}}'
_PLACE_ENDS: Final = ', "mode": '  # what follows target and workload in a line; no JSON string holds it unescaped


class TuningCache:
    """Records by target key and workload key. Read at construction, written by `save`.

    `path` None keeps everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.notes: list[str] = []
        self._changed: dict[str, Record] = {}
        self._lines: dict[str, str] = {}
        self._replaced = 0  # lines of the file that later ones replace
        if path is not None:
            try:
                self._lines, self._replaced = _read(path)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                self.notes.append(f"timing cache {path} is ignored: {error}")

    @staticmethod
    def open(path: str | os.PathLike[str] | None = None) -> TuningCache:
        """The cache at `path`, or the user's own (folder: TENSORWRIGHT_CACHE)."""
        return TuningCache(knobs.CACHE.get() / "tuning.jsonl" if path is None else Path(path))

    def get(self, target: str, workload: str) -> Record | None:
        """The record of a workload, if any."""
        place = _place(target, workload)
        line = self._lines.get(place)
        if place in self._changed or line is None:
            return self._changed.get(place)
        try:
            return Record.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.notes.append(f"a damaged record of timing cache {self.path} is ignored: {error}")
            return None

    def put(self, target: str, workload: str, record: Record) -> None:
        """Add a record, or replace the one there is."""
        self._changed[_place(target, workload)] = record

    def save(self) -> None:
        """Add new records to the file; when that is impossible a note says so and the old ones stay."""
        if self.path is None or not self._changed:
            return
        lines = {place: _line(place, record) for place, record in self._changed.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_name(self.path.name + ".lock")):
                if not _is_ours(self.path):
                    self.notes.append(f"timing cache {self.path} was not saved: the file there is of another kind")
                    return
                if self._replaced > len(self._lines):
                    self._compact(self.path)
                with self.path.open("a", encoding="utf-8") as file:
                    # Newlines come first, so that lines stay whole behind one that was cut short.
                    file.write(("" if file.tell() else _HEAD) + "".join(f"\n{line}" for line in lines.values()))
        except OSError as error:
            self.notes.append(f"timing cache {self.path} was not saved: {error.strerror or error}")
        else:
            self._replaced += sum(place in self._lines for place in lines)
            self._lines |= lines
            self._changed = {}

    def _compact(self, path: Path) -> None:
        """Write the file again without replaced lines, when most of them are."""
        lines, _ = _read(path)  # other processes may have added some
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            temporary.write_text("\n".join((_HEAD, *(lines[place] for place in sorted(lines)))), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        self._replaced = 0


def _read(path: Path) -> tuple[dict[str, str], int]:
    """The last line of each place, unparsed, and the number of lines before them. Raises OSError, ValueError."""
    head, *lines = path.read_text(encoding="utf-8").split("\n")
    if head != _HEAD:
        raise ValueError(f"it is not a timing cache of format {FORMAT}")
    found = {line.partition(_PLACE_ENDS)[0]: line for line in lines}
    return found, len(lines) - len(found)


def _place(target: str, workload: str) -> str:
    """How the line of a workload begins."""
    return f'{{"target": {json.dumps(target)}, "workload": {json.dumps(workload)}'


def _line(place: str, record: Record) -> str:
    return f"{place}, {json.dumps(record.as_dict())[1:]}"


def _is_ours(path: Path) -> bool:
    """Whether the file may be written to: it is absent, empty, or a cache of this format, be it damaged."""
    try:
        with path.open("rb") as file:
            head = file.readline(len(_HEAD) + 1)
    except FileNotFoundError:
        return True
    return not head or head.decode(errors="replace") in (_HEAD, _HEAD + "\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among processes; goes on without where the file system has none."""
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
