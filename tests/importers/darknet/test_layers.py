# SPDX-License-Identifier: Apache-2.0
"""Every kind of layer against loops in NumPy, as a compiled engine without host steps."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.importers.darknet.activations import ACTIVATIONS
from tensorwright.importers.darknet.base import KINDS
from tests.importers.darknet.oracle import FUNCTIONS, Layers, Oracle, write

RNG = np.random.default_rng()


def conv(filters: int, size: int = 3, pad: int = 1, **more: Any) -> tuple[str, dict[str, object]]:
    return "convolutional", {"filters": filters, "size": size, "pad": pad, "activation": "leaky", **more}


def check(folder: pathlib.Path, layers: Layers, shape: tuple[int, ...], batch: int = 1) -> None:
    """The results of all layers are those of the loops."""
    oracle = Oracle(layers, shape, RNG)
    cfg, weights = write(folder, layers, shape, oracle.numbers)
    names = [f"{KINDS[kind].kind}_{i}" for i, (kind, _) in enumerate(layers)]
    x = RNG.uniform(-1, 1, (batch, *shape)).astype(np.float32)
    shapes = {"data": (batch, *shape)}
    engine = tw.build(cfg, weights=weights, outputs=names, shapes=shapes, tune="off", host_steps=False, threads=1)
    assert not engine.notes
    found = engine.run({"data": x})
    for sample in range(batch):
        for name, expected in zip(names, oracle.run(x[sample]), strict=True):
            assert found[name][sample].shape == expected.shape, name
            np.testing.assert_allclose(found[name][sample], expected, rtol=2e-4, atol=2e-5, err_msg=name)


CONVOLUTIONS: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "plain": ([conv(4), conv(3, 1, 0)], (3, 7, 5)),
    "normalised": ([conv(5, batch_normalize=1, stride=2), conv(2, batch_normalize=1)], (3, 9, 8)),
    "even": ([conv(3, 2), conv(3, 4, stride=3)], (2, 11, 10)),
    "padding": ([conv(3, 3, 0, padding=2), conv(2, 5, 0)], (2, 6, 7)),
    "strides": ([conv(3, stride_x=2, stride_y=1), conv(2, stride=2, stride_x=3)], (2, 9, 11)),
    "groups": ([conv(6, groups=3), conv(6, groups=6, batch_normalize=1)], (3, 6, 6)),
    "dilated": ([conv(3, dilation=2), conv(2, 5, dilation=3), conv(2, 1, dilation=7)], (2, 13, 12)),
    "flipped": ([conv(4, flipped=1)], (3, 5, 5)),
    "defaults": ([("convolutional", {})], (3, 4, 4)),
    "other_name": ([("conv", {"filters": 2, "size": 1, "activation": "linear"})], (3, 1, 1)),
    "transposed": ([("deconvolutional", {"filters": 3, "size": 4, "stride": 2, "padding": 1})], (2, 5, 4)),
    "transposed_normalised": (
        [("deconv", {"filters": 3, "size": 3, "stride": 3, "pad": 1, "batch_normalize": 1, "activation": "relu"})],
        (2, 3, 4),
    ),
    "connected": ([("connected", {"output": 7}), ("conn", {"output": 3, "activation": "linear"})], (2, 3, 4)),
    "connected_normalised": ([("connected", {"output": 6, "batch_normalize": 1, "activation": "relu"})], (20,)),
    "connected_then_image": ([("connected", {"output": 6}), conv(2)], (2, 2, 2)),
}

RESAMPLED: dict[str, tuple[Layers, tuple[int, ...]]] = {
    **{
        f"maxpool_{size}_{stride}": ([("maxpool", {"size": size, "stride": stride})], (2, 7, 6))
        for size, stride in ((2, 2), (2, 1), (3, 2), (3, 1), (5, 1), (13, 1), (4, 3), (1, 2))
    },
    "maxpool_padding": ([("max", {"size": 3, "stride": 2, "padding": 0}), ("maxpool", {"stride": 2})], (2, 9, 8)),
    "maxpool_strides": ([("maxpool", {"size": 2, "stride_x": 1, "stride_y": 2})], (2, 6, 6)),
    "avgpool": ([("avgpool", {})], (5, 3, 4)),
    "upsample": ([("upsample", {}), ("upsample", {"stride": 3, "scale": 0.5})], (2, 3, 2)),
    "crop": ([("crop", {"crop_height": 4, "crop_width": 3, "flip": 1, "angle": 7})], (3, 7, 6)),
    "crop_noadjust": ([("crop", {"crop_height": 5, "crop_width": 5, "noadjust": 1})], (3, 5, 6)),
    "reorg": ([("reorg", {"stride": 2})], (8, 6, 4)),
    "reorg_3": ([("reorg", {"stride": 3})], (18, 3, 6)),
    "reorg_reverse": ([("reorg", {"stride": 2, "reverse": 1})], (12, 3, 4)),
}

JOINED: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "route": ([conv(3), conv(4), ("route", {"layers": "-1, 0"}), ("route", {"layers": "-2"})], (2, 4, 4)),
    "route_groups": (
        [conv(6), conv(4), ("route", {"layers": "-1,-2", "groups": 2, "group_id": 1})],
        (2, 4, 5),
    ),
    "route_flat": ([conv(3), conv(4, stride=2), ("route", {"layers": "0,1"})], (2, 4, 4)),
    "shortcut": ([conv(3), conv(3), ("shortcut", {"from": -2, "activation": "relu"})], (2, 4, 4)),
    "shortcut_several": ([conv(3), conv(3), conv(3), ("shortcut", {"from": "-2, 0"})], (2, 4, 4)),
    "shortcut_weighted": ([conv(3), conv(3), ("shortcut", {"from": 0, "alpha": 0.5, "beta": -2})], (2, 4, 4)),
    "shortcut_channels": ([conv(3), conv(5), ("shortcut", {"from": -2}), ("shortcut", {"from": 0})], (2, 4, 3)),
    "shortcut_fewer_channels": ([conv(5), conv(3), ("shortcut", {"from": -2, "alpha": 3})], (2, 4, 3)),
    "shortcut_larger": ([conv(3), conv(4, stride=2), ("shortcut", {"from": 0, "activation": "leaky"})], (2, 7, 9)),
    "shortcut_smaller": (
        [conv(3, stride=3), ("upsample", {"stride": 3}), conv(2), ("shortcut", {"from": 0, "alpha": 0.25})],
        (2, 7, 5),
    ),
    "shortcut_other_size": ([conv(3), conv(3, 2, 0), ("shortcut", {"from": 0}), ("shortcut", {"from": 0})], (2, 6, 5)),
    "scale_channels": (
        [conv(4), ("avgpool", {}), conv(4, 1), ("scale_channels", {"from": 0, "activation": "relu"})],
        (2, 5, 4),
    ),
    "sam": ([conv(4), conv(4, activation="logistic"), ("sam", {"from": -2})], (2, 5, 4)),
}

YOLO = {"classes": 3, "num": 6, "mask": "1,3", "anchors": "1,2, 3,4, 5,6, 7,8, 9,10, 11,12"}
REGION = {"classes": 4, "num": 3, "anchors": "1,2, 3,4, 5,6"}

LAST: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "softmax": ([("softmax", {})], (3, 2, 4)),
    "softmax_groups": ([("softmax", {"groups": 3, "temperature": 2.5})], (12,)),
    "activation": ([("activation", {"activation": "elu"}), ("logistic", {})], (3, 2, 2)),
    "training": ([conv(3), ("dropout", {"probability": 0.5}), ("softmax", {}), ("cost", {"type": "sse"})], (2, 2, 2)),
    "yolo": ([conv(16, 1), ("yolo", YOLO)], (2, 3, 4)),
    "yolo_scaled": ([conv(16, 1), ("yolo", {**YOLO, "scale_x_y": 1.2})], (2, 3, 4)),
    "yolo_new_coords": (
        [conv(16, 1, activation="logistic"), ("yolo", {**YOLO, "scale_x_y": 2.0, "new_coords": 1})],
        (2, 3, 4),
    ),
    "yolo_no_mask": ([conv(14, 1), ("yolo", {"classes": 2, "num": 2})], (2, 3, 1)),
    "region": ([conv(27, 1), ("region", REGION)], (2, 3, 4)),
    "region_softmax": ([conv(27, 1), ("region", {**REGION, "softmax": 1})], (2, 3, 4)),
    "region_background": ([conv(27, 1), ("region", {**REGION, "background": 1})], (2, 3, 4)),
    "region_both": ([conv(27, 1), ("region", {**REGION, "softmax": 1, "background": 1})], (2, 4, 3)),
    "region_coords": ([conv(33, 1), ("region", {**REGION, "coords": 6, "softmax": 1})], (2, 3, 4)),
}

V1 = {"classes": 3, "coords": 4, "num": 2, "side": 2}

RARE: dict[str, tuple[Layers, tuple[int, ...]]] = {
    "batchnorm": ([("batchnorm", {}), conv(3), ("batchnorm", {})], (2, 4, 3)),
    "normalization": ([("normalization", {"alpha": 0.3, "kappa": 2})], (9, 2, 3)),
    "normalization_even": ([("lrn", {"alpha": 0.1, "beta": 0.5, "kappa": 3, "size": 4}), ("lrn", {})], (7, 2, 2)),
    "normalization_wide": ([("lrn", {"alpha": 0.1, "size": 9})], (4, 2, 2)),
    "l2norm": ([("l2norm", {})], (5, 3, 4)),
    "local": ([("local", {"filters": 3, "size": 3, "pad": 1, "activation": "leaky"})], (2, 4, 5)),
    "local_strided": ([("local", {"filters": 2, "size": 2, "stride": 2}), ("local", {"filters": 4})], (3, 5, 4)),
    "detection": ([("connected", {"output": 52}), ("detection", {**V1, "rescore": 1, "forced": 0})], (3, 2, 2)),
    "detection_softmax": ([("connected", {"output": 52}), ("detection", {**V1, "softmax": 1})], (3, 2, 2)),
}

CASES = {**CONVOLUTIONS, **RESAMPLED, **JOINED, **LAST, **RARE}


@pytest.mark.parametrize("name", CASES)
def test_layers_compute_what_darknet_computes(tmp_path: pathlib.Path, name: str) -> None:
    check(tmp_path, *CASES[name], batch=1 + len(name) % 2)


def test_every_kind_of_layer_has_a_case() -> None:
    assert {KINDS[kind].kind for layers, _ in CASES.values() for kind, _ in layers} == {k.kind for k in KINDS.values()}


@pytest.mark.parametrize("names", [sorted(ACTIVATIONS)[0::3], sorted(ACTIVATIONS)[1::3], sorted(ACTIVATIONS)[2::3]])
def test_activations_are_those_of_darknet(tmp_path: pathlib.Path, names: list[str]) -> None:
    assert set(ACTIVATIONS) == set(FUNCTIONS)
    layers = [
        layer
        for i, name in enumerate(names)
        for layer in (("route", {"layers": "0"}), ("activation", {"activation": name}))
    ]
    check(tmp_path, [("reorg", {}), ("upsample", {"stride": 1, "scale": 9}), *_from(layers, 1)], (2, 9, 9))


def _from(layers: Layers, index: int) -> Layers:
    """The layers, with routes that read another one."""
    return [(kind, {"layers": index} if kind == "route" else options) for kind, options in layers]
