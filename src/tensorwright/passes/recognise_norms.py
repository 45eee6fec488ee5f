# SPDX-License-Identifier: Apache-2.0
"""Puts layer normalisation and softmax together again that exporters wrote as arithmetic."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.types import TensorType
from tensorwright.ops.elementwise import Add, Div, Exp, Mul, Reciprocal, Sqrt, Sub
from tensorwright.ops.norm import LayerNorm
from tensorwright.ops.reduce import Reduce, Softmax, rounds_each_step
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import commuted, made_by, operands, read_only_inside, scalar, uniform, with_constant


@rule(on=(Div, Mul), name="arithmetic_into_layer_norm")
def arithmetic_into_layer_norm(graph: Graph, node: Node) -> Edit | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) over the last axes."""
    for centred, scale in commuted(node) if isinstance(node.op, Mul) else (operands(node),):
        deviation = _deviation(graph, scale, inverse=isinstance(node.op, Mul))
        sub = made_by(graph, centred, Sub)
        if deviation is None or sub is None:
            continue
        variance, epsilon, inside = deviation
        spread = _mean(graph, variance)
        square = made_by(graph, spread.inputs[0], Mul) if spread else None
        x = sub.inputs[0]
        mean = _mean(graph, sub.inputs[1])
        if spread is None or square is None or mean is None or x is None or mean.inputs[0] is not x:
            continue
        axes = _trailing_axes(mean, x)
        if set(square.inputs) != {centred} or axes is None or _trailing_axes(spread, x) != axes:
            continue
        nodes = [mean, sub, square, spread, *inside, node]
        if not read_only_inside(graph, nodes, [node.output]):
            continue
        new = Rewrite(graph, node)
        row = TensorType(x.type.dtype, x.type.shape[axes:])
        ones = new.constant(np.ones(row.static_shape, row.dtype.numpy), f"{node.name}/ones")
        new.finish(LayerNorm(axes, epsilon), x, ones)
        return new.edit(*nodes, because="it is the arithmetic of layer normalisation")
    return None


@rule(on=(Mul, Add), name="affine_into_layer_norm")
def affine_into_layer_norm(graph: Graph, node: Node) -> Edit | None:
    """Multiplication by or addition of a constant over the normalised axes, after a layer norm read once."""
    pair = with_constant(graph, node)
    norm = graph.only_user(pair[0]) and made_by(graph, pair[0], LayerNorm) if pair else None
    if not pair or not norm or not isinstance(norm.op, LayerNorm) or node.output.type != norm.output.type:
        return None
    x, scale, bias = (*norm.inputs, None)[:3]
    gamma, beta, c = graph.constant(scale), graph.constant(bias), graph.constants[pair[1]]
    normalised = norm.output.type.rank - norm.op.axis
    if gamma is None or (bias is not None and beta is None) or c.ndim > normalised:
        return None
    c = np.broadcast_to(c, np.broadcast_shapes(c.shape, gamma.shape))
    if isinstance(node.op, Mul):
        gamma, beta = gamma * c, beta * c if beta is not None else None
    else:
        beta = c if beta is None else beta + c
    new = Rewrite(graph, norm)
    parameters = [
        new.constant(np.ascontiguousarray(p), f"{norm.name}/{what}")
        for p, what in ((gamma, "scale"), (beta, "bias"))
        if p is not None
    ]
    new.finish(norm.op, x, *parameters, result=node.output)
    what = "factor" if isinstance(node.op, Mul) else "addend"
    return new.edit(norm, node, because=f"the {what} is constant over the rows")


@rule(on=Div, name="arithmetic_into_softmax")
def arithmetic_into_softmax(graph: Graph, node: Node) -> Edit | None:
    """exp(x - max(x)) / sum(exp(x - max(x))) along one axis."""
    top, bottom = operands(node)
    exp, total = made_by(graph, top, Exp), made_by(graph, bottom, Reduce)
    sub = made_by(graph, exp.inputs[0], Sub) if exp else None
    peak = made_by(graph, sub.inputs[1], Reduce) if sub else None
    if not exp or not total or not sub or not peak or total.inputs[0] is not top or peak.inputs[0] is not sub.inputs[0]:
        return None
    if not isinstance(total.op, Reduce) or peak.op != Reduce("max", total.op.axes, True) or len(total.op.axes) != 1:
        return None
    nodes = [peak, sub, exp, total, node]
    if total.op != Reduce("sum", total.op.axes, True) or not read_only_inside(graph, nodes, [node.output]):
        return None
    if rounds_each_step(node.output.type, total.op.axes[0]):
        return None
    new = Rewrite(graph, node)
    new.finish(Softmax(total.op.axes[0]), sub.inputs[0])
    return new.edit(*nodes, because="it is the arithmetic of softmax")


def _deviation(graph: Graph, value: Value, inverse: bool) -> tuple[Value, float, list[Node]] | None:
    """`value` as sqrt(variance + epsilon) (or one over it): (variance, epsilon, nodes)."""
    nodes: list[Node] = []
    if inverse:
        over = made_by(graph, value, (Reciprocal, Div))
        if over is None or (isinstance(over.op, Div) and uniform(graph, over.inputs[0]) != 1.0):
            return None
        nodes.append(over)
        value = operands(over)[-1]
    root = made_by(graph, value, Sqrt)
    add = made_by(graph, root.inputs[0], Add) if root else None
    pair = with_constant(graph, add) if add else None
    epsilon = scalar(graph, pair[1]) if pair else None
    if root is None or add is None or pair is None or epsilon is None:
        return None
    return pair[0], epsilon, [add, root, *nodes]


def _mean(graph: Graph, value: Value | None) -> Node | None:
    node = made_by(graph, value, Reduce)
    if node is None or not isinstance(node.op, Reduce) or node.op.how != "mean" or not node.op.keepdims:
        return None
    return node


def _trailing_axes(mean: Node, x: Value) -> int | None:
    """The first of the reduced axes when they are the last ones and of known size."""
    if not isinstance(mean.op, Reduce):
        return None
    first, rank = min(mean.op.axes, default=x.type.rank), x.type.rank
    known = all(isinstance(d, int) for d in x.type.shape[first:])
    return first if sorted(mean.op.axes) == list(range(first, rank)) and first < rank and known else None


RULES = (arithmetic_into_layer_norm, affine_into_layer_norm, arithmetic_into_softmax)
