# SPDX-License-Identifier: Apache-2.0
"""Boxes from maps, against Darknet's own loops over them."""

from __future__ import annotations

import math
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest

from tensorwright.errors import InputError
from tensorwright.importers.darknet import Detection, decode
from tests.importers.darknet.oracle import cfg_text

RNG = np.random.default_rng()

Found = list[tuple[int, float, float, float, float, float]]


def candidates(maps: Any, options: dict[str, Any], image: tuple[int, int], threshold: float) -> Found:
    """As get_yolo_detections and get_region_detections: one entry per box and class that passes."""
    region, anchors = "mask" not in options, options["anchors"]
    mask = range(options["num"]) if region else options["mask"]
    coords, classes = options.get("coords", 4), options["classes"]
    _, height, width = maps.shape
    boxes = maps.reshape(len(mask), coords + 1 + classes, height, width).astype(np.float64)
    found: Found = []
    for n, row, column in np.ndindex(len(mask), height, width):
        e = boxes[n, :, row, column]
        objectness = 1.0 if options.get("background") else e[coords]
        if objectness <= threshold:
            continue
        x, y = (column + e[0]) / width, (row + e[1]) / height
        w, h = (4 * v * v if options.get("new_coords") else math.exp(v) for v in e[2:4])
        w *= anchors[2 * mask[n]] / (width if region else image[1])
        h *= anchors[2 * mask[n] + 1] / (height if region else image[0])
        for label in range(classes):
            score = objectness * e[coords + 1 + label]
            if score > threshold:
                found.append((label, score, x, y, w, h))
    return found


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    def overlap(c1: float, s1: float, c2: float, s2: float) -> float:
        return min(c1 + s1 / 2, c2 + s2 / 2) - max(c1 - s1 / 2, c2 - s2 / 2)

    w, h = overlap(a[0], a[2], b[0], b[2]), overlap(a[1], a[3], b[1], b[3])
    both = w * h if w > 0 and h > 0 else 0.0
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def suppressed(found: Found, limit: float) -> Found:
    """As do_nms_sort: the most probable first, class by class."""
    kept: Found = []
    for d in sorted(found, key=lambda d: -d[1]):
        if all(d[0] != k[0] or iou(d[2:], k[2:]) <= limit for k in kept):
            kept.append(d)
    return kept


def layer_of(kind: str, options: dict[str, Any]) -> tuple[str, dict[str, object]]:
    text = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in options.items()}
    return kind, text


def maps_of(options: dict[str, Any], height: int, width: int, batch: int = 1) -> Any:
    entries = options.get("coords", 4) + 1 + options["classes"]
    channels = len(options.get("mask", range(options["num"]))) * entries
    return RNG.random((batch, channels, height, width), np.float32)


YOLO = {"classes": 3, "num": 4, "mask": [0, 2], "anchors": [10, 14, 23, 27, 37, 58, 81, 82]}
REGION = {"classes": 2, "num": 2, "anchors": [1.3, 1.7, 3.2, 0.9]}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("yolo", YOLO),
        ("yolo", {**YOLO, "new_coords": 1}),
        ("region", REGION),
        ("region", {**REGION, "background": 1}),
        ("region", {**REGION, "coords": 5}),
    ],
)
@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_boxes_are_those_of_darknet(
    tmp_path: pathlib.Path, kind: str, options: dict[str, Any], threshold: float
) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text([layer_of(kind, options)], (3, 64, 96)))
    maps = maps_of(options, 4, 6, batch=2)
    found = decode(tmp_path / "net.cfg", {f"{kind}_0": maps}, threshold=threshold, overlap=0.4)
    assert len(found) == 2
    for sample, detections in zip(maps, found, strict=True):
        expected = suppressed(candidates(sample, options, (64, 96), threshold), 0.4)
        assert expected and len(detections) == len(expected)
        rows = [(d.label, d.probability, d.x, d.y, d.width, d.height) for d in detections]
        np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_boxes_of_several_layers_compete(tmp_path: pathlib.Path) -> None:
    one, two = {**YOLO, "classes": 1}, {**YOLO, "classes": 1, "mask": [3]}
    layers = [layer_of("yolo", one), ("route", {"layers": -1}), layer_of("yolo", two)]
    (tmp_path / "net.cfg").write_text(cfg_text(layers, (3, 64, 64)))
    maps = {"yolo_0": maps_of(one, 2, 2), "yolo_2": maps_of(two, 4, 4), "route_1": np.zeros(3)}
    (found,) = decode(tmp_path / "net.cfg", maps, threshold=0.2, image=(128, 32))
    every = candidates(maps["yolo_0"][0], one, (128, 32), 0.2) + candidates(maps["yolo_2"][0], two, (128, 32), 0.2)
    expected = suppressed(every, 0.45)
    assert [d.probability for d in found] == pytest.approx([d[1] for d in expected], rel=1e-5)


def test_one_sure_object_is_found_where_it_is(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text([layer_of("yolo", YOLO)], (3, 64, 96)))
    maps = np.zeros((1, 16, 2, 3), np.float32)
    maps[0, 8:16, 1, 2] = [0.5, 0.25, 0, 0, 0.9, 0, 1, 0]  # the second anchor of the mask, 37 x 58 pixels
    (found,) = decode(tmp_path / "net.cfg", {"yolo_0": maps})
    (d,) = found
    assert d == Detection(1, pytest.approx(0.9), pytest.approx(2.5 / 3), 0.625, pytest.approx(37 / 96), 58 / 64)


def test_nothing_found_is_an_empty_list(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text([layer_of("yolo", YOLO)], (3, 64, 96)))
    assert decode(tmp_path / "net.cfg", {"yolo_0": np.zeros((2, 16, 2, 3), np.float32)}) == [[], []]


def test_endless_boxes_are_told_apart_and_nan_is_no_object(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text([layer_of("yolo", YOLO)], (3, 64, 96)))
    maps = np.zeros((1, 16, 1, 3), np.float32)
    maps[0, :8, 0, 0] = maps[0, :8, 0, 1] = [0.5, 0.5, 999, 999, 0.9, 0, 1, 0]
    maps[0, :8, 0, 2] = [0.5, 0.5, 0, 0, np.nan, 0, 1, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (found,) = decode(tmp_path / "net.cfg", {"yolo_0": maps})
    assert [d.width for d in found] == [np.inf, np.inf]


@pytest.mark.parametrize("maps", [{}, {"yolo_1": np.zeros((1, 16, 2, 2))}, {"yolo_0": np.zeros((1, 15, 2, 2))}])
def test_foreign_maps_give_i150(tmp_path: pathlib.Path, maps: dict[str, Any]) -> None:
    (tmp_path / "net.cfg").write_text(cfg_text([layer_of("yolo", YOLO)], (3, 64, 96)))
    with pytest.raises(InputError) as caught:
        decode(tmp_path / "net.cfg", maps)
    assert caught.value.code == "I150"
