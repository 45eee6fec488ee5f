# SPDX-License-Identifier: Apache-2.0
"""Protobuf's encoding, as far as large data must be found in a message without protobuf copying it
(protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from collections.abc import Iterator

from tensorwright.ir.op import Array

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


class MalformedError(ValueError):
    """The bytes are no protobuf message."""


def fields(data: Array, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, start, start of the content, end) of each field of the message in data[start:end] of
    u8[size]. Raises MalformedError."""
    at = start
    while at < end:
        tag, body = read_varint(data, at, end)
        kind, last = tag & 7, body
        if kind == VARINT:
            last = read_varint(data, body, end)[1]
        elif kind == BYTES:
            size, body = read_varint(data, body, end)
            last = body + size
        elif kind in (FIXED32, FIXED64):
            last = body + (4 if kind == FIXED32 else 8)
        else:
            raise MalformedError(f"wire type {kind} at {at}")
        if last > end or tag >> 3 == 0:
            raise MalformedError(f"field {tag >> 3} at {at} ends at {last}, after {end}")
        yield tag >> 3, kind, at, body, last
        at = last


def read_varint(data: Array, at: int, end: int) -> tuple[int, int]:
    """(number, position after it). Raises MalformedError."""
    number = shift = 0
    while True:
        if at >= end or shift > 63:
            raise MalformedError(f"a number at {at} does not end")
        byte = int(data[at])
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def varint(number: int) -> bytes:
    """The encoding of a number that is not negative."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
