# SPDX-License-Identifier: Apache-2.0
"""Caffe layers that compute each element by itself, or from the same places of several bottoms."""

from __future__ import annotations

import math
from typing import Any

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, LayerType, Result, layer_type
from tensorwright.importers.caffe.weights import constant_filler
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array, Op
from tensorwright.ops.activation import Clip, Elu, LeakyRelu, PRelu, Relu, Sigmoid, Silu, Softplus
from tensorwright.ops.elementwise import Abs, Add, Cast, Exp, Greater, Log, Maximum, Mul, Pow, Tanh
from tensorwright.ops.shape import Expand, Reshape


def _unary(name: str, op: Op, meaning: str) -> LayerType:
    def translate(b: Builder, layer: Layer) -> Result:
        return b.add(op, layer.only())

    translate.__doc__ = meaning
    return LayerType(name, translate)


def _f32(b: Builder, number: float) -> Value:
    return b.scalar(number, DType.f32)


@layer_type("ReLU")
def relu(b: Builder, layer: Layer) -> Result:
    """max(x, 0) + negative_slope * min(x, 0)."""
    slope = layer.proto.relu_param.negative_slope
    return b.add(LeakyRelu(slope) if slope else Relu(), layer.only())


@layer_type("PReLU")
def prelu(b: Builder, layer: Layer) -> Result:
    """A slope for negative elements of each channel (axis 1), or one for all."""
    x, p = layer.only(), layer.proto.prelu_param
    if p.channel_shared:
        slope = layer.array(0, (), "slope", _filler(p, 0.25)).reshape(())
        return b.add(PRelu(), x, b.constant(slope, f"{layer.name}/0"))
    if x.type.rank < 2:
        raise ValueError(f"it has a slope for each channel, but {x.type} has none")
    (channels,) = layer.known_dims(x.type.shape[1:2], "there is a slope for each channel")
    slopes = layer.array(0, (channels,), "slope", _filler(p, 0.25)).reshape(channels, *[1] * (x.type.rank - 2))
    return b.add(PRelu(), x, b.constant(slopes, f"{layer.name}/0"))


@layer_type("ELU")
def elu(b: Builder, layer: Layer) -> Result:
    """x, or alpha * (exp(x) - 1) below 0."""
    return b.add(Elu(layer.proto.elu_param.alpha), layer.only())


@layer_type("Clip")
def clip(b: Builder, layer: Layer) -> Result:
    """min <= x <= max; both are required."""
    p = layer.proto.clip_param
    if not (p.HasField("min") and p.HasField("max")):
        raise ValueError("it needs min and max")
    return b.add(Clip(p.min, p.max), layer.only())


@layer_type("Swish")
def swish(b: Builder, layer: Layer) -> Result:
    """x * sigmoid(beta * x)."""
    x, beta = layer.only(), layer.proto.swish_param.beta
    if beta == 1:
        return b.add(Silu(), x)
    return b.add(Mul(), x, b.add(Sigmoid(), b.add(Mul(), x, _f32(b, beta))))


@layer_type("Power")
def power(b: Builder, layer: Layer) -> Result:
    """(shift + scale * x) ^ power."""
    x, p = layer.only(), layer.proto.power_param
    if p.power * p.scale == 0:  # Caffe then writes one number, whatever x is
        number = 1.0 if p.power == 0 else _power(p.shift, p.power)
        return b.add(Expand(x.type.shape), _f32(b, number))
    y = _affine(b, x, p.scale, p.shift)
    if p.power == 2:
        return b.add(Mul(), y, y)
    return y if p.power == 1 else b.add(Pow(), y, _f32(b, p.power))


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except (ValueError, ZeroDivisionError):
        return math.nan if base < 0 else math.inf
    except OverflowError:
        return math.inf


def _affine(b: Builder, x: Value, scale: float, shift: float) -> Value:
    if scale != 1:
        x = b.add(Mul(), x, _f32(b, scale))
    return b.add(Add(), x, _f32(b, shift)) if shift else x


@layer_type("Exp")
def exp(b: Builder, layer: Layer) -> Result:
    """base ^ (shift + scale * x); without a base, e ^ ..."""
    p = layer.proto.exp_param
    rate = 0.0 if p.base == 1 else _log_of_base(p.base)
    y = b.add(Exp(), _affine(b, layer.only(), p.scale * rate, 0.0))
    outer = _power(math.e if p.base == -1 else p.base, p.shift)
    return y if outer == 1 else b.add(Mul(), y, _f32(b, outer))


@layer_type("Log")
def log(b: Builder, layer: Layer) -> Result:
    """log_base(shift + scale * x); without a base, the natural one."""
    p = layer.proto.log_param
    y, rate = b.add(Log(), _affine(b, layer.only(), p.scale, p.shift)), _log_of_base(p.base)
    return y if rate == 1 else b.add(Mul(), y, _f32(b, 1 / rate))


def _log_of_base(base: float) -> float:
    if base == -1:
        return 1.0
    if not 0 < base < math.inf or base == 1:
        raise ValueError(f"its base is {base:g}; it must be positive and not 1, or -1 for e")
    return math.log(base)


@layer_type("Threshold")
def threshold(b: Builder, layer: Layer) -> Result:
    """1 where x exceeds the threshold, else 0."""
    above = b.add(Greater(), layer.only(), _f32(b, layer.proto.threshold_param.threshold))
    return b.add(Cast(DType.f32), above)


@layer_type("Eltwise")
def eltwise(b: Builder, layer: Layer) -> Result:
    """Product, weighted sum or maximum of two or more bottoms of one shape."""
    p, product, total = layer.proto.eltwise_param, 0, 1
    layer.take(2, 1 << 16)
    if len({v.type.shape for v in layer.bottoms}) > 1:
        raise ValueError(f"its bottoms differ: {', '.join(str(v.type) for v in layer.bottoms)}")
    if p.coeff and (p.operation == product or len(p.coeff) != len(layer.bottoms)):
        raise ValueError(f"it has {len(p.coeff)} coefficients for {len(layer.bottoms)} bottoms; products have none")
    op = Mul() if p.operation == product else Add() if p.operation == total else Maximum()
    terms = list(layer.bottoms)
    if p.operation == total and p.coeff:
        terms = [x if c == 1 else b.add(Mul(), x, _f32(b, c)) for x, c in zip(terms, p.coeff, strict=True)]
    y = terms[0]
    for term in terms[1:]:
        y = b.add(op, y, term)
    return y


@layer_type("Scale")
def scale(b: Builder, layer: Layer) -> Result:
    """Times a parameter, or the second bottom, whose dims stand at `axis`; then plus a parameter."""
    layer.take(1, 2)
    x, p = layer.bottom(), layer.proto.scale_param
    own = len(layer.bottoms) == 1
    start, shape = _aligned(layer, x, p, None if own else layer.bottom(1))
    if own:
        array = layer.array(0, shape, "scale", _filler(p, 1.0))
        factor = b.constant(_standing(array, x, start), f"{layer.name}/0")
    else:
        factor = b.add(Reshape(_column(x, start, layer.bottom(1).type.shape)), layer.bottom(1))
    y = b.add(Mul(), x, factor)
    if p.bias_term:
        shift = layer.array(1 if own else 0, shape, "bias", p.bias_filler)
        y = b.add(Add(), y, b.constant(_standing(shift, x, start), f"{layer.name}/bias"))
    return y


@layer_type("Bias")
def bias(b: Builder, layer: Layer) -> Result:
    """Plus a parameter, or the second bottom, whose dims stand at `axis`."""
    layer.take(1, 2)
    x, p = layer.bottom(), layer.proto.bias_param
    if len(layer.bottoms) == 2:
        start, _ = _aligned(layer, x, p, layer.bottom(1))
        shift = b.add(Reshape(_column(x, start, layer.bottom(1).type.shape)), layer.bottom(1))
    else:
        start, shape = _aligned(layer, x, p, None)
        shift = b.constant(_standing(layer.array(0, shape, "bias", p.filler), x, start), f"{layer.name}/0")
    return b.add(Add(), x, shift)


def _filler(p: Any, default: float) -> Any:
    """The filler of a layer's parameters, by default a number everywhere."""
    return p.filler if p.HasField("filler") else constant_filler(default)


def _aligned(layer: Layer, x: Value, p: Any, other: Value | None) -> tuple[int, tuple[int, ...]]:
    """The first dim of x that a factor or shift stands at, and the shape of a parameter there."""
    rank = x.type.rank
    if other is not None and not other.type.rank:
        return 0, ()
    start = layer.axis(p.axis, rank)
    if other is not None:
        dims = x.type.shape[start : start + other.type.rank]
        if dims != other.type.shape:
            raise ValueError(f"{other.type} does not stand at axis {start} of {x.type}")
    else:
        count = p.num_axes
        if count < -1 or start + count > rank:
            raise ValueError(f"{count} axes from axis {start} on are not within {x.type}")
        dims = x.type.shape[start:] if count == -1 else x.type.shape[start : start + count]
        if not count:
            return 0, ()
    is_needed = other is None or bool(getattr(p, "bias_term", False))
    return start, layer.known_dims(dims, "a parameter has a number for each of its elements") if is_needed else ()


def _standing(array: Array, x: Value, start: int) -> Array:
    """A parameter in the shape in which it broadcasts against x from dim `start` on."""
    return array.reshape(*array.shape, *[1] * (x.type.rank - start - array.ndim)) if array.ndim else array


def _column(x: Value, start: int, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape in which a value of `shape` broadcasts against x from dim `start` on."""
    return () if not shape else (*shape, *[1] * (x.type.rank - start - len(shape)))


@layer_type("Axpy")
def axpy(b: Builder, layer: Layer) -> Result:
    """A fork's a[n,c] * x + y (squeeze-and-excitation)."""
    layer.take(3, 3)
    a, x, y = layer.bottoms
    column = b.add(Reshape((*x.type.shape[:2], *[1] * (x.type.rank - 2))), a)
    return b.add(Add(), b.add(Mul(), x, column), y)


LAYERS = [
    relu,
    prelu,
    elu,
    clip,
    swish,
    power,
    exp,
    log,
    threshold,
    eltwise,
    scale,
    bias,
    axpy,
    _unary("Sigmoid", Sigmoid(), "1 / (1 + exp(-x))."),
    _unary("TanH", Tanh(), "tanh(x)."),
    _unary("AbsVal", Abs(), "|x|."),
    _unary("BNLL", Softplus(), "log(1 + exp(x))."),
    _unary("ReLU6", Clip(0.0, 6.0), "A fork's 0 <= x <= 6."),
]
