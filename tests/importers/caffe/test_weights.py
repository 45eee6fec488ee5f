# SPDX-License-Identifier: Apache-2.0
"""Weights: by name from every generation of file, shared, filled, or random."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.importers.caffe.reader import import_caffe
from tensorwright.importers.caffe.schema import FillerParameter, NetParameter
from tensorwright.importers.caffe.weights import filled, read_caffemodel
from tests.importers.caffe import oracle
from tests.importers.caffe.writer import (
    Array,
    Fields,
    Word,
    check,
    engines,
    inputs,
    layer,
    message_field,
    model_bytes,
    write,
)

RNG = np.random.default_rng()
X = RNG.standard_normal((2, 3, 6, 5)).astype(np.float32)
W = {
    "conv": [RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), RNG.standard_normal(4).astype(np.float32)],
    "fc": [RNG.standard_normal((5, 48)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)],
}
LAYERS: list[Fields] = [
    layer("Convolution", ("x",), ("conv",), convolution_param={"num_output": 4, "kernel_size": 3}),
    layer("InnerProduct", ("conv",), ("fc",), inner_product_param={"num_output": 5}),
]


def expected() -> Array:
    (image,) = oracle.convolution([X], {"num_output": 4, "kernel_size": 3}, W["conv"])
    return oracle.inner_product([image], {"num_output": 5}, W["fc"])[0]


def check_model(data: bytes, folder: pathlib.Path) -> None:
    for engine in engines(folder, [*inputs({"x": X.shape}), *LAYERS], data):
        np.testing.assert_allclose(engine.run({"x": X})["fc"], expected(), rtol=1e-4, atol=1e-4)
        assert not engine.notes


@pytest.mark.parametrize("style", ["packed", "loose", "legacy", "double", "diff"])
@pytest.mark.parametrize("generation", ["layer", "v1", "v0"])
def test_every_generation_of_file_is_read(style: str, generation: str, tmp_path: pathlib.Path) -> None:
    check_model(model_bytes(W, style, generation), tmp_path)


def test_order_of_layers_does_not_matter(tmp_path: pathlib.Path) -> None:
    check_model(model_bytes(dict(reversed(W.items()))), tmp_path)


def test_layers_without_blobs_do_not_matter(tmp_path: pathlib.Path) -> None:
    check_model(model_bytes({"data": [], **W, "pool_split": []}), tmp_path)


def test_unknown_fields_are_read_over(tmp_path: pathlib.Path) -> None:
    net = NetParameter.FromString(model_bytes(W))
    for owner in net.layer:
        owner.convolution_param.num_output = 3
    data: bytes = net.SerializeToString()  # with parameters, and loose numbers
    check_model(data + message_field(7777, b"whatever"), tmp_path)


def test_floats_stay_in_the_mapped_file(tmp_path: pathlib.Path) -> None:
    _, caffemodel = write(tmp_path, LAYERS, model_bytes(W))
    assert caffemodel is not None
    blobs = read_caffemodel(caffemodel)
    assert {name: [blob.shape for blob in found] for name, found in blobs.items()} == {
        "conv": [(4, 3, 3, 3), (4,)],
        "fc": [(5, 48), (5,)],
    }
    assert not any(blob.data.flags.owndata for found in blobs.values() for blob in found)
    np.testing.assert_array_equal(blobs["fc"][0].data.reshape(5, 48), W["fc"][0])


@pytest.mark.parametrize("shape", [b"", message_field(7, b"")])
def test_single_number_needs_no_shape(shape: bytes, tmp_path: pathlib.Path) -> None:
    """Caffe writes no shape for a blob without dims, such as the slope of a PReLU that all channels share."""
    slope = np.float32(0.375)
    owner = message_field(1, b"y") + message_field(7, message_field(5, slope.tobytes()) + shape)
    layers = [*inputs({"x": X.shape}), layer("PReLU", ("x",), ("y",), prelu_param={"channel_shared": True})]
    for engine in engines(tmp_path, layers, message_field(100, owner)):
        np.testing.assert_array_equal(engine.run({"x": X})["y"], np.where(X > 0, X, slope * X))


def test_weights_of_other_layers_are_noted(tmp_path: pathlib.Path) -> None:
    prototxt, caffemodel = write(tmp_path, [*inputs({"x": X.shape}), *LAYERS], {**W, "fc_old": W["fc"]})
    notes: list[str] = []
    import_caffe(prototxt, weights=caffemodel, notes=notes)
    assert notes == ["not used: the weights of fc_old, which the network does not have"]


# -- fillers ------------------------------------------------------------------------------------------
def test_layers_that_the_file_lacks_keep_their_fillers(tmp_path: pathlib.Path) -> None:
    p = {"num_output": 2, "weight_filler": {"type": "constant", "value": 0.25}, "bias_filler": {"value": -1}}
    more = layer("InnerProduct", ("fc",), ("new",), inner_product_param=p)
    y = expected().sum(1, keepdims=True) * 0.25 - 1
    for engine in engines(tmp_path, [*inputs({"x": X.shape}), *LAYERS, more], W):
        np.testing.assert_allclose(engine.run({"x": X})["new"], np.repeat(y, 2, 1), rtol=1e-4, atol=1e-4)
        assert engine.notes == ("the weights file has nothing for new: their fillers were used",)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(4, 2, 1), (3, 2, 1), (2, 2, 0), (5, 3, 1)])
def test_bilinear_filler_interpolates(kernel: int, stride: int, pad: int, tmp_path: pathlib.Path) -> None:
    p = {"num_output": 3, "group": 3, "kernel_size": kernel, "stride": stride, "pad": pad, "bias_term": False}
    up = layer("Deconvolution", ("x",), ("y",), convolution_param={**p, "weight_filler": {"type": "bilinear"}})
    f = math.ceil(kernel / 2)
    c = (kernel - 1) / (2 * f)
    line = [1 - abs(i / f - c) for i in range(kernel)]
    blob = np.array([[[[a * b for b in line] for a in line]]] * 3)
    (y,) = oracle.deconvolution([X], p, [blob])
    check(tmp_path, [up], {"x": X}, {"y": y}, {"something_else": []})


FILLERS: dict[str, tuple[dict[str, Any], float, float]] = {
    "constant": ({"value": 0.5}, 0.5, 0.0),
    "uniform": ({"min": -1, "max": 3}, 1.0, 4 / math.sqrt(12)),
    "gaussian": ({"mean": 2, "std": 0.5}, 2.0, 0.5),
    "xavier": ({}, 0.0, math.sqrt(1 / 600)),
    "msra": ({}, 0.0, math.sqrt(2 / 600)),
}


@pytest.mark.parametrize("kind", FILLERS)
def test_filler_has_its_distribution(kind: str) -> None:
    fields, mean, deviation = FILLERS[kind]
    values = filled(FillerParameter(type=kind, **fields), (80, 600), "seed")
    assert values.shape == (80, 600) and values.dtype == np.float32
    assert abs(values.mean() - mean) < 0.02 and abs(values.std() - deviation) < 0.02 * max(deviation, 0.05)
    np.testing.assert_array_equal(values, filled(FillerParameter(type=kind, **fields), (80, 600), "seed"))


def test_positive_unitball_rows_have_the_sum_1() -> None:
    values = filled(FillerParameter(type="positive_unitball"), (4, 9), "seed")
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-5)


def test_sparse_gaussian_has_zeros() -> None:
    values = filled(FillerParameter(type="gaussian", sparse=20), (100, 400), "seed")
    assert 0.15 < (values != 0).mean() < 0.25


def test_unknown_filler_is_a_mistake(tmp_path: pathlib.Path) -> None:
    p = {"num_output": 2, "weight_filler": {"type": "magic"}}
    layers = [*inputs({"x": (1, 4)}), layer("InnerProduct", ("x",), ("y",), inner_product_param=p)]
    prototxt, caffemodel = write(tmp_path, layers, {"other": []})
    with pytest.raises(ModelError, match="it has the filler 'magic'; Caffe knows constant, uniform"):
        import_caffe(prototxt, weights=caffemodel)


# -- shared and random --------------------------------------------------------------------------------
def shared(name: str, bottom: str, outputs: int = 3, **spec: Any) -> Fields:
    p = {"num_output": outputs, "bias_term": False}
    return layer("InnerProduct", (bottom,), (name,), param={"name": "w", **spec}, inner_product_param=p)


def test_parameters_of_one_name_are_one(tmp_path: pathlib.Path) -> None:
    w, x = RNG.standard_normal((3, 3)).astype(np.float32), RNG.standard_normal((2, 3)).astype(np.float32)
    layers = [shared("a", "x"), shared("b", "a"), shared("c", "b")]
    check(tmp_path, layers, {"x": x}, {"c": x @ w.T @ w.T @ w.T}, {"a": [w]}, rtol=1e-3, atol=1e-4)


def test_shared_parameters_of_another_shape_are_a_mistake(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"x": (1, 3)}), shared("a", "x"), shared("b", "a", 4)]
    with pytest.raises(ModelError, match=r"it shares the parameter 'w' of the shape \[3, 3\], but needs \[4, 3\]"):
        import_caffe(write(tmp_path, layers)[0])


def test_permissive_sharing_takes_the_same_numbers_in_another_shape(tmp_path: pathlib.Path) -> None:
    w = RNG.standard_normal((4, 3)).astype(np.float32)
    x = {"x": RNG.standard_normal((2, 3)).astype(np.float32), "z": RNG.standard_normal((2, 4)).astype(np.float32)}
    permissive = {"share_mode": Word("PERMISSIVE")}
    layers = [shared("a", "x", 4, **permissive), shared("b", "z", 3, **permissive)]
    check(tmp_path, layers, x, {"a": x["x"] @ w.T, "b": x["z"] @ w.reshape(3, 4).T}, {"a": [w]})


def test_without_weights_they_are_random_and_it_is_said(tmp_path: pathlib.Path) -> None:
    layers = [
        *inputs({"x": X.shape}),
        layer("Convolution", ("x",), ("c",), convolution_param={"num_output": 4, "kernel_size": 3}),
        layer("BatchNorm", ("c",), ("b",)),
        layer("Scale", ("b",), ("s",), scale_param={"bias_term": True}),
        layer("PReLU", ("s",), ("p",)),
        layer("LSTM", ("p", "marks"), ("y",), recurrent_param={"num_output": 3}),
    ]
    layers[1:1] = inputs({"marks": (2, 4)})
    found = []
    for engine in [*engines(tmp_path, layers), *engines(tmp_path, layers)]:
        assert engine.notes == (
            "no weights were given: all parameters are random numbers from a fixed seed, good for timing only",
        )
        found.append(engine.run({"x": X, "marks": np.ones((2, 4), np.float32)})["y"])
    assert np.isfinite(found[0]).all() and found[0].std() > 0.01
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_random_activations_neither_vanish_nor_overflow(tmp_path: pathlib.Path) -> None:
    layers = inputs({"x": (1, 8, 12, 12)})
    for i in range(30):
        p = {"num_output": 16, "kernel_size": 3, "pad": 1}
        layers.append(layer("Convolution", (f"c{i - 1}" if i else "x",), (f"c{i}",), convolution_param=p))
        layers.append(layer("ReLU", (f"c{i}",), (f"c{i}",), f"relu{i}"))
    engine = tw.build(write(tmp_path, layers)[0], target="reference", tune="off")
    y = engine.run({"x": RNG.standard_normal((1, 8, 12, 12)).astype(np.float32)})["c29"]
    assert 1e-3 < y.std() < 1e3
