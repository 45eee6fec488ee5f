# SPDX-License-Identifier: Apache-2.0
"""Choosing boxes: non-maximum suppression."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import same_dim


@op("non_max_suppression", compare=EXACT)
class NonMaxSuppression(Op):
    """For each image and class, the boxes in order of score, without those that overlap a chosen one too much.

    Inputs: boxes f32[n, boxes, 4], scores f32[n, classes, boxes], and three optional numbers (one element each): the
    most boxes per class (i64; absent: 0), the IoU above which a box is dropped (f32; absent: 0), and the score that a
    box must exceed (f32; absent: every box does). The result is i64[count, 3]: image, class, box. Of equal scores the
    earlier box comes first. A box is two opposite corners y, x, y, x, or with `centers` its center x, y, width, height.
    """

    count: Dim
    centers: bool = False

    @property
    def decides(self) -> tuple[Dim, ...]:
        return (self.count,)

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        boxes, scores, *limits = (*inputs, None, None, None)[:5] if len(inputs) > 1 else (None, None)
        if boxes is None or scores is None or len(inputs) > 5:
            raise ValueError(f"{self.kind} takes boxes, scores and up to three numbers")
        if boxes.rank != 3 or scores.rank != 3 or boxes.shape[2] != 4:
            raise ValueError(
                f"{self.kind} takes boxes [n, boxes, 4] and scores [n, classes, boxes], not {boxes}, {scores}"
            )
        for a, b in ((boxes.shape[0], scores.shape[0]), (boxes.shape[1], scores.shape[2])):
            if not same_dim(a, b):
                raise ValueError(f"{self.kind}: boxes {boxes} and scores {scores} do not fit")
        for limit, dtype in zip(limits, (DType.i64, DType.f32, DType.f32), strict=True):
            if limit is not None and (limit.dtype is not dtype or any(d != 1 for d in limit.shape)):
                raise ValueError(f"{self.kind}: a limit is {limit}, not one {dtype}")
        return (TensorType(DType.i64, (self.count, 3)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        boxes, scores, *limits = (*inputs, None, None, None)[:5]
        assert boxes is not None and scores is not None
        most, iou, score = (None if x is None else x.reshape(-1)[0] for x in limits)
        corners = _corners(boxes, self.centers)
        found: list[tuple[int, int, int]] = []
        for image, kind in np.ndindex(*scores.shape[:2]):
            ranked = np.argsort(-scores[image, kind], kind="stable")
            left = [int(i) for i in ranked if score is None or scores[image, kind, i] > score]
            chosen: list[int] = []
            while left and len(chosen) < (0 if most is None else int(most)):
                chosen.append(left.pop(0))
                limit = np.float32(0 if iou is None else iou)
                left = [i for i in left if not _overlap(corners[image, chosen[-1]], corners[image, i]) > limit]
            found += [(image, kind, i) for i in chosen]
        return (np.array(found, np.int64).reshape(-1, 3),)


def _corners(boxes: Array, centers: bool) -> Array:
    """y0 <= y1 and x0 <= x1 of every box, as [.., (y0, x0, y1, x1)]."""
    if centers:
        x, y, width, height = np.moveaxis(boxes, -1, 0)
        half_width, half_height = width / np.float32(2), height / np.float32(2)
        return np.stack([y - half_height, x - half_width, y + half_height, x + half_width], -1)
    y0, x0, y1, x1 = np.moveaxis(boxes, -1, 0)
    return np.stack([np.minimum(y0, y1), np.minimum(x0, x1), np.maximum(y0, y1), np.maximum(x0, x1)], -1)


def _overlap(a: Array, b: Array) -> np.float32:
    """Intersection over union of two boxes; 0 where one is empty."""
    inside = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), np.float32(0))
    common = inside[0] * inside[1]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = areas[0] + areas[1] - common
    return np.float32(common / union) if min(areas) > 0 and union > 0 else np.float32(0)
