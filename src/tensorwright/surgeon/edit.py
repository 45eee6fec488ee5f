# SPDX-License-Identifier: Apache-2.0
"""Inserts one node on a tensor, or puts one node in place of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, helper

from tensorwright.errors import ModelError
from tensorwright.surgeon.structure import (
    drop_unused,
    find_node,
    given_names,
    keep_nodes,
    producers,
    require_tensors,
    sort_nodes,
    subgraphs,
    tensor_names,
)
from tensorwright.surgeon.types import refresh_types


@dataclass(frozen=True, slots=True)
class NewNode:
    """The node to write: operator, attributes (as `onnx.helper.make_node` takes them), domain and name."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""


def insert(model: ModelProto, on: str, new: NewNode, *, more_inputs: Sequence[str] = ()) -> ModelProto:
    """A copy in which all readers of tensor `on` read the new node's result instead, and the new node reads `on`.

    `more_inputs` follow `on` as the node's inputs. Where `on` is an output of the model its name goes to the new
    result. Raises ModelError M120 for unknown tensors, M125 where `on` is both input and output.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    require_tensors(graph, (on, *more_inputs))
    source, target = on, _fresh(graph, f"{on}/{new.op}")
    if any(output.name == on for output in graph.output):
        source, target = _fresh(graph, f"{on}/before_{new.op}"), on
        _rename_made(graph, on, source)
    else:
        _rename_read(graph, on, target)
    graph.node.append(_node(graph, new, [source, *more_inputs], [target]))
    return _finished(result, new)


def replace(
    model: ModelProto,
    new: NewNode,
    *,
    node: str = "",
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> ModelProto:
    """A copy in which the new node makes `outputs` from `inputs`, and what only served the old way is gone.

    `node` names one node; its inputs and outputs then hold where others are not given. Raises ModelError M120 for
    unknown names, M125 when nothing says what to replace, or an output is no result of a node.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if node:
        old = find_node(graph, node)
        inputs = list(old.input) if inputs is None else inputs
        outputs = list(old.output) if outputs is None else outputs
        new = new if new.name else NewNode(new.op, new.attributes, old.name, new.domain)
    if inputs is None or not outputs:
        raise ModelError(
            "nothing says what to replace", do="name a node, or the inputs and the outputs of a region", code="M125"
        )
    require_tensors(graph, [name for name in (*inputs, *outputs) if name])
    given = [name for name in outputs if name in given_names(graph)]
    if given:
        raise ModelError(
            f"{', '.join(map(repr, given))} is no result of a node, so nothing can make it instead",
            do="to change what is read in its place, use insert",
            code="M125",
        )
    keep_nodes(graph, [i for i, maker in enumerate(graph.node) if not set(maker.output) & set(outputs)])
    graph.node.append(_node(graph, new, inputs, outputs))
    return _finished(result, new)


def _finished(model: ModelProto, new: NewNode) -> ModelProto:
    if new.domain and all(opset.domain != new.domain for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(new.domain, 1))
    sort_nodes(model.graph)
    drop_unused(model)
    refresh_types(model, fresh=True)
    return model


def _node(graph: GraphProto, new: NewNode, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    taken = {node.name for node in graph.node}
    name = new.name or f"{new.op}_{next(iter(outputs))}"
    if name in taken:
        name = next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)
    return helper.make_node(
        new.op, list(inputs), list(outputs), name=name, domain=new.domain or None, **dict(new.attributes)
    )


def _fresh(graph: GraphProto, wish: str) -> str:
    taken = set(tensor_names(graph))
    return next(n for n in (wish, *(f"{wish}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _rename_made(graph: GraphProto, old: str, name: str) -> None:
    """Let the tensor be made under another name; its readers go on reading the old one."""
    maker = producers(graph).get(old)
    stored = next((tensor for tensor in graph.initializer if tensor.name == old), None)
    if any(i.name == old for i in graph.input):
        raise ModelError(
            f"{old!r} is an input and an output of the model",
            why="its name cannot stand for two tensors",
            do="choose another tensor",
            code="M125",
        )
    if maker is not None:
        for index, output in enumerate(maker.output):
            if output == old:
                maker.output[index] = name
    elif stored is not None:
        stored.name = name


def _rename_read(graph: GraphProto, old: str, name: str) -> None:
    """Let all readers, those inside of control flow included, read another tensor."""
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == old:
                node.input[index] = name
        for body in subgraphs(node):
            own = {i.name for i in body.input} | {t.name for t in body.initializer}
            if old not in own | {made for inner in body.node for made in inner.output}:
                _rename_read(body, old, name)
                for output in body.output:
                    if output.name == old:
                        output.name = name
