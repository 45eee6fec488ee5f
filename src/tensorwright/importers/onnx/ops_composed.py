# SPDX-License-Identifier: Apache-2.0
"""ONNX ops written with others: p-norm pools, mean-variance normalisation, window functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, normal_axes, onnx_op
from tensorwright.importers.onnx.tensors import dtype_of
from tensorwright.importers.onnx.windows import Window, read_window
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Abs, Add, Div, Mul, Pow, Sqrt, Sub
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.pool import AveragePool
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape
from tensorwright.ops.window import output_dims

_MVN_EPSILON = 1e-9
_GIVE_SHAPES = "give every input a fixed shape with shapes="
_FLOAT = 1  # TensorProto.FLOAT


@onnx_op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(b: Builder, n: OnnxNode) -> Result:
    """(x - mean) / (standard deviation + 1e-9) over `axes`."""
    x = n.input(0)
    axes = n.ints("axes")
    axes = normal_axes((0, 2, 3) if axes is None else axes, x.type.rank)
    centred = b.add(Sub(), x, b.add(Reduce("mean", axes, True), x))
    deviation = b.add(Sqrt(), b.add(Reduce("mean", axes, True), b.add(Mul(), centred, centred)))
    return b.add(Div(), centred, b.add(Add(), deviation, b.scalar(_MVN_EPSILON, x.type.dtype)))


@onnx_op("GlobalLpPool")
def global_lp_pool(b: Builder, n: OnnxNode) -> Result:
    """The p-norm of each channel."""
    x, p = n.input(0), _exponent(n)
    axes = tuple(range(2, 2 + len(_spatial(x))))
    return _root(b, b.add(Reduce("sum", axes, True), _power(b, x, p)), p)


@onnx_op("LpPool")
def lp_pool(b: Builder, n: OnnxNode) -> Result:
    """The p-norm of each window: the mean of powers, with padding counted as zeros, times the window's size."""
    x, p, kernel = n.input(0), _exponent(n), n.ints("kernel_shape")
    if kernel is None:
        raise ValueError("attribute 'kernel_shape' is missing")
    w = read_window(n, _spatial(x), kernel)
    pads = _ceil_pads(n, w, _spatial(x)) if n.flag("ceil_mode") else w.pads
    pool = AveragePool(w.kernel, w.strides, pads, w.dilations, False, True)
    total = b.add(Mul(), b.add(pool, _power(b, x, p)), b.scalar(math.prod(w.kernel), x.type.dtype))
    return _root(b, total, p)


def _ceil_pads(n: OnnxNode, w: Window, spatial: Sequence[Dim]) -> tuple[int, ...]:
    """Padding with which every window that ceil mode adds is a whole one."""
    rank, ends = len(spatial), []
    counts = output_dims(AveragePool(w.kernel, w.strides, w.pads, w.dilations), spatial, *_window_of(w), True)
    for i, (size, count) in enumerate(zip(spatial, counts, strict=True)):
        if not isinstance(size, int) or not isinstance(count, int):
            n.refuse(f"ceil_mode needs a known size, not {size}", "give every input a fixed shape with shapes=")
        reach = (count - 1) * w.strides[i] + w.extents[i] - size - w.pads[i]
        ends.append(max(reach, w.pads[rank + i]))
    return (*w.pads[:rank], *ends)


def _window_of(w: Window) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return w.kernel, w.strides, w.pads, w.dilations


def _exponent(n: OnnxNode) -> int:
    p = n.attr("p", int, 2)
    if p < 1:
        raise ValueError(f"p is {p}, expected 1 or more")
    return p


def _power(b: Builder, x: Value, p: int) -> Value:
    """|x| to the p."""
    if p == 2:
        return b.add(Mul(), x, x)
    size = b.add(Abs(), x)
    return size if p == 1 else b.add(Pow(), size, b.scalar(p, x.type.dtype))


def _root(b: Builder, x: Value, p: int) -> Value:
    if p == 1:
        return x
    return b.add(Sqrt(), x) if p == 2 else b.add(Pow(), x, b.scalar(1 / p, x.type.dtype))


def _spatial(x: Value) -> tuple[Dim, ...]:
    if x.type.rank < 3:
        raise ValueError(f"the input must have batch, channel and spatial dims, it is {x.type}")
    return x.type.shape[2:]


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
    mean_variance_normalization,
    global_lp_pool,
    lp_pool,
    stft,
    _window_function("HannWindow", (0.5, 0.5)),
    _window_function("HammingWindow", (25 / 46, 21 / 46)),
    _window_function("BlackmanWindow", (0.42, 0.5, 0.08)),
]
