# SPDX-License-Identifier: Apache-2.0
"""Operators of the domain com.microsoft, which ONNX Runtime's transformer exporter and optimiser write."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.counting import causal_mask, positions
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.importers.onnx.ops_conv import convolved
from tensorwright.importers.onnx.ops_shape import filled
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ops import activation as act
from tensorwright.ops import elementwise as ew
from tensorwright.ops.attention import Attention
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import LayerNorm
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Concat, Reshape, Slice, Transpose


def _microsoft(name: str) -> Callable[[Callable[[Builder, OnnxNode], Result]], OnnxOp]:
    return onnx_op(f"com.microsoft.{name}", since=1)


# -- products and activations -----------------------------------------------------------------------
@_microsoft("FusedMatMul")
def fused_matmul(b: Builder, n: OnnxNode) -> Result:
    """alpha * A' B', where either may have its last two axes swapped, or its batch axes moved before the last one."""
    a, w = (_turned(b, n.input(i), n.flag(f"trans{x}"), n.flag(f"transBatch{x}")) for i, x in enumerate("AB"))
    y, alpha = b.add(MatMul(), a, w), n.attr("alpha", float, 1.0)
    return y if alpha == 1.0 else b.add(ew.Mul(), y, b.scalar(alpha, y.type.dtype))


def _turned(b: Builder, x: Value, matrix: bool, batch: bool) -> Value:
    """`batch`: the first matrix axis is in front of the batch axes."""
    order = list(range(x.type.rank))
    if batch and len(order) > 2:
        order = [*order[1:-1], order[0], order[-1]]
    if matrix and len(order) > 1:
        order[-2:] = order[:-3:-1]
    return x if order == sorted(order) else b.add(Transpose(tuple(order)), x)


@_microsoft("Gelu")
def gelu(b: Builder, n: OnnxNode) -> Result:
    """GELU by erf."""
    return b.add(act.Gelu(), n.input(0))


@_microsoft("BiasGelu")
def bias_gelu(b: Builder, n: OnnxNode) -> Result:
    """GELU by erf, of a sum."""
    return b.add(act.Gelu(), b.add(ew.Add(), n.input(0), n.input(1)))


@_microsoft("FastGelu")
def fast_gelu(b: Builder, n: OnnxNode) -> Result:
    """GELU by tanh, of the input plus an optional bias."""
    x, bias = n.input(0), n.optional(1)
    return b.add(act.Gelu(True), x if bias is None else b.add(ew.Add(), x, bias))


@_microsoft("QuickGelu")
def quick_gelu(b: Builder, n: OnnxNode) -> Result:
    """x * sigmoid(alpha * x)."""
    x = n.input(0)
    alpha = b.scalar(n.attr("alpha", float, 1.702), x.type.dtype)
    return b.add(ew.Mul(), x, b.add(act.Sigmoid(), b.add(ew.Mul(), x, alpha)))


@_microsoft("FusedConv")
def fused_conv(b: Builder, n: OnnxNode) -> Result:
    """Convolution, plus an optional tensor, then an activation."""
    y, kind, parameters = convolved(b, n), n.attr("activation", str, ""), n.floats("activation_params") or ()
    addend = n.optional(3)
    y = y if addend is None else b.add(ew.Add(), y, addend)
    makers: dict[str, Callable[..., Op]] = {
        "Relu": act.Relu,
        "Tanh": ew.Tanh,
        "Sigmoid": act.Sigmoid,
        "LeakyRelu": act.LeakyRelu,
        "Clip": act.Clip,
        "HardSigmoid": act.HardSigmoid,
    }
    if not kind:
        return y
    if kind not in makers:
        n.refuse(f"its activation {kind!r} is not known")
    return b.add(makers[kind](*parameters), y)


# -- normalisations -----------------------------------------------------------------------------------
@_microsoft("SkipLayerNormalization")
def skip_layer_norm(b: Builder, n: OnnxNode) -> Result:
    """Layer norm of input + skip + bias; the fourth output is that sum."""
    x, beta = _skipped(b, n, 4), n.optional(3)
    epsilon, axis = n.attr("epsilon", float, 1e-12), x.type.rank - 1
    y = b.add(LayerNorm(axis, epsilon), x, n.input(2), *(() if beta is None else (beta,)))
    return _with_sum(n, y, x)


@_microsoft("SkipSimplifiedLayerNormalization")
def skip_rms_norm(b: Builder, n: OnnxNode) -> Result:
    """RMS norm of input + skip + bias; the fourth output is that sum."""
    x = _skipped(b, n, 3)
    y, _ = _rms(b, x, n.input(2), (x.type.rank - 1,), n.attr("epsilon", float, 1e-12))
    return _with_sum(n, y, x)


def _skipped(b: Builder, n: OnnxNode, bias_index: int) -> Value:
    x, bias = b.add(ew.Add(), n.input(0), n.input(1)), n.optional(bias_index)
    return x if bias is None else b.add(ew.Add(), x, bias)


def _with_sum(n: OnnxNode, y: Value, total: Value) -> Result:
    if not n.output_used(3):
        return y
    if n.output_used(1) or n.output_used(2):
        n.refuse("its mean and deviation are read", "export the model for inference")
    return y, total, total, total  # nobody reads the two in between


@onnx_op("SimplifiedLayerNormalization")
def simplified_layer_norm(b: Builder, n: OnnxNode) -> Result:
    """RMS norm over the axes from `axis` on; ONNX Runtime keeps it in the standard domain."""
    n.ignore("stash_type")
    x = n.input(0)
    axes = tuple(range(n.axis("axis", -1, x.type.rank), x.type.rank))
    return _rms(b, x, n.input(1), axes, n.attr("epsilon", float, 1e-5))


def _rms(b: Builder, x: Value, scale: Value, axes: tuple[int, ...], epsilon: float) -> tuple[Value, Value]:
    """The result, and 1 / root mean square."""
    square = b.add(Reduce("mean", axes, True), b.add(ew.Mul(), x, x))
    inverse = b.add(ew.Reciprocal(), b.add(ew.Sqrt(), b.add(ew.Add(), square, b.scalar(epsilon, x.type.dtype))))
    return b.add(ew.Mul(), b.add(ew.Mul(), x, inverse), scale), inverse


@_microsoft("EmbedLayerNormalization")
def embed_layer_norm(b: Builder, n: OnnxNode) -> Result:
    """Layer norm of word, position and segment embeddings; then the count of unmasked words, then the sum itself."""
    ids, mask, positions = n.input(0), n.optional(7), n.optional(8)
    n.ignore("mask_index_type")
    total = b.add(Gather(0), n.input(2), ids)
    if positions is None:
        length = ids.type.shape[1]
        total = b.add(ew.Add(), total, b.add(Slice((0,), (length,), (0,), (1,)), n.input(3)))
    else:
        total = b.add(ew.Add(), total, b.add(Gather(0), n.input(3), positions))
    if n.optional(1) is not None and n.optional(4) is not None:
        total = b.add(ew.Add(), total, b.add(Gather(0), n.input(4), n.input(1)))
    y = b.add(LayerNorm(2, n.attr("epsilon", float, 1e-12)), total, n.input(5), n.input(6))
    if not n.output_used(1) and not n.output_used(2):
        return y
    if mask is None:
        return y, filled(b, np.zeros((), np.int32), ids.type.shape[:1]), total
    return y, b.add(Reduce("sum", (1,), False), mask), total


# -- attention ----------------------------------------------------------------------------------------
@_microsoft("Attention")
def attention(b: Builder, n: OnnxNode) -> Result:
    """Projections to queries, keys and values by one matrix, then attention by heads."""
    if any(v is not None for v in (n.optional(4), n.optional(6))) or n.output_used(1):
        n.refuse("it keeps past keys and values", "export the model without a key/value cache")
    if n.flag("do_rotary"):
        n.refuse("it rotates queries and keys")
    n.ignore("past_present_share_buffer", "rotary_embedding_dim")
    projected = b.add(MatMul(), n.input(0), n.input(1))
    bias, width = n.optional(2), projected.type.shape[-1]
    if bias is not None:
        projected = b.add(ew.Add(), projected, bias)
    if not isinstance(width, int) or projected.type.rank != 3:
        raise ValueError(f"its projection is {projected.type}")
    sizes = n.ints("qkv_hidden_sizes") or (width // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != width:
        raise ValueError(f"the hidden sizes {list(sizes)} do not make up {width}")
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    parts = [b.add(Slice((end - size,), (end,), (2,), (1,)), projected) for size, end in zip(sizes, ends, strict=True)]
    return _by_heads(b, n, parts, n.optional(3), n.optional(5))


@_microsoft("MultiHeadAttention")
def multi_head_attention(b: Builder, n: OnnxNode) -> Result:
    """Attention by heads, of queries, keys and values that are already projected."""
    if any(v is not None for v in n.inputs[6:]) or n.output_used(1) or n.output_used(2):
        n.refuse("it keeps past keys and values", "export the model without a key/value cache")
    if n.optional(1) is None or n.optional(2) is None or n.input(0).type.rank != 3:
        n.refuse("its queries, keys and values are packed")
    parts, bias = [n.input(i) for i in range(3)], n.optional(3)
    if bias is not None:
        start = 0
        for i, part in enumerate(parts):
            width = part.type.shape[-1]
            if part.type.rank != 3 or not isinstance(width, int):
                n.refuse("it adds a bias to keys that are already split into heads")
            parts[i] = b.add(ew.Add(), part, b.add(Slice((start,), (start + width,), (0,), (1,)), bias))
            start += width
    return _by_heads(b, n, parts, n.optional(4), n.optional(5))


def _by_heads(b: Builder, n: OnnxNode, parts: list[Value], mask: Value | None, added: Value | None) -> Value:
    """[batch, sequence, heads * size] from queries, keys and values of that form (keys and values may be by heads)."""
    heads = n.attr("num_heads", int)
    if heads < 1:
        raise ValueError(f"it has {heads} heads")
    q, k, v = (_split(b, part, heads) for part in parts)
    size = q.type.shape[-1]
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"its queries are {parts[0].type} for {heads} heads")
    scale = n.attr("scale", float, 0.0) or 1.0 / math.sqrt(size)  # 0 means the default, too
    masks = [m for m in (_padding(b, n, mask, q, k), added, _causal(b, n, q, k)) if m is not None]
    total = masks[0] if masks else None
    for other in masks[1:]:
        total = b.add(ew.Add(), total, other)
    y = b.add(Transpose((0, 2, 1, 3)), b.add(Attention(scale), q, k, v, *(() if total is None else (total,))))
    return b.add(Reshape((*y.type.shape[:2], y.type.shape[2] * y.type.shape[3])), y)


def _split(b: Builder, x: Value, heads: int) -> Value:
    if x.type.rank == 4:
        return x
    batch, sequence, width = x.type.shape
    return b.add(Transpose((0, 2, 1, 3)), b.add(Reshape((batch, sequence, heads, width // heads)), x))


def _padding(b: Builder, n: OnnxNode, mask: Value | None, q: Value, k: Value) -> Value | None:
    """An additive mask of [batch, 1, 1 or queries, keys] from one of flags (2-D, 3-D) or of lengths (1-D)."""
    fill = n.attr("mask_filter_value", float, -10000.0)
    if mask is None:
        return None
    shape, (batch, _, rows, _), keys = mask.type.shape, q.type.shape, k.type.shape[2]
    if shape == (batch, keys):
        kept = b.add(Reshape((batch, 1, 1, keys)), mask)
    elif shape == (batch, rows, keys):
        kept = b.add(Reshape((batch, 1, rows, keys)), mask)
    elif shape == (batch,):
        place = positions(b, n, 0, keys, mask.type.dtype)
        kept = b.add(ew.Less(), place, b.add(Reshape((batch, 1, 1, 1)), mask))
    else:
        n.refuse(f"a mask of the form {mask.type} is not supported", "mask by flags for each key")
    dtype = q.type.dtype
    if kept.type.dtype is not DType.bool:
        kept = b.add(ew.Greater(), kept, b.scalar(0, kept.type.dtype))
    return b.add(ew.Where(), kept, b.scalar(0.0, dtype), b.scalar(fill, dtype))


def _causal(b: Builder, n: OnnxNode, q: Value, k: Value) -> Value | None:
    if not n.flag("unidirectional"):
        return None
    rows, columns = q.type.shape[2], k.type.shape[2]
    if rows != columns:
        n.refuse(f"its causal mask needs as many keys as queries, not {columns} and {rows}")
    return causal_mask(b, n, rows, columns, 0, q.type.dtype)


@_microsoft("RotaryEmbedding")
def rotary_embedding(b: Builder, n: OnnxNode) -> Result:
    """Pairs of features turned by an angle that depends on the position."""
    if n.flag("is_packed_batching") or n.attr("scale", float, 1.0) != 1.0:
        n.refuse("it is packed or scaled")
    x, half = n.input(0), n.input(2).type.shape[-1]
    heads, partial = n.attr("num_heads", int, 0), n.attr("rotary_embedding_dim", int, 0)
    flat, shape = x.type.rank == 3, x.type.shape
    if not isinstance(half, int) or x.type.rank not in (3, 4) or (partial and flat and not heads):
        raise ValueError(f"an input of {x.type} and a table of {n.input(2).type} do not fit")
    if flat:
        width = shape[2] // heads if heads and partial else 2 * half
        x = b.add(Transpose((0, 2, 1, 3)), b.add(Reshape((shape[0], shape[1], shape[2] // width, width)), x))
    cos, sin = (_angles(b, n, n.input(i), x.type.shape[2]) for i in (2, 3))
    size, turned = x.type.shape[3], 2 * half
    if n.flag("interleaved"):
        first, second = (b.add(Slice((i,), (turned,), (3,), (2,)), x) for i in (0, 1))
    else:
        first, second = (b.add(Slice((i * half,), ((i + 1) * half,), (3,), (1,)), x) for i in (0, 1))
    real = b.add(ew.Sub(), b.add(ew.Mul(), first, cos), b.add(ew.Mul(), second, sin))
    imaginary = b.add(ew.Add(), b.add(ew.Mul(), first, sin), b.add(ew.Mul(), second, cos))
    if n.flag("interleaved"):
        pairs = [b.add(Reshape((*v.type.shape, 1)), v) for v in (real, imaginary)]
        y = b.add(Reshape((*x.type.shape[:3], turned)), b.add(Concat(4), *pairs))
    else:
        y = b.add(Concat(3), real, imaginary)
    if size != turned:
        y = b.add(Concat(3), y, b.add(Slice((turned,), (size,), (3,), (1,)), x))
    return b.add(Reshape(shape), b.add(Transpose((0, 2, 1, 3)), y)) if flat else y


def _angles(b: Builder, n: OnnxNode, table: Value, length: Dim) -> Value:
    """[batch or 1, 1, sequence, half] of a table, at positions given for every word or for the first one."""
    places = n.input(1)
    if places.type.rank == 1:
        steps = b.add(Reshape((1, length)), positions(b, n, 0, length, places.type.dtype))
        places = b.add(ew.Add(), steps, places)
    rows = b.add(Gather(0), table, places)
    batch, sequence, half = rows.type.shape
    return b.add(Reshape((batch, 1, sequence, half)), rows)


OPS = [
    fused_matmul,
    gelu,
    bias_gelu,
    fast_gelu,
    quick_gelu,
    fused_conv,
    skip_layer_norm,
    skip_rms_norm,
    simplified_layer_norm,
    embed_layer_norm,
    attention,
    multi_head_attention,
    rotary_embedding,
]
