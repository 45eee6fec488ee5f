# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes, and normalised exponentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Array, Compare, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import accumulator, check_axis, float_dtype, required, widen

_SHORT_ROW = 8  # elements; rounded partial sums of more could cost over 1% in bf16

How = Literal["sum", "mean", "max", "min", "prod"]


@op("reduce", compare=SUMMED)
class Reduce(Op):
    """`how` over `axes` (sorted or not, each once); none means the identity. Float sums, means and products
    accumulate in f64 and round once; an integer mean drops the fraction. An empty max is the type's least value."""

    how: How
    axes: tuple[int, ...]
    keepdims: bool = True

    @property
    def compare(self) -> Compare:
        return EXACT if self.how in ("max", "min") else SUMMED

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if self.how not in _REDUCERS:
            raise ValueError(f"reduce knows {', '.join(_REDUCERS)}, not {self.how!r}")
        if x.dtype is DType.bool and self.how not in ("max", "min"):
            raise ValueError(f"reduce {self.how} needs numbers, not bool")
        return (x.with_shape(reduced_shape(self, x.shape, self.axes, self.keepdims)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        if not self.axes:
            return (x.copy(),)
        with np.errstate(all="ignore"):
            y = _REDUCERS[self.how](x, self.axes, self.keepdims)
            return (np.asarray(y).astype(x.dtype, copy=False),)


def reduced_shape(op: Op, shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Dim, ...]:
    """`shape` with `axes` set to 1 or dropped. Raises ValueError for a repeated or unknown axis."""
    for axis in axes:
        check_axis(op, axis, len(shape))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op.kind} axes {axes} repeat")
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes)


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.sum(x, axes, accumulator(x.dtype), keepdims=keepdims)


def _prod(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.prod(x, axes, accumulator(x.dtype), keepdims=keepdims)


def _mean(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return (
        np.trunc(np.mean(x, axes, np.float64, keepdims=keepdims))
        if x.dtype.kind in "iu"
        else np.mean(x, axes, np.float64, keepdims=keepdims)
    )


def _max(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.max(x, axes, keepdims=keepdims, initial=limit(x.dtype, lowest=True))


def _min(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.min(x, axes, keepdims=keepdims, initial=limit(x.dtype, lowest=False))


def limit(dtype: np.dtype[Any], lowest: bool) -> Any:
    """The least or greatest value of a dtype (infinite for floats)."""
    if DType.of(dtype).is_float:
        return dtype.type(-np.inf if lowest else np.inf)
    if dtype == np.bool_:
        return not lowest
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


_REDUCERS: dict[str, Callable[[Array, tuple[int, ...], bool], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "min": _min,
    "prod": _prod,
}


@op("softmax")
class Softmax(Op):
    """exp(x) / sum(exp(x)) along one axis; the maximum is subtracted first. All -inf gives NaN, as does any NaN."""

    axis: int

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return _same_type(self, self.axis, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (softmax(widen(x), self.axis).astype(x.dtype, copy=False),)


@op("log_softmax")
class LogSoftmax(Op):
    """log(softmax(x)) along one axis, computed as x - max - log(sum(exp(x - max)))."""

    axis: int

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return _same_type(self, self.axis, *inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        if not x.size:
            return (x.copy(),)
        with np.errstate(all="ignore"):
            wide = widen(x)
            shifted = wide - wide.max(self.axis, keepdims=True)
            total = np.exp(shifted).sum(self.axis, np.float64, keepdims=True)
            return ((shifted - np.log(total).astype(wide.dtype)).astype(x.dtype, copy=False),)


def rounds_each_step(x: TensorType, axis: int) -> bool:
    """Whether softmax along `axis` is left as the steps by which ONNX defines it, each rounded to the type.

    Short rows of half-width floats are: these roundings are all that two implementations can differ by. In a long row,
    partial sums of such a type lose their small terms, in bf16 down to nothing: there `Softmax` computes in f32 and
    rounds once.
    """
    length = x.shape[axis]
    return x.dtype.is_float and x.dtype.size_bytes == 2 and isinstance(length, int) and 0 < length <= _SHORT_ROW


def softmax(x: Array, axis: int) -> Array:
    """Softmax of an f32 or f64 array; the sum accumulates in f64."""
    if not x.size:
        return x.copy()
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(axis, keepdims=True))
        return np.asarray(e / e.sum(axis, np.float64, keepdims=True).astype(x.dtype))


def _same_type(op: Op, axis: int, *inputs: TensorType | None) -> tuple[TensorType, ...]:
    (x,) = required(op, inputs, 1)
    float_dtype(op, (x,))
    check_axis(op, axis, x.rank)
    return (x,)
