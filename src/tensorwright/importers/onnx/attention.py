# SPDX-License-Identifier: Apache-2.0
"""ONNX's Attention in steps: with a window, padded caches, capped scores, or the scores as an output."""

from __future__ import annotations

import math

import numpy as np

from tensorwright.importers.onnx import narrow
from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.counting import column, positions
from tensorwright.importers.onnx.node import OnnxNode
from tensorwright.importers.onnx.tensors import dtype_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops.elementwise import (
    Add,
    And,
    Cast,
    Div,
    Equal,
    Exp,
    Greater,
    LessEqual,
    Mul,
    Sub,
    Tanh,
    Where,
)
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Reduce, rounds_each_step
from tensorwright.ops.shape import Pad, Reshape, Transpose

_RAW, _CAPPED, _BIASED, _PROBABLE = range(4)  # qk_matmul_output_mode


def limits_or_shows_scores(n: OnnxNode) -> bool:
    """Whether the node asks for more than softmax(scale * q k^T + mask) v."""
    windowed = any(n.attr(name, int, -1) >= 0 for name in ("left_window_size", "right_window_size"))
    return windowed or n.attr("softcap", float, 0.0) != 0 or n.optional(6) is not None or n.output_used(3)


def composed_attention(
    b: Builder, n: OnnxNode, q: Value, k: Value, v: Value, past: Dim, scale: float
) -> tuple[Value, Value]:
    """softmax(cap(scale * q k^T) + bias) v for [batch, heads, sequence, size], of which the first `past` keys are those
    of a cache, and the scores at the stage that `qk_matmul_output_mode` names.

    A query that may attend to nothing gives 0. Fewer key heads than query heads are shared (grouped queries).
    """
    cap, mode = n.attr("softcap", float, 0.0), n.attr("qk_matmul_output_mode", int, _RAW)
    wide = dtype_of(n.dtype_attr("softmax_precision", 1)) if n.has("softmax_precision") else q.type.dtype
    if cap < 0 or mode not in (_RAW, _CAPPED, _BIASED, _PROBABLE) or wide is None or not wide.is_float:
        raise ValueError(f"softcap {cap}, qk_matmul_output_mode {mode} or its softmax_precision is not defined")
    rows, columns = q.type.shape[2], k.type.shape[2]
    groups = _groups(q, k)
    # each head of keys stands beside its queries, all queries of a group below each other
    root = b.scalar(math.sqrt(abs(scale)), q.type.dtype)
    signed = b.scalar(math.copysign(math.sqrt(abs(scale)), scale), q.type.dtype)
    keys = b.add(Transpose((0, 1, 3, 2)), b.add(Mul(), k, root))
    raw = _apart(b, groups, b.add(MatMul(), _together(b, groups, b.add(Mul(), q, signed)), keys), rows)
    capped = raw
    if cap:
        limit = b.scalar(cap, q.type.dtype)
        capped = b.add(Mul(), b.add(Tanh(), b.add(Div(), raw, limit)), limit)
    bias = _bias(b, n, q.type.dtype, past, rows, columns)
    biased = capped if bias is None else b.add(Add(), capped, bias)
    probable = _softmax(b, biased if wide is q.type.dtype else b.add(Cast(wide), biased), bias)
    probable = probable if wide is q.type.dtype else b.add(Cast(q.type.dtype), probable)
    y = _apart(b, groups, b.add(MatMul(), _together(b, groups, probable), v), rows)
    return y, (raw, capped, biased, probable)[mode]


def _groups(q: Value, k: Value) -> int:
    heads, kept = q.type.shape[1], k.type.shape[1]
    if not isinstance(heads, int) or not isinstance(kept, int) or kept < 1 or heads % kept:
        raise ValueError(f"{heads} query heads cannot share {kept} key heads")
    return heads // kept


def _together(b: Builder, groups: int, x: Value) -> Value:
    """The rows of heads that share their keys, below each other."""
    batch, heads, rows, columns = x.type.shape
    return x if groups == 1 else b.add(Reshape((batch, heads // groups, groups * rows, columns)), x)


def _apart(b: Builder, groups: int, x: Value, rows: Dim) -> Value:
    """The inverse of `_together`."""
    batch, heads, _, columns = x.type.shape
    return x if groups == 1 else b.add(Reshape((batch, heads * groups, rows, columns)), x)


def _bias(b: Builder, n: OnnxNode, dtype: DType, past: Dim, rows: Dim, columns: Dim) -> Value | None:
    """What is added to the scores: the mask, and -inf where the causal triangle, the window or padding forbid it."""
    mask = padded_mask(b, n, dtype, columns)
    allowed = _allowed(b, n, past, rows, columns)
    if allowed is None:
        return mask
    forbidden = b.add(Where(), allowed, b.scalar(0, dtype), b.scalar(-np.inf, dtype))
    return forbidden if mask is None else b.add(Add(), mask, forbidden)


def padded_mask(b: Builder, n: OnnxNode, dtype: DType, columns: Dim) -> Value | None:
    """The given mask as numbers; keys behind its end may not be attended to."""
    mask = n.optional(3)
    if mask is None:
        return None
    if mask.type.dtype is DType.bool:
        mask = b.add(Where(), mask, b.scalar(0, dtype), b.scalar(-np.inf, dtype))
    width, rank = mask.type.shape[-1], mask.type.rank
    if isinstance(width, int) and isinstance(columns, int) and 1 < width < columns:
        mask = b.add(Pad((0,) * (2 * rank - 1) + (columns - width,), "constant", -math.inf), mask)
    return mask


def _allowed(b: Builder, n: OnnxNode, past: Dim, rows: Dim, columns: Dim) -> Value | None:
    """Which keys [..., rows, columns] a query may attend to. Query i is at position i behind the cache, or behind what
    `nonpad_kv_seqlen` says of each batch entry that there is before the queries."""
    left, right = n.attr("left_window_size", int, -1), n.attr("right_window_size", int, -1)
    valid = n.optional(6)
    keys, position = positions(b, n, 0, columns), column(b, n, past, past + rows)
    ends = None
    if valid is not None:
        ends = b.add(Reshape((valid.type.shape[0], 1, 1, 1)), valid)
        position = b.add(Add(), b.add(Sub(), ends, positions(b, n, rows, rows + 1)), position)
    rules: list[tuple[Op, Value, Value]] = []
    if n.flag("is_causal"):
        rules.append((LessEqual(), keys, position))
    if left >= 0:
        rules.append((LessEqual(), b.add(Sub(), position, b.scalar(left, DType.i64)), keys))
    if right >= 0:
        rules.append((LessEqual(), keys, b.add(Add(), position, b.scalar(right, DType.i64))))
    if ends is not None:
        rules.append((Greater(), ends, keys))
    allowed: Value | None = None
    for op, x, y in rules:
        holds = b.add(op, x, y)
        allowed = holds if allowed is None else b.add(And(), allowed, holds)
    return allowed


def _softmax(b: Builder, x: Value, bias: Value | None) -> Value:
    """Along the last axis; 0 in rows that the bias forbids altogether."""
    axis, dtype = x.type.rank - 1, x.type.dtype
    zero, lowest = b.scalar(0, dtype), b.scalar(-np.inf, dtype)
    highest = b.add(Reduce("max", (axis,), True), x)
    highest = b.add(Where(), b.add(Equal(), highest, lowest), zero, highest)
    powers = b.add(Exp(), b.add(Sub(), x, highest))
    is_narrow = rounds_each_step(x.type, axis)
    total = narrow.row_sum(b, powers, axis) if is_narrow else b.add(Reduce("sum", (axis,), True), powers)
    y = b.add(Div(), powers, b.add(Where(), b.add(Equal(), total, zero), b.scalar(1, dtype), total))
    if bias is None:
        return y
    most = b.add(Reduce("max", (bias.type.rank - 1,), True), bias)
    return b.add(Where(), b.add(Equal(), most, b.scalar(-np.inf, most.type.dtype)), zero, y)
