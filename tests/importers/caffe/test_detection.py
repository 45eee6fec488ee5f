# SPDX-License-Identifier: Apache-2.0
"""PriorBox and DetectionOutput against loops over boxes."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError, UnsupportedError
from tests.importers.caffe.writer import TARGETS, Array, Word, check, engines, inputs, layer, write

RNG = np.random.default_rng()
CLOSE = 1e-5


def prior_boxes(grid: tuple[int, int], image: tuple[int, int], p: Mapping[str, Any]) -> Array:
    """[1, 2, 4 * boxes], box by box."""
    ratios = [1.0]
    for ratio in p.get("aspect_ratio", []):
        if not any(abs(ratio - other) < 1e-6 for other in ratios):
            ratios.append(ratio)
            if p.get("flip", True):
                ratios.append(1 / ratio)
    step = p.get("step", 0)
    step_h = p.get("step_h", step) or image[0] / grid[0]
    step_w = p.get("step_w", step) or image[1] / grid[1]
    boxes = []
    for h in range(grid[0]):
        for w in range(grid[1]):
            x, y = (w + p.get("offset", 0.5)) * step_w, (h + p.get("offset", 0.5)) * step_h
            sizes = []
            for s, smallest in enumerate(p["min_size"]):
                small = int(smallest)
                sizes.append((small, small))
                if "max_size" in p:
                    side = math.sqrt(small * int(p["max_size"][s]))
                    sizes.append((side, side))
                sizes += [(small * math.sqrt(r), small / math.sqrt(r)) for r in ratios if abs(r - 1) >= 1e-6]
            for width, height in sizes:
                box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                boxes.append([v / image[1 - i % 2] for i, v in enumerate(box)])
    flat = np.array(boxes)
    if p.get("clip"):
        flat = flat.clip(0, 1)
    variance = p.get("variance", [0.1])
    variances = np.array([variance * (4 if len(variance) == 1 else 1)] * len(flat))
    return np.stack([flat.reshape(-1), variances.reshape(-1)])[None].astype(np.float32)


PRIORS: dict[str, dict[str, Any]] = {
    "square": {"min_size": [30]},
    "ssd": {
        "min_size": [30.9],
        "max_size": [60.2],
        "aspect_ratio": [2, 3],
        "variance": [0.1, 0.1, 0.2, 0.2],
        "step": 8,
    },
    "two_sizes": {"min_size": [10, 20], "max_size": [15, 40], "aspect_ratio": [2], "flip": False, "clip": True},
    "repeated_ratios": {"min_size": [9], "aspect_ratio": [1, 2, 0.5, 3, 2], "variance": [0.3], "offset": 0.25},
    "image": {"min_size": [7], "img_h": 50, "img_w": 41, "step_h": 11, "step_w": 9.5, "aspect_ratio": [1.5]},
    "image_size": {"min_size": [7], "img_size": 64},
}


@pytest.mark.parametrize("name", PRIORS)
def test_prior_boxes_are_those_of_loops(name: str, tmp_path: pathlib.Path) -> None:
    p = PRIORS[name]
    image = (p.get("img_h", p.get("img_size", 37)), p.get("img_w", p.get("img_size", 53)))
    feeds = {"x": np.zeros((2, 4, 3, 5), np.float32), "data": np.zeros((2, 3, 37, 53), np.float32)}
    check(
        tmp_path,
        [layer("PriorBox", ("x", "data"), prior_box_param=p)],
        feeds,
        {"y": prior_boxes((3, 5), image, p)},
        rtol=2e-6,
        atol=2e-6,
    )


BAD_PRIORS: dict[str, tuple[dict[str, Any], str]] = {
    "no_size": ({}, "it needs a positive min_size"),
    "negative": ({"min_size": [-3]}, "it needs a positive min_size"),
    "maxima": ({"min_size": [3, 4], "max_size": [5]}, "it has 2 min_size and 1 max_size"),
    "order": ({"min_size": [5], "max_size": [5]}, "a max_size must exceed its min_size"),
    "variances": ({"min_size": [5], "variance": [0.1, 0.2]}, "it has 2 variances; it takes 1 or 4"),
    "ratio": ({"min_size": [5], "aspect_ratio": [0]}, "must be positive"),
    "nan": ({"min_size": [5], "aspect_ratio": ["nan"]}, "must be positive"),
    "step": ({"min_size": [5], "step": -2}, "must be positive"),
    "both": ({"min_size": [5], "img_size": 5, "img_h": 3}, "either img_size, or img_h and img_w"),
    "one_side": ({"min_size": [5], "img_h": 3}, "must be positive"),
}


@pytest.mark.parametrize("name", BAD_PRIORS)
def test_prior_box_that_caffe_refuses_is_a_mistake(name: str, tmp_path: pathlib.Path) -> None:
    p, why = BAD_PRIORS[name]
    p = {
        key: [Word(v) if v == "nan" else v for v in value] if isinstance(value, list) else value
        for key, value in p.items()
    }
    layers = [*inputs({"x": (1, 4, 3, 5), "data": (1, 3, 37, 53)}), layer("PriorBox", ("x", "data"), prior_box_param=p)]
    with pytest.raises(ModelError, match=why) as caught:
        tw.build(write(tmp_path, layers)[0], target="reference")
    assert caught.value.code == "M104"


# -- detections ---------------------------------------------------------------------------------------
def decode(prior: Array, variance: Array, loc: Array, code: str, encoded: bool) -> Array:
    v = np.ones(4, np.float32) if encoded else variance
    if code == "CORNER":
        return prior + v * loc
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    size = np.array([width, height, width, height])
    if code == "CORNER_SIZE":
        return prior + v * loc * size
    x = v[0] * loc[0] * width + (prior[0] + prior[2]) / 2
    y = v[1] * loc[1] * height + (prior[1] + prior[3]) / 2
    w, h = math.exp(v[2] * loc[2]) * width, math.exp(v[3] * loc[3]) * height
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def overlap(a: Array, b: Array) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [0 if r[2] < r[0] or r[3] < r[1] else (r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
    return float(width * height / (sum(areas) - width * height))


def detections(
    loc: Array, conf: Array, prior: Array, p: Mapping[str, Any], margins: list[float] | None = None
) -> Array:
    """[1, 1, rows, 7], as detection_output_layer.cpp goes about it. `margins` takes how far overlaps are from the
    threshold, where a last bit decides."""
    classes, priors = p["num_classes"], prior.shape[2] // 4
    corners, variances = prior.reshape(2, priors, 4)
    nms, shared = p.get("nms_param", {}), p.get("share_location", True)
    offsets = loc.reshape(len(loc), priors, -1, 4)
    scores = conf.reshape(len(conf), priors, classes)
    rows: list[list[float]] = []
    for image in range(len(loc)):
        found: dict[int, list[tuple[float, int, Array]]] = {}
        for c in range(classes):
            if c == p.get("background_label_id", 0):
                continue
            ranked = [
                (scores[image, i, c], i)
                for i in range(priors)
                if scores[image, i, c] > p.get("confidence_threshold", -3e38)
            ]
            ranked.sort(key=lambda pair: -pair[0])
            if nms.get("top_k", -1) > -1:
                ranked = ranked[: nms["top_k"]]
            kept: list[tuple[float, int, Array]] = []
            for score, i in ranked:
                box = decode(
                    corners[i],
                    variances[i],
                    offsets[image, i, 0 if shared else c],
                    p.get("code_type", "CORNER"),
                    p.get("variance_encoded_in_target", False),
                ).astype(np.float32)
                overlaps, threshold = [overlap(box, other) for _, _, other in kept], nms.get("nms_threshold", 0.3)
                if margins is not None:
                    margins += [abs(value - threshold) for value in overlaps if value]
                if all(value <= threshold for value in overlaps):
                    kept.append((score, i, box))
            found[c] = kept
        together = sorted(((score, c, i) for c, kept in found.items() for score, i, _ in kept), key=lambda t: -t[0])
        if -1 < p.get("keep_top_k", -1) < len(together):
            chosen = {(c, i) for _, c, i in together[: p["keep_top_k"]]}
            found = {c: [k for k in kept if (c, k[1]) in chosen] for c, kept in found.items()}
        rows += [[image, c, score, *box] for c, kept in found.items() for score, _, box in kept]
    rows = rows or [[image, *[-1] * 6] for image in range(len(loc))]
    return np.array(rows, np.float32)[None, None]


DETECTIONS: dict[str, dict[str, Any]] = {
    "plain": {"num_classes": 3},
    "ssd": {
        "num_classes": 5,
        "nms_param": {"nms_threshold": 0.45, "top_k": 12},
        "code_type": Word("CENTER_SIZE"),
        "keep_top_k": 9,
        "confidence_threshold": 0.2,
    },
    "corner_size": {"num_classes": 4, "code_type": Word("CORNER_SIZE"), "confidence_threshold": 0.5},
    "in_target": {"num_classes": 3, "code_type": Word("CENTER_SIZE"), "variance_encoded_in_target": True},
    "in_target_corner": {"num_classes": 3, "variance_encoded_in_target": True, "keep_top_k": 4},
    "in_target_corner_size": {
        "num_classes": 3,
        "code_type": Word("CORNER_SIZE"),
        "variance_encoded_in_target": True,
        "nms_param": {"nms_threshold": 0},
    },
    "own_locations": {"num_classes": 4, "share_location": False, "code_type": Word("CENTER_SIZE"), "keep_top_k": 7},
    "background_inside": {"num_classes": 4, "background_label_id": 2, "share_location": False},
    "background_last": {"num_classes": 3, "background_label_id": 2, "nms_param": {"top_k": 5}},
    "no_background": {"num_classes": 3, "background_label_id": -1, "nms_param": {"top_k": 1000}},
    "high_threshold": {"num_classes": 3, "confidence_threshold": 0.93, "nms_param": {"top_k": 3}, "keep_top_k": 100},
    "nothing": {"num_classes": 3, "confidence_threshold": 2, "keep_top_k": 5},
    "nothing_kept": {"num_classes": 3, "keep_top_k": 0},
    "nothing_tried": {"num_classes": 3, "nms_param": {"top_k": 0}},
    "only_background": {"num_classes": 1},
    "one_prior": {"num_classes": 2},
}


def predictions(p: Mapping[str, Any], images: int, priors: int) -> dict[str, Array]:
    """Random ones, of which no last bit decides. Offsets may invert boxes."""
    while True:
        feeds, margins = drawn(p, images, priors), [1.0]
        detections(feeds["loc"], feeds["conf"], feeds["prior"], p, margins)
        if min(margins) > CLOSE:
            return feeds


def drawn(p: Mapping[str, Any], images: int, priors: int) -> dict[str, Array]:
    low = RNG.uniform(0, 0.7, (priors, 2))
    corners = np.concatenate([low, low + RNG.uniform(0.05, 0.4, (priors, 2))], 1)
    variances = RNG.uniform(0.05, 0.3, (priors, 4))
    prior = np.stack([corners.reshape(-1), variances.reshape(-1)])[None].astype(np.float32)
    sets = 1 if p.get("share_location", True) else p["num_classes"]
    loc = RNG.standard_normal((images, priors * sets * 4)).astype(np.float32)
    conf = RNG.uniform(0, 1, (images, priors * p["num_classes"])).astype(np.float32)
    if "keep_top_k" in p:  # ties are not defined there
        conf = RNG.permutation(conf.size).reshape(conf.shape).astype(np.float32) / np.float32(conf.size)
    elif sets == 1:
        conf[0] = conf[0].clip(0, 0.92)  # of equal ones the first comes first
    return {"loc": loc, "conf": conf, "prior": prior}


def detection_layer(p: Mapping[str, Any]) -> Any:
    return layer("DetectionOutput", ("loc", "conf", "prior"), detection_output_param=p)


@pytest.mark.parametrize("name", DETECTIONS)
def test_detections_are_those_of_loops(name: str, tmp_path: pathlib.Path) -> None:
    p, priors = DETECTIONS[name], 1 if name == "one_prior" else 23
    feeds = predictions(p, 3, priors)
    expected = detections(feeds["loc"], feeds["conf"], feeds["prior"], p)
    assert (expected[0, 0, :, 1] == -1).any() == (name.startswith("nothing") or name == "only_background")
    check(tmp_path, [detection_layer(p)], feeds, {"y": expected}, rtol=1e-4, atol=1e-5)


def test_detections_of_symbolic_batch(tmp_path: pathlib.Path) -> None:
    p = DETECTIONS["ssd"]
    layers = [*inputs({"loc": (1, 92), "conf": (1, 115), "prior": (1, 2, 92)}), detection_layer(p)]
    shapes = {"loc": tw.Range((1, 92), (2, 92), (5, 92)), "conf": tw.Range((1, 115), (2, 115), (5, 115))}
    for engine in engines(tmp_path, layers, shapes=shapes):
        for images in (1, 4, 5):
            feeds = predictions(p, images, 23)
            expected = detections(feeds["loc"], feeds["conf"], feeds["prior"], p)
            np.testing.assert_allclose(engine.run(feeds)["y"], expected, rtol=1e-4, atol=1e-5)


def test_nothing_above_the_threshold_gives_a_row_for_each_image(tmp_path: pathlib.Path) -> None:
    p = {"num_classes": 3, "confidence_threshold": 0.5, "nms_param": {"top_k": 4}, "keep_top_k": 5}
    feeds = predictions(p, 2, 6)
    layers = [*inputs({name: array.shape for name, array in feeds.items()}), detection_layer(p)]
    for engine in engines(tmp_path, layers):
        for best in (0.1, 0.9, 0.1):
            feeds["conf"] = np.zeros_like(feeds["conf"])
            feeds["conf"][1, 4] = best
            rows = engine.run(feeds)["y"][0, 0]
            expected = [[1, 1, 0.9]] if best > 0.5 else [[0, -1, -1], [1, -1, -1]]
            np.testing.assert_allclose(rows[:, :3], expected)


def test_adaptive_threshold_is_refused(tmp_path: pathlib.Path) -> None:
    p = {"num_classes": 3, "nms_param": {"eta": 0.9}}
    layers = [*inputs({"loc": (1, 8), "conf": (1, 6), "prior": (1, 2, 8)}), detection_layer(p)]
    with pytest.raises(UnsupportedError, match=r"DetectionOutput \(y\): its nms_param has eta 0.9") as caught:
        tw.build(write(tmp_path, layers)[0], target=TARGETS[0])
    assert caught.value.code == "M201"


def test_wrong_number_of_predictions_is_a_mistake(tmp_path: pathlib.Path) -> None:
    layers = [*inputs({"loc": (1, 8), "conf": (1, 7), "prior": (1, 2, 8)}), detection_layer({"num_classes": 3})]
    with pytest.raises(ModelError, match="for 2 boxes it needs 6 predictions of each image") as caught:
        tw.build(write(tmp_path, layers)[0], target=TARGETS[0])
    assert caught.value.code == "M104"
