# SPDX-License-Identifier: Apache-2.0
"""ONNX's deformable convolution: samples beside the taps of a convolution, weighted by a matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.importers.onnx.windows import Window, read_window
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Add, Cast, Mul
from tensorwright.ops.linear import MatMul
from tensorwright.ops.sample import GridSample
from tensorwright.ops.shape import Concat, Reshape, Slice

_MOST_AXES = 3


@dataclass(frozen=True, slots=True)
class _Problem:
    """Sizes: images and their channels, groups of offsets and of weights, spatial dims in and out, kernel elements."""

    batch: int
    channels: int
    offset_groups: int
    groups: int
    spatial: tuple[int, ...]
    out: tuple[int, ...]
    taps: int
    window: Window

    @property
    def rank(self) -> int:
        return len(self.spatial)


@onnx_op("DeformConv", since=19)
def deform_conv(b: Builder, n: OnnxNode) -> Result:
    """Convolution whose taps are moved by offsets[N, groups * taps * axes, *out] (in pixels, linear between them, zeros
    outside) and weighted by a mask (Dai et al., 2017; Zhu et al., 2019)."""
    x, weights, offset, bias, mask = n.input(0), n.input(1), n.input(2), n.optional(3), n.optional(4)
    p, dtype = _problem(n, x, weights, offset), x.type.dtype
    x, weights, offset = (_in_f32(b, v) for v in (x, weights, offset))
    columns = _sampled(b, p, x, offset)
    if mask is not None:
        over_channels = (p.batch, p.offset_groups, 1, p.taps, math.prod(p.out))
        columns = b.add(Mul(), columns, b.add(Reshape(over_channels), _in_f32(b, mask)))
    depth, outputs = p.channels // p.groups * p.taps, weights.type.static_shape[0]
    matrix = b.add(Reshape((p.groups, outputs // p.groups, depth)), weights)
    y = b.add(MatMul(), matrix, b.add(Reshape((p.batch, p.groups, depth, math.prod(p.out))), columns))
    y = b.add(Reshape((p.batch, outputs, *p.out)), y)
    if bias is not None:
        y = b.add(Add(), y, b.add(Reshape((outputs, *(1,) * p.rank)), _in_f32(b, bias)))
    return y if dtype is y.type.dtype else b.add(Cast(dtype), y)


def _in_f32(b: Builder, x: Value) -> Value:
    return x if x.type.dtype in (DType.f32, DType.f64) else b.add(Cast(DType.f32), x)


def _problem(n: OnnxNode, x: Value, weights: Value, offset: Value) -> _Problem:
    if not all(v.type.is_static for v in (x, weights, offset)):
        n.refuse(f"it needs known shapes, not {x.type}", "give every input a fixed shape with shapes=")
    batch, channels, *spatial = x.type.static_shape
    kernel, rank = weights.type.static_shape[2:], len(spatial)
    window = read_window(n, tuple(spatial), n.ints("kernel_shape") or kernel)
    groups, offset_groups = n.attr("group", int, 1), n.attr("offset_group", int, 1)
    out = tuple(
        (size + window.pads[d] + window.pads[rank + d] - window.extents[d]) // window.strides[d] + 1
        for d, size in enumerate(spatial)
    )
    taps = math.prod(kernel)
    if rank > _MOST_AXES:
        n.refuse(f"it has {rank} spatial dims, more than {_MOST_AXES}")
    if (
        window.kernel != kernel
        or weights.type.static_shape[1] * groups != channels
        or weights.type.static_shape[0] % groups
        or channels % offset_groups
        or offset.type.static_shape != (batch, offset_groups * taps * rank, *out)
    ):
        raise ValueError(f"weights {weights.type} and offsets {offset.type} do not fit {x.type}")
    return _Problem(batch, channels, offset_groups, groups, tuple(spatial), out, taps, window)


def _sampled(b: Builder, p: _Problem, x: Value, offset: Value) -> Value:
    """What each tap of each output reads: [N, offset groups, channels of one, taps, outputs]."""
    points = math.prod(p.out)
    images, depth = p.batch * p.offset_groups, p.channels // p.offset_groups
    moved = b.add(Reshape((images, p.taps, p.rank, points)), offset)
    dtype = x.type.dtype.numpy
    axes = []
    for d in reversed(range(p.rank)):  # a grid lists the last axis first
        along = b.add(Reshape((images, p.taps, points)), b.add(Slice((d,), (d + 1,), (2,), (1,)), moved))
        # pixel i is at (2 i + 1) / size - 1
        scale = np.asarray(2 / p.spatial[d]).astype(dtype)
        start = ((2 * _taps_of(p, d) + 1) / p.spatial[d] - 1).astype(dtype)
        place = b.add(Add(), b.add(Mul(), along, b.constant(scale)), b.constant(start))
        axes.append(b.add(Reshape((images, p.taps, points, 1)), place))
    grid = axes[0] if len(axes) == 1 else b.add(Concat(3), *axes)
    flat = (images, p.taps, points, *(1,) * (p.rank - 2), p.rank) if p.rank > 1 else (images, p.taps * points, 1)
    read = b.add(GridSample(), b.add(Reshape((images, depth, *p.spatial)), x), b.add(Reshape(flat), grid))
    return b.add(Reshape((p.batch, p.offset_groups, depth, p.taps, points)), read)


def _taps_of(p: _Problem, axis: int) -> Array:
    """[taps, outputs]: the pixel along an axis that each tap of each output reads when nothing moves it."""
    w = p.window
    outputs = np.arange(p.out[axis]) * w.strides[axis] - w.pads[axis]
    taps = np.arange(w.kernel[axis]) * w.dilations[axis]
    return (_along(taps, axis, w.kernel)[:, None] + _along(outputs, axis, p.out)).astype(np.float64)


def _along(values: Array, axis: int, shape: Sequence[int]) -> Array:
    """Values of one axis for all elements of a shape, flat."""
    column = values.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.broadcast_to(column, shape).reshape(-1)


OPS = [deform_conv]
