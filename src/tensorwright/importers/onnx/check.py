# SPDX-License-Identifier: Apache-2.0
"""Consistency of an ONNX graph as a graph: names, producers, order. Types are checked while importing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from onnx import GraphProto, NodeProto

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_wanted
from tensorwright.importers.onnx.load import LoadedModel
from tensorwright.importers.onnx.prepare import domain_of
from tensorwright.importers.onnx.scope import names_read


def source_name(node: NodeProto) -> str:
    """The node's name, or for a nameless one its op type and first output."""
    return node.name or f"{node.op_type}:{next((o for o in node.output if o), '')}"


def described(node: NodeProto) -> str:
    """The node in messages."""
    return f"node {source_name(node)!r} ({node.op_type})"


def needed_nodes(model: LoadedModel, outputs: Sequence[str] | None) -> list[NodeProto]:
    """The nodes that the outputs depend on, producers first.

    `outputs` are any tensor names, by default the model's outputs. Raises ModelError M104 that lists every problem of
    the graph, M107 for an unknown name in `outputs`.
    """
    graph = model.proto.graph
    problems: list[str] = []
    if model.opset < 1 and any(not domain_of(node) for node in graph.node):
        problems.append("it does not say which opset it uses (no opset_import of the default domain)")
    if not graph.output:
        problems.append("it has no outputs")
    problems += (f"output {name!r} is declared twice" for name in _repeated(o.name for o in graph.output))
    if graph.sparse_initializer:
        problems.append(f"it has {len(graph.sparse_initializer)} sparse initializers; store them dense")
    given = _given_names(graph, problems)
    producer = _producers(graph, given, problems)
    if outputs is not None:
        check_wanted(outputs, [*given, *producer], model.where)
    order = _sorted(outputs if outputs is not None else [o.name for o in graph.output], given, producer, problems)
    if problems:
        raise ModelError(
            "the model is inconsistent",
            where=model.where,
            why=problems,
            code="M104",
            do="export the model again; onnx.checker.check_model shows what else it finds",
        )
    return order


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _given_names(graph: GraphProto, problems: list[str]) -> set[str]:
    """Names of inputs and initializers; an initializer may repeat an input."""
    given: set[str] = set()
    for kind, names in (("input", [i.name for i in graph.input]), ("initializer", [t.name for t in graph.initializer])):
        seen: set[str] = set()
        for name in names:
            if name in seen or not name:
                problems.append(f"{kind} {name!r} is declared twice" if name else f"an {kind} has no name")
            seen.add(name)
        given |= seen
    return given


def _producers(graph: GraphProto, given: set[str], problems: list[str]) -> dict[str, NodeProto]:
    producer: dict[str, NodeProto] = {}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in producer or name in given:
                first = source_name(producer[name]) if name in producer else "an input or initializer"
                problems.append(f"tensor {name!r} is made twice: by {first} and by {described(node)}")
            producer.setdefault(name, node)
    return producer


def _sorted(
    wanted: Iterable[str], given: set[str], producer: dict[str, NodeProto], problems: list[str]
) -> list[NodeProto]:
    """Depth-first from the outputs; a node that is met again while open closes a cycle."""
    order: list[NodeProto] = []
    state: dict[int, bool] = {}  # id of a node: False while its inputs are visited, True when placed
    stack: list[tuple[NodeProto | None, str]] = []

    def visit(name: str, reader: str) -> None:
        node = producer.get(name)
        if node is not None and id(node) not in state:
            state[id(node)] = False
            stack.append((node, ""))
            names = names_read(node)
            stack.extend((None, name) for name in reversed(names))
            readers.update(dict.fromkeys(names, described(node)))
        elif node is not None and not state[id(node)]:
            problems.append(f"{described(node)} depends on itself")
        elif node is None and name not in given:
            problems.append(f"{reader} reads {name!r}, which nothing makes")

    readers: dict[str, str] = {}
    for output in wanted:
        visit(output, f"output {output!r}")
        while stack:
            node, name = stack.pop()
            if node is not None:
                state[id(node)] = True
                order.append(node)
            else:
                visit(name, readers[name])
    return order
