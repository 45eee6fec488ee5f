# SPDX-License-Identifier: Apache-2.0
"""`Determinant`: Gaussian elimination with partial pivoting on an f64 copy of each matrix, in the worker's scratch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg, Var
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.matrix import Determinant

_ELEMENTS = {DType.f64: "double", DType.f32: "float"}
_WIDE = "double"


@dataclass(frozen=True, slots=True)
class DeterminantConfig(Config):
    """There is one way to eliminate."""


class DeterminantLu(KernelFamily[DeterminantConfig, CpuTarget, CpuKernel]):
    """f32 and f64 `Determinant` of any strides."""

    name, version, config = "determinant_lu", 1, DeterminantConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, Determinant):
            return Reject(f"{w.op.kind} is not a determinant")
        return Accept() if w.outputs[0].dtype in _ELEMENTS else Reject(f"determinants of {w.outputs[0].dtype}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DeterminantConfig]:
        yield DeterminantConfig()

    def emit(
        self, w: Workload, c: DeterminantConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")
        f = entry(m, symbol, w)
        matrix = _Elimination(f, w)
        units = matrix.emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),), scratch_bytes=max(matrix.n, 1) ** 2 * 8)


class _Elimination:
    """Writes the code: items are matrices."""

    def __init__(self, f: Function, w: Workload) -> None:
        x = w.inputs[0]
        assert x is not None
        self.f, self.x, self.out = f, x, w.outputs[0]
        self.n = x.shape[-1]
        self.element = _ELEMENTS[x.dtype]

    def emit(self) -> int:
        f, n, out = self.f, self.n, self.out
        share = Share.of(math.prod(out.shape), n**3)
        with share.items(f) as item:
            place = unravel(f, item, out.shape)
            self._copy(Epilogue.offset(f, self.x.strides[:-2], place))
            product = f.var(_WIDE, f.const(_WIDE, 1))
            with f.loop(0, n) as k:
                self._step(k, product)
            result = f.cast("fptrunc", product.get(), self.element)
            f.store(result, f.arg("out0"), Epilogue.offset(f, out.strides, place))
        return share.units

    def _copy(self, base: Reg) -> None:
        f, x, n = self.f, self.x, self.n
        with f.loop(0, n) as i, f.loop(0, n) as j:
            value = f.load(self.element, f.arg("in0"), base + i * x.strides[-2] + j * x.strides[-1])
            self._put(i, j, f.cast("fpext", value, _WIDE))

    def _step(self, k: Reg, product: Var) -> None:
        """Bring the largest element of column k below the diagonal onto it, and clear the column below."""
        f, n = self.f, self.n
        best, row = f.var(_WIDE, self._size(k, k)), f.var("i64", f.i64(0) + k)
        with f.loop(k + 1, n) as i:
            size = self._size(i, k)
            larger = f.compare("ogt", size, best.get())
            best.set(f.select(larger, size, best.get()))
            row.set(f.select(larger, i, row.get()))
        pivot_row = row.get()
        moved = f.compare("ne", pivot_row, k)
        with f.when(moved), f.loop(k, n) as j:
            here, there = self._get(k, j), self._get(pivot_row, j)
            self._put(k, j, there)
            self._put(pivot_row, j, here)
        pivot = self._get(k, k)
        signed = f.select(moved, f.fneg(pivot), pivot)
        product.set(product.get() * signed)
        with f.when(f.compare("une", pivot, 0.0)), f.loop(k + 1, n) as i:
            factor = self._get(i, k) / pivot
            with f.loop(k + 1, n) as j:
                self._put(i, j, self._get(i, j) - factor * self._get(k, j))

    def _size(self, i: Reg, j: Reg) -> Reg:
        return self.f.intrinsic("fabs", _WIDE, self._get(i, j))

    def _get(self, i: Reg, j: Reg) -> Reg:
        return self.f.load(_WIDE, self.f.arg("scratch"), i * self.n + j)

    def _put(self, i: Reg, j: Reg, value: Reg) -> None:
        self.f.store(value, self.f.arg("scratch"), i * self.n + j)
