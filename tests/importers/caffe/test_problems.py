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
    "enum": ("layer { pooling_param { pool: MIN } }", 1, 31, "no value named MIN"),
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


def conv(**p: Any) -> list[Fields]:
    return [layer("Convolution", ("x",), ("y",), convolution_param={"num_output": 4, "kernel_size": 3, **p})]


def pool(**p: Any) -> list[Fields]:
    return [layer("Pooling", ("x",), ("y",), pooling_param=p)]


def one(
    kind: str, key: str, bottoms: tuple[str, ...] = ("x",), tops: tuple[str, ...] = ("y",), **p: Any
) -> list[Fields]:
    return [layer(kind, bottoms, tops, "y", **{key: p})]


LAYERS: dict[str, tuple[list[Fields], str]] = {
    "groups": (conv(group=3), "3 channels to 4 outputs cannot be split into 3 groups"),
    "no_groups": (conv(group=0), "cannot be split into 0 groups"),
    "no_outputs": (conv(num_output=0), "3 channels to 0 outputs"),
    "huge_outputs": (conv(num_output=4294967295), "it has a parameter of the shape [4294967295, 3, 3, 3], more than"),
    "huge_kernel": (conv(kernel_size=4000000000), "it has a parameter of the shape"),
    "wide_kernel": (conv(kernel_size=9), "9"),
    "stride_0": (conv(stride=0), "must be positive"),
    "dilation_0": (conv(dilation=0), "must be positive"),
    "one_stride": (conv(stride_h=2), "must be positive"),
    "two_strides": (conv(stride=1, stride_h=2, stride_w=2), "not together with stride"),
    "kernel_numbers": (conv(kernel_size=[3, 3, 3]), "it gives 3 numbers of kernel_size for 2 spatial dims"),
    "no_kernel": (
        [layer("Convolution", ("x",), ("y",), convolution_param={"num_output": 4})],
        "it has no kernel_size",
    ),
    "axis": (conv(axis=4), "axis 4 is not within a rank of 4"),
    "axis_huge": (conv(axis=2147483647), "axis 2147483647 is not within a rank of 4"),
    "huge_dense": (
        one("InnerProduct", "inner_product_param", num_output=4294967295),
        "it has a parameter of the shape [4294967295, 192]",
    ),
    "pool_kernels": (pool(kernel_size=2, kernel_h=3, kernel_w=3), "either kernel_size, or kernel_h and kernel_w"),
    "pool_kernel_h": (pool(kernel_h=3), "either kernel_size, or kernel_h and kernel_w"),
    "pool_no_kernel": (pool(), "either kernel_size, or kernel_h and kernel_w"),
    "pool_pad": (pool(kernel_size=2, pad=2), "a pad is less than the kernel"),
    "pool_stride": (pool(kernel_size=2, stride=0), "do not fit"),
    "pool_strides": (pool(kernel_size=2, stride=1, stride_h=1, stride_w=1), "either stride, or stride_h and stride_w"),
    "pool_pad_h": (pool(kernel_size=2, pad_h=1), "either pad, or pad_h and pad_w"),
    "pool_global": (pool(kernel_size=2, global_pooling=True), "with global_pooling it has no kernel"),
    "pool_wide": (pool(kernel_size=11), "wider than the input"),
    "pyramid": (one("SPP", "spp_param", pyramid_height=0), "it makes a pyramid of height 0"),
    "lrn_even": (one("LRN", "lrn_param", local_size=4), "its local_size 4 is even"),
    "slice": (one("Slice", "slice_param", tops=("y", "z"), axis=1), "3 cannot be cut into 2 equal parts"),
    "slice_order": (one("Slice", "slice_param", tops=("y", "z", "u"), slice_point=[2, 2]), "the points [2, 2]"),
    "slice_past": (one("Slice", "slice_param", tops=("y", "z"), slice_point=5), "the points [5] do not cut 3"),
    "concat_axis": (one("Concat", "concat_param", ("x", "x"), axis=9), "axis 9 is not within a rank of 4"),
    "reshape": (one("Reshape", "reshape_param", shape={"dim": [5, -1]}), "no whole number of 5 elements"),
    "reshape_two": (one("Reshape", "reshape_param", shape={"dim": [-1, -1]}), "one dim may be -1"),
    "reshape_count": (one("Reshape", "reshape_param", shape={"dim": [5]}), "reshape"),
    "reshape_copy": (one("Reshape", "reshape_param", shape={"dim": [1, 1, 1, 1, 0]}), "copies an axis"),
    "reshape_axis": (one("Reshape", "reshape_param", axis=5), "are not within"),
    "permute": (one("Permute", "permute_param", order=[0, 0]), "the order [0, 0] is none"),
    "permute_rank": (one("Permute", "permute_param", order=[0, 9]), "the order [0, 9] is none"),
    "flatten": (one("Flatten", "flatten_param", axis=3, end_axis=1), "are in the wrong order"),
    "tile": (one("Tile", "tile_param", tiles=-2), "it repeats -2 times"),
    "crop": (one("Crop", "crop_param", ("x", "x"), offset=3), "slice"),
    "crop_offsets": (one("Crop", "crop_param", ("x", "x"), offset=[1, 1, 1]), "with 3 offsets"),
    "arg_max": (one("ArgMax", "argmax_param", axis=1, top_k=7), "it takes the first 7 of 3 elements"),
    "clip": (one("Clip", "clip_param", min=1), "it needs min and max"),
    "exp_base": (one("Exp", "exp_param", base=-2), "its base is -2"),
    "log_base": (one("Log", "log_param", base=1), "its base is 1"),
    "log_nan": (one("Log", "log_param", base=Word("nan")), "its base is nan"),
    "coefficients": (one("Eltwise", "eltwise_param", ("x", "x"), coeff=[1]), "it has 1 coefficients for 2 bottoms"),
    "coefficients_of_product": (
        one("Eltwise", "eltwise_param", ("x", "x"), operation=Word("PROD"), coeff=[1, 2]),
        "products have none",
    ),
    "scale_axes": (one("Scale", "scale_param", num_axes=4), "4 axes from axis 1 on are not within"),
    "scale_negative": (one("Scale", "scale_param", num_axes=-2), "-2 axes"),
    "scale_bottom": (one("Scale", "scale_param", ("x", "x"), axis=1), "does not stand at axis 1"),
    "shuffle": (one("ShuffleChannel", "shuffle_channel_param", group=2), "cannot be shuffled in 2 groups"),
    "upsample": (one("Upsample", "upsample_param", scale=0), "it enlarges images"),
    "interp": (one("Interp", "interp_param", shrink_factor=0), "must be positive"),
    "interp_pad": (one("Interp", "interp_param", pad_beg=2), "they are not positive"),
    "embed": (one("Embed", "embed_param", num_output=3), "it needs num_output and input_dim"),
    "dummy": (
        one("DummyData", "dummy_data_param", (), ("y", "z", "u"), shape=[{"dim": 1}, {"dim": 2}]),
        "it gives 2 shapes for 3 tops",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_that_contradicts_itself(name: str, tmp_path: pathlib.Path) -> None:
    layers, why = LAYERS[name]
    text = mistakes(tmp_path, [*X, *layers])
    assert text.startswith("layer 'y' (") and why in text, text


def test_stochastic_pooling_is_refused(tmp_path: pathlib.Path) -> None:
    error = fails(tmp_path, [*X, *pool(kernel_size=2, pool=Word("STOCHASTIC"))])
    assert error.code == "M201" and "Pooling (y): stochastic pooling draws random numbers" in str(error)


NUMBERS = [Word("nan"), Word("inf"), Word("-inf"), -1.5, 3e38]


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_odd_numbers_build_or_fail_with_a_code(number: Any, tmp_path: pathlib.Path) -> None:
    odd = [
        *one("ReLU", "relu_param", negative_slope=number),
        *one("ELU", "elu_param", alpha=number),
        *one("Power", "power_param", power=number, shift=number),
        *one("Power", "power_param", scale=0, power=number, shift=number),
        *one("Exp", "exp_param", shift=number),
        *one("Exp", "exp_param", base=number),
        *one("Log", "log_param", scale=number, shift=number),
        *one("LRN", "lrn_param", alpha=number, beta=number),
        *one("MVN", "mvn_param", eps=number),
        *one("BatchNorm", "batch_norm_param", eps=number),
        *one("Clip", "clip_param", min=number, max=number),
        *one("Threshold", "threshold_param", threshold=number),
        *one("Reduction", "reduction_param", coeff=number),
        *one("Swish", "swish_param", beta=number),
        *one("PReLU", "prelu_param", filler={"type": "gaussian", "std": number}),
        *one("InnerProduct", "inner_product_param", num_output=2, weight_filler={"type": "uniform", "min": number}),
    ]
    for fields in odd:
        prototxt, caffemodel = write(tmp_path, [*X, fields], {"other": []})
        try:
            engine = tw.build(prototxt, weights=caffemodel, target="reference", tune="off")
            engine.run({"x": np.ones((1, 3, 8, 8), np.float32)})
        except ModelError as error:
            assert error.code == "M104", error


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
