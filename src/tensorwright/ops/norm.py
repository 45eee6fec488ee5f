# SPDX-License-Identifier: Apache-2.0
"""Normalisations. Means and variances (never Bessel-corrected) accumulate in f64."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, check_axis, float_dtype, optional, required, same_dim, widen


@op("batch_norm", compare=SUMMED)
class BatchNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, per channel of x[N,C,...], with given statistics.

    Inputs: x, scale[C], bias[C], mean[C], variance[C].
    """

    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, *parameters = required(self, inputs, 5)
        float_dtype(self, (x, *parameters))
        _check_channels(self, x, parameters)
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, *parameters = required(self, inputs, 5)
        column = (-1, *[1] * (x.ndim - 2))
        scale, bias, mean, variance = (widen(p).reshape(column) for p in parameters)
        with np.errstate(all="ignore"):
            y = (widen(x) - mean) / np.sqrt(variance + self.epsilon) * scale + bias
        return (y.astype(x.dtype, copy=False),)


@op("layer_norm", compare=SUMMED)
class LayerNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) over the axes from `axis` on, then times scale and plus an optional bias.

    scale and bias broadcast to x.
    """

    axis: int
    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, scale = required(self, inputs, 2, 1)
        bias = optional(inputs, 2)
        float_dtype(self, (x, scale, bias))
        check_axis(self, self.axis, x.rank)
        for extra in (scale, bias):
            if extra is not None and (extra.rank > x.rank or broadcast_shapes(self, x.shape, extra.shape) != x.shape):
                raise ValueError(f"layer_norm cannot broadcast {extra} to {x}")
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, scale = required(self, inputs, 2, 1)
        bias = optional(inputs, 2)
        y = _normalised(x, tuple(range(self.axis, x.ndim)), self.epsilon) * widen(scale)
        return ((y if bias is None else y + widen(bias)).astype(x.dtype, copy=False),)


@op("instance_norm", compare=SUMMED)
class InstanceNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) over the spatial dims of each image and channel of x[N,C,...],
    then times scale[C] plus bias[C]."""

    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, scale, bias = required(self, inputs, 3)
        float_dtype(self, (x, scale, bias))
        _check_channels(self, x, [scale, bias])
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, scale, bias = required(self, inputs, 3)
        column = (-1, *[1] * (x.ndim - 2))
        y = _normalised(x, tuple(range(2, x.ndim)), self.epsilon)
        return ((y * widen(scale).reshape(column) + widen(bias).reshape(column)).astype(x.dtype, copy=False),)


@op("lrn", compare=SUMMED)
class Lrn(Op):
    """Local response normalisation: x / (bias + alpha/size * s)^beta, where s is the sum of x^2 over the channels
    from c - floor((size-1)/2) to c + ceil((size-1)/2) of x[N,C,...]."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        float_dtype(self, (x,))
        if x.rank < 2 or self.size < 1:
            raise ValueError(f"lrn of size {self.size} needs a positive size and a channel dim, not {x}")
        return (x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        below = (self.size - 1) // 2
        wide = widen(x)
        with np.errstate(all="ignore"):
            square = np.zeros((x.shape[0], x.shape[1] + self.size - 1, *x.shape[2:]), wide.dtype)
            square[:, below : below + x.shape[1]] = wide * wide
            total = np.zeros_like(wide)
            for offset in range(self.size):
                total += square[:, offset : offset + x.shape[1]]
            y = wide / np.power(self.bias + self.alpha / self.size * total, self.beta)
        return (y.astype(x.dtype, copy=False),)


def _normalised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Zero mean and unit variance over `axes`, in the widened dtype of x."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        centred = wide - wide.mean(axes, keepdims=True)
        variance = (centred * centred).mean(axes, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + epsilon)).astype(widen(np.empty(0, x.dtype)).dtype)


def _check_channels(op: Op, x: TensorType, parameters: list[TensorType]) -> None:
    if x.rank < 2:
        raise ValueError(f"{op.kind} needs a channel dim, not {x}")
    for p in parameters:
        if p.rank != 1 or not same_dim(p.shape[0], x.shape[1]):
            raise ValueError(f"{op.kind} of {x} needs one parameter per channel, not {p}")
