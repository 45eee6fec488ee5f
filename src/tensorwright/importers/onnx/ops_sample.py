# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that read images between their pixels, or in boxes."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.convert import in_f32
from tensorwright.ops.elementwise import Cast
from tensorwright.ops.linear import MatMul
from tensorwright.ops.sample import GridSample, MaxRoiPool, RoiAlign
from tensorwright.ops.shape import Reshape, Slice, Transpose

_Mode = Literal["nearest", "linear", "cubic"]
_Padding = Literal["zeros", "border", "reflection"]
_MODES: dict[str, _Mode] = {"nearest": "nearest", "linear": "linear", "cubic": "cubic"}
_FORMER_MODES: dict[str, _Mode] = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
_PADDINGS = ("zeros", "border", "reflection")
_GIVE_SHAPES = "give every input a fixed shape with shapes="


@onnx_op("GridSample", since=16)
def grid_sample_former(b: Builder, n: OnnxNode) -> Result:
    """Until opset 19 the modes are called bilinear and bicubic."""
    return _grid_sample(b, n, _FORMER_MODES, "bilinear")


@onnx_op("GridSample", since=20)
def grid_sample(b: Builder, n: OnnxNode) -> Result:
    """x at the points of a grid."""
    return _grid_sample(b, n, _MODES, "linear")


def _grid_sample(b: Builder, n: OnnxNode, modes: dict[str, _Mode], default: str) -> Value:
    mode, padding = n.attr("mode", str, default), n.attr("padding_mode", str, "zeros")
    if mode not in modes or padding not in _PADDINGS:
        raise ValueError(f"mode is {mode!r} and padding_mode {padding!r}, which ONNX does not define")
    op = GridSample(modes[mode], cast(_Padding, padding), n.flag("align_corners"))
    return in_f32(b, op, n.input(0), n.input(1))


@onnx_op("RoiAlign", since=10)
def roi_align_former(b: Builder, n: OnnxNode) -> Result:
    """Until opset 15 boxes are not shifted by half a pixel."""
    return _roi_align(b, n, "output_half_pixel")


@onnx_op("RoiAlign", since=16)
def roi_align(b: Builder, n: OnnxNode) -> Result:
    """Boxes of images resampled to one size."""
    return _roi_align(b, n, "half_pixel")


def _roi_align(b: Builder, n: OnnxNode, default: str) -> Value:
    shift, mode = n.attr("coordinate_transformation_mode", str, default), n.attr("mode", str, "avg")
    if shift not in ("half_pixel", "output_half_pixel") or mode not in ("avg", "max"):
        raise ValueError(f"mode is {mode!r} and coordinates {shift!r}, which ONNX does not define")
    op = RoiAlign(
        n.attr("output_height", int, 1),
        n.attr("output_width", int, 1),
        n.attr("sampling_ratio", int, 0),
        n.attr("spatial_scale", float, 1.0),
        shift == "half_pixel",
        mode == "max",
    )
    return in_f32(b, op, n.input(0), n.input(1), n.input(2))


@onnx_op("MaxRoiPool")
def max_roi_pool(b: Builder, n: OnnxNode) -> Result:
    """The largest pixels of the cells of boxes (image, x1, y1, x2, y2)."""
    shape = n.ints("pooled_shape") or ()
    if len(shape) != 2:
        raise ValueError(f"pooled_shape is {list(shape)}, expected a height and a width")
    images = b.add(Reshape((n.input(1).type.shape[0],)), b.add(Slice((0,), (1,), (1,), (1,)), n.input(1)))
    corners = b.add(Slice((1,), (5,), (1,), (1,)), n.input(1))
    op = MaxRoiPool(*shape, n.attr("spatial_scale", float, 1.0))
    return in_f32(b, op, n.input(0), corners, b.add(Cast(DType.i64), images))


@onnx_op("AffineGrid", since=20)
def affine_grid(b: Builder, n: OnnxNode) -> Result:
    """Every point of an image of known size, in homogeneous coordinates, times the matrix of each batch entry."""
    theta, align = n.input(0), n.flag("align_corners")
    size = n.dims(1, "AffineGrid needs a known size")[2:]
    if not all(isinstance(d, int) for d in size):
        n.refuse(f"it makes points for the symbolic size {list(map(str, size))}", _GIVE_SHAPES)
    sizes, rank = [int(str(d)) for d in size], len(size)
    if theta.type.rank != 3 or rank not in (2, 3):
        raise ValueError(f"it cannot transform the points of an image of {rank} dims by {theta.type}")
    n.limit_constant(math.prod(sizes) * (rank + 1))
    # as a wide type, in which -1 and 1 are met exactly
    axes = [np.linspace(-1, 1, d) if align else (2 * np.arange(d) + 1) / d - 1 for d in sizes]
    points = [*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(sizes)]  # the last axis is x
    table = np.stack(points, -1).reshape(math.prod(sizes), rank + 1)
    y = b.add(MatMul(), b.constant(table.astype(theta.type.dtype.numpy)), b.add(Transpose((0, 2, 1)), theta))
    return b.add(Reshape((theta.type.shape[0], *sizes, rank)), y)


OPS = [grid_sample_former, grid_sample, roi_align_former, roi_align, max_roi_pool, affine_grid]
