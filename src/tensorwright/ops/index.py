# SPDX-License-Identifier: Apache-2.0
"""Reading by index, and finding the index of an extreme."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import check_axis, required
from tensorwright.ops.reduce import reduced_shape


@op("gather", compare=EXACT)
class Gather(Op):
    """Slices of `data` along `axis` at `indices` (i32 or i64, any rank; negative ones count from the end):
    the result has the indices' shape in the place of the axis. `reference` raises IndexError out of range."""

    axis: int = 0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        data, indices = required(self, inputs, 2)
        check_axis(self, self.axis, data.rank)
        if indices.dtype not in (DType.i32, DType.i64):
            raise ValueError(f"gather needs i32 or i64 indices, not {indices.dtype}")
        return (data.with_shape((*data.shape[: self.axis], *indices.shape, *data.shape[self.axis + 1 :])),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        data, indices = required(self, inputs, 2)
        return (np.asarray(np.take(data, indices, self.axis)),)


class _ArgExtreme(Op):
    """What ArgMax and ArgMin share."""

    def _infer(self, axis: int, keepdims: bool, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        check_axis(self, axis, x.rank)
        if x.shape[axis] == 0:
            raise ValueError(f"{self.kind} over the empty axis {axis} of {x} has no result")
        return (TensorType(DType.i64, reduced_shape(self, x.shape, (axis,), keepdims)),)


def _arg(x: Array, axis: int, keepdims: bool, last: bool, largest: bool) -> Array:
    """Index of the extreme, the first (or last) of equal ones; a NaN counts as the extreme."""
    find = np.argmax if largest else np.argmin
    found = find(np.flip(x, axis) if last else x, axis, keepdims=keepdims)
    return np.asarray(x.shape[axis] - 1 - found if last else found, np.int64)


@op("arg_max", compare=EXACT)
class ArgMax(_ArgExtreme):
    """The i64 index of the largest element along `axis`: the first of equal ones, or the `last`."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return self._infer(self.axis, self.keepdims, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (_arg(x, self.axis, self.keepdims, self.last, largest=True),)


@op("arg_min", compare=EXACT)
class ArgMin(_ArgExtreme):
    """The i64 index of the smallest element along `axis`: the first of equal ones, or the `last`."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return self._infer(self.axis, self.keepdims, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (_arg(x, self.axis, self.keepdims, self.last, largest=False),)
