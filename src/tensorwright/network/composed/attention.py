# SPDX-License-Identifier: Apache-2.0
"""What attention is made of besides its op."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, limit_constant
from tensorwright.ops.shape import Expand, Reshape


def triangle(b: NetworkBuilder, rows: int, columns: int, past: int, dtype: DType) -> Value:
    """What is added to scores [rows, columns], so that query i sees the keys up to past + i only: 0 or -inf."""
    limit_constant(rows * columns)
    return b.constant(np.triu(np.full((rows, columns), -np.inf, np.float32), 1 + past).astype(dtype.numpy))


def shared_heads(b: NetworkBuilder, x: Value, q: Value) -> Value:
    """Every head of x[batch, heads, sequence, size] as often as queries share it."""
    batch, heads, sequence, width = x.type.shape
    wanted = q.type.shape[1]
    if heads == wanted:
        return x
    if not isinstance(heads, int) or not isinstance(wanted, int) or heads < 1 or wanted % heads:
        raise ValueError(f"{wanted} query heads cannot share {heads} key heads")
    x = b.add(Reshape((batch, heads, 1, sequence, width)), x)
    x = b.add(Expand((batch, heads, wanted // heads, sequence, width)), x)
    return b.add(Reshape((batch, wanted, sequence, width)), x)
