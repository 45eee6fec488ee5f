# SPDX-License-Identifier: Apache-2.0
"""Graphs with bodies: their text form, the rules that keep them right, and what passes do to them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import InternalError
from tensorwright.ir.dims import SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Node, Value
from tensorwright.ir.op import Array
from tensorwright.ir.parse import parse_graph
from tensorwright.ir.text import graph_text, stored_constants
from tensorwright.ir.types import TensorType
from tensorwright.ir.verify import verify
from tensorwright.ops.control_flow import If, Loop, Scan, nested
from tensorwright.ops.elementwise import Add, Exp, Mul, Neg, Pointwise, Sub
from tensorwright.ops.fused import Fused
from tensorwright.ops.linear import MatMul
from tensorwright.passes.pipeline import PassOptions, optimise

ROW = TensorType(DType.f32, (4,))
COUNT, FLAG = TensorType(DType.i64, ()), TensorType(DType.bool, ())
WEIGHTS = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def step_body(prefix: str = "l/body", *, weights: Array | None = WEIGHTS) -> Graph:
    """n = (v w + x) * 2, its negative as a row; `unread` is not used."""
    g = GraphBuilder(prefix)
    g.input(f"{prefix}/i", COUNT)
    v, x, w = g.input(f"{prefix}/v", ROW), g.input(f"{prefix}/x", ROW), None
    if weights is None:
        w = g.input(f"{prefix}/w", TensorType(DType.f32, (4, 4)))
    else:
        w = g.constant(weights, f"{prefix}/w")
    g.input(f"{prefix}/unread", ROW)
    (p,) = g.add(MatMul(), v, w, name=f"{prefix}/mm")
    (s,) = g.add(Add(), p, x, name=f"{prefix}/add")
    (n,) = g.add(Mul(), s, g.constant(np.array(2, np.float32), f"{prefix}/two"), name=f"{prefix}/mul")
    g.output(n, "n")
    g.output(g.add(Neg(), n, name=f"{prefix}/neg")[0], "row")
    return g.finish()


def loop_graph(*, known_weights: bool) -> Graph:
    g = GraphBuilder("loops")
    trips, v, x, u = g.input("m", COUNT), g.input("v", ROW), g.input("x", ROW), g.input("u", ROW)
    (e,) = g.add(Exp(), u, name="only_for_the_unread")
    body = step_body(weights=WEIGHTS if known_weights else None)
    captured = [x] if known_weights else [x, g.constant(WEIGHTS, "w")]
    op = Loop(body, 1, SymDim.symbol("rows"), conditional=False)
    last, rows = g.add(op, trips, None, v, *captured, e, name="l")
    g.output(last, "y")
    g.output(rows, "rows")
    return g.finish()


def feeds(**given: Array) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {n: rng.normal(size=4).astype(np.float32) for n in "vxu"} | {"m": np.asarray(3)} | given


def same(a: dict[str, Array], b: dict[str, Array]) -> None:
    for name, array in a.items():
        np.testing.assert_allclose(b[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def branch(prefix: str, op: Pointwise) -> Graph:
    g = GraphBuilder(prefix)
    a, b = g.input(f"{prefix}/a", ROW), g.input(f"{prefix}/b", ROW)
    g.output(g.add(op, a, b, name=f"{prefix}/op")[0], "r")
    return g.finish()


def if_graph(condition: bool | None) -> Graph:
    g = GraphBuilder("branches")
    v, x = g.input("v", ROW), g.input("x", ROW)
    c = g.input("c", FLAG) if condition is None else g.constant(np.asarray(condition), "c")
    (r,) = g.add(If(branch("if/then", Add()), branch("if/else", Sub()), (ROW,)), c, v, x, name="if")
    g.output(g.add(Neg(), r, name="after")[0], "y")
    return g.finish()


def scan_graph() -> Graph:
    g = GraphBuilder("s/body")
    h, x = g.input("s/body/h", ROW), g.input("s/body/x", ROW)
    (n,) = g.add(Mul(), h, x, name="s/body/n")
    g.output(n, "n")
    g.output(x, "row")
    body = g.finish()
    g = GraphBuilder("scans")
    v, xs = g.input("v", ROW), g.input("xs", TensorType(DType.f32, (4, 3)))
    op = Scan(body, 1, (1,), (True,), (0,), (False,))
    for value, name in zip(g.add(op, v, xs, name="s"), ("y", "rows"), strict=True):
        g.output(value, name)
    return g.finish()


GRAPHS = [loop_graph(known_weights=True), loop_graph(known_weights=False), if_graph(None), if_graph(True), scan_graph()]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.name)
def test_text_is_read_back_with_all_bodies(graph: Graph) -> None:
    verify(graph)
    again = parse_graph(graph_text(graph), stored_constants(graph))
    verify(again)
    assert graph_text(again) == graph_text(graph)
    assert [g.name for g in nested(again)] == [g.name for g in nested(graph)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("  graph l/body\n", ""), "expected 'graph'"),
        (("  graph l/body", "  graph other"), "the body 'l/body' does not follow"),
        (("body=l/body", "body=x"), "the body 'x' does not follow"),
        (("output y = %l_0\n", "output y = %l_0\n  graph more\n  output a = %b\n"), "used before it is defined"),
        (("output y = %l_0\n", "output y = %l_0\n  graph more\n"), "no attribute takes the body 'more'"),
        (("  output row", "    graph x\n  output row"), "no attribute takes the body 'x'"),
        (("input %l/body/v: f32[4]", "input %l/body/v: f32[5]"), "line"),
        (("carried=1", "carried=2"), "line"),
    ],
)
def test_damaged_text_of_a_body_is_a_value_error(damage: tuple[str, str], message: str) -> None:
    text = graph_text(loop_graph(known_weights=True))
    assert damage[0] in text
    with pytest.raises(ValueError, match="line [0-9]+") as caught:
        parse_graph(text.replace(*damage, 1), {"l/body/w": WEIGHTS})
    assert message in str(caught.value)


def test_bodies_nested_without_end_are_refused() -> None:
    text = "graph a\n" + "".join(f"{'  ' * i}graph b{i}\n" for i in range(1, 40))
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_graph(text)


def test_verify_looks_inside_bodies() -> None:
    graph = if_graph(None)
    (node,) = (n for n in graph.nodes if isinstance(n.op, If))
    assert isinstance(node.op, If)
    body = node.op.then_body
    (inner,) = body.nodes
    wrong = Node(inner.name, inner.op, (inner.inputs[0], None), inner.outputs)
    broken = Graph(body.name, body.inputs, [("r", body.outputs[0])], [wrong], {})
    changed = Node(node.name, dataclasses.replace(node.op, then_body=broken), node.inputs, node.outputs)
    rest = [n for n in graph.nodes if n is not node]
    with pytest.raises(InternalError, match="if/then"):
        verify(Graph("g", graph.inputs, [("y", graph.outputs[0])], [changed, *rest], {}))


def test_one_name_for_two_stored_constants_is_a_defect() -> None:
    graph = loop_graph(known_weights=True)
    clash = Value("l/body/w", TensorType(DType.f32, (4, 4)))
    graph.constants[clash] = WEIGHTS + 1
    with pytest.raises(InternalError, match="another one"):
        verify(graph)


@pytest.mark.parametrize("known_weights", [False, True])
def test_bodies_are_optimised_with_the_constants_around_them(known_weights: bool) -> None:
    graph = loop_graph(known_weights=known_weights)
    report = optimise(graph)
    verify(report.graph)
    (node,) = report.graph.nodes  # what made the unread value is gone as well
    assert isinstance(node.op, Loop)
    assert [v.name if v is not None else None for v in node.inputs] == ["m", None, "v", "x"]
    assert [n.op.kind for n in node.op.body.nodes] == ["mat_mul", "fused", "fused"]
    assert any(np.array_equal(a, WEIGHTS) for a in node.op.body.constants.values())
    for m in (0, 3):
        same(interpret(graph, feeds(m=np.asarray(m))), interpret(report.graph, feeds(m=np.asarray(m))))


def counted_loop(trips: int) -> Graph:
    """All is known of how often it runs; one row is what goes in, and the weights are shared."""
    body = step_body()
    g = GraphBuilder("counted")
    v, x, u = (g.input(name, ROW) for name in "vxu")
    m = g.constant(np.asarray(trips), "m")
    for value, name in zip(
        g.add(Loop(body, 1, trips, conditional=False), m, None, v, x, u, name="l"), "yr", strict=True
    ):
        g.output(value, name)
    return g.finish()


@pytest.mark.parametrize("trips", [0, 1, 5, 16, 17])
def test_short_loop_of_known_length_becomes_its_iterations(trips: int) -> None:
    graph = counted_loop(trips)
    report = optimise(graph)
    verify(report.graph)
    loops = [n for n in report.graph.nodes if isinstance(n.op, Loop)]
    assert len(loops) == (trips > 16)
    assert sum(a.size == WEIGHTS.size for a in report.graph.constants.values()) == (0 < trips <= 16)
    given = {n: x for n, x in feeds().items() if n in "vxu"}
    same(interpret(graph, given), interpret(report.graph, given))


def test_loop_with_a_loop_inside_keeps_its_body_once() -> None:
    outer = GraphBuilder("o/body")
    outer.input("o/body/i", COUNT)
    v, x = outer.input("o/body/v", ROW), outer.input("o/body/x", ROW)
    m = outer.constant(np.asarray(20), "o/body/m")
    op = Loop(step_body("o/body/l/body"), 1, 20, conditional=False)
    outer.output(outer.add(op, m, None, v, x, x, name="o/body/l")[0], "n")
    g = GraphBuilder("nested")
    v, x, m = g.input("v", ROW), g.input("x", ROW), g.constant(np.asarray(3), "m")
    g.output(g.add(Loop(outer.finish(), 1, 3, conditional=False), m, None, v, x, name="o")[0], "y")
    graph = g.finish()
    report = optimise(graph)
    verify(report.graph)
    assert [n.op.kind for body in nested(report.graph) for n in body.nodes].count("loop") == 2
    given = {n: x / 8 for n, x in feeds().items() if n in "vx"}
    same(interpret(graph, given), interpret(report.graph, given))


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.name)
def test_passes_change_nothing_the_second_time(graph: Graph) -> None:
    once = optimise(graph)
    assert once.edits and not optimise(once.graph).edits


@pytest.mark.parametrize("condition", [False, True])
def test_if_with_a_known_condition_becomes_its_branch(condition: bool) -> None:
    graph = if_graph(condition)
    report = optimise(graph)
    (node,) = report.graph.nodes
    assert isinstance(node.op, Fused)
    assert any(f"always {condition}" in edit.reason for edit in report.edits)
    given = {n: x for n, x in feeds().items() if n in "vx"}
    same(interpret(graph, given), interpret(report.graph, given))


def test_limit_of_edits_leaves_graphs_that_can_be_lowered() -> None:
    graph = loop_graph(known_weights=False)
    for limit in range(6):
        stopped = optimise(graph, options=PassOptions(stop_after_edits=limit)).graph
        (node,) = (n for n in stopped.nodes if isinstance(n.op, Loop))
        assert isinstance(node.op, Loop)
        assert not any(isinstance(n.op, Pointwise) for n in node.op.body.nodes)
        same(interpret(graph, feeds()), interpret(stopped, feeds()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carried": 3}, "carried values change"),
        ({"conditional": True}, "must be one bool"),
        ({"body": branch("b", Add())}, "one i64"),
    ],
)
def test_loop_that_does_not_fit_its_body_is_refused(change: dict[str, object], message: str) -> None:
    graph = loop_graph(known_weights=True)
    (node,) = (n for n in graph.nodes if isinstance(n.op, Loop))
    types = [v.type if v is not None else None for v in node.inputs]
    node.op.infer(*types)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(node.op, **change).infer(*types)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="never ends"):
        node.op.infer(None, None, *types[2:])


def test_scan_refuses_slices_that_do_not_fit() -> None:
    graph = scan_graph()
    (node,) = graph.nodes
    assert isinstance(node.op, Scan)
    xs = TensorType(DType.f32, (4, 3))
    assert [str(t) for t in node.op.infer(ROW, xs)] == ["f32[4]", "f32[3,4]"]
    two = dataclasses.replace(node.op, carried=0, input_axes=(0, 1), input_backwards=(False, False))
    with pytest.raises(ValueError, match="have 3, 5 slices"):
        two.infer(TensorType(DType.f32, (5, 4)), xs)
    for wrong in (TensorType(DType.f32, (5, 3)), TensorType(DType.f32, (4,))):
        with pytest.raises(ValueError, match=r"body takes|do not fit"):
            node.op.infer(ROW, wrong)
