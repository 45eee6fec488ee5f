# SPDX-License-Identifier: Apache-2.0
"""Channels-last networks (TensorFlow's NHWC) lose the transpositions around their convolutions.

An importer puts one before and one after each image op. Here those after an image op move towards the outputs, through
everything that does not care in which order dims stand, until they meet the one before the next image op and both
go, or until something needs the order: the network's interface, a flatten, a matrix product. What lies between two
image ops then stands in their order, and fuses with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.op import Op
from tensorwright.ops.elementwise import Pointwise
from tensorwright.ops.index import ArgMax, ArgMin
from tensorwright.ops.quantise import Dequantise, Quantise
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Concat, Pad, Reshape, Resize, Slice, Tile, Transpose
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import is_image, keeps_image, made_by, operands

T = TypeVar("T")
Perm = tuple[int, ...]


def to_last(rank: int) -> Perm:
    """The transposition of [n, channels, ...] to [n, ..., channels]."""
    return (0, *range(2, rank), 1)


def from_last(rank: int) -> Perm:
    """Its inverse."""
    return (0, rank - 1, *range(1, rank - 1))


# -- the same op on dims in the other order -----------------------------------------------------------
def _spread(entries: tuple[T, ...], perm: Perm) -> tuple[T, ...]:
    """One entry per dim, in the order of the dims before the transposition."""
    return tuple(entries[perm.index(axis)] for axis in range(len(perm)))


def _axis(op: Any, perm: Perm) -> Op:
    moved: Op = dataclasses.replace(op, axis=perm[op.axis])
    return moved


def _axes(op: Any, perm: Perm) -> Op:
    moved: Op = dataclasses.replace(op, axes=tuple(perm[axis] for axis in op.axes))
    return moved


def _pad(op: Pad, perm: Perm) -> Op:
    rank = len(perm)
    return dataclasses.replace(op, pads=_spread(op.pads[:rank], perm) + _spread(op.pads[rank:], perm))


def _tile(op: Tile, perm: Perm) -> Op:
    return dataclasses.replace(op, repeats=_spread(op.repeats, perm))


def _resize(op: Resize, perm: Perm) -> Op:
    return dataclasses.replace(op, sizes=_spread(op.sizes, perm), scales=_spread(op.scales, perm))


_MOVED: Mapping[type[Op], Callable[[Any, Perm], Op]] = {
    Concat: _axis,
    Softmax: _axis,
    LogSoftmax: _axis,
    ArgMax: _axis,
    ArgMin: _axis,
    Slice: _axes,
    Reduce: _axes,
    Pad: _pad,
    Tile: _tile,
    Resize: _resize,
}
"""By op class: the op that does on x what the given one does on Transpose(perm)(x)."""

_WITH_AXIS = (Quantise, Dequantise)  # pointwise, but with parameters along an axis


# -- rules ------------------------------------------------------------------------------------------
@rule(on=(Pointwise, *_MOVED), name="transpose_to_channels_last_after")
def transpose_to_channels_last_after(graph: Graph, node: Node) -> Edit | None:
    """An op on images that were transposed to channels-last works on them as they were; its result is transposed.

    Other operands follow where that is free: constants, vectors of channels, numbers. One that is not free is
    transposed, where all readers of the result would undo the transposition.
    """
    rank = max((v.type.rank for v in operands(node)), default=0)
    if rank < 3 or isinstance(node.op, _WITH_AXIS) or None in node.inputs:
        return None
    images = [_image(graph, v, rank) for v in operands(node)]
    if not any(images):
        return None
    new, inputs, others = Rewrite(graph, node), list[Value](), 0
    for value, image in zip(operands(node), images, strict=True):
        other = image or _follows(graph, new, value, rank)
        others += other is None
        inputs.append(other or new.add(Transpose(from_last(rank)), value, origin=node.origin))
    if others > 1 or (others == 1 and not _is_undone(graph, node)):
        return None
    perm = to_last(rank)
    move = next((move for kind, move in _MOVED.items() if isinstance(node.op, kind)), None)
    op = node.op if move is None else move(node.op, perm)
    order = _order_after(node.op, perm)
    if order == tuple(range(len(order))):
        new.finish(op, *inputs)
    else:
        inner = new.add(op, *inputs, heir_of=node)
        new.finish(Transpose(order), inner, name=graph.fresh_name(f"{node.name}/channels_last"))
    return new.edit(node, because="the order of the dims does not matter to it")


@rule(on=Reshape, name="transpose_to_channels_last_after_reshape")
def transpose_to_channels_last_after_reshape(graph: Graph, node: Node) -> Edit | None:
    """A reshape that only drops or adds spatial dims of 1, as around a one-dimensional convolution."""
    (value,) = operands(node)
    image, shape = _image(graph, value, value.type.rank), node.output.type.shape
    if image is None or len(shape) < 3:
        return None
    first = (shape[0], shape[-1], *shape[1:-1])
    if not keeps_image(image.type.shape, first):
        return None
    new = Rewrite(graph, node)
    inner = new.add(Reshape(first), image, heir_of=node)
    new.finish(Transpose(to_last(len(shape))), inner, name=graph.fresh_name(f"{node.name}/channels_last"))
    return new.edit(node, because="it only changes spatial dims of 1")


@rule(on=Transpose, name="transpose_from_channels_last_before_pad")
def transpose_from_channels_last_before_pad(graph: Graph, node: Node) -> Edit | None:
    """A pad of a channels-last input before an image op pads after the transposition, where a convolution takes it."""
    (value,) = operands(node)
    pad, rank = made_by(graph, value, Pad), value.type.rank
    if pad is None or not isinstance(pad.op, Pad) or not isinstance(node.op, Transpose):
        return None
    source = operands(pad)[0]
    if rank < 3 or node.op.perm != from_last(rank) or graph.only_user(value) is None:
        return None
    if _image(graph, source, rank) or is_image(graph, source):  # the rule above would move the pad back
        return None
    new = Rewrite(graph, node)
    inner = new.add(Transpose(node.op.perm), source, heir_of=node, origin=node.origin)
    new.finish(_pad(pad.op, to_last(rank)), inner, name=pad.name, origin=pad.origin)
    return new.edit(pad, node, because="an image op pads its own input")


@rule(on=Transpose, name="transpose_of_ones_into_reshape")
def transpose_of_ones_into_reshape(graph: Graph, node: Node) -> Edit | None:
    """A change between channels-first and channels-last that only moves dims of 1."""
    (x,) = operands(node)
    if not isinstance(node.op, Transpose) or node.op.perm not in (to_last(x.type.rank), from_last(x.type.rank)):
        return None
    if x.type.rank < 3 or not _moves_nothing(x.type.shape, node.op.perm):
        return None
    new = Rewrite(graph, node)
    new.finish(Reshape(node.output.type.shape), x)
    return new.edit(node, because="it only moves dims of 1")


# -- parts ------------------------------------------------------------------------------------------
def _image(graph: Graph, value: Value, rank: int) -> Value | None:
    """The image in channels-first order of which `value` is the transposition to channels-last."""
    node = made_by(graph, value, Transpose)
    if node is None or value.type.rank != rank or rank < 3:
        return None
    source = operands(node)[0]
    moved = isinstance(node.op, Transpose) and node.op.perm == to_last(rank)
    return source if moved and is_image(graph, source) else None


def _follows(graph: Graph, new: Rewrite, value: Value, rank: int) -> Value | None:
    """What stands for an operand that broadcasts against a channels-last image, with the dims in the other order;
    None where elements would have to move."""
    shape = (1,) * (rank - value.type.rank) + value.type.shape
    if all(d == 1 for d in shape):
        return value
    array, perm = graph.constant(value), from_last(rank)
    if array is not None:
        moved = array.reshape(shape).transpose(perm)
        return new.constant(np.ascontiguousarray(moved), value.name)
    return new.add(Reshape(tuple(shape[p] for p in perm)), value) if _moves_nothing(shape, perm) else None


def _moves_nothing(shape: tuple[Dim, ...], perm: Perm) -> bool:
    """Whether the transposition of a value of this shape moves no dims but those of 1."""
    order = [p for p in perm if shape[p] != 1]
    return order == sorted(order)


def _is_undone(graph: Graph, node: Node) -> bool:
    """Whether all that reads the node's result transposes it to channels-first."""
    users = graph.users(node.output)
    undo = Transpose(from_last(node.output.type.rank)) if node.output.type.rank >= 3 else None
    return bool(users) and not graph.is_output(node.output) and all(user.op == undo for user in users)


def _order_after(op: Op, perm: Perm) -> Perm:
    """The transposition of the moved op's result that gives the result of `op`."""
    gone: tuple[int, ...] = ()
    if isinstance(op, Reduce) and not op.keepdims:
        gone = op.axes
    elif isinstance(op, ArgMax | ArgMin) and not op.keepdims:
        gone = (op.axis,)
    kept = [p for axis, p in enumerate(perm) if axis not in gone]
    return tuple(sorted(kept).index(p) for p in kept)


RULES = (
    transpose_to_channels_last_after,
    transpose_to_channels_last_after_reshape,
    transpose_from_channels_last_before_pad,
)
SETTLED_RULES = (transpose_of_ones_into_reshape,)
