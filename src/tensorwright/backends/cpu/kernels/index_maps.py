# SPDX-License-Identifier: Apache-2.0
"""Ops whose every output dim reads fixed input positions: `Resize`, `Pad`, `Tile` and `Slice` as one map per dim.

An output position reads, along each dim, one or more input positions with weights; positions of several dims
combine as products. A position of -1 stands for the padding value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.kernels.resize_taps import resize_taps
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.op import Array, Op
from tensorwright.ops.shape import Pad, Resize, Slice, Tile


@dataclass(frozen=True, slots=True)
class Run:
    """Outputs [start, stop) read first + (o - start)*step, or the padding value when step is None."""

    start: int
    stop: int
    first: int
    step: int | None


@dataclass(frozen=True, eq=False)
class DimMap:
    """Along one dim: how many input positions an output one reads (`taps`), whether they have weights, whether some are
    outside, and the outputs cut into pieces that read along a line or not at all (`runs`; [] when there are too many
    kinds). A map is a line, or has the tables of positions (and weights), or the code that writes them.

    `positions` are i64[out, taps], `weights` of the same shape. `taps_at` emits the (position, weight) of an output
    position's taps, where only a run knows the sizes.
    """

    taps: int
    is_weighted: bool
    may_be_outside: bool
    runs: list[Run]
    positions: Array | None = None
    weights: Array | None = None
    taps_at: Callable[[Function, Reg], list[tuple[Reg, Reg | None]]] | None = None

    @staticmethod
    def of(positions: Array, weights: Array | None = None) -> DimMap:
        """The map with these tables."""
        positions = positions.astype(np.int64)
        positions = positions[:, None] if positions.ndim == 1 else positions
        runs = [] if weights is not None else _runs(positions[:, 0].tolist())
        outside = bool((positions < 0).any())
        return DimMap(positions.shape[1], weights is not None, outside, runs, positions, weights)

    @staticmethod
    def straight(size: int, first: int = 0, step: int = 1) -> DimMap:
        """Output o reads first + o*step."""
        return DimMap(1, False, False, [Run(0, size, first, step)])

    @property
    def line(self) -> tuple[int, int] | None:
        """(first, step) when output o reads exactly first + o*step, for all o; else None."""
        runs = self.runs
        return (runs[0].first, runs[0].step) if len(runs) == 1 and runs[0].step is not None else None


def _runs(p: list[int]) -> list[Run]:
    """Positions cut into pieces."""
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


def dim_maps(op: Op, shape: tuple[int, ...]) -> list[DimMap] | str:
    """The maps of all dims for an input of `shape`, or why there are none."""
    if isinstance(op, Resize):
        return [_resize(op, axis, size) for axis, size in enumerate(shape)]
    if isinstance(op, Pad):
        rank = len(shape)
        return [_pad(op, b, e, d) for b, e, d in zip(op.pads[:rank], op.pads[rank:], shape, strict=True)]
    if isinstance(op, Tile):
        return [_tile(d, r) for d, r in zip(shape, op.repeats, strict=True)]
    if isinstance(op, Slice):
        return _slice(op, shape)
    return f"{op.kind} is not an index map"


def _is_symbolic(*dims: Dim) -> bool:
    return any(isinstance(d, SymDim) for d in dims)


def _resize(op: Resize, axis: int, size: int) -> DimMap:
    out = cast(int, op.sizes[axis])
    if _is_symbolic(size, out):
        if out == size and op.scales[axis] == 1:
            return DimMap.straight(size)
        is_weighted = op.mode != "nearest"
        taps = {"nearest": 1, "linear": 2, "cubic": 4}[op.mode]
        return DimMap(taps, is_weighted, False, [], taps_at=partial(resize_taps, op=op, axis=axis, size=size))
    positions, weights = op.taps(axis, size)
    return DimMap.of(positions, None if weights.shape[1] == 1 else weights)


def _pad(op: Pad, begin: int, end: int, size: int) -> DimMap:
    if _is_symbolic(size):
        return _loose_pad(op, begin, end, size)
    kept = np.arange(size)[max(-begin, 0) : size - max(-end, 0)]
    widths = (max(begin, 0), max(end, 0))
    return DimMap.of(
        np.pad(kept, widths, constant_values=-1) if op.mode == "constant" else np.pad(kept, widths, op.mode)
    )


def _loose_pad(op: Pad, begin: int, end: int, size: int) -> DimMap:
    """What is kept is read along a line, beside it the padding value or other positions of what is kept."""
    first, kept = max(-begin, 0), size + min(begin, 0) + min(end, 0)
    before, after = max(begin, 0), max(end, 0)
    if not before and not after:
        return DimMap.straight(kept, first)
    if op.mode == "constant":
        pieces = (
            Run(0, before, -1, None),
            Run(before, before + kept, first, 1),
            Run(before + kept, before + kept + after, -1, None),
        )
        runs = [r for r in pieces if r.step is not None or r.start != r.stop]
        return DimMap(1, False, True, runs, taps_at=partial(_constant_pad, before=before, first=first, kept=kept))
    return DimMap(1, False, False, [], taps_at=partial(_mirrored, mode=op.mode, before=before, first=first, kept=kept))


def _constant_pad(f: Function, o: Reg, *, before: int, first: int, kept: int) -> list[tuple[Reg, Reg | None]]:
    at = o - before
    return [(f.select(f.compare("ult", at, kept), at + first, f.i64(-1)), None)]


def _mirrored(f: Function, o: Reg, *, mode: str, before: int, first: int, kept: int) -> list[tuple[Reg, Reg | None]]:
    """The position in what is kept of an output beside it: the border's, that across the border, or from the other
    end, again and again."""
    at = o - before
    if mode == "edge":
        return [(f.minimum(f.maximum(at, 0), kept - 1) + first, None)]
    period = f.maximum(f.i64(2 * (kept - 1) if mode == "reflect" else kept), 1)
    at = f.binary("srem", f.binary("srem", at, period) + period, period)
    if mode == "reflect":
        at = f.minimum(at, period - at)  # a single element has a period of 1, and stays itself
    return [(at + first, None)]


def _tile(size: int, repeats: int) -> DimMap:
    if not _is_symbolic(size):
        return DimMap.of(np.tile(np.arange(size), repeats))
    if repeats == 1:
        return DimMap.straight(size)
    return DimMap(1, False, False, [], taps_at=lambda f, o: [(o % size, None)])


def _slice(op: Slice, shape: tuple[int, ...]) -> list[DimMap] | str:
    maps: dict[int, DimMap] = {}
    for start, end, axis, step in zip(op.starts, op.ends, op.axes, op.steps, strict=True):
        if _is_symbolic(start, end, shape[axis]):
            low, high = (start, end) if step > 0 else (end + 1, start + 1)
            count = cast(int, (high - low + abs(step) - 1) // abs(step))
            maps[axis] = DimMap.straight(count, cast(int, start), step)
        else:
            assert isinstance(start, int) and isinstance(end, int)
            chosen = np.arange(shape[axis])
            chosen = chosen[0:0] if start == end else chosen[start : end if end >= 0 else None : step]
            maps[axis] = DimMap.of(chosen)
    return [maps[d] if d in maps else _tile(size, 1) for d, size in enumerate(shape)]
