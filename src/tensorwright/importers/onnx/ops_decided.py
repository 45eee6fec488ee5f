# SPDX-License-Identifier: Apache-2.0
"""ONNX ops whose results have sizes that only the data decides, within the bounds of their operands."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.ir.dims import minimum, product
from tensorwright.ir.graph import Value
from tensorwright.ops.decided import NonZero
from tensorwright.ops.detection import NonMaxSuppression
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Reshape, Slice


@onnx_op("NonZero")
def non_zero(b: Builder, n: OnnxNode) -> Result:
    """Scalars count as one-element vectors, as in NumPy."""
    return _positions(b, n, n.input(0))


@onnx_op("Compress", since=9)
def compress(b: Builder, n: OnnxNode) -> Result:
    """The slices of x along `axis` (without one: the elements of x, flattened) whose condition holds."""
    x, condition = n.input(0), n.input(1)
    if not n.has("axis"):
        x = b.add(Reshape((product(x.type.shape),)), x)
    axis = n.axis("axis", 0, x.type.rank)
    length, given = x.type.shape[axis], condition.type.shape[0]
    chosen = b.known(condition)
    if chosen is not None and isinstance(length, int) and np.flatnonzero(chosen)[length:].size:
        raise ValueError(f"its condition chooses position {np.flatnonzero(chosen)[-1]} of {length}")
    if minimum(length, given) != given:  # what lies past the axis is not asked
        condition = b.add(Slice((0,), (minimum(length, given),), (0,), (1,)), condition)
    found = _positions(b, n, condition)
    return b.add(Gather(axis), x, b.add(Reshape((found.type.shape[1],)), found))


@onnx_op("NonMaxSuppression", since=10)
def non_max_suppression(b: Builder, n: OnnxNode) -> Result:
    """At most `max_output_boxes_per_class` rows for each image and class."""
    boxes, scores, *limits = (n.input(0), n.input(1), *(n.optional(i) for i in (2, 3, 4)))
    style = n.attr("center_point_box", int, 0)
    if style not in (0, 1) or boxes.type.rank != 3 or scores.type.rank != 3:
        raise ValueError(
            f"boxes {boxes.type}, scores {scores.type} or center_point_box={style} are not as ONNX has them"
        )
    most = b.known(limits[0]) if limits[0] is not None else np.zeros(1, np.int64)
    per_class = boxes.type.shape[1]
    if most is not None:
        per_class = minimum(per_class, max(0, int(most.reshape(-1)[0])))
    bound = product((*scores.type.shape[:2], per_class))
    count = b.decided_dim(f"{n.proto.output[0]}_count", bound)
    return b.add(NonMaxSuppression(count, style == 1), boxes, scores, *limits)


def _positions(b: Builder, n: OnnxNode, x: Value) -> Value:
    known = b.known(x)
    if known is not None:
        return b.constant(np.array(np.nonzero(np.atleast_1d(known)), np.int64))
    if not x.type.shape:
        x = b.add(Reshape((1,)), x)
    count = b.decided_dim(f"{n.proto.output[0]}_count", product(x.type.shape))
    return b.add(NonZero(count), x)


OPS: tuple[OnnxOp, ...] = (non_zero, compress, non_max_suppression)
