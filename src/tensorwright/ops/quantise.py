# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops between real numbers and their quantised form: integers of up to 16 bits, and floats of up to 8.

Scales and zero points broadcast as NumPy does; an importer gives them the shape that means per tensor, axis or block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, float_dtype, optional, required, widen
from tensorwright.ops.elementwise import Pointwise

_LARGEST = {DType.f8e4m3fn: 448.0, DType.f8e5m2: 57344.0, DType.f8e4m3fnuz: 240.0, DType.f8e5m2fnuz: 57344.0}


def integer_range(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest number of an integer type."""
    bits = int(dtype.value[1:])
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.is_signed else (0, (1 << bits) - 1)


def largest_of(dtype: DType) -> float | None:
    """The largest finite number of an 8-bit float, to which ONNX saturates; None for a type that has no infinity and
    no NaN to overflow to, and for wider ones."""
    return _LARGEST.get(dtype)


@op("quantise", compare=EXACT)
class Quantise(Pointwise):
    """x / scale as `dtype`, for x and scale of one float type, in which the quotient is rounded.

    Integers: the nearest one (halves to the even one) plus the zero point, limited to the range; NaN gives the zero
    point. Floats: plus the zero point, then rounded; beyond the largest number they become it, or where `saturate` is
    off and the type has them NaN or infinity. The optional zero point has the type of the result.
    """

    dtype: DType = DType.u8
    saturate: bool = True

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, scale = required(self, inputs, 2, 1)
        zero_point = optional(inputs, 2)
        float_dtype(self, (x, scale))
        if self.dtype.size_bytes > 1 + self.dtype.is_integer or not (self.dtype.is_integer or self.dtype.is_float):
            raise ValueError(f"{self.kind} cannot make {self.dtype}")
        if zero_point is not None and zero_point.dtype is not self.dtype:
            raise ValueError(f"{self.kind} makes {self.dtype} and cannot add a zero point of {zero_point.dtype}")
        shapes = [t.shape for t in (x, scale, zero_point) if t is not None]
        return (TensorType(self.dtype, broadcast_shapes(self, *shapes)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, scale = required(self, inputs, 2, 1)
        zero_point = optional(inputs, 2)
        with np.errstate(all="ignore"):
            quotient = (widen(x) / widen(scale)).astype(x.dtype)
            real: Any = widen(np.asarray(quotient))
            offset = np.zeros((), real.dtype) if zero_point is None else zero_point.astype(real.dtype)
            if self.dtype.is_integer:
                low, high = integer_range(self.dtype)
                whole = np.where(np.isnan(real), 0, np.clip(np.rint(real), low - offset, high - offset))
                return (np.asarray((whole + offset).astype(np.int32).astype(self.dtype.numpy)),)
            limit = largest_of(self.dtype)
            real = real + offset
            real = np.clip(real, -limit, limit) if self.saturate and limit is not None else real
            return (np.asarray(real).astype(self.dtype.numpy),)


@op("dequantise", compare=EXACT)
class Dequantise(Pointwise):
    """(x - zero point) * scale as the float `dtype`. The difference is exact for 16 bits, wraps for i32, and is one of
    f32 for floats; the product is one of f32 (f64 for a scale of f64) and rounded once to `dtype`."""

    dtype: DType = DType.f32

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, scale = required(self, inputs, 2, 1)
        zero_point = optional(inputs, 2)
        if not scale.dtype.is_float or not self.dtype.is_float or x.dtype is DType.bool or x.dtype.size_bytes > 4:
            raise ValueError(f"{self.kind} cannot make {self.dtype} of {x.dtype} with a scale of {scale.dtype}")
        if zero_point is not None and zero_point.dtype is not x.dtype:
            raise ValueError(f"{self.kind} cannot take a zero point of {zero_point.dtype} from {x.dtype}")
        shapes = [t.shape for t in (x, scale, zero_point) if t is not None]
        return (TensorType(self.dtype, broadcast_shapes(self, *shapes)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, scale = required(self, inputs, 2, 1)
        zero_point = optional(inputs, 2)
        wide = np.int32 if DType.of(x.dtype).is_integer else np.float32
        with np.errstate(all="ignore"):
            difference = x.astype(wide) if zero_point is None else x.astype(wide) - zero_point.astype(wide)
            return (np.asarray(difference.astype(np.float32) * widen(scale)).astype(self.dtype.numpy),)
