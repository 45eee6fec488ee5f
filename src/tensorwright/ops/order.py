# SPDX-License-Identifier: Apache-2.0
"""Along one axis, what depends on the order of elements: the first few when sorted, and running sums and products."""

from __future__ import annotations

import operator
from typing import ClassVar

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Array, Compare, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import accumulator, check_axis, required


class _TopK(Op):
    """What TopKValues and TopKIndices share."""

    def _infer(self, k: Dim, axis: int, dtype: DType | None, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        check_axis(self, axis, x.rank)
        size = x.shape[axis]
        if isinstance(k, int) and (k < 0 or (isinstance(size, int) and k > size)):
            raise ValueError(f"{self.kind} cannot take {k} of axis {axis} of {x}")
        return (TensorType(dtype or x.dtype, (*x.shape[:axis], k, *x.shape[axis + 1 :])),)


def _first(x: Array, k: Dim, axis: int, largest: bool) -> Array:
    """The i64 positions of the first k elements: of equal ones the earlier first, NaN as the largest of all."""
    place = np.broadcast_to(np.arange(x.shape[axis]).reshape([-1 if d == axis else 1 for d in range(x.ndim)]), x.shape)
    order = np.lexsort((-place if largest else place, x), axis=axis)
    return np.take(np.flip(order, axis) if largest else order, np.arange(operator.index(k)), axis).astype(np.int64)


@op("top_k_values", compare=EXACT)
class TopKValues(_TopK):
    """The `k` largest (or smallest) elements along `axis`, best first. NaN counts as the largest."""

    k: Dim
    axis: int
    largest: bool = True

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return self._infer(self.k, self.axis, None, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.take_along_axis(x, _first(x, self.k, self.axis, self.largest), self.axis),)


@op("top_k_indices", compare=EXACT)
class TopKIndices(_TopK):
    """The i64 positions of what TopKValues takes; of equal elements the earlier comes first."""

    k: Dim
    axis: int
    largest: bool = True

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return self._infer(self.k, self.axis, DType.i64, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (_first(x, self.k, self.axis, self.largest),)


class Running(Op):
    """What CumSum and CumProd share: along `axis`, each element combined with all before it."""

    axis: int
    exclusive: bool
    reverse: bool
    function: ClassVar[np.ufunc]
    start: ClassVar[int]

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        check_axis(self, self.axis, x.rank)
        if x.dtype is DType.bool:
            raise ValueError(f"{self.kind} cannot combine booleans")
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        rows = np.moveaxis(np.flip(x, self.axis) if self.reverse else x, self.axis, 0)
        totals = np.full((rows.shape[0] + 1, *rows.shape[1:]), self.start, accumulator(x.dtype))
        with np.errstate(all="ignore"):
            self.function.accumulate(rows, 0, totals.dtype, totals[1:])
            y = np.moveaxis(totals[:-1] if self.exclusive else totals[1:], 0, self.axis).astype(x.dtype)
        return (np.flip(y, self.axis) if self.reverse else y,)


@op("cum_sum", compare=SUMMED)
class CumSum(Running):
    """Each element plus all before it along `axis`: without itself when `exclusive`, from the end when `reverse`."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    function = np.add
    start = 0


@op("cum_prod", compare=Compare(rtol=1e-5, atol=1e-7))
class CumProd(Running):
    """Each element times all before it along `axis`: without itself when `exclusive`, from the end when `reverse`."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    function = np.multiply
    start = 1
