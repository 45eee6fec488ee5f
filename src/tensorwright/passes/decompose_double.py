# SPDX-License-Identifier: Apache-2.0
"""Writes row ops and attention on f64, which have no kernels of their own, as reductions, products and arithmetic."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dims import Undecided, low
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ops.attention import Attention
from tensorwright.ops.elementwise import Add, Div, Exp, Log, Mul, Sqrt, Sub
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import InstanceNorm, LayerNorm
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Reshape, Transpose
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import operands


@rule(on=(Softmax, LogSoftmax), name="double_softmax_into_arithmetic")
def double_softmax_into_arithmetic(graph: Graph, node: Node) -> Edit | None:
    """exp(x - max) / sum(exp(x - max)), or x - max - log of that sum."""
    x = node.inputs[0]
    if x is None or not isinstance(node.op, Softmax | LogSoftmax) or not _is_double(node):
        return None
    new = Rewrite(graph, node)
    shifted, powers, total = _exponentials(new, x, node.op.axis)
    if isinstance(node.op, LogSoftmax):
        new.finish(Sub(), shifted, new.add(Log(), total))
    else:
        new.finish(Div(), powers, total)
    return new.edit(node, because=f"{node.op.kind} has no f64 kernel of its own")


@rule(on=(LayerNorm, InstanceNorm), name="double_norm_into_arithmetic")
def double_norm_into_arithmetic(graph: Graph, node: Node) -> Edit | None:
    """(x - mean) / sqrt(variance + epsilon), then scale and bias."""
    x, scale, bias = (*node.inputs, None)[:3]
    if x is None or scale is None or not isinstance(node.op, LayerNorm | InstanceNorm) or not _is_double(node):
        return None
    new, rank = Rewrite(graph, node), x.type.rank
    axes = tuple(range(node.op.axis if isinstance(node.op, LayerNorm) else 2, rank))
    centred = new.add(Sub(), x, new.add(Reduce("mean", axes), x))
    variance = new.add(Reduce("mean", axes), new.add(Mul(), centred, centred))
    epsilon = new.constant(np.asarray(node.op.epsilon), f"{node.name}/epsilon")
    y = new.add(Div(), centred, new.add(Sqrt(), new.add(Add(), variance, epsilon)))
    if isinstance(node.op, InstanceNorm):
        scale, bias = (
            None if v is None else new.add(Reshape((*v.type.shape, *(1,) * (rank - 2))), v) for v in (scale, bias)
        )
    assert scale is not None
    if bias is None:
        new.finish(Mul(), y, scale)
    else:
        new.finish(Add(), new.add(Mul(), y, scale), bias)
    return new.edit(node, because=f"{node.op.kind} has no f64 kernel of its own")


@rule(on=Attention, name="double_attention_into_products")
def double_attention_into_products(graph: Graph, node: Node) -> Edit | None:
    """softmax(scale * q k^T + mask) v with the score matrix in memory."""
    q, k, v, mask = (*node.inputs, None)[:4]
    if q is None or k is None or v is None or not isinstance(node.op, Attention) or not _is_double(node):
        return None
    new, rank = Rewrite(graph, node), k.type.rank
    turned = new.add(Transpose((*range(rank - 2), rank - 1, rank - 2)), k)
    scale = new.constant(np.asarray(node.op.scale), f"{node.name}/scale")
    scores = new.add(Mul(), new.add(MatMul(), q, turned), scale)
    if mask is not None:
        scores = new.add(Add(), scores, mask)
    _, powers, total = _exponentials(new, scores, scores.type.rank - 1)
    new.finish(MatMul(), new.add(Div(), powers, total), v)
    return new.edit(node, because="attention has no f64 kernel of its own")


def _is_double(node: Node) -> bool:
    """Whether it is f64 and surely has elements: the largest of none does not exist."""
    try:
        return node.output.type.dtype is DType.f64 and all(low(d) > 0 for v in operands(node) for d in v.type.shape)
    except Undecided:
        return False


def _exponentials(new: Rewrite, x: Value, axis: int) -> tuple[Value, Value, Value]:
    """x - max, its exponentials, and their sum along `axis`."""
    shifted = new.add(Sub(), x, new.add(Reduce("max", (axis,)), x))
    powers = new.add(Exp(), shifted)
    return shifted, powers, new.add(Reduce("sum", (axis,)), powers)


RULES = (double_softmax_into_arithmetic, double_norm_into_arithmetic, double_attention_into_products)
