# SPDX-License-Identifier: Apache-2.0
"""Results whose sizes only the data decides, within the bounds of their operands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.ir.dims import Dim, minimum, product
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.decided import NonZero, ReadSize
from tensorwright.ops.detection import NonMaxSuppression
from tensorwright.ops.shape import Reshape


def positions_of_true(b: NetworkBuilder, name: str, x: Value) -> Value:
    """The i64 positions of elements that are not 0, [rank, count]; a scalar counts as a vector of one. `name` is that
    of the result, whose count is a new size."""
    known = b.known(x)
    if known is not None:
        return b.constant(np.array(np.nonzero(np.atleast_1d(known)), np.int64))
    if not x.type.shape:
        x = b.add(Reshape((1,)), x)
    return b.add(NonZero(b.decided_dim(f"{name}_count", product(x.type.shape))), x)


def read_size(b: NetworkBuilder, name: str, value: Value, most: Dim) -> Dim:
    """A new size called `name` of at most `most`, which a run reads from the one integer `value`."""
    size = b.decided_dim(name, most)
    b.add(ReadSize(size, most), value)
    return size


def chosen_boxes(
    b: NetworkBuilder, name: str, boxes: Value, scores: Value, limits: Sequence[Value | None], *, centers: bool
) -> Value:
    """NonMaxSuppression with its `limits`: at most so many rows as they allow for each image and class."""
    if boxes.type.rank != 3 or scores.type.rank != 3:
        raise ValueError(f"boxes are {boxes.type} and scores {scores.type}, both must have rank 3")
    per_class, most = boxes.type.shape[1], b.known(limits[0]) if limits[0] is not None else np.zeros(1, np.int64)
    if most is not None:
        per_class = minimum(per_class, max(0, int(most.reshape(-1)[0])))
    count = b.decided_dim(f"{name}_count", product((*scores.type.shape[:2], per_class)))
    return b.add(NonMaxSuppression(count, centers), boxes, scores, *limits)
