# SPDX-License-Identifier: Apache-2.0
"""Normalisations that have no op of their own."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dims import product
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.elementwise import Add, Div, Mul, Sqrt
from tensorwright.ops.norm import InstanceNorm
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape


def by_root_mean_square(b: NetworkBuilder, x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    """x / sqrt(mean(x^2) + epsilon) over the axes."""
    square = b.add(Reduce("mean", axes, True), b.add(Mul(), x, x))
    return b.add(Div(), x, b.add(Sqrt(), b.add(Add(), square, b.scalar(epsilon, x.type.dtype))))


def by_group(b: NetworkBuilder, x: Value, groups: int, epsilon: float) -> Value:
    """x[N,C,...] with each group of channels normalised as one channel of an instance norm."""
    channels = x.type.shape[1] if x.type.rank > 2 else 0
    if groups < 1 or channels == 0 or (isinstance(channels, int) and channels % groups):
        raise ValueError(f"{groups} groups do not fit an input of type {x.type}")
    grouped = b.add(Reshape((x.type.shape[0], groups, product(x.type.shape[1:]) // groups)), x)
    one, zero = (b.constant(np.full(groups, v, x.type.dtype.numpy)) for v in (1, 0))
    return b.add(Reshape(x.type.shape), b.add(InstanceNorm(epsilon), grouped, one, zero))
