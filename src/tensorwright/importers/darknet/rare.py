# SPDX-License-Identifier: Apache-2.0
"""Kinds of layers that older networks have: normalisations, locally connected layers, the detector of YOLO v1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.importers.darknet.activations import activated, product, sum_of
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
from tensorwright.network import (
    ElementWiseOperation,
    MatrixOperation,
    ReduceOperation,
    ScaleMode,
    Tensor,
    UnaryOperation,
)
from tensorwright.network.builder import limit_constant


@section("batchnorm")
@dataclass(frozen=True)
class Batchnorm(Layer):
    """Each channel normalised and scaled; files of AlexeyAB's fork have biases too."""

    refused = NOT_LOADED

    def add(self, net: Net, x: Tensor) -> Tensor:
        channels, _, _ = image_dims(x)
        bias = net.weights.take(channels) if net.weights.by_fork else np.zeros(channels, np.float32)
        scale, shift = net.weights.batch_norm(channels, bias)
        return by_channel(net.network, x, scale, shift)


@section("normalization", "lrn")
@dataclass(frozen=True)
class Normalization(Layer):
    """x / (kappa + alpha * the sum of squares of the channels around) ** beta.

    Darknet's running sum never takes in channel size / 2, and takes it out where it leaves the window: in effect it is
    subtracted from the sums of all channels.
    """

    alpha: float = 1e-4
    beta: float = 0.75
    kappa: float = 1.0
    size: int = 5

    def add(self, net: Net, x: Tensor) -> Tensor:
        channels, _, _ = image_dims(x)
        limit_constant(channels**2)
        to, of = np.ogrid[:channels, :channels]
        window = (of >= to - (self.size - 1) // 2) & (of <= to + self.size // 2)
        kernel = (self.alpha * (1.0 * window - (of == self.size // 2))).astype(np.float32)
        bias = np.full(channels, self.kappa, np.float32)
        norms = net.network.add_convolution_nd(product(net.network, x, x), channels, 1, kernel, bias).get_output(0)
        factors = net.network.add_scale(norms, ScaleMode.UNIFORM, power=[-self.beta])
        return product(net.network, x, factors.get_output(0))


@section("l2norm")
@dataclass(frozen=True)
class L2norm(Layer):
    """Each pixel's channels divided by the root of the sum of their squares."""

    def add(self, net: Net, x: Tensor) -> Tensor:
        image_dims(x)
        squares = net.network.add_reduce(product(net.network, x, x), ReduceOperation.SUM, axes=0b10, keep_dims=True)
        length = net.network.add_unary(squares.get_output(0), UnaryOperation.SQRT).get_output(0)
        return net.network.add_elementwise(x, length, ElementWiseOperation.DIV).get_output(0)


@section("local")
@dataclass(frozen=True)
class Local(Layer):
    """A convolution that has a kernel and a bias of its own at each place of the result.

    The windows are gathered by a convolution that copies; each is then multiplied by the matrix of its place.
    """

    filters: int = 1
    size: int = 1
    stride: int = 1
    pad: int = 0
    activation: str = "logistic"
    refused = NOT_LOADED

    def add(self, net: Net, x: Tensor) -> Tensor:
        (channels, height, width), network = known_dims(x), net.network
        rows, columns = ((n - (1 if self.pad else self.size)) // self.stride + 1 for n in (height, width))
        if (rows, columns) != tuple((n + 2 * self.pad - self.size) // self.stride + 1 for n in (height, width)):
            raise ValueError(f"pad={self.pad} does not suit a window of {self.size}")
        places, inputs = rows * columns, channels * self.size**2
        bias = net.weights.take(1, self.filters, rows, columns)
        kernel = net.weights.take(1, places, self.filters, inputs, random="normal")
        limit_constant(inputs * self.size**2)
        copies = np.tile(np.eye(self.size**2, dtype=np.float32), (channels, 1))
        windows = network.add_convolution_nd(x, inputs, self.size, copies)
        windows.stride_nd, windows.padding_nd, windows.num_groups = self.stride, self.pad, channels
        columns_first = network.add_shuffle(windows.get_output(0))
        columns_first.reshape_dims, columns_first.second_transpose = (0, inputs, places, 1), (0, 2, 1, 3)
        matrices = network.add_constant(kernel.shape, kernel).get_output(0)
        plain = MatrixOperation.NONE
        y = network.add_matrix_multiply(matrices, plain, columns_first.get_output(0), plain).get_output(0)
        image = network.add_shuffle(y)
        image.first_transpose, image.reshape_dims = (0, 2, 1, 3), (0, self.filters, rows, columns)
        y = sum_of(network, image.get_output(0), network.add_constant(bias.shape, bias).get_output(0))
        return activated(network, y, self.activation)


@section("detection")
@dataclass(frozen=True)
class Detection(Layer):
    """The detector of YOLO v1: class probabilities of all cells, then objectness, then boxes, as they come, flat.

    With `softmax` the classes of each cell go through it.
    """

    is_output = True
    classes: int = 1
    coords: int = 1
    num: int = 1
    side: int = 7
    softmax: int = 0

    def add(self, net: Net, x: Tensor) -> Tensor:
        network, flat = net.network, reshaped(net.network, x, 0, -1)
        cells, elems = self.side**2, self.side**2 * ((1 + self.coords) * self.num + self.classes)
        if flat.shape[1] != elems:
            raise ValueError(f"it needs {elems} elements, and the layer before it gives {flat.shape[1]}")
        if not self.softmax:
            return flat
        count = cells * self.classes
        cut, rest = network.add_slice(flat, (0,), (count,)), network.add_slice(flat, (count,), (elems - count,))
        cut.axes = rest.axes = (1,)
        softmax = network.add_softmax(reshaped(network, cut.get_output(0), 0, cells, self.classes))
        softmax.axes = 0b100
        parts = [reshaped(network, softmax.get_output(0), 0, -1), rest.get_output(0)]
        return network.add_concatenation(parts, axis=1).get_output(0)
