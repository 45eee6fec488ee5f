# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that draw random numbers: bits of a counter-based generator (`ops.random`) and arithmetic on them.

ONNX leaves open how the numbers of a seed come about. Here a node with a `seed` gives the same numbers in each run, and
so does every node of that seed and shape; one without gives new ones. Numbers do not depend on the target or threads.
"""

from __future__ import annotations

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.importers.onnx.tensors import dtype_name, dtype_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.random import DIGITS, normal, uniform
from tensorwright.ops.elementwise import Add, Cast, Exp, Less, LessEqual, Mul, Sub
from tensorwright.ops.order import CumSum
from tensorwright.ops.random import RandomKey
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape, Slice

_FLOAT, _INT32 = 1, 6  # TensorProto


def _key(b: Builder, n: OnnxNode) -> Value:
    """Two words: of the seed, or new ones for each run."""
    if not n.has("seed"):
        return b.add(RandomKey())
    return b.constant(np.array([n.attr("seed", float), 0], np.float32).view(np.uint32))


def _dtype(n: OnnxNode, default: DType | int) -> DType:
    """The float type that the node asks for."""
    if isinstance(default, DType) and not n.has("dtype"):
        found: DType | None = default
    else:
        found = dtype_of(n.dtype_attr("dtype", default if isinstance(default, int) else None))
    if found not in DIGITS:
        n.refuse(f"it draws numbers of {found or dtype_name(n.dtype_attr('dtype'))}", "draw f32 and cast")
    return found


def _scaled(b: Builder, n: OnnxNode, shape: tuple[Dim, ...], dtype: DType, kind: str) -> Value:
    """Draws of `kind` moved to where the node's attributes say."""
    if kind == "uniform":
        low, high = n.attr("low", float, 0.0), n.attr("high", float, 1.0)
        x, factor, start = uniform(b, _key(b, n), shape, dtype), high - low, low
    else:
        x, factor, start = normal(b, _key(b, n), shape, dtype), n.attr("scale", float, 1.0), n.attr("mean", float, 0.0)
    if factor != 1:
        x = b.add(Mul(), x, b.scalar(factor, x.type.dtype))
    if start != 0:
        x = b.add(Add(), x, b.scalar(start, x.type.dtype))
    return as_type(b, x, dtype)


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
    drawn = b.add(Less(), uniform(b, _key(b, n), p.type.shape, wide), as_type(b, p, wide))
    return as_type(b, drawn, dtype)


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
    x = as_type(b, x, wide)
    weights = b.add(Exp(), b.add(Sub(), x, b.add(Reduce("max", (1,), True), x)))
    sums = b.add(CumSum(1), weights)
    total = b.add(Slice((classes - 1,), (classes,), (1,), (1,)), sums)
    target = b.add(Mul(), uniform(b, _key(b, n), (batch, count), wide), total)  # below the total, also rounded
    passed = b.add(LessEqual(), b.add(Reshape((batch, 1, classes)), sums), b.add(Reshape((batch, count, 1)), target))
    return b.add(Reduce("sum", (2,), False), b.add(Cast(dtype), passed))


OPS = [random_uniform, random_normal, random_uniform_like, random_normal_like, bernoulli, multinomial]
