# SPDX-License-Identifier: Apache-2.0
"""ONNX ops written with others: p-norm pools, mean-variance normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axes, onnx_op
from tensorwright.importers.onnx.windows import Window, read_window
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.ops.elementwise import Abs, Add, Div, Mul, Pow, Sqrt, Sub
from tensorwright.ops.pool import AveragePool
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.window import output_dims

_MVN_EPSILON = 1e-9


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


OPS = [mean_variance_normalization, global_lp_pool, lp_pool]
