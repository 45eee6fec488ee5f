# SPDX-License-Identifier: Apache-2.0
"""`GridSample`: per output point the pixels and weights along each axis, then all channels. IEEE order throughout, so
that positions are those of the reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, maximum
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.sample import CUBIC, FARTHEST, GridSample

_MOST_AXES = 3


@dataclass(frozen=True, slots=True)
class GridConfig(Config):
    """There is one way to sample."""


@dataclass(frozen=True, slots=True)
class _Tap:
    """A pixel along one axis: its index (valid always), its weight (None: 1), whether it is inside (None: it is)."""

    index: Reg
    weight: Reg | None
    inside: Reg | None


class GridSampleNd(KernelFamily[GridConfig, CpuTarget, CpuKernel]):
    """f32 `GridSample` over one to three axes, of any strides."""

    name, version, config = "grid_sample_nd", 2, GridConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, GridSample):
            return Reject(f"{w.op.kind} is not a grid_sample")
        out = w.outputs[0]
        if (
            out.dtype is not DType.f32
            or len(out.shape) - 2 > _MOST_AXES
            or w.inputs[0] is None
            or 0 in w.inputs[0].shape
        ):
            return Reject(f"samples of {out}")
        return Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[GridConfig]:
        yield GridConfig()

    def emit(self, w: Workload, c: GridConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")
        f = entry(m, symbol, w)
        units = _Points(f, w).emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


class _Points:
    """Writes the code: items are the output's points."""

    def __init__(self, f: Function, w: Workload) -> None:
        x, grid = w.inputs
        assert isinstance(w.op, GridSample) and x is not None and grid is not None
        self.f, self.op, self.x, self.grid, self.out = f, w.op, x, grid, w.outputs[0]

    def emit(self) -> int:
        f, x, out = self.f, self.x, self.out
        points = (out.shape[0], *out.shape[2:])
        share = Share.of(math.prod(points), out.shape[1])
        with share.items(f) as item:
            place = unravel(f, item, points)
            axes, is_nan = self._axes(place)
            image = place[0] * x.strides[0]
            taps = [
                (image + sum((t.index * x.strides[2 + d] for d, t in enumerate(chosen)), f.i64(0)), *_joint(f, chosen))
                for chosen in itertools.product(*axes)
            ]
            target = Epilogue.offset(f, (out.strides[0], *out.strides[2:]), place)
            with f.loop(0, out.shape[1]) as c:
                total = f.const("float", 0)
                for offset, weight, inside in taps:
                    value = f.load("float", f.arg("in0"), offset + c * x.strides[1])
                    value = value if inside is None else f.select(inside, value, f.const("float", 0))
                    total = value if weight is None else total + value * weight
                total = f.select(is_nan, f.const("float", math.nan), total)
                f.store(total, f.arg("out0"), target + c * out.strides[1])
        return share.units

    def _axes(self, place: Sequence[Reg]) -> tuple[list[list[_Tap]], Reg]:
        """The taps along each axis of the point, and whether a coordinate is NaN."""
        f, grid, rank = self.f, self.grid, len(self.x.shape) - 2
        base = Epilogue.offset(f, grid.strides[:-1], place)
        axes, is_nan = [], Reg(f, "i1", "false")
        for d in range(rank):
            g = f.load("float", f.arg("in1"), base + (rank - 1 - d) * grid.strides[-1])
            is_nan = f.binary("or", is_nan, vm.is_nan(f, g))
            axes.append(self._taps(g, self.x.shape[2 + d]))
        return axes, is_nan

    def _taps(self, g: Reg, size: int) -> list[_Tap]:
        f, at = self.f, self._position(g, size)
        if self.op.mode == "nearest":
            return [self._tap(integer(f, at), None, size)]
        low = f.intrinsic("floor", "float", at)
        t, first = at - low, integer(f, low)
        one = f.const("float", 1)
        if self.op.mode == "linear":
            return [self._tap(first, one - t, size), self._tap(first + 1, t, size)]
        weights = (_far(t + 1.0), _near(t), _near(one - t), _far(f.const("float", 2) - t))
        return [self._tap(first + (i - 1), weight, size) for i, weight in enumerate(weights)]

    def _position(self, g: Reg, size: int) -> Reg:
        """As `GridSample._position`, operation by operation."""
        f, op = self.f, self.op
        last, extent = f.number("float", size - 1), f.number("float", size)
        v = (g + 1.0) / 2.0 * last if op.align_corners else ((g + 1.0) * extent - 1.0) / 2.0
        if op.mode == "nearest":
            v = f.intrinsic("rint", "float", v)
        bottom = f.const("float", 0.0 if op.align_corners else -0.5)
        top = last if op.align_corners else extent - 0.5
        below, above = f.compare("olt", v, bottom), f.compare("ogt", v, top)
        outside = f.binary("or", below, above)
        if op.padding == "zeros" or (op.padding == "border" and op.mode == "cubic"):
            return v
        if op.padding == "border":
            return f.select(outside, f.minimum(f.maximum(v, 0.0), last), v)
        length = last if op.align_corners else extent  # from bottom to top
        if op.align_corners and size == 1:
            return f.select(outside, bottom, v)
        beyond = f.select(below, bottom - v, v - top)
        turns = f.intrinsic("trunc", "float", beyond / length)
        rest = beyond - turns * length
        is_even = f.compare("oeq", turns, f.intrinsic("floor", "float", turns * 0.5) * 2.0)
        from_low = f.compare("eq", is_even, below)
        mirrored = f.select(from_low, bottom + rest, top - rest)
        if op.align_corners and isinstance(cast(Dim, size), SymDim):  # there is nowhere to go between equal ends
            mirrored = f.select(f.compare("eq", f.i64(size), 1), bottom, mirrored)
        return f.select(outside, mirrored, v)

    def _tap(self, i: Reg, weight: Reg | None, size: int) -> _Tap:
        f, op = self.f, self.op
        if op.padding == "zeros":
            inside = f.compare("ult", i, size)
            return _Tap(f.select(inside, i, f.i64(0)), weight, inside)
        if op.padding == "border":
            return _Tap(f.minimum(f.maximum(i, 0), size - 1), weight, None)
        period = cast(int, maximum(2 * (size - 1) if op.align_corners else 2 * size, 1))
        m = (f.binary("srem", i, period) + period) % period
        mirrored = f.i64(period if op.align_corners else period - 1) - m
        return _Tap(f.select(f.compare("slt", m, size), m, mirrored), weight, None)


def _joint(f: Function, taps: Sequence[_Tap]) -> tuple[Reg | None, Reg | None]:
    """The product of the weights, and whether all are inside."""
    weight: Reg | None = None
    inside: Reg | None = None
    for tap in taps:
        if tap.weight is not None:
            weight = tap.weight if weight is None else weight * tap.weight
        if tap.inside is not None:
            inside = tap.inside if inside is None else f.binary("and", inside, tap.inside)
    return weight, inside


def integer(f: Function, v: Reg) -> Reg:
    """A float as i64, clamped to where it is one for sure; NaN becomes 0."""
    v = f.select(vm.is_nan(f, v), f.const(v.ty, 0), v)
    return f.cast("fptosi", f.minimum(f.maximum(v, -FARTHEST), FARTHEST), "i64")


def _near(s: Reg) -> Reg:
    return (s * (CUBIC + 2) - (CUBIC + 3)) * s * s + 1.0


def _far(s: Reg) -> Reg:
    return ((s * CUBIC - 5 * CUBIC) * s + 8 * CUBIC) * s - 4 * CUBIC
