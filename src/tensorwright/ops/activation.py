# SPDX-License-Identifier: Apache-2.0
"""Activation functions: pointwise ops between the layers of networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorwright.ir.op import EXACT, Array, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import required, same_dim
from tensorwright.ops.elementwise import Binary, Unary, erf


@op("relu", compare=EXACT)
class Relu(Unary):
    """max(x, 0); NaN stays NaN."""

    takes = "number"

    def compute(self, x: Array) -> Any:
        return np.maximum(x, 0)


@op("sigmoid")
class Sigmoid(Unary):
    """1 / (1 + exp(-x))."""

    def compute(self, x: Array) -> Any:
        return sigmoid(x)


@op("silu")
class Silu(Unary):
    """x * sigmoid(x), also called Swish."""

    def compute(self, x: Array) -> Any:
        return x * sigmoid(x)


@op("hard_swish")
class HardSwish(Unary):
    """x * min(max(x/6 + 1/2, 0), 1)."""

    def compute(self, x: Array) -> Any:
        return x * np.minimum(np.maximum(x / 6 + 0.5, 0), 1)


@op("mish")
class Mish(Unary):
    """x * tanh(log(1 + exp(x)))."""

    def compute(self, x: Array) -> Any:
        return x * np.tanh(np.logaddexp(x, np.zeros((), x.dtype)))


@op("softsign")
class Softsign(Unary):
    """x / (1 + |x|)."""

    def compute(self, x: Array) -> Any:
        return x / (1 + np.abs(x))


@op("leaky_relu")
class LeakyRelu(Unary):
    """x where x >= 0, alpha * x below."""

    alpha: float = 0.01

    def compute(self, x: Array) -> Any:
        return np.where(x < 0, self.alpha * x, x)


@op("elu")
class Elu(Unary):
    """x where x >= 0, alpha * (exp(x) - 1) below."""

    alpha: float = 1.0

    def compute(self, x: Array) -> Any:
        return np.where(x < 0, self.alpha * np.expm1(x), x)


@op("selu")
class Selu(Unary):
    """gamma * x where x > 0, gamma * alpha * (exp(x) - 1) elsewhere."""

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def compute(self, x: Array) -> Any:
        return self.gamma * np.where(x <= 0, self.alpha * np.expm1(x), x)


@op("softplus")
class Softplus(Unary):
    """log(1 + exp(beta * x)) / beta."""

    beta: float = 1.0

    def compute(self, x: Array) -> Any:
        return np.logaddexp(self.beta * x, np.zeros((), x.dtype)) / self.beta


@op("hard_sigmoid")
class HardSigmoid(Unary):
    """min(max(alpha * x + beta, 0), 1)."""

    alpha: float = 0.2
    beta: float = 0.5

    def compute(self, x: Array) -> Any:
        return np.minimum(np.maximum(self.alpha * x + self.beta, 0), 1)


@op("thresholded_relu", compare=EXACT)
class ThresholdedRelu(Unary):
    """x where x > alpha, else 0 (also for NaN)."""

    alpha: float = 1.0

    def compute(self, x: Array) -> Any:
        return np.where(x > self.alpha, x, np.zeros((), x.dtype))


@op("gelu")
class Gelu(Unary):
    """x * (1 + erf(x / sqrt(2))) / 2, or its tanh approximation. The reference computes in f64: the sum cancels
    for negative x."""

    approximate: bool = False

    def compute(self, x: Array) -> Any:
        x = x.astype(np.float64)
        if self.approximate:
            return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


@op("clip", compare=EXACT)
class Clip(Unary):
    """min(max(x, low), high); an absent bound does not limit. NaN stays NaN."""

    takes = "number"
    low: float | None = None
    high: float | None = None

    def compute(self, x: Array) -> Any:
        if self.low is not None:
            x = np.maximum(x, _in_range(self.low, x.dtype))
        return x if self.high is None else np.minimum(x, _in_range(self.high, x.dtype))


@op("p_relu", compare=EXACT)
class PRelu(Binary):
    """x where x >= 0, slope * x below; slope broadcasts to x, never the other way."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (result,) = super().infer(*inputs)
        x, slope = required(self, inputs, 2)
        if result.rank != x.rank or not all(map(same_dim, result.shape, x.shape)):
            raise ValueError(f"p_relu cannot broadcast its slope {slope} to {x}")
        return (x,)

    def compute(self, a: Array, b: Array) -> Any:
        return np.where(a < 0, a * b, a)


def sigmoid(x: Array) -> Any:
    """1 / (1 + exp(-x)) in the dtype of x."""
    return 1 / (1 + np.exp(-x))


def _in_range(bound: float, dtype: np.dtype[Any]) -> Array:
    """A clip bound in `dtype`: a bound outside an integer type's range becomes its end."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        bound = min(max(bound, info.min), info.max)
    return np.asarray(bound, dtype)
