# SPDX-License-Identifier: Apache-2.0
"""Arithmetic that does nothing, or that a cheaper op does.

Values stay as IEEE 754 has them, with three exceptions that each reason states: adding zero keeps -0.0, dividing by a
constant becomes multiplication by its rounded reciprocal, and two constants that meet are combined first.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.op import Op
from tensorwright.ops.activation import Clip, Relu
from tensorwright.ops.elementwise import (
    Abs,
    Add,
    Cast,
    Ceil,
    Div,
    Floor,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Not,
    Pointwise,
    Pow,
    Round,
    Sign,
    Sub,
)
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Expand
from tensorwright.passes.base import Rewrite, forward, rule
from tensorwright.passes.match import made_by, operands, scalar, uniform, with_constant

_NEUTRAL: dict[type[Op], float] = {Add: 0.0, Sub: 0.0, Mul: 1.0, Div: 1.0, Pow: 1.0}
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@rule(on=(Add, Mul, Maximum, Minimum), name="constant_into_second_place")
def constant_into_second_place(graph: Graph, node: Node) -> Edit | None:
    """Constant op x becomes x op constant, so that later rules need to look at one order only."""
    a, b = operands(node)
    if a not in graph.constants or b in graph.constants:
        return None
    new = Rewrite(graph, node)
    new.finish(node.op, b, a)
    return new.edit(node, because="the operation commutes")


@rule(on=tuple(_NEUTRAL), name="neutral_operand_into_nothing")
def neutral_operand_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """x+0, x-0, x*1, x/1, x^1 are x."""
    x, c = operands(node)
    number = uniform(graph, c)
    if number is None or number != _NEUTRAL[type(node.op)] or node.output.type != x.type:
        return None
    return forward(node, x, f"{node.op.kind} with {number:g} changes nothing (but the sign of zero)")


@rule(on=Div, name="division_into_multiplication")
def division_into_multiplication(graph: Graph, node: Node) -> Edit | None:
    """Division by a scalar constant whose reciprocal is a normal number."""
    x, c = operands(node)
    number = scalar(graph, c)
    if number is None or x in graph.constants or not x.type.dtype.is_float or not math.isfinite(number):
        return None
    if not _SMALLEST_NORMAL <= abs(number) <= 1 / _SMALLEST_NORMAL:
        return None
    new = Rewrite(graph, node)
    reciprocal = np.asarray(1 / graph.constants[c].astype(np.float64), c.type.dtype.numpy)
    new.finish(Mul(), x, new.constant(reciprocal, f"{node.name}/reciprocal"))
    return new.edit(node, because=f"dividing by {number:g} is multiplying by its reciprocal, within one more rounding")


@rule(on=Pow, name="small_power_into_multiplication")
def small_power_into_multiplication(graph: Graph, node: Node) -> Edit | None:
    """x^2 and x^3 with a scalar exponent."""
    x, c = operands(node)
    exponent = scalar(graph, c)
    if exponent not in (2.0, 3.0) or node.output.type != x.type:
        return None
    new = Rewrite(graph, node)
    new.finish(Mul(), x if exponent == 2 else new.add(Mul(), x, x), x)
    return new.edit(node, because=f"the power {exponent:g} is multiplication")


@rule(on=(Add, Mul), name="two_constants_into_one")
def two_constants_into_one(graph: Graph, node: Node) -> Edit | None:
    """(x op c) op d becomes x op (c op d), when nothing else reads the inner result."""
    outer = with_constant(graph, node)
    first = graph.only_user(outer[0]) and made_by(graph, outer[0], type(node.op)) if outer else None
    inner = with_constant(graph, first) if first else None
    if not outer or not first or not inner:
        return None
    c, d = graph.constants[inner[1]], graph.constants[outer[1]]
    (combined,) = node.op.reference(c, d)
    if combined.nbytes > max(c.nbytes, d.nbytes) or (combined.dtype.kind == "f" and not np.isfinite(combined).all()):
        return None
    new = Rewrite(graph, node)
    new.finish(node.op, inner[0], new.constant(np.asarray(combined), f"{node.name}/combined"))
    return new.edit(first, node, because="their constants are combined first, which rounds once less")


@rule(on=(Relu, Abs, Floor, Ceil, Round, Sign), name="twice_into_once")
def twice_into_once(graph: Graph, node: Node) -> Edit | None:
    """f(f(x)) is f(x) for these functions."""
    (x,) = operands(node)
    inner = graph.producer(x)
    if inner is None or inner.op != node.op:
        return None
    return forward(node, x, f"{node.op.kind} of {node.op.kind} is one {node.op.kind}")


@rule(on=(Neg, Not), name="double_negation_into_nothing")
def double_negation_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """-(-x) and not not x are x."""
    inner = graph.producer(operands(node)[0])
    if inner is None or inner.op != node.op:
        return None
    return forward(node, operands(inner)[0], "two negations cancel")


@rule(on=Cast, name="cast_into_nothing")
def cast_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A cast to the type that the value has."""
    (x,) = operands(node)
    return forward(node, x, f"it is {x.type.dtype} already") if x.type == node.output.type else None


@rule(on=Reduce, name="reduction_into_nothing")
def reduction_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A reduction over no axes."""
    (x,) = operands(node)
    return forward(node, x, "it reduces no axis") if isinstance(node.op, Reduce) and not node.op.axes else None


@rule(on=(Maximum, Minimum), name="bound_into_clip")
def bound_into_clip(graph: Graph, node: Node) -> Edit | None:
    """Maximum or minimum with a scalar float constant."""
    x, c = operands(node)
    bound = scalar(graph, c)
    if bound is None or math.isnan(bound) or not x.type.dtype.is_float or node.output.type != x.type:
        return None
    new = Rewrite(graph, node)
    new.finish(Clip(bound, None) if isinstance(node.op, Maximum) else Clip(None, bound), x)
    return new.edit(node, because=f"the bound {bound:g} is constant")


@rule(on=Clip, name="clip_into_simpler")
def clip_into_simpler(graph: Graph, node: Node) -> Edit | None:
    """Clip without bounds is nothing; from 0 up it is relu; an upper bound after a lower one is one clip."""
    (x,), op = operands(node), node.op
    if not isinstance(op, Clip):
        return None
    if op.low is None and op.high is None:
        return forward(node, x, "it has no bounds")
    new = Rewrite(graph, node)
    if op.low == 0.0 and op.high is None:
        new.finish(Relu(), x)
        return new.edit(node, because="clipping below zero is relu")
    inner = graph.only_user(x) and made_by(graph, x, (Clip, Relu))
    if op.low is not None or not inner:
        return None
    low = inner.op.low if isinstance(inner.op, Clip) else 0.0
    if low is None or (isinstance(inner.op, Clip) and inner.op.high is not None):
        return None
    new.finish(Clip(low, op.high), operands(inner)[0])
    return new.edit(inner, node, because="a lower and an upper bound are one clip")


@rule(on=Pointwise, name="expand_into_broadcast")
def expand_into_broadcast(graph: Graph, node: Node) -> Edit | None:
    """A pointwise op broadcasts by itself, so an operand need not be expanded for it."""
    for position, value in enumerate(node.inputs):
        expand = made_by(graph, value, Expand)
        if expand is None:
            continue
        inputs: list[Value | None] = list(node.inputs)
        inputs[position] = expand.inputs[0]
        if node.op.infer(*(v.type if v is not None else None for v in inputs)) == (node.output.type,):
            new = Rewrite(graph, node)
            new.finish(node.op, *inputs, origin=node.origin + expand.origin)
            return new.edit(node, because=f"{node.op.kind} broadcasts by itself")
    return None


RULES = (
    constant_into_second_place,
    neutral_operand_into_nothing,
    division_into_multiplication,
    small_power_into_multiplication,
    two_constants_into_one,
    twice_into_once,
    double_negation_into_nothing,
    cast_into_nothing,
    reduction_into_nothing,
    bound_into_clip,
    clip_into_simpler,
    expand_into_broadcast,
)
