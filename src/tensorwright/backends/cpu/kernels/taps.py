# SPDX-License-Identifier: Apache-2.0
"""Convolution and deconvolution in gather form: for each output pixel, the taps that reach it.

A register tile is some output columns (of one phase: they read their taps at a constant input step) times
some vectors of one group's output channels; for every tap inside the input it accumulates over the group's
input channels. Weights are packed [group][K / width][taps][C][width], at build when they are constant, else
by a first stage. Input and output may have any strides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Packed, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, body_problem, problem_of
from tensorwright.backends.cpu.kernels.microkernel import Tile, choose, rank1_update, unrolled, zero_tile
from tensorwright.backends.cpu.kernels.spatial import GroupedShape, Phase, Run, grouped_shape
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution, Deconvolution

_MAX_PHASES = 4  # the code of a row is emitted once per phase
_MAX_TAPS = 12  # and once per tap column


@dataclass(frozen=True, slots=True)
class TapsConfig(Config):
    """Register tile columns x vectors, c unroll, and output rows per unit."""

    columns: int
    vectors: int
    unroll: int
    rows: int


class TapsFamily(KernelFamily[TapsConfig, CpuTarget, CpuKernel]):
    """Every f32 convolution or deconvolution (`anchor`) with up to three spatial dims."""

    config = TapsConfig
    anchor: type[Convolution | Deconvolution]

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        shape = grouped_shape(p, self.anchor)
        if isinstance(shape, str):
            return Reject(shape)
        other = [str(o.dtype) for o in p.inputs if o is not None and o.dtype is not DType.f32]
        reason = f"an operand is {other[0]}, needs f32" if other else body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[TapsConfig]:
        """Register tiles that fit, most multiply-adds per load first; rows per unit to balance the cores."""
        s = self._shape(w)
        needed = max(1, math.ceil(s.k / t.lanes(DType.f32)))
        columns = max((p.count for p in s.axes[2].phases), default=1)
        height = max(1, s.axes[0].count * s.axes[1].count)
        unroll = max(1, min(s.c, 4 // max((1, *(len(p.taps) for p in s.axes[2].phases)))))  # keeps the code small
        for vectors in [v for v in (2, 3, 4) if v <= needed] or [1]:
            most = min((t.vector_registers - 1 - vectors) // vectors, 14)
            tile = math.ceil(columns / max(1, math.ceil(columns / most)))
            panels = s.n * s.groups * math.ceil(needed / vectors)
            rows = height
            while rows > 1 and panels * math.ceil(height / rows) < 16 * t.cores:
                rows = math.ceil(rows / 2)
            yield TapsConfig(max(1, tile), vectors, unroll, rows)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return self._shape(w).flops / (t.gflops * 1e9 * t.cores)

    def emit(self, w: Workload, c: TapsConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        return _Emitter(problem_of(w), w, self._shape(w), c, t, symbol).kernel(constants.get(1))

    def _shape(self, w: Workload) -> GroupedShape:
        shape = grouped_shape(problem_of(w), self.anchor)
        if isinstance(shape, str):
            raise ValueError(shape)
        return shape


class _Emitter:
    """Writes the code of one convolution."""

    def __init__(self, p: Problem, w: Workload, s: GroupedShape, c: TapsConfig, t: CpuTarget, symbol: str) -> None:
        self.p, self.s, self.c, self.symbol = p, s, c, symbol
        self.lanes = t.lanes(DType.f32)
        self.width = c.vectors * self.lanes
        self.panels = math.ceil(s.k / self.width)
        self.panel_elems = s.taps * s.c * self.width
        self.inputs = len(w.inputs)
        self.m = Module()
        self.m.takes_dims = w.is_symbolic
        self.epilogue = Epilogue(p.fused, s.out, s.extras, 1)
        columns = s.axes[2]
        self.static_columns = columns.kernel <= _MAX_TAPS and len(columns.phases) <= _MAX_PHASES

    def kernel(self, weights: Array | None) -> CpuKernel:
        s = self.s
        panels = s.groups * self.panels
        rows = cast(int, ceil_div(s.axes[0].count * s.axes[1].count, self.c.rows))
        compute = Stage(self.symbol, panels * s.n * rows)
        if weights is not None:
            self._compute("in1", rows)
            return CpuKernel(self.m.text(), (compute,), packed={1: self._packed(weights)})
        self._compute("workspace", rows)
        self._pack(f"{self.symbol}_pack")
        return CpuKernel(
            self.m.text(),
            (Stage(f"{self.symbol}_pack", panels), compute),
            workspace_bytes=4 * panels * self.panel_elems,
        )

    def _function(self, name: str) -> Function:
        pointers = [*(f"in{i}" for i in range(self.inputs)), "out", "workspace", "scratch"]
        return self.m.function(name, [*(("ptr", n) for n in pointers), ("i64", "begin"), ("i64", "end")])

    # -- weights --------------------------------------------------------------------------------
    def _packed(self, weights: Array) -> Packed:
        """[group][K / width][taps][C][width], zero-padded output channels."""
        s = self.s
        return Packed.of((s.groups, self.panels, s.taps, s.c, self.width), lambda: self._panels(weights))

    def _panels(self, weights: Array) -> Array:
        s = self.s
        w = np.moveaxis(weights.reshape(s.groups, s.c, s.k, s.taps), 1, 2) if s.axes[2].transposed else weights
        padded = np.zeros((s.groups, self.panels * self.width, s.c, s.taps), np.float32)
        padded[:, : s.k] = w.reshape(s.groups, s.k, s.c, s.taps)
        return padded.reshape(s.groups, self.panels, self.width, s.c, s.taps).transpose(0, 1, 4, 3, 2)

    def _pack(self, name: str) -> None:
        """The same at run time; a unit is one panel."""
        f, s = self._function(name), self.s
        depth, height, width = (a.kernel for a in s.axes)
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            group, panel = unit // self.panels, unit % self.panels
            source = group * s.w[0] + panel * (self.width * s.w[1])
            count = f.minimum(f.i64(s.k) - panel * self.width, self.width)
            with f.loop(0, depth) as d, f.loop(0, height) as h, f.loop(0, width) as v, f.loop(0, s.c) as c:
                tap = (d * height + h) * width + v
                at = source + c * s.w[2] + d * s.w[3] + h * s.w[4] + v * s.w[5]
                to = unit * self.panel_elems + (tap * s.c + c) * self.width
                with f.loop(0, count) as lane:
                    f.store(f.load("float", f.arg("in1"), at + lane * s.w[1]), f.arg("workspace"), to + lane)
                with f.loop(count, self.width) as lane:
                    f.store(f.const("float", 0.0), f.arg("workspace"), to + lane)
        f.ret()

    # -- compute --------------------------------------------------------------------------------
    def _compute(self, weights: str, row_groups: int) -> None:
        """Rows run inside images inside panels, so that a panel's weights stay in cache."""
        f, s = self._function(self.symbol), self.s
        self.f, self.weights = f, f.arg(weights)
        self.extras = [f.arg(f"in{i}") for i in range(len(self.p.inputs), self.inputs)]
        rows = s.axes[0].count * s.axes[1].count
        full = s.k // self.width
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            first = unit % row_groups * self.c.rows
            image = unit // row_groups
            n, panel = image % s.n, image // s.n
            with f.loop(first, f.minimum(first + self.c.rows, rows)) as row:
                choose(
                    f,
                    f.compare("slt", panel % self.panels, full),
                    full > 0,
                    full < self.panels,
                    lambda: self._row(n, panel, row, self.width),
                    lambda: self._row(n, panel, row, s.k - full * self.width),
                )
        f.ret()

    def _row(self, n: Reg, panel: Reg, row: Reg, channels: int) -> None:
        """One output row (depth and height in `row`) of one panel with `channels` real output channels."""
        f, columns = self.f, self.s.axes[2]
        if self.static_columns:
            for phase in columns.phases:
                for run in phase.runs(self.c.columns):
                    with f.loop(run.first, run.stop, run.width) as j:
                        if run.valid is None:
                            self._tile(n, panel, row, channels, j * phase.step + phase.first)
                        else:
                            self._tile(n, panel, row, channels, j, phase, run)
        else:
            with f.loop(0, columns.count) as column:
                self._tile(n, panel, row, channels, column)

    def _tile(
        self, n: Reg, panel: Reg, row: Reg, channels: int, j: Reg, phase: Phase | None = None, run: Run | None = None
    ) -> None:
        """One register tile: `run` of `phase` from its output number j, or the single output column j."""
        f, s = self.f, self.s
        vectors = math.ceil(channels / self.lanes)
        tile = zero_tile(f, run.width if run else 1, vectors, self.lanes)
        group = panel // self.panels
        depth, height, width = s.axes
        od, oh = row // height.count, row % height.count
        start = n * s.x[0] + group * (s.c * s.x[1])
        with depth.taps_of(f, od) as (kd, d), height.taps_of(f, oh) as (kh, h):
            at = start + d * s.x[2] + h * s.x[3]
            tap = panel * s.taps + (kd * height.kernel + kh) * width.kernel
            if phase is not None and run is not None:
                self._static_taps(tile, phase, run, at + j * (phase.in_step * s.x[4]), tap)
            else:
                with width.taps_of(f, j) as (kw, v):
                    self._accumulate(tile, [0], at + v * s.x[4], tap + kw)
        step, origin = (phase.step, phase.first) if phase else (1, 0)
        for t, accumulators in enumerate(tile):
            for i, accumulator in enumerate(accumulators):
                channel = group * s.k + panel % self.panels * self.width + i * self.lanes
                index = (n, channel, od, oh, (j + t) * step + origin)
                count = min(self.lanes, channels - i * self.lanes)
                self.epilogue.finish(f, accumulator.get(), f.arg("out"), self.extras, index, count)

    def _static_taps(self, tile: Tile, phase: Phase, run: Run, at: Reg, tap: Reg) -> None:
        assert run.valid is not None
        for number, (kw, start) in enumerate(phase.taps):
            offsets = [
                (start + t * phase.in_step) * self.s.x[4] if valid[number] else None
                for t, valid in enumerate(run.valid)
            ]
            if any(o is not None for o in offsets):
                self._accumulate(tile, offsets, at, tap + kw)

    def _accumulate(self, tile: Tile, offsets: list[int | None], at: Reg, tap: Reg) -> None:
        """tile[t] += x[at + offsets[t] + c's stride] * weights[tap][c] over the group's input channels c."""
        f, s, ty = self.f, self.s, vector(self.lanes)
        w_tap = tap * (s.c * self.width)

        def left(c: Reg | int, t: int) -> Reg | None:
            offset = offsets[t]
            return None if offset is None else f.load("float", f.arg("in0"), at + f.i64(c) * s.x[1] + offset)

        def step(c: Reg | int) -> None:
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda t: left(c, t),
                lambda v: f.load(ty, self.weights, w_tap + f.i64(c) * self.width + v * self.lanes),
            )

        unrolled(f, s.c, self.c.unroll, step)


__all__ = ["TapsConfig", "TapsFamily"]
