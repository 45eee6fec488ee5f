# SPDX-License-Identifier: Apache-2.0
"""From the maps of yolo and region layers to boxes, as Darknet's applications make them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.errors import InputError
from tensorwright.importers.darknet.detectors import Detector
from tensorwright.importers.darknet.reader import read_parts

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Detection:
    """An object: the index of its class, the probability, and the centre and size of its box, relative to the image."""

    label: int
    probability: float
    x: float
    y: float
    width: float
    height: float


def decode(
    cfg: str | os.PathLike[str],
    maps: Mapping[str, Array],
    *,
    threshold: float = 0.5,
    overlap: float = 0.45,
    image: Sequence[int] | None = None,
) -> list[list[Detection]]:
    """What is found in each sample, the most probable first.

    `maps` has the results of yolo and region layers by name, f32[N, channels, height, width]; others are left alone.
    The probability of a class is that of the class times the objectness, and both exceed the `threshold`. Of boxes of
    a class whose intersection is more than `overlap` of their union, only the most probable stays. `image` is the
    height and width of the network's input, by default those in the .cfg file. Raises InputError I150 when no map is
    that of a detector, or has a wrong shape, and ModelError as the import does.
    """
    declared, parts = read_parts(cfg, [])
    layers = {part.name: part.layer for part in parts if isinstance(part.layer, Detector) and part.name in maps}
    if not layers:
        known = ", ".join(part.name for part in parts if isinstance(part.layer, Detector))
        raise InputError(
            f"none of the maps {', '.join(map(repr, maps))} belongs to a yolo or region layer",
            where=str(cfg),
            why=f"the layers are {known or 'of other kinds'}",
            code="I150",
            do="pass engine.run(...) of an engine with these outputs",
        )
    size = image if image is not None else (declared.height, declared.width)
    with np.errstate(all="ignore"):
        found = [_candidates(name, layer, maps[name], size) for name, layer in layers.items()]
        boxes, objectness, classes = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        scores = objectness[..., None] * classes
        scores[~((objectness > threshold)[..., None] & (scores > threshold))] = 0
        return [_best(b, s, overlap) for b, s in zip(boxes, scores, strict=True)]


def _candidates(name: str, layer: Detector, maps: Array, image: Sequence[int]) -> tuple[Array, Array, Array]:
    channels = layer.count * layer.entries
    if maps.ndim != 4 or maps.shape[1] != channels:
        raise InputError(
            f"the map {name!r} has the shape {maps.shape}",
            why=f"the layer gives N x {channels} x height x width",
            code="I150",
            do="pass engine.run(...) of an engine with this output",
        )
    return layer.boxes(maps, image)


def _best(boxes: Array, scores: Array, overlap: float) -> list[Detection]:
    """The boxes (f32[boxes, 4]) with a score (f32[boxes, classes]) that no more probable one of the class covers."""
    kept: list[Detection] = []
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        order = order[scores[order, label] > 0]
        while order.size:
            first, order = order[0], order[1:]
            kept.append(Detection(label, float(scores[first, label]), *map(float, boxes[first])))
            order = order[~(_iou(boxes[first], boxes[order]) > overlap)]  # endless boxes overlap with nothing
    return sorted(kept, key=lambda d: -d.probability)


def _iou(box: Array, others: Array) -> Array:
    """The intersection over the union of a box with others, each as centre and size."""
    low = np.maximum(box[:2] - box[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    both = np.clip(high - low, 0, None).prod(axis=1)
    covered: Array = both / np.maximum(box[2:].prod() + others[:, 2:].prod(axis=1) - both, np.finfo(np.float32).tiny)
    return covered
