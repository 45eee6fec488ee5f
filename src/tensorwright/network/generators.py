# SPDX-License-Identifier: Apache-2.0
"""Layers about shapes and made-up numbers: shape, squeeze, unsqueeze, fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, limit_constant, normal_axes
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.random import DIGITS, normal, uniform
from tensorwright.network.enums import FillOperation
from tensorwright.network.layer import Ints, Layer, Setting, as_dtype, known, member, number, present
from tensorwright.ops.elementwise import Add, Mul, Sub
from tensorwright.ops.random import RandomKey
from tensorwright.ops.shape import Expand, Reshape, ShapeOf, Slice


class ShapeLayer(Layer):
    """The dims of the input as an i64 vector."""

    kind = "shape"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if x.type.is_static:
            return b.constant(np.array(x.type.static_shape, np.int64))
        return b.add(ShapeOf(0, x.type.rank), x)


class SqueezeLayer(Layer):
    """The input without the dims of 1 that input 1, a constant, lists; without any, all dims of 1 go."""

    kind = "squeeze"
    most_inputs = 2

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        shape, rank = x.type.shape, x.type.rank
        axes = _axes(b, present(inputs, 1), rank) or tuple(i for i, d in enumerate(shape) if d == 1)
        if any(shape[i] != 1 for i in axes):
            raise ValueError(f"axes {axes} of {x.type} are not all 1")
        return b.add(Reshape(tuple(d for i, d in enumerate(shape) if i not in axes)), x)


class UnsqueezeLayer(Layer):
    """The input with dims of 1, which are at the places of the result that input 1, a constant, lists."""

    kind = "unsqueeze"
    most_inputs = 2

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, places = present(inputs), known(b, present(inputs, 1), "the axes")
        shape: list[Dim] = list(x.type.shape)
        for axis in _axes(b, present(inputs, 1), x.type.rank + places.size):
            shape.insert(axis, 1)
        return b.add(Reshape(tuple(shape)), x)


def _axes(b: NetworkBuilder, value: Value, rank: int) -> Ints:
    array = known(b, value, "the axes")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"axes must be integers, they are {value.type}")
    return normal_axes([int(a) for a in array.reshape(-1)], rank)


class FillLayer(Layer):
    """Numbers of `to_type` in `shape`, or that of the constant in input 0.

    LINSPACE: `alpha` + index * `beta` for a vector; with tensors as inputs 1 (a scalar) and 2 (a step for each dim)
    also of more dims. RANDOM_UNIFORM: from alpha to beta. RANDOM_NORMAL: around alpha with the deviation beta. Random
    numbers are new in each run. Unset, alpha is 0 and beta 1.
    """

    kind = "fill"
    most_inputs = 3
    shape = Setting[Ints, Sequence[int]](lambda layer, value: tuple(int(v) for v in value))
    operation = Setting[FillOperation, FillOperation](member(FillOperation))
    to_type = Setting[DType, Any](lambda layer, value: as_dtype(value))
    alpha = Setting[float, float](number)
    beta = Setting[float, float](number)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        given, alpha, beta = (*inputs, None, None, None)[:3]
        shape = self.shape if given is None else tuple(int(d) for d in known(b, given, "the shape").reshape(-1))
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape} must not be negative")
        if self.operation is FillOperation.LINSPACE:
            return self._ramp(b, shape, alpha, beta)
        if self.to_type not in DIGITS:
            raise ValueError(f"random numbers are floats, not {self.to_type}")
        wide = DType.f64 if self.to_type is DType.f64 else DType.f32
        first, second = (
            b.scalar(number, wide) if value is None else as_type(b, b.add(Reshape(()), value), wide)
            for value, number in ((alpha, self.alpha), (beta, self.beta))
        )
        key = b.add(RandomKey())
        if self.operation is FillOperation.RANDOM_UNIFORM:
            factor, x = b.add(Sub(), second, first), uniform(b, key, shape, self.to_type)
        else:
            factor, x = second, normal(b, key, shape, self.to_type)
        return as_type(b, b.add(Add(), b.add(Mul(), x, factor), first), self.to_type)

    def _ramp(self, b: NetworkBuilder, shape: Ints, alpha: Value | None, beta: Value | None) -> Value:
        """In `to_type` throughout."""
        rank, dtype = len(shape), self.to_type
        if (beta is None and rank != 1) or (beta is not None and beta.type.shape != (rank,)):
            raise ValueError(f"LINSPACE of shape {shape} needs a vector of {rank} steps as input 2")
        if dtype is DType.bool:
            raise ValueError("LINSPACE cannot make booleans")
        limit_constant(sum(shape))
        y = b.scalar(self.alpha, dtype) if alpha is None else as_type(b, b.add(Reshape(()), alpha), dtype)
        for axis, size in enumerate(shape):
            if beta is None:
                step = b.scalar(self.beta, dtype)
            else:
                step = as_type(b, b.add(Reshape(()), b.add(Slice((axis,), (axis + 1,), (0,), (1,)), beta)), dtype)
            index = b.constant(np.arange(size).astype(dtype.numpy).reshape([-1] + [1] * (rank - 1 - axis)))
            y = b.add(Add(), y, b.add(Mul(), index, step))
        return y if y.type.shape == shape else b.add(Expand(shape), y)
