# SPDX-License-Identifier: Apache-2.0
"""TensorFlow convolutions and pools. Filters are [*kernel, in, out]; NHWC images are transposed before and after, and
`passes/solve_layout.py` takes the transpositions out again."""

from __future__ import annotations

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.windows import (
    Ints,
    as_given,
    image,
    is_channels_first,
    pads,
    spatial,
    spatial_list,
)
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add, Cast, Div, Mod, Mul
from tensorwright.ops.pool import AveragePool, MaxPool, MaxPoolIndices
from tensorwright.ops.shape import Reshape, Transpose


@tf_op("Conv2D", "Conv3D", "Conv")
def conv(b: Builder, n: OpNode) -> Result:
    """Cross-correlation; a filter of fewer input channels than the image has makes groups."""
    x, w = image(b, n, n.input(0)), n.input(1)
    kernel, depth, outputs = _filter(n, w, x)
    channels = x.type.shape[1]
    if not isinstance(channels, int) or channels % depth or outputs % (channels // depth):
        raise ValueError(f"a filter of {w.type} does not fit {channels} channels")
    rank = len(kernel)
    weights = b.add(Transpose((rank + 1, rank, *range(rank))), w)
    return as_given(b, n, _convolved(b, n, x, weights, kernel, channels // depth))


@tf_op("DepthwiseConv2dNative")
def depthwise(b: Builder, n: OpNode) -> Result:
    """Each channel by its own filters: [*kernel, channels, multiplier]; result channel c * multiplier + m."""
    x, w = image(b, n, n.input(0)), n.input(1)
    kernel, channels, multiplier = _filter(n, w, x)
    if x.type.shape[1] != channels:
        raise ValueError(f"a filter of {w.type} does not fit {x.type.shape[1]} channels")
    rows = b.add(Transpose((2, 3, 0, 1)), w)
    weights = b.add(Reshape((channels * multiplier, 1, *kernel)), rows)
    return as_given(b, n, _convolved(b, n, x, weights, kernel, channels))


def _filter(n: OpNode, w: Value, x: Value) -> tuple[Ints, int, int]:
    """Kernel, input and output channels of a filter."""
    if w.type.rank != x.type.rank or not w.type.is_static:
        raise ValueError(f"a filter of {w.type} does not fit an image of rank {x.type.rank}")
    *kernel, inner, outer = w.type.static_shape
    if min(*kernel, inner, outer) < 1:
        raise ValueError(f"a filter of {w.type} is empty")
    return tuple(kernel), inner, outer


def _window(n: OpNode, sizes: tuple[Dim, ...], kernel: Ints) -> tuple[Ints, Ints, Ints]:
    """Strides, padding and dilations."""
    strides, dilations = (spatial_list(n, name, len(kernel)) for name in ("strides", "dilations"))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return strides, pads(n, sizes, extents, strides), dilations


def _convolved(b: Builder, n: OpNode, x: Value, weights: Value, kernel: Ints, groups: int) -> Value:
    strides, padding, dilations = _window(n, x.type.shape[2:], kernel)
    return b.add(Convolution(strides, padding, dilations, groups), x, weights)


@tf_op("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def conv_transposed(b: Builder, n: OpNode) -> Result:
    """The transpose of a convolution, to the size that input 0 says; the filter is [*kernel, out, in]."""
    x, w = image(b, n, n.input(2)), n.input(1)
    wanted = n.dims(0, "its size is asked for")
    kernel, outputs, _ = _filter(n, w, x)
    rank = len(kernel)
    if len(wanted) != rank + 2:
        raise ValueError(f"a size of {len(wanted)} dims does not fit images of rank {rank + 2}")
    sizes = wanted[2:] if is_channels_first(n) else wanted[1:-1]
    strides, padding, dilations = _window(n, tuple(sizes), kernel)
    extra = []
    for i, (size, target) in enumerate(zip(x.type.shape[2:], sizes, strict=True)):
        extent = (kernel[i] - 1) * dilations[i] + 1
        rest = target - ((size - 1) * strides[i] + extent - padding[i] - padding[rank + i])
        if not isinstance(rest, int) or rest < 0:
            raise ValueError(f"its size {[str(d) for d in wanted]} cannot be made from {x.type}")
        extra.append(rest)
    op = Deconvolution(strides, padding, dilations, _groups(x, w, outputs), tuple(extra))
    return as_given(b, n, b.add(op, x, b.add(Transpose((rank + 1, rank, *range(rank))), w)))


def _groups(x: Value, w: Value, outputs: int) -> int:
    """1: the filter of a transposed convolution has all input channels."""
    if x.type.shape[1] != w.type.shape[-1]:
        raise ValueError(f"a filter of {w.type} does not fit {x.type.shape[1]} channels to {outputs}")
    return 1


@tf_op("MaxPool", "MaxPool3D", "AvgPool", "AvgPool3D")
def pool(b: Builder, n: OpNode) -> Result:
    """The maximum or mean of each window; elements that padding adds never count."""
    given = n.ints("ksize")
    if not given:
        raise ValueError("attribute 'ksize' is missing")
    return _pooled(b, n, n.input(0), spatial(n, given, "ksize"), spatial_list(n, "strides", len(given) - 2))


@tf_op("MaxPoolV2")
def max_pool_v2(b: Builder, n: OpNode) -> Result:
    """Window and strides are inputs."""
    kernel, strides = (spatial(n, n.integers(i, "it is a window"), "window") for i in (1, 2))
    return _pooled(b, n, n.input(0), kernel, strides)


def _pooled(b: Builder, n: OpNode, given: Value, kernel: Ints, strides: Ints) -> Value:
    x = image(b, n, given)
    if len(kernel) != x.type.rank - 2 or min(*kernel, *strides) < 1:
        raise ValueError(f"a window of {kernel} with strides {strides} does not fit {given.type}")
    padding, ones = pads(n, x.type.shape[2:], kernel, strides), (1,) * len(kernel)
    op = MaxPool if n.op.startswith("Max") else AveragePool
    return as_given(b, n, b.add(op(kernel, strides, padding, ones), x))


@tf_op("MaxPoolWithArgmax")
def max_pool_with_argmax(b: Builder, n: OpNode) -> Result:
    """Maxima and their positions in the NHWC image, ((y * width) + x) * channels + c, or over the whole batch."""
    kernel, strides = spatial(n, n.ints("ksize") or (), "ksize"), spatial_list(n, "strides", 2)
    x = image(b, n, n.input(0))
    channels, height, width = (d for d in x.type.shape[1:])
    padding = pads(n, x.type.shape[2:], kernel, strides)
    if not all(isinstance(d, int) for d in (channels, height, width)):
        n.refuse("positions count from its start, so its size must be known", "give every input a fixed shape")
    window = (kernel, strides, padding, (1, 1))
    flat = b.add(MaxPoolIndices(*window), x)  # ((image * channels + c) * height + y) * width + x
    plane = b.scalar(int(height) * int(width), DType.i64)
    count = b.scalar(int(channels), DType.i64)
    row = b.add(Div(), flat, plane)
    position = b.add(Add(), b.add(Mul(), b.add(Mod(), flat, plane), count), b.add(Mod(), row, count))
    if n.flag("include_batch_in_index"):
        whole = b.scalar(int(height) * int(width) * int(channels), DType.i64)
        position = b.add(Add(), position, b.add(Mul(), b.add(Div(), row, count), whole))
    dtype = n.dtype("Targmax", DType.i64)
    position = position if dtype is DType.i64 else b.add(Cast(dtype), position)
    return [as_given(b, n, b.add(MaxPool(*window), x)), as_given(b, n, position)]


OPS: list[TfOp] = [*conv, *depthwise, *conv_transposed, *pool, *max_pool_v2, *max_pool_with_argmax]
