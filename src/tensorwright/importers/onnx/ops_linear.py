# SPDX-License-Identifier: Apache-2.0
"""ONNX matrix products and attention."""

from __future__ import annotations

import math

import numpy as np

from tensorwright.importers.onnx import narrow
from tensorwright.importers.onnx.attention import composed_attention, limits_or_shows_scores, padded_mask
from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.counting import causal_mask
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.attention import shared_heads
from tensorwright.ops.elementwise import Add, Equal, Mul, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Concat, Reshape, Transpose


@onnx_op("MatMul")
def matmul(b: Builder, n: OnnxNode) -> Result:
    """Matrix product as NumPy defines it."""
    return b.add(MatMul(), n.input(0), n.input(1))


@onnx_op("Gemm")
def gemm(b: Builder, n: OnnxNode) -> Result:
    """alpha * A' B' + beta * C, with C broadcast to the product."""
    left, right, addend = n.input(0), n.input(1), n.optional(2)
    for value in (left, right):
        if value.type.rank != 2:
            raise ValueError(f"its operands must be matrices, {value.name!r} is {value.type}")
    left = b.add(Transpose((1, 0)), left) if n.flag("transA") else left
    right = b.add(Transpose((1, 0)), right) if n.flag("transB") else right
    y = _scaled(b, b.add(MatMul(), left, right), n.attr("alpha", float, 1.0))
    beta = n.attr("beta", float, 1.0)
    if addend is None or beta == 0.0:
        return y
    result = b.add(Add(), y, _scaled(b, addend, beta))
    if result.type.rank != 2:
        raise ValueError(f"input C of type {addend.type} does not broadcast to the product {y.type}")
    return result


def _scaled(b: Builder, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else b.add(Mul(), x, b.scalar(factor, x.type.dtype))


@onnx_op("Attention", since=23)
def attention(b: Builder, n: OnnxNode) -> Result:
    """Scaled dot-product attention. Keys and values of a cache come before the given ones; both are outputs."""
    flat = n.input(0).type.rank == 3
    q = _heads(b, n, n.input(0), n.attr("q_num_heads", int, 0))
    k, v = (_heads(b, n, n.input(i), n.attr("kv_num_heads", int, 0)) for i in (1, 2))
    past: Dim = 0
    if n.optional(4) is not None or n.optional(5) is not None:
        past = n.input(4).type.shape[2]
        k, v = b.add(Concat(2), n.input(4), k), b.add(Concat(2), n.input(5), v)
    width = q.type.shape[-1]
    if not isinstance(width, int):
        n.refuse(f"its head size {width} is symbolic", "give every input a fixed shape with shapes=")
    scale = n.attr("scale", float, 1.0 / math.sqrt(max(width, 1)))
    rest = []
    if limits_or_shows_scores(n):
        y, scores = composed_attention(b, n, q, k, v, past, scale)
        rest = [scores]
    else:
        n.ignore("softmax_precision", "qk_matmul_output_mode", "softcap", "left_window_size", "right_window_size")
        y = _fused(b, n, q, k, v, past, scale)
    if flat:
        y = b.add(Transpose((0, 2, 1, 3)), y)
        y = b.add(Reshape((*y.type.shape[:2], y.type.shape[2] * y.type.shape[3])), y)
    return [y, k, v, *rest]


def _fused(b: Builder, n: OnnxNode, q: Value, k: Value, v: Value, past: Dim, scale: float) -> Value:
    """Attention as one op. Fewer key heads than query heads are repeated (grouped queries)."""
    k, v = (shared_heads(b, x, q) for x in (k, v))
    mask = _mask(b, n, q, k, past)
    y = narrow.attention(b, scale, q, k, v, mask)
    given = n.optional(3)
    if mask is not None and given is not None and given.type.dtype is DType.bool:
        highest = b.add(Reduce("max", (mask.type.rank - 1,), True), mask)  # a query that may attend to nothing gives 0
        y = b.add(Where(), b.add(Equal(), highest, b.scalar(-np.inf, highest.type.dtype)), b.scalar(0, y.type.dtype), y)
    return y


def _heads(b: Builder, n: OnnxNode, x: Value, count: int) -> Value:
    """[batch, heads, sequence, size] from that or from [batch, sequence, heads * size]."""
    if x.type.rank == 4:
        return x
    if x.type.rank != 3 or count < 1:
        raise ValueError(f"inputs must have rank 4, or rank 3 with q_num_heads and kv_num_heads; one is {x.type}")
    batch, sequence, width = x.type.shape
    return b.add(Transpose((0, 2, 1, 3)), b.add(Reshape((batch, sequence, count, width // count)), x))


def _mask(b: Builder, n: OnnxNode, q: Value, k: Value, past: Dim) -> Value | None:
    """The additive mask: the given one (false of a bool mask is -inf), plus the causal triangle behind the cache."""
    rows, columns = q.type.shape[2], k.type.shape[2]
    mask = padded_mask(b, n, q.type.dtype, columns)
    if not n.flag("is_causal"):
        return mask
    causal = causal_mask(b, n, rows, columns, past, q.type.dtype)
    return causal if mask is None else b.add(Add(), mask, causal)


OPS = [matmul, gemm, attention]
