# SPDX-License-Identifier: Apache-2.0
"""Elementary functions on f64 scalars or vectors: the C library's, called for each lane.

Networks in f64 are rare, and the functions are as exact as NumPy's this way. The names are those of `vector_math`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import width_of


def library(name: str) -> Callable[..., Reg]:
    """The double function `name` of the C library, on every lane of its operands."""

    def call(f: Function, *args: Reg) -> Reg:
        width = width_of(args[0].ty)
        if width == 1:
            return f.call(name, "double", *args)
        out = f.undef(args[0].ty)
        for lane in range(width):
            out = f.insert(out, f.call(name, "double", *(f.extract(a, lane) for a in args)), lane)
        return out

    return call


exp, log, tanh, erf = library("exp"), library("log"), library("tanh"), library("erf")
sin, cos, tan = library("sin"), library("cos"), library("tan")
asin, acos, atan = library("asin"), library("acos"), library("atan")
sinh, cosh = library("sinh"), library("cosh")
asinh, acosh, atanh = library("asinh"), library("acosh"), library("atanh")
expm1, log1p = library("expm1"), library("log1p")
power, remainder = library("pow"), library("fmod")


def sigmoid(f: Function, x: Reg) -> Reg:
    """1 / (1 + e^-x)."""
    return f.const(x.ty, 1.0) / (exp(f, f.fneg(x)) + 1.0)


def silu(f: Function, x: Reg) -> Reg:
    """x * sigmoid(x)."""
    return x * sigmoid(f, x)


def softplus(f: Function, x: Reg) -> Reg:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    return f.maximum(x, 0.0) + log1p(f, exp(f, f.fneg(f.intrinsic("fabs", x.ty, x))))


def mish(f: Function, x: Reg) -> Reg:
    """x * tanh(softplus(x))."""
    return x * tanh(f, softplus(f, x))


def gelu(f: Function, x: Reg) -> Reg:
    """x * (1 + erf(x / sqrt(2))) / 2, by erfc, which does not cancel for negative x."""
    return x * library("erfc")(f, x * -math.sqrt(0.5)) * 0.5


def gelu_tanh(f: Function, x: Reg) -> Reg:
    """x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))."""
    return x * sigmoid(f, (x + x * x * x * 0.044715) * (2 * math.sqrt(2 / math.pi)))
