# SPDX-License-Identifier: Apache-2.0
"""Read a plan file: map it, check every byte, hand out sections without copying them."""

from __future__ import annotations

import os
from pathlib import Path

from tensorwright.errors import PlanError
from tensorwright.memory import map_file, release
from tensorwright.plan.format import (
    PREAMBLE_BYTES,
    Bytes,
    Section,
    damaged,
    malformed,
    parse_preamble,
    parse_table,
    truncated,
    verify,
)


class Container:
    """The verified sections of one plan. They are views of the mapped file, which lives as long as any of them."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.where = where
        self._data = data
        self._sections = {s.name: s for s in _checked(data, where)}

    @property
    def sections(self) -> tuple[Section, ...]:
        """The table, in file order."""
        return tuple(self._sections.values())

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def __getitem__(self, name: str) -> memoryview:
        """The bytes of a section (read-only). Raises PlanError P106 when the plan has none of that name."""
        section = self._sections.get(name)
        if section is None:
            raise malformed(f"section {name!r}", self.where, "it is missing")
        return self._data[section.offset : section.offset + section.size]


def open_container(source: str | os.PathLike[str] | Bytes) -> Container:
    """Open a plan from a path (memory-mapped) or from bytes, and verify all of it.

    Raises PlanError: P101 not a plan, P102 newer format, P103 truncated, P104 damaged (the section is named),
    P107 the file cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Container(memoryview(source).toreadonly().cast("B"), "plan in memory")
    path = Path(source)
    try:
        data = map_file(path).data
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the plan cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            do="check the path and its permissions",
            code="P107",
        ) from error
    return Container(data, str(path))


def _checked(data: memoryview, where: str) -> list[Section]:
    head = bytes(data[:PREAMBLE_BYTES])
    preamble = parse_preamble(head, where)
    if len(data) < preamble.file_bytes:
        raise truncated(where, preamble.file_bytes, len(data))
    if len(data) > preamble.file_bytes:
        raise damaged("end of file", where, f"{len(data)} bytes are there; {preamble.file_bytes} were written")
    end = PREAMBLE_BYTES + preamble.table_bytes
    sections = parse_table(head, bytes(data[PREAMBLE_BYTES:end]), preamble, where)
    for section in sections:
        if any(data[end : section.offset]):
            raise damaged(f"padding before section {section.name!r}", where, "it is not zero")
        end = section.offset + section.size
        verify(section, data[section.offset : end], where)
        if section.name == "constants":  # to run, nobody reads them
            release(data[section.offset : end])
    return sections
