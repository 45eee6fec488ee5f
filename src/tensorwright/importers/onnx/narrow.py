# SPDX-License-Identifier: Apache-2.0
"""Softmax and attention; over short rows of half-width floats, by the steps that ONNX defines them by."""

from __future__ import annotations

import math

from tensorwright.importers.onnx.builder import Builder
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.attention import Attention
from tensorwright.ops.elementwise import Add, Div, Exp, Mul, Sub
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Reduce, Softmax, rounds_each_step
from tensorwright.ops.shape import Slice, Transpose


def softmax(b: Builder, x: Value, axis: int) -> Value:
    """Softmax along one axis."""
    if not rounds_each_step(x.type, axis):
        return b.add(Softmax(axis), x)
    powers = b.add(Exp(), b.add(Sub(), x, b.add(Reduce("max", (axis,), True), x)))
    return b.add(Div(), powers, row_sum(b, powers, axis))


def attention(b: Builder, scale: float, q: Value, k: Value, v: Value, mask: Value | None) -> Value:
    """softmax(scale * q k^T + mask) v. In the steps of ONNX, q and k have a square root of the scale each."""
    rank = k.type.rank
    if scale < 0 or not rounds_each_step(k.type, rank - 2):
        return b.add(Attention(scale), q, k, v, *(() if mask is None else (mask,)))
    root = b.scalar(math.sqrt(scale), q.type.dtype)
    keys = b.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), b.add(Mul(), k, root))
    scores = b.add(MatMul(), b.add(Mul(), q, root), keys)
    scores = scores if mask is None else b.add(Add(), scores, mask)
    return b.add(MatMul(), softmax(b, scores, scores.type.rank - 1), v)


def row_sum(b: Builder, x: Value, axis: int) -> Value:
    """The sum along an axis as NumPy has it in rows: that of f16 rounds once, that of bf16 after every term."""
    if x.type.dtype is DType.f16:
        return b.add(Reduce("sum", (axis,), True), x)
    length = x.type.shape[axis]
    if not isinstance(length, int):
        raise ValueError(f"the sum of {x.type} needs a known length")
    terms = [b.add(Slice((i,), (i + 1,), (axis,), (1,)), x) for i in range(length)]
    total = terms[0]
    for term in terms[1:]:
        total = b.add(Add(), total, term)
    return total
