# SPDX-License-Identifier: Apache-2.0
"""TensorFlow ops that compute each element by itself, or from the same places of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np

from tensorwright.importers import functions
from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops import activation as act
from tensorwright.ops import bitwise as bits
from tensorwright.ops import elementwise as ew
from tensorwright.ops.shape import Expand, Reshape

UNARY: Mapping[str, Callable[[], Op]] = {
    **functions.UNARY,
    "Inv": ew.Reciprocal,
    "LogicalNot": ew.Not,
    "Rint": ew.Round,
    "IsNan": ew.IsNan,
    "Relu6": lambda: act.Clip(0.0, 6.0),
    "Elu": lambda: act.Elu(1.0),
    "Selu": act.Selu,
    "Invert": bits.BitwiseNot,
}
BINARY: Mapping[str, Callable[[], Op]] = {
    **functions.BINARY,
    "AddV2": ew.Add,
    "RealDiv": ew.Div,
    "TruncateDiv": ew.Div,
    "Maximum": ew.Maximum,
    "Minimum": ew.Minimum,
    "LessEqual": ew.LessEqual,
    "GreaterEqual": ew.GreaterEqual,
    "LogicalAnd": ew.And,
    "LogicalOr": ew.Or,
    "FloorMod": ew.Mod,
    "TruncateMod": lambda: ew.Mod(fmod=True),
    "Mod": lambda: ew.Mod(fmod=True),
    "BitwiseAnd": bits.BitwiseAnd,
    "BitwiseOr": bits.BitwiseOr,
    "BitwiseXor": bits.BitwiseXor,
}


def _unary(name: str, make: Callable[[], Op]) -> TfOp:
    return TfOp(name, lambda b, n: b.add(make(), n.input()))


def _binary(name: str, make: Callable[[], Op]) -> TfOp:
    return TfOp(name, lambda b, n: b.add(make(), n.input(0), n.input(1)))


@tf_op("Div")
def div(b: Builder, n: OpNode) -> Result:
    """The quotient; of integers towards zero."""
    return b.add(ew.Div(), n.input(0), n.input(1))


@tf_op("FloorDiv")
def floor_div(b: Builder, n: OpNode) -> Result:
    """The quotient, rounded towards minus infinity."""
    x, y = n.input(0), n.input(1)
    quotient = b.add(ew.Div(), x, y)
    if x.type.dtype.is_float:
        return b.add(ew.Floor(), quotient)
    contents = b.contents(quotient)
    if contents is not None:  # sizes, which are not negative
        return quotient
    if not x.type.dtype.is_signed:
        return quotient
    zero, one = b.scalar(0, x.type.dtype), b.scalar(1, x.type.dtype)
    rest = b.add(ew.Sub(), x, b.add(ew.Mul(), quotient, y))
    inexact = b.add(ew.Not(), b.add(ew.Equal(), rest, zero))
    opposite = b.add(ew.Xor(), b.add(ew.Less(), rest, zero), b.add(ew.Less(), y, zero))
    lower = b.add(ew.And(), inexact, opposite)
    return b.add(ew.Where(), lower, b.add(ew.Sub(), quotient, one), quotient)


@tf_op("DivNoNan", "MulNoNan", "Xdivy", "Xlogy")
def no_nan(b: Builder, n: OpNode) -> Result:
    """A quotient or product that is 0 where its deciding operand is 0."""
    x, y = n.input(0), n.input(1)
    zero = b.scalar(0, x.type.dtype)
    operator: Mapping[str, Op] = {"DivNoNan": ew.Div(), "Xdivy": ew.Div()}
    other = b.add(ew.Log(), y) if n.op == "Xlogy" else y
    result = b.add(operator.get(n.op, ew.Mul()), x, other)
    decides = y if n.op in ("DivNoNan", "MulNoNan") else x
    return b.add(ew.Where(), b.add(ew.Equal(), decides, zero), zero, result)


@tf_op("NotEqual")
def not_equal(b: Builder, n: OpNode) -> Result:
    """Whether elements differ."""
    return b.add(ew.Not(), b.add(ew.Equal(), n.input(0), n.input(1)))


@tf_op("AddN", "AccumulateNV2")
def add_n(b: Builder, n: OpNode) -> Result:
    """The sum of all inputs."""
    n.input(0)
    return reduce(lambda x, y: b.add(ew.Add(), x, y), n.inputs)


@tf_op("Square")
def square(b: Builder, n: OpNode) -> Result:
    """x * x."""
    return b.add(ew.Mul(), n.input(), n.input())


@tf_op("SquaredDifference")
def squared_difference(b: Builder, n: OpNode) -> Result:
    """(x - y) * (x - y)."""
    difference = b.add(ew.Sub(), n.input(0), n.input(1))
    return b.add(ew.Mul(), difference, difference)


@tf_op("Rsqrt")
def rsqrt(b: Builder, n: OpNode) -> Result:
    """1 / sqrt(x)."""
    return b.add(ew.Reciprocal(), b.add(ew.Sqrt(), n.input()))


@tf_op("Erfc")
def erfc(b: Builder, n: OpNode) -> Result:
    """1 - erf(x)."""
    x = n.input()
    return b.add(ew.Sub(), b.scalar(1, x.type.dtype), b.add(ew.Erf(), x))


@tf_op("Log1p")
def log1p(b: Builder, n: OpNode) -> Result:
    """log(1 + x), exact near 0: atanh(x / (x + 2)) is half of it, but up to x = 1 only."""
    x = n.input()
    one, two = b.scalar(1, x.type.dtype), b.scalar(2, x.type.dtype)
    near = b.add(ew.Mul(), two, b.add(ew.Atanh(), b.add(ew.Div(), x, b.add(ew.Add(), x, two))))
    far = b.add(ew.Log(), b.add(ew.Add(), x, one))
    is_near = b.add(ew.Less(), b.add(ew.Abs(), x), b.scalar(0.5, x.type.dtype))
    return b.add(ew.Where(), is_near, near, far)


@tf_op("Expm1")
def expm1(b: Builder, n: OpNode) -> Result:
    """exp(x) - 1, exact near 0: 2 sinh(x/2) exp(x/2)."""
    x = n.input()
    half = b.add(ew.Mul(), x, b.scalar(0.5, x.type.dtype))
    near = b.add(ew.Mul(), b.scalar(2, x.type.dtype), b.add(ew.Mul(), b.add(ew.Sinh(), half), b.add(ew.Exp(), half)))
    far = b.add(ew.Sub(), b.add(ew.Exp(), x), b.scalar(1, x.type.dtype))
    is_near = b.add(ew.Less(), b.add(ew.Abs(), x), b.scalar(0.5, x.type.dtype))
    return b.add(ew.Where(), is_near, near, far)


@tf_op("Atan2")
def atan2(b: Builder, n: OpNode) -> Result:
    """The angle of the point (x, y), from its half: 2 atan(y / (r + x)), or with pi on the other side."""
    y, x = n.input(0), n.input(1)
    dtype = x.type.dtype
    zero, two, pi = (b.scalar(v, dtype) for v in (0, 2, np.pi))
    ratio = b.add(ew.Atan(), b.add(ew.Div(), y, x))
    shift = b.add(ew.Where(), b.add(ew.Less(), y, zero), b.add(ew.Neg(), pi), pi)
    side = b.add(ew.Where(), b.add(ew.Less(), x, zero), b.add(ew.Add(), ratio, shift), ratio)
    top = b.add(ew.Mul(), b.add(ew.Sign(), y), b.add(ew.Div(), pi, two))
    return b.add(ew.Where(), b.add(ew.Equal(), x, zero), top, side)


@tf_op("IsInf", "IsFinite")
def is_finite(b: Builder, n: OpNode) -> Result:
    """Whether x is infinite; whether it is a number that is not."""
    x = n.input()
    infinity = b.scalar(np.inf, x.type.dtype)
    if n.op == "IsInf":
        return b.add(ew.Equal(), b.add(ew.Abs(), x), infinity)
    return b.add(ew.Less(), b.add(ew.Abs(), x), infinity)


@tf_op("LeakyRelu")
def leaky_relu(b: Builder, n: OpNode) -> Result:
    """x, or alpha * x below 0."""
    return b.add(act.LeakyRelu(n.real("alpha", 0.2)), n.input())


@tf_op("ClipByValue")
def clip_by_value(b: Builder, n: OpNode) -> Result:
    """min <= x <= max."""
    return b.add(ew.Minimum(), b.add(ew.Maximum(), n.input(0), n.input(1)), n.input(2))


@tf_op("BiasAdd", "BiasAddV1")
def bias_add(b: Builder, n: OpNode) -> Result:
    """A number for each channel, which is the last dim, or dim 1 in NCHW."""
    x, bias = n.input(0), n.input(1)
    if bias.type.rank != 1 or x.type.rank < 2:
        raise ValueError(f"it adds {bias.type} to {x.type}; a bias has one dim")
    if n.text("data_format", "NHWC").startswith("NC"):
        bias = b.add(Reshape((bias.type.shape[0], *[1] * (x.type.rank - 2))), bias)
    return b.add(ew.Add(), x, bias)


@tf_op("Cast")
def cast(b: Builder, n: OpNode) -> Result:
    """Conversion to another element type."""
    x, dtype = n.input(), n.dtype("DstT")
    return x if x.type.dtype is dtype else b.add(ew.Cast(dtype), x)


@tf_op("Bitcast")
def bitcast(b: Builder, n: OpNode) -> Result:
    """The same bits as another type of equal size."""
    return b.add(bits.BitCast(n.dtype("type")), n.input())


@tf_op("LeftShift", "RightShift")
def shift(b: Builder, n: OpNode) -> Result:
    """Bits moved."""
    return b.add(bits.BitShift(n.op == "LeftShift"), n.input(0), n.input(1))


@tf_op("Select")
def select(b: Builder, n: OpNode) -> Result:
    """Choice by a condition of the operands' shape, of one element, or of a vector that chooses rows."""
    condition, x, y = n.input(0), n.input(1), n.input(2)
    if condition.type.rank == 1 and x.type.rank > 1:
        condition = b.add(Reshape((condition.type.shape[0], *[1] * (x.type.rank - 1))), condition)
    return b.add(ew.Where(), condition, x, y)


@tf_op("SelectV2")
def select_v2(b: Builder, n: OpNode) -> Result:
    """Choice by a condition; all three broadcast."""
    return b.add(ew.Where(), n.input(0), n.input(1), n.input(2))


@tf_op("ZerosLike", "OnesLike")
def filled_like(b: Builder, n: OpNode) -> Result:
    """Zeros or ones of the shape of x."""
    x = n.input()
    number = b.scalar(n.op == "OnesLike", x.type.dtype)
    return b.add(Expand(x.type.shape), number) if x.type.shape else number


@tf_op("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs")
def fake_quant(b: Builder, n: OpNode) -> Result:
    """Rounding to the steps of an integer range, whose zero is moved onto a step."""
    if n.op == "FakeQuantWithMinMaxArgs":
        low, high = n.real("min", -6.0), n.real("max", 6.0)
    else:
        low, high = (float(n.constant(i, "the range is rounded to whole steps").reshape(-1)[0]) for i in (1, 2))
    first, last = (1 if n.flag("narrow_range") else 0), (1 << n.integer("num_bits", 8)) - 1
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        n.refuse("its range is empty")
    scale = (high - low) / (last - first)
    zero = min(max(round(first - low / scale), first), last)
    low, high = (first - zero) * scale, (last - zero) * scale
    x = b.add(act.Clip(low, high), n.input())
    steps = b.add(ew.Add(), b.add(ew.Div(), b.add(ew.Sub(), x, _f32(b, low)), _f32(b, scale)), _f32(b, 0.5))
    return b.add(ew.Add(), b.add(ew.Mul(), b.add(ew.Floor(), steps), _f32(b, scale)), _f32(b, low))


def _f32(b: Builder, number: float) -> Value:
    return b.scalar(number, DType.f32)


@tf_op(
    "CheckNumerics", "Snapshot", "PlaceholderWithDefault", "EnsureShape", "ReadVariableOp", "DebugIdentityV2", "Print"
)
def same(b: Builder, n: OpNode) -> Result:
    """The value itself."""
    return n.input()


OPS: list[TfOp] = [
    *(_unary(name, make) for name, make in UNARY.items()),
    *(_binary(name, make) for name, make in BINARY.items()),
    *div,
    *floor_div,
    *no_nan,
    *not_equal,
    *add_n,
    *square,
    *squared_difference,
    *rsqrt,
    *erfc,
    *log1p,
    *expm1,
    *atan2,
    *is_finite,
    *leaky_relu,
    *clip_by_value,
    *bias_add,
    *cast,
    *bitcast,
    *shift,
    *select,
    *select_v2,
    *filled_like,
    *fake_quant,
    *same,
]
