# SPDX-License-Identifier: Apache-2.0
"""Moves of elements that do nothing, that undo each other, or that can be one."""

from __future__ import annotations

import dataclasses

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value, union_origins
from tensorwright.ops.activation import Clip, Relu, Sigmoid
from tensorwright.ops.conv import Convolution
from tensorwright.ops.index import Gather
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.shape import Concat, Expand, Pad, Reshape, Slice, Tile, Transpose
from tensorwright.passes.base import Rewrite, forward, rule
from tensorwright.passes.match import made_by, operands


@rule(on=(Reshape, Expand), name="same_shape_into_nothing")
def same_shape_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A reshape or expand to the shape that the value has."""
    (x,) = operands(node)
    return forward(node, x, f"it has that shape already: {x.type}") if x.type == node.output.type else None


@rule(on=Reshape, name="reshape_pair_into_one")
def reshape_pair_into_one(graph: Graph, node: Node) -> Edit | None:
    """A reshape of a reshape reads the first one's input."""
    inner = made_by(graph, operands(node)[0], Reshape)
    if inner is None:
        return None
    new = Rewrite(graph, node)
    new.finish(node.op, inner.inputs[0], origin=node.origin + inner.origin)
    return new.edit(node, because="a reshape of a reshape is one reshape")


@rule(on=Transpose, name="transpose_into_nothing")
def transpose_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A transposition that keeps every dim in its place."""
    if not isinstance(node.op, Transpose) or node.op.perm != tuple(range(len(node.op.perm))):
        return None
    return forward(node, operands(node)[0], "it keeps every dim in its place")


@rule(on=Transpose, name="transpose_pair_into_one")
def transpose_pair_into_one(graph: Graph, node: Node) -> Edit | None:
    """A transposition of a transposition reads the first one's input."""
    inner = made_by(graph, operands(node)[0], Transpose)
    if inner is None or not isinstance(inner.op, Transpose) or not isinstance(node.op, Transpose):
        return None
    perm = tuple(inner.op.perm[p] for p in node.op.perm)
    new = Rewrite(graph, node)
    new.finish(Transpose(perm), inner.inputs[0], origin=node.origin + inner.origin)
    return new.edit(node, because="two transpositions are one")


@rule(on=Slice, name="slice_into_nothing")
def slice_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A slice that takes everything, in order."""
    (x,), op = operands(node), node.op
    if not isinstance(op, Slice) or x.type != node.output.type or any(s < 0 for s in op.steps):
        return None
    return forward(node, x, "it takes everything")


@rule(on=Slice, name="slice_pair_into_one")
def slice_pair_into_one(graph: Graph, node: Node) -> Edit | None:
    """A slice of a slice, both forward and with known bounds, reads the first one's input."""
    inner = made_by(graph, operands(node)[0], Slice)
    first, second = (_ranges(inner) if inner else None), _ranges(node)
    if inner is None or first is None or second is None:
        return None
    merged = dict(first)
    for axis, outer in second.items():
        whole = first.get(axis, range(1 << 62))
        merged[axis] = whole[outer.start : outer.stop : outer.step]
    new = Rewrite(graph, node)
    new.finish(_slice(merged), inner.inputs[0], origin=node.origin + inner.origin)
    return new.edit(node, because="a slice of a slice is one slice")


@rule(on=Slice, name="slice_of_concat_into_part")
def slice_of_concat_into_part(graph: Graph, node: Node) -> Edit | None:
    """A slice along the axis of a concatenation that lies within one of its parts reads that part."""
    ranges, concat = _ranges(node), made_by(graph, operands(node)[0], Concat)
    if ranges is None or concat is None or not isinstance(concat.op, Concat) or concat.op.axis not in ranges:
        return None
    axis, wanted, begin = concat.op.axis, ranges[concat.op.axis], 0
    for part in operands(concat):
        size = part.type.shape[axis]
        if not isinstance(size, int):
            return None
        if begin <= wanted.start and wanted.stop <= begin + size and len(wanted) > 0:
            new = Rewrite(graph, node)
            moved = {**ranges, axis: range(wanted.start - begin, wanted.stop - begin, wanted.step)}
            new.finish(_slice(moved), part, origin=node.origin)
            return new.edit(node, because="it takes from one part of a concatenation only")
        begin += size
    return None


@rule(on=Concat, name="concat_of_one_into_nothing")
def concat_of_one_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A concatenation of one value; empty parts do not count."""
    axis = node.op.axis if isinstance(node.op, Concat) else 0
    parts = [v for v in operands(node) if v.type.shape[axis] != 0]
    if len(parts) == 1 and parts[0].type == node.output.type:
        return forward(node, parts[0], "it has one part only")
    return None


@rule(on=Concat, name="concat_pair_into_one")
def concat_pair_into_one(graph: Graph, node: Node) -> Edit | None:
    """A concatenation whose part is itself one along the same axis, read by nothing else."""
    for position, part in enumerate(operands(node)):
        inner = made_by(graph, part, Concat)
        if inner is None or inner.op != node.op or graph.only_user(part) is None or node.inputs.count(part) > 1:
            continue
        new = Rewrite(graph, node)
        new.finish(node.op, *node.inputs[:position], *inner.inputs, *node.inputs[position + 1 :])
        return new.edit(inner, node, because="a concatenation within a concatenation along the same axis")
    return None


@rule(on=Concat, name="adjacent_slices_into_one")
def adjacent_slices_into_one(graph: Graph, node: Node) -> Edit | None:
    """Neighbouring parts of a concatenation that are neighbouring slices of one value are one slice of it."""
    if not isinstance(node.op, Concat):
        return None
    axis, runs = node.op.axis, list[list[Value]]()
    for part in operands(node):
        if runs and _continues(graph, runs[-1][-1], part, axis):
            runs[-1].append(part)
        else:
            runs.append([part])
    if all(len(run) == 1 for run in runs):
        return None
    new = Rewrite(graph, node)
    parts = [run[0] if len(run) == 1 else _joined(graph, new, run, axis) for run in runs]
    new.finish(node.op, *parts, origin=node.origin)
    return new.edit(node, because="slices that lie side by side are put side by side again")


def _continues(graph: Graph, left: Value, right: Value, axis: int) -> bool:
    """Whether `right` is the slice along `axis` of the same value that begins where the slice `left` ends."""
    first, second = made_by(graph, left, Slice), made_by(graph, right, Slice)
    if first is None or second is None or first.inputs[0] is not second.inputs[0]:
        return False
    a, b = _ranges(first), _ranges(second)
    if a is None or b is None or a.keys() != {axis} or b.keys() != {axis}:
        return False
    return a[axis].step == b[axis].step == 1 and a[axis].stop == b[axis].start


def _joined(graph: Graph, new: Rewrite, run: list[Value], axis: int) -> Value:
    """One slice in place of slices that follow each other."""
    slices = [node for value in run if (node := made_by(graph, value, Slice)) is not None]
    ends = [ranges[axis] for node in (slices[0], slices[-1]) if (ranges := _ranges(node)) is not None]
    whole = _slice({axis: range(ends[0].start, ends[-1].stop)})
    return new.add(whole, slices[0].inputs[0], origin=union_origins(slices))


@rule(on=Pad, name="pad_into_nothing")
def pad_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A pad by nothing."""
    nothing = isinstance(node.op, Pad) and not any(node.op.pads)
    return forward(node, operands(node)[0], "it adds nothing") if nothing else None


@rule(on=(Convolution, MaxPool, AveragePool), name="zero_pad_into_window")
def zero_pad_into_window(graph: Graph, node: Node) -> Edit | None:
    """Zero padding of spatial dims before a convolution or pool becomes the op's own: before a maximum where nothing is
    negative, before an average that counts its padding, or has none."""
    pad = made_by(graph, node.inputs[0], Pad)
    if pad is None or not isinstance(pad.op, Pad) or not isinstance(node.op, Convolution | MaxPool | AveragePool):
        return None
    rank = len(pad.op.pads) // 2
    begins, ends = pad.op.pads[:rank], pad.op.pads[rank:]
    outside_space = any(begins[:2]) or any(ends[:2])
    if pad.op.mode != "constant" or pad.op.value != 0 or outside_space or min(pad.op.pads) < 0:
        return None
    pads = tuple(a + b for a, b in zip(node.op.pads, (*begins[2:], *ends[2:]), strict=True))
    op = dataclasses.replace(node.op, pads=pads)
    if isinstance(op, MaxPool | AveragePool):
        whole = all(p < k for p, k in zip(pads, op.kernel * 2, strict=True)) and not op.ceil_mode
        if not whole or (isinstance(op, MaxPool) and not _is_not_negative(graph, pad.inputs[0])):
            return None
        if isinstance(op, AveragePool):
            if any(node.op.pads) and not op.count_include_pad:
                return None
            op = dataclasses.replace(op, count_include_pad=True)
    new = Rewrite(graph, node)
    new.finish(op, pad.inputs[0], *node.inputs[1:], origin=node.origin + pad.origin)
    return new.edit(node, because="the op pads with zeros itself, or never takes its padding")


def _is_not_negative(graph: Graph, value: Value | None, depth: int = 4) -> bool:
    """Whether activations made the value that have no negative results; ops that only choose elements do not matter."""
    maker = graph.producer(value)
    if maker is None or depth == 0:
        return False
    if isinstance(maker.op, Clip):
        return maker.op.low is not None and maker.op.low >= 0
    if isinstance(maker.op, Relu | Sigmoid):
        return True
    if not isinstance(maker.op, Concat | MaxPool | AveragePool | Slice | Transpose):
        return False
    return all(_is_not_negative(graph, v, depth - 1) for v in maker.inputs)


@rule(on=Tile, name="tile_into_nothing")
def tile_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """A repetition of once."""
    once = isinstance(node.op, Tile) and all(r == 1 for r in node.op.repeats)
    return forward(node, operands(node)[0], "it repeats once") if once else None


@rule(on=Gather, name="gather_of_run_into_slice")
def gather_of_run_into_slice(graph: Graph, node: Node) -> Edit | None:
    """A gather at one constant index, or at consecutive ones, is a slice: a view instead of a copy."""
    data, indices = operands(node)
    array, op = graph.constant(indices), node.op
    size = data.type.shape[op.axis] if isinstance(op, Gather) else None
    if array is None or not isinstance(op, Gather) or not isinstance(size, int):
        return None
    if not 0 < array.size <= size or array.ndim > 1:
        return None
    run = np.where(array < 0, array + size, array).reshape(-1)
    first = int(run[0])
    if first < 0 or first + len(run) > size or not np.array_equal(run, np.arange(first, first + len(run))):
        return None
    new = Rewrite(graph, node)
    part = Slice((first,), (first + len(run),), (op.axis,), (1,))
    if array.ndim == 1:
        new.finish(part, data)
    else:
        new.finish(Reshape(node.output.type.shape), new.add(part, data))
    return new.edit(node, because=f"the indices are the constant run {first}..{first + len(run) - 1}")


def _ranges(node: Node) -> dict[int, range] | None:
    """The ranges that a slice takes, by axis; None when one runs backwards or has symbolic bounds."""
    if not isinstance(node.op, Slice):
        return None
    ranges = {}
    for start, end, axis, step in zip(node.op.starts, node.op.ends, node.op.axes, node.op.steps, strict=True):
        if not isinstance(start, int) or not isinstance(end, int) or step <= 0:
            return None
        ranges[axis] = range(start, end, step)
    return ranges


def _slice(ranges: dict[int, range]) -> Slice:
    """The slice that takes these ranges; empty ones as start == end."""
    axes = tuple(sorted(ranges))
    picked = [ranges[axis] for axis in axes]
    return Slice(
        tuple(r.start for r in picked),
        tuple(r[-1] + 1 if len(r) else r.start for r in picked),
        axes,
        tuple(r.step for r in picked),
    )


RULES = (
    same_shape_into_nothing,
    reshape_pair_into_one,
    transpose_into_nothing,
    transpose_pair_into_one,
    slice_into_nothing,
    slice_pair_into_one,
    slice_of_concat_into_part,
    concat_of_one_into_nothing,
    concat_pair_into_one,
    adjacent_slices_into_one,
    pad_into_nothing,
    zero_pad_into_window,
    tile_into_nothing,
    gather_of_run_into_slice,
)
