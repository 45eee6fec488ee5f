# SPDX-License-Identifier: Apache-2.0
"""Caffe layers with weights: convolutions and products."""

from __future__ import annotations

import math
from typing import Any

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, Result, layer_type, repeated
from tensorwright.ir.dims import product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add, Cast
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.shape import Reshape, Transpose


@layer_type("Convolution")
def convolution(b: Builder, layer: Layer) -> Result:
    """Cross-correlation over any number of spatial dims, with groups and dilation; several bottoms are convolved with
    the same weights."""
    return [_convolved(b, layer, x, transposed=False) for x in _bottoms(layer)]


@layer_type("Deconvolution")
def deconvolution(b: Builder, layer: Layer) -> Result:
    """The transpose of a convolution, with groups and dilation: of stride * (in - 1) + dilation * (kernel - 1) + 1 -
    2 * pad elements."""
    return [_convolved(b, layer, x, transposed=True) for x in _bottoms(layer)]


@layer_type("DepthwiseConvolution")
def depthwise_convolution(b: Builder, layer: Layer) -> Result:
    """A fork's name for a convolution with as many groups as channels."""
    return [_convolved(b, layer, x, transposed=False, depthwise=True) for x in _bottoms(layer)]


def _bottoms(layer: Layer) -> tuple[Value, ...]:
    layer.take(1, max(1, len(layer.tops)))
    return layer.bottoms


def _convolved(b: Builder, layer: Layer, x: Value, *, transposed: bool, depthwise: bool = False) -> Value:
    p = layer.proto.convolution_param
    channel_axis = layer.axis(p.axis, x.type.rank)
    count = x.type.rank - channel_axis - 1
    if count < 1:
        layer.refuse(f"it convolves {x.type}, which has no spatial dims after axis {channel_axis}")
    lead, image = x.type.shape[:channel_axis], x
    if channel_axis != 1:  # all axes before the channels are a batch
        image = b.add(Reshape((product(lead), *x.type.shape[channel_axis:])), x)
    kernel, strides, pads, dilations = _window(p, count)
    (channels,) = layer.known_dims(image.type.shape[1:2], "the weights have a row for each channel")
    outputs, groups = p.num_output, channels if depthwise else p.group
    if min(outputs, groups, channels) < 1 or channels % groups or outputs % groups:
        raise ValueError(f"{channels} channels to {outputs} outputs cannot be split into {groups} groups")
    shape = (channels, outputs // groups, *kernel) if transposed else (outputs, channels // groups, *kernel)
    fan_in = channels // groups * math.prod(kernel)
    inputs = [image, layer.parameter(0, shape, "weight", p.weight_filler, fan_in)]
    if p.bias_term:
        inputs.append(layer.parameter(1, (outputs,), "bias", p.bias_filler))
    op = Deconvolution if transposed else Convolution
    y = b.add(op(strides, pads + pads, dilations, groups), *inputs)
    return y if channel_axis == 1 else b.add(Reshape((*lead, *y.type.shape[1:])), y)


def _window(p: Any, count: int) -> tuple[tuple[int, ...], ...]:
    """Kernel, strides, padding at both ends, and dilations of `count` spatial dims."""
    if p.HasField("kernel_h") or p.HasField("kernel_w"):
        if count != 2 or p.kernel_size:
            raise ValueError("kernel_h and kernel_w are for two spatial dims, and not together with kernel_size")
        kernel: tuple[int, ...] = (p.kernel_h, p.kernel_w)
    elif not p.kernel_size:
        raise ValueError("it has no kernel_size")
    else:
        kernel = repeated(p.kernel_size, count, 1, "kernel_size")
    strides, pads = _sides(p, "stride", count, 1), _sides(p, "pad", count, 0)
    dilations = repeated(p.dilation, count, 1, "dilation")
    if min(*kernel, *strides, *dilations) < 1:
        raise ValueError(f"its kernel {kernel}, stride {strides} and dilation {dilations} must be positive")
    return kernel, strides, pads, dilations


def _sides(p: Any, name: str, count: int, default: int) -> tuple[int, ...]:
    """A repeated field, or its `_h` and `_w` for two spatial dims."""
    if not (p.HasField(f"{name}_h") or p.HasField(f"{name}_w")):
        return repeated(getattr(p, name), count, default, name)
    if count != 2 or getattr(p, name):
        raise ValueError(f"{name}_h and {name}_w are for two spatial dims, and not together with {name}")
    return getattr(p, f"{name}_h"), getattr(p, f"{name}_w")


@layer_type("InnerProduct")
def inner_product(b: Builder, layer: Layer) -> Result:
    """All dims from `axis` on are one vector, which is multiplied with each row of the weights."""
    x, p = layer.only(), layer.proto.inner_product_param
    axis = layer.axis(p.axis, x.type.rank)
    size = math.prod(layer.known_dims(x.type.shape[axis:], "the weights have a column for each of its elements"))
    outputs = p.num_output
    if outputs < 1:
        raise ValueError("it has no num_output")
    lead = x.type.shape[:axis]
    rows = x if len(lead) == 1 and x.type.rank == 2 else b.add(Reshape((product(lead), size)), x)
    if p.transpose:
        weights = layer.parameter(0, (size, outputs), "weight", p.weight_filler, size)
    else:
        weights = b.add(Transpose((1, 0)), layer.parameter(0, (outputs, size), "weight", p.weight_filler, size))
    y = b.add(MatMul(), rows, weights)
    if p.bias_term:
        y = b.add(Add(), y, layer.parameter(1, (outputs,), "bias", p.bias_filler))
    return y if len(lead) == 1 else b.add(Reshape((*lead, outputs)), y)


@layer_type("Embed")
def embed(b: Builder, layer: Layer) -> Result:
    """The row of the weights that each element of the bottom names."""
    x, p = layer.only(), layer.proto.embed_param
    if p.num_output < 1 or p.input_dim < 1:
        raise ValueError("it needs num_output and input_dim")
    rows = layer.parameter(0, (p.input_dim, p.num_output), "weight", p.weight_filler, 1)
    y = b.add(Gather(0), rows, b.add(Cast(DType.i64), x))
    if p.bias_term:
        y = b.add(Add(), y, layer.parameter(1, (p.num_output,), "bias", p.bias_filler))
    return y


@layer_type("Parameter")
def parameter(b: Builder, layer: Layer) -> Result:
    """A parameter by itself."""
    return layer.parameter(0, tuple(layer.proto.parameter_param.shape.dim), "weight", None, 1)


LAYERS = [convolution, deconvolution, depthwise_convolution, inner_product, embed, parameter]
