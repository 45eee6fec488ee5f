# SPDX-License-Identifier: Apache-2.0
"""Ops whose every output dim reads fixed input positions: `Resize`, `Pad`, `Tile` and `Slice` as one table per dim.

An output position reads, along each dim, one or more input positions with weights; positions of several dims
combine as products. A position of -1 stands for the padding value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.ir.op import Array, Op
from tensorwright.ops.shape import Pad, Resize, Slice, Tile


@dataclass(frozen=True, eq=False)
class DimMap:
    """Along one dim: `positions` i64[out, taps] into the input, and their `weights` (None: one tap of weight 1)."""

    positions: Array
    weights: Array | None = None

    @property
    def taps(self) -> int:
        return int(self.positions.shape[1])

    @property
    def line(self) -> tuple[int, int] | None:
        """(first, step) when output o reads exactly first + o*step, for all o; else None."""
        runs = self.runs
        return (runs[0].first, runs[0].step) if len(runs) == 1 and runs[0].step is not None else None

    @property
    def runs(self) -> list[Run]:
        """The outputs cut into pieces that read along a line or not at all; empty for a weighted map."""
        if self.weights is not None:
            return []
        p: list[int] = self.positions[:, 0].tolist()
        out: list[Run] = []
        start = 0
        while start < len(p):
            is_last = start + 1 == len(p) or p[start + 1] < 0
            step = None if p[start] < 0 else 1 if is_last else p[start + 1] - p[start]
            stop = start + 1
            while stop < len(p) and (p[stop] < 0 if step is None else p[stop] == p[stop - 1] + step and p[stop] >= 0):
                stop += 1
            out.append(Run(start, stop, p[start], step))
            start = stop
        return out


@dataclass(frozen=True, slots=True)
class Run:
    """Outputs [start, stop) read first + (o - start)*step, or the padding value when step is None."""

    start: int
    stop: int
    first: int
    step: int | None


def dim_maps(op: Op, shape: tuple[int, ...]) -> list[DimMap] | str:
    """The maps of all dims for an input of `shape`, or why there are none."""
    if isinstance(op, Resize):
        return [_resize(op, axis, size) for axis, size in enumerate(shape)]
    if isinstance(op, Pad):
        rank = len(shape)
        return [_pad(op, b, e, d) for b, e, d in zip(op.pads[:rank], op.pads[rank:], shape, strict=True)]
    if isinstance(op, Tile):
        return [DimMap(_column(np.tile(np.arange(d), r))) for d, r in zip(shape, op.repeats, strict=True)]
    if isinstance(op, Slice):
        return _slice(op, shape)
    return f"{op.kind} is not an index map"


def _column(positions: Array) -> Array:
    return positions.astype(np.int64).reshape(-1, 1)


def _resize(op: Resize, axis: int, size: int) -> DimMap:
    positions, weights = op.taps(axis, size)
    return DimMap(positions.astype(np.int64), None if weights.shape[1] == 1 else weights)


def _pad(op: Pad, begin: int, end: int, size: int) -> DimMap:
    kept = np.arange(size)[max(-begin, 0) : size - max(-end, 0)]
    widths = (max(begin, 0), max(end, 0))
    return DimMap(
        _column(np.pad(kept, widths, constant_values=-1) if op.mode == "constant" else np.pad(kept, widths, op.mode))
    )


def _slice(op: Slice, shape: tuple[int, ...]) -> list[DimMap] | str:
    chosen = [np.arange(d) for d in shape]
    for start, end, axis, step in zip(op.starts, op.ends, op.axes, op.steps, strict=True):
        if not isinstance(start, int) or not isinstance(end, int):
            return "the slice has symbolic bounds"
        chosen[axis] = chosen[axis][0:0] if start == end else chosen[axis][start : end if end >= 0 else None : step]
    return [DimMap(_column(positions)) for positions in chosen]
