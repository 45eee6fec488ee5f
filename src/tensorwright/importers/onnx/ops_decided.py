# SPDX-License-Identifier: Apache-2.0
"""ONNX ops whose results have sizes that only the data decides, within the bounds of their operands."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.ir.dims import minimum, product
from tensorwright.network.composed.decided import chosen_boxes, positions_of_true
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Reshape, Slice


@onnx_op("NonZero")
def non_zero(b: Builder, n: OnnxNode) -> Result:
    """Scalars count as one-element vectors, as in NumPy."""
    return positions_of_true(b, n.proto.output[0], n.input(0))


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
    found = positions_of_true(b, n.proto.output[0], condition)
    return b.add(Gather(axis), x, b.add(Reshape((found.type.shape[1],)), found))


@onnx_op("NonMaxSuppression", since=10)
def non_max_suppression(b: Builder, n: OnnxNode) -> Result:
    """At most `max_output_boxes_per_class` rows for each image and class."""
    style = n.attr("center_point_box", int, 0)
    if style not in (0, 1):
        raise ValueError(f"center_point_box={style} is not defined")
    limits = [n.optional(i) for i in (2, 3, 4)]
    return chosen_boxes(b, n.proto.output[0], n.input(0), n.input(1), limits, centers=style == 1)


OPS: tuple[OnnxOp, ...] = (non_zero, compress, non_max_suppression)
