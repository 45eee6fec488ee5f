# SPDX-License-Identifier: Apache-2.0
"""Cutting graphs into native and host segments: nothing flows backwards, and native segments are as few as can be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Node
from tensorwright.ir.types import TensorType
from tensorwright.lower.partition import divide, partition
from tensorwright.lower.program import Program
from tensorwright.ops.elementwise import Add, Neg
from tests.lower.run_program import run_program

F32 = TensorType(DType.f32, (3,))


@st.composite
def marked_graphs(draw: st.DrawFn) -> tuple[Graph, set[str]]:
    """A random graph of additions over two inputs and a constant, and the names of its host nodes."""
    g = GraphBuilder("random")
    values = [g.input("x", F32), g.input("y", F32), g.constant(np.arange(3, dtype=np.float32), "k")]
    hosts = set()
    for i in range(draw(st.integers(0, 14))):
        a, b = (values[draw(st.integers(0, len(values) - 1))] for _ in range(2))
        (made,) = g.add(Add(), a, b, name=f"n{i}")
        values.append(made)
        if draw(st.booleans()):
            hosts.add(f"n{i}")
    for number in draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=3, unique=True)):
        g.output(values[number], f"out{number}")
    g.output(values[-1], "last")
    return g.finish(), hosts


def native_runs(graph: Graph, hosts: set[str]) -> int:
    """The most stretches of native nodes on any path: no partition can have fewer native segments."""
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = 0 if node.name in hosts else 1
        for before in filter(None, map(graph.producer, node.inputs)):
            crosses = before.name in hosts and node.name not in hosts
            depth[node] = max(depth[node], depth[before] + crosses)
    return max(depth.values(), default=0)


@given(marked_graphs())
@settings(max_examples=200, deadline=None)
def test_partition_keeps_order_covers_all_and_has_the_fewest_native_segments(case: tuple[Graph, set[str]]) -> None:
    graph, hosts = case
    segments = partition(graph, lambda node: "because" if node.name in hosts else None)
    at = {node: i for i, segment in enumerate(segments) for node in segment.nodes}
    assert sorted(n.name for n in at) == sorted(n.name for n in graph.nodes)
    assert sum(len(s.nodes) for s in segments) == len(graph.nodes)
    for number, segment in enumerate(segments):
        assert all((node.name in hosts) == segment.host for node in segment.nodes)
        assert number == 0 or segment.host != segments[number - 1].host
        seen = set()
        for node in segment.nodes:
            producers = [p for v in node.inputs if (p := graph.producer(v)) is not None]
            assert all(at[p] < number or p in seen for p in producers)  # so every segment is convex
            seen.add(node)
    assert sum(not s.host for s in segments) == native_runs(graph, hosts)


@given(marked_graphs())
@settings(max_examples=100, deadline=None)
def test_parts_run_one_after_the_other_give_the_graphs_result(case: tuple[Graph, set[str]]) -> None:
    graph, hosts = case

    def refused(program: Program) -> Mapping[str, str]:
        return {step.node: "refused" for step in program.steps if step.node in hosts}

    division = divide(graph, refused)
    assert set(division.host) == hosts
    feeds = {"x": np.array([1, 2, 3], np.float32), "y": np.array([5, 7, 11], np.float32)}
    wanted = interpret(graph, feeds)
    if division.is_whole:
        assert not hosts
        (part,) = division.parts
        assert part.program is not None
        results = run_program(part.program, feeds)
    else:
        values = dict(feeds)
        for part in division.parts:
            known = {v.name: values[v.name] for v in part.graph.inputs}
            values |= interpret(part.graph, known) if part.program is None else run_program(part.program, known)
        results = {n: values[v.name] for n, v in zip(graph.output_names, graph.outputs, strict=True)}
    for name, array in wanted.items():
        np.testing.assert_array_equal(results[name], array)


def test_parallel_host_branches_share_one_segment() -> None:
    g = GraphBuilder("branches")
    x = g.input("x", F32)
    (a,) = g.add(Neg(), x, name="a")
    ends = [g.add(Neg(), g.add(Neg(), a, name=f"host{i}")[0], name=f"end{i}")[0] for i in range(3)]
    for end in ends:
        g.output(end)
    segments = partition(g.finish(), lambda node: "why" if node.name.startswith("host") else None)
    assert [(s.host, len(s.nodes)) for s in segments] == [(False, 1), (True, 3), (False, 3)]


def test_graph_without_host_nodes_is_one_segment() -> None:
    g = GraphBuilder("plain")
    g.output(g.add(Neg(), g.add(Neg(), g.input("x", F32))[0])[0])
    division = divide(g.finish(), lambda program: {})
    assert division.is_whole and len(division.parts) == 1 and not division.host


def test_step_refused_only_after_a_cut_becomes_a_host_step_too() -> None:
    g = GraphBuilder("chain")
    x = g.input("x", F32)
    (a,) = g.add(Neg(), x, name="a")
    (b,) = g.add(Neg(), a, name="b")
    g.output(g.add(Neg(), b, name="c")[0])

    def refused(program: Program) -> Mapping[str, str]:
        names = [step.node for step in program.steps]
        return {"b": "no"} if names == ["a", "b", "c"] else {"a": "not alone"} if names == ["a"] else {}

    division = divide(g.finish(), refused)
    assert dict(division.host) == {"b": "no", "a": "not alone"}
    assert [part.program is None for part in division.parts] == [True, False]
