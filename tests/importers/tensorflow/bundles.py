# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints without TensorFlow, byte by byte as the formats say."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorwright.importers.tensorflow.schema import BundleEntry, BundleHeader
from tests.importers.tensorflow.graphs import NUMBERS

Array = np.ndarray[Any, Any]
MAGIC = 0xDB4775248B80FB57


def crc32c(data: bytes) -> int:
    """Bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """As checkpoints store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def snappy(data: bytes) -> bytes:
    """Literals, and copies of what came 8 bytes before."""
    out, at = bytearray(varint(len(data))), 0
    while at < len(data):
        length = 0
        while length < 60 and 8 <= at and at + length < len(data) and data[at + length] == data[at + length - 8]:
            length += 1
        if length >= 4:
            out += bytes([(length - 1) << 2 | 2]) + (8).to_bytes(2, "little")
            at += length
        else:
            part = data[at : at + 70]
            out += bytes([60 << 2, len(part) - 1]) if len(part) > 60 else bytes([(len(part) - 1) << 2])
            out += part
            at += len(part)
    return bytes(out)


def block(entries: Sequence[tuple[bytes, bytes]], restart_every: int = 3) -> bytes:
    """Keys and values; a key leaves out what it shares with the one before."""
    out, restarts, before = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart_every == 0:
            restarts.append(len(out))
        else:
            shared = next((i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), len(before))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    for place in restarts or [0]:
        out += place.to_bytes(4, "little")
    return bytes(out) + len(restarts or [0]).to_bytes(4, "little")


def table(entries: Mapping[bytes, bytes], *, per_block: int = 5, packed: bool = False) -> bytes:
    """A sorted table."""
    out, index = bytearray(), []
    items = sorted(entries.items())

    def put(content: bytes) -> bytes:
        kind, place = b"\x01" if packed else b"\x00", len(out)
        content = snappy(content) if packed else content
        out.extend(content + kind + masked(content + kind).to_bytes(4, "little"))
        return varint(place) + varint(len(content))

    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        index.append((part[-1][0], put(block(part))))
    ends = put(block([])) + put(block(index))
    return bytes(out) + ends.ljust(40, b"\x00") + MAGIC.to_bytes(8, "little")


def ordered(number: int) -> bytes:
    """A small signed number as keys hold it."""
    assert -64 <= number < 64
    return bytes([0x80 ^ (number & 0xFF)])


def slice_key(name: str, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key of a part of a tensor."""
    ends = b"".join(ordered(start) + ordered(length) for start, length in extents)
    return b"\x00" + name.encode() + b"\x00\x01" + bytes([1, len(extents)]) + ends


class BundleWriter:
    """A checkpoint under construction."""

    def __init__(self, shards: int = 1) -> None:
        self.entries: dict[bytes, bytes] = {b"": BundleHeader(num_shards=shards).SerializeToString()}
        self.data = [bytearray() for _ in range(shards)]

    def entry(self, array: Array, shard: int = 0) -> Any:
        """Store the bytes; the entry for them."""
        content, at = np.ascontiguousarray(array).tobytes(), len(self.data[shard])
        self.data[shard] += content
        entry = BundleEntry(dtype=NUMBERS[array.dtype.name], shard_id=shard, offset=at, size=len(content))
        entry.crc32c = masked(content)
        for size in array.shape:
            entry.shape.dim.add(size=size)
        entry.shape.SetInParent()
        return entry

    def add(self, key: str, array: Array, shard: int = 0) -> None:
        """A whole tensor."""
        self.entries[key.encode()] = self.entry(array, shard).SerializeToString()

    def add_parts(self, key: str, array: Array, bounds: Sequence[int], *, full: bool) -> None:
        """A tensor in parts along axis 0; other dims are written as whole ones (`full`) or by their sizes."""
        whole = BundleEntry(dtype=NUMBERS[array.dtype.name])
        for size in array.shape:
            whole.shape.dim.add(size=size)
        for start, end in zip([0, *bounds], [*bounds, len(array)], strict=True):
            proto, extents = whole.slices.add(), [(start, end - start)]
            proto.extent.add(start=start, length=end - start)
            for size in array.shape[1:]:
                proto.extent.add(**({} if full else {"length": size}))
                extents.append((0, -1 if full else size))
            self.entries[slice_key(key, extents)] = self.entry(array[start:end]).SerializeToString()
        self.entries[key.encode()] = whole.SerializeToString()

    def add_text(self, key: str, text: bytes) -> None:
        """One text."""
        content, at = varint(len(text)) + b"\x00" * 4 + text, len(self.data[0])
        self.data[0] += content
        entry = BundleEntry(dtype=7, offset=at, size=len(content))
        entry.shape.SetInParent()
        self.entries[key.encode()] = entry.SerializeToString()

    def save(self, prefix: pathlib.Path, **options: Any) -> pathlib.Path:
        """Write the files."""
        prefix.parent.mkdir(parents=True, exist_ok=True)
        prefix.with_name(f"{prefix.name}.index").write_bytes(table(self.entries, **options))
        for number, data in enumerate(self.data):
            prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{len(self.data):05d}").write_bytes(data)
        return prefix
