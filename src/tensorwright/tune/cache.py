# SPDX-License-Identifier: Apache-2.0
"""The timing cache: a readable JSON file of tuning records, by target and workload.

A cache may come from anywhere: what cannot be read, belongs to another format or to another target is not used,
and is never an error; `notes` say so. Saving merges with what other processes wrote meanwhile, and replaces the
file in one step.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tensorwright import knobs
from tensorwright.tune.record import Record

FORMAT: Final = 1
_MARK = "tensorwright_tuning"
_HEAD = f'{{"{_MARK}": {FORMAT},'
_Records = dict[str, dict[str, Record]]


class TuningCache:
    """Records by target key, then by workload key. Read at construction, written by `save`.

    `path` None keeps everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.notes: list[str] = []
        self._changed: _Records = {}
        self._records: _Records = self._read(note=True)

    @staticmethod
    def open(path: str | os.PathLike[str] | None = None) -> TuningCache:
        """The cache at `path`, or the user's own (folder: TENSORWRIGHT_CACHE)."""
        return TuningCache(knobs.CACHE.get() / "tuning.json" if path is None else Path(path))

    def get(self, target: str, workload: str) -> Record | None:
        """The record of a workload, if any."""
        return self._records.get(target, {}).get(workload)

    def put(self, target: str, workload: str, record: Record) -> None:
        """Add a record, or replace the one there is."""
        for records in (self._records, self._changed):
            records.setdefault(target, {})[workload] = record

    def save(self) -> None:
        """Write new records to the file; when that is impossible a note says so and the old file stays."""
        if self.path is None or not self._changed:
            return
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_name(self.path.name + ".lock")):
                if not _is_ours(self.path):
                    self.notes.append(f"timing cache {self.path} was not saved: the file there is of another kind")
                    return
                merged = self._read(note=False)
                for target, records in self._changed.items():
                    merged.setdefault(target, {}).update(records)
                temporary.write_text(_text(merged), encoding="utf-8")
                os.replace(temporary, self.path)
        except OSError as error:
            self.notes.append(f"timing cache {self.path} was not saved: {error.strerror or error}")
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        else:
            self._records, self._changed = merged, {}

    def _read(self, *, note: bool) -> _Records:
        if self.path is None:
            return {}
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(data, dict) or data.get(_MARK) != FORMAT:
                raise ValueError(f"it is not a timing cache of format {FORMAT}")
            return _parse(data["targets"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if note:
                self.notes.append(f"timing cache {self.path} is ignored: {error}")
            return {}


def _is_ours(path: Path) -> bool:
    """Whether the file may be replaced: it is absent, empty, or a cache of this format, be it damaged."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
    except FileNotFoundError:
        return True
    return not head or head == _HEAD.encode()


def _parse(targets: Any) -> _Records:
    return {
        str(target): {str(key): Record.from_dict(entry) for key, entry in records.items()}
        for target, records in targets.items()
    }


def _text(records: _Records) -> str:
    """One line per outcome, sorted by target and workload: readable, and small in a diff."""

    def entry(record: Record) -> str:
        head = f'"mode": {json.dumps(record.mode)}, "families": {json.dumps(record.families)}, "outcomes": ['
        lines = ",\n".join(f"   {json.dumps(o.as_dict())}" for o in record.outcomes)
        return f"{{{head}\n{lines}\n  ]}}"

    targets = []
    for target, workloads in sorted(records.items()):
        inner = ",\n".join(f"  {json.dumps(key)}: {entry(record)}" for key, record in sorted(workloads.items()))
        targets.append(f" {json.dumps(target)}: {{\n{inner}\n }}")
    return f'{_HEAD} "targets": {{\n' + ",\n".join(targets) + "\n}}\n"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among processes; goes on without where the file system has none."""
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
