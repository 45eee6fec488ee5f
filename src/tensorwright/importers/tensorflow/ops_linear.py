# SPDX-License-Identifier: Apache-2.0
"""TensorFlow matrix products."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.ops_shape import counted
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed import einsum as composed
from tensorwright.ops.elementwise import Add, Greater, Or, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.matrix import Determinant
from tensorwright.ops.shape import Reshape, Transpose


def _turned(b: Builder, x: Value, turn: bool) -> Value:
    """x, or its matrices transposed."""
    rank = x.type.rank
    if rank < 2:
        raise ValueError(f"it multiplies matrices, not {x.type}")
    return b.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), x) if turn else x


@tf_op("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "SparseMatMul")
def mat_mul(b: Builder, n: OpNode) -> Result:
    """Products of matrices, each possibly transposed."""
    first, second = ("transpose_a", "transpose_b") if "Batch" not in n.op else ("adj_x", "adj_y")
    return b.add(MatMul(), _turned(b, n.input(0), n.flag(first)), _turned(b, n.input(1), n.flag(second)))


@tf_op("Einsum")
def einsum(b: Builder, n: OpNode) -> Result:
    """The sum over all labels that the result does not have."""
    return composed.einsum(b, n.text("equation", ""), list(n.inputs))


@tf_op("MatrixBandPart")
def band_part(b: Builder, n: OpNode) -> Result:
    """Zeros outside of so many diagonals below and above the main one; negative numbers keep all."""
    x, (below, above) = n.input(0), (n.number(i, "it is the width of the band") for i in (1, 2))
    if x.type.rank < 2:
        raise ValueError(f"it takes bands of matrices, not of {x.type}")
    rows, columns = (counted(b, d) for d in x.type.shape[-2:])
    rows = b.add(Reshape((x.type.shape[-2], 1)), rows)
    outside = b.constant(np.zeros((1, 1), np.bool_))
    for width, high, low in ((below, rows, columns), (above, columns, rows)):
        if width >= 0:
            limit = b.add(Add(), low, b.scalar(width, DType.i64))
            outside = b.add(Or(), outside, b.add(Greater(), high, limit))
    return b.add(Where(), outside, b.scalar(0, x.type.dtype), x)


@tf_op("MatrixDeterminant")
def determinant(b: Builder, n: OpNode) -> Result:
    """Of each matrix."""
    return b.add(Determinant(), n.input())


OPS: list[TfOp] = [*mat_mul, *einsum, *band_part, *determinant]
