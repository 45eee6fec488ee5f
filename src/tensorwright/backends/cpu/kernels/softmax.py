# SPDX-License-Identifier: Apache-2.0
"""Softmax and its logarithm along any axis: one pass for the maximum, one for the exponentials and their sum, one
to scale. A row that fits the registers is read and written once; a longer one keeps its exponentials in the output.
"""

from __future__ import annotations

import math
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
    store_lanes,
)
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.rows import Index, Reader, RowNest, Visit, f32_problem
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.reduce import LogSoftmax, Softmax


@dataclass(frozen=True, slots=True)
class SoftmaxConfig(Config):
    """Registers of a row handled side by side."""

    unroll: int


class SoftmaxRows(KernelFamily[SoftmaxConfig, CpuTarget, CpuKernel]):
    """f32 `Softmax` and `LogSoftmax` with fused epilogue, any axis and strides."""

    name, version, config = "softmax_rows", 1, SoftmaxConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, Softmax | LogSoftmax):
            return Reject(f"{p.anchor.kind} is not a softmax")
        reason = f32_problem(w.inputs) or body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[SoftmaxConfig]:
        yield SoftmaxConfig(4)

    def emit(self, w: Workload, c: SoftmaxConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        rows = _Rows(f, problem_of(w), c, t)
        rows.nest.positions(f, rows.row)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, rows.nest.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _Rows:
    """Writes the code of one row."""

    def __init__(self, f: Function, p: Problem, c: SoftmaxConfig, t: CpuTarget) -> None:
        assert isinstance(p.anchor, Softmax | LogSoftmax)
        self.f, self.logarithm, self.unroll = f, isinstance(p.anchor, LogSoftmax), c.unroll
        shape = p.output.shape
        operands = [o for o in (p.inputs[0], p.output, *p.extras) if o is not None]
        strides = [aligned_strides(o, len(shape)) for o in operands]
        self.nest = RowNest(shape, strides, (p.anchor.axis,), t.lanes(DType.f32), t.vector_registers)
        self.ty = vector(self.nest.lanes)
        self.out, self.extras = f.arg("out0"), [f.arg(f"in{i + 1}") for i in range(len(p.extras))]
        self.out_strides = self.nest.strides(1)
        self.epilogue = Epilogue(
            p.fused, self.out_strides, [self.nest.strides(i + 2) for i in range(len(p.extras))], self.nest.lane_axis
        )

    def row(self, kept: Index, count: Reg | int) -> None:
        """One row, or `count` rows side by side."""
        f, nest = self.f, self.nest
        x = Reader(f, nest, f.arg("in0"), 0)
        tops = [f.var(self.ty, f.const(self.ty, -math.inf)) for _ in range(nest.slots(self.unroll))]

        def compare(v: Visit) -> None:
            tops[v.slot].set(f.maximum(tops[v.slot].get(), nest.keep(f, x(v), v.count, -math.inf)))

        nest.visit(f, kept, count, self.unroll, compare)
        top = nest.fold(f, f.maximum, [t.get() for t in tops])  # may miss a NaN, which the sum then finds
        sums = [f.var(self.ty, f.const(self.ty, 0.0)) for _ in tops]
        powers: dict[int, Reg] = {}

        def add(v: Visit) -> None:
            power = vm.exp(f, x(v) - top)
            if v.number is not None:
                powers[v.number] = power
            elif not self.logarithm:
                offset = Epilogue.offset(f, self.out_strides, v.index)
                store_lanes(f, power, self.out, offset, self.out_strides[nest.lane_axis], v.count)
            sums[v.slot].set(sums[v.slot].get() + nest.keep(f, power, v.count, 0.0))

        nest.visit(f, kept, count, self.unroll, add)
        total = nest.fold(f, lambda a, b: a + b, [s.get() for s in sums])
        last = vm.log(f, total) if self.logarithm else f.const(self.ty, 1.0) / total

        def finish(v: Visit) -> None:
            if self.logarithm:
                result = x(v) - top - last
            else:
                result = (powers[v.number] if v.number is not None else self._stored(v)) * last
            self.epilogue.finish(f, result, self.out, self.extras, v.index, v.count)

        nest.visit(f, kept, count, self.unroll, finish)

    def _stored(self, v: Visit) -> Reg:
        offset = Epilogue.offset(self.f, self.out_strides, v.index)
        return load_lanes(self.f, self.out, offset, self.out_strides[self.nest.lane_axis], self.nest.lanes, v.count)
