# SPDX-License-Identifier: Apache-2.0
"""ONNX signal processing: short Fourier transforms as products with constant matrices, and window functions.

DFT has no function here: a long one wants a fast transform, which is no kernel yet, so it runs in NumPy, which has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.importers.onnx.tensors import dtype_of
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Mul
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.shape import Reshape

_GIVE_SHAPES = "give every input a fixed shape with shapes="
_FLOAT = 1  # TensorProto.FLOAT


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
    stft,
    _window_function("HannWindow", (0.5, 0.5)),
    _window_function("HammingWindow", (25 / 46, 21 / 46)),
    _window_function("BlackmanWindow", (0.42, 0.5, 0.08)),
]
