# SPDX-License-Identifier: Apache-2.0
"""Layer and instance normalisation: a pass for the mean, one for the variance about it, one for the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, problem_of
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.rows import Index, Reader, RowNest, Visit, f32_problem
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.norm import InstanceNorm, LayerNorm


@dataclass(frozen=True, slots=True)
class NormConfig(Config):
    """Registers of a row handled side by side."""

    unroll: int


class NormRows(KernelFamily[NormConfig, CpuTarget, CpuKernel]):
    """f32 `LayerNorm` and `InstanceNorm` with fused epilogue, any strides."""

    name, version, config = "norm_rows", 1, NormConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, LayerNorm | InstanceNorm):
            return Reject(f"{p.anchor.kind} is neither layer_norm nor instance_norm")
        reason = f32_problem(w.inputs) or body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[NormConfig]:
        yield NormConfig(4)

    def emit(self, w: Workload, c: NormConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
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

    def __init__(self, f: Function, p: Problem, c: NormConfig, t: CpuTarget) -> None:
        assert isinstance(p.anchor, LayerNorm | InstanceNorm) and p.inputs[0] is not None
        self.f, self.unroll, self.epsilon = f, c.unroll, p.anchor.epsilon
        shape = p.output.shape
        is_layer = isinstance(p.anchor, LayerNorm)
        reduced = range(p.anchor.axis, len(shape)) if isinstance(p.anchor, LayerNorm) else range(2, len(shape))
        parameters = [(i, o) for i, o in enumerate(p.inputs) if i and o is not None]
        strides = [
            aligned_strides(p.inputs[0], len(shape)),
            *(_strides(o, len(shape), is_layer) for _, o in parameters),
            *(aligned_strides(o, len(shape)) for o in (p.output, *p.extras)),
        ]
        self.nest = nest = RowNest(shape, strides, reduced, t.lanes(DType.f32), t.vector_registers)
        self.ty = vector(nest.lanes)
        elems: Dim = nest.row_elems
        self.share = f.const(self.ty, 1.0) / f.number(self.ty, elems) if isinstance(elems, SymDim) else 1 / elems
        self.parameters = [(f.arg(f"in{i}"), k + 1) for k, (i, _) in enumerate(parameters)]
        first = 1 + len(parameters)
        self.out = f.arg("out0")
        self.extras = [f.arg(f"in{len(p.inputs) + i}") for i in range(len(p.extras))]
        self.epilogue = Epilogue(
            p.fused, nest.strides(first), [nest.strides(first + 1 + i) for i in range(len(p.extras))], nest.lane_axis
        )

    def row(self, kept: Index, count: Reg | int) -> None:
        """One row, or `count` rows side by side."""
        f, nest = self.f, self.nest
        x = Reader(f, nest, f.arg("in0"), 0)
        mean = self._mean(kept, count, x)

        def square(v: Visit) -> Reg:
            centred = nest.keep(f, x(v) - mean, v.count, 0.0)
            return centred * centred

        variance = self._mean(kept, count, square)
        scale = f.const(self.ty, 1.0) / vm.sqrt(f, variance + self.epsilon)
        readers = [Reader(f, nest, pointer, operand) for pointer, operand in self.parameters]

        def finish(v: Visit) -> None:
            result = (x(v) - mean) * scale * readers[0](v)
            if len(readers) == 2:
                result = result + readers[1](v)
            self.epilogue.finish(f, result, self.out, self.extras, v.index, v.count)

        nest.visit(f, kept, count, self.unroll, finish)

    def _mean(self, kept: Index, count: Reg | int, value: Callable[[Visit], Reg]) -> Reg:
        """The mean of value(visit) over the row; lanes outside the row must be 0."""
        f, nest = self.f, self.nest
        sums = [f.var(self.ty, f.const(self.ty, 0.0)) for _ in range(nest.slots(self.unroll))]
        nest.visit(f, kept, count, self.unroll, lambda v: sums[v.slot].set(sums[v.slot].get() + value(v)))
        return nest.fold(f, lambda a, b: a + b, [s.get() for s in sums]) * self.share


def _strides(parameter: Operand, rank: int, is_layer: bool) -> Sequence[int]:
    """Strides over x's axes: a layer normalisation's parameters broadcast, the others' lie along the channels."""
    return aligned_strides(parameter, rank) if is_layer else (0, *parameter.strides, *(0,) * (rank - 2))
