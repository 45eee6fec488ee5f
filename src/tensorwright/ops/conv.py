# SPDX-License-Identifier: Apache-2.0
"""Convolution and its transpose, over any number of spatial dims."""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import SUMMED, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import optional, required, same_dim, same_dtype, widen
from tensorwright.ops.window import Ints, at_tap, check_window, extents, output_dims, pad_spatial, taps

_BLOCK_ELEMS = 1 << 24  # unfolded input held at a time


@op("convolution", compare=SUMMED)
class Convolution(Op):
    """Cross-correlation of x[N,C,*in] with w[K,C/groups,*kernel], plus an optional bias[K] -> [N,K,*out].

    `pads` are (begin..., end...) zeros per spatial dim; out = (in + pads - ((kernel-1)*dilation+1)) // stride + 1.
    """

    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int = 1

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, w = required(self, inputs, 2, 1)
        _check(self, x, w, optional(inputs, 2), list(w.shape[:1]), self.groups, self.strides, self.pads, self.dilations)
        kernel = w.static_shape[2:]
        if not same_dim(x.shape[1], w.static_shape[1] * self.groups) or w.static_shape[0] % self.groups:
            raise ValueError(f"convolution with {self.groups} groups cannot apply weights {w} to {x}")
        spatial = output_dims(self, x.shape[2:], kernel, self.strides, self.pads, self.dilations)
        return (TensorType(x.dtype, (x.shape[0], w.shape[0], *spatial)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, w = required(self, inputs, 2, 1)
        bias = optional(inputs, 2)
        kernel, dtype = w.shape[2:], x.dtype
        x, w = widen(pad_spatial(x, self.pads, 0.0)), widen(w)
        sizes = zip(x.shape[2:], extents(kernel, self.dilations), self.strides, strict=True)
        spatial = tuple((size - extent) // stride + 1 for size, extent, stride in sizes)
        with np.errstate(all="ignore"):
            method = _depthwise if w.shape[1] == 1 and self.groups == x.shape[1] > 1 else _unfolded
            y = method(self, x, w, spatial)
            if bias is not None:
                y += widen(bias).reshape(-1, *[1] * len(kernel))
        return (y.astype(dtype, copy=False),)


def _depthwise(conv: Convolution, x: Array, w: Array, spatial: Ints) -> Array:
    """Each output channel reads one input channel: add the shifted inputs tap by tap."""
    n, c = x.shape[:2]
    y = np.zeros((n, c, w.shape[0] // c, *spatial), x.dtype)
    ones = [1] * len(spatial)
    for tap, view in taps(x, w.shape[2:], conv.strides, conv.dilations, spatial):
        y += view[:, :, None] * at_tap(w[:, 0], tap).reshape(c, -1, *ones)
    return y.reshape(n, w.shape[0], *spatial)


def _unfolded(conv: Convolution, x: Array, w: Array, spatial: Ints) -> Array:
    """One matrix product per image, group and block of output rows, over the unfolded input."""
    n, c = x.shape[:2]
    g, kernel = conv.groups, w.shape[2:]
    depth, tap_count = c // g, math.prod(kernel)
    matrix = w.reshape(g, w.shape[0] // g, depth * tap_count)
    y = np.empty((n, w.shape[0], *spatial), x.dtype)
    row_elems = c * tap_count * math.prod(spatial[1:])
    rows = max(1, _BLOCK_ELEMS // max(1, row_elems))
    for image in range(n):
        for begin in range(0, spatial[0], rows):
            end = min(begin + rows, spatial[0])
            part = x[image, :, begin * conv.strides[0] :]
            outputs = (end - begin, *spatial[1:])
            columns = np.empty((c, *kernel, *outputs), x.dtype)
            for tap, view in taps(part, kernel, conv.strides, conv.dilations, outputs):
                np.copyto(at_tap(columns, tap), view)
            block = np.matmul(matrix, columns.reshape(g, depth * tap_count, math.prod(outputs)))
            y[image, :, begin:end] = block.reshape(y.shape[1], *outputs)
    return y


@op("deconvolution", compare=SUMMED)
class Deconvolution(Op):
    """The transpose (gradient) of a convolution: x[N,C,*in], w[C,K/groups,*kernel], optional bias[K] -> [N,K,*out].

    Every input element adds its weights at stride distances; `pads` (begin..., end...) are cut off the result and
    `output_padding` is added after it: out = (in-1)*stride + (kernel-1)*dilation + 1 + output_padding - pads.
    """

    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int = 1
    output_padding: Ints = ()

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, w = required(self, inputs, 2, 1)
        channels = [d * self.groups for d in w.shape[1:2]]
        _check(self, x, w, optional(inputs, 2), channels, self.groups, self.strides, self.pads, self.dilations)
        kernel = w.static_shape[2:]
        if not same_dim(x.shape[1], w.static_shape[0]) or w.static_shape[0] % self.groups:
            raise ValueError(f"deconvolution with {self.groups} groups cannot apply weights {w} to {x}")
        extra = self.output_padding or (0,) * len(kernel)
        if len(extra) != len(kernel) or any(e < 0 for e in extra):
            raise ValueError(f"deconvolution needs {len(kernel)} non-negative output paddings, not {extra}")
        spatial = [
            (size - 1) * s + extent + e - self.pads[i] - self.pads[len(kernel) + i]
            for i, (size, s, extent, e) in enumerate(
                zip(x.shape[2:], self.strides, extents(kernel, self.dilations), extra, strict=True)
            )
        ]
        if any(isinstance(d, int) and d < 0 for d in spatial):
            raise ValueError(f"deconvolution of {x} by {w} with pads {self.pads} has a negative size {spatial}")
        return (TensorType(x.dtype, (x.shape[0], channels[0], *spatial)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, w = required(self, inputs, 2, 1)
        bias = optional(inputs, 2)
        kernel, dtype = w.shape[2:], x.dtype
        rank, g, n, k = len(kernel), self.groups, x.shape[0], w.shape[1] * self.groups
        extra = self.output_padding or (0,) * rank
        x, w = widen(x), widen(w)
        matrix = w.reshape(g, w.shape[0] // g, -1).swapaxes(1, 2)
        full = [
            (size - 1) * s + extent + e
            for size, s, extent, e in zip(
                x.shape[2:], self.strides, extents(kernel, self.dilations), extra, strict=True
            )
        ]
        y = np.zeros((n, k, *(max(f, 0) for f in full)), x.dtype)
        with np.errstate(all="ignore"):
            for image in range(n):
                columns = np.matmul(matrix, x[image].reshape(g, x.shape[1] // g, math.prod(x.shape[2:])))
                spread = columns.reshape(k, *kernel, *x.shape[2:])
                for tap, view in taps(y[image], kernel, self.strides, self.dilations, x.shape[2:]):
                    view += at_tap(spread, tap)
            cut = [slice(self.pads[i], full[i] - self.pads[rank + i]) for i in range(rank)]
            y = y[(slice(None), slice(None), *cut)]
            if bias is not None:
                y = y + widen(bias).reshape(-1, *[1] * rank)
        return (np.ascontiguousarray(y.astype(dtype, copy=False)),)


def _check(
    op: Op,
    x: TensorType,
    w: TensorType,
    bias: TensorType | None,
    channels: list[Dim],
    groups: int,
    strides: Ints,
    pads: Ints,
    dilations: Ints,
) -> None:
    """What both directions require of their types."""
    if same_dtype(op, (x, w, bias)) is DType.bool:
        raise ValueError(f"{op.kind} needs numbers, not bool")
    if x.rank < 3 or w.rank != x.rank or not w.is_static:
        raise ValueError(f"{op.kind} needs x of rank 3 or more and static weights of the same rank, not {x} and {w}")
    if groups < 1:
        raise ValueError(f"{op.kind} needs at least one group, not {groups}")
    check_window(op, x.rank - 2, {"strides": strides, "dilations": dilations, "kernel dims": w.static_shape[2:]}, pads)
    if bias is not None and list(bias.shape) != channels:
        raise ValueError(f"{op.kind} with {channels[0]} output channels cannot add a bias {bias}")
