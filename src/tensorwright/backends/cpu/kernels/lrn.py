# SPDX-License-Identifier: Apache-2.0
"""Local response normalisation over channels.

With contiguous channels a register holds neighbouring ones, and the window is read by shifted loads. Otherwise
lanes lie along another axis and the window is a loop over channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
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
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.rows import Index, RowNest, f32_problem
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.norm import Lrn

_WIDEST = 33  # a wider window would make long code of shifted loads


@dataclass(frozen=True, slots=True)
class LrnConfig(Config):
    """Registers of channels per loop iteration."""

    unroll: int


class LrnChannels(KernelFamily[LrnConfig, CpuTarget, CpuKernel]):
    """f32 `Lrn` with fused epilogue, any strides."""

    name, version, config = "lrn_channels", 1, LrnConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, Lrn):
            return Reject(f"{p.anchor.kind} is not lrn")
        reason = f32_problem(w.inputs) or body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[LrnConfig]:
        yield from (LrnConfig(2), LrnConfig(1))

    def emit(self, w: Workload, c: LrnConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        pixels = _Pixels(f, problem_of(w), c, t)
        pixels.nest.positions(f, pixels.along_channels if pixels.nest.lanes_in_row else pixels.across_channels)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, pixels.nest.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _Pixels:
    """Writes the code of all channels at one pixel, or at as many pixels as a register has lanes."""

    def __init__(self, f: Function, p: Problem, c: LrnConfig, t: CpuTarget) -> None:
        assert isinstance(p.anchor, Lrn) and p.inputs[0] is not None
        self.f, self.op, self.unroll = f, p.anchor, c.unroll
        shape = p.output.shape
        strides = [aligned_strides(o, len(shape)) for o in (p.inputs[0], p.output, *p.extras)]
        self.nest = nest = RowNest(
            shape, strides, (1,), t.lanes(DType.f32), t.vector_registers, may_lie_in_row=p.anchor.size <= _WIDEST
        )
        self.ty, self.channels = vector(nest.lanes), shape[1]
        self.below, self.above = (p.anchor.size - 1) // 2, p.anchor.size - 1 - (p.anchor.size - 1) // 2
        self.x, self.x_strides = f.arg("in0"), nest.strides(0)
        self.extras = [f.arg(f"in{i + 1}") for i in range(len(p.extras))]
        self.epilogue = Epilogue(
            p.fused, nest.strides(1), [nest.strides(i + 2) for i in range(len(p.extras))], nest.lane_axis
        )

    # -- lanes are channels ---------------------------------------------------------------------
    def along_channels(self, kept: Index, count: Reg | int) -> None:
        """Registers whose whole window lies inside are computed in a loop, the border ones are written out."""
        lanes = self.nest.lanes
        last = self.channels - lanes - self.above
        inside = [c for c in range(0, self.channels, lanes) if self.below <= c <= last]
        looped = inside[: len(inside) - len(inside) % self.unroll]
        if looped:
            with self.f.loop(looped[0], looped[-1] + 1, self.unroll * lanes) as c:
                for slot in range(self.unroll):
                    self._register(kept, c + slot * lanes, None)
        for start in range(0, self.channels, lanes):
            if start not in looped:
                self._register(kept, self.f.i64(start), start)

    def _register(self, kept: Index, at: Reg, start: int | None) -> None:
        """The channels from `at` on; `start` is its value where the border must be watched."""
        f, lanes = self.f, self.nest.lanes
        count = lanes if start is None else min(lanes, self.channels - start)
        squares = f.const(self.ty, 0.0)
        for shift in range(-self.below, self.above + 1):
            value = self._load(kept, at + shift, lanes) if start is None else self._border(kept, start + shift)
            if value is not None:
                squares = f.fma(value, value, squares)
        self._finish(self._load(kept, at, count), squares, (*kept, at), count)

    def _border(self, kept: Index, first: int) -> Reg | None:
        """Channels from `first` on with 0 for those that do not exist; None when none does."""
        f, lanes = self.f, self.nest.lanes
        missing = max(-first, 0)
        count = min(lanes - missing, self.channels - max(first, 0))
        if count <= 0:
            return None
        value = self._load(kept, f.i64(max(first, 0)), count)
        if lanes == 1:
            return value
        moved = [i if i < missing else lanes + i - missing for i in range(lanes)]
        return f.shuffle(f.const(self.ty, 0.0), value, moved)

    def _load(self, kept: Index, channel: Reg, count: Reg | int) -> Reg:
        offset = Epilogue.offset(self.f, self.x_strides, (*kept, channel))
        return load_lanes(self.f, self.x, offset, self.x_strides[self.nest.lane_axis], self.nest.lanes, count)

    # -- lanes are pixels -----------------------------------------------------------------------
    def across_channels(self, kept: Index, count: Reg | int) -> None:
        """For each channel, a loop over the channels of its window."""
        f = self.f
        squares = f.var(self.ty)
        with f.loop(0, self.channels) as channel:
            squares.set(f.const(self.ty, 0.0))
            first = f.maximum(channel - self.below, 0)
            with f.loop(first, f.minimum(channel + (self.above + 1), self.channels)) as other:
                value = self._load(kept, other, count)
                squares.set(f.fma(value, value, squares.get()))
            self._finish(self._load(kept, channel, count), squares.get(), (*kept, channel), count)

    def _finish(self, x: Reg, squares: Reg, index: Index, count: Reg | int) -> None:
        f, op = self.f, self.op
        base = vm.fma(f, squares, op.alpha / op.size, op.bias)
        if op.beta == 0.75:
            root = vm.sqrt(f, base)
            result = x / (root * vm.sqrt(f, root))
        elif op.beta == 0.5:
            result = x / vm.sqrt(f, base)
        else:
            result = x / (base if op.beta == 1 else vm.power(f, base, f.const(self.ty, op.beta)))
        self.epilogue.finish(f, result, f.arg("out0"), self.extras, index, count)
