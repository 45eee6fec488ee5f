# SPDX-License-Identifier: Apache-2.0
"""Puts scaled dot-product attention together: softmax(scale * q k^T + mask) v as one node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ops.attention import Attention
from tensorwright.ops.elementwise import Add, Mul, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Softmax
from tensorwright.ops.shape import Transpose
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import commuted, made_by, operands, read_only_inside, scalar, with_constant

_AS_GOOD_AS_INFINITE = -1e30  # below this, any score that is added vanishes in f32


@dataclass(frozen=True, slots=True)
class _Masked:
    """Scores before the mask, the mask as addend or as the condition of a Where, and the nodes in between."""

    scores: Value
    nodes: tuple[Node, ...] = ()
    addend: Value | None = None
    condition: tuple[Value, Value, bool] | None = None  # (condition, constant, whether true keeps the score)


@rule(on=MatMul, name="matmul_softmax_matmul_into_attention")
def matmul_softmax_matmul_into_attention(graph: Graph, node: Node) -> Edit | None:
    """The second matrix product of an attention whose scores and probabilities nothing else reads."""
    probabilities, v = operands(node)
    softmax = made_by(graph, probabilities, Softmax)
    if softmax is None or softmax.op != Softmax(probabilities.type.rank - 1) or node.output.type.dtype is not DType.f32:
        return None
    for masked in _unmasked(graph, operands(softmax)[0]):
        scores, scale, scaling = _unscaled(graph, masked.scores)
        product = made_by(graph, scores, MatMul)
        if product is None:
            continue
        q, q_scale, q_nodes = _unscaled(graph, operands(product)[0])
        k, k_scale, k_nodes = _unscaled(graph, operands(product)[1])
        same_batch = len({x.type.shape[:-2] for x in (q, k, v)}) == 1 and min(q.type.rank, k.type.rank) >= 2
        if scores.type != probabilities.type or not same_batch:
            continue
        nodes = (*q_nodes, *k_nodes, product, *scaling, *masked.nodes, softmax, node)
        if not read_only_inside(graph, nodes, [node.output]):
            continue
        new = Rewrite(graph, node)
        keys, merged = _keys(graph, new, k, kept=(q, v, masked.addend))
        mask = _additive_mask(graph, new, masked)
        new.finish(Attention(scale * q_scale * k_scale), q, keys, v, *([mask] if mask is not None else []))
        return new.edit(*nodes, *merged, because="softmax(scale * q k^T + mask) v needs no score matrix in memory")
    return None


def _unmasked(graph: Graph, value: Value) -> list[_Masked]:
    """The ways to read `value` as masked scores, the plain one last."""
    found: list[_Masked] = []
    add = made_by(graph, value, Add)
    if add is not None:
        found += [_Masked(scores, (add,), addend=mask) for scores, mask in commuted(add)]
    where = made_by(graph, value, Where)
    if where is not None:
        condition, yes, no = operands(where)
        for scores, constant, keeps in ((yes, no, True), (no, yes, False)):
            number = scalar(graph, constant)
            if number is not None and number <= _AS_GOOD_AS_INFINITE:
                found.append(_Masked(scores, (where,), condition=(condition, constant, keeps)))
    return [*found, _Masked(value)]


def _unscaled(graph: Graph, value: Value) -> tuple[Value, float, tuple[Node, ...]]:
    """`value` without multiplications by scalar constants that only feed it: (value, factor, nodes)."""
    factor = 1.0
    nodes: list[Node] = []
    while True:
        mul = made_by(graph, value, Mul) if graph.only_user(value) else None
        pair = with_constant(graph, mul) if mul else None
        number = scalar(graph, pair[1]) if pair else None
        if mul is None or pair is None or number is None or pair[0].type != value.type:
            return value, factor, tuple(nodes)
        factor *= number
        nodes.append(mul)
        value = pair[0]


def _keys(
    graph: Graph, new: Rewrite, transposed: Value, kept: Sequence[Value | None]
) -> tuple[Value, tuple[Node, ...]]:
    """The keys [.., N, D] for the operand [.., D, N], and a transposition that becomes superfluous.

    It does not when another operand of the attention, one of `kept`, is the same value.
    """
    rank = transposed.type.rank
    source, perm = transposed, tuple(range(rank))
    before = made_by(graph, transposed, Transpose)
    if before is not None and isinstance(before.op, Transpose):
        source, perm = operands(before)[0], before.op.perm
    unread = graph.only_user(transposed) is not None and transposed not in kept
    dropped = before if unread else None
    perm = (*perm[:-2], perm[-1], perm[-2])
    origin = before.origin if before is not None else ()
    keys = source if perm == tuple(range(rank)) else new.add(Transpose(perm), source, heir_of=dropped, origin=origin)
    return keys, (dropped,) if dropped is not None else ()


def _additive_mask(graph: Graph, new: Rewrite, masked: _Masked) -> Value | None:
    if masked.condition is None:
        return masked.addend
    condition, constant, keeps = masked.condition
    zero = new.constant(np.zeros((), constant.type.dtype.numpy), "zero")
    lowest = new.constant(graph.constants[constant].reshape(()), "masked")
    return new.add(Where(), condition, *((zero, lowest) if keeps else (lowest, zero)))


RULES = (matmul_softmax_matmul_into_attention,)
