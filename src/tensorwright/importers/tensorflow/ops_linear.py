# SPDX-License-Identifier: Apache-2.0
"""TensorFlow matrix products."""

from __future__ import annotations

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.ir.graph import Value
from tensorwright.network.composed import einsum as composed
from tensorwright.ops.linear import MatMul
from tensorwright.ops.matrix import Determinant
from tensorwright.ops.shape import Transpose


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


@tf_op("MatrixDeterminant")
def determinant(b: Builder, n: OpNode) -> Result:
    """Of each matrix."""
    return b.add(Determinant(), n.input())


OPS: list[TfOp] = [*mat_mul, *einsum, *determinant]
