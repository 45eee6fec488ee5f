# SPDX-License-Identifier: Apache-2.0
"""The common shape of softmax, normalisations and reductions: for every kept position, passes over a row.

The axes of the workload are kept or reduced; a row is all reduced positions of one kept position. Lanes lie along
the row when it is contiguous in the input; then per-row values are horizontal folds. Else they lie along the
contiguous kept axis, and a register is a piece of several rows; per-row values need no fold.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, load_lanes
from tensorwright.backends.cpu.kernels.microkernel import choose
from tensorwright.backends.cpu.kernels.nest import (
    Axis,
    Share,
    axes_of,
    by_stride,
    collapsed,
    operand_strides,
    sizes_of,
    unravel,
)
from tensorwright.backends.cpu.llvm_types import width_of
from tensorwright.ir.dims import Dim, SymDim, ceil_div, high
from tensorwright.ir.dtype import DType

Index = tuple[Reg | int, ...]
_ROW_SHARE = 0.75  # of the registers that a row may fill to be read only once


@dataclass(frozen=True, slots=True)
class Visit:
    """One register of a row: its index over all axes, its lanes in use, the accumulator it goes to, and its number
    in the row when all visits are written out (None inside loops)."""

    index: Index
    count: Reg | int
    slot: int
    number: int | None


class RowNest:
    """The loops: kept axes, then reduced ones, each slowest first by the input, which is operand 0.

    `strides[k]` are operand k's over `shape` (0 where it broadcasts); `lanes` and `registers` are the target's.
    `may_lie_in_row` = False puts the lanes along a kept axis in any case; there, `columns` times as many of them are
    taken together (LLVM splits such wide vectors into registers).
    """

    def __init__(
        self,
        shape: Sequence[int],
        strides: Sequence[Sequence[int]],
        reduced: Sequence[int],
        lanes: int,
        registers: int,
        *,
        may_lie_in_row: bool = True,
        columns: int = 1,
    ) -> None:
        def nest(dims: Sequence[int]) -> list[Axis]:
            axes = axes_of([shape[d] for d in dims], [[s[d] for d in dims] for s in strides])
            return collapsed(by_stride(axes, 0)) or [Axis(1, (0,) * len(strides))]

        self.kept = nest([d for d in range(len(shape)) if d not in reduced])
        self.rows = nest(reduced)
        self.row_elems = math.prod(sizes_of(self.rows))
        kept, row = self.kept[-1], self.rows[-1]
        self.lanes_in_row = may_lie_in_row and (row.strides[0] == 1 or kept.strides[0] != 1)
        self.lane_axis = len(self.kept) - 1 + (len(self.rows) if self.lanes_in_row else 0)
        lanes, along = (lanes, row) if self.lanes_in_row else (lanes * columns, kept)
        self.lanes = min(lanes, 1 << (high(along.size) - 1).bit_length())
        self.step = self.lanes if self.lanes_in_row else 1
        self.visits = math.prod(sizes_of(self.rows[:-1])) * ceil_div(row.size, self.step)
        self.is_static = isinstance(self.visits, int) and self.visits <= int(registers * _ROW_SHARE)
        outer = sizes_of(self.kept)
        if not self.lanes_in_row:
            outer = (*outer[:-1], cast(int, ceil_div(kept.size, self.lanes)))
        self._outer = outer
        self.share = Share.of(math.prod(outer), self.row_elems * (self.lanes // self.step))

    def strides(self, operand: int) -> tuple[int, ...]:
        """One operand's strides over the nest's axes, as `Visit.index` and `Epilogue` count them."""
        return operand_strides((*self.kept, *self.rows), operand)

    def positions(self, f: Function, emit: Callable[[Index, Reg | int], None]) -> None:
        """emit(kept index, rows in a register) for every kept position of the function's units. Written twice when
        the lanes do not divide the kept axis."""
        with self.share.items(f) as item:
            index = unravel(f, item, self._outer)
            if self.lanes_in_row:
                emit(tuple(index), 1)
                return
            at = (*index[:-1], index[-1] * self.lanes)
            size: Dim = self.kept[-1].size
            if isinstance(size, SymDim):
                left = f.i64(size) - index[-1] * self.lanes
                is_whole = f.compare("sge", left, self.lanes)
                f.branch(is_whole, lambda: emit(at, self.lanes), lambda: emit(at, left))
                return
            blocks, tail = self._outer[-1], size % self.lanes or self.lanes
            choose(
                f,
                f.compare("slt", index[-1], blocks - 1),
                blocks > 1 and tail < self.lanes,
                True,
                lambda: emit(at, self.lanes),
                lambda: emit(at, tail),
            )

    def slots(self, unroll: int) -> int:
        """How many accumulators `visit` uses."""
        return min(unroll, self.visits) if isinstance(self.visits, int) else unroll

    def visit(self, f: Function, kept: Index, count: Reg | int, unroll: int, emit: Callable[[Visit], None]) -> None:
        """emit every register of the row at `kept`, `unroll` of them per loop iteration."""
        *outer, last = self.rows

        def piece(index: Index, at: Reg | int, elems: Reg | int, slot: int, number: int | None) -> None:
            emit(Visit((*kept, *index, at), elems if self.lanes_in_row else count, slot % self.slots(unroll), number))

        size: Dim = last.size
        if isinstance(size, SymDim):
            end = f.i64(size)
            _nest(f, outer, (), lambda index: self._loose(f, end, unroll, functools.partial(piece, index)))
            return
        full, tail = divmod(size, self.step)
        places = [(v * self.step, self.step) for v in range(full)] + ([(full * self.step, tail)] if tail else [])
        if self.is_static:
            rows = itertools.product(*(range(a.size) for a in outer))
            for number, (position, (at, elems)) in enumerate(itertools.product(rows, places)):
                piece(position, at, elems, number, number)
            return
        looped = full - full % unroll

        def fixed(index: tuple[Reg, ...]) -> None:
            if looped:
                with f.loop(0, looped * self.step, unroll * self.step) as at:
                    for slot in range(unroll):
                        piece(index, at + slot * self.step, self.step, slot, None)
            for slot, (start, elems) in enumerate(places[looped:]):
                piece(index, start, elems, slot, None)

        _nest(f, outer, (), fixed)

    def _loose(
        self, f: Function, end: Reg, unroll: int, piece: Callable[[Reg, Reg | int, int, int | None], None]
    ) -> None:
        """piece(place, lanes, slot, number) for the last axis, whose `end` only a run knows."""
        step = self.step
        main, full = end - end % (unroll * step), end - end % step
        with f.loop(0, main, unroll * step) as at:
            for slot in range(unroll):
                piece(at + slot * step, step, slot, None)
        with f.loop(main, full, step) as at:
            piece(at, step, 0, None)
        if step > 1:
            with f.when(f.compare("slt", full, end)):
                piece(full, end - full, 0, None)

    def fold(self, f: Function, how: Callable[[Reg, Reg], Reg], parts: Sequence[Reg]) -> Reg:
        """The per-row value, in all lanes of its row, from the accumulators."""
        parts = list(parts)
        while len(parts) > 1:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [how(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        value, width = parts[0], width_of(parts[0].ty)
        step = width // 2 if self.lanes_in_row else 0
        while step:  # exchanges at distance `step` leave the result in every lane
            value = how(value, f.shuffle(value, None, [i ^ step for i in range(width)]))
            step //= 2
        return value

    def keep(self, f: Function, value: Reg, count: Reg | int, neutral: float | int) -> Reg:
        """`value` with `neutral` in the lanes past `count` where they would be folded into the row."""
        return first_lanes(f, value, count, f.const(value.ty, neutral)) if self.lanes_in_row else value


def _nest(f: Function, axes: Sequence[Axis], index: tuple[Reg, ...], body: Callable[[tuple[Reg, ...]], None]) -> None:
    """body(index) for every position of the axes."""
    if len(index) == len(axes):
        body(index)
        return
    with f.loop(0, axes[len(index)].size) as i:
        _nest(f, axes, (*index, i), body)


def first_lanes(f: Function, value: Reg, count: Reg | int, other: Reg) -> Reg:
    """The first `count` lanes of `value`, then those of `other`."""
    width = width_of(value.ty)
    if width == 1 or isinstance(count, int) and count >= width:
        return value
    return f.select(f.mask(width, count), value, other)


class Reader:
    """Loads an operand's registers of one row; a row that fits the registers is loaded once for all passes."""

    def __init__(self, f: Function, nest: RowNest, pointer: Reg, operand: int, element: str = "float") -> None:
        self.f, self.nest, self.pointer, self.element = f, nest, pointer, element
        self.strides = nest.strides(operand)
        self._seen: dict[int, Reg] = {}

    def __call__(self, v: Visit) -> Reg:
        if v.number is not None and v.number in self._seen:
            return self._seen[v.number]
        offset = Epilogue.offset(self.f, self.strides, v.index)
        value = load_lanes(
            self.f, self.pointer, offset, self.strides[self.nest.lane_axis], self.nest.lanes, v.count, self.element
        )
        if v.number is not None:
            self._seen[v.number] = value
        return value


def f32_problem(operands: Sequence[Operand | None]) -> str | None:
    """Why a family of f32 kernels cannot take these operands."""
    other = [str(o.dtype) for o in operands if o is not None and o.dtype is not DType.f32]
    return f"an operand is {other[0]}, needs f32" if other else None
