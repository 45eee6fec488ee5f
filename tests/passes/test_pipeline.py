# SPDX-License-Identifier: Apache-2.0
"""Whatever the passes do, the network computes the same."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Value
from tensorwright.ir.op import Array
from tensorwright.ir.text import graph_text
from tensorwright.ir.types import TensorType
from tensorwright.ops import (
    Add,
    BatchNorm,
    Convolution,
    Deconvolution,
    Exp,
    Fused,
    MatMul,
    Mul,
    Pointwise,
    Relu,
    Reshape,
    Sigmoid,
    Softmax,
)
from tensorwright.passes.pipeline import PassOptions, optimise
from tensorwright.passes.report import report_text
from tests.passes.random_graphs import networks, random_feeds

EDITS_CHECKED = PassOptions(check="edit")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_close(expected: Mapping[str, Array], got: Mapping[str, Array], note: str) -> None:
    """Within 1e-4 of the largest magnitude, so that sums of cancelling terms may round differently."""
    for name, array in expected.items():
        tolerance = 1e-4 * max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=tolerance, err_msg=f"output {name}, {note}")


def in_normal_form(graph: Graph) -> bool:
    """What lowering relies on."""
    biased = any(isinstance(n.op, Convolution | Deconvolution) and len(n.inputs) > 2 for n in graph)
    return not biased and not any(isinstance(n.op, Pointwise | BatchNorm) for n in graph)


@quick
@given(networks())
def test_pipeline_on_random_network_computes_the_same(case: tuple[Graph, int]) -> None:
    graph, seed = case
    report = optimise(graph, options=EDITS_CHECKED)
    feeds = random_feeds(graph, seed)
    note = f"seed {seed}\n{graph_text(graph)}{report_text(report)}"
    assert_close(interpret(graph, feeds), interpret(report.graph, feeds), note)
    assert in_normal_form(report.graph), graph_text(report.graph)


@quick
@given(networks())
def test_pipeline_run_twice_changes_nothing_more(case: tuple[Graph, int]) -> None:
    graph, seed = case
    once = optimise(graph)
    twice = optimise(once.graph)
    assert not twice.edits, f"seed {seed}\n{graph_text(once.graph)}{report_text(twice)}"


@quick
@given(networks(), st.integers(0, 40))
def test_pipeline_stopped_after_any_edit_computes_the_same(case: tuple[Graph, int], edits: int) -> None:
    graph, seed = case
    report = optimise(graph, options=PassOptions(stop_after_edits=edits, check="edit"))
    feeds = random_feeds(graph, seed)
    assert_close(interpret(graph, feeds), interpret(report.graph, feeds), f"seed {seed} after {edits} edits")
    assert in_normal_form(report.graph), graph_text(report.graph)


@quick
@given(networks())
def test_extra_outputs_never_change_other_outputs(case: tuple[Graph, int]) -> None:
    graph, seed = case
    values = [v for node in graph.nodes for v in node.outputs]
    outputs = [*zip(graph.output_names, graph.outputs, strict=True), *((f"extra_{i}", v) for i, v in enumerate(values))]
    wide = Graph("wide", graph.inputs, outputs, graph.nodes, graph.constants)
    feeds = random_feeds(graph, seed)
    everything = interpret(optimise(wide, options=EDITS_CHECKED).graph, feeds)
    assert_close(interpret(optimise(graph).graph, feeds), everything, f"seed {seed}\n{graph_text(graph)}")
    assert_close(interpret(wide, feeds), everything, f"seed {seed}\n{graph_text(graph)}")


def small_network(seed: int = 7) -> Graph:
    """A convolution with batch norm and SiLU, a residual addition, a flatten, a linear layer and softmax."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("small")

    def weights(*shape: int) -> Value:
        return b.constant(rng.uniform(0.1, 1, shape).astype(np.float32))

    x = b.input("x", TensorType(DType.f32, (1, 2, 4, 4)))
    conv = Convolution((1, 1), (1, 1, 1, 1), (1, 1), 1)
    (y,) = b.add(conv, x, weights(2, 2, 3, 3), weights(2), name="conv")
    (y,) = b.add(BatchNorm(1e-5), y, weights(2), weights(2), weights(2), weights(2), name="norm")
    (gate,) = b.add(Sigmoid(), y, name="gate")
    (y,) = b.add(Mul(), y, gate, name="silu")
    (y,) = b.add(Add(), x, y, name="skip")
    (y,) = b.add(Reshape((1, 32)), y, name="flatten")
    (y,) = b.add(MatMul(), y, weights(32, 5), name="linear")
    (y,) = b.add(Add(), y, weights(5), name="bias")
    (y,) = b.add(Softmax(1), y, name="softmax")
    b.output(y, "probabilities")
    return b.finish()


def test_every_edit_limit_on_a_small_network_computes_the_same() -> None:
    graph = small_network()
    feeds = random_feeds(graph, 3)
    expected = interpret(graph, feeds)
    total = len([e for e in optimise(graph).edits if e.pass_name not in ("normal_form", "wrap_pointwise")])
    assert total == 5
    for limit in range(total + 1):
        report = optimise(graph, options=PassOptions(stop_after_edits=limit))
        made = [e for e in report.edits if e.pass_name not in ("normal_form", "wrap_pointwise")]
        assert len(made) == limit
        assert report.stopped == (limit < total)
        assert in_normal_form(report.graph)
        assert_close(expected, interpret(report.graph, feeds), f"after {limit} edits")


def test_small_network_becomes_three_steps_and_a_view() -> None:
    report = optimise(small_network())
    anchors = [type(n.op.anchor).__name__ if isinstance(n.op, Fused) else type(n.op).__name__ for n in report.graph]
    assert anchors == ["Convolution", "Transpose", "Reshape", "MatMul", "Softmax"]
    assert report.graph.nodes[0].origin == ("conv", "norm", "gate", "silu", "skip")
    assert report.nodes_before == 9 and report.nodes_after == 5


def test_pipeline_leaves_the_given_graph_alone() -> None:
    graph = small_network()
    before = graph_text(graph)
    optimise(graph)
    assert graph_text(graph) == before


def test_report_of_the_same_network_is_the_same() -> None:
    first, second = (optimise(small_network()) for _ in range(2))
    assert first.as_dict() == second.as_dict()
    assert report_text(first) == report_text(second)
    assert graph_text(first.graph) == graph_text(second.graph)


def test_report_text_lists_stages_rules_and_reasons() -> None:
    text = report_text(optimise(small_network()))
    assert text.startswith("9 nodes -> 5 nodes")
    assert "batch_norm_into_conv: conv, norm -> conv (" in text
    assert "fuse_vertical" in text and "before they are stored: add, silu, add" in text


def test_report_text_with_a_limit_counts_the_rest() -> None:
    assert "pointwise_into_epilogue: 1 more" in report_text(optimise(small_network()), limit=1)


def chain(length: int) -> Graph:
    b = GraphBuilder("chain")
    x = b.input("x", TensorType(DType.f32, (2, 2)))
    for i in range(length):
        (x,) = b.add((Exp(), Relu(), Sigmoid(), Softmax(1))[i % 4], x)
    b.output(x, "y")
    return b.finish()


def hub(width: int) -> Graph:
    """Thousands of readers of one value, which all turn out to be the same."""
    b = GraphBuilder("hub")
    x = b.input("x", TensorType(DType.f32, (2, 2)))
    one = b.constant(np.ones((), np.float32))
    parts = [b.add(Reshape((2, 2)), b.add(Mul(), x, one)[0])[0] for _ in range(width)]
    total = parts[0]
    for part in parts[1:]:
        (total,) = b.add(Add(), total, part)
    b.output(total, "y")
    return b.finish()


@pytest.mark.parametrize("graph", [chain(10_000), hub(3_500)], ids=["chain", "hub"])
def test_ten_thousand_nodes_are_optimised_in_seconds(graph: Graph) -> None:
    start = time.perf_counter()
    optimise(graph)
    assert time.perf_counter() - start < 20
