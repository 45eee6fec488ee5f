# SPDX-License-Identifier: Apache-2.0
"""Loop nests over strided operands: merging axes, dividing the work into units, the entry function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import CpuKernel, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div, high, maximum, minimum, opt

_SMALL_WORK = 8192  # elements below which waking a second worker costs more than it saves
_MOST_UNITS = 128  # enough for an even share of up to 64 workers


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop: its extent, and the stride in elements of every operand along it (0: broadcast)."""

    size: int
    strides: tuple[int, ...]


def axes_of(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Axis]:
    """The axes longer than 1; `strides[k]` are operand k's, one per dim of `shape`."""
    return [Axis(d, tuple(s[i] for s in strides)) for i, d in enumerate(shape) if d != 1]


def by_stride(axes: Sequence[Axis], operand: int) -> list[Axis]:
    """The axes in the order of the operand's memory, slowest first."""
    return sorted(axes, key=lambda a: -high(abs(a.strides[operand])))


def collapsed(axes: Sequence[Axis]) -> list[Axis]:
    """The same nest with neighbours merged where every operand walks both as one."""
    out: list[Axis] = []
    for axis in axes:
        if out and all(o == i * axis.size for o, i in zip(out[-1].strides, axis.strides, strict=True)):
            out[-1] = Axis(out[-1].size * axis.size, axis.strides)
        else:
            out.append(axis)
    return out


def operand_strides(axes: Sequence[Axis], operand: int) -> tuple[int, ...]:
    """One operand's strides over the axes."""
    return tuple(a.strides[operand] for a in axes)


def sizes_of(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The extents of the axes."""
    return tuple(a.size for a in axes)


@dataclass(frozen=True, slots=True)
class Share:
    """`count` equal items in units of `per_unit` consecutive ones."""

    count: int
    per_unit: int

    @staticmethod
    def of(count: int, work: int) -> Share:
        """A division of `count` items of `work` elements each: one unit when small, else enough for many workers."""
        units = 1 if opt(count * work) < _SMALL_WORK else minimum(count, _MOST_UNITS)
        return Share(count, cast(int, maximum(1, ceil_div(count, maximum(1, units)))))

    @property
    def units(self) -> int:
        return cast(int, maximum(1, ceil_div(self.count, self.per_unit)))

    @contextmanager
    def items(self, f: Function) -> Iterator[Reg]:
        """for each item of the function's units [begin, end): the body."""
        first, last = f.arg("begin") * self.per_unit, f.arg("end") * self.per_unit
        with f.loop(first, f.minimum(last, self.count)) as item:
            yield item


def unravel(f: Function, index: Reg, sizes: Sequence[int]) -> list[Reg]:
    """Coordinates of a flat row-major index."""
    out = []
    for size in reversed(sizes[1:]):
        out.append(index % size)
        index = index // size
    return [index, *reversed(out)] if sizes else []


def entry(m: Module, symbol: str, w: Workload) -> Function:
    """A stage function of the workload: arguments in0.., out0.., workspace, scratch, begin, end."""
    inputs, outputs = (f"in{i}" for i in range(len(w.inputs))), (f"out{i}" for i in range(len(w.outputs)))
    pointers = [*inputs, *outputs, "workspace", "scratch"]
    m.takes_dims = m.takes_dims or w.is_symbolic
    return m.function(symbol, [*(("ptr", p) for p in pointers), ("i64", "begin"), ("i64", "end")])


def empty_kernel(w: Workload, symbol: str) -> CpuKernel:
    """The kernel of a workload whose outputs have no elements."""
    m = Module()
    entry(m, symbol, w).ret()
    return CpuKernel(m.text(), (Stage(symbol, 1),))


def traffic_seconds(w: Workload, t: CpuTarget) -> float:
    """Time to move the operands once, when they cannot be in cache; 0 (unknown) when they can."""
    moved = 0
    for o in (*(o for o in w.inputs if o is not None), *w.outputs):
        elems = math.prod(d for d, s in zip(o.shape, o.strides, strict=True) if s)
        moved += elems * o.dtype.size_bytes
    return moved / (t.gbytes * 1e9 * t.cores) if moved > 2 * t.l3_bytes else 0.0
