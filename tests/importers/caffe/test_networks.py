# SPDX-License-Identifier: Apache-2.0
"""Small networks built like well-known ones, against the oracles of their layers, one after the other."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.importers.caffe import oracle
from tests.importers.caffe.cases import FIELDS
from tests.importers.caffe.test_detection import CLOSE, detections, prior_boxes
from tests.importers.caffe.writer import Array, Fields, Word, check, engines, inputs, layer

RNG = np.random.default_rng()
AVE = Word("AVE")

ORACLES: dict[str, oracle.Oracle] = {
    "Convolution": oracle.convolution,
    "Deconvolution": oracle.deconvolution,
    "InnerProduct": oracle.inner_product,
    "Pooling": oracle.pooling,
    "LRN": oracle.lrn,
    "BatchNorm": oracle.batch_norm,
    "Scale": oracle.scale,
    "Normalize": oracle.normalize,
    "Softmax": oracle.softmax,
    "Eltwise": oracle.eltwise,
    "PReLU": oracle.prelu,
    "Crop": oracle.crop,
    "ReLU": oracle.each(lambda x, p: np.maximum(x, 0)),
    "Sigmoid": oracle.each(lambda x, p: np.asarray(1 / (1 + np.exp(-x)))),
    "Dropout": oracle.each(lambda x, p: x),
    "Flatten": oracle.each(lambda x, p: x.reshape(*x.shape[: p.get("axis", 1)], -1)),
    "Reshape": oracle.each(
        lambda x, p: x.reshape([x.shape[i] if d == 0 else d for i, d in enumerate(p["shape"]["dim"])])
    ),
    "Permute": oracle.each(lambda x, p: x.transpose(p["order"])),
    "Concat": lambda xs, p, blobs: [np.concatenate(xs, p.get("axis", 1))],
    "PriorBox": lambda xs, p, blobs: [prior_boxes(xs[0].shape[2:], xs[1].shape[2:], p)],
    "DetectionOutput": lambda xs, p, blobs: [detections(xs[0], xs[1], xs[2], p)],
}


def blob_shapes(kind: str, p: Mapping[str, Any], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """What a layer learns, from the shape of its first bottom."""
    if kind in ("Convolution", "Deconvolution"):
        ins, outs = shape[1], p["num_output"]
        first, second = (ins, outs) if kind == "Deconvolution" else (outs, ins)
        kernel = (p["kernel_size"],) * (len(shape) - 2)
        return [(first, second // p.get("group", 1), *kernel), *([(outs,)] if p.get("bias_term", True) else [])]
    if kind == "InnerProduct":
        return [(p["num_output"], math.prod(shape[1:])), (p["num_output"],)]
    if kind == "BatchNorm":
        return [(shape[1],), (shape[1],), (1,)]
    if kind in ("Scale", "PReLU", "Normalize"):
        return [(shape[1],)] * (2 if p.get("bias_term") else 1)
    return []


def compute(layers: Sequence[Fields], feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, list[Array]]]:
    """All blobs, those in place as they are at last; and the weights, drawn on the way."""
    values, weights = dict(feeds), {}
    for fields in layers:
        kind, bottoms = fields["type"], [values[name] for name in fields["bottom"]]
        keys = {FIELDS.get(kind, f"{kind.lower()}_param"), *("detection_output_param", "prior_box_param")}
        p: Mapping[str, Any] = next((fields[key] for key in keys if key in fields), {})
        blobs = [RNG.standard_normal(shape).astype(np.float32) for shape in blob_shapes(kind, p, bottoms[0].shape)]
        if blobs and kind in ("Convolution", "Deconvolution", "InnerProduct"):
            blobs[0] /= np.float32(math.sqrt(math.prod(blobs[0].shape[1:])))
        if kind == "BatchNorm":
            blobs = [blobs[0], abs(blobs[1]) + 1, np.full(1, 2, np.float32)]
        if blobs:
            weights[fields["name"]] = blobs
        tops = [np.asarray(top, np.float32) for top in ORACLES[kind](bottoms, p, blobs)]
        values.update(zip(fields["top"], tops, strict=False))
    return values, weights


def conv(bottom: str, top: str, outputs: int, size: int = 1, **p: Any) -> Fields:
    fields = {"num_output": outputs, "kernel_size": size, "pad": size // 2, **p}
    return layer("Convolution", (bottom,), (top,), convolution_param=fields)


def relu(blob: str) -> Fields:
    return layer("ReLU", (blob,), (blob,), f"{blob}/relu")


def pool(bottom: str, top: str, **p: Any) -> Fields:
    return layer("Pooling", (bottom,), (top,), pooling_param=p)


def googlenet() -> list[Fields]:
    lrn_param = {"local_size": 5, "alpha": 0.0001, "beta": 0.75}
    layers = [
        conv("x", "conv1", 8, 7, stride=2),
        relu("conv1"),
        pool("conv1", "pool1", kernel_size=3, stride=2),
        layer("LRN", ("pool1",), ("norm1",), lrn_param=lrn_param),
        conv("norm1", "conv2", 12, 3),
        relu("conv2"),
        layer("LRN", ("conv2",), ("norm2",), lrn_param=lrn_param),
        pool("norm2", "in", kernel_size=3, stride=2),
    ]
    for block, source in (("a", "in"), ("b", "a/out")):
        layers += [
            *(conv(source, f"{block}/1x1", 4), relu(f"{block}/1x1")),
            *(conv(source, f"{block}/3x3_reduce", 3), relu(f"{block}/3x3_reduce")),
            *(conv(f"{block}/3x3_reduce", f"{block}/3x3", 5, 3), relu(f"{block}/3x3")),
            *(conv(source, f"{block}/5x5_reduce", 2), relu(f"{block}/5x5_reduce")),
            *(conv(f"{block}/5x5_reduce", f"{block}/5x5", 3, 5), relu(f"{block}/5x5")),
            pool(source, f"{block}/pool", kernel_size=3, stride=1, pad=1),
            *(conv(f"{block}/pool", f"{block}/pool_proj", 2), relu(f"{block}/pool_proj")),
            layer("Concat", [f"{block}/{part}" for part in ("1x1", "3x3", "5x5", "pool_proj")], (f"{block}/out",)),
        ]
    return [
        *layers,
        pool("b/out", "pool5", pool=AVE, kernel_size=3, stride=1),
        layer("Dropout", ("pool5",), ("pool5",), "drop", dropout_param={"dropout_ratio": 0.4}),
        layer("InnerProduct", ("pool5",), ("fc",), inner_product_param={"num_output": 7}),
        layer("Softmax", ("fc",), ("prob",)),
    ]


def normed(bottom: str, top: str, outputs: int, size: int, **p: Any) -> list[Fields]:
    return [
        conv(bottom, top, outputs, size, bias_term=False, **p),
        layer("BatchNorm", (top,), (top,), f"bn_{top}", batch_norm_param={"use_global_stats": True}),
        layer("Scale", (top,), (top,), f"scale_{top}", scale_param={"bias_term": True}),
    ]


def resnet() -> list[Fields]:
    layers = [*normed("x", "conv1", 6, 7, stride=2), relu("conv1"), pool("conv1", "pool1", kernel_size=3, stride=2)]
    for block, source, stride in (("2a", "pool1", 1), ("2b", "res2a", 2)):
        layers += [
            *normed(source, f"{block}_branch1", 12, 1, stride=stride),
            *(*normed(source, f"{block}_branch2a", 4, 1, stride=stride), relu(f"{block}_branch2a")),
            *(*normed(f"{block}_branch2a", f"{block}_branch2b", 4, 3), relu(f"{block}_branch2b")),
            *normed(f"{block}_branch2b", f"{block}_branch2c", 12, 1),
            layer("Eltwise", (f"{block}_branch1", f"{block}_branch2c"), (f"res{block}",)),
            relu(f"res{block}"),
        ]
    return [
        *layers,
        pool("res2b", "pool5", pool=AVE, global_pooling=True),
        layer("InnerProduct", ("pool5",), ("fc",), inner_product_param={"num_output": 7}),
        layer("Softmax", ("fc",), ("prob",)),
    ]


def squeezenet() -> list[Fields]:
    layers = [conv("x", "conv1", 6, 3, stride=2, pad=0), relu("conv1"), pool("conv1", "p", kernel_size=3, stride=2)]
    for fire, source in (("f2", "p"), ("f3", "f2/out")):
        layers += [
            *(conv(source, f"{fire}/squeeze", 3), relu(f"{fire}/squeeze")),
            *(conv(f"{fire}/squeeze", f"{fire}/1", 4), relu(f"{fire}/1")),
            *(conv(f"{fire}/squeeze", f"{fire}/3", 4, 3), relu(f"{fire}/3")),
            layer("Concat", (f"{fire}/1", f"{fire}/3"), (f"{fire}/out",)),
        ]
    return [
        *layers,
        layer("Dropout", ("f3/out",), ("f3/out",), "drop"),
        *(conv("f3/out", "conv10", 7, 1, pad=1), relu("conv10")),
        pool("conv10", "pool10", pool=AVE, global_pooling=True),
        layer("Softmax", ("pool10",), ("prob",)),
    ]


def mobilenet() -> list[Fields]:
    layers = [*normed("x", "conv1", 8, 3, stride=2), relu("conv1")]
    for i, (source, stride) in enumerate((("conv1", 1), ("sep0", 2))):
        layers += [*normed(source, f"dw{i}", 8, 3, stride=stride, group=8), relu(f"dw{i}")]
        layers += [*normed(f"dw{i}", f"sep{i}", 8, 1), layer("PReLU", (f"sep{i}",), (f"sep{i}",), f"prelu{i}")]
    return [*layers, layer("InnerProduct", ("sep1",), ("fc",), inner_product_param={"num_output": 5})]


def segmentation() -> list[Fields]:
    up = {"num_output": 3, "kernel_size": 4, "stride": 2, "bias_term": False}
    return [
        *(conv("x", "conv1", 6, 3, pad=20), relu("conv1"), pool("conv1", "pool1", kernel_size=2, stride=2)),
        conv("pool1", "score", 3),
        layer("Deconvolution", ("score",), ("up",), convolution_param=up),
        layer("Crop", ("up", "x"), ("cropped",), crop_param={"axis": 2, "offset": 19}),
        layer("Sigmoid", ("cropped",), ("mask",)),
    ]


def ssd() -> list[Fields]:
    box = {"flip": True, "clip": False, "variance": [0.1, 0.1, 0.2, 0.2], "offset": 0.5}
    layers = [conv("x", "a", 8, 3, stride=2), relu("a"), conv("a", "b", 6, 3, stride=2), relu("b")]
    norm_param = {"across_spatial": False, "channel_shared": False}
    layers.append(layer("Normalize", ("a",), ("a_norm",), norm_param=norm_param))
    for source, size in (("a_norm", 10), ("b", 20)):
        for what, count in (("loc", 16), ("conf", 12)):
            name = f"{source}_{what}"
            layers += [
                conv(source, name, count, 3),
                layer("Permute", (name,), (f"{name}_perm",), permute_param={"order": [0, 2, 3, 1]}),
                layer("Flatten", (f"{name}_perm",), (f"{name}_flat",), flatten_param={"axis": 1}),
            ]
        p = {**box, "min_size": [size], "max_size": [size * 2], "aspect_ratio": [2]}
        layers.append(layer("PriorBox", (source, "x"), (f"{source}_prior",), prior_box_param=p))
    p = {
        "num_classes": 3,
        "share_location": True,
        "background_label_id": 0,
        "nms_param": {"nms_threshold": 0.45, "top_k": 100},
        "code_type": Word("CENTER_SIZE"),
        "keep_top_k": 30,
        "confidence_threshold": 0.35,
    }
    return [
        *layers,
        layer("Concat", ("a_norm_loc_flat", "b_loc_flat"), ("loc",)),
        layer("Concat", ("a_norm_conf_flat", "b_conf_flat"), ("conf",)),
        layer("Concat", ("a_norm_prior", "b_prior"), ("prior",), concat_param={"axis": 2}),
        layer("Reshape", ("conf",), ("conf_rows",), reshape_param={"shape": {"dim": [0, -1, 3]}}),
        layer("Softmax", ("conf_rows",), ("conf_soft",), softmax_param={"axis": 2}),
        layer("Flatten", ("conf_soft",), ("conf_flat",), flatten_param={"axis": 1}),
        layer("DetectionOutput", ("loc", "conf_flat", "prior"), ("found",), detection_output_param=p),
    ]


NETWORKS = {
    "googlenet": (googlenet, (2, 3, 33, 31), "prob"),
    "resnet": (resnet, (2, 3, 27, 30), "prob"),
    "squeezenet": (squeezenet, (1, 3, 25, 24), "prob"),
    "mobilenet": (mobilenet, (2, 3, 13, 12), "fc"),
    "segmentation": (segmentation, (1, 3, 11, 14), "mask"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_gives_what_its_layers_give(name: str, tmp_path: pathlib.Path) -> None:
    make, shape, output = NETWORKS[name]
    layers, feeds = make(), {"x": RNG.standard_normal(shape).astype(np.float32)}
    values, weights = compute(layers, feeds)
    check(tmp_path, layers, feeds, {output: values[output]}, weights, rtol=1e-3, atol=1e-4)


def test_ssd_finds_what_its_layers_find(tmp_path: pathlib.Path) -> None:
    layers, x = ssd(), RNG.standard_normal((2, 3, 17, 15)).astype(np.float32)
    values, weights = compute(layers, {"x": x})
    read = ["loc", "conf_flat", "prior"]
    p = layers[-1]["detection_output_param"]
    for engine in engines(tmp_path, [*inputs({"x": x.shape}), *layers], weights, outputs=[*read, "found"]):
        found = engine.run({"x": x})
        for name in read:
            np.testing.assert_allclose(found[name], values[name], rtol=1e-3, atol=1e-4, err_msg=name)
        image, margins = x, [0.0]
        while min(margins) < CLOSE:  # where a last bit decides, another image is tried
            found, margins = engine.run({"x": image}), [1.0]
            expected = detections(found["loc"], found["conf_flat"], found["prior"], p, margins)
            image = RNG.standard_normal(x.shape).astype(np.float32)
        assert found["found"].shape == expected.shape and expected.shape[2] > 10
        np.testing.assert_allclose(found["found"], expected, rtol=1e-4, atol=1e-5)
