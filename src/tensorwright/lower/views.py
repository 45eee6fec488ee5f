# SPDX-License-Identifier: Apache-2.0
"""Stride arithmetic of the ops that only re-index: when a value can be a view of another, and which one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import row_major
from tensorwright.ir.dims import Undecided, high, nonzero
from tensorwright.ir.op import Op
from tensorwright.ops.shape import Expand, Reshape, Slice, Transpose

Shape = tuple[int, ...]
VIEW_OPS = (Reshape, Transpose, Slice, Expand)


@dataclass(frozen=True, slots=True)
class Strided:
    """Where logical elements lie inside a buffer: first element and strides, in elements."""

    offset: int
    strides: tuple[int, ...]


def view(op: Op, shape: Shape, source: Strided, out_shape: Shape) -> Strided | None:
    """The output of a view op over `source` of logical `shape`; None when only a copy can do it.

    A Slice with a negative step gives a negative stride.
    """
    if isinstance(op, Reshape):
        split = reshape_strides(shape, source.strides, out_shape)
        return None if split is None else Strided(source.offset, split)
    if isinstance(op, Transpose):
        return Strided(source.offset, tuple(source.strides[axis] for axis in op.perm))
    if isinstance(op, Slice):
        strides, offset = list(source.strides), source.offset
        for start, axis, step in zip(op.starts, op.axes, op.steps, strict=True):
            offset += cast(int, start) * strides[axis]
            strides[axis] *= step
        return Strided(offset, tuple(strides))
    if isinstance(op, Expand):
        lead = len(out_shape) - len(shape)
        return Strided(
            source.offset, (0,) * lead + tuple(0 if d == 1 else s for d, s in zip(shape, source.strides, strict=True))
        )
    return None


def source_of(op: Op, shape: Shape, result: Strided, out_shape: Shape) -> Strided | None:
    """Where the input (of `shape`) must lie so that `view` gives `result`; None when there is no such place."""
    if isinstance(op, Reshape):
        joined = reshape_strides(out_shape, result.strides, shape)
        return None if joined is None else Strided(result.offset, joined)
    if isinstance(op, Transpose):
        strides = [0] * len(shape)
        for position, axis in enumerate(op.perm):
            strides[axis] = result.strides[position]
        return Strided(result.offset, tuple(strides))
    return None


def reshape_strides(shape: Shape, strides: Sequence[int], new_shape: Shape) -> tuple[int, ...] | None:
    """Strides of `new_shape` over the same elements in the same logical order, or None.

    Walks both shapes from the left in groups of equal element count; a group of old axes must be walkable
    as one axis (outer stride = inner size * inner stride), which the new axes then split. Symbolic sizes are compared
    where their order is known or one divides the other; where neither is, there is no view.
    """
    if 0 in shape:
        return (0,) * len(new_shape)
    dense_strides = row_major(shape)
    if all(d == 1 or s == t for d, s, t in zip(shape, strides, dense_strides, strict=True)):
        return tuple(0 if d == 1 else s for d, s in zip(new_shape, row_major(new_shape), strict=True))
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [d for d in new_shape if d != 1]
    out: list[int] = []
    i = j = 0
    while i < len(old) and j < len(new):
        have, want = old[i][0], new[j]
        i0, j0 = i, j
        while have != want:
            is_less = _is_factor(have, want)
            if is_less is None:
                return None
            if is_less:
                i += 1
                if i == len(old) or old[i - 1][1] != old[i][0] * old[i][1]:
                    return None
                have *= old[i][0]
            else:
                j += 1
                if j == len(new):
                    return None
                want *= new[j]
        step = old[i][1]
        group = []
        for dim in reversed(new[j0 : j + 1]):
            group.append(step)
            step *= dim
        if any(old[a][1] != old[a + 1][0] * old[a + 1][1] for a in range(i0, i)):
            return None
        out += reversed(group)
        i, j = i + 1, j + 1
    if i != len(old) or j != len(new):
        return None
    walk = iter(out)
    return tuple(0 if d == 1 else next(walk) for d in new_shape)


def _is_factor(a: int, b: int) -> bool | None:
    """Of two different sizes of groups of axes: whether `a` is the smaller; None when that is open."""
    try:
        return a < b
    except Undecided:
        pass
    if (b // a) * a == b:
        return True
    return False if (a // b) * b == a else None


def dense(shape: Shape, order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense buffer whose axes lie in `order`, slowest first; unit axes get 0."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step if shape[axis] != 1 else 0
        step *= nonzero(shape[axis])
    return tuple(strides)


def order_of(shape: Shape, strides: Sequence[int]) -> tuple[int, ...]:
    """Axes from slowest to fastest; broadcast and unit axes keep their place before the next real one."""
    moved = [axis for axis in range(len(shape)) if shape[axis] != 1 and strides[axis] != 0]
    walk = iter(sorted(moved, key=lambda axis: -high(strides[axis])))
    return tuple(next(walk) if axis in moved else axis for axis in range(len(shape)))


def channels_last(rank: int) -> tuple[int, ...]:
    """Order n, spatial..., c; row-major below rank 3."""
    return (0, *range(2, rank), 1) if rank >= 3 else tuple(range(rank))
