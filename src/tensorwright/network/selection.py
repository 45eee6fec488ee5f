# SPDX-License-Identifier: Apache-2.0
"""Layers that choose, place and count elements: top-k, scatter, one-hot, non-zero, NMS, cumulative, assertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError, normal_axis
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.decided import chosen_boxes, positions_of_true, read_size
from tensorwright.network.composed.index import one_hot
from tensorwright.network.enums import BoundingBoxFormat, CumulativeOperation, ScatterMode, TopKOperation
from tensorwright.network.layer import (
    Layer,
    Setting,
    as_dtype,
    axes_of,
    flag,
    integer,
    known,
    member,
    present,
)
from tensorwright.ops.order import CumSum, TopKIndices, TopKValues
from tensorwright.ops.select import ScatterElements, ScatterNd
from tensorwright.ops.shape import Reshape, ShapeOf, Transpose


def index_type(layer: Layer, value: Any) -> DType:
    """i32 or i64."""
    dtype = as_dtype(value)
    if dtype not in (DType.i32, DType.i64):
        raise ValueError("indices are i32 or i64")
    return dtype


def one_number(b: NetworkBuilder, value: Value, what: str) -> int:
    """The only element of a constant. Raises ValueError."""
    array = known(b, value, what)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be one integer, it is {value.type}")
    return int(array.reshape(-1)[0])


class TopKLayer(Layer):
    """The k largest or smallest elements along the axis of the `axes` bitmask in order (output 0), and where they are
    (output 1). Of equal elements the earlier comes first. Input 1, one i32 or i64, replaces `k`, also when only a run
    knows it."""

    kind = "topk"
    most_inputs = 2
    num_outputs = 2
    op = Setting[TopKOperation, TopKOperation](member(TopKOperation))
    k = Setting[int, int](integer)
    axes = Setting[int, int](integer)
    indices_type = Setting[DType, Any](index_type)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Sequence[Value]:
        x, given = present(inputs), inputs[1] if len(inputs) > 1 else None
        axes = axes_of(self.axes, x.type.rank)
        if len(axes) != 1:
            raise ValueError(f"axes {bin(self.axes)} must choose one axis")
        (axis,), largest, k = axes, self.op is TopKOperation.MAX, self._k(b, x, given, axes[0])
        places = b.add(TopKIndices(k, axis, largest), x)
        return b.add(TopKValues(k, axis, largest), x), as_type(b, places, self.indices_type)

    def _k(self, b: NetworkBuilder, x: Value, given: Value | None, axis: int) -> Dim:
        if given is None:
            return self.k
        if b.known(given) is not None:
            return one_number(b, given, "k")
        return read_size(b, f"{self.name}_k", given, x.type.shape[axis])


class ScatterLayer(Layer):
    """A copy of input 0 in which elements (mode ELEMENT, along `axis`) or blocks (mode ND) at the indices of input 1
    are those of input 2."""

    kind = "scatter"
    mode = Setting[ScatterMode, ScatterMode](member(ScatterMode))
    axis = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        data, indices, updates = (present(inputs, i) for i in range(3))
        if self.mode is ScatterMode.ND:
            return b.add(ScatterNd(), data, indices, updates)
        return b.add(ScatterElements(normal_axis(self.axis, data.type.rank)), data, indices, updates)


class OneHotLayer(Layer):
    """A new dim at `axis`, as large as the constant of input 2 says, with values[1] of input 1 at the index and
    values[0] elsewhere. Negative indices count from the end."""

    kind = "one_hot"
    axis = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        indices, values = present(inputs), present(inputs, 1)
        depth = one_number(b, present(inputs, 2), "the depth")
        if values.type.shape != (2,) or indices.type.dtype not in (DType.i32, DType.i64) or depth < 0:
            raise ValueError(f"it cannot place two values, {values.type}, at {depth} indices, {indices.type}")
        return one_hot(b, indices, values, depth, normal_axis(self.axis, indices.type.rank + 1))


class NonZeroLayer(Layer):
    """The positions of elements that are not 0, in row-major order: [rank, count]. A run decides the count."""

    kind = "non_zero"
    indices_type = Setting[DType, Any](index_type)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return as_type(b, positions_of_true(b, self.name, present(inputs)), self.indices_type)


class NMSLayer(Layer):
    """Non-maximum suppression: boxes of high score that do not overlap too much.

    Inputs: boxes f32[batch, boxes, 4] (or [batch, boxes, 1, 4]), scores f32[batch, boxes, classes], the most boxes of
    each class (i32 or i64), and set with `set_input` the IoU above which a box is dropped (3; absent: 0) and the score
    that a box must exceed (4; absent: every box does). Outputs: [count, 3], each row a batch entry, a class and a box,
    and the count, a scalar. A run decides the count.
    """

    kind = "nms"
    most_inputs = 5
    num_outputs = 2
    bounding_box_format = Setting[BoundingBoxFormat, BoundingBoxFormat](member(BoundingBoxFormat))
    indices_type = Setting[DType, Any](index_type)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Sequence[Value]:
        boxes, scores, most = (present(inputs, i) for i in range(3))
        if boxes.type.rank == 4:
            if boxes.type.shape[2] != 1:
                raise RefusalError(f"boxes {boxes.type} differ from class to class", "give all classes the same boxes")
            boxes = b.add(Reshape((*boxes.type.shape[:2], *boxes.type.shape[3:])), boxes)
        if scores.type.rank != 3:
            raise ValueError(f"scores must have rank 3, they are {scores.type}")
        by_class = b.add(Transpose((0, 2, 1)), scores)
        iou, least = (*inputs[3:], None, None)[:2]
        limits = (as_type(b, most, DType.i64), iou, least)
        centers = self.bounding_box_format is BoundingBoxFormat.CENTER_SIZES
        found = chosen_boxes(b, self.name, boxes, by_class, limits, centers=centers)
        count = b.add(Reshape(()), b.add(ShapeOf(0, 1), found))
        return as_type(b, found, self.indices_type), as_type(b, count, self.indices_type)


class CumulativeLayer(Layer):
    """Running sums along the axis that input 1, a constant, names: `exclusive` leaves out the element itself, `reverse`
    starts at the end."""

    kind = "cumulative"
    op = Setting[CumulativeOperation, CumulativeOperation](member(CumulativeOperation))
    exclusive = Setting[bool, bool](flag)
    reverse = Setting[bool, bool](flag)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        axis = normal_axis(one_number(b, present(inputs, 1), "the axis"), x.type.rank)
        return b.add(CumSum(axis, self.exclusive, self.reverse), x)


class AssertionLayer(Layer):
    """No graph is made unless all elements of the bool input are true. The input must follow from constants and known
    shapes; a condition that only a run decides is refused."""

    kind = "assertion"
    is_check = True
    num_outputs = 0
    message = Setting[str, str](lambda layer, value: str(value))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Sequence[Value]:
        condition = present(inputs)
        if condition.type.dtype is not DType.bool:
            raise ValueError(f"the condition must be bool, it is {condition.type}")
        array = b.known(condition)
        if array is None:
            raise RefusalError("only a run decides its condition", "check it outside of the network")
        if not array.all():
            raise ValueError(f"the assertion does not hold: {self.message}")
        return ()
