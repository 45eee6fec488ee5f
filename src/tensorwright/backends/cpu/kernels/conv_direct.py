# SPDX-License-Identifier: Apache-2.0
"""Direct convolution: a register tile of output pixels in one row times vectors of output channels.

Weights are packed [K / width][kh][kw][C][width]. The input is read by scalar broadcasts at any strides, so
channels-last activations and planar network inputs take the same code. Borders cost nothing inside: rows by
loop bounds, columns by leaving the taps that fall outside out of the (static) code of the border tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Packed, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, problem_of
from tensorwright.backends.cpu.kernels.microkernel import choose, rank1_update, register_tiles, unrolled, zero_tile
from tensorwright.backends.cpu.kernels.spatial import Phase, SpatialAxis
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution


@dataclass(frozen=True, slots=True)
class ConvShape:
    """A 2-D convolution: sizes, and strides in elements (1-D ones have height 1). Only n and the spatial sizes may be
    symbolic."""

    n: int
    c: int
    k: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    x: tuple[int, int, int, int]
    out: tuple[int, int, int, int]
    extras: tuple[tuple[int, int, int, int], ...]

    @property
    def columns(self) -> Phase:
        """The outputs of a row, and the taps of each."""
        return SpatialAxis(
            self.in_w, self.out_w, self.kernel[1], self.stride[1], self.pad[1], self.dilation[1], False
        ).phases[0]

    @property
    def flops(self) -> int:
        return 2 * self.n * self.k * self.out_h * self.out_w * self.c * math.prod(self.kernel)


def conv_shape(p: Problem) -> ConvShape | str:
    """The dense 2-D (or 1-D) convolution a problem is, or why it is none."""
    if not isinstance(p.anchor, Convolution):
        return f"{p.anchor.kind} is not a convolution"
    conv, x, w, out = p.anchor, p.inputs[0], p.inputs[1], p.output
    if x is None or w is None:
        return "the operands are not x and weights"
    if len(p.inputs) > 2 and p.inputs[2] is not None:
        return "the convolution has a separate bias"
    if conv.groups != 1:
        return f"groups={conv.groups}"
    if not w.constant:
        return "the weights are not constant"
    rank = len(out.shape)
    if rank not in (3, 4):
        return f"{rank - 2} spatial dims"
    spatial = rank - 2

    def pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
        return (fill, values[0]) if spatial == 1 else (values[0], values[1])

    def four(strides: tuple[int, ...]) -> tuple[int, int, int, int]:
        return (
            (strides[0], strides[1], 0, strides[2])
            if spatial == 1
            else (strides[0], strides[1], strides[2], strides[3])
        )

    (in_h, in_w), (out_h, out_w) = pair(x.shape[2:], 1), pair(out.shape[2:], 1)
    return ConvShape(
        out.shape[0],
        x.shape[1],
        out.shape[1],
        in_h,
        in_w,
        out_h,
        out_w,
        pair(w.shape[2:], 1),
        pair(conv.strides, 1),
        pair(conv.pads[:spatial], 0),
        pair(conv.dilations, 1),
        four(x.strides),
        four(out.strides),
        tuple(four(aligned_strides(e, rank)) for e in p.extras),
    )


@dataclass(frozen=True, slots=True)
class ConvDirectConfig(Config):
    """Register tile pixels x vectors, c unroll, output rows per unit, and which of panels / rows is the outer order."""

    pixels: int
    vectors: int
    unroll: int
    rows: int
    panels_outer: bool


class ConvDirect(KernelFamily[ConvDirectConfig, CpuTarget, CpuKernel]):
    """Direct convolution with fused epilogue; any kernel, stride, padding and dilation."""

    name, version, config = "conv_direct", 1, ConvDirectConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        shape = conv_shape(p)
        if isinstance(shape, str):
            return Reject(shape)
        if any(o is not None and o.dtype is not DType.f32 for o in p.inputs):
            return Reject("an operand is not f32")
        reason = body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ConvDirectConfig]:
        s = conv_shape(problem_of(w))
        if isinstance(s, str):
            return
        lanes = t.lanes(DType.f32)
        unroll = s.c if s.c <= 4 else 4 if s.kernel[1] <= 3 else 2
        weights = 4 * s.k * s.c * math.prod(s.kernel)
        for pixels, vectors in register_tiles(
            s.out_w, math.ceil(s.k / lanes), t.vector_registers, most_rows=28, most_vectors=6
        )[:3]:
            panels = math.ceil(s.k / (vectors * lanes))
            if panels * s.n >= t.cores:
                yield ConvDirectConfig(pixels, vectors, unroll, max(1, min(8, math.ceil(s.out_h / 4))), True)
            if weights <= t.l2_bytes or panels * s.n < t.cores:
                yield ConvDirectConfig(pixels, vectors, unroll, max(1, min(4, s.out_h // (2 * t.cores))), False)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        s = conv_shape(problem_of(w))
        return 0.0 if isinstance(s, str) else s.flops / (t.gflops * 1e9 * t.cores)

    def emit(
        self, w: Workload, c: ConvDirectConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        p = problem_of(w)
        s = conv_shape(p)
        if isinstance(s, str):
            raise ValueError(s)
        return _Emitter(p, w, s, c, t, symbol).kernel(constants[1])


class _Emitter:
    """Writes the code of one convolution."""

    def __init__(self, p: Problem, w: Workload, s: ConvShape, c: ConvDirectConfig, t: CpuTarget, symbol: str) -> None:
        self.p, self.s, self.c, self.symbol = p, s, c, symbol
        self.lanes = t.lanes(DType.f32)
        self.width = c.vectors * self.lanes
        self.panels = math.ceil(s.k / self.width)
        self.taps = math.prod(s.kernel)
        self.m = Module()
        self.m.takes_dims = w.is_symbolic
        self.row_blocks = cast(int, ceil_div(s.out_h, c.rows))
        self.epilogue = Epilogue(p.fused, s.out, s.extras, 1)

    def kernel(self, weights: Array) -> CpuKernel:
        self._main()
        s = self.s
        units = s.n * self.panels * self.row_blocks
        return CpuKernel(self.m.text(), (Stage(self.symbol, units),), packed={1: self._packed(weights)})

    def _packed(self, weights: Array) -> Packed:
        """[panels][kh][kw][c][width], zero-padded output channels."""
        return Packed.of((self.panels, self.taps, self.s.c, self.width), lambda: self._panels(weights))

    def _panels(self, weights: Array) -> Array:
        s = self.s
        padded = np.zeros((self.panels * self.width, s.c, self.taps), np.float32)
        padded[: s.k] = weights.reshape(s.k, s.c, self.taps)
        return padded.reshape(self.panels, self.width, s.c, self.taps).transpose(0, 3, 2, 1)

    def _tile(self, valid: tuple[tuple[bool, ...], ...] | None, columns: int, number: int) -> str:
        """A private function computing one tile of pixels with this pattern of valid taps; without one, of a single
        pixel whose taps are tested."""
        s = self.s
        name = f"{self.symbol}_tile_{number}_{columns}"
        args = [
            ("ptr", "x"),
            ("ptr", "w"),
            ("ptr", "out"),
            *(("ptr", f"e{i}") for i in range(len(s.extras))),
            *(("i64", n) for n in ("from", "tap0", "tap1", "n", "row", "col", "channel")),
        ]
        f = self.m.function(name, args, private=True)
        vectors, pixels = math.ceil(columns / self.lanes), len(valid or (0,))
        tile = zero_tile(f, pixels, vectors, self.lanes)
        x, w = f.arg("x"), f.arg("w")
        with f.loop(f.arg("tap0"), f.arg("tap1")) as r:
            row_x = f.arg("from") + r * (s.dilation[0] * s.x[2])
            row_w = r * (s.kernel[1] * s.c * self.width)
            for tap, reads in self._taps(f, valid):
                x_tap = f.opaque(f.gep(x, row_x + tap * s.dilation[1] * s.x[3]))

                def step(
                    c: Reg | int,
                    tap: Reg | int = tap,
                    reads: Sequence[bool] = reads,
                    x_tap: Reg = x_tap,
                    row_w: Reg = row_w,
                ) -> None:
                    at_x, at_w = f.i64(c) * s.x[1], row_w + f.i64(c) * self.width
                    rank1_update(
                        f,
                        tile,
                        self.lanes,
                        lambda i: f.load("float", x_tap, at_x + i * s.stride[1] * s.x[3]) if reads[i] else None,
                        lambda j: f.load(vector(self.lanes), w, at_w + (tap * s.c * self.width + j * self.lanes)),
                    )

                unrolled(f, s.c, self.c.unroll, step)
        extras = [f.arg(f"e{i}") for i in range(len(s.extras))]
        for i in range(pixels):
            for j in range(vectors):
                index = (f.arg("n"), f.arg("channel") + j * self.lanes, f.arg("row"), f.arg("col") + i)
                self.epilogue.finish(
                    f, tile[i][j].get(), f.arg("out"), extras, index, min(self.lanes, columns - j * self.lanes)
                )
        f.ret()
        return name

    def _taps(
        self, f: Function, valid: tuple[tuple[bool, ...], ...] | None
    ) -> Iterator[tuple[Reg | int, Sequence[bool]]]:
        """The tap columns that a tile reads, and which of its pixels read them."""
        s = self.s
        if valid is None:
            left = f.arg("col") * s.stride[1] - s.pad[1]
            with (
                f.loop(0, s.kernel[1]) as number,
                f.when(f.compare("ult", left + number * s.dilation[1], s.in_w)),
            ):
                yield number, (True,)
            return
        for tap in range(s.kernel[1]):
            if any(v[tap] for v in valid):
                yield tap, [v[tap] for v in valid]

    def _main(self) -> None:
        s, c = self.s, self.c
        slots = len(self.p.inputs)
        names = [*(f"in{i}" for i in range(slots + len(s.extras))), "out", "workspace", "scratch"]
        f = self.m.function(self.symbol, [*(("ptr", n) for n in names), ("i64", "begin"), ("i64", "end")])
        row_blocks = self.row_blocks
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            if c.panels_outer:
                block, rest = unit % row_blocks, unit // row_blocks
                n, panel = rest % s.n, rest // s.n
            else:
                panel, rest = unit % self.panels, unit // self.panels
                block, n = rest % row_blocks, rest // row_blocks
            first = block * c.rows
            last = f.minimum(first + c.rows, s.out_h)
            full = s.k // self.width
            choose(
                f,
                f.compare("slt", panel, full),
                full > 0,
                full < self.panels,
                lambda: self._rows(f, n, panel, first, last, self.width),
                lambda: self._rows(f, n, panel, first, last, s.k - full * self.width),
            )
        f.ret()

    def _rows(self, f: Function, n: Reg, panel: Reg, first: Reg, last: Reg, columns: int) -> None:
        """All column tiles of output rows [first, last) for one panel."""
        s, c = self.s, self.c
        w = f.gep(f.arg("in1"), panel * (self.taps * s.c * self.width))
        extras = [f.arg(f"in{len(self.p.inputs) + i}") for i in range(len(s.extras))]
        patterns: dict[tuple[tuple[bool, ...], ...] | None, str] = {}
        runs = s.columns.runs(c.pixels)
        for run in runs:
            if run.valid not in patterns:
                patterns[run.valid] = self._tile(run.valid, columns, len(patterns))
        with f.loop(first, last) as row:
            top = row * s.stride[0] - s.pad[0]
            # taps r with 0 <= top + r*dilation < in_h
            tap0 = f.select(
                f.compare("slt", top, 0), f.binary("udiv", f.i64(s.dilation[0] - 1) - top, s.dilation[0]), f.i64(0)
            )
            tap1 = f.minimum(
                f.binary("sdiv", f.maximum(f.i64(s.in_h + s.dilation[0] - 1) - top, 0), s.dilation[0]), s.kernel[0]
            )
            start = n * s.x[0] + top * s.x[2]
            for run in runs:
                with f.loop(run.first, run.stop, run.width) as col:
                    left = start + (col * s.stride[1] - s.pad[1]) * s.x[3]
                    f.call(
                        patterns[run.valid],
                        "void",
                        f.arg("in0"),
                        w,
                        f.arg("out"),
                        *extras,
                        left,
                        tap0,
                        tap1,
                        n,
                        row,
                        col,
                        panel * self.width,
                    )


__all__ = ["ConvDirect", "ConvDirectConfig", "ConvShape", "conv_shape"]
