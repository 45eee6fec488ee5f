# SPDX-License-Identifier: Apache-2.0
"""The runner applies edits, checks and records them, and stops what does not end."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import pytest

from tensorwright.errors import InternalError, ModelError, TensorwrightError
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, GraphBuilder, Node
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType
from tensorwright.ops import Abs, Add, Exp, Gather, Neg, Relu, Reshape, Transpose
from tensorwright.passes import fold_constants
from tensorwright.passes.base import Rewrite, Rule, Stage, Sweep, forward, rule, sweep
from tensorwright.passes.runner import run_stages


def line_of(*ops: Relu | Exp | Abs | Neg) -> Graph:
    """One op after the other on a small input."""
    b = GraphBuilder("line")
    x = b.input("x", TensorType(DType.f32, (2, 3)))
    for op in ops:
        (x,) = b.add(op, x)
    b.output(x, "y")
    return b.finish()


def swap(name: str, on: type[Op], to: type[Op]) -> Rule:
    @rule(on=on, name=name)
    def swapped(graph: Graph, node: Node) -> Edit | None:
        """One op class into another."""
        new = Rewrite(graph, node)
        new.finish(to(), node.inputs[0])
        return new.edit(node, because=f"{to.kind} is better")

    return swapped


def stage(*rules: Rule | Sweep, required: bool = False) -> Stage:
    return Stage("test_stage", "what the test says", rules, required)


def test_rule_on_each_node_is_applied_and_recorded_with_its_reason() -> None:
    report = run_stages(line_of(Relu(), Exp(), Relu()), [stage(swap("relu_into_abs", Relu, Abs))])
    assert [type(n.op) for n in report.graph] == [Abs, Exp, Abs]
    assert [(e.pass_name, e.rule, e.nodes, e.result, e.reason) for e in report.edits] == [
        ("test_stage", "relu_into_abs", ("relu",), ("relu",), "abs is better"),
        ("test_stage", "relu_into_abs", ("relu_2",), ("relu_2",), "abs is better"),
    ]
    assert report.stages[0].nodes_before == report.stages[0].nodes_after == 3


def test_added_nodes_get_the_origins_of_removed_ones() -> None:
    @rule(on=Exp, name="pair_into_neg")
    def pair_into_neg(graph: Graph, node: Node) -> Edit | None:
        """exp after relu."""
        relu = graph.producer(node.inputs[0])
        if relu is None or not isinstance(relu.op, Relu):
            return None
        new = Rewrite(graph, node)
        new.finish(Neg(), relu.inputs[0])
        return new.edit(relu, node, because="for the test")

    report = run_stages(line_of(Relu(), Exp()), [stage(pair_into_neg)])
    (node,) = report.graph.nodes
    assert (node.name, node.origin) == ("exp", ("relu", "exp"))


def test_edit_around_a_node_makes_its_neighbours_match_again() -> None:
    @rule(on=Neg, name="two_into_nothing")
    def two_into_nothing(graph: Graph, node: Node) -> Edit | None:
        """neg of neg, when both go."""
        inner = graph.producer(node.inputs[0])
        if inner is None or not isinstance(inner.op, Neg) or inner.inputs[0] is None:
            return None
        return Edit((inner, node), (), {node.output: inner.inputs[0]}, {}, "they cancel")

    report = run_stages(line_of(Exp(), *[Neg()] * 8, Relu()), [stage(two_into_nothing)])
    assert [type(n.op) for n in report.graph] == [Exp, Relu]


def test_rules_that_undo_each_other_raise_internal_error() -> None:
    endless = stage(swap("relu_into_abs", Relu, Abs), swap("abs_into_relu", Abs, Relu))
    with pytest.raises(InternalError, match="rule .*_into_.* of stage test_stage does not come to an end"):
        run_stages(line_of(Relu()), [endless])


def test_rule_that_gives_a_wrong_type_raises_internal_error() -> None:
    @rule(on=Relu, name="relu_into_transpose")
    def relu_into_transpose(graph: Graph, node: Node) -> Edit | None:
        """The result has another shape."""
        new = Rewrite(graph, node)
        new.finish(Transpose((1, 0)), node.inputs[0])
        return new.edit(node, because="for the test")

    with pytest.raises(InternalError, match=r"relu_into_transpose .*wrong type") as caught:
        run_stages(line_of(Relu()), [stage(relu_into_transpose)])
    assert "f32[3,2]" in str(caught.value)


def test_rule_with_an_op_that_rejects_its_inputs_raises_internal_error() -> None:
    @rule(on=Relu, name="relu_into_reshape")
    def relu_into_reshape(graph: Graph, node: Node) -> Edit | None:
        """The element count differs."""
        new = Rewrite(graph, node)
        new.finish(Reshape((7,)), node.inputs[0])
        return new.edit(node, because="for the test")

    with pytest.raises(InternalError, match="ill-typed"):
        run_stages(line_of(Relu()), [stage(relu_into_reshape)])


def test_edit_that_leaves_a_reader_without_a_value_raises_internal_error() -> None:
    @rule(on=Relu, name="relu_into_hole")
    def relu_into_hole(graph: Graph, node: Node) -> Edit | None:
        """Removes a node that is still read."""
        return Edit((node,), because="for the test")

    with pytest.raises(InternalError, match="still read"):
        run_stages(line_of(Relu(), Exp()), [stage(relu_into_hole)])


def test_check_after_every_edit_names_the_rule_that_broke_the_graph() -> None:
    @rule(on=Relu, name="relu_twice")
    def relu_twice(graph: Graph, node: Node) -> Edit | None:
        """Gives a new node the name of another one."""
        new = Rewrite(graph, node)
        new.finish(Abs(), node.inputs[0], name="exp")
        return new.edit(node, because="for the test")

    with pytest.raises(InternalError, match=r"rule relu_twice of stage test_stage broke the graph: .*used twice"):
        run_stages(line_of(Relu(), Exp()), [stage(relu_twice)], check="edit")


def test_sweep_sees_the_graph_as_its_edits_leave_it() -> None:
    sizes: list[int] = []

    @sweep(name="drop_abs")
    def drop_abs(graph: Graph) -> Iterator[Edit]:
        """Removes every abs."""
        for node in list(graph.nodes):
            current = graph.producer(node.output)
            if current is not None and isinstance(current.op, Abs) and current.inputs[0] is not None:
                sizes.append(len(graph))
                yield forward(current, current.inputs[0], "for the test")

    report = run_stages(line_of(Abs(), Exp(), Abs(), Abs()), [stage(drop_abs)])
    assert sizes == [4, 3, 2]
    assert [type(n.op) for n in report.graph] == [Exp]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_stop_after_n_edits_skips_the_rest_but_not_required_stages(limit: int) -> None:
    stages = [stage(swap("relu_into_abs", Relu, Abs)), stage(swap("exp_into_neg", Exp, Neg), required=True)]
    report = run_stages(line_of(Relu(), Relu(), Exp()), stages, stop_after_edits=limit)
    kinds = [n.op.kind for n in report.graph]
    assert kinds.count("abs") == min(limit, 2) and kinds[-1] == "neg"
    assert report.stopped == (limit < 2)


def test_unread_constants_are_dropped() -> None:
    b = GraphBuilder("sum")
    x = b.input("x", TensorType(DType.f32, (2,)))
    one, two = (b.constant(np.full(2, v, np.float32)) for v in (1, 2))
    b.output(b.add(Add(), x, b.add(Add(), one, two)[0])[0], "y")
    report = run_stages(b.finish(), [stage(*fold_constants.RULES)])
    assert [array.tolist() for array in report.graph.constants.values()] == [[3.0, 3.0]]


def test_constant_expression_that_cannot_be_computed_raises_model_error() -> None:
    b = GraphBuilder("gather")
    data, index = b.constant(np.zeros(2, np.float32)), b.constant(np.array([5], np.int64))
    b.output(b.add(Gather(0), data, index, name="lookup")[0], "y")
    with pytest.raises(ModelError, match="M110 .*\n.*lookup") as caught:
        run_stages(b.finish(), [stage(*fold_constants.RULES)])
    assert "out of bounds" in str(caught.value)


def test_constants_that_would_grow_too_much_are_not_folded() -> None:
    from tensorwright.ops import Expand

    b = GraphBuilder("expand")
    b.output(b.add(Expand((1 << 10, 1 << 10)), b.constant(np.zeros(1, np.float32)))[0], "y")
    report = run_stages(b.finish(), [stage(*fold_constants.RULES)])
    assert len(report.graph) == 1 and not report.edits


def test_edits_are_logged_under_the_passes_topic(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="tensorwright.passes"):
        run_stages(line_of(Relu()), [stage(swap("relu_into_abs", Relu, Abs))])
    assert "relu_into_abs: relu -> relu (abs is better)" in caplog.text


def test_stage_check_off_still_runs() -> None:
    stages = [dataclasses.replace(stage(swap("relu_into_abs", Relu, Abs)))]
    assert len(run_stages(line_of(Relu()), stages, check="off").edits) == 1


def test_bad_check_variable_raises_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORWRIGHT_CHECK", "always")
    with pytest.raises(TensorwrightError, match="T101"):
        run_stages(line_of(Relu()), [])
