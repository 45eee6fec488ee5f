# SPDX-License-Identifier: Apache-2.0
"""`MaxPoolIndices`: the window's elements one after the other, with the position of the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tensorwright.backends.base import (
    Accept,
    Config,
    CpuKernel,
    KernelFamily,
    Operand,
    Reject,
    Stage,
    Workload,
    row_major,
)
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.llvm_types import is_float
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.pool import MaxPoolIndices

_FLOATS = {DType.f64: "double", DType.f32: "float", DType.f16: "half"}


@dataclass(frozen=True, slots=True)
class PoolIndicesConfig(Config):
    """There is one way to search."""


class PoolIndices(KernelFamily[PoolIndicesConfig, CpuTarget, CpuKernel]):
    """`MaxPoolIndices` of any strides and number of spatial dims."""

    name, version, config = "pool_indices", 1, PoolIndicesConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, MaxPoolIndices):
            return Reject(f"{w.op.kind} is not a max_pool_indices")
        x = w.inputs[0]
        if x is None or not (x.dtype in _FLOATS or x.dtype.is_integer):
            return Reject(f"the order of {x.dtype if x else 'nothing'}")
        return Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[PoolIndicesConfig]:
        yield PoolIndicesConfig()

    def emit(
        self, w: Workload, c: PoolIndicesConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        x, out, op = w.inputs[0], w.outputs[0], w.op
        assert isinstance(op, MaxPoolIndices) and x is not None
        if 0 in out.shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        share = Share.of(math.prod(out.shape), math.prod(op.kernel))
        with share.items(f) as item:
            place = unravel(f, item, out.shape)
            f.store(_best(f, op, x, place), f.arg("out0"), Epilogue.offset(f, out.strides, place))
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


def _best(f: Function, op: MaxPoolIndices, x: Operand, place: list[Reg]) -> Reg:
    """The position of the largest element in the window at `place`."""
    element = _FLOATS.get(x.dtype) or f"i{8 * x.dtype.size_bytes}"
    order = _position_strides(x.shape, op.column_major)
    best, found = f.var(element, f.const(element, 0)), f.var("i64", f.i64(-1))
    source, position = (Epilogue.offset(f, s[:2], place[:2]) for s in (x.strides, order))
    with ExitStack() as nest:
        for d, size in enumerate(x.shape[2:]):
            k = nest.enter_context(f.loop(0, op.kernel[d]))
            at = place[2 + d] * op.strides[d] - op.pads[d] + k * op.dilations[d]
            nest.enter_context(f.when(f.compare("ult", at, size)))
            source, position = source + at * x.strides[2 + d], position + at * order[2 + d]
        value = f.load(element, f.arg("in0"), source)
        takes = f.binary("or", _beats(f, value, best.get(), x.dtype), f.compare("slt", found.get(), 0))
        with f.when(takes):
            best.set(value)
            found.set(position)
    return found.get()


def _beats(f: Function, value: Reg, best: Reg, dtype: DType) -> Reg:
    if not is_float(value.ty):
        return f.compare("sgt" if dtype.is_signed else "ugt", value, best)
    is_first_nan = f.binary("and", vm.is_nan(f, value), f.compare("ord", best, best))
    return f.binary("or", f.compare("ogt", value, best), is_first_nan)


def _position_strides(shape: tuple[int, ...], column_major: bool) -> tuple[int, ...]:
    strides = row_major(shape)
    if not column_major:
        return strides
    return (*strides[:2], *reversed(row_major(tuple(reversed(shape[2:])))))
