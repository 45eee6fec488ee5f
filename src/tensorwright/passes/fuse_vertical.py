# SPDX-License-Identifier: Apache-2.0
"""Vertical fusion: pointwise work after an anchor is computed on its results before they reach memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.op import Op
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import LayerNorm
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import Reduce, Softmax
from tensorwright.passes.base import sweep
from tensorwright.passes.regions import fits, fuse, is_pointwise

_TAKES_ANY: tuple[type[Op], ...] = (Convolution, Deconvolution, MatMul)
_TAKES_CONSTANTS: tuple[type[Op], ...] = (MaxPool, AveragePool, Reduce, Softmax, LayerNorm)
_LOOK_AHEAD = 12  # nodes within which the readers of a value must have met again


@sweep(name="pointwise_into_epilogue")
def pointwise_into_epilogue(graph: Graph) -> Iterator[Edit]:
    """An anchor takes in the pointwise nodes after it as long as one value leaves them.

    Later anchors are served first, so an addition of two anchors' results goes to the later one, which then reads
    the other's result from memory.
    """
    nodes = graph.nodes
    position = {value: i for i, node in enumerate(nodes) for value in node.outputs}
    for outputs in [node.outputs for node in reversed(nodes)]:
        anchor = graph.producer(outputs[0])
        if anchor is None or not _is_anchor(anchor):
            continue
        epilogue: list[Node] = []
        while more := _next_exit(graph, anchor, epilogue, position):
            epilogue += more
        if epilogue:
            yield fuse(
                graph,
                anchor,
                epilogue,
                f"done on the results of {anchor.op.kind} before they are stored: "
                + ", ".join(node.op.kind for node in epilogue),
            )


def _is_anchor(node: Node) -> bool:
    if not isinstance(node.op, (*_TAKES_ANY, *_TAKES_CONSTANTS)) or node.outputs[0].type.dtype is not DType.f32:
        return False
    return not isinstance(node.op, MatMul) or all(v is not None and v.type.rank >= 2 for v in node.inputs)


def _next_exit(graph: Graph, anchor: Node, taken: list[Node], position: Mapping[Value, int]) -> list[Node]:
    """The fewest further nodes after which a single value leaves the region again; empty when there are none.

    Readers are taken in topological order. Everything but the last value is read only inside, so no path leaves
    the region and comes back: the fused node makes no cycle.
    """
    last = taken[-1].output if taken else anchor.output
    more: list[Node] = []
    leaving = [last]
    while len(more) < _LOOK_AHEAD and not any(graph.is_output(v) for v in leaving):
        readers = {user for v in leaving for user in graph.users(v) if user not in more}
        reader = min(readers, key=lambda node: position[node.outputs[0]], default=None)
        inside = [*taken, *more]
        if reader is None or not _takes(graph, anchor, reader, inside):
            return []
        if not fits(graph, [*inside, reader], anchor.output):
            return []
        more.append(reader)
        leaving = [*(v for v in leaving if any(u not in more for u in graph.users(v))), reader.output]
        if leaving == [reader.output]:
            return more
    return []


def _takes(graph: Graph, anchor: Node, node: Node, inside: list[Node]) -> bool:
    """Whether the anchor's kernels can compute `node` after the nodes `inside`."""
    if not is_pointwise(node) or node.output.type != anchor.output.type:
        return False
    if any(v is None or v.type.dtype is not DType.f32 for v in node.inputs):
        return False
    if isinstance(anchor.op, _TAKES_ANY):
        return True
    made = {anchor.output, *(n.output for n in inside)}
    return all(v in made or v in graph.constants for v in node.inputs)


RULES = (pointwise_into_epilogue,)
