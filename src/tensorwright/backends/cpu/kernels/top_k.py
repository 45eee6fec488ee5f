# SPDX-License-Identifier: Apache-2.0
"""The first k of each row, by a heap of positions in the worker's scratch: n log k comparisons.

The heap's root is the worst position kept. What is better goes by value, then by position; NaN is the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.llvm_types import is_float
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.order import TopKIndices, TopKValues

_FLOATS = {DType.f64: "double", DType.f32: "float", DType.f16: "half"}


@dataclass(frozen=True, slots=True)
class TopKConfig(Config):
    """There is one way to select."""


class TopKRows(KernelFamily[TopKConfig, CpuTarget, CpuKernel]):
    """`TopKValues` and `TopKIndices` of any strides."""

    name, version, config = "top_k_rows", 1, TopKConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, TopKValues | TopKIndices):
            return Reject(f"{w.op.kind} is no top-k")
        x = w.inputs[0]
        if x is None or (x.dtype not in _FLOATS and not x.dtype.is_integer and x.dtype is not DType.bool):
            return Reject(f"the order of {x.dtype if x else 'nothing'}")
        return Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[TopKConfig]:
        yield TopKConfig()

    def emit(self, w: Workload, c: TopKConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        units = _Rows(m, w, symbol).emit()
        assert isinstance(w.op, TopKValues | TopKIndices)
        return CpuKernel(m.text(), (Stage(symbol, units),), scratch_bytes=8 * high(w.op.k))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


class _Rows:
    """Writes the code: a function that restores the heap, and the stage that uses it."""

    def __init__(self, m: Module, w: Workload, symbol: str) -> None:
        x = w.inputs[0]
        assert isinstance(w.op, TopKValues | TopKIndices) and x is not None
        self.m, self.w, self.op, self.x, self.symbol = m, w, w.op, x, symbol
        self.stride, self.size = x.strides[w.op.axis], x.shape[w.op.axis]
        self.element = _FLOATS.get(x.dtype) or f"i{8 * x.dtype.size_bytes}"

    def emit(self) -> int:
        self._write_sift()
        f, op, out = entry(self.m, self.symbol, self.w), self.op, self.w.outputs[0]
        beside = [d for d in range(len(out.shape)) if d != op.axis]
        share = Share.of(math.prod(out.shape[d] for d in beside), self.size)
        heap = f.arg("scratch")
        with share.items(f) as item:
            place = unravel(f, item, [out.shape[d] for d in beside])
            source, target = (Epilogue.offset(f, [o.strides[d] for d in beside], place) for o in (self.x, out))
            row = f.gep(f.arg("in0"), source, self.element)
            with f.when(f.compare("sgt", f.i64(op.k), 0)):
                self._select(f, row, heap)
            with f.loop(0, op.k) as j:
                found = f.load("i64", heap, j)
                value = found if isinstance(op, TopKIndices) else self._at(f, row, found)
                f.store(value, f.arg("out0"), target + j * out.strides[op.axis])
        f.ret()
        return share.units

    def _select(self, f: Function, row: Reg, heap: Reg) -> None:
        """The heap becomes the first k positions of the row, best first."""
        k = cast(int, self.op.k)
        with f.loop(0, k) as i:
            f.store(i, heap, i)
        with f.loop(0, k // 2) as i:
            self._sift(f, row, heap, k // 2 - 1 - i, f.i64(k))
        with f.loop(k, self.size) as i, f.when(self._worse(f, row, f.load("i64", heap), i)):
            f.store(i, heap)
            self._sift(f, row, heap, f.i64(0), f.i64(k))
        with f.loop(1, k) as i:
            last = f.i64(k) - i
            worst = f.load("i64", heap)
            f.store(f.load("i64", heap, last), heap)
            f.store(worst, heap, last)
            self._sift(f, row, heap, f.i64(0), last)

    def _sift(self, f: Function, row: Reg, heap: Reg, root: Reg, size: Reg) -> None:
        f.call(f"{self.symbol}_sift", "void", row, heap, root, size)

    def _write_sift(self) -> None:
        """Let the position at `root` sink until no child of it is worse; children of i are 2i+1 and 2i+2."""
        f = self.m.function(
            f"{self.symbol}_sift", [("ptr", "row"), ("ptr", "heap"), ("i64", "root"), ("i64", "size")], private=True
        )
        row, heap, size = f.arg("row"), f.arg("heap"), f.arg("size")
        root, child = f.var("i64", f.arg("root")), f.var("i64", f.i64(0))
        with f.forever() as leave_when:
            left = root.get() * 2 + 1
            leave_when(f.compare("sge", left, size))
            child.set(left)
            with f.when(f.compare("slt", left + 1, size)):
                a, b = f.load("i64", heap, left), f.load("i64", heap, left + 1)
                with f.when(self._worse(f, row, b, a)):
                    child.set(left + 1)
            parent, lower = f.load("i64", heap, root.get()), f.load("i64", heap, child.get())
            leave_when(self._worse(f, row, parent, lower))
            f.store(lower, heap, root.get())
            f.store(parent, heap, child.get())
            root.set(child.get())
        f.ret()

    def _at(self, f: Function, row: Reg, position: Reg) -> Reg:
        return f.load(self.element, row, position * self.stride)

    def _worse(self, f: Function, row: Reg, a: Reg, b: Reg) -> Reg:
        """Whether position a comes after position b (they differ)."""
        x, y = self._at(f, row, a), self._at(f, row, b)
        later = f.compare("sgt", a, b)
        if not self.op.largest:
            x, y = y, x  # x is the one that must be smaller for a to be worse
        if not is_float(self.element):
            less = f.compare("slt" if self.x.dtype.is_signed else "ult", x, y)
            tie = f.compare("eq", x, y)
        else:
            x_nan, y_nan = vm.is_nan(f, x), vm.is_nan(f, y)
            less = f.binary("or", f.compare("olt", x, y), f.binary("and", y_nan, f.compare("ord", x, x)))
            tie = f.binary("or", f.compare("oeq", x, y), f.binary("and", x_nan, y_nan))
        return f.binary("or", less, f.binary("and", tie, later))
