# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that move elements: concat, split, slice, pad, tile, gather."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axes, normal_axis, onnx_op
from tensorwright.ir.dims import Dim, Undecided, ceil_div, low, maximum, minimum
from tensorwright.ir.graph import Value
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Concat, Pad, PadMode, Slice, Tile

PAD_MODES = ("constant", "reflect", "edge", "wrap")
_GIVE_SHAPES = "give every input a fixed shape with shapes="


@onnx_op("Concat")
def concat(b: Builder, n: OnnxNode) -> Result:
    """The inputs one after the other along `axis`."""
    values = n.all_inputs()
    axis = n.axis("axis", None, values[0].type.rank)
    return values[0] if len(values) == 1 else b.add(Concat(axis), *values)


@onnx_op("Split")
def split_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 12 the sizes are an attribute."""
    return _split(b, n, n.ints("split"), len(n.used_outputs))


@onnx_op("Split", since=13)
def split(b: Builder, n: OnnxNode) -> Result:
    """Parts of given sizes, or equal ones; one slice each."""
    sizes = n.integers(1, "Split needs to know the sizes of its parts") if n.optional(1) is not None else None
    return _split(b, n, sizes, n.attr("num_outputs", int, len(n.used_outputs)))


def _split(b: Builder, n: OnnxNode, sizes: Sequence[Dim] | None, parts: int) -> list[Value]:
    """One slice per part. Without sizes the parts are equal, the last one possibly smaller."""
    x = n.input(0)
    axis = n.axis("axis", 0, x.type.rank)
    length = x.type.shape[axis]
    if parts != len(n.used_outputs) or parts < 1:
        raise ValueError(f"it has {len(n.used_outputs)} outputs for {parts} parts")
    if sizes is None:
        chunk = ceil_div(length, parts)
        sizes = [minimum(chunk, maximum(length - chunk * i, 0)) for i in range(parts)]
    fixed = [size for size in sizes if isinstance(size, int)]
    if (
        len(sizes) != len(n.used_outputs)
        or min(fixed, default=0) < 0
        or (isinstance(length, int) and sum(fixed) != length)
    ):
        raise ValueError(f"parts {list(sizes)} do not make up axis {axis} of {x.type} in {len(n.used_outputs)} outputs")
    ends = list(itertools.accumulate(sizes))
    return [
        x if size == length else b.add(Slice((end - size,), (end,), (axis,), (1,)), x)
        for size, end in zip(sizes, ends, strict=True)
    ]


@onnx_op("Slice")
def slice_by_attributes(b: Builder, n: OnnxNode) -> Result:
    """Until opset 9 the bounds are attributes."""
    starts, ends = n.ints("starts") or (), n.ints("ends") or ()
    return _sliced(b, n, starts, ends, n.ints("axes"), None)


@onnx_op("Slice", since=10)
def slice_(b: Builder, n: OnnxNode) -> Result:
    """Bounds, axes and steps are inputs."""
    because = "Slice needs known bounds"
    axes = n.integers(3, because) if n.optional(3) is not None else None
    steps = n.integers(4, because) if n.optional(4) is not None else None
    return _sliced(b, n, n.dims(1, because), n.dims(2, because), axes, steps)


def _sliced(
    b: Builder,
    n: OnnxNode,
    starts: Sequence[Dim],
    ends: Sequence[Dim],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Value:
    x = n.input(0)
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(
            f"starts {list(starts)}, ends {list(ends)}, axes {list(axes)} and steps {list(steps)} do not fit together"
        )
    normal_axes(axes, x.type.rank)
    kept: list[tuple[int, Dim, Dim, int]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normal_axis(axis, x.type.rank)
        length = x.type.shape[axis]
        first, last = _bounds(n, start, end, step, length)
        if (first, last, step) != (0, length, 1):
            kept.append((axis, first, last, step))
    if not kept:
        return x
    kept.sort(key=lambda bound: bound[0])
    return b.add(
        Slice(
            tuple(k[1] for k in kept), tuple(k[2] for k in kept), tuple(k[0] for k in kept), tuple(k[3] for k in kept)
        ),
        x,
    )


def _bounds(n: OnnxNode, start: Dim, end: Dim, step: int, length: Dim) -> tuple[Dim, Dim]:
    """Negative bounds count from the end, all are clamped, as in Python; an empty range ends where it starts."""
    if isinstance(start, int) and isinstance(end, int) and isinstance(length, int):
        begin, stop, _ = slice(start, end, step).indices(length)
        return begin, stop if (stop - begin) * step > 0 else begin
    if step < 0:
        first, last = (_clamped_backwards(n, bound, length) for bound in (start, end))
        return first, minimum(first, last)
    first, last = (_clamped(n, bound, length) for bound in (start, end))
    return first, last if first == 0 else maximum(first, last)


def _clamped(n: OnnxNode, bound: Dim, length: Dim) -> Dim:
    if isinstance(bound, int):
        if bound >= 2**31 - 1:  # the usual way to say "to the end"
            return length
        return minimum(bound, length) if bound >= 0 else maximum(length + bound, 0)
    if any(c < 0 for _, c in bound.terms) and not _is_natural(bound):
        n.refuse(f"its bound {bound} may be negative", _GIVE_SHAPES)
    return minimum(bound, length)


def _clamped_backwards(n: OnnxNode, bound: Dim, length: Dim) -> Dim:
    if not isinstance(bound, int):
        n.refuse(f"it walks the dim {length} backwards from or to {bound}", _GIVE_SHAPES)
    if abs(bound) >= 2**31 - 1:
        return length - 1 if bound > 0 else -1
    return minimum(bound, length - 1) if bound >= 0 else maximum(length + bound, -1)


def _is_natural(dim: Dim) -> bool:
    try:
        return low(dim) >= 0
    except Undecided:
        return False


@onnx_op("Pad")
def pad_by_attributes(b: Builder, n: OnnxNode) -> Result:
    """Until opset 10 amounts and value are attributes."""
    pads = n.ints("pads")
    if pads is None:
        raise ValueError("attribute 'pads' is missing")
    return _padded(b, n, pads, n.attr("value", float, 0.0))


@onnx_op("Pad", since=11)
def pad(b: Builder, n: OnnxNode) -> Result:
    """Amounts, value and (opset 18) axes are inputs."""
    because = "Pad needs known amounts"
    pads, value = n.integers(1, because), 0.0
    if n.optional(2) is not None:
        value = float(n.constant(2, "Pad needs a known value").reshape(()))
    if n.optional(3) is not None:
        pads = _on_all_axes(pads, normal_axis_list(n, because), n.input(0).type.rank)
    return _padded(b, n, pads, value)


def normal_axis_list(n: OnnxNode, because: str) -> list[int]:
    """The axes input of Pad, in its order."""
    axes, rank = n.integers(3, because), n.input(0).type.rank
    normal_axes(axes, rank)
    return [normal_axis(a, rank) for a in axes]


def _on_all_axes(pads: tuple[int, ...], axes: Sequence[int], rank: int) -> tuple[int, ...]:
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads {list(pads)} do not fit axes {list(axes)}")
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis], full[rank + axis] = pads[i], pads[len(axes) + i]
    return tuple(full)


def _padded(b: Builder, n: OnnxNode, pads: tuple[int, ...], value: float) -> Value:
    x, mode = n.input(0), n.attr("mode", str, "constant")
    if mode not in PAD_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(PAD_MODES)}")
    return b.add(Pad(pads, cast(PadMode, mode), value), x) if any(pads) or len(pads) != 2 * x.type.rank else x


@onnx_op("Tile")
def tile(b: Builder, n: OnnxNode) -> Result:
    """Repeats the input along each axis."""
    x, repeats = n.input(0), n.integers(1, "Tile needs known repeats")
    if len(repeats) != x.type.rank or min(repeats, default=0) < 0:
        raise ValueError(f"repeats {list(repeats)} do not fit {x.type}")
    return b.add(Tile(repeats), x) if set(repeats) - {1} else x


@onnx_op("Gather")
def gather(b: Builder, n: OnnxNode) -> Result:
    """Slices along `axis` at the indices; negative ones count from the end."""
    x = n.input(0)
    return b.add(Gather(n.axis("axis", 0, x.type.rank)), x, n.input(1))


OPS = [concat, split_by_attribute, split, slice_by_attributes, slice_, pad_by_attributes, pad, tile, gather]
