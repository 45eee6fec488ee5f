# SPDX-License-Identifier: Apache-2.0
"""The rules that every graph keeps, checked after edits and stages."""

from __future__ import annotations

from collections.abc import Iterable

from tensorwright.errors import InternalError
from tensorwright.ir.graph import Graph, Node, Value, bodies_of
from tensorwright.ir.op import Array
from tensorwright.ir.text import INLINE_ELEMS


def verify(graph: Graph) -> None:
    """Raise InternalError, naming the node or value, unless

    * every value is defined once (input, constant or node output) and every read value is defined,
    * value names, node names and output names are unique, and there is no cycle,
    * the types of node outputs are what the op infers, and constants have the shape and dtype of their values,
    * all this holds inside bodies, and no two graphs store different constants under one name.
    """
    _verify(graph)
    _stored(graph, {})


def _verify(graph: Graph) -> None:
    _check_unique(graph, "output name", graph.output_names)
    _check_unique(graph, "node name", [node.name for node in graph.nodes])
    defined = [*graph.inputs, *graph.constants, *(value for node in graph.nodes for value in node.outputs)]
    _check_unique(graph, "value name", [value.name for value in defined])
    known = set(defined)
    for node in graph.nodes:
        _check_node(graph, node, known)
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        if value not in known:
            raise _defect(graph, f"output {name!r} reads {value}, which nothing defines")
    for value, array in graph.constants.items():
        if array.shape != value.type.shape or array.dtype != value.type.dtype.numpy:
            raise _defect(graph, f"constant {value} holds an array of {array.dtype}{list(array.shape)}")
    for node in graph.nodes:
        for body in bodies_of(node.op).values():
            _verify(body)


def _stored(graph: Graph, seen: dict[str, Array]) -> None:
    for value, array in graph.constants.items():
        if array.size > INLINE_ELEMS and seen.setdefault(value.name, array) is not array:
            raise _defect(graph, f"constant {value} is another one in another graph")
    for node in graph.nodes:
        for body in bodies_of(node.op).values():
            _stored(body, seen)


def _check_node(graph: Graph, node: Node, known: set[Value]) -> None:
    for operand in node.inputs:
        if operand is not None and operand not in known:
            raise _defect(graph, f"node {node} reads {operand}, which nothing defines")
    for value in node.outputs:
        if graph.producer(value) is not node:
            raise _defect(graph, f"node {node} is not the only producer of {value}")
    try:
        inferred = node.op.infer(*(v.type if v is not None else None for v in node.inputs))
    except ValueError as error:
        raise _defect(graph, f"node {node} does not take its inputs: {error}") from error
    recorded = tuple(value.type for value in node.outputs)
    if inferred != recorded:
        raise _defect(graph, f"node {node} gives {_listed(inferred)} but records {_listed(recorded)}")


def _check_unique(graph: Graph, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _defect(graph, f"{what} {name!r} is used twice")
        seen.add(name)


def _listed(types: Iterable[object]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _defect(graph: Graph, what: str) -> InternalError:
    return InternalError(what, where=f"graph {graph.name!r}")
