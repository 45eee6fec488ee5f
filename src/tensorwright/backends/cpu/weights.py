# SPDX-License-Identifier: Apache-2.0
"""All constants that kernels read, in one blob: re-formatted where the kernel asked for it, each content once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.backends.base import CpuKernel
from tensorwright.errors import InternalError
from tensorwright.ir.op import Array
from tensorwright.lower.program import Place, Program

_ALIGNMENT = 64


@dataclass(frozen=True)
class PackedWeights:
    """`blob` is uint8; `packed[step, input]` and `constants[index]` are byte offsets into it; `stored` lists all of
    (offset, bytes)."""

    blob: Array
    packed: dict[tuple[int, int], int]
    constants: dict[int, int]
    stored: tuple[tuple[int, int], ...]


def pack_weights(program: Program, kernels: Sequence[CpuKernel]) -> PackedWeights:
    """Lay out what the kernels read: `CpuKernel.packed` arrays and the other constants, in order of first use."""
    store = _Store()
    packed: dict[tuple[int, int], int] = {}
    constants: dict[int, int] = {}
    for number, (step, kernel) in enumerate(zip(program.steps, kernels, strict=True)):
        for position, view in enumerate(step.inputs):
            if position in kernel.packed:
                if view is None or view.buffer.place is not Place.constant:
                    raise InternalError(f"the kernel of step {step.name!r} packs input {position}, not a constant")
                packed[number, position] = store.add(kernel.packed[position])
            elif view is not None and view.buffer.place is Place.constant and view.buffer.index not in constants:
                constants[view.buffer.index] = store.add(program.constants[view.buffer.index])
    return PackedWeights(store.blob(), packed, constants, tuple(store.offsets.values()))


@dataclass
class _Store:
    """Arrays placed one after the other; equal bytes share a place."""

    offsets: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # content hash -> (offset, bytes)
    arrays: list[Array] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)  # id of an array kept in `arrays` or `seen` -> offset
    seen: list[Array] = field(default_factory=list)
    end: int = 0

    def add(self, array: Array) -> int:
        if id(array) in self.known:
            return self.known[id(array)]
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = hashlib.blake2b(data.data, digest_size=32).digest() if data.size else b""
        if key not in self.offsets:
            self.offsets[key] = self.end, data.size
            self.arrays.append(data)
            self.end += -(-data.size // _ALIGNMENT) * _ALIGNMENT
        self.seen.append(array)  # an id is only unique among living objects
        self.known[id(array)] = self.offsets[key][0]
        return self.known[id(array)]

    def blob(self) -> Array:
        memory = np.zeros(self.end + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        blob: Array = memory[start : start + self.end]
        for (offset, size), array in zip(self.offsets.values(), self.arrays, strict=True):
            blob[offset : offset + size] = array
        return blob
