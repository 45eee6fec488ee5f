# SPDX-License-Identifier: Apache-2.0
"""Rows of the op table: quantisation and its inverse. Types of less than a byte have tests of their own."""

from __future__ import annotations

from collections.abc import Iterator

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tests.suites.op_case import OpCase, Spec, case


def quantise_cases() -> Iterator[OpCase]:
    """Integers of 8 and 16 bits, per tensor and along an axis, with and without a zero point."""
    for dtype in (DType.u8, DType.i8, DType.u16, DType.i16):
        kind = "index 100" if dtype.is_signed else "lengths 200"
        for shape in ((3, 35), (1, 1), (2, 35, 1, 7), (0, 4)):
            parameter = (shape[1],) if len(shape) == 2 else (shape[1], 1, 1)
            for like in ((), parameter):
                scale, zero = Spec(like, "positive"), Spec(like, kind, dtype)
                yield case(o.Quantise(dtype), Spec(shape, "large"), scale, zero)
                yield case(o.Dequantise(), Spec(shape, kind, dtype), scale, zero)
        yield case(o.Quantise(dtype), Spec((1025,), "integers"), Spec((), "positive"))
        yield case(o.Dequantise(), Spec((1025,), kind, dtype), Spec((), "positive"))
    yield case(o.Dequantise(), Spec((3, 35), "index 100000", DType.i32), Spec((), "positive"))
