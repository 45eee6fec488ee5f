# SPDX-License-Identifier: Apache-2.0
"""Running sums and products: each row along the axis is gone through in order, f32 in f64 and f16 in f32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.llvm_types import is_float
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.order import CumSum, Running

_ELEMENTS = {DType.f64: "double", DType.f32: "float", DType.f16: "half"}


@dataclass(frozen=True, slots=True)
class CumSumConfig(Config):
    """There is one way to add."""


class CumSumRows(KernelFamily[CumSumConfig, CpuTarget, CpuKernel]):
    """`CumSum` and `CumProd` of any strides."""

    name, version, config = "cum_sum_rows", 1, CumSumConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, Running):
            return Reject(f"{w.op.kind} is not a running sum or product")
        dtype = w.outputs[0].dtype
        return Accept() if dtype in _ELEMENTS or dtype.is_integer else Reject(f"running sums or products of {dtype}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[CumSumConfig]:
        yield CumSumConfig()

    def emit(self, w: Workload, c: CumSumConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        x, out, op = w.inputs[0], w.outputs[0], w.op
        assert isinstance(op, Running) and x is not None
        if 0 in out.shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        element = _ELEMENTS.get(out.dtype) or f"i{8 * out.dtype.size_bytes}"
        wide = {"float": "double", "half": "float"}.get(element, element)
        combine = ("f" if is_float(wide) else "") + ("add" if isinstance(op, CumSum) else "mul")
        beside = [d for d in range(len(out.shape)) if d != op.axis]
        size = out.shape[op.axis]
        share = Share.of(math.prod(out.shape[d] for d in beside), size)
        with share.items(f) as item:
            place = unravel(f, item, [out.shape[d] for d in beside])
            source, target = (Epilogue.offset(f, [o.strides[d] for d in beside], place) for o in (x, out))
            total = f.var(wide, f.const(wide, op.start))
            with f.loop(0, size) as i:
                at = f.i64(size - 1) - i if op.reverse else i
                value = f.cast("fpext", f.load(element, f.arg("in0"), source + at * x.strides[op.axis]), wide)
                before = total.get()
                # integers wrap around, as in NumPy
                after = f.op(wide, f"{combine} {wide} {before.ref}, {value.ref}")
                total.set(after)
                shown = f.cast("fptrunc", before if op.exclusive else after, element)
                f.store(shown, f.arg("out0"), target + at * out.strides[op.axis])
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)
