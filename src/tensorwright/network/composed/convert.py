# SPDX-License-Identifier: Apache-2.0
"""Conversion where it is needed."""

from __future__ import annotations

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.elementwise import Cast


def as_type(b: NetworkBuilder, x: Value, dtype: DType) -> Value:
    """x as dtype."""
    return x if x.type.dtype is dtype else b.add(Cast(dtype), x)


def in_f32(b: NetworkBuilder, op: Op, x: Value, points: Value, *rest: Value) -> Value:
    """The op on f32 images and points: halves are widened, and the result rounded to x's type."""
    wide = [v if v.type.dtype in (DType.f32, DType.f64) else b.add(Cast(DType.f32), v) for v in (x, points)]
    return as_type(b, b.add(op, *wide, *rest), x.type.dtype)
