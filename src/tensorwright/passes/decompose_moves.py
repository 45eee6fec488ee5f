# SPDX-License-Identifier: Apache-2.0
"""Writes paddings and repetitions as concatenations, expansions and gathers: views and copies after lowering."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Concat, Expand, Pad, Reshape, Slice, Tile
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import operands


@rule(on=Pad, name="pad_into_concat")
def pad_into_concat(graph: Graph, node: Node) -> Edit | None:
    """A pad is a crop (negative pads), then along each padded axis a concatenation of constants or a gather."""
    (x,) = operands(node)
    if not isinstance(node.op, Pad):
        return None
    mode, rank = node.op.mode, x.type.rank
    begins, ends = node.op.pads[:rank], node.op.pads[rank:]
    # a table of what is gathered, and a crop that must leave something, need numbers
    counted = (axis for axis in range(rank) if min(begins[axis], ends[axis]) < 0 or mode != "constant")
    if any(begins[axis] or ends[axis] for axis in counted if not isinstance(x.type.shape[axis], int)):
        return None
    new = Rewrite(graph, node)
    value = _cropped(new, x, begins, ends)
    axes = [axis for axis in range(rank) if max(begins[axis], ends[axis]) > 0]
    for axis in axes:
        before, after = max(begins[axis], 0), max(ends[axis], 0)
        size = value.type.shape[axis]
        if mode == "constant":
            fill = new.constant(np.asarray(node.op.value).astype(x.type.dtype.numpy), f"{node.name}/fill")
            parts = [_block(new, fill, value, axis, before), value, _block(new, fill, value, axis, after)]
            value = new.add(Concat(axis), *(part for part in parts if part is not None))
        else:
            assert isinstance(size, int)
            indices = np.pad(np.arange(size), (before, after), mode)
            value = new.add(Gather(axis), value, new.constant(indices.astype(np.int64), f"{node.name}/indices"))
    if value is x:
        return None
    new.finish(Reshape(node.output.type.shape), value)
    because = "a pad puts constants beside its input" if mode == "constant" else "a pad gathers elements of its input"
    return new.edit(node, because=because)


def _cropped(new: Rewrite, x: Value, begins: tuple[int, ...], ends: tuple[int, ...]) -> Value:
    axes = tuple(axis for axis in range(x.type.rank) if min(begins[axis], ends[axis]) < 0)
    if not axes:
        return x
    shape = x.type.shape
    starts, stops = (max(-begins[a], 0) for a in axes), (shape[a] - max(-ends[a], 0) for a in axes)
    return new.add(Slice(tuple(starts), tuple(stops), axes, (1,) * len(axes)), x)


def _block(new: Rewrite, fill: Value, beside: Value, axis: int, size: int) -> Value | None:
    """`fill` as a block of `size` along `axis` that fits beside a value."""
    if not size:
        return None
    shape = beside.type.shape
    return new.add(Expand((*shape[:axis], size, *shape[axis + 1 :])), fill)


@rule(on=Tile, name="tile_into_expand")
def tile_into_expand(graph: Graph, node: Node) -> Edit | None:
    """[a, b] repeated (r, s) times is [1, a, 1, b] expanded to [r, a, s, b], then seen as [r*a, s*b]."""
    (x,) = operands(node)
    if not isinstance(node.op, Tile):
        return None
    new = Rewrite(graph, node)
    shape = x.type.shape
    apart = new.add(Reshape(tuple(d for dim in shape for d in (1, dim))), x)
    wide = new.add(Expand(tuple(d for pair in zip(node.op.repeats, shape, strict=True) for d in pair)), apart)
    new.finish(Reshape(node.output.type.shape), wide)
    return new.edit(node, because="a repetition is an expansion along an axis of its own")


RULES = (pad_into_concat, tile_into_expand)
