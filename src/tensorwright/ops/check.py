# SPDX-License-Identifier: Apache-2.0
"""What the op files share: reading operands, checking types, broadcasting, and float width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from tensorwright.ir.assumed import assume_equal, broadcast_dims
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType

T = TypeVar("T")


def required(op: Op, inputs: Sequence[T | None], count: int, optional: int = 0) -> tuple[T, ...]:
    """The first `count` inputs. Raises ValueError when one is absent or there are more than count + optional."""
    if not count <= len(inputs) <= count + optional:
        span = f"{count} to {count + optional}" if optional else str(count)
        raise ValueError(f"{op.kind} takes {span} inputs, not {len(inputs)}")
    present = tuple(x for x in inputs[:count] if x is not None)
    if len(present) != count:
        raise ValueError(f"{op.kind} needs its first {count} inputs, one is absent")
    return present


def optional(inputs: Sequence[T | None], index: int) -> T | None:
    """Input `index`, or None when it is absent or not listed."""
    return inputs[index] if index < len(inputs) else None


def same_dtype(op: Op, types: Sequence[TensorType | None]) -> DType:
    """The dtype that all present types share. Raises ValueError when they differ."""
    found = {t.dtype for t in types if t is not None}
    if len(found) != 1:
        raise ValueError(f"{op.kind} needs inputs of one element type, not {' and '.join(sorted(map(str, found)))}")
    return found.pop()


def float_dtype(op: Op, types: Sequence[TensorType | None]) -> DType:
    """The one float dtype of all present types. Raises ValueError otherwise."""
    dtype = same_dtype(op, types)
    if not dtype.is_float:
        raise ValueError(f"{op.kind} needs a float type, not {dtype}")
    return dtype


def check_axis(op: Op, axis: int, rank: int) -> None:
    """Raise ValueError unless 0 <= axis < rank."""
    if not 0 <= axis < rank:
        raise ValueError(f"{op.kind} axis {axis} is out of range for rank {rank}")


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dims may be equal; what only a run can tell is assumed (`ir.dims.assuming`)."""
    return assume_equal(a, b)


def merge_dim(a: Dim, b: Dim) -> Dim:
    """The better known of two dims that must be equal (`same_dim` checks it)."""
    return a if isinstance(a, int) else b


def broadcast_shapes(op: Op, *shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The NumPy broadcast of shapes. Raises ValueError naming the shapes that do not fit."""
    rank = max(map(len, shapes))
    result: list[Dim] = [1] * rank
    try:
        for shape in shapes:
            for i, dim in enumerate(shape, rank - len(shape)):
                result[i] = broadcast_dims(result[i], dim)
    except ValueError as error:
        listed = " and ".join(f"[{','.join(map(str, s))}]" for s in shapes)
        raise ValueError(f"{op.kind} cannot broadcast {listed}: {error}") from None
    return tuple(result)


def widen(x: Array) -> Array:
    """Half-width floats as f32, in which their ops compute; anything else unchanged."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 and DType.of(x.dtype).is_float else x


def accumulator(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The dtype for long sums of `dtype`: f64 for floats, itself for integers."""
    return np.dtype(np.float64) if DType.of(dtype).is_float else dtype
