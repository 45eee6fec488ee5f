# SPDX-License-Identifier: Apache-2.0
"""Names across the borders of subgraphs: what a node reads from outside, and a branch moved into its outer graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, NodeProto


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The subgraphs of a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names_read(node: NodeProto) -> list[str]:
    """Every tensor of its graph that the node reads, once each: its inputs, then what its subgraphs take from there."""
    names = dict.fromkeys(filter(None, node.input))
    for body in bodies(node):
        names |= dict.fromkeys(_free_names(body))
    return list(names)


def _free_names(graph: GraphProto) -> Iterator[str]:
    own = _own_names(graph)
    for node in graph.node:
        yield from (name for name in names_read(node) if name not in own)
    yield from (info.name for info in graph.output if info.name not in own)


def _own_names(graph: GraphProto) -> set[str]:
    names = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    return names | {name for node in graph.node for name in node.output if name}


def renamed_body(graph: GraphProto, prefix: str) -> GraphProto:
    """A copy of a subgraph in which its own names begin with `prefix`, so that they are unique outside as well."""
    result = GraphProto()
    result.CopyFrom(graph)
    _rename(result, {name: prefix + name for name in _own_names(graph)})
    for node in result.node:
        node.name = prefix + (node.name or f"{node.op_type}:{next(iter(node.output), '').removeprefix(prefix)}")
    return result


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        named.name = names.get(named.name, named.name)
    for node in graph.node:
        for fields in (node.input, node.output):
            fields[:] = [names.get(name, name) for name in fields]
        for body in bodies(node):
            own = _own_names(body)
            _rename(body, {old: new for old, new in names.items() if old not in own})
