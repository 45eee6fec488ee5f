# SPDX-License-Identifier: Apache-2.0
"""Positions along dims, also along those that only a run knows: the front of a table as long as they can be."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode
from tensorwright.ir.dims import Dim, Undecided, high, low
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.attention import triangle
from tensorwright.ops.elementwise import LessEqual, Where
from tensorwright.ops.shape import Reshape, Slice


def positions(b: Builder, n: OnnxNode, start: Dim, end: Dim, dtype: DType = DType.i64) -> Value:
    """The numbers from `start` to before `end`. Refuses symbolic dims without bounds, and such that may be negative."""
    if isinstance(start, int) and isinstance(end, int):
        n.limit_constant(end - start)
        return b.constant(np.arange(start, end, dtype=dtype.numpy))
    try:
        least, most = min(low(start), low(end)), high(end)
    except Undecided as error:
        n.refuse(f"it counts positions, but {error}", "give every input a shape or a range with shapes=")
    if least < 0:
        n.refuse(f"it counts from {start} to {end}, which may be negative")
    n.limit_constant(most)
    return b.add(Slice((start,), (end,), (0,), (1,)), b.constant(np.arange(most, dtype=dtype.numpy)))


def column(b: Builder, n: OnnxNode, start: Dim, end: Dim) -> Value:
    """The same as [end - start, 1]."""
    return b.add(Reshape((end - start, 1)), positions(b, n, start, end))


def causal_mask(b: Builder, n: OnnxNode, rows: Dim, columns: Dim, past: Dim, dtype: DType) -> Value:
    """What is added to scores [rows, columns], so that query i sees the keys up to past + i only: 0 or -inf."""
    if isinstance(rows, int) and isinstance(columns, int) and isinstance(past, int):
        return triangle(b, rows, columns, past, dtype)
    sees = b.add(LessEqual(), positions(b, n, 0, columns), column(b, n, past, past + rows))
    return b.add(Where(), sees, b.scalar(0, dtype), b.scalar(-np.inf, dtype))
