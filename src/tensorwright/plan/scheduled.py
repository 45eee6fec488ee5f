# SPDX-License-Identifier: Apache-2.0
"""The schedule of a graph that was cut into parts. A runtime does not need this file: it reads schedules from plans."""

from __future__ import annotations

from collections.abc import Iterable

from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.text import graph_text
from tensorwright.lower.partition import Division, Part
from tensorwright.ops.control_flow import If, Loop, Scan
from tensorwright.ops.label import label
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.schedule import (
    Body,
    HostSegment,
    HostStep,
    IfSegment,
    LoopSegment,
    NativeSegment,
    ScanSegment,
    Schedule,
    Segment,
)


def schedule_of(division: Division, key: str = "cpu") -> Schedule:
    """The schedule of a division whose native parts are called as `division.programs(key)` calls them."""
    graph = division.graph
    if division.is_whole:
        return Schedule((_native(graph, key),), graph.output_names)
    segments = tuple(_segment(part, division, f"{key}.{i}") for i, part in enumerate(division.parts))
    return Schedule(segments, tuple(value.name for value in graph.outputs))


def infos(values: Iterable[Value], names: Iterable[str]) -> tuple[TensorInfo, ...]:
    """The values as they are seen from outside, under these names."""
    return tuple(TensorInfo.of(name, value.type) for name, value in zip(names, values, strict=True))


def _segment(part: Part, division: Division, key: str) -> Segment:
    if part.control is not None:
        return _control(part.control, {name: _body(body, f"{key}.{name}") for name, body in part.bodies.items()})
    if part.program is not None:
        return _native(part.graph, key)
    steps = (HostStep(n.name, label(n.op), n.origin, division.host[n.name]) for n in part.graph.nodes)
    return HostSegment(graph_text(part.graph), tuple(steps))


def _native(graph: Graph, key: str) -> NativeSegment:
    return NativeSegment(key, _inputs(graph), infos(graph.outputs, graph.output_names))


def _control(node: Node, bodies: dict[str, Body]) -> IfSegment | LoopSegment | ScanSegment:
    op, outputs = node.op, tuple(value.name for value in node.outputs)
    inputs = tuple("" if value is None else value.name for value in node.inputs)
    if isinstance(op, If):
        return IfSegment(inputs, outputs, bodies["then_body"], bodies["else_body"])
    if isinstance(op, Loop):
        return LoopSegment(inputs, outputs, op.carried, op.conditional, bodies["body"])
    assert isinstance(op, Scan)
    ways = (op.input_axes, op.input_backwards, op.output_axes, op.output_backwards)
    return ScanSegment(inputs, outputs, op.carried, *ways, bodies["body"])


def _body(division: Division, key: str) -> Body:
    graph = division.graph
    return Body(_inputs(graph), infos(graph.outputs, graph.output_names), schedule_of(division, key))


def _inputs(graph: Graph) -> tuple[TensorInfo, ...]:
    return infos(graph.inputs, (value.name for value in graph.inputs))
