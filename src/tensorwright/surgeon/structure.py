# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph as a graph: who makes and reads each tensor, order, what is unused."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Collection, Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.check import described


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a control-flow node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: NodeProto) -> list[str]:
    """The tensors that a node reads, each once; those that its bodies take from outside included."""
    names = dict.fromkeys(filter(None, node.input))
    for body in subgraphs(node):
        names.update(dict.fromkeys(_captured(body)))
    return list(names)


def _captured(graph: GraphProto) -> list[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {t.values.name for t in graph.sparse_initializer} | {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in reads(node)] + [output.name for output in graph.output]
    return [name for name in read if name not in own]


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Tensor name to the node that makes it. Raises ModelError M123 when two nodes make the same tensor."""
    made: dict[str, NodeProto] = {}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                raise ModelError(
                    f"tensor {name!r} is made twice",
                    why=f"by {described(made[name])} and by {described(node)}",
                    do="correct the model where it is exported",
                    code="M123",
                )
            made[name] = node
    return made


def given_names(graph: GraphProto) -> set[str]:
    """Inputs and stored tensors."""
    names = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    return names | {t.values.name for t in graph.sparse_initializer}


def tensor_names(graph: GraphProto) -> list[str]:
    """All tensors of the main graph: inputs, stored tensors, results."""
    return [*sorted(given_names(graph)), *(name for node in graph.node for name in node.output if name)]


def require_tensors(graph: GraphProto, names: Iterable[str]) -> None:
    """Raises ModelError M120 that lists the unknown names with those that are near."""
    known = tensor_names(graph)
    _require(names, known, "tensor")


def find_node(graph: GraphProto, name: str) -> NodeProto:
    """The node of this name, or for nameless nodes the one that makes the tensor. Raises ModelError M120."""
    nodes: list[NodeProto] = list(graph.node)
    for node in nodes:
        if node.name == name:
            return node
    made = producers(graph)
    _require([name], [*(node.name for node in graph.node if node.name), *made], "node")
    return made[name]


def _require(names: Iterable[str], known: Collection[str], kind: str) -> None:
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    why = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
        why.append(f"{name!r}: " + (f"near names are {', '.join(near)}" if near else "no name is near"))
    raise ModelError(
        f"the model has no {kind} named {', '.join(map(repr, unknown))}",
        why=why,
        do="`tensorwright explain` lists the nodes; copy the name from there or from a model viewer",
        code="M120",
    )


def needed(graph: GraphProto, outputs: Iterable[str], stop: Collection[str] = ()) -> set[int]:
    """Positions of the nodes that `outputs` depend on, not looking behind the tensors in `stop`."""
    place = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    found: set[int] = set()
    waiting = [name for name in outputs if name not in stop]
    while waiting:
        position = place.get(waiting.pop())
        if position is not None and position not in found:
            found.add(position)
            waiting.extend(name for name in reads(graph.node[position]) if name not in stop)
    return found


def sort_nodes(graph: GraphProto) -> bool:
    """Put producers before readers, in place, keeping the order where it is right; whether anything moved.

    Raises ModelError M123 for a cycle and for a tensor that nothing makes.
    """
    producers(graph)
    place = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    given = given_names(graph)
    missing = [
        f"{described(node)} reads {name!r}"
        for node in graph.node
        for name in reads(node)
        if name not in given | set(place)
    ]
    if missing:
        raise ModelError(
            "the model reads tensors that nothing makes",
            why=missing[:10],
            do="correct the model where it is exported",
            code="M123",
        )
    waits = [{place[name] for name in reads(node) if name in place} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for position, sources in enumerate(waits):
        for source in sources:
            readers.setdefault(source, []).append(position)
    ready = [position for position, sources in enumerate(waits) if not sources]
    order: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for reader in readers.get(position, ()):
            waits[reader].discard(position)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(graph.node):
        stuck = [described(graph.node[position]) for position in range(len(graph.node)) if waits[position]]
        raise ModelError(
            "nodes of the model depend on themselves",
            why=stuck[:10],
            do="correct the model where it is exported",
            code="M123",
        )
    if order == sorted(order):
        return False
    keep_nodes(graph, order)
    return True


def keep_nodes(graph: GraphProto, positions: Iterable[int]) -> None:
    """Keep only these nodes, in this order, in place."""
    nodes = []
    for position in positions:
        node = NodeProto()
        node.CopyFrom(graph.node[position])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def drop_unused(model: ModelProto) -> list[str]:
    """Remove nodes and stored tensors that no output depends on, in place; what was removed.

    Inputs stay: they are the model's interface. So does the second result of a node whose first one is read.
    """
    graph = model.graph
    kept = needed(graph, [output.name for output in graph.output])
    dropped = [described(node) for position, node in enumerate(graph.node) if position not in kept]
    keep_nodes(graph, sorted(kept))
    used = {name for node in graph.node for name in reads(node)} | {output.name for output in graph.output}
    inputs = {i.name for i in graph.input}
    for stored in (graph.initializer, graph.sparse_initializer):
        for index in range(len(stored) - 1, -1, -1):
            name = stored[index].name if stored is graph.initializer else stored[index].values.name
            if name not in used and name not in inputs:
                dropped.append(f"stored tensor {name!r}")
                del stored[index]
    known = used | {name for node in graph.node for name in node.output}
    for index in range(len(graph.value_info) - 1, -1, -1):
        if graph.value_info[index].name not in known:
            del graph.value_info[index]
    return dropped
