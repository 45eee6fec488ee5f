# SPDX-License-Identifier: Apache-2.0
"""Matrix products, convolutions and pools of every type that the fast families lack: f64 and integers.

Plain loops over any strides, with lanes along the columns, filters or channels: right for all types, tuned for none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import (
    Accept,
    Config,
    CpuKernel,
    KernelFamily,
    Operand,
    Packed,
    Reject,
    Stage,
    Workload,
    row_major,
)
from tensorwright.backends.cpu.conversions import ELEMENTS, convert
from tensorwright.backends.cpu.emitter import Function, Module, Reg, Var
from tensorwright.backends.cpu.epilogue import Epilogue, load_lanes, store_lanes
from tensorwright.backends.cpu.kernels.microkernel import choose
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.kernels.reduce import limits
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.pointwise_ops import emit_instr
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, ceil_div, high, maximum
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add, Div, Maximum, Mul
from tensorwright.ops.linear import MatMul
from tensorwright.ops.pool import AveragePool, MaxPool

_TYPES = frozenset(ELEMENTS) - {DType.f32, DType.bool}


@dataclass(frozen=True, slots=True)
class GenericConfig(Config):
    """There is one way to loop."""


class DenseGeneric(KernelFamily[GenericConfig, CpuTarget, CpuKernel]):
    """`MatMul`, `MaxPool`, `Convolution` and `Deconvolution` of f64 and integers; `AveragePool` of f64. Sums of
    integers are exact as long as they fit the type, and wrap."""

    name, version, config = "dense_generic", 2, GenericConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, MatMul | Convolution | Deconvolution | MaxPool | AveragePool):
            return Reject(f"{w.op.kind} is neither a product nor a pool")
        x = w.inputs[0]
        if x is None or x.dtype not in _TYPES:
            return Reject(f"the input is {x.dtype if x else 'absent'}")
        if len(w.inputs) > 2:
            return Reject("there is a bias")
        return Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[GenericConfig]:
        yield GenericConfig()

    def emit(self, w: Workload, c: GenericConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")
        f = entry(m, symbol, w)
        nest, packed = _nest(w), dict[int, Packed]()
        if isinstance(w.op, Convolution) and 1 in constants:
            packed[1], strides = _filters_last(constants[1], w.op.groups)
            nest = dataclasses.replace(nest, w=strides)
        loops = _Loops(f, w.op, nest, w.outputs[0].dtype, t)
        loops.emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, loops.share.units),), packed=packed)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


@dataclass(frozen=True, slots=True)
class _Window:
    """One spatial dim: which input position an output position and a kernel position read."""

    size: int
    stride: int
    pad: int
    back: int
    dilation: int
    transposed: bool

    def read(self, f: Function, o: Reg, k: Reg) -> tuple[Reg, Reg, Reg]:
        """The position, whether it is inside the input, and whether inside the input with its padding."""
        at = (
            f.binary("add", o + self.pad, k * -self.dilation)
            if self.transposed
            else o * self.stride + (k * self.dilation - self.pad)
        )
        if self.transposed:
            whole = f.compare("eq", f.binary("srem", at, self.stride), 0)
            at = f.binary("div", at, self.stride)
            inside = f.binary("and", whole, self._between(f, at, 0, self.size))
            return at, inside, inside
        return at, self._between(f, at, 0, self.size), self._between(f, at, -self.pad, self.size + self.back)

    def _between(self, f: Function, at: Reg, low: int, high: int) -> Reg:
        return f.binary("and", f.compare("sge", at, low), f.compare("slt", at, high))


@dataclass(frozen=True, slots=True)
class _Strides:
    """One operand's strides over the outer axes, the lane axis, the terms of the sum and the spatial dims."""

    outer: tuple[int, ...]
    lane: int
    terms: tuple[int, ...] = ()
    spatial: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Nest:
    """Loops over the `outer` axes and `lanes` of the output, and for each over `terms`. The last axes of `outer` and
    of `terms` are the output and kernel positions of `windows`."""

    outer: tuple[int, ...]
    lanes: int
    terms: tuple[int, ...]
    windows: tuple[_Window, ...]
    x: _Strides
    w: _Strides | None
    out: _Strides


def _nest(w: Workload) -> _Nest:
    op, out = w.op, w.outputs[0]
    x, *rest = (o for o in w.inputs if o is not None)
    if isinstance(op, MatMul):
        return _product(x, rest[0], out)
    if isinstance(op, Convolution | Deconvolution):
        return _convolution(op, x, rest[0], out)
    assert isinstance(op, MaxPool | AveragePool)
    rank = len(op.kernel)
    none = (0,) * rank
    return _Nest(
        (out.shape[0], *out.shape[2:]),
        out.shape[1],
        op.kernel,
        _windows(op, x, rank),
        _Strides((x.strides[0], *none), x.strides[1], none, x.strides[2:]),
        None,
        _Strides((out.strides[0], *out.strides[2:]), out.strides[1]),
    )


def _windows(op: Convolution | Deconvolution | MaxPool | AveragePool, x: Operand, rank: int) -> tuple[_Window, ...]:
    dims = zip(x.shape[2:], op.strides, op.pads[:rank], op.pads[rank:], op.dilations, strict=True)
    return tuple(_Window(*dim, isinstance(op, Deconvolution)) for dim in dims)


def _product(a: Operand, b: Operand, out: Operand) -> _Nest:
    """A vector on the left is one row, a vector on the right one column."""
    rows = a.shape[-2] if len(a.shape) > 1 else 1
    row_a = a.strides[-2] if len(a.shape) > 1 else 0
    columns, column_b = (b.shape[-1], b.strides[-1]) if len(b.shape) > 1 else (1, 0)
    kept = out.strides[: len(out.strides) - (len(a.shape) > 1) - (len(b.shape) > 1)]
    batch = out.shape[: len(kept)]
    row_out = out.strides[len(kept)] if len(a.shape) > 1 else 0
    column_out = out.strides[-1] if len(b.shape) > 1 else 0

    def leading(o: Operand) -> tuple[int, ...]:
        own = o.strides[:-2]
        return (0,) * (len(kept) - len(own)) + own

    depth_b = b.strides[-2] if len(b.shape) > 1 else b.strides[0]
    return _Nest(
        (*batch, rows),
        columns,
        (a.shape[-1],),
        (),
        _Strides((*leading(a), row_a), 0, (a.strides[-1],)),
        _Strides((*leading(b), 0), column_b, (depth_b,)),
        _Strides((*kept, row_out), column_out),
    )


def _convolution(op: Convolution | Deconvolution, x: Operand, w: Operand, out: Operand) -> _Nest:
    rank, g = len(op.strides), op.groups
    none = (0,) * rank
    filters, depth = out.shape[1] // g, x.shape[1] // g
    if isinstance(op, Deconvolution):
        group_w, filter_w, depth_w = w.strides[0] * depth, w.strides[1], w.strides[0]
    else:
        group_w, filter_w, depth_w = w.strides[0] * filters, w.strides[0], w.strides[1]
    return _Nest(
        (out.shape[0], g, *out.shape[2:]),
        filters,
        (depth, *w.shape[2:]),
        _windows(op, x, rank),
        _Strides((x.strides[0], x.strides[1] * depth, *none), 0, (x.strides[1], *none), x.strides[2:]),
        _Strides((0, group_w, *none), filter_w, (depth_w, *w.strides[2:])),
        _Strides((out.strides[0], out.strides[1] * filters, *out.strides[2:]), out.strides[1]),
    )


def _filters_last(weights: Array, groups: int) -> tuple[Packed, _Strides]:
    """Convolution weights as [groups, channels, *kernel, filters], so that lanes are neighbours, and their strides."""
    filters = weights.shape[0] // groups
    turned = np.moveaxis(weights.reshape(groups, filters, *weights.shape[1:]), 1, -1)
    group, *terms, lane = row_major(turned.shape)
    none = (0,) * (weights.ndim - 2)
    packed = Packed(turned.shape, lambda out: np.copyto(out, turned), DType.of(weights.dtype))
    return packed, _Strides((0, group, *none), lane, tuple(terms))


class _Loops:
    """Writes the code."""

    def __init__(self, f: Function, op: Op, nest: _Nest, dtype: DType, t: CpuTarget) -> None:
        self.f, self.op, self.nest, self.dtype = f, op, nest, dtype
        self.lanes = min(t.lanes(dtype), 1 << (high(nest.lanes) - 1).bit_length())
        self.blocks = cast(int, ceil_div(nest.lanes, self.lanes))
        self.element = ELEMENTS[dtype]
        self.ty = vector(self.lanes, self.element)
        self.share = Share.of(
            math.prod(nest.outer) * self.blocks, self.lanes * cast(int, maximum(math.prod(nest.terms), 1))
        )

    def emit(self) -> None:
        f, nest = self.f, self.nest
        last: Dim = nest.lanes - (self.blocks - 1) * self.lanes
        with self.share.items(f) as item:
            *outer, block = unravel(f, item, (*nest.outer, self.blocks))
            choose(
                f,
                f.compare("slt", block, self.blocks - 1),
                not isinstance(last, int) or (self.blocks > 1 and last < self.lanes),
                True,
                lambda: self._outputs(outer, block * self.lanes, self.lanes),
                lambda: self._outputs(outer, block * self.lanes, last if isinstance(last, int) else f.i64(last)),
            )

    def _outputs(self, outer: Sequence[Reg], lane: Reg, count: Reg | int) -> None:
        """The first `count` lanes of the output from `lane` on."""
        f, nest = self.f, self.nest
        start = limits(self.dtype)[0] if isinstance(self.op, MaxPool) else 0
        total = f.var(self.ty, f.const(self.ty, start))
        counted = f.var("i64", f.i64(0)) if isinstance(self.op, AveragePool) else None
        bases = [
            f.i64(0) if s is None else Epilogue.offset(f, s.outer, outer) + lane * s.lane
            for s in (nest.x, nest.w, nest.out)
        ]
        first = len(nest.terms) - len(nest.windows)
        for taps in self._indices(nest.terms[first:]):
            self._add(outer, taps, bases, total, counted, count)
        value = total.get()
        if counted is not None:
            number = convert(f, counted.get(), DType.i64, self.dtype)
            value = emit_instr(f, Div(), (value, f.splat(number, self.lanes)), (self.dtype, self.dtype))
        store_lanes(f, value, f.arg("out0"), bases[2], nest.out.lane, count)

    def _indices(self, sizes: Sequence[int], *index: Reg) -> Iterator[tuple[Reg, ...]]:
        """Nested loops over the sizes; the body runs once for each index."""
        if not sizes:
            yield index
            return
        with self.f.loop(0, sizes[0]) as i:
            yield from self._indices(sizes[1:], *index, i)

    def _add(
        self,
        outer: Sequence[Reg],
        taps: Sequence[Reg],
        bases: Sequence[Reg],
        total: Var,
        counted: Var | None,
        count: Reg | int,
    ) -> None:
        """The terms at one position of the windows, unless it lies outside the input."""
        f, nest, n = self.f, self.nest, len(self.nest.windows)
        first = len(nest.terms) - n
        reads = [window.read(f, o, k) for window, o, k in zip(nest.windows, outer[len(outer) - n :], taps, strict=True)]
        inside, padded = (self._all([r[i] for r in reads]) for i in (1, 2))
        if counted is not None:
            counts = padded if isinstance(self.op, AveragePool) and self.op.count_include_pad else inside
            counted.set(counted.get() + f.cast("zext", counts, "i64"))
        x_start = Epilogue.offset(f, nest.x.spatial, [r[0] for r in reads]) + bases[0]
        w_start = Epilogue.offset(f, nest.w.terms[first:], taps) + bases[1] if nest.w is not None else f.i64(0)

        def accumulate(rest: Sequence[Reg]) -> None:
            x_at = Epilogue.offset(f, nest.x.terms[:first], rest) + x_start
            value = load_lanes(f, f.arg("in0"), x_at, nest.x.lane, self.lanes, count, self.element)
            types = (self.dtype, self.dtype)
            if nest.w is not None:
                w_at = Epilogue.offset(f, nest.w.terms[:first], rest) + w_start
                weight = load_lanes(f, f.arg("in1"), w_at, nest.w.lane, self.lanes, count, self.element)
                value = emit_instr(f, Mul(), (value, weight), types)
            combine = Maximum() if isinstance(self.op, MaxPool) else Add()
            total.set(emit_instr(f, combine, (total.get(), value), types))

        with f.when(inside) if reads else contextlib.nullcontext():
            for rest in self._indices(nest.terms[:first]):
                accumulate(rest)

    def _all(self, conditions: Sequence[Reg]) -> Reg:
        """Whether all hold."""
        result = Reg(self.f, "i1", "true")
        for condition in conditions:
            result = self.f.binary("and", result, condition)
        return result
