# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be imported: every problem is reported at once, with its code, and nothing crashes."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensorwright.errors import ModelError, UnsupportedError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.graph import Graph
from tests.importers.models import model, node
from tests.importers.test_onnx_graphs import lenet, view_chain


def failure(
    proto: onnx.ModelProto | bytes | pathlib.Path, kind: type[ModelError] = ModelError, *, host_ops: bool = True
) -> ModelError:
    with pytest.raises(kind) as caught:
        import_onnx(proto, host_ops=host_ops)
    return caught.value


TERMS = {
    "mode": "TF",
    "min_gram_length": 1,
    "max_gram_length": 1,
    "max_skip_count": 0,
    "ngram_counts": [0],
    "ngram_indexes": [0],
    "pool_int64s": [1],
}


def test_all_problems_are_reported_at_once() -> None:
    nodes = [
        node("Unique", ["x"], ["n"], "once"),
        node("TfIdfVectorizer", ["x"], ["u1"], "first", **TERMS),
        node("TfIdfVectorizer", ["x"], ["u2"], "second", **TERMS),
        node(
            "Custom",
            ["x"],
            ["c"],
            "mine",
        ),
        helper.make_node("FusedThing", ["x"], ["f"], name="fused", domain="com.example"),
        node("Dropout", ["x", "", "train"], ["d"], "drop"),
        node("Relu", ["n"], ["after"], "after_once"),
        node("StringSplit", ["after"], ["v", "i"], "pieces"),
        node("Reshape", ["x", "bad"], ["r"], "wrong"),
    ]
    proto = model(
        nodes,
        {"x": [2, 3]},
        ["u1", "u2", "c", "f", "d", "v", "r"],
        {"train": np.bool_(True), "bad": np.array([5])},
    )
    error = failure(proto, UnsupportedError, host_ops=False)
    text = str(error)
    assert error.code == "M201" and "opset 17" in text
    for part in (
        "Unique (once)",
        "TfIdfVectorizer (first, second), 2 times",
        "Custom (mine)",
        "com.example.FusedThing (fused)",
        "Dropout (drop): it is in training mode",
        "StringSplit (pieces)",
        "'wrong' (Reshape)",
        "export the model in evaluation mode",
    ):
        assert part in text, part
    assert "7 nodes of 6 kinds" in text
    assert "after_once" not in text  # nothing is wrong with a node that only reads what could not be imported
    assert len(error.problems) == 7  # type: ignore[attr-defined]


def test_many_nodes_of_one_kind_are_counted_and_named_in_part() -> None:
    proto = model(
        [node("TfIdfVectorizer", ["x"], [f"y{i}"], f"n{i}", **TERMS) for i in range(9)],
        {"x": [2]},
        [f"y{i}" for i in range(9)],
    )
    assert "TfIdfVectorizer (n0, n1, n2, n3, n4 and 4 more), 9 times" in str(
        failure(proto, UnsupportedError, host_ops=False)
    )


@pytest.mark.parametrize("opset", [0, 29, 10**6])
def test_opset_outside_what_is_known_is_refused(opset: int) -> None:
    error = failure(model([node("Relu", ["x"])], {"x": [2]}, opset=opset))
    assert error.code == ("M104" if opset == 0 else "M201")


def test_attribute_that_no_importer_reads_is_refused() -> None:
    proto = model([node("Constant", [], ["c"], value_string="text"), node("Identity", ["c"])], {"x": [1]})
    assert "value_string" in str(failure(proto, UnsupportedError, host_ops=False))


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(TensorProto.STRING, "STRING"), (TensorProto.COMPLEX64, "COMPLEX64")],
)
def test_dtype_outside_the_ir_is_refused_by_name(dtype: int, name: str) -> None:
    proto = model([node("Identity", ["x"])], {"x": [2]}, kinds={"x": dtype, "y": dtype}, opset=21)
    error = failure(proto, UnsupportedError, host_ops=False)
    assert f"input (x): has data type {name}, which is not supported" in str(error)


INCONSISTENT = {
    "dangling": (
        model([node("Relu", ["ghost"], name="r")], {"x": [2]}),
        "node 'r' (Relu) reads 'ghost', which nothing makes",
    ),
    "output": (model([node("Relu", ["x"], ["z"])], {"x": [2]}), "output 'y' reads 'y', which nothing makes"),
    "twice": (
        model([node("Relu", ["x"], name="p"), node("Neg", ["x"], name="q")], {"x": [2]}),
        "'y' is made twice: by p and by node 'q' (Neg)",
    ),
    "shadow": (
        model([node("Relu", ["x"], ["x"], "p")], {"x": [2]}, ["x"]),
        "'x' is made twice: by an input or initializer",
    ),
    "cycle": (
        model([node("Add", ["x", "y"], ["a"], "p"), node("Relu", ["a"], name="q")], {"x": [2]}),
        "depends on itself",
    ),
    "inputs": (
        model([node("Relu", ["x"]), node("Neg", ["x"], ["z"])], {"x": [2]}, {"y": [3], "z": [2]}),
        "node 'Relu:y' (Relu) makes 'y' as f32[2], but it is declared as [3]",
    ),
    "dtype": (model([node("Relu", ["x"])], {"x": [2]}, kinds={"y": TensorProto.INT64}), "declared as i64"),
    "types": (
        model([node("Add", ["x", "i"], name="sum")], {"x": [2], "i": [2]}, kinds={"i": TensorProto.INT64}),
        "'sum' (Add): add needs inputs of one element type",
    ),
    "shapes": (model([node("Add", ["a", "b"], name="sum")], {"a": [2], "b": [3]}), "'sum' (Add): add cannot broadcast"),
    "arity": (model([node("Add", ["a"], name="sum")], {"a": [2]}), "'sum' (Add)"),
    "attribute": (model([node("Gemm", ["a", "a"], name="g", alpha="big")], {"a": [2, 2]}), "'g' (Gemm)"),
    "unknown attribute": (model([node("Relu", ["x"], name="r", slope=0.1)], {"x": [2]}), "'r' (Relu)"),
    "required": (model([node("Concat", ["x", "x"], name="c")], {"x": [2]}), "'c' (Concat)"),
    "axis": (model([node("Softmax", ["x"], name="s", axis=4)], {"x": [2]}), "axis 4 is not within a rank of 1"),
    "no outputs": (model([node("Relu", ["x"])], {"x": [2]}, []), "it has no outputs"),
    "output twice": (model([node("Relu", ["x"])], {"x": [2]}, ["y"]), "output 'y' is declared twice"),
    "opset": (
        model([node("Relu", ["x"], name="r")], {"x": [2]}),
        "'r' (Relu): there is no IR version 8 with the opsets",
    ),
    "no opset": (
        helper.make_model(helper.make_graph([node("Relu", ["x"])], "g", [], []), opset_imports=[]),
        "which opset it uses",
    ),
    "pads": (
        model([node("Conv", ["x", "w"], name="c", pads=[1, 1, 1])], {"x": [1, 1, 4, 4], "w": [1, 1, 3, 3]}),
        "'c' (Conv)",
    ),
    "kernel": (
        model([node("Conv", ["x", "w"], name="c", kernel_shape=[5, 5])], {"x": [1, 1, 4, 4], "w": [1, 1, 3, 3]}),
        "contradicts the weight",
    ),
    "no shape": (model([node("Relu", ["x"])], {"x": None}), "input 'x' has no shape; give it one with shapes="),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_inconsistent_model_gives_m104_that_names_the_place(name: str) -> None:
    proto, text = INCONSISTENT[name]
    if name == "no opset":
        del proto.opset_import[:]
    if name == "output twice":
        proto.graph.output.append(proto.graph.output[0])
    if name == "opset":
        proto.opset_import.append(helper.make_opsetid("odd", 2**40))
    error = failure(proto)
    assert error.code == "M104" and text in str(error), str(error)


def test_old_model_that_is_damaged_is_not_given_to_the_converter() -> None:
    """ONNX's converter crashes on it, and the process with it."""
    encoder = node("LabelEncoder", ["a"], keys_strings=["one"], values_int64s=[4], domain="ai.onnx.ml")
    proto = model([node("Constant", [], ["a"], value_strings=["one"]), encoder], {"x": [2]}, opset=1)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert "value_strings" in str(failure(proto))


def test_output_chosen_twice_gives_m107() -> None:
    with pytest.raises(ModelError, match="more than once") as caught:
        import_onnx(model([node("Relu", ["x"])], {"x": [2]}), outputs=["y", "y"])
    assert caught.value.code == "M107"


def test_all_mistakes_are_listed_together() -> None:
    proto = model([node("Relu", ["g1"]), node("Neg", ["g2"], ["z"])], {"x": [2]}, ["y", "z", "w"])
    assert all(f"{name!r}, which nothing makes" in str(failure(proto)) for name in ("g1", "g2", "w"))


def test_damaged_initializers_are_named() -> None:
    proto = model(
        [node("Add", ["x", "w"]), node("Add", ["x", "v"], ["z"])],
        {"x": [2]},
        ["y", "z"],
        {"w": np.float32([1, 2]), "v": np.float32([1, 2])},
    )
    proto.graph.initializer[0].raw_data = b"\0\0\0"
    proto.graph.initializer[1].dims[0] = -2
    error = failure(proto)
    assert error.code == "M104" and "initializer 'w'" in str(error) and "initializer 'v'" in str(error)


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"", "M102", "empty"),
        (b"hello, this is no protobuf", "M103", "not an ONNX model"),
        (b"\xff" * 64, "M103", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "M103", "git lfs pull"),
        (b"PK\x03\x04rest", "M103", "torch.onnx.export"),
        (b"\x08\x07", "M103", "holds no ONNX graph"),
    ],
)
def test_file_that_is_no_model_gives_its_code(tmp_path: pathlib.Path, content: bytes, code: str, text: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    error = failure(tmp_path / "m.onnx")
    assert error.code == code and text in str(error) and str(tmp_path / "m.onnx") in str(error)


def test_missing_file_and_folder_give_m101(tmp_path: pathlib.Path) -> None:
    assert failure(tmp_path / "none.onnx").code == "M101"
    assert failure(tmp_path).code == "M101"


@pytest.mark.parametrize("seed", range(6))
def test_damaged_file_gives_a_model_error_or_a_graph(seed: int) -> None:
    """Truncations and flipped bits, in two models with different ops."""
    rng = np.random.default_rng(seed)
    chain = {"zero": np.int64(0), "axis": np.array([0]), "minus": np.array([-1]), "four": np.array([4])}
    for proto in (lenet("batch"), model(view_chain(), {"x": ["n", 3, 5]}, ["y"], chain)):
        whole = proto.SerializeToString()
        # the weights are most of the bytes and the least interesting ones: aim before and after them as often
        ends = [
            int(rng.integers(len(whole))) if rng.random() < 0.3 else int(rng.integers(min(400, len(whole))))
            for _ in range(60)
        ]
        for end in ends:
            data = bytearray(whole[:end] if rng.random() < 0.3 else whole)
            for place in rng.integers(max(len(data), 1), size=int(rng.integers(1, 5))):
                position = int(place) if rng.random() < 0.5 else min(int(end), len(data) - 1)
                if data:
                    data[position] ^= 1 << int(rng.integers(8))
            try:
                assert isinstance(import_onnx(bytes(data)), Graph)
            except ModelError as error:
                assert error.code.startswith(("M1", "M2")), f"seed {seed}"
