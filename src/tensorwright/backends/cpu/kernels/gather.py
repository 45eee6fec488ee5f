# SPDX-License-Identifier: Apache-2.0
"""Slices of an operand at indices known only at run time.

An index out of range reads nothing: its slice of the output becomes NaN, or 0 in integer types, which shows in the
answer instead of looking like one. (The reference raises there; a kernel has no way to.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, load_lanes, problem_of
from tensorwright.backends.cpu.kernels.nest import (
    Axis,
    Share,
    axes_of,
    by_stride,
    collapsed,
    empty_kernel,
    entry,
    operand_strides,
    sizes_of,
    unravel,
)
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.index import Gather

_OUT, _DATA, _INDICES = 0, 1, 2  # operands of the nest; the epilogue's follow
_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
NAN_BITS = {
    DType.f64: 0x7FF8 << 48,
    DType.f32: 0x7FC0 << 16,
    DType.f16: 0x7E00,
    DType.bf16: 0x7FC0,
    DType.f8e4m3fn: 0x7F,
    DType.f8e5m2: 0x7E,
}


@dataclass(frozen=True, slots=True)
class GatherConfig(Config):
    """Registers of a slice copied side by side."""

    unroll: int


class GatherRows(KernelFamily[GatherConfig, CpuTarget, CpuKernel]):
    """`Gather` of any element type with i32 or i64 indices; f32 with fused epilogue."""

    name, version, config = "gather_rows", 1, GatherConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, Gather):
            return Reject(f"{p.anchor.kind} is not a gather")
        data = p.inputs[0]
        if data is None or data.shape[p.anchor.axis] == 0:
            return Reject("the gathered axis is empty")
        reason = body_problem(p) if p.fused else None
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[GatherConfig]:
        yield GatherConfig(4)

    def emit(self, w: Workload, c: GatherConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        slices = _Slices(f, problem_of(w), c, t)
        slices.emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, slices.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


class _Slices:
    """Writes the code: per output row, one index and a copy; per element where the row runs along the indices."""

    def __init__(self, f: Function, p: Problem, c: GatherConfig, t: CpuTarget) -> None:
        data, indices = p.inputs
        assert isinstance(p.anchor, Gather) and data is not None and indices is not None
        self.f, self.unroll = f, c.unroll
        axis, rank = p.anchor.axis, len(p.output.shape)
        self.size, self.step = data.shape[axis], data.strides[axis]
        inner = len(data.shape) - axis - 1
        strides = [
            p.output.strides,
            (*data.strides[:axis], *(0,) * len(indices.shape), *data.strides[axis + 1 :]),
            (*(0,) * axis, *indices.strides, *(0,) * inner),
            *(aligned_strides(e, rank) for e in p.extras),
        ]
        *self.outer, self.row = self._nest(p.output, strides)
        if self.row.strides[_INDICES]:
            self.outer, self.row = [*self.outer, self.row], Axis(1, (0,) * len(strides))
        nest = (*self.outer, self.row)
        self.element = "float" if p.fused else _BITS[data.dtype.size_bytes]
        self.lanes = min(t.lanes(data.dtype), 1 << (self.row.size - 1).bit_length())
        self.fill = f.const(vector(self.lanes, self.element), math.nan if p.fused else NAN_BITS.get(data.dtype, 0))
        self.index_type = ELEMENTS[indices.dtype]
        self.data_strides, self.index_strides = operand_strides(nest, _DATA), operand_strides(nest, _INDICES)
        self.extras = [f.arg(f"in{i + 2}") for i in range(len(p.extras))]
        self.epilogue = Epilogue(
            p.fused,
            operand_strides(nest, _OUT),
            [operand_strides(nest, 3 + i) for i in range(len(p.extras))],
            len(nest) - 1,
        )
        self.share = Share.of(math.prod(sizes_of(self.outer)), self.row.size)

    def _nest(self, out: Operand, strides: list[tuple[int, ...]]) -> list[Axis]:
        return collapsed(by_stride(axes_of(out.shape, strides), _OUT)) or [Axis(1, (0,) * len(strides))]

    def emit(self) -> None:
        f = self.f
        full, tail = divmod(self.row.size, self.lanes)
        looped = full - full % self.unroll
        with self.share.items(f) as item:
            outer = unravel(f, item, sizes_of(self.outer))
            start, valid = self._source(outer)
            if looped:
                with f.loop(0, looped * self.lanes, self.unroll * self.lanes) as at:
                    self._copy(outer, start, valid, [(at + u * self.lanes, self.lanes) for u in range(self.unroll)])
            rest = [(f.i64(v * self.lanes), self.lanes) for v in range(looped, full)]
            self._copy(outer, start, valid, rest + ([(f.i64(full * self.lanes), tail)] if tail else []))

    def _source(self, outer: list[Reg]) -> tuple[Reg, Reg]:
        """Offset of the slice in the data (of slice 0 for an index out of range), and whether the index is in range."""
        f = self.f
        raw = f.load(self.index_type, f.arg("in1"), Epilogue.offset(f, self.index_strides[:-1], outer))
        index = f.cast("sext", raw, "i64")
        index = f.select(f.compare("slt", index, 0), index + self.size, index)
        valid = f.compare("ult", index, self.size)
        index = f.select(valid, index, f.i64(0))
        return Epilogue.offset(f, self.data_strides[:-1], outer) + index * self.step, valid

    def _copy(self, outer: list[Reg], start: Reg, valid: Reg, places: list[tuple[Reg, int]]) -> None:
        f, stride = self.f, self.row.strides[_DATA]
        ty = self.fill.ty
        loaded = [
            load_lanes(f, f.arg("in0"), start + at * stride, stride, self.lanes, count, self.element)
            for at, count in places
        ]
        for (at, count), value in zip(places, loaded, strict=True):
            value = f.op(ty, f"select i1 {valid.ref}, {ty} {value.ref}, {ty} {self.fill.ref}")
            self.epilogue.finish(f, value, f.arg("out0"), self.extras, (*outer, at), count)
