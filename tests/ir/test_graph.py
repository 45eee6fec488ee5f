# SPDX-License-Identifier: Apache-2.0
"""Reading and editing graphs."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, GraphBuilder, Node, Value, constant_like, union_origins
from tensorwright.ir.text import graph_text
from tensorwright.ir.types import TensorType
from tensorwright.ir.verify import verify
from tensorwright.ops import Add, Concat, Neg, Relu, Sigmoid

T = TensorType(DType.f32, (2, 3))


def diamond() -> Graph:
    """x -> relu -> (neg, sigmoid) -> add -> output "y"."""
    b = GraphBuilder("diamond")
    x = b.input("x", T)
    (top,) = b.add(Relu(), x, name="top")
    (left,) = b.add(Neg(), top, name="left")
    (right,) = b.add(Sigmoid(), top, name="right")
    (out,) = b.add(Add(), left, right, name="join")
    b.output(out, "y")
    return b.finish()


def named(graph: Graph, name: str) -> Node:
    return next(node for node in graph if node.name == name)


def test_builder_infers_types_and_names_values_after_nodes() -> None:
    graph = diamond()
    verify(graph)
    names = ["top", "left", "right", "join"]
    assert [(n.name, n.output.name, n.output.type) for n in graph] == [(name, name, T) for name in names]
    assert graph.output_names == ("y",) and all(n.origin == (n.name,) for n in graph)


def test_builder_with_repeated_names_makes_them_unique() -> None:
    b = GraphBuilder()
    x = b.input("x", T)
    values = [b.add(Relu(), x, name="x")[0] for _ in range(3)]
    w = b.constant(np.zeros(3, np.float32), "x_2")
    b.output(b.add(Concat(0), *values)[0])
    assert len({v.name for v in (x, w, *values)}) == 5
    verify(b.finish())


def test_builder_with_unfit_types_raises_value_error() -> None:
    b = GraphBuilder()
    with pytest.raises(ValueError, match=r"add cannot broadcast \[2,3\] and \[4\]"):
        b.add(Add(), b.input("x", T), b.input("z", T.with_shape((4,))))


def test_reading_indexes_agree_with_the_nodes() -> None:
    graph = diamond()
    top, join = named(graph, "top"), named(graph, "join")
    assert graph.producer(top.output) is top
    assert graph.producer(graph.inputs[0]) is None and graph.producer(None) is None
    assert [n.name for n in graph.users(top.output)] == ["left", "right"]
    assert graph.only_user(top.output) is None
    assert graph.only_user(graph.inputs[0]) is top and graph.only_user(graph.inputs[0], Neg) is None
    assert graph.is_output(join.output) and graph.only_user(join.output) is None
    assert len(graph) == 4 and top in graph


def test_apply_replacing_a_node_rewires_users_and_keeps_the_output_name() -> None:
    graph = diamond()
    join, left = named(graph, "join"), named(graph, "left")
    value = Value(graph.fresh_name("swapped"), T)
    node = Node("swapped", Add(), (named(graph, "right").output, left.output), (value,), union_origins([join, left]))
    graph.apply(Edit((join,), (node,), {join.output: value}, because="test"))
    verify(graph)
    assert graph.outputs == (value,) and graph.output_names == ("y",) and node.origin == ("join", "left")
    assert graph.users(left.output) == (node,) and join not in graph


def test_apply_inserting_behind_a_value_keeps_the_new_reader_on_it() -> None:
    graph = diamond()
    top = named(graph, "top").output
    value = Value(graph.fresh_name("extra"), T)
    graph.apply(Edit((), (Node("extra", Neg(), (top,), (value,)),), {top: value}))
    verify(graph)
    assert [n.name for n in graph.users(top)] == ["extra"]
    assert {n.name for n in graph.users(value)} == {"left", "right"}
    assert [n.name for n in graph.nodes][:2] == ["top", "extra"]


def test_apply_with_a_constant_registers_value_and_name() -> None:
    graph = diamond()
    array = np.ones((2, 3), np.float32)
    constant = constant_like(graph, "one", array)
    right = named(graph, "right")
    graph.apply(Edit((right,), (), {right.output: constant}, {constant: array}))
    verify(graph)
    assert graph.constant(constant) is array and graph.constant(None) is None and graph.fresh_name("one") == "one_2"
    graph.drop_unused_constants()
    assert constant in graph.constants


def test_drop_unused_constants_keeps_read_and_output_ones() -> None:
    b = GraphBuilder()
    kept, read, unused = (b.constant(np.zeros((2, 3), np.float32), name) for name in ("kept", "read", "unused"))
    b.output(b.add(Neg(), read)[0])
    b.output(kept)
    graph = b.finish()
    graph.drop_unused_constants()
    assert set(graph.constants) == {kept, read} and unused not in graph.constants


def test_apply_changing_a_type_raises_and_changes_nothing() -> None:
    graph = diamond()
    before = graph_text(graph)
    other = Value("other", T.with_dtype(DType.f16))
    with pytest.raises(InternalError, match="types differ"):
        graph.apply(Edit((), (), {named(graph, "left").output: other}))
    assert graph_text(graph) == before


def test_apply_leaving_a_read_value_without_producer_raises() -> None:
    graph = diamond()
    with pytest.raises(InternalError, match="is still read"):
        graph.apply(Edit((named(graph, "left"),)))


def test_apply_removing_a_foreign_node_raises() -> None:
    with pytest.raises(InternalError, match="not in the graph"):
        diamond().apply(Edit((named(diamond(), "left"),)))


def test_copy_edited_leaves_the_original() -> None:
    graph = diamond()
    before = graph_text(graph)
    copy = graph.copy()
    join = named(copy, "join")
    copy.apply(Edit((join,), (), {join.output: named(copy, "left").output}))
    assert graph_text(graph) == before and graph_text(copy) != before


def test_nodes_of_a_cycle_raises_internal_error_naming_it() -> None:
    a, b = Value("a", T), Value("b", T)
    graph = Graph("loop", (), [("y", a)], [Node("first", Neg(), (b,), (a,)), Node("second", Neg(), (a,), (b,))], {})
    with pytest.raises(InternalError, match="cycle") as caught:
        _ = graph.nodes
    assert "first, second" in str(caught.value)


def test_nodes_inserted_in_any_order_come_in_dependency_order() -> None:
    rng = np.random.default_rng(5)
    graph = diamond()
    for _ in range(10):
        shuffled = [graph.nodes[i] for i in rng.permutation(len(graph))]
        again = Graph("again", graph.inputs, [("y", graph.outputs[0])], shuffled, {})
        position = {node: i for i, node in enumerate(again.nodes)}
        assert all(
            position[producer] < position[node]
            for node in again
            for v in node.inputs
            if (producer := again.producer(v)) is not None
        )
