# SPDX-License-Identifier: Apache-2.0
"""The kinds of layers that read layers further back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.importers.darknet.activations import activated, product, scaled, sum_of
from tensorwright.importers.darknet.base import Layer, Net, image_dims, known_dims, reshaped, section
from tensorwright.network import Network, ScaleMode, Tensor
from tensorwright.network.builder import limit_constant


@section("route")
@dataclass(frozen=True)
class Route(Layer):
    """The channels of layers one after the other, of each only part `group_id` of `groups`."""

    layers: tuple[int, ...] = ()
    groups: int = 1
    group_id: int = 0

    def add(self, net: Net, x: Tensor) -> Tensor:
        if not self.layers or self.group_id >= self.groups:
            raise ValueError("it must name layers=, and group_id= must be less than groups=")
        parts = [self._part(net, net.result(index)) for index in self.layers]
        sizes = {part.shape[2:] for part in parts}
        if len(sizes) > 1 and all(isinstance(dim, int) for size in sizes for dim in size):
            parts = [reshaped(net.network, part, 0, -1) for part in parts]  # to Darknet it is no image then
        return net.network.add_concatenation(parts, axis=1).get_output(0) if len(parts) > 1 else parts[0]

    def _part(self, net: Net, x: Tensor) -> Tensor:
        if self.groups == 1:
            return x
        channels, _, _ = image_dims(x)
        if channels % self.groups:
            raise ValueError(f"{channels} channels do not fall into {self.groups} groups")
        size = channels // self.groups
        cut = net.network.add_slice(x, (size * self.group_id,), (size,))
        cut.axes = (1,)
        return cut.get_output(0)


@section("shortcut")
@dataclass(frozen=True)
class Shortcut(Layer):
    """alpha * the layer before + beta * another layer, then the activation; several layers are added in order.

    Of unequal layers the common channels are added; a larger image is sampled, a smaller one spread out.
    """

    from_: tuple[int, ...] = ()
    activation: str = "linear"
    alpha: float = 1.0
    beta: float = 1.0
    refused = {"weights_type": "none", "weights_normalization": "none"}

    def add(self, net: Net, x: Tensor) -> Tensor:
        if not self.from_:
            raise ValueError("it must name a layer with from=")
        for index in self.from_:
            x = self._sum(net.network, x, net.result(index))
        return activated(net.network, x, self.activation)

    def _sum(self, network: Network, x: Tensor, other: Tensor) -> Tensor:
        if x.shape == other.shape:
            return sum_of(network, scaled(network, x, self.alpha), scaled(network, other, self.beta))
        room = known_dims(x)
        other, covered = _placed(network, other, room)
        if self.alpha != 1:
            limit_constant(math.prod(room))
            factors = np.ones(room, np.float32)
            factors[covered] = self.alpha
            x = network.add_scale(x, ScaleMode.ELEMENTWISE, scale=factors).get_output(0)
        return sum_of(network, x, scaled(network, other, self.beta))


def _placed(network: Network, x: Tensor, room: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """x in an image of the dims `room`, zero elsewhere, and where it lies there."""
    dims = known_dims(x)
    steps, spreads = ([max(a // b, 1) for a, b in zip(p, q, strict=True)] for p, q in ((dims, room), (room, dims)))
    if steps[1] != steps[2] or spreads[1] != spreads[2]:
        raise ValueError(f"images of {dims[1]}x{dims[2]} and {room[1]}x{room[2]} pixels cannot be added")
    step, spread = (1, steps[1], steps[1]), (1, spreads[1], spreads[1])
    common = [min(pair) for pair in zip(dims, room, strict=True)]
    cut = network.add_slice(x, (0, 0, 0), common, step)
    cut.axes = (1, 2, 3)
    y = cut.get_output(0)
    covered = tuple(slice(0, count * gap, gap) for count, gap in zip(common, spread, strict=True))
    for axis in range(3):
        y = _spread(network, y, common, axis, spread[axis], room[axis])
        common[axis] = room[axis]
    return y, covered


def _spread(network: Network, x: Tensor, dims: Sequence[int], axis: int, gap: int, size: int) -> Tensor:
    """x (N x dims) with its elements along an axis of dims `gap` apart, and zeros up to `size`."""
    before, count, after = math.prod(dims[:axis]), dims[axis], math.prod(dims[axis + 1 :])
    y = x
    if gap > 1:
        y = reshaped(network, y, 0, before * count, 1, after)
        y = network.add_padding_nd(y, (0, 0), (gap - 1, 0)).get_output(0)
    y = reshaped(network, y, 0, before, count * gap, after)
    if size > count * gap:
        y = network.add_padding_nd(y, (0, 0), (size - count * gap, 0)).get_output(0)
    return reshaped(network, y, 0, *dims[:axis], size, *dims[axis + 1 :])


@section("scale_channels")
@dataclass(frozen=True)
class ScaleChannels(Layer):
    """Another layer's image times the layer before, which has one element for each channel."""

    from_: int = -1
    activation: str = "linear"
    refused = {"scale_wh": "0"}

    def add(self, net: Net, x: Tensor) -> Tensor:
        other = net.result(self.from_)
        if image_dims(x) != (image_dims(other)[0], 1, 1):
            raise ValueError("the layer before it must give one element for each channel of the other")
        return activated(net.network, product(net.network, x, other), self.activation)


@section("sam")
@dataclass(frozen=True)
class Sam(Layer):
    """The layer before times another, elementwise."""

    from_: int = -1
    activation: str = "linear"

    def add(self, net: Net, x: Tensor) -> Tensor:
        other = net.result(self.from_)
        if x.shape != other.shape:
            raise ValueError("the two layers that it multiplies have different shapes")
        return activated(net.network, product(net.network, x, other), self.activation)
