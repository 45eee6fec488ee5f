# SPDX-License-Identifier: Apache-2.0
"""Resampling and re-indexing by tables: nearest, linear and cubic `Resize`, `Pad`, `Tile`, reversing `Slice`.

All dims but the vectorised one are walked position by position: their tables give offsets and weights of the taps.
Tables of dims whose sizes only a run knows are written by a first stage.
Along the vectorised dim the input is read in runs where its map has few (channels of a resized image, a padded
row), and element by element otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import (
    Epilogue,
    Problem,
    aligned_strides,
    body_problem,
    load_lanes,
    problem_of,
)
from tensorwright.backends.cpu.kernels.index_maps import DimMap, Run, dim_maps
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.shape import Pad

_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
_MOST_RUNS = 8  # pieces of a row that are written out
_MOST_TAPS = 64  # cubic over three dims


@dataclass(frozen=True, slots=True)
class ResizeConfig(Config):
    """Registers of the vectorised dim side by side."""

    unroll: int


@dataclass(frozen=True, slots=True)
class _Tap:
    """One input position of an output position: its offset in elements, and its weight (None: 1)."""

    offset: Reg
    weight: Reg | None


class ResizeTables(KernelFamily[ResizeConfig, CpuTarget, CpuKernel]):
    """f32 `Resize`; nearest `Resize`, `Pad`, `Tile` and `Slice` of any element type. f32 with fused epilogue."""

    name, version, config = "resize_tables", 1, ResizeConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        x = p.inputs[0] if p.inputs else None
        if x is None or not x.shape:
            return Reject("the input is absent or a scalar")
        maps = dim_maps(p.anchor, x.shape)
        if isinstance(maps, str):
            return Reject(maps)
        if any(m.is_weighted for m in maps) and x.dtype is not DType.f32:
            return Reject(f"{p.anchor.kind} of {x.dtype} has weights, which are f32")
        taps = math.prod(m.taps for m in maps)
        reason = f"{taps} taps for each element" if taps > _MOST_TAPS else body_problem(p) if p.fused else None
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ResizeConfig]:
        yield ResizeConfig(2)

    def emit(self, w: Workload, c: ResizeConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        p = problem_of(w)
        tables = _WrittenTables(p)
        stages = [tables.stage(m, f"{symbol}_tables", w)] if tables.size_bytes else []
        f = entry(m, symbol, w)
        grid = _Grid(f, p, c, t, tables)
        grid.emit()
        f.ret()
        return CpuKernel(m.text(), (*stages, Stage(symbol, grid.share.units)), workspace_bytes=tables.size_bytes)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _WrittenTables:
    """The tables that a run writes: in the workspace, for each dim and tap i64 positions, then f32 weights."""

    def __init__(self, p: Problem) -> None:
        self.maps, self.sizes = _maps_of(p), p.output.shape
        self.size_bytes = 0
        self.places: dict[tuple[str, int, int], int] = {}  # in bytes
        for d, dim in enumerate(self.maps):
            for k in range(dim.taps if dim.taps_at else 0):
                for what, size in (("position", 8), ("weight", 4))[: 2 if dim.is_weighted else 1]:
                    self.places[what, d, k] = self.size_bytes
                    self.size_bytes += -(-high(self.sizes[d]) * size // 64) * 64

    def stage(self, m: Module, name: str, w: Workload) -> Stage:
        """The code that writes them."""
        fast, m.fast = m.fast, ""  # a nearest position is rounded: operations keep their order
        f = entry(m, name, w)
        for d, dim in enumerate(self.maps):
            if dim.taps_at is not None:
                with f.loop(0, self.sizes[d]) as o:
                    for k, (position, weight) in enumerate(dim.taps_at(f, o)):
                        f.store(position, self.table(f, "position", d, k), o)
                        if weight is not None:
                            f.store(weight, self.table(f, "weight", d, k), o)
        f.ret()
        m.fast = fast
        return Stage(name, 1)

    def table(self, f: Function, what: str, d: int, k: int) -> Reg:
        """Where a table lies."""
        return f.gep(f.arg("workspace"), self.places[what, d, k], "i8")


def _maps_of(p: Problem) -> list[DimMap]:
    x = p.inputs[0]
    maps = dim_maps(p.anchor, x.shape) if x is not None else "the input is absent"
    if isinstance(maps, str):
        raise ValueError(maps)
    return maps


class _Grid:
    """Writes the code. `outer` are the output's dims but the vectorised one (`inner`), slowest first."""

    def __init__(self, f: Function, p: Problem, c: ResizeConfig, t: CpuTarget, written: _WrittenTables) -> None:
        x, out, maps = p.inputs[0], p.output, written.maps
        assert x is not None
        self.written = written
        self.f, self.unroll, self.maps, self.x_strides, self.sizes = f, c.unroll, maps, x.strides, out.shape
        *self.outer, self.inner = sorted(
            range(len(out.shape)), key=lambda d: (out.shape[d] != 1, -high(out.strides[d]))
        )
        row = maps[self.inner]
        self.runs = row.runs if len(row.runs) <= _MOST_RUNS else []
        size = out.shape[self.inner]
        self.lanes = min(t.lanes(x.dtype), 1 << (high(size) - 1).bit_length()) if self.runs else 1
        is_weighted = any(m.is_weighted for m in maps)
        self.element = "float" if p.fused or is_weighted else _BITS[x.dtype.size_bytes]
        self.ty = vector(self.lanes, self.element)
        self.fill = f.const(self.ty, _fill_value(p.anchor, x, self.element))
        order = (*self.outer, self.inner)
        operands = (out.strides, *(aligned_strides(e, len(out.shape)) for e in p.extras))
        strides = [[s[d] for d in order] for s in operands]
        self.epilogue = Epilogue(p.fused, strides[0], strides[1:], len(order) - 1)
        self.extras = [f.arg(f"in{len(p.inputs) + i}") for i in range(len(p.extras))]
        self.share = Share.of(math.prod(self.sizes[d] for d in self.outer), size * math.prod(m.taps for m in maps))
        self._tables: dict[str, Reg] = {}

    def emit(self) -> None:
        f = self.f
        with self.share.items(f) as item:
            index = unravel(f, item, [self.sizes[d] for d in self.outer])
            taps, inside = self._outer_taps(index)
            if inside is None:
                self._row(index, taps)
            else:
                outside = Run(0, self.sizes[self.inner], 0, None)
                f.branch(inside, lambda: self._row(index, taps), lambda: self._run(index, [], outside))

    def _outer_taps(self, index: Sequence[Reg]) -> tuple[list[_Tap], Reg | None]:
        """The taps of an outer position, and whether it lies inside the input (None: all do)."""
        per_dim: list[list[_Tap]] = []
        inside: Reg | None = None
        for d, i in zip(self.outer, index, strict=True):
            per_dim.append(self._taps(d, i))
            if self.maps[d].may_be_outside:
                here = self.f.compare("sge", self.f.load("i64", self._table("position", d, 0), i), 0)
                inside = here if inside is None else self.f.binary("and", inside, here)
        return [self._product(taps) for taps in itertools.product(*per_dim)], inside

    def _taps(self, d: int, i: Reg) -> list[_Tap]:
        """The taps of output position i along dim d."""
        f, dim, stride = self.f, self.maps[d], self.x_strides[d]
        if dim.line is not None:
            first, step = dim.line
            return [_Tap((i * step + first) * stride, None)]
        taps = []
        for k in range(dim.taps):
            weight = None if not dim.is_weighted else f.load("float", self._table("weight", d, k), i)
            taps.append(_Tap(f.load("i64", self._table("position", d, k), i) * stride, weight))
        return taps

    def _table(self, what: str, d: int, k: int) -> Reg:
        """The array of tap k's positions or weights along dim d."""
        dim = self.maps[d]
        if dim.taps_at is not None:
            return self.written.table(self.f, what, d, k)
        name = f"{self.f.name}_{what}_{d}_{k}"
        if name not in self._tables:
            assert dim.positions is not None
            values = dim.positions[:, k] if what == "position" or dim.weights is None else dim.weights[:, k]
            element = "i64" if what == "position" else "float"
            self._tables[name] = Reg(self.f, "ptr", f"@{self.f.module.table(name, element, values.tolist())}")
        return self._tables[name]

    def _product(self, taps: Sequence[_Tap]) -> _Tap:
        """Taps of several dims together: offsets add, weights multiply."""
        offset, weight = self.f.i64(0), None
        for tap in taps:
            offset = tap.offset + offset
            weight = tap.weight if weight is None else weight if tap.weight is None else weight * tap.weight
        return _Tap(offset, weight)

    # -- one row --------------------------------------------------------------------------------
    def _row(self, index: Sequence[Reg], taps: Sequence[_Tap]) -> None:
        if self.runs:
            splat = [_Tap(t.offset, None if t.weight is None else self.f.splat(t.weight, self.lanes)) for t in taps]
            for run in self.runs:
                self._run(index, splat, run)
            return
        with self.f.loop(0, self.sizes[self.inner]) as at:
            both = [self._product(pair) for pair in itertools.product(taps, self._taps(self.inner, at))]
            if self.maps[self.inner].may_be_outside:
                inside = self.f.compare("sge", self.f.load("i64", self._table("position", self.inner, 0), at), 0)
                self.f.branch(
                    inside,
                    lambda: self._finish(index, at, self._sum(both, self.f.i64(0), 1, 1), 1),
                    lambda: self._finish(index, at, self.fill, 1),
                )
            else:
                self._finish(index, at, self._sum(both, self.f.i64(0), 1, 1), 1)

    def _run(self, index: Sequence[Reg], taps: Sequence[_Tap], run: Run) -> None:
        """Outputs [run.start, run.stop) of the row."""
        f, lanes = self.f, self.lanes
        size: Dim = run.stop - run.start
        if isinstance(size, SymDim):
            self._loose_run(index, taps, run, f.i64(size))
            return
        full, tail = divmod(size, lanes)
        looped = full - full % self.unroll
        if looped:
            with f.loop(0, looped * lanes, self.unroll * lanes) as at:
                self._pieces(index, taps, run, [(at + u * lanes, lanes) for u in range(self.unroll)])
        rest = [(f.i64(v * lanes), lanes) for v in range(looped, full)]
        self._pieces(index, taps, run, rest + ([(f.i64(full * lanes), tail)] if tail else []))

    def _loose_run(self, index: Sequence[Reg], taps: Sequence[_Tap], run: Run, size: Reg) -> None:
        """The same where only a run knows how many they are."""
        f, n = self.f, self.lanes
        main, full = size - size % (n * self.unroll), size - size % n
        with f.loop(0, main, self.unroll * n) as at:
            self._pieces(index, taps, run, [(at + u * n, n) for u in range(self.unroll)])
        with f.loop(main, full, n) as at:
            self._pieces(index, taps, run, [(at, n)])
        with f.when(f.compare("slt", full, size)):
            self._pieces(index, taps, run, [(full, size - full)])

    def _pieces(
        self, index: Sequence[Reg], taps: Sequence[_Tap], run: Run, places: Sequence[tuple[Reg, Reg | int]]
    ) -> None:
        stride = self.x_strides[self.inner]
        for at, count in places:
            if run.step is None:
                value = self.fill
            else:
                value = self._sum(taps, (at * run.step + run.first) * stride, run.step * stride, count)
            self._finish(index, at + run.start, value, count)

    def _sum(self, taps: Sequence[_Tap], offset: Reg, stride: int, count: Reg | int) -> Reg:
        """The weighted sum of the taps' registers."""
        f = self.f
        total: Reg | None = None
        for tap in taps:
            value = load_lanes(f, f.arg("in0"), tap.offset + offset, stride, self.lanes, count, self.element)
            if tap.weight is not None:
                value = value * tap.weight if total is None else vm.fma(f, value, tap.weight, total)
            total = value
        assert total is not None
        return total

    def _finish(self, index: Sequence[Reg], at: Reg, value: Reg, count: Reg | int) -> None:
        self.epilogue.finish(self.f, value, self.f.arg("out0"), self.extras, (*index, at), count)


def _fill_value(op: Op, x: Operand, element: str) -> float | int:
    """The padding value as the kernel's elements hold it: as a number in f32, else as bits."""
    if not isinstance(op, Pad):
        return 0
    if element == "float":
        return op.value
    bits = np.asarray(op.value).astype(x.dtype.numpy).tobytes()
    return int.from_bytes(bits, "little", signed=True)
