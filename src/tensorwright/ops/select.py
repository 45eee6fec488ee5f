# SPDX-License-Identifier: Apache-2.0
"""Reading and writing single elements or blocks at indices that are data: ONNX's Gather and Scatter variants.

Indices are i32 or i64; negative ones count from the end. `reference` raises IndexError out of range.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import check_axis, required, same_dim, same_dtype

Reduction = Literal["none", "add", "mul", "max", "min"]


@op("gather_elements", compare=EXACT)
class GatherElements(Op):
    """y[i, j, ...] = data[i, j, ...], the coordinate of `axis` replaced by indices[i, j, ...]; y has their shape."""

    axis: int = 0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        data, indices = required(self, inputs, 2)
        _check_elements(self, self.axis, data, indices)
        return (data.with_shape(indices.shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        data, indices = required(self, inputs, 2)
        return (data[_places(indices, self.axis)],)


@op("gather_nd", compare=EXACT)
class GatherNd(Op):
    """y[b, m, ...] = data[b, indices[b, m, :], ...]: the last axis of `indices` holds coordinates into the axes of data
    after the first `batch_dims`, which data and indices share."""

    batch_dims: int = 0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        data, indices = required(self, inputs, 2)
        depth = _index_depth(self, indices, data.rank - self.batch_dims)
        shared = zip(data.shape[: self.batch_dims], indices.shape[:-1], strict=False)
        if not 0 <= self.batch_dims < indices.rank or not all(same_dim(a, b) for a, b in shared):
            raise ValueError(f"gather_nd cannot share {self.batch_dims} batch dims between {data} and {indices}")
        return (data.with_shape((*indices.shape[:-1], *data.shape[self.batch_dims + depth :])),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        data, indices = required(self, inputs, 2)
        batch = np.indices(indices.shape[:-1], sparse=True)[: self.batch_dims]
        return (np.asarray(data[(*batch, *np.moveaxis(indices, -1, 0))]),)


@op("scatter_elements")
class ScatterElements(Op):
    """A copy of data in which the element at each position of `indices`, the coordinate of `axis` replaced by the
    index, is combined with the update there. Several updates of one element apply in the order of their positions."""

    axis: int = 0
    reduction: Reduction = "none"

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        data, indices, updates = required(self, inputs, 3)
        _check_elements(self, self.axis, data, indices)
        _check_updates(self, self.reduction, data, updates, indices.shape)
        return (data,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        data, indices, updates = required(self, inputs, 3)
        return (_scattered(data, _places(indices, self.axis), updates, self.reduction),)


@op("scatter_nd")
class ScatterNd(Op):
    """A copy of data in which the blocks data[indices[m, :]] are combined with updates[m]. Several updates of one
    element apply in the order of m."""

    reduction: Reduction = "none"

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        data, indices, updates = required(self, inputs, 3)
        depth = _index_depth(self, indices, data.rank)
        _check_updates(self, self.reduction, data, updates, (*indices.shape[:-1], *data.shape[depth:]))
        return (data,)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        data, indices, updates = required(self, inputs, 3)
        return (_scattered(data, tuple(np.moveaxis(indices, -1, 0)), updates, self.reduction),)


def _check_elements(op: Op, axis: int, data: TensorType, indices: TensorType) -> None:
    _check_integers(op, indices)
    check_axis(op, axis, data.rank)
    pairs = zip(indices.shape, data.shape, strict=False)
    known = ((i, d) for a, (i, d) in enumerate(pairs) if a != axis and isinstance(i, int) and isinstance(d, int))
    if indices.rank != data.rank or any(i > d for i, d in known):
        raise ValueError(f"{op.kind} cannot use indices {indices} beside axis {axis} of {data}")


def _check_integers(op: Op, indices: TensorType) -> None:
    if indices.dtype not in (DType.i32, DType.i64):
        raise ValueError(f"{op.kind} needs i32 or i64 indices, not {indices.dtype}")


def _index_depth(op: Op, indices: TensorType, room: int) -> int:
    """How many coordinates the last axis of `indices` holds."""
    _check_integers(op, indices)
    depth = indices.shape[-1] if indices.rank else None
    if not isinstance(depth, int) or not 1 <= depth <= room:
        raise ValueError(f"{op.kind} needs 1 to {room} coordinates in the last axis of its indices, not {indices}")
    return depth


def _check_updates(op: Op, reduction: str, data: TensorType, updates: TensorType, shape: tuple[object, ...]) -> None:
    if data.dtype is DType.bool and reduction != "none":
        raise ValueError(f"{op.kind} cannot {reduction} booleans")
    same_dtype(op, (data, updates))
    fits = len(shape) == updates.rank and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(shape, updates.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{op.kind} needs updates of shape [{','.join(map(str, shape))}], not {updates}")


def _places(indices: Array, axis: int) -> tuple[Array, ...]:
    """The position of every element of `indices`, with the coordinate of `axis` replaced by the index."""
    grid: list[Array] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = indices
    return tuple(grid)


def _scattered(data: Array, places: tuple[Array, ...], updates: Array, reduction: Reduction) -> Array:
    y = data.copy()
    if reduction == "none":
        y[places] = updates
    else:
        how = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
        with np.errstate(all="ignore"):
            how.at(y, places, updates)
    return y
