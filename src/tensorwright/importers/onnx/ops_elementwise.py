# SPDX-License-Identifier: Apache-2.0
"""ONNX pointwise ops: arithmetic, comparisons, logic, functions and activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np

from tensorwright.importers import functions
from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.importers.onnx.tensors import dtype_name, dtype_of
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops import activation as act
from tensorwright.ops import elementwise as ew
from tensorwright.ops.quantise import largest_of

UNARY: Mapping[str, Callable[[], Op]] = {
    **functions.UNARY,
    "Not": ew.Not,
    "IsNaN": ew.IsNan,
    "HardSwish": act.HardSwish,
    "Mish": act.Mish,
}
BINARY: Mapping[str, Callable[[], Op]] = {
    **functions.BINARY,
    "Div": ew.Div,
    "PRelu": act.PRelu,
    "LessOrEqual": ew.LessEqual,
    "GreaterOrEqual": ew.GreaterEqual,
    "And": ew.And,
    "Or": ew.Or,
    "Xor": ew.Xor,
}
SINCE = {
    "Erf": 9,
    "Sign": 9,
    "IsNaN": 9,
    "Sinh": 9,
    "Cosh": 9,
    "Asinh": 9,
    "Acosh": 9,
    "Atanh": 9,
    "Round": 11,
    "HardSwish": 14,
    "Mish": 18,
    "LessOrEqual": 12,
    "GreaterOrEqual": 12,
}
"""The opset that brought an op of these tables, where it is above 7."""


def _unary(name: str, make: Callable[[], Op]) -> OnnxOp:
    return OnnxOp(name, SINCE.get(name, 7), lambda b, n: b.add(make(), n.input(0)))


def _binary(name: str, make: Callable[[], Op]) -> OnnxOp:
    return OnnxOp(name, SINCE.get(name, 7), lambda b, n: b.add(make(), n.input(0), n.input(1)))


def _fold_inputs(name: str, make: Callable[[], Op]) -> OnnxOp:
    """An op over any number of inputs as a chain of binary ops."""
    return OnnxOp(name, 7, lambda b, n: reduce(lambda x, y: b.add(make(), x, y), n.all_inputs()))


@onnx_op("Mean")
def mean(b: Builder, n: OnnxNode) -> Result:
    """The sum of all inputs, divided by their number."""
    values = n.all_inputs()
    total = reduce(lambda x, y: b.add(ew.Add(), x, y), values)
    return b.add(ew.Div(), total, b.scalar(len(values), total.type.dtype))


@onnx_op("LeakyRelu")
def leaky_relu(b: Builder, n: OnnxNode) -> Result:
    """x, or alpha * x below 0."""
    return b.add(act.LeakyRelu(n.attr("alpha", float, 0.01)), n.input(0))


@onnx_op("Elu")
def elu(b: Builder, n: OnnxNode) -> Result:
    """x, or alpha * (exp(x) - 1) below 0."""
    return b.add(act.Elu(n.attr("alpha", float, 1.0)), n.input(0))


@onnx_op("Celu", since=12)
def celu(b: Builder, n: OnnxNode) -> Result:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)), which is alpha * elu(x / alpha)."""
    x, alpha = n.input(0), b.scalar(n.attr("alpha", float, 1.0), n.input(0).type.dtype)
    return b.add(ew.Mul(), b.add(act.Elu(1.0), b.add(ew.Div(), x, alpha)), alpha)


@onnx_op("Selu")
def selu(b: Builder, n: OnnxNode) -> Result:
    """Scaled ELU."""
    defaults = act.Selu()
    return b.add(act.Selu(n.attr("alpha", float, defaults.alpha), n.attr("gamma", float, defaults.gamma)), n.input(0))


@onnx_op("HardSigmoid")
def hard_sigmoid(b: Builder, n: OnnxNode) -> Result:
    """alpha * x + beta, kept between 0 and 1."""
    return b.add(act.HardSigmoid(n.attr("alpha", float, 0.2), n.attr("beta", float, 0.5)), n.input(0))


@onnx_op("ThresholdedRelu", since=10)
def thresholded_relu(b: Builder, n: OnnxNode) -> Result:
    """x above alpha, else 0."""
    return b.add(act.ThresholdedRelu(n.attr("alpha", float, 1.0)), n.input(0))


@onnx_op("Gelu", since=20)
def gelu(b: Builder, n: OnnxNode) -> Result:
    """The exact form or its tanh approximation."""
    form = n.attr("approximate", str, "none")
    if form not in ("none", "tanh"):
        raise ValueError(f"approximate is {form!r}, expected 'none' or 'tanh'")
    return b.add(act.Gelu(approximate=form == "tanh"), n.input(0))


@onnx_op("Swish", since=24)
def swish(b: Builder, n: OnnxNode) -> Result:
    """x * sigmoid(alpha * x)."""
    x, alpha = n.input(0), n.attr("alpha", float, 1.0)
    if alpha == 1.0:
        return b.add(act.Silu(), x)
    return b.add(ew.Mul(), x, b.add(act.Sigmoid(), b.add(ew.Mul(), x, b.scalar(alpha, x.type.dtype))))


@onnx_op("Shrink", since=9)
def shrink(b: Builder, n: OnnxNode) -> Result:
    """x moved towards 0 by bias, and 0 between -lambd and lambd."""
    x, limit, bias = n.input(0), n.attr("lambd", float, 0.5), n.attr("bias", float, 0.0)
    dtype = x.type.dtype
    high = b.add(
        ew.Where(),
        b.add(ew.Greater(), x, b.scalar(limit, dtype)),
        b.add(ew.Sub(), x, b.scalar(bias, dtype)),
        b.scalar(0, dtype),
    )
    return b.add(
        ew.Where(), b.add(ew.Less(), x, b.scalar(-limit, dtype)), b.add(ew.Add(), x, b.scalar(bias, dtype)), high
    )


@onnx_op("IsInf", since=10)
def is_inf(b: Builder, n: OnnxNode) -> Result:
    """Whether x is infinite, of one sign or both."""
    x = n.input(0)
    infinity = b.scalar(np.inf, x.type.dtype)
    negative, positive = n.flag("detect_negative", True), n.flag("detect_positive", True)
    if negative and positive:
        return b.add(ew.Equal(), b.add(ew.Abs(), x), infinity)
    if not negative and not positive:
        n.refuse("it detects neither sign of infinity, so its result is always false")
    return b.add(ew.Equal(), b.add(ew.Neg(), x) if negative else x, infinity)


@onnx_op("Clip")
def clip_by_attributes(b: Builder, n: OnnxNode) -> Result:
    """Until opset 10 the bounds are attributes; their defaults are the ends of f32, which limit nothing."""
    ends = np.finfo(np.float32)
    low, high = n.attr("min", float, -np.inf), n.attr("max", float, np.inf)
    return b.add(act.Clip(low if low > ends.min else None, high if high < ends.max else None), n.input(0))


@onnx_op("Clip", since=11)
def clip(b: Builder, n: OnnxNode) -> Result:
    """Constant float bounds become attributes; bounds computed at run, and integers (exact beyond f64), stay inputs."""
    x, low, high = n.input(0), n.optional(1), n.optional(2)
    if x.type.dtype.is_float and all(v is None or b.known(v) is not None for v in (low, high)):
        return b.add(act.Clip(_bound(b, low), _bound(b, high)), x)
    y = x if low is None else b.add(ew.Maximum(), x, low)
    return y if high is None else b.add(ew.Minimum(), y, high)


def _bound(b: Builder, value: Value | None) -> float | None:
    array = b.known(value)
    if array is None:
        return None
    if array.size != 1:
        raise ValueError(f"a bound must be a scalar, it has shape {list(array.shape)}")
    return float(array.reshape(()))


@onnx_op("Mod", since=10)
def mod(b: Builder, n: OnnxNode) -> Result:
    """The remainder, with the sign of the divisor or (fmod) of the dividend."""
    return b.add(ew.Mod(fmod=n.flag("fmod")), n.input(0), n.input(1))


@onnx_op("Where", since=9)
def where(b: Builder, n: OnnxNode) -> Result:
    """Choice by a bool condition."""
    return b.add(ew.Where(), n.input(0), n.input(1), n.input(2))


@onnx_op("Cast")
def cast(b: Builder, n: OnnxNode) -> Result:
    """Conversion to the element type `to`."""
    target = n.dtype_attr("to")
    dtype = dtype_of(target)
    if dtype is None:
        n.refuse(f"it converts to {dtype_name(target)}, which is not supported")
    return _cast(b, n, dtype)


@onnx_op("CastLike", since=15)
def cast_like(b: Builder, n: OnnxNode) -> Result:
    """Conversion to the element type of input 1."""
    return _cast(b, n, n.input(1).type.dtype)


def _cast(b: Builder, n: OnnxNode, dtype: DType) -> Value:
    """Floats are clipped to the range of an 8-bit float before they are converted to it, unless `saturate` is off."""
    x = n.input(0)
    n.ignore("round_mode")  # of f8e8m0fnu only
    if dtype is DType.f8e8m0fnu and x.type.dtype is not dtype:
        n.refuse("it rounds to powers of two")
    limit = largest_of(dtype)
    if n.flag("saturate", True) and limit is not None and x.type.dtype.is_float:
        x = b.add(act.Clip(-limit, limit), x)
    return x if x.type.dtype is dtype else b.add(ew.Cast(dtype), x)


OPS = [
    *(_unary(name, make) for name, make in UNARY.items()),
    *(_binary(name, make) for name, make in BINARY.items()),
    _fold_inputs("Max", ew.Maximum),
    _fold_inputs("Min", ew.Minimum),
    _fold_inputs("Sum", ew.Add),
    mean,
    leaky_relu,
    elu,
    celu,
    selu,
    hard_sigmoid,
    thresholded_relu,
    gelu,
    swish,
    shrink,
    is_inf,
    clip_by_attributes,
    clip,
    mod,
    where,
    cast,
    cast_like,
]
