# SPDX-License-Identifier: Apache-2.0
"""Nodes without an importer function run through onnx.reference, and values that are no arrays travel between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import InputError, ModelError, UnsupportedError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.importers.onnx.tensors import kind_of, type_of_kind
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph
from tensorwright.ir.parse import parse_graph
from tensorwright.ir.text import graph_text, stored_constants
from tensorwright.ir.types import ObjectType
from tensorwright.ir.verify import verify
from tensorwright.ops.host import OnnxHost
from tensorwright.passes.pipeline import optimise
from tests.importers.models import model, node, runtime_outputs

F, I64, STRING, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL


def hosted(graph: Graph) -> list[str]:
    return [n.op.node_kind for n in graph.nodes if isinstance(n.op, OnnxHost)]


def read_back(proto: onnx.ModelProto) -> Graph:
    """The imported graph, once through its text form."""
    graph = import_onnx(proto)
    verify(graph)
    return parse_graph(graph_text(graph), stored_constants(graph))


def outputs(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    return list(interpret(read_back(proto), feeds).values())


def body(nodes: list[onnx.NodeProto], inputs: Mapping[str, int], results: Mapping[str, int]) -> onnx.GraphProto:
    infos = [[helper.make_tensor_value_info(n, t, []) for n, t in part.items()] for part in (inputs, results)]
    return helper.make_graph(nodes, "body", *infos)


def branch(op: str) -> onnx.GraphProto:
    """op(x), then twice that, where x is a value around the branch."""
    nodes = [node(op, ["x"], ["t"]), node("Add", ["t", "t"], ["r"])]
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("r", F, [2, 3])])


def test_op_without_importer_is_one_host_node_with_its_types() -> None:
    proto = model(
        [node("Relu", ["x"], ["r"]), node("StringConcat", ["s", "s"], ["y"]), node("Det", ["r"], ["d"])],
        {"x": [4, 3, 3], "s": [2]},
        ["y", "d"],
        kinds={"s": STRING, "y": STRING},
        opset=20,
    )
    graph = import_onnx(proto)
    assert "StringConcat" in hosted(graph) and "Relu" not in hosted(graph)
    assert graph.inputs[1].type == ObjectType("tensor(string)") and not graph.inputs[1].type.is_static
    assert str(graph.outputs[0].type) == "object<tensor(string)>" and str(graph.outputs[1].type) == "f32[4]"
    x = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)
    text, det = outputs(proto, {"x": x, "s": np.array(["a", "b"], object)})
    assert text.tolist() == ["aa", "bb"]
    np.testing.assert_allclose(det, np.linalg.det(np.maximum(x, 0)), rtol=1e-4, atol=1e-6)


def test_without_host_ops_such_a_node_is_refused() -> None:
    proto = model([node("Unique", ["x"], name="draw")], {"x": [3]})
    with pytest.raises(UnsupportedError, match="draw"):
        import_onnx(proto, host_ops=False)


def test_what_the_reference_cannot_run_is_refused_as_well() -> None:
    gradient = helper.make_node("Gradient", ["x"], ["y"], "g", domain="ai.onnx.preview.training", xs=["x"], y="x")
    proto = model([gradient], {"x": [1]})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    with pytest.raises(UnsupportedError, match=r"Gradient \(g\)"):
        import_onnx(proto)


@pytest.mark.parametrize("condition", [False, True])
def test_if_on_an_input_runs_the_branch_with_outer_values(condition: bool) -> None:
    nodes = [node("Exp", ["a"], ["x"]), node("If", ["c"], then_branch=branch("Neg"), else_branch=branch("Abs"))]
    proto = model(nodes, {"a": [2, 3], "c": []}, kinds={"c": BOOL})
    a = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    feeds = {"a": a, "c": np.array(condition)}
    assert not hosted(import_onnx(proto))
    np.testing.assert_allclose(outputs(proto, feeds)[0], runtime_outputs(proto, feeds)[0], rtol=1e-5)


@pytest.mark.parametrize("condition", [False, True])
def test_if_with_a_known_condition_becomes_its_branch(condition: bool) -> None:
    two = [node("If", ["c"], [name], name, then_branch=branch("Neg"), else_branch=branch("Abs")) for name in ("y", "z")]
    proto = model(two, {"x": [2, 3]}, ["y", "z"], {"c": np.array(condition)})
    graph = import_onnx(proto)
    assert not hosted(graph) and len(graph) == 4
    x = np.random.default_rng(2).standard_normal((2, 3)).astype(np.float32)
    for got in outputs(proto, {"x": x}):
        np.testing.assert_array_equal(got, 2 * (-x if condition else np.abs(x)))


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_loop_carries_values_and_stacks_what_it_scans(trips: int) -> None:
    inner = body(
        [node("Add", ["v", "x"], ["w"]), node("Identity", ["keep"], ["go"]), node("Identity", ["w"], ["seen"])],
        {"i": I64, "keep": BOOL, "v": F},
        {"go": BOOL, "w": F, "seen": F},
    )
    proto = model(
        [node("Loop", ["m", "", "v0"], ["y", "all"], body=inner)],
        {"m": [], "v0": [], "x": []},
        ["y", "all"],
        kinds={"m": I64},
    )
    feeds = {"m": np.int64(trips), "v0": np.float32(1), "x": np.float32(2)}
    last, seen = outputs(proto, {k: np.asarray(v) for k, v in feeds.items()})
    assert last == 1 + 2 * trips and seen.dtype == np.float32
    np.testing.assert_array_equal(seen, 1 + 2 * np.arange(1, trips + 1))


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scan_follows_axis_and_direction(axis: int, backwards: int) -> None:
    inner = helper.make_graph(
        [node("Add", ["s", "e"], ["n"]), node("Identity", ["n"], ["o"])],
        "body",
        [helper.make_tensor_value_info(n, F, [4]) for n in ("s", "e")],
        [helper.make_tensor_value_info(n, F, [4]) for n in ("n", "o")],
    )
    scan = node(
        "Scan",
        ["s0", "x"],
        ["y", "z"],
        body=inner,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[backwards],
        scan_output_axes=[axis],
        scan_output_directions=[1 - backwards],
    )
    proto = model([scan], {"s0": [4], "x": [4, 4]}, ["y", "z"])
    rng = np.random.default_rng(3)
    feeds = {"s0": rng.standard_normal(4).astype(np.float32), "x": rng.standard_normal((4, 4)).astype(np.float32)}
    for got, want in zip(outputs(proto, feeds), runtime_outputs(proto, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_sequences_and_optionals_travel_between_host_nodes() -> None:
    nodes = [
        node("SequenceConstruct", ["x", "x2"], ["seq"]),
        node("SequenceAt", ["seq", "one"], ["second"]),
        node("Neg", ["second"], ["y"]),
        node("SequenceLength", ["seq"], ["n"]),
        node("Optional", ["seq"], ["maybe"]),
        node("OptionalHasElement", ["maybe"], ["has"]),
    ]
    proto = model(nodes, {"x": [2], "x2": [3]}, ["y", "n", "has"], {"one": np.int64(1)}, kinds={"n": I64, "has": BOOL})
    graph = import_onnx(proto)
    kinds = {str(v.type) for n in graph.nodes for v in n.outputs}
    assert "object<seq(tensor(float))>" in kinds and "object<optional(seq(tensor(float)))>" in kinds
    x2 = np.float32([1, -2, 3])
    y, n, has = outputs(proto, {"x": np.zeros(2, np.float32), "x2": x2})
    np.testing.assert_array_equal(y, -x2)
    assert n == 2 and has


@pytest.mark.parametrize("full", [False, True])
def test_optional_of_a_branch_may_be_empty(full: bool) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(F, [2]))
    result = helper.make_value_info("o", kind)
    branches = {
        "then_branch": helper.make_graph([node("Optional", ["x"], ["o"])], "then", [], [result]),
        "else_branch": helper.make_graph(
            [node("Optional", [], ["o"], type=kind.optional_type.elem_type)], "else", [], [result]
        ),
    }
    nodes = [node("If", ["c"], ["maybe"], **branches), node("OptionalHasElement", ["maybe"])]
    proto = model(nodes, {"x": [2], "c": []}, kinds={"c": BOOL, "y": BOOL}, opset=18)
    assert outputs(proto, {"x": np.zeros(2, np.float32), "c": np.array(full)})[0] == full


def test_size_that_only_the_data_decides_is_a_symbol_and_its_readers_run_on_the_host() -> None:
    nodes = [
        node("Unique", ["x"], ["u"]),
        node("Shape", ["u"], ["len"]),
        node("Expand", ["one", "len"], ["y"]),
    ]
    proto = model(nodes, {"x": [6]}, ["u", "y"], {"one": np.float32([1])})
    graph = read_back(proto)
    assert not graph.outputs[0].type.is_static
    u, y = outputs(proto, {"x": np.float32([3, 1, 3, 1, 2, 2])})
    np.testing.assert_array_equal(u, [1, 2, 3])
    np.testing.assert_array_equal(y, [1, 1, 1])


def test_random_host_nodes_are_neither_folded_nor_merged() -> None:
    nodes = [node("Unique", ["x"], ["u"]), *(node("RandomNormalLike", ["u"], [name]) for name in ("y", "z"))]
    graph = optimise(import_onnx(model(nodes, {"x": [3]}, ["y", "z"]))).graph
    assert hosted(graph) == ["Unique"]
    first, second = interpret(graph, {"x": np.float32([1, 2, 3])}).values()
    assert not np.array_equal(first, second)


def binarised(x: str, *names: str) -> onnx.ModelProto:
    """x[2, 2] above a half or not, once for each name: an operator that will not have a kernel."""
    nodes = [
        helper.make_node("Binarizer", [x], [name], name, domain="ai.onnx.ml", threshold=0.5) for name in (*names, "b")
    ]
    proto = model([*nodes, node("Mul", ["x", "b"])], {"x": [2, 2]}, ["y", *names], {"c": np.float32([[1, 0], [0, 2]])})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return proto


def test_equal_host_nodes_are_computed_once() -> None:
    graph = import_onnx(binarised("x", "z"))
    kind = "ai.onnx.ml.Binarizer"
    assert hosted(graph) == [kind] * 2 and hosted(optimise(graph).graph) == [kind]


def test_host_node_on_small_constants_is_computed_at_import() -> None:
    proto = binarised("c")
    assert not hosted(import_onnx(proto))
    np.testing.assert_array_equal(outputs(proto, {"x": np.float32([[1, 2], [3, 4]])})[0], [[1, 0], [0, 4]])


def test_node_that_contradicts_onnx_is_a_mistake() -> None:
    with pytest.raises(ModelError, match="'d'.*Det") as caught:
        import_onnx(model([node("Det", ["x"], name="d")], {"x": [2, 3]}))
    assert caught.value.code == "M104"


def test_host_node_that_cannot_take_its_data_gives_i120() -> None:
    nodes = [node("SplitToSequence", ["x"], ["s"]), node("SequenceAt", ["s", "i"])]
    graph = read_back(model(nodes, {"x": [4, 2], "i": []}, {"y": None}, kinds={"i": TensorProto.INT64}))
    with pytest.raises(InputError, match="SequenceAt") as caught:
        interpret(graph, {"x": np.zeros((4, 2), np.float32), "i": np.array(7)})
    assert caught.value.code == "I120"


@pytest.mark.parametrize("text", ["", "AAAA", "no base64!"])
def test_damaged_host_op_in_a_graph_text_is_a_value_error(text: str) -> None:
    whole = graph_text(import_onnx(binarised("x")))
    damaged = re.sub(r'model=("[^"]*"|\S+)', f'model="{text}"', whole)
    assert damaged != whole
    with pytest.raises(ValueError, match="onnx_host"):
        parse_graph(damaged)


@pytest.mark.parametrize(
    "kind",
    ["tensor(string)", "seq(tensor(float16))", "optional(seq(tensor(int64)))", "map(int64,tensor(float))", "unknown"],
)
def test_kind_of_an_object_is_read_back(kind: str) -> None:
    assert kind_of(type_of_kind(kind)) == kind


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.object])
def test_every_dtype_of_onnx_is_imported(dtype: DType) -> None:
    number = helper.np_dtype_to_tensor_dtype(dtype.numpy)
    c = np.array([1, 0, 1]).astype(dtype.numpy)
    proto = model(
        [node("Identity", ["x"]), node("Identity", ["c"], ["z"])],
        {"x": [3]},
        ["y", "z"],
        {"c": c},
        kinds={"x": number, "y": number, "z": number},
        opset=25,
    )
    graph = read_back(proto)
    assert graph.inputs[0].type.dtype is dtype
    got = interpret(graph, {"x": c})
    assert got["z"].dtype == dtype.numpy and got["z"].tobytes() == c.tobytes()
