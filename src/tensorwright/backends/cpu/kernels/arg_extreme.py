# SPDX-License-Identifier: Apache-2.0
"""The position of the largest or smallest element along an axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, store_lanes
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.reduce import limits, over_input
from tensorwright.backends.cpu.kernels.rows import Index, Reader, RowNest, Visit, first_lanes
from tensorwright.backends.cpu.llvm_types import is_float, vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.op import Array
from tensorwright.ops.index import ArgMax, ArgMin


@dataclass(frozen=True, slots=True)
class ArgConfig(Config):
    """There is one way to search."""


class ArgExtreme(KernelFamily[ArgConfig, CpuTarget, CpuKernel]):
    """`ArgMax` and `ArgMin` of any strides."""

    name, version, config = "arg_extreme", 2, ArgConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, ArgMax | ArgMin):
            return Reject(f"{w.op.kind} is neither arg_max nor arg_min")
        x = w.inputs[0]
        known = x is not None and x.dtype in ELEMENTS
        return Accept() if known else Reject(f"the input is {x.dtype if x else 'absent'}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[ArgConfig]:
        yield ArgConfig()

    def emit(self, w: Workload, c: ArgConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
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


class _Search:
    """Each lane follows its own best element; lanes of one row are compared at its end."""

    def __init__(self, f: Function, w: Workload, t: CpuTarget) -> None:
        assert isinstance(w.op, ArgMax | ArgMin) and w.inputs[0] is not None
        self.f, self.op, x, axes = f, w.op, w.inputs[0], (w.op.axis,)
        out = over_input(w.outputs[0], len(x.shape), axes, w.op.keepdims)
        self.nest = RowNest(x.shape, [x.strides, out], axes, t.lanes(x.dtype), t.vector_registers)
        self.dtype, self.element = x.dtype, ELEMENTS[x.dtype]

    def row(self, kept: Index, count: Reg | int) -> None:
        f, nest, largest = self.f, self.nest, isinstance(self.op, ArgMax)
        read = Reader(f, nest, f.arg("in0"), 0, self.element)
        ty, ids = vector(nest.lanes, self.element), vector(nest.lanes, "i64")
        worst = f.const(ty, limits(self.dtype)[not largest])
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
        how, sign = "gt" if largest else "lt", "s" if self.dtype.is_signed else "u"
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
