# SPDX-License-Identifier: Apache-2.0
"""ONNX resampling: Resize in its versions, and Upsample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axes, normal_axis, onnx_op
from tensorwright.ir.graph import Value
from tensorwright.ops.shape import Resize, ResizeMode

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@onnx_op("Upsample")
def upsample_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 8 the scales are an attribute."""
    scales = n.floats("scales")
    if scales is None:
        raise ValueError("attribute 'scales' is missing")
    return _resized_old(b, n, scales)


@onnx_op("Upsample", since=9)
def upsample(b: Builder, n: OnnxNode) -> Result:
    """Opset 9: the scales are an input."""
    return _resized_old(b, n, _scales(n, 1))


@onnx_op("Resize", since=10)
def resize_by_scales(b: Builder, n: OnnxNode) -> Result:
    """Opset 10: by scales only."""
    return _resized_old(b, n, _scales(n, 1))


def _resized_old(b: Builder, n: OnnxNode, scales: Sequence[float]) -> Value:
    """Before opset 11: coordinates are out / scale; nearest rounds down to enlarge and up to shrink."""
    x, shape = n.input(0), _known_shape(n)
    if min(scales, default=1) < 1 and max(scales, default=1) > 1:
        n.refuse("it enlarges one axis and shrinks another in one step", "convert the model to opset 13 or later")
    sizes = _sizes(shape, scales)
    rounding = "ceil" if min(scales, default=1) < 1 else "floor"
    return _resize(b, x, Resize(_mode(n), sizes, tuple(scales), "asymmetric", rounding))


@onnx_op("Resize", since=11)
def resize(b: Builder, n: OnnxNode) -> Result:
    """By scales or by sizes, on all axes or on those of `axes` (opset 18)."""
    n.ignore("extrapolation_value")  # of tf_crop_and_resize only, which is refused
    x, shape = n.input(0), _known_shape(n)
    coordinates = n.attr("coordinate_transformation_mode", str, "half_pixel")
    rounding = n.attr("nearest_mode", str, "round_prefer_floor")
    if coordinates not in COORDINATES:
        n.refuse(f"its coordinate_transformation_mode is {coordinates!r}", f"use one of {', '.join(COORDINATES)}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"nearest_mode is {rounding!r}, expected one of {', '.join(ROUNDINGS)}")
    sizes, scales = _target(n, shape)
    if n.flag("antialias") and min(scales, default=1) < 1 and _mode(n) != "nearest":
        n.refuse("it shrinks with antialias", "export with antialias=0")
    op = Resize(
        _mode(n), sizes, scales, coordinates, rounding, n.attr("cubic_coeff_a", float, -0.75), n.flag("exclude_outside")
    )
    return _resize(b, x, op)


def _resize(b: Builder, x: Value, op: Resize) -> Value:
    same = x.type.shape == op.sizes and all(scale == 1 for scale in op.scales)
    return x if same else b.add(op, x)


def _target(n: OnnxNode, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes and coordinate scales of all axes."""
    given = n.ints("axes")
    axes = tuple(range(len(shape))) if given is None else tuple(normal_axis(a, len(shape)) for a in given)
    normal_axes(axes, len(shape))
    policy = n.attr("keep_aspect_ratio_policy", str, "stretch")
    sizes, scales = list(shape), [1.0] * len(shape)
    asked_scales = _scales(n, 2) if n.optional(2) is not None else ()
    asked_sizes = n.integers(3, "Resize needs known sizes") if n.optional(3) is not None else ()
    if bool(asked_scales) == bool(asked_sizes) or len(asked_scales or asked_sizes) != len(axes):
        raise ValueError(
            f"it needs either scales or sizes for {len(axes)} axes, it has {list(asked_scales)} and {list(asked_sizes)}"
        )
    if asked_scales:
        for axis, scale, size in zip(axes, asked_scales, _sizes([shape[a] for a in axes], asked_scales), strict=True):
            sizes[axis], scales[axis] = size, scale
        return tuple(sizes), tuple(scales)
    if any(shape[a] == 0 for a in axes) or min(asked_sizes) < 1:
        raise ValueError(f"sizes {list(asked_sizes)} cannot be made from {list(shape)}")
    ratios = [size / shape[axis] for axis, size in zip(axes, asked_sizes, strict=True)]
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy is {policy!r}")
    for axis, size, ratio in zip(axes, asked_sizes, ratios, strict=True):
        common = ratio if policy == "stretch" else (min if policy == "not_larger" else max)(ratios)
        sizes[axis] = size if policy == "stretch" else int(np.floor(common * shape[axis] + 0.5))
        scales[axis] = common
    return tuple(sizes), tuple(scales)


def _sizes(shape: Sequence[int], scales: Sequence[float]) -> tuple[int, ...]:
    """floor(size * scale), in f32 as other runtimes compute it."""
    if len(scales) != len(shape) or any(not 0 < s < 2**31 for s in scales):
        raise ValueError(f"scales {list(scales)} must be {len(shape)} positive numbers")
    return tuple(int(np.float32(size) * np.float32(scale)) for size, scale in zip(shape, scales, strict=True))


def _scales(n: OnnxNode, index: int) -> tuple[float, ...]:
    array = n.constant(index, "Resize needs known scales")
    if array.dtype.kind != "f":
        raise ValueError(f"scales must be floats, they are {array.dtype}")
    return tuple(float(s) for s in array.reshape(-1))


def _mode(n: OnnxNode) -> ResizeMode:
    mode = n.attr("mode", str, "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise ValueError(f"mode is {mode!r}, expected nearest, linear or cubic")
    return cast(ResizeMode, mode)


def _known_shape(n: OnnxNode) -> tuple[int, ...]:
    x = n.input(0)
    if not x.type.is_static:
        n.refuse(f"its input {x.type} has symbolic dims", "give every input a fixed shape with shapes=")
    return x.type.static_shape


OPS = [upsample_by_attribute, upsample, resize_by_scales, resize]
