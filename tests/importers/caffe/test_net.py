# SPDX-License-Identifier: Apache-2.0
"""What of a prototxt is the network: headers, phases and rules, blobs in place, names, outputs, shapes."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.importers.base import import_model
from tensorwright.importers.caffe.reader import import_caffe
from tensorwright.ir.graph import Graph
from tests.importers.caffe.writer import Fields, Word, engines, inputs, layer, net_text, text, write

RNG = np.random.default_rng()
X = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
RELU = layer("ReLU", ("x",), ("y",))


def graph_of(folder: pathlib.Path, layers: Sequence[Fields] | str, **more: Any) -> Graph:
    return import_caffe(write(folder, layers)[0], **more)


def doubled(bottom: str, top: str, factor: float = 2, **fields: Any) -> Fields:
    return layer("Power", (bottom,), (top,), power_param={"scale": factor}, **fields)


# -- headers ------------------------------------------------------------------------------------------
HEADERS: dict[str, str] = {
    "input_dim": 'input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5',
    "input_dims": 'input: "x"\ninput_dim: [2, 3, 0x4, 5]',
    "input_shape": 'input: "x" input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }',
    "input_shape_listed": "input: 'x' input_shape < dim: [2, 3, 4, 5] >",
    "layer": 'layer { name: "data" type: "Input" top: "x" input_param { shape: { dim: 2 dim: 3 dim: 4 dim: 5 } } }',
    "one_shape": 'layer { name: "i" type: "Input" top: "x" top: "z" input_param { shape { dim: [2,3,4,5] } } }',
    "memory": 'layer { type: "MemoryData" top: "x" top: "label" '
    "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }",
    "data": 'layer { type: "Data" top: "x" top: "label" data_param { batch_size: 2 source: "db" backend: LMDB } '
    "transform_param { crop_h: 4 crop_w: 5 mean_value: [1, 2, 3] } }",
    "images": 'layer { type: "ImageData" top: "x" top: "label" '
    'image_data_param { batch_size: 2 new_height: 4 new_width: 5 source: "list.txt" } }',
}


@pytest.mark.parametrize("name", HEADERS)
def test_header_declares_the_input(name: str, tmp_path: pathlib.Path) -> None:
    for engine in engines(tmp_path, f"# a comment\n{HEADERS[name]}\n{text({'layer': RELU})}"):
        feeds = {"x": X, **({"z": X} if name == "one_shape" else {})}
        np.testing.assert_array_equal(engine.run(feeds)["y"], np.maximum(X, 0))


def test_prototxt_is_protobuf_text(tmp_path: pathlib.Path) -> None:
    source = """
    name: "a" ' b'  # two strings are one
    input: "x"; input_shape: < dim: [ 2, 3,
      4, 5 ] >
    layer: { name: 'r' type: "ReLU", bottom: "x" top: "y"; relu_param < negative_slope: 1e-1 > }
    """
    graph = graph_of(tmp_path, source)
    assert graph.name == "a b"
    assert [v.type.shape for v in graph.inputs] == [(2, 3, 4, 5)]


def test_byte_order_mark_is_read_over(tmp_path: pathlib.Path) -> None:
    assert graph_of(tmp_path, "\ufeff" + net_text([*inputs({"x": (1, 2)}), RELU])).output_names == ("y",)


# -- phases -------------------------------------------------------------------------------------------
TRAIN, TEST = {"phase": Word("TRAIN")}, {"phase": Word("TEST")}

RULES: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "", True),
    ({"include": TEST}, "", True),
    ({"include": TRAIN}, "", False),
    ({"include": [TRAIN, TEST]}, "", True),
    ({"exclude": TEST}, "", False),
    ({"exclude": TRAIN}, "", True),
    ({"include": {"stage": "deploy"}}, "", False),
    ({"include": {"stage": "deploy"}}, 'state { stage: "deploy" }', True),
    ({"include": {"stage": ["deploy", "fast"]}}, 'state { stage: "deploy" }', False),
    ({"include": {"stage": ["deploy", "fast"]}}, 'state { stage: "fast" stage: "deploy" }', True),
    ({"include": {"not_stage": "deploy"}}, 'state { stage: "deploy" }', False),
    ({"include": {"not_stage": "deploy"}}, "", True),
    ({"exclude": {"stage": "deploy"}}, 'state { stage: "deploy" }', False),
    ({"include": {"min_level": 1}}, "", False),
    ({"include": {"min_level": 1}}, "state { level: 2 }", True),
    ({"include": {"max_level": 1}}, "state { level: 2 }", False),
    ({"include": {"min_level": -1, "max_level": 0}}, "", True),
    ({"include": {"phase": Word("TEST"), "min_level": 3}}, "", False),
]


@pytest.mark.parametrize(("rules", "state", "is_there"), RULES)
def test_rules_choose_layers(rules: dict[str, Any], state: str, is_there: bool, tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (1, 2)}), doubled("x", "y"), doubled("x", "z", **rules)]
    assert graph_of(tmp_path, state + net_text(layers)).output_names == (("y", "z") if is_there else ("y",))


def test_rules_apply_before_tops_are_compared(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (2,)}), doubled("x", "y", 3, include=TRAIN), doubled("x", "y", 5, include=TEST)]
    for engine in engines(tmp_path, layers):
        np.testing.assert_allclose(engine.run({"x": np.ones(2, np.float32)})["y"], [5, 5])


def test_train_val_file_gives_what_its_losses_read(tmp_path: pathlib.Path) -> None:
    data = {"transform_param": {"crop_size": 4, "mean_value": [1, 2, 3]}}
    layers = [
        layer("Data", (), ("x", "label"), "train", include=TRAIN, data_param={"batch_size": 64}, **data),
        layer("Data", (), ("x", "label"), "test", include=TEST, data_param={"batch_size": 2}, **data),
        layer("InnerProduct", ("x",), ("score",), inner_product_param={"num_output": 3}),
        layer("Dropout", ("score",), ("score",), "drop"),
        layer("Accuracy", ("score", "label"), ("accuracy",), include=TEST),
        layer("SoftmaxWithLoss", ("score", "label"), ("loss",)),
    ]
    notes: list[str] = []
    graph = graph_of(tmp_path, layers, notes=notes)
    assert [(v.name, v.type.shape) for v in graph.inputs] == [("x", (2, 3, 4, 4))]
    assert graph.output_names == ("score",)
    assert notes[0] == "left out, as they only judge the result: the layers accuracy, loss"


# -- blobs --------------------------------------------------------------------------------------------
def test_layers_in_place_are_a_chain(tmp_path: pathlib.Path) -> None:
    layers = [
        *inputs({"x": X.shape}),
        doubled("x", "a", 2),
        doubled("a", "a", 3, name="triple"),
        layer("Power", ("a",), ("a",), "shift", power_param={"shift": 1}),
        layer("Eltwise", ("a", "x"), ("b",)),
        layer("ReLU", ("a",), ("a",), "last"),
    ]
    for engine in engines(tmp_path, layers):
        found = engine.run({"x": X})
        assert list(found) == ["a", "b"]
        np.testing.assert_allclose(found["a"], np.maximum(6 * X + 1, 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["b"], 7 * X + 1, rtol=1e-5, atol=1e-6)


def test_input_in_place_is_input_and_output(tmp_path: pathlib.Path) -> None:
    for engine in engines(tmp_path, [*inputs({"x": X.shape}), doubled("x", "x", name="twice")]):
        np.testing.assert_allclose(engine.run({"x": X})["x"], 2 * X)
        np.testing.assert_allclose(engine.run({"x": X + 1})["x"], 2 * X + 2, rtol=1e-6)


def test_dropout_alone_gives_its_input(tmp_path: pathlib.Path) -> None:
    for top in ("x", "y"):
        for engine in engines(tmp_path, [*inputs({"x": X.shape}), layer("Dropout", ("x",), (top,), "drop")]):
            np.testing.assert_array_equal(engine.run({"x": X})[top], X)


def test_split_gives_one_blob_twice(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": X.shape}), doubled("x", "a"), layer("Split", ("a",), ("y", "z"))]
    for engine in engines(tmp_path, layers):
        found = engine.run({"x": X})
        assert list(found) == ["y", "z"]
        np.testing.assert_allclose(found["z"], found["y"])


def test_silenced_blobs_are_no_outputs(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (1, 2)}), doubled("x", "y"), doubled("x", "z"), layer("Silence", ("z",), (), "quiet")]
    assert graph_of(tmp_path, layers).output_names == ("y",)


def test_names_are_those_of_blobs_and_origins_those_of_layers(tmp_path: pathlib.Path) -> None:
    layers = [
        *inputs({"x": (1, 3, 4, 4)}),
        layer("Pooling", ("x",), ("b",), "pool/3x3", pooling_param={"kernel_size": 3}),
        layer("ReLU", ("b",), ("a",), "relu"),
    ]
    graph = graph_of(tmp_path, layers)
    assert graph.output_names == ("a",)
    assert [node.origin for node in graph.nodes] == [("pool/3x3",), ("relu",)]
    assert [node.outputs[0].name for node in graph.nodes] == ["b", "a"]


def test_outputs_choose_blobs_and_drop_other_layers(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (1, 2)}), doubled("x", "a"), layer("Nonsense", ("a",), ("b",)), doubled("b", "c")]
    graph = graph_of(tmp_path, layers, outputs=["a"])
    assert graph.output_names == ("a",) and len(graph.nodes) == 1


def test_outputs_of_a_blob_in_place_are_the_last(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (2,)}), doubled("x", "a"), doubled("a", "a", 5, name="more"), doubled("a", "c")]
    for engine in engines(tmp_path, layers, outputs=["c", "a"]):
        found = engine.run({"x": np.ones(2, np.float32)})
        assert list(found) == ["c", "a"]
        np.testing.assert_allclose(found["a"], [10, 10])


def test_input_as_output(tmp_path: pathlib.Path) -> None:
    for engine in engines(tmp_path, [*inputs({"x": (2,)}), doubled("x", "y")], outputs=["x", "y"]):
        found = engine.run({"x": np.ones(2, np.float32)})
        np.testing.assert_allclose([found["x"], found["y"]], [[1, 1], [2, 2]])


# -- shapes -------------------------------------------------------------------------------------------
IMAGES = [
    *inputs({"x": (1, 3, 8, 9)}),
    layer("Convolution", ("x",), ("a",), convolution_param={"num_output": 4, "kernel_size": 3, "pad": 1}),
    layer("ReLU", ("a",), ("a",), "relu"),
    layer("Pooling", ("a",), ("b",), pooling_param={"kernel_size": 2, "stride": 2, "pool": Word("AVE")}),
    layer("Pooling", ("b",), ("y",), pooling_param={"global_pooling": True}),
]


def test_shapes_replace_the_declared_ones(tmp_path: pathlib.Path) -> None:
    graph = graph_of(tmp_path, IMAGES, shapes={"x": (5, 3, 11, 6)})
    assert [v.type.shape for v in (*graph.inputs, *graph.outputs)] == [(5, 3, 11, 6), (5, 4, 1, 1)]


def test_ranges_make_an_engine_of_many_sizes(tmp_path: pathlib.Path) -> None:
    given = {"x": tw.Range((1, 3, 4, 5), (2, 3, 8, 8), (4, 3, 15, 16))}
    for engine in engines(tmp_path, IMAGES, shapes=given):
        for shape in ((1, 3, 4, 5), (3, 3, 15, 7), (4, 3, 8, 16)):
            x = RNG.standard_normal(shape).astype(np.float32)
            fixed = tw.build(write(tmp_path, IMAGES)[0], shapes={"x": shape}, target="reference", tune="off")
            np.testing.assert_allclose(engine.run({"x": x})["y"], fixed.run({"x": x})["y"], rtol=1e-4, atol=1e-5)


def test_input_without_shape_needs_one(tmp_path: pathlib.Path) -> None:
    source = f'layer {{ name: "x" type: "Input" top: "x" }}\n{text({"layer": RELU})}'
    with pytest.raises(ModelError, match="the input 'x' has no shape here: give it one with shapes=") as caught:
        graph_of(tmp_path, source)
    assert caught.value.code == "M104"
    assert graph_of(tmp_path, source, shapes={"x": (2, 3)}).outputs[0].type.shape == (2, 3)


@pytest.mark.parametrize("shapes", [{"z": (1, 2)}, {"x": (1, 2, 3)}])
def test_shapes_that_do_not_fit_are_refused(shapes: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelError) as caught:
        graph_of(tmp_path, [*inputs({"x": (1, 2)}), RELU], shapes=shapes)
    assert caught.value.code == "M106"


def test_suffix_says_the_format(tmp_path: pathlib.Path) -> None:
    prototxt, _ = write(tmp_path, [*inputs({"x": (1, 2)}), RELU])
    notes: list[str] = []
    assert import_model(prototxt, notes=notes).output_names == ("y",)
    assert len(notes) == 1 and notes[0].startswith("no weights were given")
