# SPDX-License-Identifier: Apache-2.0
"""To and from quantised tensors, with scales and zero points per tensor, axis or block."""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError, normal_axis
from tensorwright.ops.index import Gather
from tensorwright.ops.quantise import Dequantise, Quantise
from tensorwright.ops.shape import Reshape


def by_granularity(
    b: NetworkBuilder,
    op: Quantise | Dequantise,
    x: Value,
    scale: Value,
    zero_point: Value | None,
    axis: int,
    block: int,
) -> Value:
    """The op on x. Scale and zero point are scalars or vectors along `axis`. With a `block` other than 0 they are as
    large as x but for `axis`, along which each is that of so many elements."""
    if zero_point is not None and math.prod(zero_point.type.shape) != math.prod(scale.type.shape):
        raise ValueError(f"a scale of {scale.type} and a zero point of {zero_point.type} do not fit")
    parameters = [scale] if zero_point is None else [scale, zero_point]
    if not block:
        return pointwise(b, op, x, *(along(b, p, x.type.rank, axis) for p in parameters))
    axis = normal_axis(axis, x.type.rank)
    size, blocks = x.type.shape[axis], scale.type.shape[axis] if scale.type.rank == x.type.rank else None
    if not isinstance(size, int) or not isinstance(blocks, int):
        raise RefusalError(
            f"its blocks divide a size that is not known: {x.type} by {scale.type}",
            "give every input a fixed shape with shapes=",
        )
    if block < 1 or blocks != -(-size // block):
        raise ValueError(f"{blocks} blocks of {block} do not make up {size} elements")
    if size % block:
        places = b.constant(np.arange(size) // block)
        return pointwise(b, op, x, *(b.add(Gather(axis), p, places) for p in parameters))
    before, after = x.type.shape[:axis], x.type.shape[axis + 1 :]
    y = pointwise(
        b,
        op,
        b.add(Reshape((*before, blocks, block, *after)), x),
        *(b.add(Reshape((*p.type.shape[:axis], blocks, 1, *p.type.shape[axis + 1 :])), p) for p in parameters),
    )
    return b.add(Reshape(x.type.shape), y)


def pointwise(
    b: NetworkBuilder, op: Quantise | Dequantise, x: Value, scale: Value, zero_point: Value | None = None
) -> Value:
    """The op; a zero point known to be 0 is left out."""
    if zero_point is None or is_zero(b, zero_point):
        return b.add(op, x, scale)
    return b.add(op, x, scale, zero_point)


def scalar(b: NetworkBuilder, parameter: Value) -> Value:
    """A parameter of one element with rank 0. Raises ValueError."""
    if math.prod(parameter.type.shape) != 1:
        raise ValueError(f"{parameter.name!r} must have one element, it is {parameter.type}")
    return b.add(Reshape(()), parameter) if parameter.type.rank else parameter


def along(b: NetworkBuilder, parameter: Value, rank: int, axis: int) -> Value:
    """A scalar, or one number per position on `axis` in the form that broadcasts to `rank`. Raises ValueError."""
    if math.prod(parameter.type.shape) == 1:
        return scalar(b, parameter)
    if parameter.type.rank != 1:
        raise ValueError(f"{parameter.name!r} must be a scalar or a vector, it is {parameter.type}")
    after = rank - 1 - normal_axis(axis, rank)
    return b.add(Reshape((*parameter.type.shape, *(1,) * after)), parameter) if after else parameter


def is_zero(b: NetworkBuilder, zero_point: Value) -> bool:
    """Whether a zero point is known to be 0."""
    known = b.known(zero_point)
    return known is not None and not known.astype(np.float32).any()
