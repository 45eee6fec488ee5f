# SPDX-License-Identifier: Apache-2.0
"""Sanitised models are valid, smaller, and give what they gave before, in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensorwright.errors import ModelError
from tensorwright.surgeon.files import check_model
from tensorwright.surgeon.sanitize import sanitize
from tests.importers.models import model, node, runtime_outputs
from tests.networks.nets import NETS, feed

X = {"x": (2, 3, 4)}


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def assert_same_outputs(before: onnx.ModelProto, after: onnx.ModelProto, shape: tuple[int, ...] = (2, 3, 4)) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    onnx.checker.check_model(after, full_check=True)
    for got, want in zip(runtime_outputs(after, {"x": x}), runtime_outputs(before, {"x": x}), strict=True):
        np.testing.assert_array_equal(got, want, err_msg=f"seed {seed}")


@pytest.mark.parametrize("name", NETS)
def test_sanitized_network_gives_the_same_outputs(name: str) -> None:
    before = NETS[name]()
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    feeds = feed(before, seed)
    done = sanitize(before, fold=True)
    onnx.checker.check_model(done.model, full_check=True)
    (got,), (want,) = runtime_outputs(done.model, feeds), runtime_outputs(before, feeds)
    error = np.abs(got - want).max() / np.abs(want).max()
    assert got.shape == want.shape and error < 1e-5, f"error {error}, seed {seed}"
    assert "Shape" not in kinds(done.model)
    assert len(done.model.graph.node) == len(before.graph.node) - len(done.folds.folded) - len(done.dropped)


def test_chain_of_constants_is_folded_and_its_sources_dropped() -> None:
    before = model(
        [
            node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
            node("Add", ["a", "two"], ["b"]),
            node("Exp", ["b"], ["c"]),
            node("Mul", ["x", "c"], ["y"]),
        ],
        X,
        constants={"a": np.arange(4, dtype=np.float32)},
    )
    done = sanitize(before, fold=True)
    assert kinds(done.model) == ["Mul"] and list(stored(done.model)) == ["c"]
    np.testing.assert_allclose(stored(done.model)["c"], np.exp(np.arange(4) + 2.0), rtol=1e-6)
    assert len(done.folds.folded) == 3 and not done.folds.kept


def test_without_fold_nothing_is_evaluated() -> None:
    before = model([node("Neg", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    assert kinds(sanitize(before).model) == ["Neg", "Add"]


def test_unsorted_nodes_are_sorted_and_unused_ones_dropped() -> None:
    before = model(
        [node("Relu", ["t"]), node("Neg", ["x"], ["t"]), node("Abs", ["t"], ["unused"], name="idle")],
        X,
        constants={"nobody": np.ones(3, np.float32)},
    )
    done = sanitize(before)
    assert kinds(done.model) == ["Neg", "Relu"] and done.sorted and not stored(done.model)
    assert done.dropped == ("node 'idle' (Abs)", "stored tensor 'nobody'")
    onnx.checker.check_model(done.model, full_check=True)


def test_static_shape_arithmetic_becomes_a_stored_shape() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"]),
    ]
    constants = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([12])}
    before = model(nodes, X, constants=constants)
    done = sanitize(before, fold=True)
    assert kinds(done.model) == ["Reshape"]
    np.testing.assert_array_equal(stored(done.model)["shape"], [2, 12])
    assert_same_outputs(before, done.model)


def test_shape_with_one_open_dim_is_stored_with_minus_one() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "begin", "end"], ["n"]),
        node("Concat", ["n", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"]),
    ]
    constants = {"begin": np.array([0]), "end": np.array([1]), "rest": np.array([4, 3])}
    before = model(nodes, {"x": ("batch", 3, 4)}, constants=constants)
    done = sanitize(before, fold=True)
    assert kinds(done.model) == ["Reshape"] and done.folds.reshapes == ["node 'Reshape:y' (Reshape)"]
    np.testing.assert_array_equal(stored(done.model)["shape/static"], [-1, 4, 3])
    for batch in (1, 5):
        assert_same_outputs(before, done.model, (batch, 3, 4))


def test_shape_with_two_open_dims_stays_computed() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"])]
    before = model(nodes, {"x": ("batch", 3, "width")})
    assert kinds(sanitize(before, fold=True).model) == ["Shape", "Reshape"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("RandomNormal", [], ["r"], shape=[4])], "random"),
        ([node("Dropout", ["a", "half", "yes"], ["r"])], "random"),
        ([node("ConstantOfShape", ["huge"], ["r"])], "above the limit"),
        ([node("Expand", ["a", "huge"], ["r"])], "above the limit"),
        ([node("DequantizeLinear", ["q", "scale"], ["r"])], "precision"),
    ],
    ids=["random", "dropout", "fill", "expand", "dequantize"],
)
def test_node_that_must_not_be_folded_stays_with_its_reason(nodes: list[onnx.NodeProto], reason: str) -> None:
    constants = {
        "a": np.ones(1, np.float32),
        "half": np.float32(0.5),
        "yes": np.array(True),
        "huge": np.array([1 << 20, 1 << 20]),
        "q": np.ones(4, np.int8),
        "scale": np.float32(0.5),
    }
    before = model([*nodes, node("Add", ["x", "r"])], X, constants=constants)
    done = sanitize(before, fold=True)
    assert kinds(done.model) == [n.op_type for n in before.graph.node]
    ((_, told),) = done.folds.kept.items()
    assert reason in told


def test_size_limit_decides_what_is_stored() -> None:
    before = model([node("Neg", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    assert kinds(sanitize(before, fold=True, limit_bytes=16).model) == ["Add"]
    assert kinds(sanitize(before, fold=True, limit_bytes=15).model) == ["Neg", "Add"]


def test_stored_default_of_an_input_is_not_constant() -> None:
    before = model([node("Neg", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    before.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [4]))
    assert kinds(sanitize(before, fold=True).model) == ["Neg", "Add"]


def test_old_model_lists_stored_tensors_as_inputs_no_more() -> None:
    before = model([node("Neg", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    before.graph.input.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [4]))
    before.ir_version = 3
    del before.opset_import[:]
    before.opset_import.append(helper.make_opsetid("", 8))
    done = sanitize(before, fold=True)
    assert kinds(done.model) == ["Add"] and [i.name for i in done.model.graph.input] == ["x"]


def test_tensor_read_inside_a_branch_is_used_and_its_control_flow_stays() -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        return helper.make_graph([node(op, ["x", "b"], ["o"])], op, [], [out])

    nodes = [
        node("If", ["yes"], ["y"], then_branch=branch("Add"), else_branch=branch("Sub")),
        node("Neg", ["a"], ["b"]),
    ]
    constants = {"yes": np.array(True), "a": np.ones(4, np.float32)}
    done = sanitize(model(nodes, X, constants=constants), fold=True)
    assert kinds(done.model) == ["If"] and set(stored(done.model)) == {"yes", "b"}
    assert list(done.folds.kept.values()) == []  # it reads x: not a node of constants
    ordered = model(nodes[::-1], X, constants=constants)
    assert_same_outputs(ordered, done.model)


def test_operator_without_importer_is_folded_by_onnx_reference() -> None:
    before = model(
        [node("Hardmax", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.arange(4, dtype=np.float32)}
    )
    done = sanitize(before, fold=True)
    np.testing.assert_array_equal(stored(done.model)["b"], [0, 0, 0, 1])


def test_constant_output_of_the_model_keeps_its_name() -> None:
    before = model([node("Neg", ["a"], ["y"]), node("Abs", ["x"], ["z"])], X, ["y", "z"], {"a": np.ones(2, np.float32)})
    done = sanitize(before, fold=True)
    assert kinds(done.model) == ["Abs"]
    assert_same_outputs(before, done.model)


@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        ([node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), node("Abs", ["b"])], "depend on themselves"),
        ([node("Neg", ["x"]), node("Abs", ["x"])], "made twice"),
        ([node("Add", ["x", "nowhere"])], "nothing makes"),
    ],
    ids=["cycle", "twice", "missing"],
)
def test_inconsistent_model_is_refused(nodes: list[onnx.NodeProto], what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        sanitize(model(nodes, X))
    assert caught.value.code == "M123"


def test_given_model_is_not_changed() -> None:
    before = model([node("Neg", ["a"], ["b"]), node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    data = before.SerializeToString(deterministic=True)
    sanitize(before, fold=True)
    assert before.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize(
    "bad",
    [
        node("Gather", ["a"], ["b"]),
        node("Add", ["a"], ["b"]),
        node("Shape", ["x"], ["b"], start=0.5),
        node("NoSuchOperator", ["a"], ["b"]),
    ],
    ids=["gather", "add", "shape", "unknown"],
)
def test_malformed_node_is_left_to_the_checker(bad: onnx.NodeProto) -> None:
    before = model([bad, node("Add", ["x", "b"])], X, constants={"a": np.ones(4, np.float32)})
    done = sanitize(before, fold=True)
    assert kinds(done.model) == [bad.op_type, "Add"]
    with pytest.raises(ModelError) as caught:
        check_model(done.model)
    assert caught.value.code == "M121"
