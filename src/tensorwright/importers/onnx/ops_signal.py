# SPDX-License-Identifier: Apache-2.0
"""ONNX signal processing: Fourier transforms as products with constant matrices, and window functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, normal_axis, onnx_op
from tensorwright.importers.onnx.tensors import dtype_of
from tensorwright.ir.dims import product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Cast, Mul
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.shape import Reshape, Slice, Transpose

_GIVE_SHAPES = "give every input a fixed shape with shapes="
_FLOAT = 1  # TensorProto.FLOAT


@onnx_op("DFT", since=17)
def dft_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 19 the axis is an attribute."""
    return _dft(b, n, n.attr("axis", int, 1))


@onnx_op("DFT", since=20)
def dft(b: Builder, n: OnnxNode) -> Result:
    """The axis is an input."""
    axis = -2 if n.optional(2) is None else int(n.constant(2, "DFT needs a known axis").reshape(()))
    return _dft(b, n, axis)


def _dft(b: Builder, n: OnnxNode, axis: int) -> Value:
    """Along one axis of x[..., 1 or 2], whose last axis holds the real and the imaginary part.

    Computed in f64: sums of f32 products would lose the zeros of a spectrum, which a fast transform keeps.
    """
    x, inverse, onesided = n.input(0), n.flag("inverse"), n.flag("onesided")
    axis, parts = normal_axis(axis, x.type.rank), x.type.shape[-1]
    given = x.type.shape[axis]
    if axis == x.type.rank - 1 or parts not in (1, 2):
        raise ValueError(f"it transforms axis {axis} of {x.type}, whose last axis must hold parts of complex numbers")
    if not isinstance(given, int) or not isinstance(parts, int):
        n.refuse(f"it needs a known length of the signal, not {given}", _GIVE_SHAPES)
    if n.optional(1) is not None:
        size = int(n.constant(1, "DFT needs a known dft_length").reshape(()))
    else:
        size = 2 * (given - 1) if inverse and onesided else given
    if size < 1 or (onesided and not inverse and parts == 2):
        raise ValueError(f"a transform of length {size}, onesided={onesided}, does not fit {x.type}")
    matrix = _matrix(size, given, inverse=inverse, onesided=onesided)[:, :parts]
    used, _, count, parts_out = matrix.shape
    n.limit_constant(matrix.size)
    if used < given:
        x = b.add(Slice((0,), (used,), (axis,), (1,)), x)
    last = x.type.rank - 1
    order = (*(d for d in range(last) if d != axis), axis, last)
    beside = tuple(x.type.shape[d] for d in order[:-2])
    flat = _as(b, b.add(Reshape((product(beside), used * parts)), b.add(Transpose(order), x)), DType.f64)
    table = b.constant(matrix.reshape(used * parts, count * parts_out))
    y = b.add(Reshape((*beside, count, parts_out)), _as(b, b.add(MatMul(), flat, table), x.type.dtype))
    return b.add(Transpose(tuple(order.index(d) for d in range(last + 1))), y)


def _as(b: Builder, x: Value, dtype: DType) -> Value:
    return x if x.type.dtype is dtype else b.add(Cast(dtype), x)


def _matrix(size: int, given: int, *, inverse: bool, onesided: bool) -> Array:
    """[element, part in, element, part out] of a transform of length `size`, for the elements that are `given`: missing
    ones count as zeros."""
    bins = size // 2 + 1 if onesided else size
    if not inverse:
        return _fourier_matrix(size, bins)[:given]
    matrix = _fourier_matrix(size, size) / size
    matrix[:, 1] *= -1  # the conjugate of the transform,
    matrix[..., 1] *= -1  # of conjugate numbers
    if not onesided:
        return matrix[:given]
    # the other half of the spectrum mirrors this one: all but the first bin, and the middle one, count twice
    half = matrix[:bins, :, :, :1].copy()
    half[1 : size - bins + 1] *= 2
    return half[:given]


@onnx_op("STFT", since=17)
def stft(b: Builder, n: OnnxNode) -> Result:
    """Frames of the signal times the window, times a Fourier matrix; the parts of complex numbers are an axis of 2."""
    signal, window = n.input(0), n.optional(2)
    step = int(n.constant(1, "STFT needs a known frame_step").reshape(()))
    if signal.type.rank != 3 or not signal.type.is_static:
        n.refuse(f"it needs a signal [batch, length, 1 or 2] of known size, not {signal.type}", _GIVE_SHAPES)
    batch, length, parts = signal.type.static_shape
    if n.optional(3) is not None:
        size = int(n.constant(3, "STFT needs a known frame_length").reshape(()))
    elif window is not None and window.type.is_static:
        size = math.prod(window.type.static_shape)
    else:
        raise ValueError("it has neither a window nor a frame_length")
    onesided = n.flag("onesided", True)
    if step < 1 or not 1 <= size <= length or parts not in (1, 2) or (onesided and parts == 2):
        raise ValueError(f"frames of {size} every {step}, onesided={onesided}, do not fit {signal.type}")
    frames, bins = (length - size) // step + 1, size // 2 + 1 if onesided else size
    n.limit_constant(size * parts * bins * 2)
    places = np.arange(frames)[:, None] * step + np.arange(size)
    x = b.add(Gather(1), signal, b.constant(places))
    if window is not None:
        x = b.add(Mul(), x, b.add(Reshape((size, 1)), window))
    matrix = b.constant(
        _fourier_matrix(size, bins)[:, :parts].reshape(size * parts, bins * 2).astype(signal.type.dtype.numpy)
    )
    y = b.add(MatMul(), b.add(Reshape((batch * frames, size * parts)), x), matrix)
    return b.add(Reshape((batch, frames, bins, 2)), y)


def _fourier_matrix(size: int, bins: int) -> Array:
    """[time, part in, bin, part out] of exp(-2 pi i time bin / size); parts are real and imaginary."""
    turns = np.outer(np.arange(size), np.arange(bins)) % size  # exact angles also for long signals
    real, imaginary = np.cos(2 * np.pi * turns / size), -np.sin(2 * np.pi * turns / size)
    return np.stack([np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)], 1)


def _window_function(name: str, cosines: Sequence[float]) -> OnnxOp:
    """A window of known size: the sum of `cosines[k] * cos(2 pi k i / period)` with alternating signs."""

    def translate(b: Builder, n: OnnxNode) -> Result:
        size = int(n.constant(0, f"{name} needs a known size").reshape(()))
        dtype = dtype_of(n.dtype_attr("output_datatype", _FLOAT))
        if dtype is None or size < 0:
            raise ValueError(f"it makes no window of {size} elements of that type")
        n.limit_constant(size)
        period = size if n.flag("periodic", True) else size - 1
        angle = 2 * np.pi * np.arange(size) / max(period, 1)
        total = sum((-1) ** k * c * np.cos(k * angle) for k, c in enumerate(cosines))
        return b.constant(np.asarray(total, np.float64).astype(dtype.numpy))

    return OnnxOp(name, 17, translate)


OPS = [
    dft_by_attribute,
    dft,
    stft,
    _window_function("HannWindow", (0.5, 0.5)),
    _window_function("HammingWindow", (25 / 46, 21 / 46)),
    _window_function("BlackmanWindow", (0.42, 0.5, 0.08)),
]
