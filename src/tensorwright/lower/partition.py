# SPDX-License-Identifier: Apache-2.0
"""Cuts a graph into segments: native ones, which become programs, and host ones, whose nodes run in NumPy.

A node runs on the host when no kernel can run it, and for no other reason. Most graphs have no such node;
`divide` then gives the one program that `lower` gives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.lower.program import Program
from tensorwright.ops.host import OnnxHost


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes that run together, in a topological order."""

    nodes: tuple[Node, ...]
    host: bool


@dataclass(frozen=True)
class Part:
    """A segment as a graph of its own over the same values; `program` is its lowered form when it is native."""

    graph: Graph
    program: Program | None


@dataclass(frozen=True)
class Division:
    """A graph cut into parts to run in this order, and why each host node is one (by node name).

    `is_whole`: the graph is one program, its only part.
    """

    parts: tuple[Part, ...]
    host: Mapping[str, str]
    is_whole: bool = False


def host_reason(node: Node) -> str | None:
    """Why no kernel can run the node whatever the target, or None."""
    if isinstance(node.op, OnnxHost):
        return "there is no kernel for this operator"
    types = [value.type for value in (*node.inputs, *node.outputs) if value is not None]
    loose = next((t for t in types if isinstance(t, TensorType) and not t.is_static), None)
    if any(not isinstance(t, TensorType) or t.dtype is DType.object for t in types):
        return "it handles values that are not numeric tensors"
    if loose is not None:
        return f"the shape {loose} is known only when it runs"
    if len(node.outputs) != 1:
        return f"kernels have one result; it has {len(node.outputs)}"
    return None


def divide(graph: Graph, refused: Callable[[Program], Mapping[str, str]]) -> Division:
    """Cut the graph so that every native part lowers to a program whose steps all have a kernel.

    `refused` tells the names of the graph nodes whose steps no kernel accepts, each with the reason; they become
    host nodes and the graph is cut again. A program may refuse a step of no node only where it copies an input or
    constant to an output, which a host part can do as well.
    """
    host = {node.name: reason for node in graph.nodes if (reason := host_reason(node)) is not None}
    whole = not host and all(v.type.is_static and v.type.dtype is not DType.object for v in graph.outputs)
    if whole:
        program = lower(graph)
        lost = refused(program)
        if not lost:
            return Division((Part(graph, program),), {}, is_whole=True)
        host.update((name, reason) for name, reason in lost.items() if name)
    while True:
        segments = partition(graph, lambda node: host.get(node.name))
        graphs = _graphs(graph, segments)
        parts = tuple(Part(g, None if s.host else lower(g)) for g, s in zip(graphs, segments, strict=True))
        lost = {k: v for part in parts if part.program is not None for k, v in refused(part.program).items()}
        if not lost:
            return Division(parts, host)
        host.update(lost)


def partition(graph: Graph, why_host: Callable[[Node], str | None]) -> list[Segment]:
    """Alternating segments in execution order, with as few native ones as possible.

    Each segment takes every node of its kind whose producers have run, so nothing flows back into an earlier one.
    A first host segment keeps a graph output that no node makes (a constant), even when it has no nodes.
    """
    hosts = {node for node in graph.nodes if why_host(node)}
    ways = [_alternate(graph, hosts, first) for first in (False, True)]
    best = min(ways, key=lambda way: (sum(not s.host for s in way), len(way)))
    if not any(s.host for s in best) and any(v in graph.constants for v in graph.outputs):
        best.insert(0, Segment((), host=True))
    return best


def _alternate(graph: Graph, hosts: set[Node], host_first: bool) -> list[Segment]:
    order = {node: number for number, node in enumerate(graph.nodes)}
    waiting = {node: len({p for v in node.inputs if (p := graph.producer(v)) is not None}) for node in order}
    ready: dict[bool, deque[Node]] = {False: deque(), True: deque()}
    for node in order:
        if not waiting[node]:
            ready[node in hosts].append(node)
    segments: list[Segment] = []
    host = host_first
    while ready[False] or ready[True]:
        taken: list[Node] = []
        while ready[host]:
            node = ready[host].popleft()
            taken.append(node)
            for user in dict.fromkeys(u for value in node.outputs for u in graph.users(value)):
                waiting[user] -= 1
                if not waiting[user]:
                    ready[user in hosts].append(user)
        if taken:
            segments.append(Segment(tuple(sorted(taken, key=order.__getitem__)), host))
        host = not host
    return segments


def _graphs(graph: Graph, segments: Sequence[Segment]) -> list[Graph]:
    """The segments as graphs. Values keep their names; outputs are what others read or the whole graph gives."""
    given = [v for v in dict.fromkeys(graph.outputs) if v in graph.constants]
    graphs = []
    for number, segment in enumerate(segments):
        inside = set(segment.nodes)
        made = {value for node in segment.nodes for value in node.outputs}
        read = dict.fromkeys(v for node in segment.nodes for v in node.inputs if v is not None and v not in made)
        outputs: list[Value] = [
            value
            for node in segment.nodes
            for value in node.outputs
            if graph.is_output(value) or any(user not in inside for user in graph.users(value))
        ]
        constants = [v for v in read if v in graph.constants]
        if segment.host:  # the first one also gives the outputs that are constants
            outputs, constants, given = [*outputs, *given], list(dict.fromkeys([*constants, *given])), []
        graphs.append(
            Graph(
                f"{graph.name}.{number}",
                [v for v in read if v not in graph.constants],
                [(v.name, v) for v in outputs],
                segment.nodes,
                {v: graph.constants[v] for v in constants},
            )
        )
    return graphs
