# SPDX-License-Identifier: Apache-2.0
"""Whole models: names, origins, shape arithmetic, symbolic dims, functions, old opsets."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import ModelError, UnsupportedError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.dims import SymDim
from tensorwright.ir.verify import verify
from tests.importers.models import assert_agrees, feeds_for, model, node, runtime_outputs

I64 = TensorProto.INT64
RNG = np.random.default_rng(5)
BATCH = SymDim.symbol("batch")


def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RNG.standard_normal(shape).astype(np.float32)


def lenet(batch: int | str = 1) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["data", "w1", "b1"], ["c1"], "conv1"),
        node("MaxPool", ["c1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2"),
        node("MaxPool", ["c2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p2"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["g1"], "fc1", transB=1),
        node("Relu", ["g1"], ["r"], "relu1"),
        node("Gemm", ["r", "w4", "b4"], ["g2"], "fc2", transB=1),
        node("Softmax", ["g2"], ["prob"], "softmax", axis=1),
    ]
    constants = {
        "w1": weights(6, 1, 5, 5),
        "b1": weights(6),
        "w2": weights(8, 6, 5, 5),
        "b2": weights(8),
        "w3": weights(50, 128),
        "b3": weights(50),
        "w4": weights(10, 50),
        "b4": weights(10),
        "unused": weights(3),
    }
    return model(nodes, {"data": [batch, 1, 28, 28]}, {"prob": [batch, 10]}, constants)


def test_lenet_imported_agrees_and_carries_the_names_of_the_model() -> None:
    graph = assert_agrees(lenet(), seed=3)
    verify(graph)
    assert graph.output_names == ("prob",)
    conv = graph.nodes[0]
    assert (conv.name, conv.origin, conv.output.name) == ("conv1", ("conv1",), "c1")
    assert [v.name for v in conv.inputs if v] == ["data", "w1", "b1"]
    flat = next(n for n in graph if n.op.kind == "reshape")
    assert flat.name == "Flatten:f" and flat.output.name == "f"
    matmul = next(n for n in graph if n.op.kind == "mat_mul")
    assert matmul.origin == ("fc1",) and matmul.name == "fc1/mat_mul"
    assert next(n for n in graph if n.output.name == "g1").name == "fc1"
    assert "unused" not in {v.name for v in graph.constants}


def test_lenet_with_symbolic_batch_stays_symbolic_until_a_shape_is_given() -> None:
    assert import_onnx(lenet("batch")).outputs[0].type.shape == (BATCH, 10)
    graph = assert_agrees(lenet("batch"), seed=4, shapes={"data": (3, 1, 28, 28)})
    assert graph.outputs[0].type.shape == (3, 10)


def test_lenet_from_path_bytes_and_proto_gives_the_same_graph(tmp_path: pathlib.Path) -> None:
    proto = lenet()
    onnx.save(proto, tmp_path / "lenet.onnx")
    graphs = [
        import_onnx(source)
        for source in (proto, proto.SerializeToString(), tmp_path / "lenet.onnx", str(tmp_path / "lenet.onnx"))
    ]
    assert len({tuple(n.op for n in g) for g in graphs}) == 1


def view_chain() -> list[onnx.NodeProto]:
    """x.view(x.shape[0], -1) and x.new_zeros(x.shape[0], 4) as PyTorch exports them."""
    return [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["flat"]),
        node("Concat", ["n1", "four"], ["z_shape"], axis=0),
        node("ConstantOfShape", ["z_shape"], ["z"]),
        node("Concat", ["flat", "z"], ["y"], axis=1),
    ]


CHAIN = {"zero": np.int64(0), "axis": np.array([0]), "minus": np.array([-1]), "four": np.array([4])}


def test_shape_arithmetic_on_static_shapes_leaves_no_node() -> None:
    graph = assert_agrees(model(view_chain(), {"x": [2, 3, 5]}, ["y"], CHAIN), seed=5)
    assert [n.op.kind for n in graph] == ["reshape", "concat"]


def test_shape_arithmetic_on_a_symbolic_batch_stays_symbolic() -> None:
    proto = model(view_chain(), {"x": ["batch", 3, 5]}, ["y"], CHAIN)
    assert import_onnx(proto).outputs[0].type.shape == (BATCH, 19)
    assert_agrees(proto, seed=6, shapes={"x": (4, 3, 5)})


def test_expand_to_a_shape_with_minus_one_resolved_by_where_follows_symbols() -> None:
    nodes = [
        node("Shape", ["x"], ["s"], start=0, end=2),
        node("Equal", ["wanted", "minus"], ["open"]),
        node("Where", ["open", "s", "wanted"], ["target"]),
        node("Expand", ["x", "target"], ["y"]),
    ]
    proto = model(nodes, {"x": ["batch", 1]}, ["y"], {"wanted": np.array([-1, 6]), "minus": np.array([-1])})
    assert import_onnx(proto).outputs[0].type.shape == (BATCH, 6)
    assert_agrees(proto, seed=7, shapes={"x": (3, 1)})


def test_arithmetic_of_symbolic_sizes_follows_symbols() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["t"]),
        node("Div", ["t", "two"], ["half"]),
        node("Mul", ["half", "two"], ["even"]),
        node("Unsqueeze", ["even", "axis"], ["end"]),
        node("Slice", ["x", "axis", "end", "ones"], ["y"]),
    ]
    constants = {"one": np.int64(1), "two": np.int64(2), "axis": np.array([0]), "ones": np.array([1])}
    proto = model(nodes, {"x": [2, "time"]}, ["y"], constants)
    time = SymDim.symbol("time")
    assert import_onnx(proto).outputs[0].type.shape[1].evaluate({"time": 7}) == 6  # type: ignore[union-attr]
    assert time.symbols <= import_onnx(proto).outputs[0].type.shape[1].symbols  # type: ignore[union-attr]
    assert import_onnx(proto, shapes={"x": (2, 7)}).outputs[0].type.shape == (2, 6)


def test_what_needs_known_sizes_is_refused_with_the_advice_to_give_shapes() -> None:
    proto = model(
        [node("Resize", ["x", "", "s"], ["y"], "up")],
        {"x": ["batch", 2, "height", 4]},
        ["y"],
        {"s": np.array([1, 1, 1.3, 2], np.float32)},
    )
    with pytest.raises(UnsupportedError, match=r"up.*symbolic(.|\n)*shapes="):
        import_onnx(proto, host_ops=False)
    assert_agrees(proto, seed=8, shapes={"x": (2, 2, 4, 4)})


def test_one_bound_input_binds_the_others_with_its_symbols() -> None:
    proto = model([node("Add", ["a", "b"])], {"a": ["n", 3], "b": ["n", 1]})
    assert import_onnx(proto, shapes={"a": (5, 3)}).inputs[1].type.shape == (5, 1)
    with pytest.raises(ModelError, match="n is 5 elsewhere"):
        import_onnx(proto, shapes={"a": (5, 3), "b": (4, 1)})


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"z": (1, 3)}, "no input 'z'; the inputs are a, b"),
        ({"a": (1, 4)}, r"declared as f32\[n,3\], given is 1x4"),
        ({"a": (1, 3, 1)}, "declared"),
        ({"a": (5, 3), "b": (4, 1)}, "n is 5 elsewhere"),
    ],
)
def test_shapes_that_do_not_fit_give_m106(shapes: dict[str, tuple[int, ...]], text: str) -> None:
    with pytest.raises(ModelError, match=text) as caught:
        import_onnx(model([node("Add", ["a", "b"])], {"a": ["n", 3], "b": ["n", 1]}), shapes=shapes)
    assert caught.value.code == "M106"


def test_identity_and_input_as_output_keep_the_names_of_the_model() -> None:
    proto = model(
        [node("Relu", ["x"], ["inner"]), node("Identity", ["inner"], ["y"])], {"x": [2, 3]}, ["y", "x", "inner"]
    )
    graph = import_onnx(proto)
    feeds = feeds_for(graph, np.random.default_rng(9))
    found = interpret(graph, feeds)
    assert list(found) == ["y", "x", "inner"] and len(graph) == 1
    np.testing.assert_array_equal(found["x"], feeds["x"])
    np.testing.assert_array_equal(found["y"], np.maximum(feeds["x"], 0))


def test_constant_output_is_legal() -> None:
    graph = import_onnx(
        model([node("Add", ["c", "c"]), node("Relu", ["x"], ["z"])], {"x": [1]}, ["y", "z"], {"c": np.float32([1, 2])})
    )
    np.testing.assert_array_equal(interpret(graph, {"x": np.zeros(1, np.float32)})["y"], [2, 4])


def test_outputs_chooses_inner_tensors_and_ignores_what_they_do_not_need() -> None:
    proto = model(
        [node("Relu", ["x"], ["a"]), node("Whatever", ["a"], ["y"], "bad")], {"x": [2, 3]}, ["y"], kinds={"y": I64}
    )
    assert import_onnx(proto, outputs=["a"]).output_names == ("a",)
    with pytest.raises(UnsupportedError, match="bad"):
        import_onnx(proto)
    with pytest.raises(ModelError, match="'b'.*does not compute") as caught:
        import_onnx(proto, outputs=["b"])
    assert caught.value.code == "M107"


def test_dead_nodes_of_unknown_ops_do_not_stop_an_import() -> None:
    proto = model([node("Whatever", ["x"], ["dead"]), node("Relu", ["x"])], {"x": [2]})
    assert len(import_onnx(proto)) == 1


def test_initializer_that_is_also_an_input_is_a_constant() -> None:
    proto = model([node("Add", ["x", "w"])], {"x": [2], "w": [2]}, ["y"], {"w": np.float32([1, 2])})
    assert [v.name for v in import_onnx(proto).inputs] == ["x"]


def test_nodes_in_any_order_are_read() -> None:
    proto = model([node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])], {"x": [2]})
    assert [n.op.kind for n in import_onnx(proto)] == ["neg", "relu"]


def test_model_local_function_is_expanded() -> None:
    body = helper.make_function(
        "local", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    proto = model([node("Relu", ["x"], ["r"]), helper.make_node("Twice", ["r"], ["y"], domain="local")], {"x": [3]})
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert [n.op.kind for n in assert_agrees(proto, seed=10)] == ["relu", "add"]


def test_opset_below_seven_is_converted() -> None:
    nodes = [node("Dropout", ["x"], ["d"], is_test=1), node("Add", ["d", "bias"], ["y"], broadcast=1)]
    proto = model(nodes, {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, {"bias": np.float32([1, 2, 3, 4])}, opset=6)
    x = np.random.default_rng(11).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(interpret(import_onnx(proto), {"x": x})["y"], x + np.float32([1, 2, 3, 4]))


def test_opset_below_seven_that_cannot_be_converted_is_refused_or_runs_on_the_host() -> None:
    proto = model(
        [node("PRelu", ["x", "slope"])], {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, {"slope": np.float32([1, 2, 3])}, opset=6
    )
    with pytest.raises(UnsupportedError, match="opsets 7 to 28, not 6"):
        import_onnx(proto, host_ops=False)
    x = np.random.default_rng(3).standard_normal((2, 3, 4)).astype(np.float32)
    want = np.where(x < 0, x * np.float32([1, 2, 3])[:, None], x)  # the slopes are per channel
    np.testing.assert_array_equal(interpret(import_onnx(proto), {"x": x})["y"], want)


def test_attention_block_as_frameworks_export_it_agrees() -> None:
    w = {f"w{i}": weights(8, 8) for i in range(3)} | {
        "s": np.array([0, 5, 2, 4]),
        "back": np.array([0, 5, 8]),
        "root": np.float32(2),
    }
    nodes = [node("MatMul", ["x", f"w{i}"], [f"m{i}"]) for i in range(3)] + [
        node("Reshape", [f"m{i}", "s"], [f"r{i}"]) for i in range(3)
    ]
    nodes += [node("Transpose", [f"r{i}"], [f"t{i}"], perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3]) for i in range(3)]
    nodes += [
        node("MatMul", ["t0", "t1"], ["qk"]),
        node("Div", ["qk", "root"], ["scaled"]),
        node("Softmax", ["scaled"], ["p"], axis=-1),
        node("MatMul", ["p", "t2"], ["o"]),
        node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        node("Reshape", ["ot", "back"]),
    ]
    assert_agrees(model(nodes, {"x": ["batch", 5, 8]}, {"y": ["batch", 5, 8]}, w), seed=12, shapes={"x": (3, 5, 8)})


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("rank", [3, 4])
def test_attention_op_agrees_with_onnx_reference(rank: int, causal: int) -> None:
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if rank == 3 else {}
    inputs = (
        {"q": [2, 3, 20], "k": [2, 6, 10], "v": [2, 6, 14]}
        if rank == 3
        else {"q": [2, 4, 3, 5], "k": [2, 2, 6, 5], "v": [2, 2, 6, 7]}
    )
    proto = model([node("Attention", ["q", "k", "v"], is_causal=causal, **heads)], inputs, ["y"], opset=23)
    graph = import_onnx(proto)
    feeds = feeds_for(graph, np.random.default_rng(13))
    want = ReferenceEvaluator(proto).run(None, feeds)[0]
    np.testing.assert_allclose(interpret(graph, feeds)["y"], want, rtol=1e-4, atol=1e-5)


def test_external_data_beside_the_model_is_read(tmp_path: pathlib.Path) -> None:
    proto = lenet()
    feeds = feeds_for(import_onnx(proto), np.random.default_rng(14))
    want = runtime_outputs(proto, feeds)[0]
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_allclose(interpret(import_onnx(tmp_path / "m.onnx"), feeds)["prob"], want, rtol=1e-4, atol=1e-6)
    with pytest.raises(ModelError, match="lies in another file") as caught:
        import_onnx((tmp_path / "m.onnx").read_bytes())
    assert caught.value.code == "M108"
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(ModelError, match="cannot be read"):
        import_onnx(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        import_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../secret.data", "/etc/hostname", "inner/../../secret.data", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: pathlib.Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.data").write_bytes(bytes(4096))
    proto = model([node("Add", ["x", "w"])], {"x": [2]}, ["y"], {"w": np.float32([1, 2])})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "model" / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder") as caught:
        import_onnx(tmp_path / "model" / "m.onnx")
    assert caught.value.code == "M108"


def test_external_data_through_a_link_to_the_outside_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.data").write_bytes(bytes(4096))
    (tmp_path / "model" / "m.data").symlink_to(tmp_path / "secret.data")
    proto = model([node("Add", ["x", "w"])], {"x": [2]}, ["y"], {"w": np.float32([1, 2])})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="m.data")
    (tmp_path / "model" / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_onnx(tmp_path / "model" / "m.onnx")
