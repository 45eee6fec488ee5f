# SPDX-License-Identifier: Apache-2.0
"""The container of a plan file: preamble, section table, aligned sections. docs/plan-format.md specifies it."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tensorwright.errors import PlanError
from tensorwright.memory import pieces

Bytes: TypeAlias = bytes | bytearray | memoryview
Data: TypeAlias = Bytes | Sequence[Bytes]
"""The content of a section, whole or as parts that follow one another."""

MAGIC: Final = b"\x89TWPLAN\n"
MAJOR: Final = 1  # readers refuse newer majors
MINOR: Final = 2  # newer minors only add sections and fields, which older readers skip
PREAMBLE_BYTES: Final = 64
SMALL_ALIGNMENT: Final = 64
PAGE: Final = 4096
BIG_BYTES: Final = 1 << 20  # from here a section starts on a page and is guarded by CRC-32, which reads at memory speed

_PREAMBLE: Final = struct.Struct("<8sHHIQQ32s")
_NAME: Final = re.compile(r"[a-z][a-z0-9_.]*(:[a-z0-9_.]+)?")
_MAX_TABLE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Section:
    """One line of the section table. `check` is `blake2b:<hex>` or `crc32:<hex>` of the section's bytes."""

    name: str
    offset: int
    size: int
    check: str


@dataclass(frozen=True, slots=True)
class Preamble:
    """What the first 64 bytes say."""

    minor: int
    table_bytes: int
    file_bytes: int
    digest: bytes


def parts_of(data: Data) -> Sequence[Bytes]:
    """The parts of a section's content."""
    return (data,) if isinstance(data, bytes | bytearray | memoryview) else data


def size_of(data: Data) -> int:
    """Bytes of a section's content."""
    return sum(map(len, parts_of(data)))


def checksum(data: Data, *, keep: bool = False) -> str:
    """The check of a section: BLAKE2b-256, or CRC-32 for a big one. `keep` is that of `memory.pieces`."""
    chunks = (piece for part in parts_of(data) for piece in pieces(part, keep=keep))
    if size_of(data) < BIG_BYTES:
        return f"blake2b:{hashlib.blake2b(b''.join(chunks), digest_size=32).hexdigest()}"
    check = 0
    for chunk in chunks:
        check = zlib.crc32(chunk, check)
    return f"crc32:{check:08x}"


def layout(sections: Sequence[tuple[str, Data]]) -> tuple[bytes, list[Section]]:
    """The head of the file (preamble and table) and where each section goes, in the given order."""
    checks = [checksum(data) for _, data in sections]
    table_bytes = 0
    while True:  # offsets depend on the table's length and it on their digits: grows at most a few times
        end, table = PREAMBLE_BYTES + table_bytes, []
        for (name, data), check in zip(sections, checks, strict=True):
            size = size_of(data)
            step = PAGE if size >= BIG_BYTES else SMALL_ALIGNMENT
            start = -(-end // step) * step
            table.append(Section(name, start, size, check))
            end = start + size
        text = to_json([[s.name, s.offset, s.size, s.check] for s in table])
        if len(text) <= table_bytes:
            break
        table_bytes = len(text)
    return _preamble(text.ljust(table_bytes), end), table


def _preamble(table: bytes, file_bytes: int) -> bytes:
    fields = (MAGIC, MAJOR, MINOR, len(table), file_bytes, 0)
    return _PREAMBLE.pack(*fields, _head_digest(_PREAMBLE.pack(*fields, bytes(32)), table)) + table


def _head_digest(preamble: bytes, table: Bytes) -> bytes:
    """BLAKE2b-256 of the preamble up to the digest, and the table."""
    state = hashlib.blake2b(preamble[:-32], digest_size=32)
    state.update(table)
    return state.digest()


def parse_preamble(head: bytes, where: str) -> Preamble:
    """Read the first bytes. Raises PlanError P101 (not a plan), P102 (newer version) or P103 (truncated)."""
    if not head.startswith(MAGIC) and (not head or not MAGIC.startswith(head)):
        raise PlanError(
            "this is not a Tensorwright plan",
            where=where,
            why=f"the file starts with {head[:8]!r}",
            do="give the file that `tensorwright build` or `engine.save` wrote",
            code="P101",
        )
    if len(head) < PREAMBLE_BYTES:
        raise truncated(where, PREAMBLE_BYTES, len(head))
    _, major, minor, table_bytes, file_bytes, reserved, digest = _PREAMBLE.unpack(head)
    if major > MAJOR:
        raise PlanError(
            f"the plan has format {major}.{minor}; this version of Tensorwright reads up to {MAJOR}.x",
            where=where,
            do="update Tensorwright, or build the plan again with this version",
            code="P102",
        )
    if major == 0 or reserved or not 0 < table_bytes <= _MAX_TABLE_BYTES:
        raise damaged("preamble", where)
    return Preamble(minor, table_bytes, file_bytes, digest)


def parse_table(head: bytes, table: bytes, preamble: Preamble, where: str) -> list[Section]:
    """Check and read the section table. Raises PlanError P104 when it is damaged or sections overlap."""
    if _head_digest(head, table) != preamble.digest:
        raise damaged("section table", where)
    sections, end = [], PREAMBLE_BYTES + preamble.table_bytes
    for row in from_json(table, "section table", where):
        match row:
            case [str(name), int(offset), int(size), str(check)] if (
                _NAME.fullmatch(name)
                and size >= 0
                and end <= offset <= preamble.file_bytes - size
                and offset % SMALL_ALIGNMENT == 0
            ):
                sections.append(Section(name, offset, size, check))
                end = offset + size
            case _:
                raise damaged("section table", where)
    if end != preamble.file_bytes or len({s.name for s in sections}) != len(sections):
        raise damaged("section table", where)
    return sections


def verify(section: Section, data: Bytes, where: str) -> None:
    """Raises PlanError P104, naming the section, when its bytes are not the ones written."""
    if checksum(data, keep=True) != section.check:
        raise damaged(f"section {section.name!r}", where)


def damaged(what: str, where: str, why: str = "its checksum does not match its bytes") -> PlanError:
    """The error for bytes that are not as written."""
    return PlanError(
        f"the plan is damaged: {what}", where=where, why=why, do="copy or build the plan again", code="P104"
    )


def truncated(where: str, expected: int, size: int) -> PlanError:
    """The error for a file that ends early."""
    return PlanError(
        "the plan is truncated",
        where=where,
        why=f"{size} bytes are there; {expected} were written",
        do="copy or build the plan again",
        code="P103",
    )


def malformed(what: str, where: str, why: str) -> PlanError:
    """The error for a section whose bytes are intact but whose content is not as documented."""
    return PlanError(
        f"the plan's {what} is not as the format says",
        where=where,
        why=why,
        do="build the plan again with this version of Tensorwright",
        code="P106",
    )


def to_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, so that equal content has equal bytes. NaN is refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def from_json(data: Bytes, what: str, where: str) -> list[object] | dict[str, object]:
    """Parse a JSON list or object. Raises PlanError P106 when it is neither."""
    try:
        value = json.loads(bytes(data).decode())
    except (ValueError, RecursionError) as error:
        raise malformed(what, where, str(error)) from None
    if not isinstance(value, list | dict):
        raise malformed(what, where, "expected a list or an object")
    return value
