# SPDX-License-Identifier: Apache-2.0
"""Sorted tables in LevelDB's format (its doc/table_format.md), in which TensorFlow keeps the index of a checkpoint."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.tensorflow.checksum import crc32c, masked
from tensorwright.importers.wire import MalformedError, read_varint
from tensorwright.ir.op import Array

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # a byte for the compression, four for the checksum
_PLAIN, _SNAPPY = 0, 1
_MOST_UNPACKED = 64 << 20  # bytes of one block
_MOST_ENTRIES = 1 << 22


def read_table(data: Array) -> dict[bytes, bytes]:
    """All entries of the table in u8[size]. Raises MalformedError."""
    if data.size < _FOOTER or int.from_bytes(data[-8:].tobytes(), "little") != _MAGIC:
        raise MalformedError("the end of the file is not that of a table")
    start = data.size - _FOOTER
    _, at = _handle(data, start, data.size - 8)
    index, _ = _handle(data, at, data.size - 8)
    entries: dict[bytes, bytes] = {}
    for _, value in _entries(_block(data, index)):
        handle, _ = _handle_in(value)
        for key, content in _entries(_block(data, handle)):
            entries[key] = content
            if len(entries) > _MOST_ENTRIES:
                raise MalformedError(f"the table has more than {_MOST_ENTRIES} entries")
    return entries


def _handle(data: Array, at: int, end: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, at = read_varint(data, at, end)
    size, at = read_varint(data, at, end)
    return (offset, size), at


def _handle_in(value: bytes) -> tuple[tuple[int, int], int]:
    return _handle(np.frombuffer(value, np.uint8), 0, len(value))


def _block(data: Array, handle: tuple[int, int]) -> bytes:
    """The content of a block, checked and unpacked."""
    offset, size = handle
    end = offset + size
    if end + _TRAILER > data.size - _FOOTER:
        raise MalformedError(f"a block of {size} bytes at {offset} ends after the file's {data.size} bytes")
    kind = int(data[end])
    if masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + _TRAILER].tobytes(), "little"):
        raise MalformedError(f"the checksum of the block at {offset} does not fit: bytes of it have changed")
    content = data[offset:end].tobytes()
    if kind == _PLAIN:
        return content
    if kind != _SNAPPY:
        raise MalformedError(f"the block at {offset} is packed in way {kind}, which is not known")
    return unpacked(content)


def _entries(block: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values of a block; a key begins with a part of the one before."""
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (count + 1)
    if len(block) < 4 or end < 0:
        raise MalformedError(f"a block of {len(block)} bytes has {count} restarts")
    data = np.frombuffer(block, np.uint8)
    entries: list[tuple[bytes, bytes]] = []
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(data, at, end)
        own, at = read_varint(data, at, end)
        size, at = read_varint(data, at, end)
        if shared > len(key) or at + own + size > end:
            raise MalformedError(f"an entry ends after its block of {end} bytes")
        key = key[:shared] + block[at : at + own]
        entries.append((key, block[at + own : at + own + size]))
        at += own + size
    return entries


def unpacked(data: bytes) -> bytes:
    """The bytes that Snappy packed (its format_description.txt). Raises MalformedError."""
    size, at = read_varint(np.frombuffer(data, np.uint8), 0, len(data))
    if size > _MOST_UNPACKED:
        raise MalformedError(f"a packed block has {size} bytes")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        kind, at = tag & 3, at + 1
        if kind == 0:
            length, at = _literal_length(data, tag >> 2, at)
            if at + length > len(data):
                raise MalformedError("a packed block is cut short")
            out += data[at : at + length]
            at += length
        else:
            width = (1, 2, 4)[kind - 1]
            low = int.from_bytes(data[at : at + width], "little")
            length = (tag >> 2 & 7) + 4 if kind == 1 else (tag >> 2) + 1
            offset = (tag >> 5 << 8) + low if kind == 1 else low
            if at + width > len(data) or not 0 < offset <= len(out):
                raise MalformedError("a packed block repeats what is not there")
            at += width
            part = out[-offset:][:length]
            out += (part * (length // len(part) + 1))[:length]
        if len(out) > size:
            break
    if len(out) != size:
        raise MalformedError(f"a packed block has {len(out)} bytes, {size} were expected")
    return bytes(out)


def _literal_length(data: bytes, code: int, at: int) -> tuple[int, int]:
    """The length of a run of plain bytes, and where it begins."""
    if code < 60:
        return code + 1, at
    width = code - 59
    return int.from_bytes(data[at : at + width], "little") + 1, at + width
