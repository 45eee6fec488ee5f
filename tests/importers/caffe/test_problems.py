# SPDX-License-Identifier: Apache-2.0
"""Bad prototxt and caffemodel files: each fault by name, all of them at once, and nothing half-built."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import tensorwright as tw
from tensorwright.errors import ModelError, UnsupportedError
from tests.importers.caffe.writer import Fields, Word, blob, inputs, layer, message_field, model_bytes, net_text, write

X = inputs({"x": (1, 3, 8, 8)})
RELU = layer("ReLU", ("x",), ("y",))
CONV = layer("Convolution", ("x",), ("conv",), convolution_param={"num_output": 4, "kernel_size": 3})
W = [np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)]


def fails(folder: pathlib.Path, layers: Any, weights: Any = None, **more: Any) -> ModelError:
    """The error of a build that saves a plan; no plan is left."""
    prototxt, caffemodel = write(folder, layers, weights)
    with pytest.raises(ModelError) as caught:
        tw.build(prototxt, weights=caffemodel, tune="off", **more).save(folder / "net.plan")
    assert sorted(path.suffix for path in folder.iterdir()) in ([".prototxt"], [".caffemodel", ".prototxt"])
    return caught.value


def mistakes(folder: pathlib.Path, layers: Any, weights: Any = None) -> str:
    error = fails(folder, layers, weights)
    assert error.code == "M104", error
    return "\n".join(error.why)


# -- text ---------------------------------------------------------------------------------------------
SYNTAX: dict[str, tuple[str, int, int, str]] = {
    "no_colon": ('name: "a"\nlayer {\n  name "b"\n}', 3, 8, 'Expected ":"'),
    "open_block": ('layer {\n  name: "a"\n', 2, 9, 'Expected "}"'),
    "unknown_field": ('layer {\n  name: "a"\n  type: "ReLU"\n  foo: 3\n}', 4, 3, 'no field named "foo"'),
    "not_a_number": ('layer { type: "ReLU" relu_param { negative_slope: high } }', 1, 51, "Couldn't parse float: high"),
    "negative": ("layer { convolution_param { num_output: -1 } }", 1, 41, "Value out of range: -1"),
    "huge": ("layer { convolution_param { num_output: 99999999999999999999 } }", 1, 41, "Value out of range"),
    "enum": ("layer { pooling_param { pool: MIN } }", 1, 31, "Enum type PoolMethod has no value named MIN"),
    "twice": ('name: "a"\nname: "b"', 2, 7, "should not have multiple"),
    "open_text": ('name: "a\nlayer { }', 1, 7, "String missing ending quote"),
    "binary_text": ("\x00\x01\x02", 1, 1, "Expected identifier"),
    "solver": ('net: "train.prototxt"\nbase_lr: 0.01', 1, 1, 'no field named "net"'),
}


@pytest.mark.parametrize("name", SYNTAX)
def test_syntax_error_has_line_and_column(name: str, tmp_path: pathlib.Path) -> None:
    source, line, column, why = SYNTAX[name]
    error = fails(tmp_path, source)
    assert error.code == "M103" and error.what == "the prototxt cannot be parsed"
    assert error.where.endswith(f"net.prototxt, line {line}, column {column}"), error
    assert why in error.why[0], error


OLD: dict[str, tuple[str, int, str]] = {
    "unquoted": ('layer { name: "a"\n type: CONVOLUTION }', 2, 'type: "Convolution"'),
    "layers": ('name: "a"\n\nlayers { name: "b" type: RELU }', 3, 'type: "ReLU"'),
    "layers_colon": ('layers: {\n type: INNER_PRODUCT bottom: "x" }', 1, 'type: "InnerProduct"'),
    "quoted_in_layers": ('layers { type: "SOFTMAX_LOSS" }', 1, 'type: "SoftmaxWithLoss"'),
    "nested": ('layers { layer { type: "relu" } }', 1, 'type: "ReLU"'),
}


@pytest.mark.parametrize("name", OLD)
def test_old_style_is_refused_with_the_modern_spelling(name: str, tmp_path: pathlib.Path) -> None:
    source, line, modern = OLD[name]
    error = fails(tmp_path, source)
    assert (error.code, error.what) == ("M103", "the prototxt is in the old style")
    assert error.where.endswith(f"net.prototxt, line {line}")
    assert modern in error.do


def test_comments_and_strings_are_not_old_style(tmp_path: pathlib.Path) -> None:
    source = '# layers { type: RELU }\nname: "layers { type: RELU }"\n' + net_text([*X, RELU]).partition("\n")[2]
    prototxt, _ = write(tmp_path, source)
    assert tw.build(prototxt, target="reference").name == "layers { type: RELU }"


@pytest.mark.parametrize(
    ("data", "code", "why"),
    [
        (b"", "M102", "the prototxt file is empty"),
        (b"PK\x03\x04rest", "M103", "a zip archive"),
        (b"<!DOCTYPE html>", "M103", "a web page"),
        (b"\xff\xfe\x00", "M103", "byte 0 is no UTF-8 text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "M103", "git lfs pull"),
    ],
)
def test_other_files_are_no_prototxt(data: bytes, code: str, why: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=why) as caught:
        tw.build(path)
    assert caught.value.code == code


def test_missing_files_are_said_to_be_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelError, match="the prototxt file does not exist") as caught:
        tw.build(tmp_path / "net.prototxt")
    assert caught.value.code == "M101"
    with pytest.raises(ModelError, match="the weights file does not exist") as caught:
        tw.build(write(tmp_path, [*X, RELU])[0], weights=tmp_path / "net.caffemodel")
    assert caught.value.code == "M101"


def test_caffemodel_alone_asks_for_the_prototxt(tmp_path: pathlib.Path) -> None:
    _, caffemodel = write(tmp_path, [*X, RELU], {"y": []})
    with pytest.raises(ModelError, match="it holds weights only") as caught:
        tw.build(str(caffemodel))
    assert caught.value.code == "M105" and "prototxt" in caught.value.do


def test_fields_of_forks_matter_in_layers_that_run_only(tmp_path: pathlib.Path) -> None:
    strange = [
        layer("DenseImageData", (), ("x", "label"), "data", dense_image_data_param={"source": "train.txt"}),
        layer("Fork", ("x",), ("f",), include={"phase": Word("TRAIN")}, fork_param={"depth": [1, {"a": 2}]}),
        layer("ReLU", ("x",), ("y",)),
        layer("SoftmaxWithLoss", ("y", "label"), ("loss",), loss_param={"weight_by_label_freqs": True}),
    ]
    prototxt, _ = write(tmp_path, strange)
    assert tw.build(prototxt, shapes={"x": (1, 2)}, target="reference").outputs[0].shape == (1, 2)
    error = fails(tmp_path, [*strange, layer("ReLU", ("y",), ("z",), relu_param={"strange": 1})])
    assert error.code == "M103" and 'a Relu has no field named "strange"' in error.why[0], error
    line = 1 + [
        text.strip() for text in net_text([*strange, layer("ReLU", relu_param={"strange": 1})]).splitlines()
    ].index("strange: 1")
    assert f"line {line}, column 5" in error.where


def test_unknown_layers_with_fields_of_their_own_are_all_named(tmp_path: pathlib.Path) -> None:
    layers = [*X, layer("Foo", ("x",), ("a",), foo_param={"b": 1}), layer("Bar", ("x",), ("c",), bar_param={"d": "e"})]
    error = fails(tmp_path, layers)
    assert error.code == "M201" and error.what == "2 layers of 2 kinds cannot be imported", error


def test_python_layer_without_bottoms_is_an_input(tmp_path: pathlib.Path) -> None:
    layers = [layer("Python", (), ("x",), "data", python_param={"module": "layers", "layer": "Data"}), RELU]
    assert "the input 'x' has no shape here" in mistakes(tmp_path, layers)
    assert tw.build(write(tmp_path, layers)[0], shapes={"x": (3,)}, target="reference").outputs[0].shape == (3,)
    error = fails(tmp_path, [*X, layer("Python", ("x",), ("y",), python_param={"module": "a", "layer": "B"})])
    assert error.code == "M201"


# -- networks -----------------------------------------------------------------------------------------
def test_unknown_layers_are_all_named_with_all_mistakes(tmp_path: pathlib.Path) -> None:
    layers = [
        *X,
        layer("Foo", ("x",), ("a",)),
        layer("Foo", ("a",), ("b",)),
        layer("Bar", ("x",), ("c",)),
        layer("Eltwise", ("x",), ("d",)),
        layer("", ("x",), ("e",)),
    ]
    error = fails(tmp_path, layers)
    assert isinstance(error, UnsupportedError) and error.code == "M201"
    assert error.what == "4 layers of 3 kinds cannot be imported"
    text = "\n".join(error.problems)
    for part in ("Foo (a, b), 2 times", "Bar (c)", "a layer without type (e)", "layer 'd' (Eltwise): it takes 2"):
        assert part in text, error


NETS: dict[str, tuple[list[Fields], str]] = {
    "missing_bottom": (
        [layer("ReLU", ("x",), ("data_1",)), layer("ReLU", ("data_2",), ("y",))],
        "layer 'y' (ReLU) reads the blob 'data_2', which no layer makes; there are 'data_1'",
    ),
    "used_before": (
        [layer("ReLU", ("b",), ("a",)), layer("ReLU", ("a",), ("b",))],
        "layer 'a' (ReLU) reads the blob 'b', which only a later layer makes: 'b'",
    ),
    "cycle": (
        [layer("Eltwise", ("x", "b"), ("a",)), layer("ReLU", ("a",), ("b",))],
        "layer 'a' (Eltwise) reads the blob 'b', which only a later layer makes: 'b'",
    ),
    "left_out": (
        [layer("ReLU", ("x",), ("a",), include={"stage": "fast"}), layer("ReLU", ("a",), ("y",))],
        "reads the blob 'a', which only layers make that their include and exclude rules leave out",
    ),
    "reads_itself": (
        [layer("ReLU", ("a",), ("a",))],
        "layer 'a' (ReLU) reads the blob 'a', which only a later layer makes: 'a'",
    ),
    "duplicate_top": (
        [RELU, layer("TanH", ("x",), ("y",), "t")],
        "layer 't' (TanH) makes the blob 'y', which another layer makes already",
    ),
    "duplicate_input": ([*X, RELU], "layer 'x' (Input) makes the blob 'x', which there is already"),
    "no_output": ([], "it has no layer that makes an output"),
    "both_rules": (
        [layer("ReLU", include={"phase": Word("TEST")}, exclude={"phase": Word("TRAIN")})],
        "layer 'y' (ReLU) has both include and exclude rules",
    ),
    "shapes_of_inputs": (
        [layer("Input", (), ("a", "b", "c"), "in", input_param={"shape": [{"dim": 1}, {"dim": 2}]})],
        "layer 'in' (Input) has 3 tops and 2 shapes",
    ),
    "negative_size": ([*inputs({"z": (1, -3)}), RELU], "declares 'z' with the shape [1, -3]; sizes are not negative"),
    "too_many_tops": ([layer("ReLU", ("x",), ("y", "z"))], "layer 'y' (ReLU) makes 1 of its 2 tops"),
    "too_many_bottoms": ([layer("ReLU", ("x", "x"), ("y",))], "layer 'y' (ReLU): it takes 1 bottoms, it has 2"),
    "no_bottom": ([layer("ReLU", (), ("y",))], "layer 'y' (ReLU): it takes 1 bottoms, it has 0"),
    "no_bottom_of_concat": ([layer("Concat", (), ("y",))], "layer 'y' (Concat): it needs 1 bottoms, it has 0"),
}


@pytest.mark.parametrize("name", NETS)
def test_network_that_contradicts_itself(name: str, tmp_path: pathlib.Path) -> None:
    layers, why = NETS[name]
    assert why in mistakes(tmp_path, [*X, *layers])


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ('input: "x" input_dim: 1 input_dim: 2', "1 inputs need 4 input_dim, there are 2"),
        ('input: "x" input: "z" input_shape { dim: 1 }', "2 inputs need as many input_shape, there are 1"),
        ('input: "x" input_dim: [1,2,3,4] input_shape { dim: 1 }', "either input_dim or input_shape, not both"),
    ],
)
def test_header_that_contradicts_itself(head: str, why: str, tmp_path: pathlib.Path) -> None:
    assert why in mistakes(tmp_path, f"{head}\n{net_text([RELU])}")


def test_absent_output_shows_the_nearest(tmp_path: pathlib.Path) -> None:
    error = fails(tmp_path, [*X, layer("ReLU", ("x",), ("prob",))], outputs=["porb"])
    assert error.code == "M107" and "'porb'" in error.what and "prob" in error.do
    assert fails(tmp_path, [*X, RELU], outputs=["y", "y"]).code == "M107"
    assert fails(tmp_path, [*X, RELU], outputs=[]).code == "M107"


# -- weights ------------------------------------------------------------------------------------------
def test_blobs_of_wrong_shape_are_all_told(tmp_path: pathlib.Path) -> None:
    layers = [*X, CONV, layer("InnerProduct", ("conv",), ("fc",), inner_product_param={"num_output": 5})]
    wrong = {"conv": [np.zeros((4, 3, 5, 5)), np.zeros(4)], "fc": [np.zeros((5, 144)), np.zeros(6)]}
    text = mistakes(tmp_path, layers, wrong)
    assert (
        "layer 'conv' (Convolution): blob 0 of the weights file has the shape [4, 3, 5, 5], expected [4, 3, 3, 3]"
        in text
    )
    assert "'fc' (InnerProduct)" not in text  # what it reads could not be computed
    wrong["conv"] = W
    text = mistakes(tmp_path, layers, wrong)
    assert "layer 'fc' (InnerProduct): blob 1 of the weights file has the shape [6], expected [5]" in text


def test_number_of_blobs_must_be_right(tmp_path: pathlib.Path) -> None:
    text = mistakes(tmp_path, [*X, CONV], {"conv": W[:1]})
    assert "layer 'conv' (Convolution): the weights file has 1 blobs for it, it needs blob 1 of [4]" in text
    text = mistakes(tmp_path, [*X, CONV], {"conv": [*W, W[1]]})
    assert "layer 'conv' (Convolution): the weights file has 3 blobs for it, it takes 2" in text


def test_shape_and_numbers_of_a_blob_must_agree(tmp_path: pathlib.Path) -> None:
    damaged = blob(W[0])[: -4 * 108 - 3] + message_field(5, bytes(4 * 107))
    owner = message_field(1, b"conv") + message_field(7, damaged)
    error = fails(tmp_path, [*X, CONV], message_field(100, owner))
    assert error.code == "M104" and error.what == "the caffemodel contradicts itself"
    assert error.why == ("layer 'conv' has a blob of the shape [4, 3, 3, 3] with 107 numbers",)


def test_every_truncated_caffemodel_is_refused(tmp_path: pathlib.Path) -> None:
    whole = model_bytes({"conv": W})
    for size in [*range(1, 40), len(whole) // 2, len(whole) - 20, len(whole) - 1]:
        error = fails(tmp_path, [*X, CONV], whole[:size])
        assert error.code == "M103" and error.what.startswith("the weights file is not a caffemodel"), size


def onnx_bytes() -> bytes:
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [info], [])
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


def test_weights_in_hdf5_are_to_be_converted(tmp_path: pathlib.Path) -> None:
    error = fails(tmp_path, [*X, CONV], b"\x89HDF\r\n\x1a\n" + bytes(64))
    assert (error.code, error.what) == ("M103", "the weights are in HDF5, which this version does not read")
    assert "net.save" in error.do


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "M102"),
        (onnx_bytes(), "M103"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "M103"),
        (b"PK\x03\x04" + bytes(64), "M103"),
        (net_text([*X, RELU]).encode(), "M103"),
        (bytes(100), "M103"),
        (b"\xff" * 100, "M103"),
        (message_field(100, message_field(1, b"\xff\xfe")), "M103"),
    ],
    ids=["empty", "onnx", "hdf5", "zip", "prototxt", "zeros", "ones", "name"],
)
def test_other_files_are_no_caffemodel(data: bytes, code: str, tmp_path: pathlib.Path) -> None:
    error = fails(tmp_path, [*X, CONV], data)
    assert error.code == code and error.where.endswith("net.caffemodel"), error
