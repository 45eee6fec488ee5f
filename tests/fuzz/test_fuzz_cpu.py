# SPDX-License-Identifier: Apache-2.0
"""Random networks through the whole road: native code against node-by-node evaluation."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.graph import Graph
from tensorwright.ir.op import Array
from tensorwright.ir.text import graph_text
from tensorwright.plan.plan import plan_bytes
from tests.passes.random_graphs import networks, random_feeds

COUNT = int(os.environ.get("TENSORWRIGHT_CASES", "40").replace("all", "1000"))
some = settings(max_examples=COUNT, deadline=None, derandomize=COUNT == 40, suppress_health_check=list(HealthCheck))


def assert_close(got: dict[str, Array], want: dict[str, Array], note: str) -> None:
    for name, expected in want.items():
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        close = np.isclose(got[name], expected, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
        assert got[name].shape == expected.shape and close.all(), f"{name}: {(~close).sum()} elements differ, {note}"


@some
@given(networks(), st.sampled_from(["cpu", "cpu:avx2"]))
def test_random_network_built_and_reloaded_matches_reference(case: tuple[Graph, int], target: str) -> None:
    graph, seed = case
    feeds = random_feeds(graph, seed)
    with np.errstate(all="ignore"):
        want = interpret(graph, feeds)
    note = f"seed {seed}, {target}\n{graph_text(graph)}"
    with tw.build(graph, target=target, tune="off") as engine:
        first = engine.run(feeds)
        assert_close(first, want, note)
        again = engine.run(feeds)
        saved = plan_bytes(engine.plan)
    with tw.load(saved, target=target) as engine:
        loaded = engine.run(feeds)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=note)
        np.testing.assert_array_equal(loaded[name], value, err_msg=note)


@some
@given(networks(), st.integers(0, 50))
def test_one_more_output_never_changes_the_others(case: tuple[Graph, int], pick: int) -> None:
    graph, seed = case
    values = [v for node in graph.nodes for v in node.outputs]
    extra = ("extra", values[pick % len(values)])
    wide = Graph(
        "wide",
        graph.inputs,
        [*zip(graph.output_names, graph.outputs, strict=True), extra],
        graph.nodes,
        graph.constants,
    )
    feeds = random_feeds(graph, seed)
    with tw.build(wide, tune="off") as engine:
        got = engine.run(feeds)
    with np.errstate(all="ignore"):
        assert_close(got, interpret(wide, feeds), f"seed {seed}\n{graph_text(graph)}")
