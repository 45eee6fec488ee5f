# SPDX-License-Identifier: Apache-2.0
"""Pointwise regions and copies over any strides and broadcasts.

The loop nest follows the output's memory. Its fastest axis is vectorised ("row"); two cases need shuffles:
an axis of 2-6 elements interleaved with the vectorised one (3-channel images), which is unrolled beside it, and
inputs whose fast axis is another one (transposes), which are read in square tiles and transposed in registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.conversions import HELD, decode, encode
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, aligned_strides, load_lanes, store_lanes
from tensorwright.backends.cpu.kernels.microkernel import choose
from tensorwright.backends.cpu.kernels.nest import (
    Axis,
    Share,
    axes_of,
    by_stride,
    collapsed,
    empty_kernel,
    entry,
    operand_strides,
    sizes_of,
    traffic_seconds,
    unravel,
)
from tensorwright.backends.cpu.kernels.region import Region, region_of
from tensorwright.backends.cpu.kernels.shuffles import deinterleave, interleave, transpose
from tensorwright.backends.cpu.llvm_types import size_of, vector
from tensorwright.backends.cpu.pointwise_ops import emit_body
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, Undecided, ceil_div, high, opt
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array

_MOST_BESIDE = 6  # a longer interleaved axis is a matrix to transpose
_LEAST_ROW = 8  # a shorter row is not worth interleaving for
_OUT = -1  # the output's position in an axis' strides: inputs first, output last


@dataclass(frozen=True, slots=True)
class PointwiseConfig(Config):
    """Registers of a row computed side by side."""

    unroll: int


class PointwiseNd(KernelFamily[PointwiseConfig, CpuTarget, CpuKernel]):
    """`Fused` without anchor, every single pointwise op, batch normalisation with given statistics, and `Copy`."""

    name, version, config = "pointwise_nd", 2, PointwiseConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        region = region_of(w)
        return Reject(region) if isinstance(region, str) else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[PointwiseConfig]:
        region = region_of(w)
        computes = not isinstance(region, str) and region.fused.body
        yield from (
            PointwiseConfig(u) for u in ((2, 4) if computes and math.prod(w.outputs[0].shape) > 16384 else (2,))
        )

    def emit(
        self, w: Workload, c: PointwiseConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        region = region_of(w)
        if isinstance(region, str):
            raise ValueError(region)
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")  # every result is rounded as the separate ops round it
        f = entry(m, symbol, w)
        lanes = t.lanes(DType.f32) * 4 // _widest(region)
        kernel = _plan(_Operands(f, region), lanes, c.unroll)
        kernel.emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, kernel.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


def _widest(region: Region) -> int:
    """Bytes of the widest element, in memory or in registers."""
    types = [*(region.inputs[i].dtype for i in region.used), region.output.dtype] if region.fused.body else []
    return max(size_of(e) for e in (*region.elements, *(HELD[d] for d in types)))


class _Operands:
    """The region's operands in the function: pointers, element types and the loop nest over all of them."""

    def __init__(self, f: Function, region: Region) -> None:
        self.f, self.region = f, region
        shape = region.output.shape
        operands = (*(region.inputs[i] for i in region.used), region.output)
        self.pointers = [*(f.arg(f"in{i}") for i in region.used), f.arg("out0")]
        self.elements = region.elements
        axes = axes_of(shape, [aligned_strides(o, len(shape)) for o in operands])
        self.axes = collapsed(by_stride(axes, _OUT)) or [Axis(1, (0,) * len(operands))]
        self.inputs = range(len(region.used))

    def compute(self, values: Sequence[Reg]) -> Reg:
        """The body's result for one register of every used input; both as memory holds them."""
        region, f = self.region, self.f
        if not region.fused.body:
            return values[0]
        args: list[Reg | None] = [None] * len(region.inputs)
        for i, value in zip(region.used, values, strict=True):
            args[i] = decode(f, value, region.inputs[i].dtype)
        result = emit_body(f, region.fused, args, None, [o.dtype for o in region.inputs])
        return encode(f, result, region.output.dtype)


def _plan(o: _Operands, lanes: int, unroll: int) -> _Rows | _Tiles:
    """The way to walk the nest."""
    *outer, last = o.axes
    for i, axis in enumerate(outer):  # the output's own interleaving: dense pixels of a few channels
        is_dense = last.strides[_OUT] == 1 and axis.strides[_OUT] == last.size
        if is_dense and high(last.size) <= _MOST_BESIDE and is_fixed(last, axis) and axis.size >= _LEAST_ROW:
            return _Rows(o, [*outer[:i], *outer[i + 1 :]], axis, last, lanes, unroll)
    for k in o.inputs:
        step = last.strides[k]
        for i, axis in enumerate(outer):
            others = [*outer[:i], *outer[i + 1 :]]
            is_beside = axis.strides[k] == 1 and is_fixed(axis, last) and step == axis.size
            if is_beside and 1 < step <= _MOST_BESIDE and last.size >= _LEAST_ROW:
                return _Rows(o, others, last, axis, lanes, unroll)
            if axis.strides[k] == 1 and step not in (0, 1) and last.strides[_OUT] == 1:
                return _Tiles(o, others, axis, last, min(lanes, 16))
    return _Rows(o, outer, last, None, lanes, unroll)


def is_fixed(*axes: Axis) -> bool:
    """Whether the sizes are known before a run."""
    return not any(isinstance(size, SymDim) for size in map(_size, axes))


def _size(axis: Axis) -> Dim:
    return axis.size


class _Rows:
    """Vectorised along `row`, unrolled over the short axis `beside`."""

    def __init__(
        self, o: _Operands, outer: Sequence[Axis], row: Axis, beside: Axis | None, lanes: int, unroll: int
    ) -> None:
        self.o, self.f, self.outer, self.row = o, o.f, outer, row
        self.beside = beside or Axis(1, (0,) * len(row.strides))
        self.lanes = min(lanes, 1 << (high(row.size) - 1).bit_length())
        self.unroll = unroll
        rows, size = math.prod(sizes_of(outer)), opt(row.size)
        step = self.lanes * unroll
        wanted = math.ceil(64 / opt(rows)) if opt(rows) * size * self.beside.size >= 8192 else 1
        self.block = math.ceil(size / wanted / step) * step  # a long row is several items
        if is_fixed(row):
            self.block = min(row.size, self.block)
        self.blocks = cast(int, ceil_div(row.size, self.block))
        self.share = Share.of(rows * self.blocks, self.block * self.beside.size)

    def emit(self) -> None:
        f = self.f
        last = self.row.size - (self.blocks - 1) * self.block
        with self.share.items(f) as item:
            index = unravel(f, item // self.blocks, sizes_of(self.outer))
            start = item % self.blocks * self.block
            bases = [
                Epilogue.offset(f, operand_strides(self.outer, k), index) + start * self.row.strides[k]
                for k in (*self.o.inputs, _OUT)
            ]
            choose(
                f,
                f.compare("slt", start, (self.blocks - 1) * self.block),
                last != self.block and high(self.blocks) > 1,
                True,
                lambda: self._block(bases, self.block),
                lambda: self._block(bases, last),
            )

    def _block(self, bases: Sequence[Reg], size: int) -> None:
        """`size` elements of a row from `bases` on."""
        f = self.f
        count: Dim = size
        fixed = {
            k: [self._lanes(k, bases, 0, s, self.lanes) for s in range(self.beside.size)]
            for k in self.o.inputs
            if self.row.strides[k] == 0
        }  # the same for the whole row
        if isinstance(count, SymDim):
            self._loose_block(bases, fixed, f.i64(count))
            return
        full = size // self.lanes
        with_loop = full - full % self.unroll
        if with_loop:
            with f.loop(0, with_loop * self.lanes, self.unroll * self.lanes) as at:
                self._registers(bases, fixed, [(at + u * self.lanes, self.lanes) for u in range(self.unroll)])
        rest = [(f.i64(v * self.lanes), self.lanes) for v in range(with_loop, full)]
        if size % self.lanes:
            rest.append((f.i64(full * self.lanes), size % self.lanes))
        if rest:
            self._registers(bases, fixed, rest)

    def _loose_block(self, bases: Sequence[Reg], fixed: dict[int, list[Reg]], size: Reg) -> None:
        """A block whose size only a run knows."""
        f, n = self.f, self.lanes
        main, full = size - size % (n * self.unroll), size - size % n
        with f.loop(0, main, self.unroll * n) as at:
            self._registers(bases, fixed, [(at + u * n, n) for u in range(self.unroll)])
        with f.loop(main, full, n) as at:
            self._registers(bases, fixed, [(at, n)])
        with f.when(f.compare("slt", full, size)):
            self._registers(bases, fixed, [(full, size - full)])

    def _registers(
        self, bases: Sequence[Reg], fixed: dict[int, list[Reg]], places: Sequence[tuple[Reg, Reg | int]]
    ) -> None:
        """Load all, compute all, store all, so that their latencies overlap."""
        loaded = [
            [fixed[k] if k in fixed else self._load(k, bases, at, count) for k in self.o.inputs] for at, count in places
        ]
        results = [
            [self.o.compute([values[s] for values in operands]) for s in range(self.beside.size)] for operands in loaded
        ]
        for (at, count), result in zip(places, results, strict=True):
            self._store(bases, at, count, result)

    def _is_interleaved(self, k: int) -> bool:
        return self.beside.size > 1 and self.beside.strides[k] == 1 and self.row.strides[k] == self.beside.size

    def _load(self, k: int, bases: Sequence[Reg], at: Reg, count: Reg | int) -> list[Reg]:
        """Operand k's registers at row position `at`, one per element of the short axis."""
        if not self._is_interleaved(k):
            return [self._lanes(k, bases, at, s, count) for s in range(self.beside.size)]
        ty = vector(self.lanes, self.o.elements[k])
        at = bases[k] + at * self.beside.size
        counts = _flat_counts(self.beside.size, self.lanes, count)
        flat = [
            self.f.load_first(ty, self.o.pointers[k], at + i * self.lanes, n) if n else self.f.undef(ty)
            for i, n in enumerate(counts)
        ]
        return deinterleave(self.f, flat)

    def _lanes(self, k: int, bases: Sequence[Reg], at: Reg | int, s: int, count: Reg | int) -> Reg:
        stride = self.row.strides[k]
        offset = bases[k] + self.f.i64(at) * stride + s * self.beside.strides[k]
        return load_lanes(self.f, self.o.pointers[k], offset, stride, self.lanes, count, self.o.elements[k])

    def _store(self, bases: Sequence[Reg], at: Reg, count: Reg | int, result: Sequence[Reg]) -> None:
        f, out, stride = self.f, self.o.pointers[_OUT], self.row.strides[_OUT]
        base = bases[_OUT] + at * stride
        if self._is_interleaved(_OUT):
            counts = _flat_counts(self.beside.size, self.lanes, count)
            for i, (value, n) in enumerate(zip(interleave(f, result), counts, strict=True)):
                if n:
                    f.store_first(value, out, base + i * self.lanes, n)
        else:
            for s, value in enumerate(result):
                store_lanes(f, value, out, base + s * self.beside.strides[_OUT], stride, count)


def _flat_counts(beside: int, lanes: int, count: Reg | int) -> list[int]:
    """Elements in each register when `count` interleaved groups are stored one after the other."""
    if isinstance(count, Reg):
        raise Undecided("the end of an interleaved row is known only in a run")
    return [max(0, min(lanes, count * beside - i * lanes)) for i in range(beside)]


class _Tiles:
    """Square tiles over `slow` x `fast`: `fast` is the output's contiguous axis, `slow` that of some inputs."""

    def __init__(self, o: _Operands, outer: Sequence[Axis], slow: Axis, fast: Axis, lanes: int) -> None:
        self.o, self.f, self.outer, self.slow, self.fast = o, o.f, outer, slow, fast
        self.lanes = min(lanes, 1 << (max(high(slow.size), high(fast.size)) - 1).bit_length())
        self.tiles = (cast(int, ceil_div(slow.size, self.lanes)), cast(int, ceil_div(fast.size, self.lanes)))
        self.share = Share.of(math.prod(sizes_of(outer)) * math.prod(self.tiles), self.lanes**2)

    def emit(self) -> None:
        f, n = self.f, self.lanes
        with self.share.items(f) as item:
            *index, i, j = unravel(f, item, (*sizes_of(self.outer), *self.tiles))
            bases = [
                Epilogue.offset(f, operand_strides((*self.outer, self.slow, self.fast), k), (*index, i * n, j * n))
                for k in (*self.o.inputs, _OUT)
            ]
            self._sides(bases, i, j)

    def _sides(self, bases: Sequence[Reg], i: Reg, j: Reg) -> None:
        """Whole tiles, and those at the ends of the axes."""
        f, n = self.f, self.lanes
        if not is_fixed(self.slow, self.fast):
            self._loose_sides(bases, i, j)
            return
        last_rows, last_columns = self.slow.size % n or n, self.fast.size % n or n

        def columns(rows: int) -> None:
            choose(
                f,
                f.compare("slt", j, self.tiles[1] - 1),
                self.tiles[1] > 1 and last_columns < n,
                True,
                lambda: self._tile(bases, rows, n),
                lambda: self._tile(bases, rows, last_columns),
            )

        choose(
            f,
            f.compare("slt", i, self.tiles[0] - 1),
            self.tiles[0] > 1 and last_rows < n,
            True,
            lambda: columns(n),
            lambda: columns(last_rows),
        )

    def _loose_sides(self, bases: Sequence[Reg], i: Reg, j: Reg) -> None:
        """Whole tiles, and one element at a time at ends that only a run knows."""
        f, n = self.f, self.lanes
        rows, columns = f.minimum(f.i64(self.slow.size) - i * n, n), f.minimum(f.i64(self.fast.size) - j * n, n)

        def elements() -> None:
            with f.loop(0, rows) as row, f.loop(0, columns) as column:
                places = [
                    bases[k] + row * self.slow.strides[k] + column * self.fast.strides[k]
                    for k in (*self.o.inputs, _OUT)
                ]
                values = [f.load(self.o.elements[k], self.o.pointers[k], places[k]) for k in self.o.inputs]
                f.store(self.o.compute(values), self.o.pointers[_OUT], places[_OUT])

        is_whole = f.compare("eq", rows + columns, 2 * n)
        f.branch(is_whole, lambda: self._tile(bases, n, n), elements)

    def _tile(self, bases: Sequence[Reg], rows: int, columns: int) -> None:
        """`rows` of the slow axis, each a register of `columns` of the fast axis."""
        f, out = self.f, self.o.pointers[_OUT]
        turned = {
            k: self._turned(k, bases[k], rows, columns)
            for k in self.o.inputs
            if self.slow.strides[k] == 1 and self.fast.strides[k] not in (0, 1)
        }
        for i in range(rows):
            values = [turned[k][i] if k in turned else self._straight(k, bases[k], i, columns) for k in self.o.inputs]
            store_lanes(f, self.o.compute(values), out, bases[_OUT] + i * self.slow.strides[_OUT], 1, columns)

    def _straight(self, k: int, base: Reg, row: int, columns: int) -> Reg:
        """One row of operand k's tile, read along the fast axis."""
        offset, stride = base + row * self.slow.strides[k], self.fast.strides[k]
        return load_lanes(self.f, self.o.pointers[k], offset, stride, self.lanes, columns, self.o.elements[k])

    def _turned(self, k: int, base: Reg, rows: int, columns: int) -> list[Reg]:
        """Operand k's tile, read along the slow axis and transposed."""
        f, ty, stride = self.f, vector(self.lanes, self.o.elements[k]), self.fast.strides[k]
        read = [
            f.load_first(ty, self.o.pointers[k], base + j * stride, rows) if j < columns else f.undef(ty)
            for j in range(self.lanes)
        ]
        return transpose(f, read)
