# SPDX-License-Identifier: Apache-2.0
"""Questions that several rules ask about a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import Array, Op
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Pointwise
from tensorwright.ops.norm import BatchNorm, InstanceNorm, Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Concat, Pad, Reshape, Resize, Slice, Tile

_IMAGE_OPS = (Convolution, Deconvolution, MaxPool, AveragePool, BatchNorm, InstanceNorm, Lrn)
_KEEP_LAYOUT = (Pointwise, Concat, Pad, Slice, Tile, Resize, Reduce, Softmax, LogSoftmax)
_FARTHEST = 64  # values looked at on the way back


def made_by(graph: Graph, value: Value | None, of: type[Op] | tuple[type[Op], ...]) -> Node | None:
    """The node that makes `value` when its op is an instance of `of`."""
    node = graph.producer(value)
    return node if node is not None and isinstance(node.op, of) else None


def operands(node: Node) -> tuple[Value, ...]:
    """The inputs of a node whose op has no optional inputs."""
    return tuple(v for v in node.inputs if v is not None)


def commuted(node: Node) -> Iterator[tuple[Value, Value]]:
    """The two operands of a binary node in both orders."""
    a, b = operands(node)
    yield a, b
    yield b, a


def with_constant(graph: Graph, node: Node) -> tuple[Value, Value] | None:
    """(other operand, constant operand) of a commutative binary node with exactly one constant operand."""
    for x, c in commuted(node):
        if c in graph.constants and x not in graph.constants:
            return x, c
    return None


def scalar(graph: Graph, value: Value | None) -> float | None:
    """The number in a constant of one element, else None."""
    array = graph.constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def uniform(graph: Graph, value: Value | None) -> float | None:
    """The number that every element of a constant equals, else None."""
    array = graph.constant(value)
    if array is None or array.size == 0:
        return None
    first = array.reshape(-1)[0]
    return float(first) if array.size == 1 or bool((array == first).all()) else None


def is_close(number: float | None, expected: float) -> bool:
    """Whether a constant from a model is `expected` up to the rounding of single precision."""
    return number is not None and abs(number - expected) <= 1e-5 * abs(expected)


def read_only_inside(graph: Graph, inside: Iterable[Node], results: Iterable[Value]) -> bool:
    """Whether everything the nodes make, except `results`, is read by these nodes only and is no graph output."""
    members, kept = set(inside), set(results)
    for node in members:
        for value in node.outputs:
            if value in kept:
                continue
            if graph.is_output(value) or any(user not in members for user in graph.users(value)):
                return False
    return True


def along_axis(array: Array, rank: int, axis: int, size: int) -> Array | None:
    """A constant that broadcasts against a rank-`rank` tensor, as a vector of `size` over `axis`.

    None when it varies along any other axis.
    """
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(dim != 1 for i, dim in enumerate(shape) if i != axis) or shape[axis] not in (1, size):
        return None
    return np.broadcast_to(array.reshape(-1), (size,))


def per_channel(vector: Array, rank: int) -> Array:
    """A vector over channels in the shape that broadcasts against [n, channels, ...] of rank `rank`."""
    return vector.reshape(-1, *(1,) * (rank - 2))


def is_image(graph: Graph, value: Value) -> bool:
    """Whether `value` comes from a convolution or its like through nothing but ops that keep its layout: it is
    [n, channels, ...] and will lie channels-last in memory."""
    work, seen = [value], {value}
    while work and len(seen) < _FARTHEST:
        node = graph.producer(work.pop())
        if node is not None and isinstance(node.op, _IMAGE_OPS):
            return True
        before = [v for v in _images_before(node) if v not in seen] if node is not None else []
        seen.update(before)
        work += before
    return False


def keeps_image(shape: Sequence[Dim], target: Sequence[Dim]) -> bool:
    """Whether a reshape of [n, channels, ...] to `target` changes nothing but spatial dims of 1."""
    wide, narrow = ([d for d in dims[2:] if d != 1] for dims in (shape, target))
    return len(target) >= 3 and tuple(shape[:2]) == tuple(target[:2]) and wide == narrow


def _images_before(node: Node) -> list[Value]:
    """The operands that are images where the result is one."""
    if isinstance(node.op, Reshape):
        return [v for v in operands(node) if keeps_image(v.type.shape, node.output.type.shape)]
    if isinstance(node.op, _KEEP_LAYOUT):
        return [v for v in operands(node) if v.type.rank == node.outputs[0].type.rank]
    return []
