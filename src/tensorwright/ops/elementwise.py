# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops: each result element depends on one element of every input, under NumPy broadcasting.
Activation functions are in `activation`.

NaN and infinities flow as IEEE 754 and NumPy define. f16 and bf16 compute in f32 and round once.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Compare, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, required, same_dtype, widen

_SMALL_INTEGERS = frozenset({DType.i4, DType.u4, DType.i2, DType.u2})
_POWER = Compare(rtol=1e-5, atol=1e-7)  # the rounding of log(x) is multiplied by the exponent


class Pointwise(Op):
    """Base of all pointwise ops. `takes` names the accepted types: "float", "integer", "number", "bool" or "any"."""

    takes: ClassVar[str] = "float"

    def check_dtype(self, dtype: DType) -> None:
        """Raise ValueError when the op is not defined on `dtype`."""
        is_bool = dtype is DType.bool
        fits = {
            "float": dtype.is_float,
            "integer": dtype.is_integer,
            "number": not is_bool,
            "bool": is_bool,
            "any": True,
        }
        if not fits[self.takes]:
            raise ValueError(f"{self.kind} needs a {self.takes} type, not {dtype}")


class Unary(Pointwise):
    """One input; the result has its type (bool for a predicate). `compute` is the NumPy form."""

    predicate: ClassVar[bool] = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        self.check_dtype(x.dtype)
        return (x.with_dtype(DType.bool) if self.predicate else x,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        with np.errstate(all="ignore"):
            return (np.asarray(self.compute(widen(x))).astype(bool if self.predicate else x.dtype, copy=False),)

    def compute(self, x: Array) -> Any:
        """The result in the input's (widened) dtype."""
        raise NotImplementedError


class _Plain(Unary):
    """A unary op without attributes: a NumPy function."""

    function: ClassVar[np.ufunc]

    def compute(self, x: Array) -> Any:
        return self.function(x)


@op("abs", compare=EXACT)
class Abs(_Plain):
    """|x|."""

    takes = "number"
    function = np.abs


@op("neg", compare=EXACT)
class Neg(_Plain):
    """-x."""

    takes = "number"
    function = np.negative


@op("exp")
class Exp(_Plain):
    """e to the power x."""

    function = np.exp


@op("log")
class Log(_Plain):
    """Natural logarithm; NaN below zero, -inf at zero."""

    function = np.log


@op("sqrt")
class Sqrt(_Plain):
    """Square root; NaN below zero."""

    function = np.sqrt


@op("reciprocal")
class Reciprocal(_Plain):
    """1 / x."""

    function = np.reciprocal


@op("tanh")
class Tanh(_Plain):
    """Hyperbolic tangent."""

    function = np.tanh


@op("erf")
class Erf(Unary):
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    def compute(self, x: Array) -> Any:
        return erf(x)


@op("floor", compare=EXACT)
class Floor(_Plain):
    """The largest integer not above x."""

    function = np.floor


@op("ceil", compare=EXACT)
class Ceil(_Plain):
    """The smallest integer not below x."""

    function = np.ceil


@op("round", compare=EXACT)
class Round(_Plain):
    """The nearest integer; halves go to the even one."""

    function = np.rint


@op("sign", compare=EXACT)
class Sign(_Plain):
    """-1, 0 or 1; NaN stays NaN."""

    takes = "number"
    function = np.sign


@op("not", compare=EXACT)
class Not(_Plain):
    """Logical negation of bools."""

    takes = "bool"
    function = np.logical_not


@op("sin")
class Sin(_Plain):
    """Sine of radians."""

    function = np.sin


@op("cos")
class Cos(_Plain):
    """Cosine of radians."""

    function = np.cos


@op("tan", compare=_POWER)
class Tan(_Plain):
    """Tangent of radians."""

    function = np.tan


@op("asin")
class Asin(_Plain):
    """Arc sine; NaN outside [-1, 1]."""

    function = np.arcsin


@op("acos")
class Acos(_Plain):
    """Arc cosine; NaN outside [-1, 1]."""

    function = np.arccos


@op("atan")
class Atan(_Plain):
    """Arc tangent."""

    function = np.arctan


@op("sinh")
class Sinh(_Plain):
    """Hyperbolic sine."""

    function = np.sinh


@op("cosh")
class Cosh(_Plain):
    """Hyperbolic cosine."""

    function = np.cosh


@op("asinh")
class Asinh(_Plain):
    """Inverse hyperbolic sine."""

    function = np.arcsinh


@op("acosh")
class Acosh(_Plain):
    """Inverse hyperbolic cosine; NaN below 1."""

    function = np.arccosh


@op("atanh")
class Atanh(_Plain):
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    function = np.arctanh


@op("is_nan", compare=EXACT)
class IsNan(_Plain):
    """Whether x is not a number, as bool."""

    predicate = True
    function = np.isnan


@op("cast", compare=EXACT)
class Cast(Unary):
    """Conversion to another element type. Floats become integers by dropping the fraction (out of range and
    NaN: undefined); non-zero becomes true."""

    takes = "any"
    dtype: DType

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        return (x.with_dtype(self.dtype),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        if DType.of(x.dtype) in _SMALL_INTEGERS:
            x = x.astype(np.int8)  # ml_dtypes converts them to all but each other
        with np.errstate(all="ignore"):
            return (x.astype(self.dtype.numpy),)


class Binary(Pointwise):
    """Two inputs of one type, broadcast; the result has it too (bool for a predicate)."""

    takes: ClassVar[str] = "number"
    predicate: ClassVar[bool] = False
    function: ClassVar[np.ufunc]

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        a, b = required(self, inputs, 2)
        dtype = self.common_dtype(a, b)
        self.check_dtype(dtype)
        return (TensorType(DType.bool if self.predicate else dtype, broadcast_shapes(self, a.shape, b.shape)),)

    def common_dtype(self, a: TensorType, b: TensorType) -> DType:
        """The dtype of the computation. Raises ValueError when the inputs' dtypes do not fit."""
        return same_dtype(self, (a, b))

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        a, b = required(self, inputs, 2)
        with np.errstate(all="ignore"):
            y = self.compute(widen(a), widen(b))
            return (np.asarray(y).astype(bool if self.predicate else a.dtype, copy=False),)

    def compute(self, a: Array, b: Array) -> Any:
        """The result in the inputs' (widened) dtype."""
        return self.function(a, b)


@op("add", compare=EXACT)
class Add(Binary):
    """a + b."""

    function = np.add


@op("sub", compare=EXACT)
class Sub(Binary):
    """a - b."""

    function = np.subtract


@op("mul", compare=EXACT)
class Mul(Binary):
    """a * b."""

    function = np.multiply


@op("div")
class Div(Binary):
    """a / b; integers round towards zero."""

    def compute(self, a: Array, b: Array) -> Any:
        if a.dtype.kind == "f":
            return a / b
        quotient = a // b
        return quotient + ((quotient * b != a) & ((a < 0) != (b < 0)))


@op("pow", compare=_POWER)
class Pow(Binary):
    """a to the power b, in the type of a; the exponent may have another type."""

    def common_dtype(self, a: TensorType, b: TensorType) -> DType:
        self.check_dtype(b.dtype)
        return a.dtype

    def compute(self, a: Array, b: Array) -> Any:
        if a.dtype.kind == "f":
            return np.power(a, b.astype(a.dtype))
        if b.dtype.kind == "f" or bool((b < 0).any()):
            return np.trunc(np.power(a.astype(np.float64), b))
        return np.power(a, b.astype(a.dtype))


@op("maximum", compare=EXACT)
class Maximum(Binary):
    """The larger of a and b; NaN when either is."""

    function = np.maximum


@op("minimum", compare=EXACT)
class Minimum(Binary):
    """The smaller of a and b; NaN when either is."""

    function = np.minimum


@op("equal", compare=EXACT)
class Equal(Binary):
    """a == b."""

    takes = "any"
    predicate = True
    function = np.equal


@op("less", compare=EXACT)
class Less(Binary):
    """a < b."""

    predicate = True
    function = np.less


@op("less_equal", compare=EXACT)
class LessEqual(Binary):
    """a <= b."""

    predicate = True
    function = np.less_equal


@op("greater", compare=EXACT)
class Greater(Binary):
    """a > b."""

    predicate = True
    function = np.greater


@op("greater_equal", compare=EXACT)
class GreaterEqual(Binary):
    """a >= b."""

    predicate = True
    function = np.greater_equal


@op("and", compare=EXACT)
class And(Binary):
    """Logical and."""

    takes = "bool"
    function = np.logical_and


@op("or", compare=EXACT)
class Or(Binary):
    """Logical or."""

    takes = "bool"
    function = np.logical_or


@op("xor", compare=EXACT)
class Xor(Binary):
    """Logical exclusive or."""

    takes = "bool"
    function = np.logical_xor


@op("mod", compare=EXACT)
class Mod(Binary):
    """The remainder of a / b: with the sign of b, or of a when `fmod`."""

    fmod: bool = False

    def compute(self, a: Array, b: Array) -> Any:
        return np.fmod(a, b) if self.fmod else np.mod(a, b)


@op("where", compare=EXACT)
class Where(Pointwise):
    """a where the bool condition holds, else b; all three broadcast."""

    takes = "any"

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        condition, a, b = required(self, inputs, 3)
        if condition.dtype is not DType.bool:
            raise ValueError(f"where needs a bool condition, not {condition.dtype}")
        return (TensorType(same_dtype(self, (a, b)), broadcast_shapes(self, condition.shape, a.shape, b.shape)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        condition, a, b = required(self, inputs, 3)
        return (np.where(condition, a, b),)


def erf(x: Array) -> Any:
    """The error function in the dtype of x, each element rounded from the C library's."""
    return np.asarray(_ERF(x)).astype(x.dtype)


_ERF = np.frompyfunc(math.erf, 1, 1)
