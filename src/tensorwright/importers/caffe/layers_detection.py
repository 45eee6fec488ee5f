# SPDX-License-Identifier: Apache-2.0
"""The layers of SSD (Liu et al. 2016): prior boxes, and detections decoded from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, Result, layer_type
from tensorwright.ir.dims import Dim, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.builder import limit_constant
from tensorwright.network.composed.decided import chosen_boxes
from tensorwright.ops.decided import NonZero
from tensorwright.ops.elementwise import Add, And, Cast, Div, Equal, Exp, Greater, Maximum, Mod, Mul, Sub, Where
from tensorwright.ops.index import Gather
from tensorwright.ops.order import CumSum, TopKIndices, TopKValues
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.select import GatherNd, ScatterElements, ScatterNd
from tensorwright.ops.shape import Concat, Expand, Reshape, Slice, Transpose

_LOWEST = -3.4028234663852886e38  # -FLT_MAX
_CORNER, _CENTER_SIZE, _CORNER_SIZE = 1, 2, 3  # code types
_SAME_RATIO = 1e-6


# -- prior boxes --------------------------------------------------------------------------------------
@layer_type("PriorBox")
def prior_box(b: Builder, layer: Layer) -> Result:
    """A constant [1, 2, 4 * boxes] of corners relative to the image, and their variances (prior_box_layer.cpp).

    At each place of the first bottom stand, for each min_size, a square of it, one between it and its max_size, and one
    box for each other aspect ratio. Sizes lose their fractions.
    """
    layer.take(1, 2)
    p, grid = layer.proto.prior_box_param, _image(layer, 0, "its boxes stand on a grid of that size")
    named = p.img_size or p.img_h or p.img_w
    image = (p.img_h or p.img_size, p.img_w or p.img_size) if named else _image(layer, 1, "boxes are relative to it")
    steps: tuple[float, ...] = (p.step_h or p.step, p.step_w or p.step)
    _check_priors(p, image, steps)
    if not all(steps):
        steps = tuple(float(np.float32(a) / np.float32(g)) for a, g in zip(image, grid, strict=True))
    sizes = _box_sizes(p)
    limit_constant(math.prod(grid) * len(sizes) * 8)
    ys, xs = (
        (np.arange(g, dtype=np.float32) + np.float32(p.offset)) * np.float32(step)
        for g, step in zip(grid, steps, strict=True)
    )
    centers = np.stack(np.broadcast_arrays(xs[None, :, None], ys[:, None, None]), -1).astype(np.float64)
    halves, whole = sizes.astype(np.float64) / 2, np.array(image[::-1], np.float64)
    boxes = np.concatenate([(centers - halves) / whole, (centers + halves) / whole], -1).astype(np.float32)
    if p.clip:
        boxes = boxes.clip(0, 1)
    variance = np.broadcast_to(np.array(p.variance or [0.1], np.float32), boxes.shape)
    return b.constant(np.stack([boxes.reshape(-1), variance.reshape(-1)])[None])


def _image(layer: Layer, index: int, because: str) -> tuple[int, ...]:
    """Height and width of a bottom."""
    x = layer.bottom(index)
    if x.type.rank != 4:
        raise ValueError(f"bottom {index} is {x.type}, not an image of rank 4")
    return layer.known_dims(x.type.shape[2:], because)


def _check_priors(p: Any, image: tuple[int, ...], steps: tuple[float, ...]) -> None:
    """Raise ValueError for what Caffe refuses."""
    if not p.min_size or min(p.min_size) <= 0:
        raise ValueError("it needs a positive min_size")
    if p.max_size and len(p.max_size) != len(p.min_size):
        raise ValueError(f"it has {len(p.min_size)} min_size and {len(p.max_size)} max_size")
    if any(large <= small for small, large in zip(p.min_size, p.max_size, strict=False)):
        raise ValueError("a max_size must exceed its min_size")
    numbers = [*p.min_size, *p.max_size, *p.aspect_ratio, *p.variance]
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"its sizes, ratios and variances {numbers} must be positive")
    if len(p.variance) not in (0, 1, 4):
        raise ValueError(f"it has {len(p.variance)} variances; it takes 1 or 4")
    if (p.HasField("img_h") or p.HasField("img_w")) and p.HasField("img_size"):
        raise ValueError("it has either img_size, or img_h and img_w")
    if (p.HasField("step_h") or p.HasField("step_w")) and p.HasField("step"):
        raise ValueError("it has either step, or step_h and step_w")
    given = any(p.HasField(name) for name in ("step", "step_h", "step_w"))
    if min(image) < 1 or (given and not all(0 < step < math.inf for step in steps)):
        raise ValueError(f"its image size {image} and steps {steps} must be positive")


def _box_sizes(p: Any) -> Array:
    """Width and height of the boxes of one place, f32[boxes, 2]."""
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - other) >= _SAME_RATIO for other in ratios):
            ratios += [ratio, float(np.float32(1 / ratio))] if p.flip else [ratio]
    sizes = []
    for i, size in enumerate(map(int, p.min_size)):
        sizes.append((float(size), float(size)))
        if p.max_size:
            sizes.append((math.sqrt(size * int(p.max_size[i])),) * 2)
        others = [math.sqrt(ratio) for ratio in ratios if abs(ratio - 1) >= _SAME_RATIO]
        sizes += [(size * root, size / root) for root in others]
    return np.array(sizes, np.float32)


# -- detections ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Candidates:
    """Of each image and class that is not background, the best boxes, best first: scores f32[images,classes,boxes]
    (-inf: none), corners f32[images,classes,boxes,4]."""

    scores: Value
    boxes: Value
    classes: tuple[int, ...]

    @property
    def images(self) -> Dim:
        """How many images."""
        return self.scores.type.shape[0]

    @property
    def per_class(self) -> int:
        """How many boxes a class has."""
        size = self.scores.type.shape[2]
        assert isinstance(size, int)
        return size

    @property
    def per_image(self) -> int:
        """How many boxes an image has in all classes."""
        return self.per_class * len(self.classes)


@layer_type("DetectionOutput")
def detection_output(b: Builder, layer: Layer) -> Result:
    """Rows (image, label, confidence, xmin, ymin, xmax, ymax) as [1, 1, rows, 7], by image, label and falling
    confidence; a row (image, -1, ...) for each image when nothing at all is found (detection_output_layer.cpp)."""
    layer.take(3, 4)
    p = layer.proto.detection_output_param
    if p.nms_param.eta != 1:
        layer.refuse(f"its nms_param has eta {p.nms_param.eta:g}, a threshold that adapts", "use eta: 1")
    if not p.nms_param.nms_threshold >= 0 or p.num_classes < 1:
        raise ValueError("it needs num_classes, and an nms_threshold that is not negative")
    images, name = layer.bottom(0).type.shape[0], layer.tops[0]
    classes = tuple(c for c in range(p.num_classes) if c != p.background_label_id)
    scores, boxes = _predictions(b, layer, p)
    top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") else -1
    if not classes or top_k == 0 or p.keep_top_k == 0:
        return _nothing(b, images)
    found = _candidates(b, p, scores, boxes, classes, top_k)
    kept = _suppressed(b, name, found, p.nms_param.nms_threshold)
    most = found.per_image
    if 0 < p.keep_top_k < most:
        kept, most = _best(b, found, kept, p.keep_top_k), p.keep_top_k
    return _rows(b, name, found, kept, images * most)


def _predictions(b: Builder, layer: Layer, p: Any) -> tuple[Value, Value]:
    """Scores [images,classes,priors] of all classes, and decoded corners [images,1 or classes,priors,4]."""
    loc, conf, prior = layer.bottoms[:3]
    if prior.type.rank != 3 or prior.type.shape[:2] != (1, 2):
        raise ValueError(f"its prior boxes are {prior.type}, not [1,2,4 * boxes]")
    (size,) = layer.known_dims(prior.type.shape[2:], "there is a prediction for each")
    priors, sets = size // 4, 1 if p.share_location else p.num_classes
    images = loc.type.shape[0] if loc.type.rank else 0
    for value, each in ((loc, sets * 4), (conf, p.num_classes)):
        if value.type.rank < 2 or value.type.shape[0] != images or product(value.type.shape[1:]) != priors * each:
            raise ValueError(f"for {priors} boxes it needs {priors * each} predictions of each image, not {value.type}")
    halves = [b.add(Slice((i,), (i + 1,), (1,), (1,)), prior) for i in range(2)]
    corners, variance = (b.add(Reshape((priors, 1, 4)), half) for half in halves)
    offsets = b.add(Reshape((images, priors, sets, 4)), loc)
    if not p.variance_encoded_in_target:
        offsets = b.add(Mul(), variance, offsets)
    boxes = b.add(Transpose((0, 2, 1, 3)), _decoded(b, layer, p.code_type, corners, offsets))
    scores = b.add(Transpose((0, 2, 1)), b.add(Reshape((images, priors, p.num_classes)), conf))
    return scores, boxes


def _decoded(b: Builder, layer: Layer, code: int, corners: Value, offsets: Value) -> Value:
    """Boxes from prior corners [priors,1,4] and offsets [images,priors,sets,4], which are scaled by the variances."""
    if code == _CORNER:
        return b.add(Add(), corners, offsets)
    low, high = _halves(b, corners)
    size = b.add(Sub(), high, low)
    if code == _CORNER_SIZE:
        return b.add(Add(), corners, b.add(Mul(), offsets, b.add(Concat(2), size, size)))
    half = b.scalar(0.5, DType.f32)
    shift, growth = _halves(b, offsets)
    center = b.add(Add(), b.add(Mul(), shift, size), b.add(Mul(), b.add(Add(), low, high), half))
    reach = b.add(Mul(), b.add(Mul(), b.add(Exp(), growth), size), half)
    return b.add(Concat(3), b.add(Sub(), center, reach), b.add(Add(), center, reach))


def _halves(b: Builder, x: Value) -> tuple[Value, Value]:
    """The first and the last two of the last axis."""
    axis = x.type.rank - 1
    return b.add(Slice((0,), (2,), (axis,), (1,)), x), b.add(Slice((2,), (4,), (axis,), (1,)), x)


def _without_background(b: Builder, x: Value, classes: tuple[int, ...]) -> Value:
    """The classes of axis 1 that are not background."""
    if x.type.shape[1] == len(classes):
        return x
    missing = next((i for i, c in enumerate(classes) if i != c), len(classes))
    ends = [(0, missing), (missing + 1, len(classes) + 1)]
    parts = [b.add(Slice((a,), (z,), (1,), (1,)), x) for a, z in ends if a < z]
    return parts[0] if len(parts) == 1 else b.add(Concat(1), *parts)


def _candidates(b: Builder, p: Any, scores: Value, boxes: Value, classes: tuple[int, ...], top_k: int) -> _Candidates:
    """The first `top_k` boxes (-1: all) of each class whose score exceeds the threshold."""
    scores = _without_background(b, scores, classes)
    images, count, priors = scores.type.shape
    assert isinstance(priors, int)
    k = min(top_k, priors) if top_k > 0 else priors
    threshold = p.confidence_threshold if p.HasField("confidence_threshold") else _LOWEST
    is_above = b.add(Greater(), scores, b.scalar(threshold, DType.f32))
    scores = b.add(Where(), is_above, scores, b.scalar(-math.inf, DType.f32))
    places, scores = b.add(TopKIndices(k, 2), scores), b.add(TopKValues(k, 2), scores)
    if boxes.type.shape[1] == 1:  # all classes have the same boxes
        boxes, rows = b.add(Reshape((images, priors, 4)), boxes), (images, len(classes) * k, 1)
    else:
        boxes = b.add(Reshape((images * count, priors, 4)), _without_background(b, boxes, classes))
        rows = (images * count, k, 1)
    chosen = b.add(GatherNd(1), boxes, b.add(Reshape(rows), places))
    return _Candidates(scores, b.add(Reshape((images, count, k, 4)), chosen), classes)


def _suppressed(b: Builder, name: str, found: _Candidates, threshold: float) -> Value:
    """bool[images, classes * boxes]: what non-maximum suppression within each class leaves."""
    rows, k = found.images * len(found.classes), found.per_class
    low, high = _halves(b, b.add(Reshape((rows, k, 4)), found.boxes))
    corners = b.add(Concat(2), low, b.add(Maximum(), low, high))  # Caffe counts inverted boxes as empty
    limits = [
        b.scalar(k, DType.i64),
        b.scalar(threshold, DType.f32),
        b.scalar(_LOWEST, DType.f32),
    ]
    scores = b.add(Reshape((rows, 1, k)), found.scores)
    chosen = chosen_boxes(b, f"{name}_kept", corners, scores, limits, centers=False)
    none = b.add(Expand((rows, 1, k)), b.scalar(0.0, DType.f32))
    ones = b.add(Expand((chosen.type.shape[0],)), b.scalar(1.0, DType.f32))
    return _is_set(b, b.add(Reshape((found.images, found.per_image)), b.add(ScatterNd(), none, chosen, ones)))


def _is_set(b: Builder, marks: Value) -> Value:
    return b.add(Greater(), marks, b.scalar(0.0, DType.f32))


def _best(b: Builder, found: _Candidates, kept: Value, most: int) -> Value:
    """Of what is kept the `most` best of each image; of equal ones those of the first class."""
    scores = b.add(Reshape(kept.type.shape), found.scores)
    left = b.add(Where(), kept, scores, b.scalar(-math.inf, DType.f32))
    places = b.add(TopKIndices(most, 1), left)
    none = b.add(Expand(kept.type.shape), b.scalar(0.0, DType.f32))
    ones = b.add(Expand(places.type.shape), b.scalar(1.0, DType.f32))
    return b.add(And(), kept, _is_set(b, b.add(ScatterElements(1), none, places, ones)))


def _rows(b: Builder, name: str, found: _Candidates, kept: Value, most: Dim) -> Value:
    """The rows of what is kept. Each image has one more place, for its row when there is nothing at all."""
    images, width = found.images, found.per_image + 1
    total = b.add(Reduce("max", (0, 1), True), b.add(Cast(DType.f32), kept))
    is_nothing = b.add(Expand((images, 1)), b.add(Equal(), total, b.scalar(0.0, DType.f32)))
    marks = b.add(Reshape((images * width,)), b.add(Concat(1), kept, is_nothing))
    places = b.add(NonZero(b.decided_dim(f"{name}_count", most)), marks)
    count = places.type.shape[1]
    at = b.add(Reshape((count,)), places)
    divisor = b.scalar(width, DType.i64)
    image, rest = b.add(Div(), at, divisor), b.add(Mod(), at, divisor)
    labels = b.constant(np.array([*found.classes, -1], np.float32))
    label = b.add(Gather(0), labels, b.add(Div(), rest, b.scalar(found.per_class, DType.i64)))
    columns = [b.add(Cast(DType.f32), image), label]
    for value, size in ((found.scores, 1), (found.boxes, 4)):
        table = b.add(Reshape((images, width - 1, size)), value)
        absent = b.add(Expand((images, 1, size)), b.scalar(-1.0, DType.f32))
        table = b.add(Reshape((images * width, size)), b.add(Concat(1), table, absent))
        columns.append(b.add(Gather(0), table, at))
    columns = [v if v.type.rank == 2 else b.add(Reshape((count, 1)), v) for v in columns]
    return b.add(Reshape((1, 1, count, 7)), b.add(Concat(1), *columns))


def _nothing(b: Builder, images: Dim) -> Value:
    """A row for each image that says that nothing was found."""
    ones = b.add(Expand((images,)), b.scalar(1, DType.i64))
    number = b.add(Cast(DType.f32), b.add(CumSum(0, exclusive=True), ones))
    rest = b.add(Expand((images, 6)), b.scalar(-1.0, DType.f32))
    return b.add(Reshape((1, 1, images, 7)), b.add(Concat(1), b.add(Reshape((images, 1)), number), rest))


LAYERS = [prior_box, detection_output]
