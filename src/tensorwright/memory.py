# SPDX-License-Identifier: Apache-2.0
"""Large data without copies: files mapped for reading, anonymous pages, and arrays compared by their bytes."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Generic, TypeVar

import numpy as np

from tensorwright import knobs

Array = np.ndarray[Any, Any]
Bytes = bytes | bytearray | memoryview
T = TypeVar("T")

PIECE: Final = 16 << 20  # bytes of a large array that are read at once
LARGE: Final = 16 << 20  # arrays from here on are worth a file of their own
_HUGE_PAGE: Final = 2 << 20
_SAMPLES, _SAMPLE = 64, 256  # of an array that is larger than both together, so much is hashed


class _FileMapping(mmap.mmap):
    """A whole file, mapped for reading."""

    file: BinaryIO
    address: int
    stamp: tuple[int, int]


# -- files ------------------------------------------------------------------------------------------
def map_file(path: str | os.PathLike[str]) -> Array:
    """The bytes of a file, u8[size], mapped read-only; they stay mapped as long as any view of them lives.

    What is no regular file (a pipe) is read instead. Raises OSError.
    """
    with open(path, "rb") as file:
        return _mapped(file)


def _mapped(file: BinaryIO) -> Array:
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode) or not about.st_size:  # an empty file cannot be mapped
        return np.frombuffer(file.read(), np.uint8)
    mapping = _FileMapping(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapping, np.uint8)
    mapping.file = os.fdopen(os.dup(file.fileno()), "rb")
    mapping.address, mapping.stamp = data.ctypes.data, (about.st_size, about.st_mtime_ns)
    return data


def release(array: Array | Bytes) -> None:
    """Let go of the memory behind a view of a mapped file: the system reads the pages again if they are used again.

    Does nothing for other arrays, whose memory is their only copy.
    """
    mapping = _mapping_of(array)
    if mapping is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first, end = np.lib.array_utils.byte_bounds(np.asarray(array))
    start = (first - mapping.address) // mmap.PAGESIZE * mmap.PAGESIZE
    if end - mapping.address > start:
        mapping.madvise(mmap.MADV_DONTNEED, start, end - mapping.address - start)


def has_changed(array: Array | Bytes) -> bool:
    """Whether the mapped file behind a view was written to after it was mapped: its bytes may then be others."""
    mapping = _mapping_of(array)
    if mapping is None:
        return False
    about = os.fstat(mapping.file.fileno())
    return (about.st_size, about.st_mtime_ns) != mapping.stamp


def filed(array: Array) -> Array:
    """The array in C order; a large one as a read-only view of a file without a name that vanishes with the last view.

    The system may then drop its pages, as it may those of the model's own file. The file lies in the folder
    `TENSORWRIGHT_CACHE`; where that has no room the array stays in memory, and the log says so.
    """
    if array.nbytes < LARGE or (array.flags.c_contiguous and _mapping_of(array) is not None):
        return np.asarray(array, order="C")
    folder: Path = knobs.CACHE.get()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            step = max(1, PIECE * len(array) // array.nbytes)
            for start in range(0, len(array), step):
                file.write(as_bytes(array[start : start + step]).data)
            file.flush()
            data = _mapped(file)
    except OSError as error:
        knobs.logger("build").warning("%d bytes of weights stay in memory: %s: %s", array.nbytes, folder, error)
        return np.asarray(array, order="C")
    return data.view(array.dtype).reshape(array.shape)


def _mapping_of(data: object) -> _FileMapping | None:
    """The mapped file that an array or memoryview is a view of."""
    while data is not None and not isinstance(data, _FileMapping):
        data = data.obj if isinstance(data, memoryview) else getattr(data, "base", None)
    return data


# -- anonymous memory -------------------------------------------------------------------------------
def anonymous(size_bytes: int) -> mmap.mmap:
    """Zeroed, page-aligned memory that goes back to the system when it is dropped; only touched pages take any."""
    pages = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size_bytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)  # fewer faults and TLB misses; the system may ignore it
    return pages


# -- bytes ------------------------------------------------------------------------------------------
def as_bytes(array: Array) -> Array:
    """The elements in C order as u8[nbytes]: a view where they lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def pieces(data: Array | Bytes, *, keep: bool = False) -> Iterator[memoryview]:
    """The bytes of contiguous data, part by part. Without `keep`, a part of a mapped file is let go when the next one
    is asked for."""
    view = as_bytes(data).data if isinstance(data, np.ndarray) else memoryview(data)
    for start in range(0, len(view), PIECE):
        yield view[start : start + PIECE]
        if not keep:
            release(view[start : start + PIECE])


def is_same(a: Array, b: Array) -> bool:
    """Whether two u8 arrays hold the same bytes; reads up to the first difference."""
    return a.size == b.size and all(
        np.array_equal(a[start : start + PIECE], b[start : start + PIECE]) for start in range(0, a.size, PIECE)
    )


class Contents(Generic[T]):
    """Finds what was noted under the same bytes. Large arrays are read in full only when a sample of them agrees."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[tuple[Array, T]]] = {}

    def find(self, data: Array) -> T | None:
        """What was noted first under the bytes of a u8 array, or None."""
        return next((what for known, what in self._known.get(_sample(data), ()) if is_same(known, data)), None)

    def note(self, data: Array, what: T) -> None:
        """Note `what` under the bytes of a u8 array, which must stay as they are."""
        self._known.setdefault(_sample(data), []).append((data, what))


def _sample(data: Array) -> bytes:
    """A hash of the size and of all bytes, or of evenly spread ones for a large array."""
    state = hashlib.blake2b(str(data.size).encode(), digest_size=16)
    if data.size <= _SAMPLES * _SAMPLE:
        state.update(data.data)
    else:
        for i in range(_SAMPLES):
            start = (data.size - _SAMPLE) * i // (_SAMPLES - 1)
            state.update(data[start : start + _SAMPLE].data)
    return state.digest()
