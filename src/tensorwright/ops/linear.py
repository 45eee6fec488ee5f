# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, required, same_dim, same_dtype, widen


@op("mat_mul", compare=SUMMED)
class MatMul(Op):
    """Matrix product as NumPy's `matmul`: the last two dims multiply, the others broadcast, and a 1-D operand
    counts as a row (left) or a column (right) that the result does not keep."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        a, b = required(self, inputs, 2)
        dtype = same_dtype(self, (a, b))
        if a.rank == 0 or b.rank == 0:
            raise ValueError(f"mat_mul needs operands of at least one dim, not {a} and {b}")
        left = a.shape if a.rank > 1 else (1, *a.shape)
        right = b.shape if b.rank > 1 else (*b.shape, 1)
        if not same_dim(left[-1], right[-2]):
            raise ValueError(f"mat_mul cannot multiply {a} by {b}: inner dims {left[-1]} and {right[-2]} differ")
        rows = left[-2:-1] if a.rank > 1 else ()
        columns = right[-1:] if b.rank > 1 else ()
        return (TensorType(dtype, (*broadcast_shapes(self, left[:-2], right[:-2]), *rows, *columns)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        a, b = required(self, inputs, 2)
        with np.errstate(all="ignore"):
            return (np.asarray(np.matmul(widen(a), widen(b))).astype(a.dtype, copy=False),)
