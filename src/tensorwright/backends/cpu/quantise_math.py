# SPDX-License-Identifier: Apache-2.0
"""`Quantise` and `Dequantise` as LLVM instructions, in the order of roundings that their references have."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.backends.cpu.conversions import convert, rounded
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.ir.dtype import DType
from tensorwright.ops.quantise import Dequantise, Quantise, integer_range, largest_of


def quantise(f: Function, op: Quantise, args: Sequence[Reg], dtypes: Sequence[DType]) -> Reg:
    """x / scale (+ zero point) as `op.dtype`."""
    x, scale, *zero_point = args
    quotient, dtype = rounded(f, x / scale, dtypes[0]), _computed(dtypes[0])
    if not op.dtype.is_integer:
        limit = largest_of(op.dtype)
        real = quotient + convert(f, zero_point[0], op.dtype, dtype) if zero_point else quotient
        if op.saturate and limit is not None:
            real = f.minimum(f.maximum(real, -limit), limit)  # NaN stays
        return convert(f, real, dtype, op.dtype)
    low, high = (f.const(x.ty, bound) for bound in integer_range(op.dtype))
    offset = convert(f, zero_point[0], op.dtype, dtype) if zero_point else f.const(x.ty, 0)
    whole = f.intrinsic("roundeven", x.ty, quotient)
    whole = f.select(f.compare("uno", quotient, quotient), f.const(x.ty, 0), whole)
    whole = f.minimum(f.maximum(whole, low - offset), high - offset) + offset
    return convert(f, convert(f, whole, dtype, DType.i32), DType.i32, op.dtype)


def dequantise(f: Function, op: Dequantise, args: Sequence[Reg], dtypes: Sequence[DType]) -> Reg:
    """(x - zero point) * scale as `op.dtype`."""
    x, scale, *zero_point = args
    wide, dtype = DType.i32 if dtypes[0].is_integer else DType.f32, _computed(dtypes[1])
    difference = convert(f, x, dtypes[0], wide)
    if zero_point:
        difference = difference - convert(f, zero_point[0], dtypes[0], wide)
    product = convert(f, convert(f, difference, wide, DType.f32), DType.f32, dtype) * scale
    return convert(f, product, dtype, op.dtype)


def _computed(dtype: DType) -> DType:
    """The type of a float's register."""
    return DType.f64 if dtype is DType.f64 else DType.f32
