# SPDX-License-Identifier: Apache-2.0
"""TensorFlow ops that choose, place or order elements."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.ops_shape import as_type
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import normal_axis
from tensorwright.network.composed.decided import chosen_boxes, positions_of_true
from tensorwright.network.composed.index import one_hot, reversed_sequences
from tensorwright.ops.elementwise import Less, Where
from tensorwright.ops.index import Gather
from tensorwright.ops.order import TopKIndices, TopKValues
from tensorwright.ops.select import GatherNd, Reduction, ScatterNd
from tensorwright.ops.shape import Concat, Expand, Reshape, Slice, Transpose


@tf_op("Gather", "GatherV2")
def gather(b: Builder, n: OpNode) -> Result:
    """Slices at indices along an axis; the first `batch_dims` dims of both go together."""
    x, indices = n.input(0), n.input(1)
    axis = n.axis(2, x.type.rank) if len(n.inputs) > 2 else 0
    shared = normal_axis(n.integer("batch_dims", 0), indices.type.rank + 1) if n.integer("batch_dims", 0) else 0
    known, size = b.known(indices), x.type.shape[axis] if axis < x.type.rank else 0
    if known is not None and isinstance(size, int) and known.size and not 0 <= known.min() <= known.max() < size:
        raise ValueError(f"an index is not within the {size} elements of dim {axis}")
    return b.add(Gather(axis), x, indices) if not shared else _batched(b, x, indices, axis, shared)


def _batched(b: Builder, x: Value, indices: Value, axis: int, shared: int) -> Value:
    """Gather with shared batch dims, as GatherNd of x with the axis moved behind them."""
    if not shared <= axis < x.type.rank or shared > indices.type.rank:
        raise ValueError(f"batch_dims {shared} do not fit {x.type} at axis {axis} and {indices.type}")
    between = list(range(shared, axis))
    after = list(range(axis + 1, x.type.rank))
    moved = b.add(Transpose((*range(shared), axis, *between, *after)), x)
    rows = b.add(Reshape((*indices.type.shape, 1)), indices)
    y = b.add(GatherNd(shared), moved, rows)
    own = indices.type.rank - shared
    if not between:
        return y
    places = [*range(shared), *(shared + own + i for i in range(len(between))), *(shared + i for i in range(own))]
    return b.add(Transpose((*places, *range(len(places), y.type.rank))), y)


@tf_op("GatherNd")
def gather_nd(b: Builder, n: OpNode) -> Result:
    """Slices at coordinates."""
    return b.add(GatherNd(n.integer("batch_dims", 0)), n.input(0), n.input(1))


@tf_op("ScatterNd")
def scatter_nd(b: Builder, n: OpNode) -> Result:
    """Zeros with updates added at coordinates."""
    indices, updates, dims = n.input(0), n.input(1), n.dims(2, "it is the shape of the result")
    empty = b.add(Expand(dims), b.scalar(0, updates.type.dtype))
    return b.add(ScatterNd("add"), empty, indices, updates)


_SCATTERS: Mapping[str, Reduction] = {
    "TensorScatterUpdate": "none",
    "TensorScatterAdd": "add",
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
}


@tf_op(*_SCATTERS)
def tensor_scatter(b: Builder, n: OpNode) -> Result:
    """A copy with updates at coordinates."""
    return b.add(ScatterNd(_SCATTERS[n.op]), n.input(0), n.input(1), n.input(2))


@tf_op("OneHot")
def one_hot_(b: Builder, n: OpNode) -> Result:
    """`on` at the index along a new axis, `off` elsewhere, also for negative indices."""
    indices, depth = n.input(0), n.number(1, "it is the size of the new dim")
    axis = n.integer("axis", -1)
    axis = indices.type.rank if axis == -1 else normal_axis(axis, indices.type.rank + 1)
    wide = as_type(b, indices, DType.i64)
    inside = b.add(Where(), b.add(Less(), wide, b.scalar(0, DType.i64)), b.scalar(depth, DType.i64), wide)
    values = b.add(Concat(0), *(b.add(Reshape((1,)), n.input(i)) for i in (3, 2)))
    return one_hot(b, inside, values, depth, axis)


@tf_op("TopK", "TopKV2")
def top_k(b: Builder, n: OpNode) -> Result:
    """The k largest of the last dim, best first, of equal ones the earlier."""
    x = n.input(0)
    k = n.dims(1, "it is how many are taken")[0] if n.op == "TopKV2" else n.integer("k", 1)
    axis = x.type.rank - 1
    if axis < 0:
        raise ValueError("it works along the last dim, but the input has none")
    found = b.add(TopKIndices(k, axis), x)
    return [b.add(TopKValues(k, axis), x), as_type(b, found, n.dtype("index_type", DType.i32))]


@tf_op("Where")
def where(b: Builder, n: OpNode) -> Result:
    """Coordinates of the elements that are not 0, one row each."""
    found = positions_of_true(b, n.node.name, n.input())
    return b.add(Transpose((1, 0)), found)


@tf_op("ReverseSequence")
def reverse_sequence(b: Builder, n: OpNode) -> Result:
    """The first `lengths` steps of each entry backwards."""
    return reversed_sequences(b, n.input(0), n.input(1), n.integer("batch_dim", 0), n.integer("seq_dim", 0))


@tf_op("InvertPermutation")
def invert_permutation(b: Builder, n: OpNode) -> Result:
    """Where each number stands in a known permutation."""
    order = n.constant(0, "it is a permutation")
    if sorted(order.tolist()) != list(range(order.size)):
        raise ValueError(f"{order.tolist()} is no permutation")
    return b.constant(np.argsort(order).astype(order.dtype))


@tf_op("NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5")
def non_max_suppression(b: Builder, n: OpNode) -> Result:
    """Boxes (y, x, y, x) in order of score without those that overlap a chosen one too much."""
    boxes, scores = n.input(0), n.input(1)
    padded = n.op[-2:] in ("V4", "V5") and n.flag("pad_to_max_output_size")
    if padded or (n.op.endswith("V5") and float(n.constant(5, "it decays scores").reshape(-1)[0]) != 0):
        n.refuse("it pads its result, or decays scores", "use NonMaxSuppressionV3")
    count: Dim = boxes.type.shape[0]
    limit = n.constant(2, "it bounds the result")
    iou = n.input(3) if len(n.inputs) > 3 else b.scalar(n.real("iou_threshold", 0.5), DType.f32)
    least = n.input(4) if len(n.inputs) > 4 else None
    limits = [b.constant(limit.astype(np.int64).reshape(1)), as_type(b, iou, DType.f32), least]
    rows = chosen_boxes(
        b,
        n.node.name,
        b.add(Reshape((1, count, 4)), boxes),
        b.add(Reshape((1, 1, count)), scores),
        limits,
        centers=False,
    )
    found = b.add(Reshape((rows.type.shape[0],)), b.add(Slice((2,), (3,), (1,), (1,)), rows))
    chosen = as_type(b, found, DType.i32)
    if n.op.endswith("V5"):
        return [chosen, b.add(Gather(0), scores, found)]
    return chosen


OPS: list[TfOp] = [
    *gather,
    *gather_nd,
    *scatter_nd,
    *tensor_scatter,
    *one_hot_,
    *top_k,
    *where,
    *reverse_sequence,
    *invert_permutation,
    *non_max_suppression,
]
