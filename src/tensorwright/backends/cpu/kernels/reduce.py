# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes.

A large reduction to few elements is done in two stages: the slowest reduced axis is cut into `parts`, whose results
go to the workspace as if the part were a kept axis, and a second reduction combines them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, problem_of
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.rows import Index, Reader, RowNest, Visit
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.pointwise_ops import emit_instr
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Undecided, high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.elementwise import Add, Div, Maximum, Minimum, Mul
from tensorwright.ops.fused import Fused
from tensorwright.ops.reduce import Reduce

_COMBINE: dict[str, Op] = {"sum": Add(), "mean": Add(), "prod": Mul(), "max": Maximum(), "min": Minimum()}
_FEW_UNITS = 16  # a large reduction with fewer is worth cutting into parts
_LARGE = 1 << 16  # elements
_MOST_PARTS = 16


@dataclass(frozen=True, slots=True)
class ReduceConfig(Config):
    """Accumulators of a row; where lanes are rows, registers of neighbouring rows taken together; parts of a row
    reduced apart (1: a single stage)."""

    unroll: int
    columns: int = 1
    parts: int = 1


class ReduceNd(KernelFamily[ReduceConfig, CpuTarget, CpuKernel]):
    """`Reduce` over any axes and strides; f32 with fused epilogue, other types bare."""

    name, version, config = "reduce_nd", 2, ReduceConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        reason = _reduce_problem(problem_of(w))
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ReduceConfig]:
        p = problem_of(w)
        whole = _whole(p)
        nest = whole.nest(t, 1)
        blocks = 0 if nest.lanes_in_row else math.ceil(nest.kept[-1].size / nest.lanes)
        columns = [c for c in (4, 2, 1) if c == 1 or c <= blocks]
        if math.prod(whole.shape) >= _LARGE and nest.share.units < _FEW_UNITS and whole.parts > 1:
            yield ReduceConfig(4 // columns[0], columns[0], whole.parts)
        yield from (ReduceConfig(4 // c, c) for c in columns)

    def emit(self, w: Workload, c: ReduceConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        whole = _whole(problem_of(w))
        passes = [whole] if c.parts == 1 else whole.in_parts(c.parts)
        names = [f"{symbol}_parts", symbol][-len(passes) :]
        stages = tuple(Stage(name, one.emit(entry(m, name, w), c, t)) for name, one in zip(names, passes, strict=True))
        workspace = high(math.prod(passes[-1].shape)) * w.outputs[0].dtype.size_bytes if c.parts > 1 else 0
        return CpuKernel(m.text(), stages, workspace_bytes=workspace)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


def _reduce_problem(p: Problem) -> str | None:
    if not isinstance(p.anchor, Reduce):
        return f"{p.anchor.kind} is not a reduction"
    x = p.inputs[0]
    if x is None or x.dtype not in ELEMENTS:
        return f"the input is {x.dtype if x else 'absent'}"
    if not p.anchor.axes:
        return "no axis is reduced"
    if any(x.shape[a] == 0 for a in p.anchor.axes):
        return "a reduced axis is empty"
    if p.anchor.how == "mean" and x.dtype.is_integer and x.dtype.size_bytes < 8:
        return f"the sum of a mean may not fit {x.dtype}"
    return body_problem(p) if p.fused else None


def limits(dtype: DType) -> tuple[float | int, float | int]:
    """The least and the greatest value of a type (infinite for floats)."""
    if dtype.is_float:
        return -math.inf, math.inf
    if dtype is DType.bool:
        return 0, 1
    bits = 8 * dtype.size_bytes
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.is_signed else (0, (1 << bits) - 1)


def over_input(operand: Operand, rank: int, axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """Strides over the input's axes of an operand that broadcasts to the output: 0 along the reduced ones."""
    strides = iter(aligned_strides(operand, rank if keepdims else rank - len(axes)))
    if keepdims:
        return tuple(strides)
    return tuple(0 if i in axes else next(strides) for i in range(rank))


@dataclass(frozen=True)
class _Pass:
    """One reduction of `shape` over the axes `reduced`; `strides` and `pointers` are those of input, output and the
    epilogue's operands. `divisor` is the number of elements of a mean that ends here, else 1."""

    how: str
    dtype: DType
    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    pointers: tuple[str, ...]
    fused: Fused | None
    divisor: int

    @property
    def split_axis(self) -> int:
        """The reduced axis that is slowest in the input's memory."""
        return max(self.reduced, key=lambda d: high(abs(self.strides[0][d])) if self.shape[d] != 1 else -1)

    @property
    def parts(self) -> int:
        """The number of equal pieces that the split axis is best cut into; 1 when there is none."""
        size = self.shape[self.split_axis]
        return max(q for q in range(1, _MOST_PARTS + 1) if size % q == 0)

    def in_parts(self, parts: int) -> list[_Pass]:
        """Two passes of the same result: over each of `parts` pieces of the split axis, then over the pieces."""
        axis = self.split_axis
        if self.shape[axis] % parts != 0:
            raise Undecided(f"how {self.shape[axis]} elements are cut into {parts} parts is known only in a run")
        kept = tuple(1 if d in self.reduced else size for d, size in enumerate(self.shape))
        space = tuple(0 if d == 1 else s for d, s in zip((parts, *kept), row_major((parts, *kept)), strict=True))
        size = self.shape[axis] // parts
        shape = (parts, *(size if d == axis else n for d, n in enumerate(self.shape)))
        source = (self.strides[0][axis] * size, *self.strides[0])
        first = _Pass(
            self.how,
            self.dtype,
            shape,
            tuple(d + 1 for d in self.reduced),
            (source, space),
            (self.pointers[0], "workspace"),
            None,
            1,
        )
        last = _Pass(
            self.how,
            self.dtype,
            (parts, *kept),
            (0,),
            (space, *((0, *s) for s in self.strides[1:])),
            ("workspace", *self.pointers[1:]),
            self.fused,
            self.divisor,
        )
        return [first, last]

    def nest(self, t: CpuTarget, columns: int) -> RowNest:
        """The loops."""
        lanes = t.lanes(self.dtype)
        return RowNest(self.shape, self.strides, self.reduced, lanes, t.vector_registers, columns=columns)

    def emit(self, f: Function, c: ReduceConfig, t: CpuTarget) -> int:
        """Write the function; returns its units."""
        nest = self.nest(t, c.columns)
        element = ELEMENTS[self.dtype]
        ty = vector(nest.lanes, element)
        least, most = limits(self.dtype)
        neutral = {"prod": 1, "max": least, "min": most}.get(self.how, 0)
        strides = [nest.strides(k) for k in range(1, len(self.strides))]
        epilogue = Epilogue(self.fused, strides[0], strides[1:], nest.lane_axis)
        source, out, *extras = (f.arg(name) for name in self.pointers)

        def combine(a: Reg, b: Reg) -> Reg:
            return emit_instr(f, _COMBINE[self.how], (a, b), (self.dtype, self.dtype))

        def row(kept: Index, count: Reg | int) -> None:
            read = Reader(f, nest, source, 0, element)
            parts = [f.var(ty, f.const(ty, neutral)) for _ in range(nest.slots(c.unroll))]

            def add(v: Visit) -> None:
                parts[v.slot].set(combine(parts[v.slot].get(), nest.keep(f, read(v), v.count, neutral)))

            nest.visit(f, kept, count, c.unroll, add)
            total = nest.fold(f, combine, [part.get() for part in parts])
            if self.divisor != 1:
                total = emit_instr(f, Div(), (total, f.number(ty, self.divisor)), (self.dtype, self.dtype))
            epilogue.finish(f, total, out, extras, (*kept, *(0 for _ in nest.rows)), count)

        nest.positions(f, row)
        f.ret()
        return nest.share.units


def _whole(p: Problem) -> _Pass:
    """The reduction as a single pass."""
    assert isinstance(p.anchor, Reduce) and p.inputs[0] is not None
    op, x = p.anchor, p.inputs[0]
    outer = (over_input(o, len(x.shape), op.axes, op.keepdims) for o in (p.output, *p.extras))
    divisor = math.prod(x.shape[a] for a in op.axes) if op.how == "mean" else 1
    pointers = ("in0", "out0", *(f"in{i + 1}" for i in range(len(p.extras))))
    dtype = DType.u8 if x.dtype is DType.bool else x.dtype  # any and all are extremes of 0 and 1
    return _Pass(op.how, dtype, x.shape, op.axes, (x.strides, *outer), pointers, p.fused, divisor)
