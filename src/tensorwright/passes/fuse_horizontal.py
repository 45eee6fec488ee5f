# SPDX-License-Identifier: Apache-2.0
"""Horizontal fusion: sibling convolutions or matrix products on the same input become one wide one and views of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value, union_origins
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Add, Pointwise
from tensorwright.ops.fused import Fused
from tensorwright.ops.linear import MatMul
from tensorwright.ops.shape import Concat, Slice
from tensorwright.passes.base import Rewrite, Sweep, sweep
from tensorwright.passes.match import along_axis, per_channel
from tensorwright.passes.regions import is_pointwise

_LONGEST_TAIL = 8


@dataclass(slots=True)
class _Branch:
    """One sibling: the anchor, its bias over output channels (None: none), and the pointwise tail it has in common
    with its siblings. A tail entry is (node, constant over output channels or None for a unary op)."""

    anchor: Node
    axis: int
    weights: Array
    bias: Array | None
    tail: list[tuple[Node, Array | None]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    @property
    def result(self) -> Value:
        return self.nodes[-1].output

    @property
    def width(self) -> int:
        return int(self.weights.shape[-1 if isinstance(self.anchor.op, MatMul) else 0])

    @property
    def signature(self) -> Hashable:
        """Branches with equal signatures can be computed side by side."""
        return self.anchor.op, self.weights.shape[2:], tuple((repr(node.op), c is None) for node, c in self.tail)


def horizontal(*, kernels: int = 1, into_concat: bool = False) -> Sweep:
    """The sweep that fuses siblings.

    Convolutions qualify up to a kernel of `kernels` elements in each dim. A sibling whose result only enters a
    Concat stays alone unless `into_concat`: alone it writes its part of the Concat in place, a view would be copied.
    """

    @sweep(name="siblings_into_wide")
    def siblings_into_wide(graph: Graph) -> Iterator[Edit]:
        for value in [*graph.inputs, *(v for node in graph.nodes for v in node.outputs)]:
            groups: dict[Hashable, list[_Branch]] = {}
            users = graph.users(value)
            for user in users if len(users) > 1 else ():
                branch = _branch(graph, user, value, kernels)
                if branch is not None and (into_concat or graph.only_user(branch.result, of=Concat) is None):
                    groups.setdefault(branch.signature, []).append(branch)
            for group in groups.values():
                if len(group) > 1:
                    yield _wide(graph, group)

    return siblings_into_wide


def _branch(graph: Graph, node: Node, x: Value, kernels: int) -> _Branch | None:
    """The branch that starts at `node`, unless it must stay alone."""
    if not isinstance(node.op, MatMul | Convolution) or node.inputs[0] is not x or x in graph.constants:
        return None
    weights, *bias = (graph.constant(v) for v in node.inputs[1:])
    if weights is None or any(v is not None and v not in graph.constants for v in node.inputs[2:]):
        return None
    if isinstance(node.op, MatMul):
        if weights.ndim != 2 or x.type.rank < 2:
            return None
    elif node.op.groups != 1 or any(k > kernels for k in weights.shape[2:]):
        return None
    rank = node.output.type.rank
    axis = rank - 1 if isinstance(node.op, MatMul) else 1
    branch = _Branch(node, axis, weights, bias[0] if bias else None, nodes=[node])
    return branch if _follow(graph, branch) else None


def _follow(graph: Graph, branch: _Branch) -> bool:
    """Collect the tail of a branch. False when vertical fusion would do better: when work follows that could be the
    branch's own epilogue but cannot be done side by side."""
    value = branch.result
    while len(branch.tail) < _LONGEST_TAIL:
        if graph.is_output(value):
            return False
        if not any(_is_pointwise_reader(user, value) for user in graph.users(value)):
            return True
        node = graph.only_user(value)
        constant = _channel_constant(graph, branch, node, value) if node is not None and len(node.inputs) == 2 else None
        if node is None or not isinstance(node.op, Pointwise) or (constant is None and len(node.inputs) != 1):
            return False
        if isinstance(node.op, Add) and branch.bias is None and not branch.tail and constant is not None:
            branch.bias = constant
        else:
            branch.tail.append((node, constant))
        branch.nodes.append(node)
        value = node.output
    return False


def _is_pointwise_reader(node: Node, value: Value) -> bool:
    """Whether `node` does pointwise work on `value` that keeps its shape, also inside a region made earlier."""
    in_body = isinstance(node.op, Fused) and value in node.inputs[node.op.anchor_inputs :]
    return (in_body or is_pointwise(node)) and node.output.type == value.type


def _channel_constant(graph: Graph, branch: _Branch, node: Node, value: Value) -> Array | None:
    """The constant second operand of `node` as a vector over the branch's output channels."""
    array = graph.constant(node.inputs[1])
    if array is None or node.inputs[0] is not value:
        return None
    return along_axis(array, value.type.rank, branch.axis, branch.width)


def _wide(graph: Graph, group: Sequence[_Branch]) -> Edit:
    """One wide anchor with the common tail, then a slice for each branch."""
    first = group[0]
    nodes = [node for branch in group for node in branch.nodes]
    origin = union_origins(nodes)
    name = "+".join(branch.anchor.name for branch in group)
    is_matmul, rank = isinstance(first.anchor.op, MatMul), first.anchor.output.type.rank
    new = Rewrite(graph, first.anchor)

    def joined(vectors: Sequence[Array], what: str) -> Value:
        vector = np.concatenate(vectors).astype(first.result.type.dtype.numpy)
        return new.constant(vector if is_matmul else per_channel(vector, rank), f"{name}/{what}")

    weights = new.constant(np.concatenate([b.weights for b in group], axis=-1 if is_matmul else 0), f"{name}/weights")
    value = new.add(first.anchor.op, first.anchor.inputs[0], weights, name=name, origin=origin)
    if any(branch.bias is not None for branch in group):
        biases = [branch.bias if branch.bias is not None else np.zeros(branch.width) for branch in group]
        value = new.add(Add(), value, joined(biases, "bias"), name=f"{name}/add", origin=origin)
    for level, (node, constant) in enumerate(first.tail):
        constants = [c for branch in group if (c := branch.tail[level][1]) is not None]
        extra = [joined(constants, "operand")] if constant is not None else []
        value = new.add(node.op, value, *extra, name=f"{name}/{node.op.kind}", origin=origin)
    begin = 0
    for branch in group:
        part = Slice((begin,), (begin + branch.width,), (first.axis,), (1,))
        name = f"{branch.anchor.name}/part"
        new.finish(part, value, result=branch.result, name=name, origin=union_origins(branch.nodes))
        begin += branch.width
    what = "matrix products" if is_matmul else "convolutions"
    return new.edit(*nodes, because=f"{len(group)} {what} have one input: one of {begin} outputs reads it once")
