# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's StridedSlice: what `x[a:b:c, ..., None, i]` means, with its five masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, tf_op
from tensorwright.ir.dims import Dim, SymDim, maximum, minimum
from tensorwright.ir.graph import Value
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Reshape, Slice


@dataclass(frozen=True, slots=True)
class _Entry:
    """One place of the subscript: its bounds (None: open) and whether it takes a single element."""

    begin: Dim | None
    end: Dim | None
    step: int
    is_index: bool


@tf_op("StridedSlice")
def strided_slice(b: Builder, n: OpNode) -> Result:
    """Bounds may be sizes that only a run knows; steps are known."""
    x = n.input(0)
    steps = n.integers(3, "it is the step of the slice")
    if b.contents(n.input(1)) is None:
        return _at_run(b, n, x, steps)
    begins, ends = (n.dims(i, "it is a bound of the slice") for i in (1, 2))
    if not len(begins) == len(ends) == len(steps) or 0 in steps:
        raise ValueError(f"{len(begins)} begins, {len(ends)} ends and the steps {steps} do not fit")
    entries, places = _entries(n, x.type.rank, begins, ends, steps)
    axes, starts, stops, strides, shape = [], [], [], [], list[Dim | None]()
    axis = 0
    for place in places:
        if place is None:
            shape.append(1)
            continue
        entry = entries[place]
        size = x.type.shape[axis]
        if entry is not None:
            start, stop = _bounds(n, entry, size)
            axes.append(axis)
            starts.append(start)
            stops.append(stop)
            strides.append(entry.step)
        shape.append(-1 if entry is not None and entry.is_index else None)
        axis += 1
    y = x
    whole = all(
        s == 0 and e == x.type.shape[a] and t == 1 for a, s, e, t in zip(axes, starts, stops, strides, strict=True)
    )
    if not whole:
        y = b.add(Slice(tuple(starts), tuple(stops), tuple(axes), tuple(strides)), x)
    taken = iter(y.type.shape)
    result: list[Dim] = []
    for kind in shape:
        if kind == 1:
            result.append(1)
            continue
        dim = next(taken)
        if kind is None:
            result.append(dim)
    return y if tuple(result) == y.type.shape else b.add(Reshape(tuple(result)), y)


def _at_run(b: Builder, n: OpNode, x: Value, steps: Sequence[int]) -> Value:
    """Single elements at places that are computed at run, as `x[:, t]` in a loop; all else is taken whole."""
    masks = {name: n.integer(f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    places = [i for i in range(len(steps)) if masks["shrink_axis"] >> i & 1]
    whole = [
        masks["begin"] >> i & masks["end"] >> i & 1 and steps[i] == 1 for i in range(len(steps)) if i not in places
    ]
    if not places or masks["ellipsis"] or masks["new_axis"] or not all(whole) or len(steps) > x.type.rank:
        n.refuse("it is a bound of the slice, but it is computed at run", "give every input a fixed shape with shapes=")
    for place in reversed(places):  # from the last axis on, so that the others keep their numbers
        index = b.add(Reshape(()), b.add(Slice((place,), (place + 1,), (0,), (1,)), n.input(1)))
        x = b.add(Gather(place), x, index)
    return x


def _entries(
    n: OpNode, rank: int, begins: Sequence[Dim], ends: Sequence[Dim], steps: Sequence[int]
) -> tuple[list[_Entry | None], list[int | None]]:
    """What is done to each dim of x, and the dims of the result in order: the number of an entry, or None for a new
    dim."""
    masks = {name: n.integer(f"{name}_mask", 0) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    count = len(steps)
    consumed = sum(not (masks["new_axis"] >> i & 1 or masks["ellipsis"] >> i & 1) for i in range(count))
    if consumed > rank:
        raise ValueError(f"it has {consumed} subscripts for {rank} dims")
    entries: list[_Entry | None] = []
    places: list[int | None] = []

    def skip(dims: int) -> None:
        for _ in range(dims):
            places.append(len(entries))
            entries.append(None)

    had_ellipsis = False
    for i in range(count):
        if masks["ellipsis"] >> i & 1:
            skip(rank - consumed)
            had_ellipsis = True
        elif masks["new_axis"] >> i & 1:
            places.append(None)
        else:
            is_index = bool(masks["shrink_axis"] >> i & 1)
            begin = None if masks["begin"] >> i & 1 and not is_index else begins[i]
            end = None if masks["end"] >> i & 1 else ends[i]
            places.append(len(entries))
            entries.append(_Entry(begin, end, 1 if is_index else steps[i], is_index))
    if not had_ellipsis:
        skip(rank - consumed)
    return entries, places


def _bounds(n: OpNode, entry: _Entry, size: Dim) -> tuple[Dim, Dim]:
    """Start and end as Slice takes them: within the dim, an end of -1 for a run back to the first element."""
    if entry.is_index:
        at = entry.begin if entry.begin is not None else 0
        at = at + size if isinstance(at, int) and at < 0 else at
        if isinstance(at, int) and isinstance(size, int) and not 0 <= at < size:
            raise ValueError(f"index {entry.begin} is not within {size} elements")
        return at, at + 1
    if entry.step > 0:
        start = _clamped(entry.begin, size, 0, size, 0)
        end = _clamped(entry.end, size, 0, size, size)
        return (start, start) if isinstance(start, int) and isinstance(end, int) and end < start else (start, end)
    if isinstance(size, SymDim) and not (entry.begin is None and entry.end is None):
        n.refuse("it runs backwards from a bound of a dim that only a run knows", "give every input a fixed shape")
    start = _clamped(entry.begin, size, -1, size - 1, size - 1)
    end = _clamped(entry.end, size, -1, size - 1, -1)
    return (start, start) if isinstance(start, int) and isinstance(end, int) and end > start else (start, end)


def _clamped(bound: Dim | None, size: Dim, low: Dim, high: Dim, default: Dim) -> Dim:
    """A bound counted from the start and kept within the dim."""
    if bound is None:
        return default
    if isinstance(bound, int) and bound < 0:
        bound = bound + size
    if isinstance(bound, int) and isinstance(size, SymDim) and bound == 0:
        return 0
    return minimum(maximum(bound, low), high)
