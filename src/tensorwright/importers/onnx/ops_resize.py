# SPDX-License-Identifier: Apache-2.0
"""ONNX resampling: Resize in its versions, and Upsample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axes, normal_axis, onnx_op
from tensorwright.ir.dims import Dim, Symbol, high
from tensorwright.ir.graph import Value
from tensorwright.ops.shape import Dims, Resize, ResizeMode

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_F32_BITS = 24
_USUAL_SIZE = 1 << 14  # at most, of a dim without bounds
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
    x = n.input(0)
    if min(scales, default=1) < 1 and max(scales, default=1) > 1:
        n.refuse("it enlarges one axis and shrinks another in one step", "convert the model to opset 13 or later")
    sizes = _sizes(n, x.type.shape, scales)
    rounding = "ceil" if min(scales, default=1) < 1 else "floor"
    return _resize(b, x, Resize(_mode(n), sizes, tuple(scales), "asymmetric", rounding))


@onnx_op("Resize", since=11)
def resize(b: Builder, n: OnnxNode) -> Result:
    """By scales or by sizes, on all axes or on those of `axes` (opset 18)."""
    n.ignore("extrapolation_value")  # of tf_crop_and_resize only, which is refused
    x = n.input(0)
    coordinates = n.attr("coordinate_transformation_mode", str, "half_pixel")
    rounding = n.attr("nearest_mode", str, "round_prefer_floor")
    if coordinates not in COORDINATES:
        n.refuse(f"its coordinate_transformation_mode is {coordinates!r}", f"use one of {', '.join(COORDINATES)}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"nearest_mode is {rounding!r}, expected one of {', '.join(ROUNDINGS)}")
    sizes, scales = _target(n, x.type.shape)
    if n.flag("antialias") and any(s is None or s < 1 for s in scales) and _mode(n) != "nearest":
        n.refuse("it shrinks, or may, with antialias", "export with antialias=0")
    op = Resize(
        _mode(n), sizes, scales, coordinates, rounding, n.attr("cubic_coeff_a", float, -0.75), n.flag("exclude_outside")
    )
    return _resize(b, x, op)


def _resize(b: Builder, x: Value, op: Resize) -> Value:
    same = x.type.shape == op.sizes and all(scale == 1 for scale in op.scales)
    return x if same else b.add(op, x)


def _target(n: OnnxNode, shape: Dims) -> tuple[Dims, tuple[float | None, ...]]:
    """Output sizes and coordinate scales of all axes."""
    given = n.ints("axes")
    axes = tuple(range(len(shape))) if given is None else tuple(normal_axis(a, len(shape)) for a in given)
    normal_axes(axes, len(shape))
    policy = n.attr("keep_aspect_ratio_policy", str, "stretch")
    sizes: list[Dim] = list(shape)
    scales: list[float | None] = [1.0] * len(shape)
    asked_scales = _scales(n, 2) if n.optional(2) is not None else ()
    asked_sizes = n.dims(3, "Resize needs known sizes") if n.optional(3) is not None else ()
    if bool(asked_scales) == bool(asked_sizes) or len(asked_scales or asked_sizes) != len(axes):
        raise ValueError(
            f"it needs either scales or sizes for {len(axes)} axes, it has {list(asked_scales)} and {list(asked_sizes)}"
        )
    if asked_scales:
        scaled = _sizes(n, [shape[a] for a in axes], asked_scales)
        for axis, scale, wanted in zip(axes, asked_scales, scaled, strict=True):
            sizes[axis], scales[axis] = wanted, scale
        return tuple(sizes), tuple(scales)
    if any(shape[a] == 0 for a in axes) or any(isinstance(s, int) and s < 1 for s in asked_sizes):
        raise ValueError(f"sizes {list(asked_sizes)} cannot be made from {list(shape)}")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ValueError(f"keep_aspect_ratio_policy is {policy!r}")
    if policy == "stretch":
        for axis, size in zip(axes, asked_sizes, strict=True):
            sizes[axis], scales[axis] = size, _ratio(size, shape[axis])
        return tuple(sizes), tuple(scales)
    known = [(s, shape[a]) for a, s in zip(axes, asked_sizes, strict=True)]
    ratios = [size / old for size, old in known if isinstance(size, int) and isinstance(old, int)]
    if len(ratios) < len(axes):
        n.refuse(
            f"keep_aspect_ratio_policy {policy!r} needs known sizes", "give every input a fixed shape with shapes="
        )
    common = (min if policy == "not_larger" else max)(ratios)
    for axis, (_, old) in zip(axes, known, strict=True):
        assert isinstance(old, int)
        sizes[axis], scales[axis] = int(np.floor(common * old + 0.5)), common
    return tuple(sizes), tuple(scales)


def _ratio(size: Dim, old: Dim) -> float | None:
    """size / old; None where only a run knows it."""
    if isinstance(size, int) and isinstance(old, int):
        return size / old
    whole = size // old
    return float(whole) if isinstance(whole, int) and whole * old == size else None


def _sizes(n: OnnxNode, shape: Sequence[Dim], scales: Sequence[float]) -> Dims:
    """floor(size * scale), in f32 as other runtimes compute it."""
    if len(scales) != len(shape) or any(not 0 < s < 2**31 for s in scales):
        raise ValueError(f"scales {list(scales)} must be {len(shape)} positive numbers")
    return tuple(_scaled(n, size, scale) for size, scale in zip(shape, scales, strict=True))


def _scaled(n: OnnxNode, size: Dim, scale: float) -> Dim:
    """One of them. Symbolic ones are exact quotients, so they need products that f32 does not round."""
    if isinstance(size, int):
        return int(np.float32(size) * np.float32(scale))
    factor, divisor = float(np.float32(scale)).as_integer_ratio()
    most = high(size) if all(isinstance(s, Symbol) for s in size.symbols) else _USUAL_SIZE
    if (most * factor).bit_length() > _F32_BITS:
        n.refuse(
            f"the scale {scale} of a symbolic dim {size} is no simple fraction, so the size would depend on rounding",
            "use scales such as 2 or 0.5, or give every input a fixed shape with shapes=",
        )
    return size * factor // divisor


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


OPS = [upsample_by_attribute, upsample, resize_by_scales, resize]
