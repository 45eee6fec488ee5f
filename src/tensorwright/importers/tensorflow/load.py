# SPDX-License-Identifier: Apache-2.0
"""From a frozen GraphDef to a TfGraph: its placeholders, and the results that are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, check_wanted, mapped
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.graph_def import Ref, TfGraph, TfNode, flattened, origin, parse_ref, texts
from tensorwright.importers.tensorflow.schema import GraphDef

_NO_RESULT = (
    *("NoOp", "Assert", "Print", "PrintV2", "Const", "Placeholder", "PlaceholderWithDefault", "VarHandleOp"),
    *("Assign", "AssignVariableOp", "SaveV2", "RestoreV2", "MergeV2Checkpoints", "Variable", "VariableV2"),
)
"""Ops of which nobody asks the result."""

_PLUMBING = ("Switch", "RefSwitch", "_SwitchN", "LoopCond", "NextIteration", "RefNextIteration")
_LISTED = 8


def parse(data: bytes, message: Any, where: str, what: str) -> Any:
    """The message in these bytes. Raises ModelError M103."""
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"the file is not {what}, or is truncated",
            where=where,
            why=(f"{len(data)} bytes read", f"protobuf: {error}"),
            do="copy or export the model again",
            code="M103",
        ) from error
    return message


def load_frozen(path: str | os.PathLike[str], outputs: Sequence[str] | None, problems: Problems) -> TfGraph:
    """The TfGraph of a .pb file. Raises ModelError M101, M102, M103, M107 and M109 (several results, none named)."""
    where, data = os.fspath(path), mapped(path).tobytes()
    check_format(data, where, "a TensorFlow GraphDef")
    proto = parse(data, GraphDef(), where, "a TensorFlow GraphDef")
    if not proto.node or not all(isinstance(text, str) for text in texts(proto)):
        raise ModelError(
            "the file is not a TensorFlow GraphDef",
            where=where,
            why="it holds no nodes" if not proto.node else "names in it are no text",
            do="give a frozen GraphDef, or the folder of a SavedModel",
            code="M103",
        )
    library = {f.signature.name: f for f in proto.library.function}
    nodes = flattened(proto.node, library, problems)
    graph = TfGraph(where, nodes, library)
    graph.outputs = named_outputs(graph, outputs) if outputs is not None else {s: Ref(s, 0) for s in _sinks(graph)}
    everything = {name: Ref(name, 0) for name in nodes}
    graph.inputs = placeholders(nodes, graph.outputs) or placeholders(nodes, everything)  # results that nothing changes
    return graph


def named_outputs(graph: TfGraph, outputs: Sequence[str]) -> dict[str, Ref]:
    """The tensors that `outputs` names. Raises ModelError M107."""
    refs = {name: _ref(name) for name in outputs}
    missing = [name if ref.node not in graph.nodes else ref.node for name, ref in refs.items()]
    if any(ref.node not in graph.nodes for ref in refs.values()) or len(refs) != len(outputs) or not refs:
        check_wanted(missing if len(refs) == len(outputs) else outputs, list(graph.nodes), graph.where)
    return refs


def _ref(name: str) -> Ref:
    try:
        return parse_ref(name)
    except ValueError:
        return Ref(name, 0)


def _sinks(graph: TfGraph) -> list[str]:
    """The only result of the graph: what nothing reads. Raises ModelError M109 when there are several, or none."""
    read = {ref.node for node in graph.nodes.values() for ref in node.inputs}
    unread = [
        name
        for name, node in graph.nodes.items()
        if name not in read and node.op not in _NO_RESULT and not _is_pivot(graph.nodes, node)
    ]
    moving = _depending(graph.nodes)
    sinks = [name for name in unread if name in moving] or unread  # constants that nothing reads are left-overs
    if len(sinks) == 1:
        return sinks
    raise ModelError(
        f"the graph has {len(sinks)} results, and nothing says which are wanted",
        where=graph.where,
        why=", ".join(sinks[:_LISTED]) + (f" and {len(sinks) - _LISTED} more" if len(sinks) > _LISTED else ""),
        do="name those to compute with outputs=[...]",
        code="M109",
    )


def _depending(nodes: Mapping[str, TfNode]) -> set[str]:
    """The nodes whose results depend on what the graph is fed."""
    readers: dict[str, list[str]] = {}
    for node in nodes.values():
        for ref in node.inputs:
            readers.setdefault(ref.node, []).append(node.name)
    found, waiting = set[str](), [n.name for n in nodes.values() if n.op in ("Placeholder", "PlaceholderWithDefault")]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += readers.get(name, ())
    return found


def _is_pivot(nodes: Mapping[str, TfNode], node: TfNode) -> bool:
    """Whether a node only says which side of a condition, or how long a loop, runs; or is a loop variable that nobody
    reads afterwards."""
    if node.op in ("Merge", "RefMerge"):
        return bool(node.inputs) and all(_tells_side(nodes, ref) for ref in node.inputs)
    maker, _ = origin(nodes, Ref(node.name, 0))
    return maker is not None and maker.op in _PLUMBING or node.op in ("Exit", "RefExit")


def _tells_side(nodes: Mapping[str, TfNode], ref: Ref) -> bool:
    """Whether an output is a Switch of its own condition."""
    maker, _ = origin(nodes, ref)
    return maker is not None and maker.op in _PLUMBING and len(set(maker.inputs)) == 1


def placeholders(nodes: Mapping[str, TfNode], outputs: Mapping[str, Ref]) -> dict[str, Ref]:
    """The placeholders that the outputs need, in the graph's order, by name."""
    needed, waiting = set[str](), [ref.node for ref in outputs.values()]
    while waiting:
        name = waiting.pop()
        if name in needed or name not in nodes:
            continue
        needed.add(name)
        waiting += [ref.node for ref in nodes[name].inputs]
    return {name: Ref(name, 0) for name, node in nodes.items() if name in needed and node.op == "Placeholder"}
