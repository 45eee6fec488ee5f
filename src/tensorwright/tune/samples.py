# SPDX-License-Identifier: Apache-2.0
"""Inputs on which candidates are timed and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from tensorwright.backends.base import Operand, Workload
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.linear_attention import DECAY, KEY, RATE, LinearAttention
from tensorwright.ops.recurrent import R, Recurrent, W
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.sample import MaxRoiPool, RoiAlign
from tensorwright.ops.select import GatherElements, GatherNd, ScatterElements, ScatterNd


def sample_inputs(w: Workload, constants: Mapping[int, Array], seed: int = 0) -> list[Array | None]:
    """One logical array per input: the given constants, else seeded random values that the op can use.

    Activations are standard normal. Weights are scaled so that sums keep that size; vectors and scalars of weights
    (scales, variances, slopes) lie in [0.5, 1.5), as do the operands of reductions: a sum of many random signs cancels
    to nearly nothing, which no two orders of summation would agree on. Integers are 1..3, or valid indices.
    """
    rng = np.random.default_rng(seed)
    return [
        None if o is None else constants[i] if i in constants else _expanded(o, _random(w, i, o, rng))
        for i, o in enumerate(w.inputs)
    ]


def _expanded(operand: Operand, values: Array) -> Array:
    """The values, equal along axes of stride 0: the elements there share their memory."""
    if 0 not in operand.strides:
        return values
    kept = tuple(slice(0, 1) if s == 0 else slice(None) for s in operand.strides)
    return np.broadcast_to(values[kept], operand.shape)


def _random(w: Workload, index: int, operand: Operand, rng: np.random.Generator) -> Array:
    if operand.dtype is DType.bool:
        return rng.integers(0, 2, operand.shape).astype(bool)
    if operand.dtype.is_integer:
        low, high = _INTEGERS.get(type(_anchor(w.op)), _small)(w, index)
        return rng.integers(low, high, operand.shape).astype(operand.dtype.numpy)
    if isinstance(_anchor(w.op), Reduce) or (operand.constant and len(operand.shape) < 2):
        return (rng.random(operand.shape) + 0.5).astype(operand.dtype.numpy)
    if isinstance(_anchor(w.op), LinearAttention) and index in (DECAY, RATE):
        return rng.random(operand.shape).astype(operand.dtype.numpy)
    values = rng.standard_normal(operand.shape, dtype=np.float32)
    if isinstance(_anchor(w.op), LinearAttention) and index == KEY:
        values *= 1 / math.sqrt(max(operand.shape[-1], 1))  # with larger ones the state grows without bound
    if isinstance(_anchor(w.op), Recurrent) and index in (W, R):
        values *= 1 / math.sqrt(max(operand.shape[-1], 1))  # larger ones make layers that amplify every rounding
    elif operand.constant:
        terms = operand.shape[-2] if isinstance(_anchor(w.op), MatMul) else math.prod(operand.shape[1:])
        values *= 1 / math.sqrt(max(terms, 1))
    return values.astype(operand.dtype.numpy, copy=False)


def _anchor(op: Op) -> Op:
    """The op that gives a region's inputs their meaning."""
    anchor = getattr(op, "anchor", None)
    return anchor if anchor is not None else op


def _small(w: Workload, index: int) -> tuple[int, int]:
    return 1, 4


def _indices(w: Workload, index: int) -> tuple[int, int]:
    """The indices of gathers and scatters count from either end of the axes that they point into."""
    op, data, indices = _anchor(w.op), w.inputs[0], w.inputs[1]
    if index != 1 or data is None or indices is None:
        return _small(w, index)
    if isinstance(op, Gather | GatherElements | ScatterElements):
        size = data.shape[op.axis]
    else:
        first = op.batch_dims if isinstance(op, GatherNd) else 0
        size = min(data.shape[first : first + indices.shape[-1]])
    return -size, max(size, 1)


def _images(w: Workload, index: int) -> tuple[int, int]:
    """The image number of every box."""
    x = w.inputs[0]
    return 0, max(x.shape[0], 1) if x is not None else 1


_INTEGERS: dict[type[Op], Callable[[Workload, int], tuple[int, int]]] = {
    Gather: _indices,
    GatherElements: _indices,
    GatherNd: _indices,
    ScatterElements: _indices,
    ScatterNd: _indices,
    RoiAlign: _images,
    MaxRoiPool: _images,
}
