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
from tensorwright.ops.reduce import Reduce


def sample_inputs(w: Workload, constants: Mapping[int, Array], seed: int = 0) -> list[Array | None]:
    """One logical array per input: the given constants, else seeded random values that the op can use.

    Activations are standard normal. Weights are scaled so that sums keep that size; vectors and scalars of weights
    (scales, variances, slopes) lie in [0.5, 1.5), as do the operands of reductions: a sum of many random signs cancels
    to nearly nothing, which no two orders of summation would agree on. Integers are 1..3, or valid indices.
    """
    rng = np.random.default_rng(seed)
    return [
        None if o is None else constants[i] if i in constants else _random(w, i, o, rng) for i, o in enumerate(w.inputs)
    ]


def _random(w: Workload, index: int, operand: Operand, rng: np.random.Generator) -> Array:
    if operand.dtype is DType.bool:
        return rng.integers(0, 2, operand.shape).astype(bool)
    if operand.dtype.is_integer:
        low, high = _INTEGERS.get(type(_anchor(w.op)), _small)(w, index)
        return rng.integers(low, high, operand.shape).astype(operand.dtype.numpy)
    if isinstance(_anchor(w.op), Reduce) or (operand.constant and len(operand.shape) < 2):
        return (rng.random(operand.shape) + 0.5).astype(operand.dtype.numpy)
    values = rng.standard_normal(operand.shape, dtype=np.float32)
    if operand.constant:
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
    """Gather's indices count from either end."""
    gather, data = _anchor(w.op), w.inputs[0]
    if index != 1 or data is None or not isinstance(gather, Gather):
        return _small(w, index)
    size = data.shape[gather.axis]
    return -size, max(size, 1)


_INTEGERS: dict[type[Op], Callable[[Workload, int], tuple[int, int]]] = {Gather: _indices}
