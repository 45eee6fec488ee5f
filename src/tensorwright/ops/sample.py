# SPDX-License-Identifier: Apache-2.0
"""Reading images between their pixels: at the points of a grid, and in boxes (regions of interest)."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import float_dtype, required, same_dim

CUBIC = -0.75
FARTHEST = float(1 << 30)
"""Positions are clamped to +-2**30 before they become integers: farther ones lie outside every image as well."""


@op("grid_sample", compare=SUMMED)
class GridSample(Op):
    """x[N,C,*in] at grid[N,*out,D], which holds D coordinates (the last axis of x first) from -1 to 1 over the image:
    pixel centres are the ends with `align_corners`, pixel borders without. Outside, `padding` says what there is:
    zeros, the nearest pixel, or the image mirrored. A coordinate that is NaN gives NaN."""

    mode: Literal["nearest", "linear", "cubic"] = "linear"
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    align_corners: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, grid = required(self, inputs, 2)
        float_dtype(self, (x, grid))
        rank = x.rank - 2
        if rank < 1 or grid.rank != x.rank or grid.shape[-1] != rank or not same_dim(x.shape[0], grid.shape[0]):
            raise ValueError(f"grid_sample cannot read {x} at {grid}")
        return (x.with_shape((*x.shape[:2], *grid.shape[1:-1])),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, grid = required(self, inputs, 2)
        batch, rank = x.shape[0], x.ndim - 2
        points = grid.reshape(batch, -1, rank)
        with np.errstate(all="ignore"):
            taps = [self.taps(points[:, :, rank - 1 - d], x.shape[2 + d]) for d in range(rank)]
            y = np.zeros((batch, points.shape[1], x.shape[1]))
            for chosen in itertools.product(range(taps[0][0].shape[2]), repeat=rank):
                index = [taps[d][0][:, :, t] for d, t in enumerate(chosen)]
                weight = np.prod([taps[d][1][:, :, t] for d, t in enumerate(chosen)], axis=0)
                inside = np.all([i >= 0 for i in index], axis=0)
                values = np.moveaxis(x, 1, -1)[(np.arange(batch)[:, None], *index)]
                y += np.where(inside[..., None], values, 0) * weight[..., None]
            y[np.isnan(points).any(2)] = np.nan
        return (np.moveaxis(y, 2, 1).reshape(*x.shape[:2], *grid.shape[1:-1]).astype(x.dtype),)

    def taps(self, g: Array, size: int) -> tuple[Array, Array]:
        """Pixels (-1: a zero) and weights, each of g's shape and one axis more, that coordinates g of an axis read."""
        at = self._position(g, size)
        if self.mode == "nearest":
            return self._pixels(_integer(at), size)[..., None], np.ones((*g.shape, 1), g.dtype)
        low = np.floor(at)
        t = at - low
        first, weights = (0, (1 - t, t)) if self.mode == "linear" else (-1, cubic_weights(t))
        pixels = [self._pixels(_integer(low) + first + i, size) for i in range(len(weights))]
        return np.stack(pixels, -1), np.stack(weights, -1)

    def _position(self, g: Array, size: int) -> Array:
        """Coordinates in pixels, moved into the image as the padding says; in g's dtype, operation by operation."""
        v = (g + 1) / 2 * (size - 1) if self.align_corners else ((g + 1) * size - 1) / 2
        if self.mode == "nearest":
            v = np.rint(v)
        low, high = (0.0, size - 1.0) if self.align_corners else (-0.5, size - 0.5)
        outside = (v < low) | (v > high)
        if self.padding == "border":
            if self.mode == "cubic":  # only its pixels are, as in PyTorch and ONNX Runtime
                return np.asarray(v)
            return np.where(outside, np.clip(v, 0, size - 1), v).astype(g.dtype)
        if self.padding == "zeros":
            return np.asarray(v)
        if high == low:
            return np.where(outside, low, v).astype(g.dtype)
        beyond = np.where(v < low, low - v, v - high).astype(g.dtype)
        turns = np.trunc(beyond / g.dtype.type(high - low))
        rest = beyond - turns * g.dtype.type(high - low)
        from_low = (turns % 2 == 0) == (v < low)
        return np.where(outside, np.where(from_low, low + rest, high - rest), v).astype(g.dtype)

    def _pixels(self, i: Array, size: int) -> Array:
        if self.padding == "zeros":
            return np.where((i >= 0) & (i < size), i, -1)
        if self.padding == "border":
            return np.clip(i, 0, size - 1)
        period = max(2 * (size - 1) if self.align_corners else 2 * size, 1)
        m = i % period
        return np.asarray(np.where(m < size, m, (period if self.align_corners else period - 1) - m))


def cubic_weights(t: Array) -> tuple[Array, ...]:
    """Weights of the pixels at -1, 0, 1 and 2 for a point at t in [0, 1] (Keys 1981, a = -0.75)."""

    def near(s: Array) -> Array:
        return np.asarray(((CUBIC + 2) * s - (CUBIC + 3)) * s * s + 1)

    def far(s: Array) -> Array:
        return np.asarray(((CUBIC * s - 5 * CUBIC) * s + 8 * CUBIC) * s - 4 * CUBIC)

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def _integer(v: Array) -> Array:
    return np.asarray(np.clip(np.nan_to_num(v, nan=0.0), -FARTHEST, FARTHEST), np.int64)


@op("roi_align", compare=SUMMED)
class RoiAlign(Op):
    """Boxes of x[N,C,H,W] resampled to [R,C,height,width]. rois[R,4] holds (x1, y1, x2, y2), which `scale` brings to
    pixels; batch[R] (i32 or i64) the image of each. A cell is the mean, or the maximum of weighted pixels as ONNX has
    it, over `samples` bilinear samples per axis (0: as many as pixels). Samples out of the image count as zeros."""

    height: int
    width: int
    samples: int = 0
    scale: float = 1.0
    half_pixel: bool = True
    maximum: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, rois, batch = required(self, inputs, 3)
        _check_boxes(self, x, rois, batch)
        if self.height < 1 or self.width < 1 or self.samples < 0:
            raise ValueError(f"roi_align cannot make {self.height}x{self.width} cells of {self.samples} samples")
        return (x.with_shape((rois.shape[0], x.shape[1], self.height, self.width)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, rois, batch = required(self, inputs, 3)
        y = np.zeros((rois.shape[0], x.shape[1], self.height, self.width), x.dtype)
        with np.errstate(all="ignore"):
            for r, image in enumerate(batch):
                starts = rois[r] * x.dtype.type(self.scale) - x.dtype.type(0.5 if self.half_pixel else 0)
                rows = self._samples(starts[1], starts[3], self.height, x.shape[2])
                columns = self._samples(starts[0], starts[2], self.width, x.shape[3])
                y[r] = self._cells(x[image], rows, columns)
        return (y,)

    def _samples(self, start: Array, end: Array, cells: int, size: int) -> tuple[Array, ...]:
        """Lower and upper pixel, weight of the upper one, and whether it is inside, of each sample [cells, samples]."""
        extent = end - start
        if not self.half_pixel:
            extent = np.maximum(extent, extent.dtype.type(1))
        step = extent / extent.dtype.type(cells)
        count = self.samples or int(_integer(np.ceil(step)))
        sample = np.arange(max(count, 0)).astype(extent.dtype) + extent.dtype.type(0.5)
        at = (
            start
            + np.arange(cells).astype(extent.dtype)[:, None] * step
            + sample * step / extent.dtype.type(count or 1)
        )
        inside = (at >= -1) & (at <= size)
        at = np.where(inside, np.maximum(at, 0), 0)
        low = np.minimum(at.astype(np.int64), size - 1)
        last = low == size - 1
        return low, np.where(last, low, low + 1), np.where(last, 0, at - low), inside

    def _cells(self, image: Array, rows: tuple[Array, ...], columns: tuple[Array, ...]) -> Array:
        (top, bottom, v, v_in), (left, right, h, h_in) = rows, columns
        inside = v_in[:, :, None, None] & h_in
        parts = []
        for row, vertical in ((top, 1 - v), (bottom, v)):
            for column, horizontal in ((left, 1 - h), (right, h)):
                values = image[:, row][..., column]
                parts.append(np.where(inside, values * (vertical[:, :, None, None] * horizontal), 0))
        count = max(top.shape[1] * left.shape[1], 1)
        if top.shape[1] * left.shape[1] == 0:
            return np.zeros((image.shape[0], self.height, self.width), image.dtype)
        if self.maximum:
            return np.asarray(np.max(parts, axis=(0, 3, 5)))
        return np.asarray(np.sum(parts, axis=(0, 3, 5)) / image.dtype.type(count))


def _check_boxes(op: Op, x: TensorType, rois: TensorType, batch: TensorType) -> None:
    float_dtype(op, (x, rois))
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 4 or batch.rank != 1:
        raise ValueError(f"{op.kind} cannot read boxes {rois} of images {batch} from {x}")
    if batch.dtype not in (DType.i32, DType.i64) or not same_dim(rois.shape[0], batch.shape[0]):
        raise ValueError(f"{op.kind} needs an i32 or i64 image number for each box of {rois}, not {batch}")


@op("max_roi_pool", compare=EXACT)
class MaxRoiPool(Op):
    """The largest pixels of the cells of boxes of x[N,C,H,W] -> [R,C,height,width].

    rois[R,4] holds (x1, y1, x2, y2); corners times `scale` are rounded to whole pixels, halves away from zero, and
    belong to the box (Girshick, "Fast R-CNN", 2015). batch[R] (i32 or i64) is the image of each. A cell covers every
    pixel that it touches; one out of the image is 0.
    """

    height: int
    width: int
    scale: float = 1.0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, rois, batch = required(self, inputs, 3)
        _check_boxes(self, x, rois, batch)
        if self.height < 1 or self.width < 1:
            raise ValueError(f"max_roi_pool cannot make {self.height}x{self.width} cells")
        return (x.with_shape((rois.shape[0], x.shape[1], self.height, self.width)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, rois, batch = required(self, inputs, 3)
        y = np.zeros((rois.shape[0], x.shape[1], self.height, self.width), x.dtype)
        with np.errstate(all="ignore"):
            for r, image in enumerate(batch):
                left, top, right, bottom = (int(_integer(v)) for v in _rounded(rois[r] * x.dtype.type(self.scale)))
                rows = self._cells(top, bottom, self.height, x.shape[2], x.dtype)
                columns = self._cells(left, right, self.width, x.shape[3], x.dtype)
                for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
                    cell = x[image, :, row, column]
                    if cell.size:
                        y[r, :, i, j] = cell.max((1, 2))
        return (y,)

    def _cells(self, first: int, last: int, cells: int, size: int, dtype: np.dtype[np.generic]) -> list[slice]:
        """The pixels of each cell along one axis."""
        extent, parts = np.array([max(last - first + 1, 1), cells]).astype(dtype)
        edges = np.arange(cells + 1).astype(dtype) * (extent / parts)
        starts, ends = _integer(np.floor(edges[:-1])), _integer(np.ceil(edges[1:]))
        return [
            slice(min(max(int(s) + first, 0), size), min(max(int(e) + first, 0), size))
            for s, e in zip(starts, ends, strict=True)
        ]


def _rounded(v: Array) -> Array:
    """The nearest integers, halves away from zero."""
    return np.asarray(np.trunc(v + np.copysign(np.nextafter(v.dtype.type(0.5), v.dtype.type(0)), v)))
