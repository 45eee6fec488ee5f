# SPDX-License-Identifier: Apache-2.0
"""ONNX ops of sequence models that carry a state from one call to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.activation import Silu
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Cast, Exp
from tensorwright.ops.linear_attention import LinearAttention
from tensorwright.ops.shape import Concat, Pad, Reshape, Slice, Transpose

_GATED, _DELTA = ("gated", "gated_delta"), ("delta", "gated_delta")
_GIVE_SHAPES = "give every input a fixed shape with shapes="


@onnx_op("CausalConvWithState", since=27)
def causal_conv_with_state(b: Builder, n: OnnxNode) -> Result:
    """A depthwise convolution over the past and the present of each channel, and the past of the next call."""
    x, weights, bias, past = n.input(0), n.input(1), n.optional(2), n.optional(3)
    activation = n.attr("activation", str, "none")
    channels, reach = weights.type.shape[0], weights.type.shape[-1]
    if activation not in ("none", "silu", "swish") or x.type.rank != 3 or weights.type.rank != 3:
        raise ValueError(f"a causal convolution of {x.type} with {weights.type} and {activation!r} is not defined")
    if not isinstance(reach, int) or not isinstance(channels, int):
        n.refuse(f"it needs weights of known shape, not {weights.type}")
    whole = b.add(Pad((0, 0, reach - 1, 0, 0, 0)), x) if past is None else b.add(Concat(2), past, x)
    operands = [whole, weights, *([bias] if bias is not None else [])]
    y = b.add(Convolution((1,), (0, 0), (1,), channels), *operands)
    length = whole.type.shape[2]
    state = b.add(Slice((length - (reach - 1),), (length,), (2,), (1,)), whole)
    return [y if activation == "none" else b.add(Silu(), y), state]


@dataclass(frozen=True, slots=True)
class _Heads:
    """Sizes of a linear attention: batch, steps, heads of keys, queries for each, elements of a key and of a value."""

    batch: Dim
    steps: int
    heads: int
    group: int
    depth: int
    width: int


@onnx_op("LinearAttention", since=27)
def linear_attention(b: Builder, n: OnnxNode) -> Result:
    """Attention to a state of fixed size, computed in f32; the state after the last step is the second output."""
    n.ignore("chunk_size")  # of another way to compute the same
    q, k, v, past, decay, rate = n.input(0), n.input(1), n.input(2), n.optional(3), n.optional(4), n.optional(5)
    rule = n.attr("update_rule", str, "gated_delta")
    if rule not in ("linear", *_GATED, "delta") or (decay is not None) != (rule in _GATED):
        raise ValueError(f"update_rule is {rule!r}, which does not go with the inputs")
    if (rate is not None) != (rule in _DELTA):
        raise ValueError(f"update_rule is {rule!r}, which does not go with the inputs")
    s = _sizes(n, q, k, v)
    op = LinearAttention(n.attr("scale", float, 0.0) or 1 / math.sqrt(s.depth))
    y = b.add(
        op,
        _split(b, q, (s.batch, s.steps, s.heads, s.group, s.depth)),
        _split(b, k, (s.batch, s.steps, s.heads, s.depth)),
        _split(b, v, (s.batch, s.steps, s.heads, s.width)),
        None if past is None else _in_f32(b, past),
        None if decay is None else b.add(Exp(), _split(b, decay, _gate(n, decay, s, (s.heads, s.heads * s.depth)))),
        None if rate is None else _split(b, rate, _gate(n, rate, s, (1, s.heads))),
    )
    rows = s.steps * s.group
    outputs = b.add(Reshape((s.batch, s.heads, s.steps, s.group, s.width)), b.add(_rows(0, rows), y))
    packed = (s.batch, s.steps, s.heads * s.group * s.width)
    output = b.add(Reshape(packed), b.add(Transpose((0, 2, 1, 3, 4)), outputs))
    state_dtype = q.type.dtype if past is None else past.type.dtype
    return [_as(b, output, q.type.dtype), _as(b, b.add(_rows(rows, rows + s.depth), y), state_dtype)]


def _sizes(n: OnnxNode, q: Value, k: Value, v: Value) -> _Heads:
    queries, heads = n.attr("q_num_heads", int), n.attr("kv_num_heads", int)
    if min(t.type.rank for t in (q, k, v)) != 3 or min(queries, heads) < 1 or queries % heads:
        raise ValueError(f"{queries} heads of {q.type} and {heads} of {k.type} and {v.type} do not fit together")
    batch, steps, packed = q.type.shape
    depths, widths = k.type.shape[2], v.type.shape[2]
    if not all(isinstance(d, int) for d in (steps, packed, depths, widths)):
        n.refuse(
            f"it needs known steps and sizes of heads, not {q.type}", "give every input a fixed shape with shapes="
        )
    steps, packed, depths, widths = (int(str(d)) for d in (steps, packed, depths, widths))
    if packed * heads != depths * queries or depths % heads or widths % heads:
        raise ValueError(f"{queries} heads of {q.type} and {heads} of {k.type} and {v.type} do not fit together")
    return _Heads(batch, steps, heads, queries // heads, depths // heads, widths // heads)


def _gate(n: OnnxNode, x: Value, s: _Heads, allowed: tuple[int, int]) -> tuple[Dim, ...]:
    """The dims [batch, steps, heads, elements] of a decay or rate that has one number for several of them."""
    size = x.type.shape[-1]
    if x.type.rank != 3 or not isinstance(size, int) or size not in allowed:
        raise ValueError(f"{x.type} does not fit {s.heads} heads of {s.depth} elements")
    heads = s.heads if size % s.heads == 0 else 1
    return (s.batch, s.steps, heads, size // heads)


def _rows(start: int, end: int) -> Slice:
    return Slice((start,), (end,), (2,), (1,))


def _split(b: Builder, x: Value, shape: tuple[Dim, ...]) -> Value:
    return b.add(Reshape(shape), _in_f32(b, x))


def _in_f32(b: Builder, x: Value) -> Value:
    return _as(b, x, DType.f32)


def _as(b: Builder, x: Value, dtype: DType) -> Value:
    return x if x.type.dtype is dtype else b.add(Cast(dtype), x)


OPS = [causal_conv_with_state, linear_attention]
