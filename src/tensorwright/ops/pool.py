# SPDX-License-Identifier: Apache-2.0
"""Windowed maxima and averages over the spatial dims of x[N,C,*in]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import accumulator, float_dtype, required
from tensorwright.ops.window import Ints, check_window, extents, output_dims, pad_spatial, taps


@dataclass(frozen=True)
class Pool(Op):
    """What both pools share. `pads` are (begin..., end...) per spatial dim; windows and `ceil_mode` as ONNX."""

    kernel: Ints
    strides: Ints
    pads: Ints
    dilations: Ints
    ceil_mode: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if x.rank < 3 or x.dtype is DType.bool:
            raise ValueError(f"{self.kind} needs numbers of rank 3 or more, not {x}")
        positive = {"kernel dims": self.kernel, "strides": self.strides, "dilations": self.dilations}
        check_window(self, x.rank - 2, positive, self.pads)
        spatial = output_dims(self, x.shape[2:], self.kernel, self.strides, self.pads, self.dilations, self.ceil_mode)
        return (x.with_shape((*x.shape[:2], *spatial)),)

    def padded(self, x: Array, outputs: Ints, pads: Ints, value: float) -> Array:
        """`x` with `value` wherever a window may read outside; in ceil mode that can be past `pads`."""
        rank = len(outputs)
        spans = extents(self.kernel, self.dilations)
        reach = zip(outputs, self.strides, spans, x.shape[-rank:], pads[:rank], strict=True)
        ends = [max((n - 1) * stride + extent - size - begin, 0) for n, stride, extent, size, begin in reach]
        return pad_spatial(x, (*pads[:rank], *ends), value)


@op("max_pool", compare=EXACT)
class MaxPool(Pool):
    """The largest element of each window; padding never wins, NaN always does."""

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        shape = self.infer(TensorType(DType.of(x.dtype), x.shape))[0].static_shape
        lowest = -np.inf if DType.of(x.dtype).is_float else np.iinfo(x.dtype).min
        y = np.full(shape, lowest, x.dtype)
        source = self.padded(x, shape[2:], self.pads, lowest)
        for _, view in taps(source, self.kernel, self.strides, self.dilations, shape[2:]):
            np.maximum(y, view, out=y)
        return (y,)


@op("max_pool_indices", compare=EXACT)
class MaxPoolIndices(Pool):
    """The i64 flat position in x of what MaxPool takes: of equal elements the first of the window in row-major order,
    the first NaN before all, -1 for a window without elements. With `column_major` positions count as if the spatial
    dims of each image lay in the opposite order."""

    column_major: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (y,) = super().infer(*inputs)
        return (TensorType(DType.i64, y.shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        outputs = self.infer(TensorType(DType.of(x.dtype), x.shape))[0].static_shape[2:]
        flat = np.arange(x.size).reshape(x.shape)
        if self.column_major:
            flat = np.moveaxis(np.arange(x.size).reshape(*x.shape[:2], *reversed(x.shape[2:])).T, (-1, -2), (0, 1))
        sources = (self.padded(a, outputs, self.pads, value) for a, value in ((x, 0), (flat, -1)))
        windows = (taps(s, self.kernel, self.strides, self.dilations, outputs) for s in sources)
        best, found = np.zeros((*x.shape[:2], *outputs), x.dtype), np.full((*x.shape[:2], *outputs), -1, np.int64)
        for (_, value), (_, position) in zip(*windows, strict=True):
            better = (found < 0) | (value > best) | ((value != value) & (best == best))
            taken = (position >= 0) & better
            best, found = np.where(taken, value, best), np.where(taken, position, found)
        return (found,)


@op("average_pool", compare=SUMMED)
class AveragePool(Pool):
    """The mean of each window: over its elements inside the input, or with `count_include_pad` also over those in
    `pads` (as zeros). Elements that ceil mode adds past `pads` never count."""

    count_include_pad: bool = False

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        float_dtype(self, required(self, inputs, 1))
        return super().infer(*inputs)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        shape = self.infer(TensorType(DType.of(x.dtype), x.shape))[0].static_shape
        inside = np.ones(x.shape[2:])
        if self.count_include_pad:
            inside = pad_spatial(inside, self.pads, 1.0)
            inside = self._window_sums(inside, shape[2:], (0,) * len(self.pads))
        else:
            inside = self._window_sums(inside, shape[2:], self.pads)
        with np.errstate(all="ignore"):
            mean = self._window_sums(x.astype(accumulator(x.dtype)), shape[2:], self.pads) / inside
            return (mean.astype(x.dtype),)

    def _window_sums(self, x: Array, outputs: Ints, pads: Ints) -> Array:
        total = np.zeros((*x.shape[: -len(outputs)], *outputs), x.dtype)
        source = self.padded(x, outputs, pads, 0.0)
        for _, view in taps(source, self.kernel, self.strides, self.dilations, outputs):
            total += view
        return total
