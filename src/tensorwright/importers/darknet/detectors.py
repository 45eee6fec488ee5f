# SPDX-License-Identifier: Apache-2.0
"""The yolo and region layers: maps in which each pixel has one box per anchor, each box its entries as channels.

In the network they only scale entries, as Darknet does when it computes them; `boxes` is what its applications do then.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.importers.darknet.base import Layer, Net, image_dims, reshaped, section
from tensorwright.network import ActivationType, Network, ScaleMode, Tensor

Array = np.ndarray[Any, Any]


class Detector(Layer):
    """What yolo and region share. The entries of a box: x, y, width, height, ..., objectness, one for each class."""

    is_output = True

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of anchors that the layer has boxes for."""

    @property
    @abstractmethod
    def sizes(self) -> Array:
        """Their width and height, f64[count, 2]."""

    @property
    @abstractmethod
    def entries(self) -> int:
        """The number of entries of a box."""

    def check(self, x: Tensor) -> Array:
        """The entry that each channel holds. Raises ValueError when the channels do not fit."""
        channels, _, _ = image_dims(x)
        if channels != self.count * self.entries:
            raise ValueError(f"it has {self.count} anchors of {self.entries} entries, but {channels} channels")
        return np.arange(channels) % self.entries

    @abstractmethod
    def boxes(self, maps: Array, image: Sequence[int]) -> tuple[Array, Array, Array]:
        """Boxes f32[N, boxes, 4] as x, y (of the centre), width and height relative to the image, their objectness
        f32[N, boxes] and the probability of each class if there is an object, f32[N, boxes, classes].

        `maps` is the layer's result, f32[N, channels, height, width]; `image` the network's input height and width.
        """

    def _split(self, maps: Array) -> tuple[Array, Array, Array]:
        """The entries, f32[N, entries, boxes], and the column and row of each box."""
        batch, _, height, width = maps.shape
        entries = maps.reshape(batch, self.count, self.entries, height * width).transpose(0, 2, 3, 1)
        row, column = np.divmod(np.repeat(np.arange(height * width), self.count), width)
        return entries.reshape(batch, self.entries, -1), column, row

    def _placed(self, entries: Array, centre: tuple[Array, Array], size: tuple[Array, Array]) -> Array:
        anchors = np.tile(self.sizes, (entries.shape[2] // self.count, 1))
        x, y = (entries[:, i] + at for i, at in enumerate(centre))
        return np.stack([x, y, size[0] * anchors[:, 0], size[1] * anchors[:, 1]], axis=-1)


@section("yolo")
@dataclass(frozen=True)
class Yolo(Detector):
    """The logistic function of x, y, objectness and classes; AlexeyAB's `new_coords` leaves that to the layer before.

    Anchors are in pixels of the network's input; `mask` chooses among them.
    """

    classes: int = 20
    num: int = 1
    mask: tuple[int, ...] = ()
    anchors: tuple[float, ...] = ()
    scale_x_y: float = 1.0
    new_coords: int = 0

    def __post_init__(self) -> None:
        if any(not 0 <= index < self.num for index in self.mask):
            raise ValueError(f"mask={','.join(map(str, self.mask))} names anchors that are not among num={self.num}")

    @property
    def count(self) -> int:
        return len(self.mask) or self.num

    @property
    def sizes(self) -> Array:
        return _anchors(self.anchors, self.mask or range(self.num))

    @property
    def entries(self) -> int:
        return 5 + self.classes

    def add(self, net: Net, x: Tensor) -> Tensor:
        entry, network = self.check(x), net.network
        y = x if self.new_coords else _logistic_where(network, x, (entry != 2) & (entry != 3))
        if self.scale_x_y == 1:
            return y
        scale = np.where(entry < 2, self.scale_x_y, 1).astype(np.float32)
        shift = np.where(entry < 2, (1 - self.scale_x_y) / 2, 0).astype(np.float32)
        return network.add_scale_nd(y, ScaleMode.CHANNEL, shift, scale, channel_axis=1).get_output(0)

    def boxes(self, maps: Array, image: Sequence[int]) -> tuple[Array, Array, Array]:
        entries, column, row = self._split(maps)
        width, height = (4 * e**2 if self.new_coords else np.exp(e) for e in (entries[:, 2], entries[:, 3]))
        boxes = self._placed(entries, (column, row), (width, height))
        boxes /= [maps.shape[3], maps.shape[2], image[1], image[0]]
        return boxes.astype(np.float32), entries[:, 4], entries[:, 5:].swapaxes(1, 2)


@section("region")
@dataclass(frozen=True)
class Region(Detector):
    """The logistic function of x, y and objectness; that of each class, or the softmax over them.

    Anchors are in pixels of the map. `background` makes the objectness a class more instead.
    """

    classes: int = 20
    num: int = 1
    coords: int = 4
    anchors: tuple[float, ...] = ()
    softmax: int = 0
    background: int = 0
    refused = {"tree": ""}

    @property
    def count(self) -> int:
        return self.num

    @property
    def sizes(self) -> Array:
        return _anchors(self.anchors, range(self.num))

    @property
    def entries(self) -> int:
        return self.coords + 1 + self.classes

    def add(self, net: Net, x: Tensor) -> Tensor:
        entry, network = self.check(x), net.network
        if self.coords < 4:
            raise ValueError(f"coords={self.coords} is less than the 4 of a box")
        logistic = (entry < 2) | ((entry == self.coords) & (not self.background))
        if not self.softmax:
            return _logistic_where(network, x, logistic | (entry > self.coords))
        first = self.coords + (not self.background)  # entry of the softmax
        scaled, raw = (reshaped(network, y, -1, self.entries, 0, 0) for y in (_logistic_where(network, x, logistic), x))
        kept, classes = (
            network.add_slice(scaled, (0,), (first,)),
            network.add_slice(raw, (first,), (self.entries - first,)),
        )
        kept.axes = classes.axes = (1,)
        softmax = network.add_softmax(classes.get_output(0))
        softmax.axes = 0b10
        both = network.add_concatenation([kept.get_output(0), softmax.get_output(0)], axis=1).get_output(0)
        return reshaped(network, both, -1, len(entry), 0, 0)

    def boxes(self, maps: Array, image: Sequence[int]) -> tuple[Array, Array, Array]:
        entries, column, row = self._split(maps)
        boxes = self._placed(entries, (column, row), (np.exp(entries[:, 2]), np.exp(entries[:, 3])))
        boxes /= [maps.shape[3], maps.shape[2]] * 2
        objectness = np.ones_like(entries[:, 0]) if self.background else entries[:, self.coords]
        return boxes.astype(np.float32), objectness, entries[:, self.coords + 1 :].swapaxes(1, 2)


def _anchors(given: Sequence[float], chosen: Sequence[int]) -> Array:
    """The width and height of the chosen anchors, f64[chosen, 2]; those that are not given are 0.5, as in Darknet."""
    return np.array([[given[i] if i < len(given) else 0.5 for i in (2 * k, 2 * k + 1)] for k in chosen])


def _logistic_where(network: Network, x: Tensor, channels: Array) -> Tensor:
    """The logistic function of some channels; the others as they are."""
    chosen = network.add_constant((1, len(channels), 1, 1), channels).get_output(0)
    logistic = network.add_activation(x, ActivationType.SIGMOID).get_output(0)
    return network.add_select(chosen, logistic, x).get_output(0)
