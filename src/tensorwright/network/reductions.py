# SPDX-License-Identifier: Apache-2.0
"""Layers that combine elements: reductions, softmax, normalisations, matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.ir.dims import product
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.composed.norm import by_group, by_root_mean_square
from tensorwright.network.enums import MatrixOperation, ReduceOperation
from tensorwright.network.layer import Layer, Setting, axes_of, flag, integer, member, number, present
from tensorwright.ops.elementwise import Add, Div, Mul, Sqrt, Sub
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import InstanceNorm, LayerNorm, Lrn
from tensorwright.ops.reduce import How, Reduce, Softmax
from tensorwright.ops.shape import Reshape, Transpose

_REDUCTIONS: dict[ReduceOperation, How] = {
    ReduceOperation.SUM: "sum",
    ReduceOperation.PROD: "prod",
    ReduceOperation.MAX: "max",
    ReduceOperation.MIN: "min",
    ReduceOperation.AVG: "mean",
}


class ReduceLayer(Layer):
    """A reduction; bit i of `axes` chooses dim i."""

    kind = "reduce"
    op = Setting[ReduceOperation, ReduceOperation](member(ReduceOperation))
    axes = Setting[int, int](integer)
    keep_dims = Setting[bool, bool](flag)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        return b.add(Reduce(_REDUCTIONS[self.op], axes_of(self.axes, x.type.rank), self.keep_dims), x)


class SoftMaxLayer(Layer):
    """Softmax over the axis whose bit is set in `axes`; 0 means max(rank - 3, 0), the channels of images."""

    kind = "softmax"
    axes = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        axes = axes_of(self.axes or 1 << max(x.type.rank - 3, 0), x.type.rank)
        if len(axes) != 1:
            raise ValueError(f"axes {bin(self.axes)} must choose one axis")
        return b.add(Softmax(axes[0]), x)


class LRNLayer(Layer):
    """Local response normalisation over channels: x / (k + alpha / window * sum of squares) ** beta."""

    kind = "lrn"
    window_size = Setting[int, int](integer)
    alpha = Setting[float, float](number)
    beta = Setting[float, float](number)
    k = Setting[float, float](number)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return b.add(Lrn(self.window_size, self.alpha, self.beta, self.k), present(inputs))


class NormalizationLayer(Layer):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over `axes` (a bitmask); scale and bias are inputs 1 and 2
    and broadcast to x. With `num_groups` above 1 the channels fall into groups that are normalised together."""

    kind = "normalization"
    epsilon = Setting[float, float](number)
    axes = Setting[int, int](integer)
    num_groups = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, scale, bias = (present(inputs, i) for i in range(3))
        axes = axes_of(self.axes, x.type.rank)
        if self.num_groups != 1:
            if axes != tuple(range(2, x.type.rank)):
                raise ValueError(f"{self.num_groups} groups over axes {axes} do not fit {x.type}")
            return b.add(Add(), b.add(Mul(), by_group(b, x, self.num_groups, self.epsilon), scale), bias)
        channels = x.type.shape[1] if x.type.rank > 2 else None
        if axes == tuple(range(2, x.type.rank)) and all(product(v.type.shape) == channels for v in (scale, bias)):
            scale, bias = (b.add(Reshape((product(v.type.shape),)), v) for v in (scale, bias))
            return b.add(InstanceNorm(self.epsilon), x, scale, bias)
        if axes == tuple(range(axes[0], x.type.rank)):
            return b.add(LayerNorm(axes[0], self.epsilon), x, scale, bias)
        centred = b.add(Sub(), x, b.add(Reduce("mean", axes, True), x))
        variance = b.add(Reduce("mean", axes, True), b.add(Mul(), centred, centred))
        deviation = b.add(Sqrt(), b.add(Add(), variance, b.scalar(self.epsilon, x.type.dtype)))
        return b.add(Add(), b.add(Mul(), b.add(Div(), centred, deviation), scale), bias)


class RMSNormalizationLayer(Layer):
    """x / sqrt(mean(x^2) + epsilon) * scale over `axes` (a bitmask); scale, input 1, broadcasts to x."""

    kind = "rms_normalization"
    epsilon = Setting[float, float](number)
    axes = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, scale = present(inputs), present(inputs, 1)
        y = b.add(Mul(), by_root_mean_square(b, x, axes_of(self.axes, x.type.rank), self.epsilon), scale)
        if y.type.shape != x.type.shape:
            raise ValueError(f"the scale {scale.type} does not broadcast to {x.type}")
        return y


class MatrixMultiplyLayer(Layer):
    """The product of the last two dims, the others broadcast. An operand may be transposed first, or hold vectors."""

    kind = "matrix_multiply"
    op0 = Setting[MatrixOperation, MatrixOperation](member(MatrixOperation))
    op1 = Setting[MatrixOperation, MatrixOperation](member(MatrixOperation))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        left, right = _operand(b, present(inputs), self.op0, -2), _operand(b, present(inputs, 1), self.op1, -1)
        y = b.add(MatMul(), left, right)
        shape = list(y.type.shape)
        if self.op1 is MatrixOperation.VECTOR:
            del shape[-1]
        if self.op0 is MatrixOperation.VECTOR:
            del shape[-1 if self.op1 is MatrixOperation.VECTOR else -2]
        return y if len(shape) == y.type.rank else b.add(Reshape(tuple(shape)), y)


def _operand(b: NetworkBuilder, x: Value, op: MatrixOperation, place: int) -> Value:
    """The operand as matrices; a vector becomes a row (place -2) or a column (place -1)."""
    if x.type.rank < (1 if op is MatrixOperation.VECTOR else 2):
        raise ValueError(f"{x.type} cannot be read as {op.name}")
    if op is MatrixOperation.TRANSPOSE:
        order = list(range(x.type.rank))
        return b.add(Transpose((*order[:-2], order[-1], order[-2])), x)
    if op is MatrixOperation.VECTOR:
        last = x.type.shape[-1]
        return b.add(Reshape((*x.type.shape[:-1], *((1, last) if place == -2 else (last, 1)))), x)
    return x
