# SPDX-License-Identifier: Apache-2.0
"""Rows of the op table: ops on bits, running products, determinants, boxes pooled by maxima, linear attention."""

from __future__ import annotations

from collections.abc import Iterator

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tests.suites.op_case import OpCase, Spec, case

SIGNED, UNSIGNED = (DType.i64, DType.i32, DType.i16, DType.i8), (DType.u64, DType.u32, DType.u16, DType.u8)


def bit_cases() -> Iterator[OpCase]:
    """Every integer type, with broadcasting; shifts by negative numbers and by more than there are bits."""
    for dtype in (*SIGNED, *UNSIGNED):
        kind = "index 100" if dtype in SIGNED else "lengths 200"
        x = Spec((3, 1, 37), kind, dtype)
        for op in (o.BitwiseAnd(), o.BitwiseOr(), o.BitwiseXor()):
            yield case(op, x, Spec((5, 37), kind, dtype))
        yield case(o.BitwiseNot(), x)
        for left in (True, False):
            yield case(o.BitShift(left), x, Spec((5, 1), "index 70" if dtype in SIGNED else "lengths 70", dtype))
    pairs = [
        (DType.f32, DType.i32, "special"),
        (DType.i32, DType.f32, "index 1000000"),
        (DType.f64, DType.u64, "special"),
        (DType.u64, DType.f64, "lengths 100"),
        (DType.u16, DType.f16, "lengths 30000"),
        (DType.i16, DType.bf16, "lengths 30000"),
        (DType.i8, DType.u8, "integers"),
        (DType.bool, DType.u8, "bool"),
    ]
    for source, to, kind in pairs:
        yield case(o.BitCast(to), Spec((3, 67), kind, source))


def matrix_cases() -> Iterator[OpCase]:
    """Determinants of matrices that need row exchanges, of none and of one element; singular ones."""
    yield case(o.Determinant(), (4, 3, 5, 5))
    yield case(o.Determinant(), (1, 1))
    yield case(o.Determinant(), (33, 33))
    yield case(o.Determinant(), Spec((7, 3, 3), "integers"))
    yield case(o.Determinant(), Spec((2, 6, 6), "bool"))
    yield case(o.Determinant(), Spec((3, 4, 4), "normal", DType.f64))


def running_cases() -> Iterator[OpCase]:
    """Running products in both directions."""
    for exclusive in (False, True):
        for reverse in (False, True):
            yield case(o.CumProd(1, exclusive, reverse), Spec((5, 9, 3), "nonzero"))
            yield case(o.CumProd(0, exclusive, reverse), Spec((30,), "integers", DType.i64))


def pooled_cases() -> Iterator[OpCase]:
    """Boxes that are inside, and others that end before they start or reach out of the image."""
    for scale in (1.0, 3.0, 0.3):
        op = o.MaxRoiPool(3, 2, scale)
        yield case(op, (3, 4, 9, 11), Spec((6, 4), "positive"), Spec((6,), "bool", DType.i64))


def attention_cases() -> Iterator[OpCase]:
    """Every update rule, with several queries for each key, one decay or rate for several elements, and a past."""
    b, t, h, g, k, v = 2, 3, 3, 2, 5, 19
    q, keys, values = (b, t, h, g, k), Spec((b, t, h, k), "unit"), (b, t, h, v)
    state, op = (b, h, k, v), o.LinearAttention(0.5)
    decay, rate = Spec((b, t, h, k), "positive"), Spec((b, t, h, 1), "unit")
    yield case(op, q, keys, values)
    yield case(op, q, keys, values, state)
    yield case(op, q, keys, values, None, decay, None)
    yield case(op, q, keys, values, state, None, rate)
    yield case(op, q, keys, values, state, Spec((b, t, h, 1), "positive"), rate)
    yield case(op, q, keys, values, None, decay, Spec((b, t, 1, 1), "unit"))
    one = ((1, 1, 1, 1, 16), Spec((1, 1, 1, 16), "unit"), (1, 1, 1, 64))
    yield case(op, *one, (1, 1, 16, 64), Spec((1, 1, 1, 16), "positive"), Spec((1, 1, 1, 1), "unit"))
