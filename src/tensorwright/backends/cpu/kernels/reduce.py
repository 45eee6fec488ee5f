# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes, and the position of the largest or smallest element along one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg, is_float, vector
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, problem_of, store_lanes
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.rows import Index, Reader, RowNest, Visit, first_lanes
from tensorwright.backends.cpu.pointwise_ops import ELEMENTS, emit_instr
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.elementwise import Add, Maximum, Minimum, Mul
from tensorwright.ops.index import ArgMax, ArgMin
from tensorwright.ops.reduce import Reduce

_COMBINE: dict[str, Op] = {"sum": Add(), "mean": Add(), "prod": Mul(), "max": Maximum(), "min": Minimum()}
_LEAST = {"float": -math.inf, "double": -math.inf, "i64": -(1 << 63), "i32": -(1 << 31), "i8": 0}
_MOST = {"float": math.inf, "double": math.inf, "i64": (1 << 63) - 1, "i32": (1 << 31) - 1, "i8": 255}


@dataclass(frozen=True, slots=True)
class ReduceConfig(Config):
    """Accumulators of a row, and, where lanes are rows, registers of neighbouring rows taken together."""

    unroll: int
    columns: int = 1


class ReduceNd(KernelFamily[ReduceConfig, CpuTarget, CpuKernel]):
    """`Reduce` over any axes and strides; f32 with fused epilogue, other types bare."""

    name, version, config = "reduce_nd", 1, ReduceConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        reason = _reduce_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ReduceConfig]:
        p = problem_of(w)
        nest = _reduce_nest(p, t, 1)
        blocks = 0 if nest.lanes_in_row else math.ceil(nest.kept[-1].size / nest.lanes)
        yield from (ReduceConfig(4 // c, c) for c in (4, 2, 1) if c == 1 or c <= blocks)

    def emit(self, w: Workload, c: ReduceConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        p = problem_of(w)
        nest = _emit_reduce(f, p, c, t)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, nest.share.units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class ArgExtreme(KernelFamily[ReduceConfig, CpuTarget, CpuKernel]):
    """`ArgMax` and `ArgMin` of any strides."""

    name, version, config = "arg_extreme", 1, ReduceConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, ArgMax | ArgMin):
            return Reject(f"{w.op.kind} is neither arg_max nor arg_min")
        x = w.inputs[0]
        return (
            Accept() if x is not None and x.dtype in ELEMENTS else Reject(f"the input is {x.dtype if x else 'absent'}")
        )

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ReduceConfig]:
        yield ReduceConfig(1)

    def emit(self, w: Workload, c: ReduceConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        search = _Search(f, w, t)
        search.nest.positions(f, search.row)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, search.nest.share.units),))

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
    if (
        p.anchor.how in ("sum", "prod")
        and x.dtype in (DType.u8, DType.bool)
        or p.anchor.how == "mean"
        and not x.dtype.is_float
    ):
        return f"{p.anchor.how} of {x.dtype}"
    return body_problem(p) if p.fused else None


def _over_input(operand: Operand, rank: int, axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """Strides over the input's axes of an operand that broadcasts to the output: 0 along the reduced ones."""
    strides = iter(aligned_strides(operand, rank if keepdims else rank - len(axes)))
    if keepdims:
        return tuple(strides)
    return tuple(0 if i in axes else next(strides) for i in range(rank))


def _reduce_nest(p: Problem, t: CpuTarget, columns: int) -> RowNest:
    """Operands: the input, the output, the epilogue's."""
    assert isinstance(p.anchor, Reduce) and p.inputs[0] is not None
    op, x = p.anchor, p.inputs[0]
    outer = [_over_input(o, len(x.shape), op.axes, op.keepdims) for o in (p.output, *p.extras)]
    return RowNest(x.shape, [x.strides, *outer], op.axes, t.lanes(x.dtype), t.vector_registers, columns=columns)


def _emit_reduce(f: Function, p: Problem, c: ReduceConfig, t: CpuTarget) -> RowNest:
    assert isinstance(p.anchor, Reduce) and p.inputs[0] is not None
    op, x = p.anchor, p.inputs[0]
    nest = _reduce_nest(p, t, c.columns)
    element = ELEMENTS[x.dtype]
    ty = vector(nest.lanes, element)
    neutral = {"prod": 1, "max": _LEAST[element], "min": _MOST[element]}.get(op.how, 0)
    epilogue = Epilogue(p.fused, nest.strides(1), [nest.strides(i + 2) for i in range(len(p.extras))], nest.lane_axis)
    extras = [f.arg(f"in{i + 1}") for i in range(len(p.extras))]

    def combine(a: Reg, b: Reg) -> Reg:
        return emit_instr(f, _COMBINE[op.how], (a, b))

    def row(kept: Index, count: int) -> None:
        read = Reader(f, nest, f.arg("in0"), 0, element)
        parts = [f.var(ty, f.const(ty, neutral)) for _ in range(nest.slots(c.unroll))]

        def add(v: Visit) -> None:
            parts[v.slot].set(combine(parts[v.slot].get(), nest.keep(f, read(v), v.count, neutral)))

        nest.visit(f, kept, count, c.unroll, add)
        total = nest.fold(f, combine, [part.get() for part in parts])
        if op.how == "mean":
            total = total / float(nest.row_elems)
        epilogue.finish(f, total, f.arg("out0"), extras, (*kept, *(0 for _ in nest.rows)), count)

    nest.positions(f, row)
    return nest


class _Search:
    """Each lane follows its own best element; lanes of one row are compared at its end."""

    def __init__(self, f: Function, w: Workload, t: CpuTarget) -> None:
        assert isinstance(w.op, ArgMax | ArgMin) and w.inputs[0] is not None
        self.f, self.op, x, axes = f, w.op, w.inputs[0], (w.op.axis,)
        out = _over_input(w.outputs[0], len(x.shape), axes, w.op.keepdims)
        self.nest = RowNest(x.shape, [x.strides, out], axes, t.lanes(x.dtype), t.vector_registers)
        self.element = ELEMENTS[x.dtype]

    def row(self, kept: Index, count: int) -> None:
        f, nest, largest = self.f, self.nest, isinstance(self.op, ArgMax)
        read = Reader(f, nest, f.arg("in0"), 0, self.element)
        ty, ids = vector(nest.lanes, self.element), vector(nest.lanes, "i64")
        worst = f.const(ty, (_LEAST if largest else _MOST)[self.element])
        nowhere = f.const(ids, -1 if self.op.last else (1 << 63) - 1)  # loses every tie
        best, where = f.var(ty, worst), f.var(ids, nowhere)

        def compare(v: Visit) -> None:
            value, place = read(v), f.splat(f.i64(v.index[-1]), nest.lanes)
            if nest.lanes_in_row:
                value = first_lanes(f, value, v.count, worst)
                place = first_lanes(f, place + _iota(f, nest.lanes), v.count, nowhere)
            a, b = self._better((best.get(), where.get()), (value, place), largest)
            best.set(a)
            where.set(b)

        nest.visit(f, kept, count, 1, compare)
        pair, step = (best.get(), where.get()), nest.lanes // 2 if nest.lanes_in_row else 0
        while step:
            order = [i ^ step for i in range(nest.lanes)]
            pair = self._better(pair, (f.shuffle(pair[0], None, order), f.shuffle(pair[1], None, order)), largest)
            step //= 2
        strides = nest.strides(1)
        offset = Epilogue.offset(f, strides, (*kept, *(0 for _ in nest.rows)))
        store_lanes(f, pair[1], f.arg("out0"), offset, strides[nest.lane_axis], count)

    def _better(self, a: tuple[Reg, Reg], b: tuple[Reg, Reg], largest: bool) -> tuple[Reg, Reg]:
        """The better of two (value, index) in each lane; NaN beats every number, the tie goes by index."""
        f = self.f
        how, sign = "gt" if largest else "lt", "u" if self.element == "i8" else "s"
        if is_float(a[0].ty):
            a_nan, b_nan = vm.is_nan(f, a[0]), vm.is_nan(f, b[0])
            wins = f.compare("o" + how, b[0], a[0])
            wins = f.binary("or", wins, f.binary("and", b_nan, f.compare("ord", a[0], a[0])))
            ties = f.binary("or", f.compare("oeq", b[0], a[0]), f.binary("and", a_nan, b_nan))
        else:
            wins, ties = f.compare(sign + how, b[0], a[0]), f.compare("eq", b[0], a[0])
        nearer = f.compare("sgt" if self.op.last else "slt", b[1], a[1])
        takes = f.binary("or", wins, f.binary("and", ties, nearer))
        return f.select(takes, b[0], a[0]), f.select(takes, b[1], a[1])


def _iota(f: Function, lanes: int) -> Reg:
    """0, 1, 2, ... as i64 lanes."""
    items = ", ".join(f"i64 {i}" for i in range(lanes))
    return Reg(f, vector(lanes, "i64"), f"<{items}>" if lanes > 1 else "0")
