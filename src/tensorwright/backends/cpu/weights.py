# SPDX-License-Identifier: Apache-2.0
"""All constants that kernels read, in one blob: re-formatted where the kernel asked for it, each content once.

Every array is written straight into its place, one after the other, and the pages of the file that it came from are let
go: a build holds the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.backends.base import CpuKernel
from tensorwright.errors import InternalError
from tensorwright.ir.op import Array
from tensorwright.lower.program import Place, Program, View
from tensorwright.memory import Contents, anonymous, as_bytes, release

_ALIGNMENT = 64


@dataclass(frozen=True)
class PackedWeights:
    """`blob` is uint8; `packed[step, input]` and `constants[index]` are byte offsets into it; `stored` lists all of
    (offset, bytes)."""

    blob: Array
    packed: dict[tuple[int, int], int]
    constants: dict[int, int]
    stored: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to store: `write` fills u8[size_bytes]; it reads constant `source` of the program."""

    size_bytes: int
    write: Callable[[Array], object]
    source: int


def pack_weights(program: Program, kernels: Sequence[CpuKernel]) -> PackedWeights:
    """Lay out what the kernels read: `CpuKernel.packed` arrays and the other constants, in order of first use."""
    items: dict[Hashable, _Item] = {}
    packed: dict[tuple[int, int], Hashable] = {}
    for number, (step, kernel) in enumerate(zip(program.steps, kernels, strict=True)):
        for position, view in enumerate(step.inputs):
            if position in kernel.packed:
                if view is None or view.buffer.place is not Place.constant:
                    raise InternalError(f"the kernel of step {step.name!r} packs input {position}, not a constant")
                form = kernel.packed[position]
                key = _packed_key(kernel, position, view)
                packed[number, position] = key
                items.setdefault(key, _Item(form.size_bytes, form.into, view.buffer.index))
            elif view is not None and view.buffer.place is Place.constant and view.buffer.index not in items:
                items[view.buffer.index] = _plain(program, view.buffer.index)
    offsets, store = {}, _Store(sum(map(_room, (item.size_bytes for item in items.values()))))
    for key, item in items.items():
        offsets[key] = store.add(item.size_bytes, item.write)
        release(program.constants[item.source])
    constants = {key: offset for key, offset in offsets.items() if isinstance(key, int)}
    return PackedWeights(store.blob(), {at: offsets[key] for at, key in packed.items()}, constants, tuple(store.stored))


def _packed_key(kernel: CpuKernel, position: int, view: View) -> Hashable:
    """Equal code packs equal constants equally."""
    return kernel.ir, position, view.buffer.index, view.offset


def _plain(program: Program, index: int) -> _Item:
    array = program.constants[index]

    def write(place: Array) -> None:
        place[...] = as_bytes(array)

    return _Item(array.nbytes, write, index)


def _room(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT


class _Store:
    """Arrays placed one after the other; equal bytes share a place."""

    def __init__(self, capacity: int) -> None:
        self.stored: list[tuple[int, int]] = []  # (offset, bytes)
        self._memory: Array = np.frombuffer(anonymous(capacity), np.uint8)  # zeros, which take memory once written
        self._contents: Contents[int] = Contents()
        self._end = 0

    def add(self, size_bytes: int, write: Callable[[Array], object]) -> int:
        """The offset of what `write` fills its place with."""
        offset = self._end
        place = self._memory[offset : offset + size_bytes]
        write(place)
        known = self._contents.find(place)
        if known is not None:
            place[...] = 0
            return known
        self._contents.note(place, offset)
        self.stored.append((offset, size_bytes))
        self._end += _room(size_bytes)
        return offset

    def blob(self) -> Array:
        return self._memory[: self._end]
