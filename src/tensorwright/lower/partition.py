# SPDX-License-Identifier: Apache-2.0
"""Cuts a graph into segments: native ones, which become programs, host ones, whose nodes run in NumPy, and single nodes
with bodies, which are cut in the same way.

A node runs on the host when no kernel can run it, and for no other reason. Most graphs have no such node, and none with
bodies; `divide` then gives the one program that `lower` gives.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tensorwright.ir.assumed import assuming
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.lower.program import Program
from tensorwright.ops.control_flow import ControlFlow
from tensorwright.ops.host import OnnxHost


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes that run together, in a topological order; `control`: one node with bodies."""

    nodes: tuple[Node, ...]
    host: bool
    control: bool = False


@dataclass(frozen=True)
class Part:
    """A segment as a graph of its own over the same values; `program` is its lowered form when it is native, `bodies`
    are the cut bodies of its only node when that has some."""

    graph: Graph
    program: Program | None
    bodies: Mapping[str, Division] = field(default_factory=dict)

    @property
    def control(self) -> Node | None:
        """The node with bodies that the part is."""
        return self.graph.nodes[0] if self.bodies else None


@dataclass(frozen=True)
class Division:
    """A graph cut into parts to run in this order, and why each host node is one (by node name).

    `is_whole`: the graph is one program, its only part.
    """

    graph: Graph
    parts: tuple[Part, ...]
    host: Mapping[str, str]
    is_whole: bool = False

    @property
    def host_nodes(self) -> tuple[tuple[Node, str], ...]:
        """All host nodes with their reasons, those of bodies as well, in execution order."""
        found: list[tuple[Node, str]] = []
        for part in self.parts:
            if part.program is None and not part.bodies:
                found += [(node, self.host[node.name]) for node in part.graph.nodes]
            for body in part.bodies.values():
                found += body.host_nodes
        return tuple(found)

    def programs(self, key: str = "cpu") -> dict[str, Program]:
        """The native programs, those of bodies as well, each by a name of its own: `key` for the whole, else `key.0`,
        `key.1`, ... by part, and `key.1.then_body.0`, ... inside bodies."""
        found: dict[str, Program] = {}
        for number, part in enumerate(self.parts):
            if part.program is not None:
                found[key if self.is_whole else f"{key}.{number}"] = part.program
            for name, body in part.bodies.items():
                found |= body.programs(f"{key}.{number}.{name}")
        return found


def host_reason(node: Node) -> str | None:
    """Why no kernel can run the node whatever the target, or None."""
    if isinstance(node.op, OnnxHost):
        return node.op.reason or "there is no kernel for this operator"
    if isinstance(node.op, ControlFlow):
        return None
    types = [value.type for value in (*node.inputs, *node.outputs) if value is not None]
    loose = next((t for t in types if isinstance(t, TensorType) and not t.is_bounded), None)
    if any(not isinstance(t, TensorType) or t.dtype is DType.object for t in types):
        return "it handles values that are not numeric tensors"
    if loose is not None:
        return f"the shape {loose} is known only when it runs"
    if len(node.outputs) != 1:
        return f"kernels have one result; it has {len(node.outputs)}"
    return None


def _size_reason(node: Node, told: Collection[str]) -> str | None:
    """Why kernels cannot rely on the node's sizes, or None. `told` are the symbols that shapes of inputs tell: what is
    assumed of them is checked before a run."""
    with assuming() as assumed:
        node.op.infer(*(None if v is None else v.type for v in node.inputs))
    if assumed.open:
        return "whether {} is broadcast to {} is known only in a run".format(*assumed.open[0])
    found = [p for p in assumed.equal if any(not d.symbols <= set(told) for d in p if isinstance(d, SymDim))]
    return "whether {} is {} is known only in a run".format(*found[0]) if found else None


def assumed_equal(graph: Graph) -> list[tuple[Dim, Dim, Node]]:
    """Pairs of sizes that a run must find equal, with the nodes that need it, those inside bodies as well."""
    found: list[tuple[Dim, Dim, Node]] = []
    for node in graph.nodes:
        with assuming() as assumed:
            node.op.infer(*(None if v is None else v.type for v in node.inputs))
        found += [(a, b, node) for a, b in assumed.equal]
        if isinstance(node.op, ControlFlow):
            found += [pair for body in node.op.bodies.values() for pair in assumed_equal(body)]
    return found


def divide(graph: Graph, refused: Callable[[Program], Mapping[str, str]]) -> Division:
    """Cut the graph so that every native part lowers to a program whose steps all have a kernel.

    `refused` tells the names of the graph nodes whose steps no kernel accepts, each with the reason; they become
    host nodes and the graph is cut again. Bodies are cut in the same way. A program may refuse a step of no node only
    where it copies an input or constant to an output, which a host part can do as well.
    """
    told = {s for v in graph.inputs for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    reasons = ((node, host_reason(node) or _size_reason(node, told)) for node in graph.nodes)
    host = {node.name: reason for node, reason in reasons if reason is not None}
    bodies = {node: _divided(node.op, refused) for node in graph.nodes if isinstance(node.op, ControlFlow)}
    bounded = all(v.type.is_bounded and v.type.dtype is not DType.object for v in graph.outputs)
    if bounded and not host and not bodies:
        program = lower(graph)
        lost = refused(program)
        if not lost:
            return Division(graph, (Part(graph, program),), {}, is_whole=True)
        host.update((name, reason) for name, reason in lost.items() if name)
    while True:
        segments = partition(graph, lambda node: host.get(node.name))
        graphs = _graphs(graph, segments)
        parts = tuple(
            Part(g, None, bodies[s.nodes[0]]) if s.control else Part(g, None if s.host else lower(g))
            for g, s in zip(graphs, segments, strict=True)
        )
        lost = {k: v for part in parts if part.program is not None for k, v in refused(part.program).items()}
        if not lost:
            return Division(graph, parts, host)
        host.update(lost)


def _divided(op: ControlFlow, refused: Callable[[Program], Mapping[str, str]]) -> dict[str, Division]:
    return {name: divide(body, refused) for name, body in op.bodies.items()}


def partition(graph: Graph, why_host: Callable[[Node], str | None]) -> list[Segment]:
    """Alternating segments in execution order, with as few native ones as possible.

    Each segment takes every node of its kind whose producers have run, so nothing flows back into an earlier one.
    A first host segment keeps a graph output that no node makes (a constant) and the constants that nodes with bodies
    read, even when it has no nodes.
    """
    hosts = {node for node in graph.nodes if why_host(node)}
    others = hosts | {node for node in graph.nodes if isinstance(node.op, ControlFlow)}
    ways = [_alternate(graph, others, first) for first in (False, True)]
    best = min(ways, key=lambda way: (sum(not s.host for s in way), len(way)))
    best = [part for s in best for part in (_without_control(s) if s.host else [s])]
    given = any(v in graph.constants for v in graph.outputs) and not any(s.host for s in best)
    if given or (best and not best[0].host and _read_by_control(graph)):
        best.insert(0, Segment((), host=True))
    return best


def _read_by_control(graph: Graph) -> list[Value]:
    """Constants that nodes with bodies read; a host segment hands them out."""
    nodes = [node for node in graph.nodes if isinstance(node.op, ControlFlow)]
    return [v for node in nodes for v in node.inputs if v is not None and v in graph.constants]


def _without_control(segment: Segment) -> list[Segment]:
    """The segment with each node that has bodies in a segment of its own."""
    runs = itertools.groupby(segment.nodes, key=lambda n: n.name if isinstance(n.op, ControlFlow) else None)
    return [Segment(tuple(nodes), host=name is None, control=name is not None) for name, nodes in runs]


def _alternate(graph: Graph, hosts: set[Node], host_first: bool) -> list[Segment]:
    order = {node: number for number, node in enumerate(graph.nodes)}
    needs = {node: graph.needs(node) for node in order}
    users: dict[Node, list[Node]] = {node: [] for node in order}
    for node, before in needs.items():
        for other in before:
            users[other].append(node)
    waiting = {node: len(before) for node, before in needs.items()}
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
            for user in users[node]:
                waiting[user] -= 1
                if not waiting[user]:
                    ready[user in hosts].append(user)
        if taken:
            segments.append(Segment(tuple(sorted(taken, key=order.__getitem__)), host))
        host = not host
    return segments


def _graphs(graph: Graph, segments: Sequence[Segment]) -> list[Graph]:
    """The segments as graphs. Values keep their names; outputs are what others read or the whole graph gives."""
    given = list(dict.fromkeys([*(v for v in graph.outputs if v in graph.constants), *_read_by_control(graph)]))
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
        if segment.host:  # the first one also gives constants
            outputs, constants, given = [*outputs, *given], list(dict.fromkeys([*constants, *given])), []
        graphs.append(
            Graph(
                f"{graph.name}.{number}",
                [v for v in read if v not in graph.constants or segment.control],
                [(v.name, v) for v in outputs],
                segment.nodes,
                {} if segment.control else {v: graph.constants[v] for v in constants},
            )
        )
    return graphs
