# SPDX-License-Identifier: Apache-2.0
"""Maximum and average pooling over up to three spatial dims, vectorised over channels.

An item is one output row (of one image) and a group of channel registers. Depth and height taps inside the input
are a run-time range; columns are grouped by which of their taps lie inside, so no tap is tested and nothing padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg, Var
from tensorwright.backends.cpu.epilogue import (
    Epilogue,
    Problem,
    aligned_strides,
    body_problem,
    load_lanes,
    problem_of,
)
from tensorwright.backends.cpu.kernels.microkernel import choose
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.kernels.rows import f32_problem
from tensorwright.backends.cpu.kernels.spatial import SpatialAxis
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.pointwise_ops import constant_of
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, opt
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.pool import AveragePool, MaxPool

_MOST_COLUMN_CODE = 256  # column taps times column groups that are written out
_MIN_ITEMS = 32  # below this many rows, channels are divided too


@dataclass(frozen=True, slots=True)
class PoolConfig(Config):
    """Channel registers accumulated side by side."""

    vectors: int


class PoolNd(KernelFamily[PoolConfig, CpuTarget, CpuKernel]):
    """f32 `MaxPool` and `AveragePool` of one to three spatial dims with fused epilogue, any strides."""

    name, version, config = "pool_nd", 1, PoolConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, MaxPool | AveragePool):
            return Reject(f"{p.anchor.kind} is not a pool")
        if len(p.output.shape) > 5:
            return Reject(f"{len(p.output.shape) - 2} spatial dims")
        reason = f32_problem(w.inputs) or body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[PoolConfig]:
        registers = math.ceil(w.outputs[0].shape[1] / t.lanes(DType.f32))
        yield from (PoolConfig(v) for v in sorted({min(v, registers) for v in (4, 2, 1)}, reverse=True) if v)
        if not registers:
            yield PoolConfig(1)

    def emit(self, w: Workload, c: PoolConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        rows = _Rows(f, problem_of(w), c, t, symbol)
        rows.emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, rows.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _Rows:
    """Writes the code of one output row. Indexes are over (n, channel, depth, height, width)."""

    def __init__(self, f: Function, p: Problem, c: PoolConfig, t: CpuTarget, symbol: str) -> None:
        assert isinstance(p.anchor, MaxPool | AveragePool) and p.inputs[0] is not None
        self.f, self.op, x, out = f, p.anchor, p.inputs[0], p.output
        lead = 5 - len(out.shape)
        self.axes = _spatial_axes(p.anchor, x.shape[2:], out.shape[2:])
        self.shape = (*out.shape[:2], *(a.count for a in self.axes))
        self.x_strides = _five(x.strides, lead)
        extras = [_five(aligned_strides(e, len(out.shape)), lead) for e in p.extras]
        self.epilogue = Epilogue(p.fused, _five(out.strides, lead), extras, 1)
        self.extras = [f.arg(f"in{i + 1}") for i in range(len(p.extras))]
        channels = out.shape[1]
        self.lanes = min(t.lanes(DType.f32), 1 << (channels - 1).bit_length())
        self.ty = vector(self.lanes)
        self.width = self.lanes * c.vectors
        rows = self.shape[0] * self.shape[2] * self.shape[3]
        groups = math.ceil(channels / self.width)
        self.groups = 1 if opt(rows) >= _MIN_ITEMS else groups
        self.per_item = math.ceil(groups / self.groups)  # register groups of one item
        elems = self.shape[4] * math.prod(a.kernel for a in self.axes) * self.per_item * self.width
        self.share = Share.of(rows * self.groups, elems)
        self.averages = isinstance(p.anchor, AveragePool)
        self.counts = [self._counts(f"{symbol}_count{i}", i) for i in range(3)] if self.averages else []

    def emit(self) -> None:
        f, channels = self.f, self.shape[1]
        full = channels // self.width  # whole register groups
        rest = channels - full * self.width
        with self.share.items(f) as item:
            n, depth, height, group = unravel(f, item, (self.shape[0], self.shape[2], self.shape[3], self.groups))
            taps = [axis.first_taps(f, i) for axis, i in zip(self.axes[:2], (depth, height), strict=True)]
            if self.groups == 1:
                self._columns(n, (depth, height), taps, f.i64(0), full, self.width)
                if rest:
                    self._columns(n, (depth, height), taps, f.i64(full * self.width), 1, rest)
            else:
                start = group * self.width
                choose(
                    f,
                    f.compare("slt", group, full),
                    full > 0,
                    rest > 0,
                    lambda: self._columns(n, (depth, height), taps, start, 1, self.width),
                    lambda: self._columns(n, (depth, height), taps, start, 1, rest),
                )

    def _columns(
        self, n: Reg, row: tuple[Reg, Reg], taps: Sequence[tuple[Reg, Reg, Reg]], first: Reg, groups: int, channels: int
    ) -> None:
        """All columns of `groups` register groups of `channels` each, from channel `first` on."""
        if not groups:
            return
        f, axis = self.f, self.axes[2]
        runs = axis.phases[0].runs(1)
        pieces: list[tuple[int, int, tuple[bool, ...] | None]] = [(0, axis.count, None)]
        if len(runs) * axis.kernel <= _MOST_COLUMN_CODE:
            pieces = [(r.first, r.stop, r.valid[0] if r.valid else None) for r in runs]
        for start, stop, valid in pieces:
            with f.loop(start, stop) as column, f.loop(0, groups) as group:
                self._window(n, row, taps, column, first + group * self.width, channels, valid)

    def _window(
        self,
        n: Reg,
        row: tuple[Reg, Reg],
        taps: Sequence[tuple[Reg, Reg, Reg]],
        column: Reg,
        channel: Reg,
        channels: int,
        valid: tuple[bool, ...] | None,
    ) -> None:
        """One output pixel of `channels` channels; `valid` tells which column taps to read, None that it varies."""
        f, (depth, height, width), strides = self.f, self.axes, self.x_strides
        counts = [min(self.lanes, channels - i) for i in range(0, channels, self.lanes)]
        start = 0.0 if self.averages else -math.inf
        accumulators = [f.var(self.ty, f.const(self.ty, start)) for _ in counts]
        (top_d, d0, d1), (top_h, h0, h1) = taps
        base = Epilogue.offset(f, strides[:2], (n, channel))
        with f.loop(_known(d0), _known(d1)) as kd, f.loop(_known(h0), _known(h1)) as kh:
            at = base + (top_d + kd * depth.dilation) * strides[2] + (top_h + kh * height.dilation) * strides[3]
            if valid is not None:
                left = at + (column * width.stride - width.pad) * strides[4]
                offsets = [left + k * (width.dilation * strides[4]) for k in range(width.kernel) if valid[k]]
                self._accumulate(accumulators, offsets, counts)
            else:
                left_tap, k0, k1 = width.first_taps(f, column)
                with f.loop(k0, k1) as kw:
                    self._accumulate(accumulators, [at + (left_tap + kw * width.dilation) * strides[4]], counts)
        scale = self._scale((*row, column)) if self.averages else None
        for v, (accumulator, count) in enumerate(zip(accumulators, counts, strict=True)):
            value = accumulator.get() if scale is None else accumulator.get() * scale
            index = (n, channel + v * self.lanes, *row, column)
            self.epilogue.finish(f, value, f.arg("out0"), self.extras, index, count)

    def _accumulate(self, accumulators: Sequence[Var], offsets: Sequence[Reg], counts: Sequence[int]) -> None:
        """Adds, or takes the maximum of, the registers at the offsets."""
        f, stride = self.f, self.x_strides[1]
        for v, (accumulator, count) in enumerate(zip(accumulators, counts, strict=True)):
            shift = v * self.lanes * stride
            values = [load_lanes(f, f.arg("in0"), o + shift, stride, self.lanes, count) for o in offsets]
            if not values:
                continue
            if self.averages:
                total = accumulator.get()
                for value in values:
                    total = total + value
                accumulator.set(total)
            else:
                accumulator.set(_maximum(f, accumulator.get(), values))

    def _counts(self, name: str, i: int) -> Callable[[Reg], Reg]:
        """How many elements an output along spatial axis i averages over: from a table where one can be made."""
        f, op, axis = self.f, self.op, self.axes[i]
        back = op.pads[len(op.kernel) + i - (3 - len(op.kernel))] if i >= 3 - len(op.kernel) else 0
        padded = isinstance(op, AveragePool) and op.count_include_pad
        low, high = (-axis.pad, axis.size + back) if padded else (0, axis.size)
        if isinstance(cast(Dim, axis.size), SymDim) or isinstance(cast(Dim, axis.count), SymDim):
            counted = replace(axis, size=high - low, pad=axis.pad + low)  # the same windows over what counts

            def from_taps(o: Reg) -> Reg:
                _, first, last = counted.first_taps(f, o)
                return f.cast("sitofp", f.maximum(last - first, 0), "float")

            return from_taps
        values = [
            sum(low <= o * axis.stride - axis.pad + k * axis.dilation < high for k in range(axis.kernel))
            for o in range(axis.count)
        ]
        table = Reg(f, "ptr", f"@{f.module.table(name, 'float', values)}")
        return lambda o: f.load("float", table, o)

    def _scale(self, index: tuple[Reg, Reg, Reg]) -> Reg:
        """One over the number of elements of the window, in all lanes."""
        f = self.f
        count = f.const("float", 1.0)
        for elements, i in zip(self.counts, index, strict=True):
            count = count * elements(i)
        return f.splat(f.const("float", 1.0) / count, self.lanes)


def _maximum(f: Function, top: Reg, values: Sequence[Reg]) -> Reg:
    """The largest of all; NaN when one is. One unordered compare finds a NaN in two values."""
    unordered = [f.compare("uno", values[i], values[min(i + 1, len(values) - 1)]) for i in range(0, len(values), 2)]
    found = unordered[0]
    for other in unordered[1:]:
        found = f.binary("or", found, other)
    for value in values:
        top = f.maximum(top, value)  # a NaN in top stays
    return f.select(found, f.const(top.ty, math.nan), top)


def _known(bound: Reg) -> Reg | int:
    """A bound as the number it is, if it is one: a loop of one iteration is then none."""
    value = constant_of(bound)
    return bound if value is None else int(value)


def _five(strides: Sequence[int], lead: int) -> tuple[int, ...]:
    """Strides over five axes: missing leading spatial ones have none."""
    return (*strides[:2], *(0,) * lead, *strides[2:])


def _spatial_axes(op: MaxPool | AveragePool, sizes: Sequence[int], counts: Sequence[int]) -> list[SpatialAxis]:
    """Depth, height and width; missing ones have extent 1."""
    given = [
        SpatialAxis(size, count, kernel, stride, pad, dilation, False)
        for size, count, kernel, stride, pad, dilation in zip(
            sizes, counts, op.kernel, op.strides, op.pads[: len(op.kernel)], op.dilations, strict=True
        )
    ]
    return [SpatialAxis(1, 1, 1, 1, 0, 1, False)] * (3 - len(given)) + given
