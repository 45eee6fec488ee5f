# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops on the bits of elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import required
from tensorwright.ops.elementwise import Binary, Unary


@op("bitwise_and", compare=EXACT)
class BitwiseAnd(Binary):
    """The bits that both integers have."""

    takes = "integer"
    function = np.bitwise_and


@op("bitwise_or", compare=EXACT)
class BitwiseOr(Binary):
    """The bits that either integer has."""

    takes = "integer"
    function = np.bitwise_or


@op("bitwise_xor", compare=EXACT)
class BitwiseXor(Binary):
    """The bits that one of two integers has."""

    takes = "integer"
    function = np.bitwise_xor


@op("bitwise_not", compare=EXACT)
class BitwiseNot(Unary):
    """The bits that an integer has not."""

    takes = "integer"

    def compute(self, x: Array) -> Any:
        return np.bitwise_not(x)


@op("bit_shift", compare=EXACT)
class BitShift(Binary):
    """Integer a moved by b bits, to the `left` or to the right, where signed ones keep their sign.

    By a negative number of bits, or by all of them and more: 0, or -1 for a negative a to the right (ONNX, opset 28).
    """

    takes = "integer"
    left: bool

    def compute(self, a: Array, b: Array) -> Any:
        bits = 8 * a.dtype.itemsize
        inside = (b >= 0) & (b < bits)
        amount = np.where(inside, b, 0).astype(b.dtype)
        if self.left:
            return np.where(inside, np.left_shift(a, amount), 0)
        if a.dtype.kind == "u":
            return np.where(inside, np.right_shift(a, amount), 0)
        return np.right_shift(a, np.where(inside, b, bits - 1).astype(b.dtype))


@op("bit_cast", compare=EXACT)
class BitCast(Unary):
    """The same bits as another element type of the same width. Bools are bytes of 0 or 1; none is made of others.

    Kernels keep all bits but one: a signalling NaN of f16 or bf16 may become the quiet NaN of the same payload.
    """

    takes = "any"
    dtype: DType

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        sizes = [np.dtype(d.numpy).itemsize for d in (x.dtype, self.dtype)]
        if sizes[0] != sizes[1] or _bits(x.dtype) != _bits(self.dtype):
            raise ValueError(f"bit_cast cannot read {x.dtype} as {self.dtype}, which has another width")
        if self.dtype is DType.bool is not x.dtype:
            raise ValueError(f"bit_cast cannot read {x.dtype} as bool, which has no meaning for bytes above 1")
        return (x.with_dtype(self.dtype),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.ascontiguousarray(x).view(self.dtype.numpy).reshape(x.shape),)


def _bits(dtype: DType) -> int:
    """The bits that an element has in ONNX: fewer than its bytes hold for the smallest types."""
    digits = dtype.value.lstrip("biuf").partition("e")[0]
    return int(digits) if digits.isdigit() else 8
