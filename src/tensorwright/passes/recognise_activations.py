# SPDX-License-Identifier: Apache-2.0
"""Puts activation functions together again that exporters wrote as arithmetic.

Products are flattened into a number and factors first, so the order in which an exporter multiplies does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ops.activation import Clip, Gelu, HardSigmoid, HardSwish, Mish, Sigmoid, Silu, Softplus
from tensorwright.ops.elementwise import Add, Erf, Mul, Tanh, Unary
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import is_close, made_by, operands, read_only_inside, scalar, with_constant

_MOST_FACTORS = 8


@dataclass(slots=True)
class Product:
    """A value as `number` times the `factors`; `nodes` are the multiplications inside."""

    number: float
    factors: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def without(self, value: Value) -> list[Value] | None:
        """The factors with `value` taken out once; None when it is not a factor."""
        rest = list(self.factors)
        if value not in rest:
            return None
        rest.remove(value)
        return rest


def product(graph: Graph, root: Value) -> Product:
    """Flatten multiplications from `root` back, through values that nothing else reads."""
    result = Product(1.0)
    work = [root]
    while work:
        value = work.pop()
        number = scalar(graph, value)
        if number is not None:
            result.number *= number
            continue
        node = made_by(graph, value, Mul)
        if node is None or (value is not root and graph.only_user(value) is None) or len(result.nodes) >= _MOST_FACTORS:
            result.factors.append(value)
            continue
        result.nodes.append(node)
        work += reversed(operands(node))
    return result


@rule(on=Mul, name="sigmoid_product_into_silu")
def sigmoid_product_into_silu(graph: Graph, node: Node) -> Edit | None:
    """x * sigmoid(x)."""
    return _gated(graph, node, Sigmoid, Silu(), "x * sigmoid(x) is SiLU")


@rule(on=Mul, name="softplus_product_into_mish")
def softplus_product_into_mish(graph: Graph, node: Node) -> Edit | None:
    """x * tanh(softplus(x))."""
    for x, gate in (operands(node), operands(node)[::-1]):
        tanh = made_by(graph, gate, Tanh)
        plus = made_by(graph, tanh.inputs[0], Softplus) if tanh else None
        if tanh and plus and plus.op == Softplus() and plus.inputs[0] is x:
            return _activation(graph, node, [plus, tanh, node], x, Mish(), "x * tanh(softplus(x)) is Mish")
    return None


@rule(on=Mul, name="clip_product_into_hard_swish")
def clip_product_into_hard_swish(graph: Graph, node: Node) -> Edit | None:
    """x * hard_sigmoid(x), or x * clip(x + 3, 0, 6) / 6 in any order."""
    whole = product(graph, node.output)
    for gate in whole.factors if len(whole.factors) == 2 else ():
        inner = made_by(graph, gate, (HardSigmoid, Clip))
        if inner is None:
            continue
        if isinstance(inner.op, HardSigmoid):
            x, shift = inner.inputs[0], None
            fits = is_close(inner.op.alpha * whole.number, 1 / 6) and inner.op.beta == 0.5
        else:
            shift = made_by(graph, inner.inputs[0], Add)
            pair = with_constant(graph, shift) if shift else None
            x = pair[0] if pair else None
            fits = (
                inner.op == Clip(0.0, 6.0)
                and pair is not None
                and scalar(graph, pair[1]) == 3.0
                and is_close(whole.number, 1 / 6)
            )
        if fits and x is not None and whole.without(gate) == [x]:
            inside = [n for n in (shift, inner) if n is not None] + whole.nodes
            return _activation(graph, node, inside, x, HardSwish(), "x * min(max(x/6 + 1/2, 0), 1) is HardSwish")
    return None


@rule(on=Mul, name="erf_product_into_gelu")
def erf_product_into_gelu(graph: Graph, node: Node) -> Edit | None:
    """x * (1 + erf(x / sqrt(2))) / 2 in any order."""
    return _gelu(graph, node, Erf)


@rule(on=Mul, name="tanh_product_into_gelu")
def tanh_product_into_gelu(graph: Graph, node: Node) -> Edit | None:
    """x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2 in any order."""
    return _gelu(graph, node, Tanh)


def _gelu(graph: Graph, node: Node, curve: type[Erf] | type[Tanh]) -> Edit | None:
    whole = product(graph, node.output)
    for gate in whole.factors if len(whole.factors) == 2 else ():
        rest = whole.without(gate)
        bell = _one_plus(graph, gate, curve)
        if not rest or bell is None:
            continue
        x, (size, argument, inside) = rest[0], bell
        within = _erf_argument(graph, argument, x) if curve is Erf else _tanh_argument(graph, argument, x)
        if within is not None and is_close(whole.number * size, 0.5):
            op, because = Gelu(approximate=curve is Tanh), f"it is the {curve.kind} form of GELU"
            return _activation(graph, node, [*within, *inside, *whole.nodes], x, op, because)
    return None


def _one_plus(graph: Graph, value: Value, curve: type[Unary]) -> tuple[float, Value, list[Node]] | None:
    """`value` as size * (1 + curve(argument)): (size, argument, nodes)."""
    add = made_by(graph, value, Add)
    pair = with_constant(graph, add) if add else None
    if add is None or pair is None:
        return None
    scaled, shift = product(graph, pair[0]), scalar(graph, pair[1])
    inner = made_by(graph, scaled.factors[0], curve) if len(scaled.factors) == 1 else None
    if inner is None or not is_close(shift, scaled.number):
        return None
    return scaled.number, operands(inner)[0], [inner, *scaled.nodes, add]


def _erf_argument(graph: Graph, value: Value, x: Value) -> list[Node] | None:
    """The nodes of x / sqrt(2), or None."""
    scaled = product(graph, value)
    return scaled.nodes if scaled.factors == [x] and is_close(scaled.number, math.sqrt(0.5)) else None


def _tanh_argument(graph: Graph, value: Value, x: Value) -> list[Node] | None:
    """The nodes of sqrt(2/pi) * (x + 0.044715 x^3), also with x taken out of the sum, or None."""
    scaled = product(graph, value)
    if not is_close(scaled.number, math.sqrt(2 / math.pi)):
        return None
    add = next((n for f in scaled.factors if (n := made_by(graph, f, Add)) is not None and f is not x), None)
    if add is None:
        return None
    rest = scaled.without(add.output)
    powers = 2 if rest == [x] else 3
    if rest not in ([x], []):
        return None
    for term, cubic in (operands(add), operands(add)[::-1]):
        is_first = term is x if powers == 3 else scalar(graph, term) == 1.0
        tail = product(graph, cubic)
        if is_first and tail.factors == [x] * powers and is_close(tail.number, 0.044715):
            return [*tail.nodes, add, *scaled.nodes]
    return None


def _gated(graph: Graph, node: Node, gate_op: type[Unary], op: Unary, because: str) -> Edit | None:
    for x, gate in (operands(node), operands(node)[::-1]):
        inner = made_by(graph, gate, gate_op)
        if inner is not None and inner.inputs[0] is x:
            return _activation(graph, node, [inner, node], x, op, because)
    return None


def _activation(graph: Graph, root: Node, inside: list[Node], x: Value, op: Unary, because: str) -> Edit | None:
    """`op` of x in place of the nodes `inside`, unless something else reads a value in between."""
    if not read_only_inside(graph, inside, [root.output]) or x.type != root.output.type:
        return None
    new = Rewrite(graph, root)
    new.finish(op, x)
    return new.edit(*inside, because=because)


RULES = (
    sigmoid_product_into_silu,
    softplus_product_into_mish,
    clip_product_into_hard_swish,
    erf_product_into_gelu,
    tanh_product_into_gelu,
)
