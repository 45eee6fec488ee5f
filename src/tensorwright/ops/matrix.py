# SPDX-License-Identifier: Apache-2.0
"""Functions of square matrices."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import float_dtype, required, same_dim


@op("determinant", compare=SUMMED)
class Determinant(Op):
    """Determinants of x[..., n, n], computed in f64 by elimination with row exchanges; that of a 0 x 0 matrix is 1."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        float_dtype(self, (x,))
        if x.rank < 2 or not same_dim(*x.shape[-2:]):
            raise ValueError(f"determinant needs square matrices, not {x}")
        return (x.with_shape(x.shape[:-2]),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        with np.errstate(all="ignore"):
            return (np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype),)
