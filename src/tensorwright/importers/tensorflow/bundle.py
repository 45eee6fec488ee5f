# SPDX-License-Identifier: Apache-2.0
"""A checkpoint as TensorFlow writes it ("tensor bundle"): a table of entries, and files with the bytes of tensors."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, mapped
from tensorwright.importers.tensorflow.checksum import crc32c, masked
from tensorwright.importers.tensorflow.schema import BundleEntry, BundleHeader
from tensorwright.importers.tensorflow.table import read_table
from tensorwright.importers.tensorflow.tensors import STRING, dtype_of
from tensorwright.importers.wire import MalformedError, read_varint
from tensorwright.ir.op import Array

_LITTLE = 0
_MOST_SHARDS = 100_000
Part = tuple[tuple[int, int], ...]
"""Start and length along each dim."""


class Bundle:
    """The tensors of the checkpoint `prefix`.index, `prefix`.data-*: views of the mapped files.

    Raises ModelError M101 (no index), M102, M103 (the index is damaged) and M108 (a tensor is).
    """

    def __init__(self, prefix: pathlib.Path) -> None:
        self.prefix, self.where = prefix, f"{prefix}.index"
        data = mapped(self.where, "checkpoint")
        check_format(data[:64].tobytes(), self.where, "a TensorFlow checkpoint", "checkpoint")
        try:
            self._entries = read_table(data)
            header = BundleHeader.FromString(self._entries.pop(b"", b""))
        except (MalformedError, DecodeError) as error:
            raise ModelError(
                "the file is not the index of a TensorFlow checkpoint, or is damaged",
                where=self.where,
                why=str(error),
                do="copy or export the model again",
                code="M103",
            ) from error
        if header.endianness != _LITTLE or not 0 < header.num_shards <= _MOST_SHARDS:
            raise ModelError(
                "the checkpoint cannot be read",
                where=self.where,
                why="its tensors are stored big-endian"
                if header.endianness != _LITTLE
                else f"it says that it has {header.num_shards} files of tensors",
                do="export the model again, on a little-endian machine",
                code="M103",
            )
        self._shards = header.num_shards
        self._files: dict[int, Array] = {}
        self._joined: dict[str, Array] = {}  # tensors that are stored in parts

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._entries

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return [key.decode("utf-8", "replace") for key in self._entries if not key.startswith(b"\x00")]

    def array(self, key: str, part: Part | None = None) -> Array:
        """A tensor, or a part of it. Raises ModelError M108, UnsupportedTypeError for text and its like."""
        entry = self._entry(key.encode(), key)
        for proto in entry.slices:
            if part is not None and _part(proto, _sizes(entry)) == part:
                return self._whole(self._entry(_slice_key(key, proto), key), key)
        whole = self._in_parts(entry, key) if entry.slices else self._whole(entry, key)
        if part is None:
            return whole
        if len(part) != whole.ndim or any(
            not 0 <= start <= start + size <= dim for (start, size), dim in zip(part, whole.shape, strict=True)
        ):
            self._refuse(key, f"the part {part} of a tensor of the shape {list(whole.shape)} is wanted")
        return whole[tuple(slice(start, start + size) for start, size in part)]

    def text(self, key: str) -> bytes:
        """A tensor with one text. Raises ModelError M108."""
        entry = self._entry(key.encode(), key)
        if entry.dtype != STRING or math.prod(_sizes(entry)) != 1:
            self._refuse(key, "one text is expected")
        content = self._content(entry, key)
        try:
            size, at = read_varint(content, 0, content.size)
        except MalformedError as error:
            self._refuse(key, str(error))
        if at + 4 + size != content.size:
            self._refuse(key, f"a text of {size} bytes is stored in {content.size}")
        return content[at + 4 :].tobytes()  # after the checksum of the length

    # -- one tensor -----------------------------------------------------------------------------
    def _entry(self, stored: bytes, key: str) -> Any:
        try:
            return BundleEntry.FromString(self._entries[stored])
        except KeyError:
            self._refuse(key, "the checkpoint has no such tensor")
        except DecodeError as error:
            self._refuse(key, f"its entry is damaged: {error}")

    def _whole(self, entry: Any, key: str) -> Array:
        dtype, sizes, content = dtype_of(entry.dtype), _sizes(entry), self._content(entry, key)
        if min(sizes, default=0) < 0 or content.size != math.prod(sizes) * dtype.numpy.itemsize:
            self._refuse(key, f"{dtype}{sizes} is stored in {content.size} bytes")
        if entry.HasField("crc32c") and masked(crc32c(content)) != entry.crc32c:
            self._refuse(key, "its checksum does not fit: bytes of it have changed")
        return content.view(dtype.numpy).reshape(sizes)

    def _content(self, entry: Any, key: str) -> Array:
        data = self._file(entry.shard_id, key)
        if not 0 <= entry.offset <= entry.offset + entry.size <= data.size:
            self._refuse(
                key, f"its {entry.size} bytes at {entry.offset} end after the {data.size} bytes of {self._name(entry)}"
            )
        return data[entry.offset : entry.offset + entry.size]

    def _name(self, entry: Any) -> str:
        return self._path(entry.shard_id).name

    def _path(self, shard: int) -> pathlib.Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self._shards:05d}")

    def _file(self, shard: int, key: str) -> Array:
        if not 0 <= shard < self._shards:
            self._refuse(key, f"it lies in file {shard} of {self._shards}")
        if shard not in self._files:
            try:
                self._files[shard] = mapped(self._path(shard), "checkpoint")
            except ModelError as error:
                self._refuse(key, f"{error.what}: {error.where}")
        return self._files[shard]

    def _in_parts(self, entry: Any, key: str) -> Array:
        """A tensor that is stored in parts, joined once."""
        if key not in self._joined:
            sizes = _sizes(entry)
            dtype, parts = dtype_of(entry.dtype), [_part(proto, sizes) for proto in entry.slices]
            if any(len(proto.extent) != len(sizes) for proto in entry.slices):
                self._refuse(key, f"a part does not have the {len(sizes)} dims of the tensor")
            stored = [self._whole(self._entry(_slice_key(key, proto), key), key) for proto in entry.slices]
            if min(sizes, default=0) < 0 or sum(a.size for a in stored) != math.prod(sizes):
                self._refuse(key, f"its parts do not make up {dtype}{sizes}")
            whole = np.empty(sizes, dtype.numpy)  # no larger than what is stored
            for part, array in zip(parts, stored, strict=True):
                place = tuple(slice(start, start + size) for start, size in part)
                if array.dtype != whole.dtype or whole[place].shape != array.shape:
                    self._refuse(key, f"its part {part} is {array.dtype}{list(array.shape)}")
                whole[place] = array
            self._joined[key] = whole
        return self._joined[key]

    def _refuse(self, key: str, why: str) -> NoReturn:
        raise ModelError(
            f"the variable {key!r} cannot be read",
            where=self.where,
            why=why,
            do="copy or export the model again, with all files of its folder",
            code="M108",
        )


def parse_part(text: str) -> Part | None:
    """What a saver's shape_and_slices says: sizes of the whole, then `start,length` or `-` for each dim, as in
    "10 4 0,5:-"; None for "". Raises ValueError."""
    if not text:
        return None
    *sizes, spec = text.split(" ")
    extents = spec.split(":")
    if len(extents) != len(sizes):
        raise ValueError(f"{text!r} does not describe a part of a tensor")
    part = []
    for size, extent in zip(sizes, extents, strict=True):
        start, length = (0, int(size)) if extent == "-" else map(int, extent.split(","))
        part.append((start, length))
    return tuple(part)


def _sizes(entry: Any) -> list[int]:
    return [dim.size for dim in entry.shape.dim]


def _part(proto: Any, sizes: Sequence[int]) -> Part:
    """The part that a TensorSliceProto says; an extent without a length is the whole dim."""
    return tuple(
        (extent.start, extent.length if extent.HasField("length") else size)
        for extent, size in zip(proto.extent, sizes, strict=False)
    )


# -- keys of parts: numbers and text so that bytes sort as they do ("ordered code") -------------------
def _slice_key(key: str, proto: Any) -> bytes:
    """Under which key a part of a tensor is stored. A whole dim is written as start 0, length -1."""
    out = bytearray(_unsigned(0) + key.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x01")
    out += _unsigned(len(proto.extent))
    for extent in proto.extent:
        out += _signed(extent.start) + _signed(extent.length if extent.HasField("length") else -1)
    return bytes(out)


def _unsigned(number: int) -> bytes:
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes([len(content)]) + content


def _signed(number: int) -> bytes:
    """A number in two's complement; as many leading bits as it has bytes are inverted, of 8 in each byte 7 count."""
    magnitude = ~number if number < 0 else number
    count = magnitude.bit_length() // 7 + 1
    header = ((1 << count) - 1) << (8 * count - count)
    return ((number & ((1 << 8 * count) - 1)) ^ header).to_bytes(count, "big")
