# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that draw random numbers: bits of a counter-based generator (`ops.random`) and arithmetic on them.

ONNX leaves open how the numbers of a seed come about. Here a node with a `seed` gives the same numbers in each run, and
so does every node of that seed and shape; one without gives new ones. Numbers do not depend on the target or threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.importers.onnx.tensors import dtype_name, dtype_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.bitwise import BitShift
from tensorwright.ops.elementwise import Add, Cast, Cos, Exp, Less, LessEqual, Log, Mul, Sqrt, Sub
from tensorwright.ops.order import CumSum
from tensorwright.ops.random import RandomBits, RandomKey
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape, Slice

_FLOAT, _INT32 = 1, 6  # TensorProto
_DIGITS = {DType.f64: 53, DType.f32: 24, DType.f16: 11, DType.bf16: 8}
"""Binary digits of a fraction in [0, 1) that the type holds exactly."""


class _Draw(NamedTuple):
    """Uniform fractions from [0, 1): whole numbers, and the scale that makes fractions of them."""

    whole: Value
    scale: Value


def _draw(b: Builder, n: OnnxNode, shape: tuple[Dim, ...], dtype: DType) -> _Draw:
    """Fractions that `dtype` holds exactly, as f64 for f64 and else as f32."""
    wide = DType.f64 if dtype is DType.f64 else DType.f32
    bits = b.add(RandomBits(shape, wide is DType.f64), _key(b, n))
    digits = _DIGITS[dtype]
    kept = b.add(BitShift(left=False), bits, b.scalar(8 * bits.type.dtype.size_bytes - digits, bits.type.dtype))
    return _Draw(b.add(Cast(wide), kept), b.scalar(2.0**-digits, wide))


def _key(b: Builder, n: OnnxNode) -> Value:
    """Two words: of the seed, or new ones for each run."""
    if not n.has("seed"):
        return b.add(RandomKey())
    return b.constant(np.array([n.attr("seed", float), 0], np.float32).view(np.uint32))


def _uniform(b: Builder, n: OnnxNode, shape: tuple[Dim, ...], dtype: DType) -> Value:
    """Fractions from [0, 1) that `dtype` holds exactly, as f64 for f64 and else as f32."""
    draw = _draw(b, n, shape, dtype)
    return b.add(Mul(), draw.whole, draw.scale)


def _normal(b: Builder, n: OnnxNode, shape: tuple[Dim, ...], dtype: DType) -> Value:
    """Standard normal numbers (Box and Muller, 1958), as f64 for f64 and else as f32."""
    wide = DType.f64 if dtype is DType.f64 else DType.f32
    draw = _draw(b, n, (2, *shape), wide)
    first, second = (b.add(Reshape(shape), b.add(Slice((i,), (i + 1,), (0,), (1,)), draw.whole)) for i in (0, 1))
    positive = b.add(Mul(), b.add(Add(), first, b.scalar(1, wide)), draw.scale)  # from (0, 1]: it has a logarithm
    radius = b.add(Sqrt(), b.add(Mul(), b.add(Log(), positive), b.scalar(-2, wide)))
    angle = b.add(Mul(), second, b.scalar(2 * math.pi * float(2.0 ** -_DIGITS[wide]), wide))
    return b.add(Mul(), radius, b.add(Cos(), angle))


def _as(b: Builder, x: Value, dtype: DType) -> Value:
    return x if x.type.dtype is dtype else b.add(Cast(dtype), x)


def _dtype(n: OnnxNode, default: DType | int) -> DType:
    """The float type that the node asks for."""
    if isinstance(default, DType) and not n.has("dtype"):
        found: DType | None = default
    else:
        found = dtype_of(n.dtype_attr("dtype", default if isinstance(default, int) else None))
    if found not in _DIGITS:
        n.refuse(f"it draws numbers of {found or dtype_name(n.dtype_attr('dtype'))}", "draw f32 and cast")
    return found


def _scaled(b: Builder, n: OnnxNode, shape: tuple[Dim, ...], dtype: DType, kind: str) -> Value:
    """Draws of `kind` moved to where the node's attributes say."""
    if kind == "uniform":
        low, high = n.attr("low", float, 0.0), n.attr("high", float, 1.0)
        x, factor, start = _uniform(b, n, shape, dtype), high - low, low
    else:
        x, factor, start = _normal(b, n, shape, dtype), n.attr("scale", float, 1.0), n.attr("mean", float, 0.0)
    if factor != 1:
        x = b.add(Mul(), x, b.scalar(factor, x.type.dtype))
    if start != 0:
        x = b.add(Add(), x, b.scalar(start, x.type.dtype))
    return _as(b, x, dtype)


@onnx_op("RandomUniform")
def random_uniform(b: Builder, n: OnnxNode) -> Result:
    """Numbers from `low` to `high`, in a shape that is an attribute."""
    return _scaled(b, n, _shape(n), _dtype(n, _FLOAT), "uniform")


@onnx_op("RandomNormal")
def random_normal(b: Builder, n: OnnxNode) -> Result:
    """Numbers around `mean` with deviation `scale`, in a shape that is an attribute."""
    return _scaled(b, n, _shape(n), _dtype(n, _FLOAT), "normal")


@onnx_op("RandomUniformLike")
def random_uniform_like(b: Builder, n: OnnxNode) -> Result:
    """The same in the shape, and unless `dtype` says otherwise the type, of a tensor."""
    return _scaled(b, n, n.input(0).type.shape, _dtype(n, n.input(0).type.dtype), "uniform")


@onnx_op("RandomNormalLike")
def random_normal_like(b: Builder, n: OnnxNode) -> Result:
    """The same in the shape, and unless `dtype` says otherwise the type, of a tensor."""
    return _scaled(b, n, n.input(0).type.shape, _dtype(n, n.input(0).type.dtype), "normal")


def _shape(n: OnnxNode) -> tuple[int, ...]:
    shape = n.ints("shape")
    if shape is None or min(shape, default=0) < 0:
        raise ValueError(f"attribute 'shape' is {shape}, expected sizes")
    return shape


@onnx_op("Bernoulli", since=15)
def bernoulli(b: Builder, n: OnnxNode) -> Result:
    """1 with the probability that the input holds, else 0."""
    p = n.input(0)
    number = n.dtype_attr("dtype", _FLOAT)
    dtype = dtype_of(number) if n.has("dtype") else p.type.dtype
    if dtype is None:
        n.refuse(f"it draws {dtype_name(number)}")
    wide = DType.f64 if p.type.dtype is DType.f64 else DType.f32
    drawn = b.add(Less(), _uniform(b, n, p.type.shape, wide), _as(b, p, wide))
    return _as(b, drawn, dtype)


@onnx_op("Multinomial")
def multinomial(b: Builder, n: OnnxNode) -> Result:
    """`sample_size` classes for each row of log-probabilities [batch, classes], drawn with replacement: the first class
    up to which the running sum of probabilities exceeds a uniform number."""
    x, count = n.input(0), n.attr("sample_size", int, 1)
    number = n.dtype_attr("dtype", _INT32)
    dtype = dtype_of(number)
    if dtype not in (DType.i32, DType.i64) or x.type.rank != 2 or count < 1:
        raise ValueError(f"it cannot draw {count} {dtype_name(number)} from {x.type}")
    batch, classes = x.type.shape
    wide = DType.f64 if x.type.dtype is DType.f64 else DType.f32
    x = _as(b, x, wide)
    weights = b.add(Exp(), b.add(Sub(), x, b.add(Reduce("max", (1,), True), x)))
    sums = b.add(CumSum(1), weights)
    total = b.add(Slice((classes - 1,), (classes,), (1,), (1,)), sums)
    target = b.add(Mul(), _uniform(b, n, (batch, count), wide), total)  # below the total, also after its rounding
    passed = b.add(LessEqual(), b.add(Reshape((batch, 1, classes)), sums), b.add(Reshape((batch, count, 1)), target))
    return b.add(Reduce("sum", (2,), False), b.add(Cast(dtype), passed))


OPS = [random_uniform, random_normal, random_uniform_like, random_normal_like, bernoulli, multinomial]
