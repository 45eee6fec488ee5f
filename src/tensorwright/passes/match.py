# SPDX-License-Identifier: Apache-2.0
"""Questions that several rules ask about a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import Array, Op


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
