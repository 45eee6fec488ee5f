# SPDX-License-Identifier: Apache-2.0
"""Elements found by their index: one-hot vectors, and sequences turned round."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError, limit_constant
from tensorwright.network.composed.convert import as_type
from tensorwright.ops.elementwise import Add, Equal, Less, Sub, Where
from tensorwright.ops.index import Gather
from tensorwright.ops.select import GatherNd
from tensorwright.ops.shape import Reshape, Transpose


def one_hot(b: NetworkBuilder, indices: Value, values: Value, depth: int, axis: int) -> Value:
    """`depth` elements along a new `axis`: values[1] at the index, values[0] elsewhere. Negative indices count from the
    end; others that are out of range give values[0] only."""
    limit_constant(depth)
    rank = indices.type.rank
    indices = as_type(b, indices, DType.i64)
    columns = b.constant(np.arange(depth).reshape([depth if i == axis else 1 for i in range(rank + 1)]))
    shape = (*indices.type.shape[:axis], 1, *indices.type.shape[axis:])
    wrapped = b.add(Add(), indices, b.scalar(depth, DType.i64))
    positive = b.add(Where(), b.add(Less(), indices, b.scalar(0, DType.i64)), wrapped, indices)
    hot = b.add(Equal(), b.add(Reshape(shape), positive), columns)
    off, on = (b.add(Gather(0), values, b.scalar(i, DType.i64)) for i in (0, 1))
    return b.add(Where(), hot, on, off)


def reversed_sequences(b: NetworkBuilder, x: Value, lengths: Value, batch: int, time: int) -> Value:
    """Of each batch entry the first `lengths` steps backwards, the others as they are; the axes are the first two."""
    if {batch, time} != {0, 1} or x.type.rank < 2:
        raise ValueError(f"batch axis {batch} and time axis {time} are not the first two of {x.type}")
    entries, steps = x.type.shape[batch], x.type.shape[time]
    if not isinstance(entries, int) or not isinstance(steps, int):
        raise RefusalError(
            f"it needs known batch and time dims, not {x.type}", "give every input a fixed shape with shapes="
        )
    perm = (1, 0, *range(2, x.type.rank))
    by_entry = x if batch == 0 else b.add(Transpose(perm), x)
    step = b.constant(np.arange(steps)[None, :])
    length = b.add(Reshape((entries, 1)), as_type(b, lengths, DType.i64))
    mirrored = b.add(Sub(), b.add(Sub(), length, b.scalar(1, DType.i64)), step)
    source = b.add(Where(), b.add(Less(), step, length), mirrored, step)
    y = b.add(GatherNd(1), by_entry, b.add(Reshape((entries, steps, 1)), source))
    return y if batch == 0 else b.add(Transpose(perm), y)
