# SPDX-License-Identifier: Apache-2.0
"""Folds batch normalisation, and any per-channel scale or shift, into the weights and bias before it.

Arithmetic on weights is done in f64 and rounded once.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add, Div, Mul, Sqrt, Sub
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import BatchNorm
from tensorwright.ops.shape import Reshape
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import along_axis, made_by, per_channel, with_constant

CONVOLUTIONS = (Convolution, Deconvolution)


@rule(on=BatchNorm, name="batch_norm_into_conv")
def batch_norm_into_conv(graph: Graph, node: Node) -> Edit | None:
    """BatchNorm of a convolution that nothing else reads: y = s*(conv(x, w) + b) + t = conv(x, s*w) + (s*b + t)."""
    conv = _foldable(graph, node.inputs[0])
    affine = _scale_and_shift(graph, node)
    if conv is None or affine is None or not isinstance(conv.op, CONVOLUTIONS):
        return None
    scale, shift = affine
    return _with_weights(graph, conv, node, scale, shift, "the normalisation scales and shifts each output channel")


@rule(on=BatchNorm, name="batch_norm_into_mul_add")
def batch_norm_into_mul_add(graph: Graph, node: Node) -> Edit | None:
    """BatchNorm with constant statistics that no convolution can take: one multiplication and one addition."""
    affine = _scale_and_shift(graph, node)
    x = node.inputs[0]
    if affine is None or x is None:
        return None
    new = Rewrite(graph, node)
    rank, dtype = x.type.rank, x.type.dtype.numpy
    scale, shift = (
        new.constant(per_channel(v, rank).astype(dtype), f"{node.name}/{what}")
        for v, what in zip(affine, ("scale", "shift"), strict=True)
    )
    new.finish(Add(), new.add(Mul(), x, scale, name=f"{node.name}/mul"), shift)
    return new.edit(node, because="its statistics are constant")


@rule(on=BatchNorm, name="batch_norm_into_arithmetic")
def batch_norm_into_arithmetic(graph: Graph, node: Node) -> Edit | None:
    """BatchNorm with statistics known only at run: (x - mean) * (scale / sqrt(variance + epsilon)) + bias."""
    x, scale, bias, mean, variance = node.inputs
    if x is None or variance is None or not isinstance(node.op, BatchNorm) or _scale_and_shift(graph, node) is not None:
        return None
    new = Rewrite(graph, node)
    epsilon = new.constant(np.asarray(node.op.epsilon, variance.type.dtype.numpy), f"{node.name}/epsilon")

    def channels(value: Value | None) -> Value:
        shape = (x.type.shape[1], *(1,) * (x.type.rank - 2))
        return new.add(Reshape(shape), value)

    deviation = new.add(Sqrt(), new.add(Add(), variance, epsilon))
    factor = new.add(Div(), scale, deviation)
    scaled = new.add(Mul(), new.add(Sub(), x, channels(mean)), channels(factor))
    new.finish(Add(), scaled, channels(bias))
    return new.edit(node, because="its statistics are known only at run")


@rule(on=Mul, name="scale_into_weights")
def scale_into_weights(graph: Graph, node: Node) -> Edit | None:
    """Multiplication of a convolution or matrix product by a constant per output channel."""
    pair = with_constant(graph, node)
    anchor = _foldable(graph, pair[0]) if pair else None
    vector = _vector(graph, anchor, pair[1], node) if anchor and pair else None
    if anchor is None or vector is None:
        return None
    unshifted = np.zeros_like(vector)
    return _with_weights(graph, anchor, node, vector, unshifted, "the factor is constant per output channel")


@rule(on=Add, name="shift_into_bias")
def shift_into_bias(graph: Graph, node: Node) -> Edit | None:
    """Addition of a constant per output channel to a convolution."""
    pair = with_constant(graph, node)
    conv = _foldable(graph, pair[0]) if pair else None
    if conv is None or pair is None or not isinstance(conv.op, CONVOLUTIONS):
        return None
    vector = _vector(graph, conv, pair[1], node)
    if vector is None:
        return None
    return _with_weights(graph, conv, node, None, vector, "the addend is constant per output channel")


@rule(on=Mul, name="scale_before_shift")
def scale_before_shift(graph: Graph, node: Node) -> Edit | None:
    """(matmul + b) * s becomes matmul * s + b*s, so that the factor can go into the weights."""
    pair = with_constant(graph, node)
    add = graph.only_user(pair[0]) and made_by(graph, pair[0], Add) if pair else None
    inner = with_constant(graph, add) if add else None
    if not pair or not add or not inner or _foldable(graph, inner[0]) is None:
        return None
    factor, addend = graph.constants[pair[1]], graph.constants[inner[1]]
    if add.output.type != node.output.type or inner[0].type != node.output.type:
        return None
    new = Rewrite(graph, node)
    shift = new.constant(np.asarray(factor * addend, addend.dtype), f"{add.name}/scaled")
    new.finish(Add(), new.add(Mul(), inner[0], pair[1]), shift)
    return new.edit(add, node, because="the factor can be moved into the weights")


def _foldable(graph: Graph, value: Value | None) -> Node | None:
    """The f32/f64 convolution or matrix product with constant weights and bias that makes `value`, if read once."""
    node = made_by(graph, value, (*CONVOLUTIONS, MatMul))
    if node is None or value is None or len(graph.users(value)) != 1 or graph.is_output(value):
        return None
    if any(v is not None and v not in graph.constants for v in node.inputs[1:]) or not value.type.dtype.is_float:
        return None
    weights = node.inputs[1]
    if weights is None or (isinstance(node.op, MatMul) and weights.type.rank != 2):
        return None
    return node


def _vector(graph: Graph, anchor: Node, constant: Value, node: Node) -> Array | None:
    """A constant operand of `node` as one number per output channel of `anchor`."""
    out = anchor.output.type
    axis = out.rank - 1 if isinstance(anchor.op, MatMul) else 1
    size = out.shape[axis]
    if node.output.type != out or not isinstance(size, int):
        return None
    vector = along_axis(graph.constants[constant], out.rank, axis, size)
    return vector.astype(np.float64) if vector is not None else None


def _scale_and_shift(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """BatchNorm as y = scale*x + shift per channel, in f64; None when a parameter is not constant."""
    arrays = [graph.constant(v) for v in node.inputs[1:]]
    if not isinstance(node.op, BatchNorm) or any(a is None for a in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + node.op.epsilon)
    return scale, beta - mean * scale


def _with_weights(graph: Graph, anchor: Node, node: Node, scale: Array | None, shift: Array, because: str) -> Edit:
    """`anchor` with weights and bias times `scale` (None: as they are), then plus `shift`, in place of `node`."""
    x, weights = anchor.inputs[0], anchor.inputs[1]
    old_bias = graph.constant(anchor.inputs[2]) if len(anchor.inputs) > 2 else None
    new = Rewrite(graph, anchor)
    if weights is not None and scale is not None:
        weights = new.constant(_scaled(anchor, graph.constants[weights], scale), weights.name)
    inputs: list[Value | None] = [x, weights]
    if not isinstance(anchor.op, MatMul):
        bias = np.zeros(shift.shape) if old_bias is None else old_bias.astype(np.float64)
        bias = (bias if scale is None else bias * scale) + shift
        if old_bias is not None or bias.any():
            inputs.append(new.constant(bias.astype(anchor.output.type.dtype.numpy), f"{anchor.name}/bias"))
    new.finish(anchor.op, *inputs, result=node.output)
    return new.edit(anchor, node, because=because)


def _scaled(anchor: Node, weights: Array, scale: Array) -> Array:
    """Weights with each output channel multiplied by its scale."""
    wide = weights.astype(np.float64)
    if isinstance(anchor.op, Convolution):
        wide = wide * scale.reshape(-1, *(1,) * (wide.ndim - 1))
    elif isinstance(anchor.op, Deconvolution):  # [C, K/groups, ...]: groups blocks of rows, each with its own channels
        groups = anchor.op.groups
        blocks = wide.reshape(groups, -1, *wide.shape[1:])
        wide = (blocks * scale.reshape(groups, 1, -1, *(1,) * (wide.ndim - 2))).reshape(wide.shape)
    else:
        wide = wide * scale
    return wide.astype(weights.dtype)


RULES = (
    batch_norm_into_conv,
    batch_norm_into_mul_add,
    batch_norm_into_arithmetic,
    scale_into_weights,
    shift_into_bias,
    scale_before_shift,
)
