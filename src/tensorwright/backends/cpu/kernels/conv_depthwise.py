# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution on channels-last activations: one filter per channel, vectorised over channels.

A tile is some output columns of one row times one vector of channels. Weights are packed
[C / lanes][kh][kw][lanes]. Rows above and below the input are left out by the bounds of the loop over kh,
columns left and right of it by leaving those taps out of the code of the border tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Packed, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, body_problem, problem_of
from tensorwright.backends.cpu.kernels.microkernel import choose, may, zero_tile
from tensorwright.backends.cpu.kernels.spatial import GroupedShape, Run, grouped_shape
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution


@dataclass(frozen=True, slots=True)
class DepthwiseConfig(Config):
    """Output columns per tile, then channel vectors and output rows per unit."""

    columns: int
    blocks: int
    rows: int


class ConvDepthwise(KernelFamily[DepthwiseConfig, CpuTarget, CpuKernel]):
    """One- and two-dimensional depthwise convolution with constant weights and fused epilogue."""

    name, version, config = "conv_depthwise", 1, DepthwiseConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        s = depthwise_shape(p)
        if isinstance(s, str):
            return Reject(s)
        reason = body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DepthwiseConfig]:
        s = _shape_of(w)
        vectors = math.ceil(s.groups / t.lanes(DType.f32))
        height, width = s.axes[1].count, s.axes[2].count
        lines = max(1, 16 // t.lanes(DType.f32))  # vectors in a cache line: fewer would read lines twice
        for columns in _columns(width, t.vector_registers):
            for blocks in dict.fromkeys(min(lines * times, vectors) for times in (1, 4)):
                # enough units to balance the cores; neighbours go to one worker, so rows are read from cache again
                rows = max(1, height)
                while rows > 1 and s.n * math.ceil(vectors / blocks) * math.ceil(height / rows) < 16 * t.cores:
                    rows = math.ceil(rows / 2)
                yield DepthwiseConfig(columns, blocks, rows)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        """Multiply-adds at peak; the traffic may come from caches, so it gives no bound that always holds."""
        return _shape_of(w).flops / (t.gflops * 1e9 * t.cores)

    def emit(
        self, w: Workload, c: DepthwiseConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        p = problem_of(w)
        return _Emitter(p, _shape_of(w), c, t).kernel(symbol, constants[1], w.is_symbolic)


def depthwise_shape(p: Problem) -> GroupedShape | str:
    """The problem as a depthwise convolution that vectorises over channels, or why it is none."""
    s = grouped_shape(p, Convolution)
    if isinstance(s, str):
        return s
    x, w = p.inputs[0], p.inputs[1]
    if s.c != 1 or s.k != 1 or s.groups == 1:
        return f"groups={s.groups} with {s.c} -> {s.k} channels each is not depthwise"
    if x is None or w is None or not w.constant:
        return "the weights are not constant"
    if x.dtype is not DType.f32 or w.dtype is not DType.f32:
        return f"operands are {x.dtype} and {w.dtype}, needs f32"
    if s.axes[0].count != 1 or s.axes[0].kernel != 1 or s.axes[0].size != 1:
        return "three spatial dims"
    if s.x[1] != 1 or s.out[1] != 1:
        return f"channel strides {s.x[1]} and {s.out[1]} are not 1"
    if s.axes[2].kernel > 16:
        return f"kernel width {s.axes[2].kernel} > 16"
    return s


def _shape_of(w: Workload) -> GroupedShape:
    s = depthwise_shape(problem_of(w))
    if isinstance(s, str):
        raise ValueError(s)
    return s


def _columns(width: int, registers: int) -> list[int]:
    """Tile widths worth trying: even splits of the row into tiles whose accumulators and weights fit registers."""
    sizes = (14, 7) if registers >= 32 else (7, 4)
    return list(dict.fromkeys(max(1, math.ceil(width / max(1, math.ceil(width / size)))) for size in sizes))


class _Emitter:
    """Writes the code of one depthwise convolution."""

    def __init__(self, p: Problem, s: GroupedShape, c: DepthwiseConfig, t: CpuTarget) -> None:
        self.p, self.s, self.c = p, s, c
        self.lanes = t.lanes(DType.f32)
        self.full, self.tail = divmod(s.groups, self.lanes)
        self.block_groups = math.ceil(self.full / c.blocks)
        self.row_groups = cast(int, ceil_div(s.axes[1].count, c.rows))
        self.epilogue = Epilogue(p.fused, s.out, s.extras, 1)

    def kernel(self, symbol: str, weights: Array, is_symbolic: bool) -> CpuKernel:
        m = Module()
        m.takes_dims = is_symbolic
        inputs = [f"in{i}" for i in range(len(self.p.inputs) + len(self.s.extras))]
        f = m.function(
            symbol, [("ptr", n) for n in (*inputs, "out", "workspace", "scratch")] + [("i64", "begin"), ("i64", "end")]
        )
        self.f, self.extras = f, [f.arg(n) for n in inputs[len(self.p.inputs) :]]
        full_units = self.s.n * self.row_groups * self.block_groups
        units = full_units + (self.s.n * self.row_groups if self.tail else 0)
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            choose(
                f,
                f.compare("slt", unit, full_units),
                may(full_units),
                self.tail > 0,
                lambda: self._full_unit(unit),
                lambda: self._rows(unit - full_units, self.full, self.full + 1, self.tail),
            )
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),), packed={1: self._packed(weights)})

    def _packed(self, weights: Array) -> Packed:
        """[C / lanes][kh][kw][lanes], zero-padded channels."""
        blocks, taps = math.ceil(self.s.groups / self.lanes), self.s.taps
        return Packed.of((blocks, taps, self.lanes), lambda: self._blocks(weights, blocks, taps))

    def _blocks(self, weights: Array, blocks: int, taps: int) -> Array:
        padded = np.zeros((blocks * self.lanes, taps), np.float32)
        padded[: self.s.groups] = weights.reshape(-1, taps)
        return padded.reshape(blocks, self.lanes, taps).transpose(0, 2, 1)

    def _full_unit(self, unit: Reg) -> None:
        """Row groups run inside channel groups, so a worker's weights and rows stay in its cache."""
        rows = self.s.n * self.row_groups
        group = unit // rows
        first = group * self.full // self.block_groups
        self._rows(unit % rows, first, (group + 1) * self.full // self.block_groups, self.lanes)

    def _rows(self, unit: Reg, first: Reg | int, last: Reg | int, count: int) -> None:
        """Row group `unit` of channel vectors [first, last), each with `count` channels."""
        f, height = self.f, self.s.axes[1]
        n, group = unit // self.row_groups, unit % self.row_groups
        begin = group * self.c.rows
        with f.loop(begin, f.minimum(begin + self.c.rows, height.count)) as row:
            top, tap0, tap1 = height.first_taps(f, row)
            (phase,) = self.s.axes[2].phases
            for run in phase.runs(self.c.columns):
                with (
                    f.loop(run.first, run.stop, run.width) as column,
                    f.loop(first, last) as block,
                ):
                    self._tile(run, n, block, row, column, (top, tap0, tap1), count)

    def _tile(
        self, run: Run, n: Reg, block: Reg, row: Reg, column: Reg, taps: tuple[Reg, Reg, Reg], count: int
    ) -> None:
        f, s, ty = self.f, self.s, vector(self.lanes)
        height, width = s.axes[1:]
        top, tap0, tap1 = taps
        tile = zero_tile(f, run.width, 1, self.lanes)
        start = n * s.x[0] + top * s.x[3] + (column * width.stride - width.pad) * s.x[4] + block * self.lanes
        w = f.gep(f.arg("in1"), block * (s.taps * self.lanes))
        with f.loop(tap0, tap1) as kh:
            x_row = start + kh * (height.dilation * s.x[3])
            w_row = f.gep(w, kh * (width.kernel * self.lanes))

            def tap(kw: Reg | int, reads: list[int], x_row: Reg = x_row, w_row: Reg = w_row) -> None:
                weight = f.load(ty, w_row, f.i64(kw) * self.lanes)
                for t in reads:
                    at = x_row + (kw * width.dilation + t * width.stride) * s.x[4]
                    value = f.load_first(ty, f.arg("in0"), at, count)
                    tile[t][0].set(f.fma(value, weight, tile[t][0].get()))

            if run.valid is None:
                left, first, last = width.first_taps(f, column)
                with f.loop(first, last) as kw:
                    tap(kw, [0])
            else:
                for k in range(width.kernel):
                    tap(k, [t for t, valid in enumerate(run.valid) if valid[k]])
        for t in range(run.width):
            index = (n, block * self.lanes, 0, row, column + t)
            self.epilogue.finish(f, tile[t][0].get(), f.arg("out"), self.extras, index, count)
