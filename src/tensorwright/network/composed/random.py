# SPDX-License-Identifier: Apache-2.0
"""Random numbers: bits of a counter-based generator (`ops.random`) and arithmetic on them."""

from __future__ import annotations

import math
from typing import NamedTuple

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.bitwise import BitShift
from tensorwright.ops.elementwise import Add, Cast, Cos, Log, Mul, Sqrt
from tensorwright.ops.random import RandomBits
from tensorwright.ops.shape import Reshape, Slice

DIGITS = {DType.f64: 53, DType.f32: 24, DType.f16: 11, DType.bf16: 8}
"""Binary digits of a fraction in [0, 1) that the type holds exactly."""


class _Draw(NamedTuple):
    """Uniform fractions from [0, 1): whole numbers, and the scale that makes fractions of them."""

    whole: Value
    scale: Value


def _draw(b: NetworkBuilder, key: Value, shape: tuple[Dim, ...], dtype: DType) -> _Draw:
    """Fractions that `dtype` holds exactly, as f64 for f64 and else as f32."""
    wide = DType.f64 if dtype is DType.f64 else DType.f32
    bits = b.add(RandomBits(shape, wide is DType.f64), key)
    digits = DIGITS[dtype]
    kept = b.add(BitShift(left=False), bits, b.scalar(8 * bits.type.dtype.size_bytes - digits, bits.type.dtype))
    return _Draw(b.add(Cast(wide), kept), b.scalar(2.0**-digits, wide))


def uniform(b: NetworkBuilder, key: Value, shape: tuple[Dim, ...], dtype: DType) -> Value:
    """Fractions from [0, 1) that `dtype` holds exactly, as f64 for f64 and else as f32."""
    draw = _draw(b, key, shape, dtype)
    return b.add(Mul(), draw.whole, draw.scale)


def normal(b: NetworkBuilder, key: Value, shape: tuple[Dim, ...], dtype: DType) -> Value:
    """Standard normal numbers (Box and Muller, 1958), as f64 for f64 and else as f32."""
    wide = DType.f64 if dtype is DType.f64 else DType.f32
    draw = _draw(b, key, (2, *shape), wide)
    first, second = (b.add(Reshape(shape), b.add(Slice((i,), (i + 1,), (0,), (1,)), draw.whole)) for i in (0, 1))
    positive = b.add(Mul(), b.add(Add(), first, b.scalar(1, wide)), draw.scale)  # from (0, 1]: it has a logarithm
    radius = b.add(Sqrt(), b.add(Mul(), b.add(Log(), positive), b.scalar(-2, wide)))
    angle = b.add(Mul(), second, b.scalar(2 * math.pi * float(2.0 ** -DIGITS[wide]), wide))
    return b.add(Mul(), radius, b.add(Cos(), angle))
