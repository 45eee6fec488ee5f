# SPDX-License-Identifier: Apache-2.0
"""Caffe's pools. Sizes round up unless told otherwise, and padding counts in averages (pooling_layer.cpp)."""

from __future__ import annotations

import math
from typing import Any

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, Result, layer_type
from tensorwright.ir.dims import product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.elementwise import Cast, Mod
from tensorwright.ops.pool import AveragePool, MaxPool, MaxPoolIndices
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.sample import MaxRoiPool
from tensorwright.ops.shape import Concat, Pad, Reshape, Slice

_MAX, _AVE = 0, 1
_LOWEST = -3.4028234663852886e38  # -FLT_MAX: what Caffe gives for a window without elements


@layer_type("Pooling")
def pooling(b: Builder, layer: Layer) -> Result:
    """The maximum or mean of each window, padding included in means; sizes round up unless `round_mode: FLOOR` or
    `ceil_mode: false` (a fork's) says otherwise; a second top has the positions of the maxima."""
    x, p = layer.only(), layer.proto.pooling_param
    if x.type.rank != 4:
        raise ValueError(f"it pools images of rank 4, not {x.type}")
    if p.pool not in (_MAX, _AVE):
        layer.refuse("stochastic pooling draws random numbers", "deploy with AVE or MAX")
    if p.global_pooling and not _is_plain(p):
        raise ValueError("with global_pooling it has no kernel, no pad and the stride 1")
    if p.global_pooling and len(layer.tops) == 1:
        return b.add(Reduce("max" if p.pool == _MAX else "mean", (2, 3), True), x)
    if p.global_pooling:
        kernel, strides, pads = layer.known_dims(x.type.shape[2:], "positions count from its start"), (1, 1), (0, 0)
    else:
        kernel, strides, pads = _window(p)
    rounds_up = p.round_mode == 0 and p.ceil_mode
    return pooled(b, layer, x, p.pool == _MAX, (kernel, strides, pads), rounds_up=rounds_up)


def pooled(
    b: Builder,
    layer: Layer,
    x: Value,
    is_max: bool,
    window: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    *,
    rounds_up: bool,
) -> Result:
    """The pool of x with the kernel, strides and padding of `window`."""
    kernel, strides, pads = window
    if min(*kernel, *strides) < 1 or any(pad >= size for pad, size in zip(pads, kernel, strict=True)):
        raise ValueError(f"kernel {kernel}, stride {strides} and pad {pads} do not fit: a pad is less than the kernel")
    if rounds_up:
        kernel = _within(x, kernel, strides, pads)
    if rounds_up and not any(pads):
        whole = _filled_up(b, x, kernel, strides, is_max=is_max)
        if whole is not x and len(layer.tops) > 1:
            layer.refuse("its last window begins after the image, where there are no positions")
        x = whole
    ones, both = (1,) * len(kernel), pads + pads
    if not is_max:
        return b.add(AveragePool(kernel, strides, both, ones, rounds_up, True), x)
    y = b.add(MaxPool(kernel, strides, both, ones, rounds_up), x)
    if len(layer.tops) < 2:
        return y
    height, width = layer.known_dims(x.type.shape[2:], "positions count rows of its width")
    positions = b.add(MaxPoolIndices(kernel, strides, both, ones, rounds_up), x)
    return [y, b.add(Cast(DType.f32), b.add(Mod(), positions, b.scalar(height * width, DType.i64)))]


def _within(x: Value, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]) -> tuple[int, ...]:
    """A kernel wider than the padded image by less than a stride gives one result, of the whole image."""
    sides = zip(x.type.shape[2:], kernel, strides, pads, strict=True)
    return tuple(
        size + 2 * pad if isinstance(size, int) and 0 < k - size - 2 * pad < s else k for size, k, s, pad in sides
    )


def _filled_up(b: Builder, x: Value, kernel: tuple[int, ...], strides: tuple[int, ...], *, is_max: bool) -> Value:
    """Without padding, Caffe keeps a last window that begins after the image, where the stride exceeds the kernel."""
    for axis, (size, k, s) in enumerate(zip(x.type.shape[2:], kernel, strides, strict=True), 2):
        last = -((k - size) // s) * s if isinstance(size, int) else 0  # where the last window begins
        if not isinstance(size, int) or last < size:
            continue
        mean = math.nan if last == size else 0.0  # of no elements, or of less than none
        ends = [max(last + k - size, 0) if i == axis else 0 for i in range(4)]
        x = b.add(Pad((0, 0, 0, 0, *ends), value=_LOWEST if is_max else mean), x)
    return x


def _window(p: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, strides and padding; `_h` and `_w` fields come in pairs."""
    has_sides = p.HasField("kernel_h") or p.HasField("kernel_w")
    if has_sides == p.HasField("kernel_size") or (has_sides and not (p.kernel_h and p.kernel_w)):
        raise ValueError("it needs either kernel_size, or kernel_h and kernel_w")
    kernel = (p.kernel_h, p.kernel_w) if has_sides else (p.kernel_size, p.kernel_size)
    return kernel, _sides(p, "stride"), _sides(p, "pad")


def _sides(p: Any, name: str) -> tuple[int, int]:
    """A field for both sides, or its `_h` and `_w`."""
    given = [p.HasField(f"{name}_{side}") for side in "hw"]
    if any(given) and (p.HasField(name) or not all(given)):
        raise ValueError(f"it takes either {name}, or {name}_h and {name}_w")
    both = getattr(p, name)
    return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if any(given) else (both, both)


def _is_plain(p: Any) -> bool:
    """Whether it has no kernel, no pad and the stride 1."""
    has_kernel = any(p.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w"))
    return not has_kernel and _sides(p, "stride") == (1, 1) and _sides(p, "pad") == (0, 0)


@layer_type("SPP")
def spatial_pyramid(b: Builder, layer: Layer) -> Result:
    """Pools into 1, 2x2, 4x4, ... bins, flattened and put side by side; a single level stays as it is
    (spp_layer.cpp)."""
    x, p = layer.only(), layer.proto.spp_param
    if p.pool not in (_MAX, _AVE) or not 1 <= p.pyramid_height <= 16 or x.type.rank != 4:
        raise ValueError(f"it makes a pyramid of height {p.pyramid_height} of {x.type}; it takes images, MAX or AVE")
    sizes = layer.known_dims(x.type.shape[2:], "a pyramid divides it into bins")
    parts = []
    for level in range(p.pyramid_height):
        bins = 1 << level
        kernel = tuple(-(-size // bins) for size in sizes)
        pads = tuple((k * bins - size + 1) // 2 for k, size in zip(kernel, sizes, strict=True))
        y = pooled(b, layer, x, p.pool == _MAX, (kernel, kernel, pads), rounds_up=True)
        assert isinstance(y, Value)
        if p.pyramid_height == 1:
            return y
        parts.append(b.add(Reshape((x.type.shape[0], product(y.type.shape[1:]))), y))
    return b.add(Concat(1), *parts)


@layer_type("ROIPooling")
def roi_pooling(b: Builder, layer: Layer) -> Result:
    """The maximum in each cell of a grid over each region (Fast R-CNN)."""
    layer.take(2, 2)
    x, rois, p = layer.bottom(0), layer.bottom(1), layer.proto.roi_pooling_param
    if rois.type.rank < 2 or rois.type.shape[1] != 5:
        raise ValueError(f"its regions are rows (image, x1, y1, x2, y2), not {rois.type}")
    rows = b.add(Reshape((rois.type.shape[0], 5)), rois)
    image = b.add(Cast(DType.i64), b.add(Reshape((rois.type.shape[0],)), b.add(Slice((0,), (1,), (1,), (1,)), rows)))
    boxes = b.add(Slice((1,), (5,), (1,), (1,)), rows)
    return b.add(MaxRoiPool(p.pooled_h, p.pooled_w, p.spatial_scale), x, boxes, image)


LAYERS = [pooling, spatial_pyramid, roi_pooling]
