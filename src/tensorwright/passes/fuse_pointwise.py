# SPDX-License-Identifier: Apache-2.0
"""Computes connected pointwise nodes in one pass over memory; afterwards every pointwise node is in a region."""

from __future__ import annotations

from collections.abc import Iterator

from tensorwright.ir.graph import Edit, Graph, Node
from tensorwright.passes.base import sweep
from tensorwright.passes.regions import fits, fuse, is_pointwise


@sweep(name="pointwise_nodes_into_region")
def pointwise_nodes_into_region(graph: Graph) -> Iterator[Edit]:
    """From the last node back: each pointwise node takes in the producers of its shape that only the region reads."""
    for outputs in [node.outputs for node in reversed(graph.nodes)]:
        root = graph.producer(outputs[0])
        if root is None or not is_pointwise(root):
            continue
        nodes = _grown(graph, root)
        because = "one pass over memory" if len(nodes) > 1 else "kernels know pointwise work as regions"
        yield fuse(graph, None, nodes, because)


@sweep(name="pointwise_node_into_region")
def pointwise_node_into_region(graph: Graph) -> Iterator[Edit]:
    """Each pointwise node on its own, as kernels need it when fusion was stopped."""
    for node in list(graph.nodes):
        if is_pointwise(node):
            yield fuse(graph, None, [node], "kernels know pointwise work as regions")


def _grown(graph: Graph, root: Node) -> list[Node]:
    """The region that ends in `root`, in topological order.

    Adding producers one by one, each with all its readers inside, keeps the region closed, so it can make no cycle.
    """
    found, inside = [root], {root}
    grew = True
    while grew:
        grew = False
        for value in [v for node in found for v in node.inputs]:
            node = graph.producer(value)
            if node is None or node in inside or value is None or not is_pointwise(node) or graph.is_output(value):
                continue
            if value.type.shape != root.output.type.shape or any(user not in inside for user in graph.users(value)):
                continue
            if not fits(graph, [*found, node]):
                continue
            found.append(node)
            inside.add(node)
            grew = True
    return _ordered(graph, root, inside)


def _ordered(graph: Graph, root: Node, inside: set[Node]) -> list[Node]:
    """The members of a region, producers first."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        for value in node.inputs:
            producer = graph.producer(value)
            if producer in inside and producer not in order and producer is not None:
                visit(producer)
        order[node] = None

    visit(root)
    return list(order)


RULES = (pointwise_nodes_into_region,)
SINGLE_RULES = (pointwise_node_into_region,)
