# SPDX-License-Identifier: Apache-2.0
"""The kinds of layers that read the layer before: options are the fields of a dataclass, `add` writes the layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tensorwright.importers.darknet.activations import activated, scaled
from tensorwright.importers.darknet.base import (
    NOT_LOADED,
    Layer,
    Net,
    by_channel,
    image_dims,
    known_dims,
    reshaped,
    section,
)
from tensorwright.network import PoolingType, ReduceOperation, Tensor

_BINARY = {"binary": "0", "xnor": "0", "bin_output": "0"}
_DEFORMED = dict.fromkeys(("coordconv", "reverse", "rotate", "stretch", "stretch_sway", "sway"), "0")


# -- layers with weights ----------------------------------------------------------------------------
@section("convolutional", "conv")
@dataclass(frozen=True)
class Convolutional(Layer):
    """A convolution, normalised or with a bias, and its activation."""

    filters: int = 1
    size: int = 1
    stride: int = 1
    stride_x: int = 0
    stride_y: int = 0
    pad: int = 0
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch_normalize: int = 0
    flipped: int = 0
    activation: str = "logistic"
    refused = {**NOT_LOADED, **_BINARY, **_DEFORMED, "antialiasing": "0", "cbn": "0", "share_index": ""}

    def add(self, net: Net, x: Tensor) -> Tensor:
        channels, _, _ = image_dims(x)
        if channels % self.groups or self.filters % self.groups:
            raise ValueError(f"{channels} channels and {self.filters} filters do not fall into {self.groups} groups")
        padding, dilation = self.size // 2 if self.pad else self.padding, self.dilation if self.size > 1 else 1
        if dilation > 1 and 2 * padding != self.size - 1:
            raise ValueError("a dilated convolution must be padded by (size - 1) / 2")
        bias, scale = net.weights.take(self.filters), None
        if self.batch_normalize:
            scale, bias = net.weights.batch_norm(self.filters, bias)
        kernel_shape = (self.filters, channels // self.groups, self.size, self.size)
        kernel = net.weights.take(*kernel_shape, random="normal")
        if self.flipped:
            kernel = kernel.reshape(-1, self.filters).T.reshape(kernel_shape)
        conv = net.network.add_convolution_nd(x, self.filters, self.size, kernel)
        conv.stride_nd = (self.stride_y or self.stride, self.stride_x or self.stride)
        conv.padding_nd, conv.dilation_nd, conv.num_groups = padding * dilation, dilation, self.groups
        return activated(net.network, by_channel(net.network, conv.get_output(0), scale, bias), self.activation)


@section("deconvolutional", "deconv")
@dataclass(frozen=True)
class Deconvolutional(Layer):
    """A transposed convolution, normalised or with a bias, and its activation."""

    filters: int = 1
    size: int = 1
    stride: int = 1
    pad: int = 0
    padding: int = 0
    batch_normalize: int = 0
    activation: str = "logistic"
    refused = {**NOT_LOADED, "flipped": "0"}

    def add(self, net: Net, x: Tensor) -> Tensor:
        channels, _, _ = image_dims(x)
        bias, scale = net.weights.take(self.filters), None
        if self.batch_normalize:
            scale, bias = net.weights.batch_norm(self.filters, bias)
        kernel = net.weights.take(channels, self.filters, self.size, self.size, random="normal")
        deconv = net.network.add_deconvolution_nd(x, self.filters, self.size, kernel)
        deconv.stride_nd, deconv.padding_nd = self.stride, self.size // 2 if self.pad else self.padding
        return activated(net.network, by_channel(net.network, deconv.get_output(0), scale, bias), self.activation)


@section("connected", "conn")
@dataclass(frozen=True)
class Connected(Layer):
    """Every output from every element of the sample, normalised or with a bias, and the activation."""

    output: int = 1
    batch_normalize: int = 0
    activation: str = "logistic"
    refused = NOT_LOADED

    def add(self, net: Net, x: Tensor) -> Tensor:
        sizes = [dim for dim in x.shape[1:] if isinstance(dim, int)]
        if len(sizes) != len(x.shape) - 1:
            raise ValueError("a connected layer needs an input of fixed size")
        inputs, bias, scale = math.prod(sizes), net.weights.take(self.output), None
        if net.weights.transposed:
            kernel = net.weights.take(inputs, self.output, random="normal").T
        else:
            kernel = net.weights.take(self.output, inputs, random="normal")
        if self.batch_normalize:
            scale, bias = net.weights.batch_norm(self.output, bias)
        flat = reshaped(net.network, x, 0, -1)
        y = net.network.add_fully_connected(flat, self.output, kernel).get_output(0)
        y = activated(net.network, by_channel(net.network, y, scale, bias), self.activation)
        return reshaped(net.network, y, 0, self.output, 1, 1)


# -- pooling and resampling -------------------------------------------------------------------------
@section("maxpool", "max")
@dataclass(frozen=True)
class Maxpool(Layer):
    """The maximum of each window; `padding` is what both sides have together, by default size - 1."""

    stride: int = 1
    stride_x: int = 0
    stride_y: int = 0
    size: int = 0
    padding: int = -1
    refused = dict.fromkeys(("antialiasing", "maxpool_depth", "maxpool_zero_nonmax"), "0")

    def add(self, net: Net, x: Tensor) -> Tensor:
        image_dims(x)
        size = self.size or self.stride
        padding = size - 1 if self.padding < 0 else self.padding
        pool = net.network.add_pooling_nd(x, PoolingType.MAX, size)
        pool.stride_nd = (self.stride_y or self.stride, self.stride_x or self.stride)
        pool.pre_padding, pool.post_padding = padding // 2, padding - padding // 2
        return pool.get_output(0)


@section("avgpool", "avg")
@dataclass(frozen=True)
class Avgpool(Layer):
    """The average of each channel."""

    def add(self, net: Net, x: Tensor) -> Tensor:
        image_dims(x)
        return net.network.add_reduce(x, ReduceOperation.AVG, axes=0b1100, keep_dims=True).get_output(0)


@section("upsample")
@dataclass(frozen=True)
class Upsample(Layer):
    """Every pixel `stride` times in both directions, times `scale`."""

    stride: int = 2
    scale: float = 1.0

    def add(self, net: Net, x: Tensor) -> Tensor:
        image_dims(x)
        resize = net.network.add_resize(x)
        resize.scales = (self.stride, self.stride)
        return scaled(net.network, resize.get_output(0), self.scale)


@section("crop")
@dataclass(frozen=True)
class Crop(Layer):
    """The middle of the image, from 0..1 to -1..1 unless `noadjust` is set. Flips and colours are for training."""

    crop_height: int = 1
    crop_width: int = 1
    noadjust: int = 0
    flip: int = 0
    angle: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0
    shift: float = 0.0

    def add(self, net: Net, x: Tensor) -> Tensor:
        _, height, width = known_dims(x)
        if self.crop_height > height or self.crop_width > width:
            raise ValueError(f"{self.crop_height}x{self.crop_width} cannot be cropped from {height}x{width}")
        start = ((height - self.crop_height) // 2, (width - self.crop_width) // 2)
        cut = net.network.add_slice(x, start, (self.crop_height, self.crop_width))
        cut.axes = (2, 3)
        return cut.get_output(0) if self.noadjust else scaled(net.network, cut.get_output(0), 2.0, -1.0)


@section("reorg")
@dataclass(frozen=True)
class Reorg(Layer):
    """Between blocks of stride x stride pixels and channels.

    Forward is the inverse of reverse on the same memory: Darknet reads an input of C x H x W elements as if it had
    C/stride^2 channels of stride*H x stride*W pixels, and calls the result C*stride^2 x H/stride x W/stride.
    """

    stride: int = 1
    reverse: int = 0
    refused = {"flatten": "0", "extra": "0"}

    def add(self, net: Net, x: Tensor) -> Tensor:
        (channels, height, width), s = known_dims(x), self.stride
        if channels % s**2 or (not self.reverse and (height % s or width % s)):
            raise ValueError(f"{channels}x{height}x{width} elements do not fall into blocks of stride {s}")
        shuffle, parts = net.network.add_shuffle(x), channels // s**2
        if self.reverse:
            shuffle.reshape_dims, shuffle.second_transpose = (0, s, s, parts, height, width), (0, 3, 4, 1, 5, 2)
            return reshaped(net.network, shuffle.get_output(0), 0, parts, height * s, width * s)
        shuffle.reshape_dims, shuffle.second_transpose = (0, parts, height, s, width, s), (0, 3, 5, 1, 2, 4)
        return reshaped(net.network, shuffle.get_output(0), 0, channels * s**2, height // s, width // s)


# -- elementwise, and layers that are nothing in inference ------------------------------------------
@section("activation")
@dataclass(frozen=True)
class Activation(Layer):
    """An activation function."""

    activation: str = "linear"

    def add(self, net: Net, x: Tensor) -> Tensor:
        return activated(net.network, x, self.activation)


@section("logistic")
@dataclass(frozen=True)
class Logistic(Layer):
    """The logistic function; training compares its result with the truth."""

    def add(self, net: Net, x: Tensor) -> Tensor:
        return activated(net.network, x, "logistic")


@section("softmax", "soft")
@dataclass(frozen=True)
class Softmax(Layer):
    """The softmax of all elements of the sample, or of each of `groups` equal parts of them."""

    groups: int = 1
    temperature: float = 1.0
    refused = {"spatial": "0", "tree": ""}

    def add(self, net: Net, x: Tensor) -> Tensor:
        y = reshaped(net.network, x, 0, -1) if self.groups == 1 else reshaped(net.network, x, 0, self.groups, -1)
        softmax = net.network.add_softmax(scaled(net.network, y, 1 / self.temperature))
        softmax.axes = 0b10 if self.groups == 1 else 0b100
        return softmax.get_output(0) if self.groups == 1 else reshaped(net.network, softmax.get_output(0), 0, -1)


@section("dropout")
@dataclass(frozen=True)
class Dropout(Layer):
    """Nothing, but in training."""

    def add(self, net: Net, x: Tensor) -> Tensor:
        return x


@section("cost")
@dataclass(frozen=True)
class Cost(Layer):
    """Nothing, but in training."""

    is_loss = True
    type: str = "sse"
    scale: float = 1.0
    ratio: float = 0.0
    noobj: float = 1.0

    def add(self, net: Net, x: Tensor) -> Tensor:
        return x
