# SPDX-License-Identifier: Apache-2.0
"""What all kinds of layers share: the registry of sections, the network under way, and shapes.

An image is N x channels x height x width. Results have the shape that Darknet gives them: those of connected layers
are images of one pixel, those of softmax layers are flat, N x elements.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from tensorwright.importers.darknet.activations import ACTIVATIONS
from tensorwright.importers.darknet.weights import Array, Weights
from tensorwright.ir.dims import Dim
from tensorwright.network import Network, ScaleMode, Tensor

NOT_LOADED: Mapping[str, str] = {"dontload": "0", "dontloadscales": "0", "numload": "0"}
"""Options that leave weights out; `refused` by layers that have some."""


@dataclass
class Net:
    """The network under way: `results` has what each layer gives, by Darknet's index."""

    network: Network
    weights: Weights
    results: list[Tensor]

    def result(self, index: int) -> Tensor:
        """The result of a layer before; a negative index counts back from the current layer. Raises ValueError."""
        at = index + len(self.results) if index < 0 else index
        if not 0 <= at < len(self.results):
            raise ValueError(f"it reads layer {index}, which does not come before it")
        return self.results[at]


class Layer(abc.ABC):
    """Base of all kinds. `refused` names options that are not supported, with the value that asks for nothing."""

    kind: ClassVar[str] = ""  # the name of the section
    refused: ClassVar[Mapping[str, str]] = {}
    is_output: ClassVar[bool] = False  # whether it is an output of the network wherever it stands
    is_loss: ClassVar[bool] = False  # whether it is of no use in inference

    @abc.abstractmethod
    def add(self, net: Net, x: Tensor) -> Tensor:
        """Write the layer; its result. Raises ValueError when it does not fit x."""

    def problems(self) -> Iterator[str]:
        """What is not supported about it."""
        activation = getattr(self, "activation", "linear")
        if activation not in ACTIVATIONS:
            yield f"activation={activation} is not supported"


KINDS: dict[str, type[Layer]] = {}
"""By the name of the section."""

K = TypeVar("K", bound=type[Layer])


def section(*names: str) -> Callable[[K], K]:
    """Register a kind of layer; names after the first are other spellings."""

    def register(kind: K) -> K:
        kind.kind = names[0]
        KINDS.update(dict.fromkeys(names, kind))
        return kind

    return register


def image_dims(x: Tensor) -> tuple[int, Dim, Dim]:
    """Channels, height and width. Raises ValueError when x is no image, or its channels are open."""
    if len(x.shape) != 4 or not isinstance(x.shape[1], int):
        raise ValueError("the layer before it gives no image")
    return x.shape[1], x.shape[2], x.shape[3]


def known_dims(x: Tensor) -> tuple[int, int, int]:
    """As `image_dims`; raises ValueError for open sizes too."""
    dims = image_dims(x)
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    if len(sizes) != len(dims):
        raise ValueError("it needs an image of fixed height and width")
    return sizes[0], sizes[1], sizes[2]


def reshaped(network: Network, x: Tensor, *dims: Dim) -> Tensor:
    """x in another shape; 0 keeps the dim at its place, one -1 takes what is left."""
    shuffle = network.add_shuffle(x)
    shuffle.reshape_dims = dims
    return shuffle.get_output(0)


def by_channel(network: Network, x: Tensor, scale: Array | None, shift: Array) -> Tensor:
    """x * scale + shift, channel by channel; the optimiser makes them part of a convolution before."""
    return network.add_scale_nd(x, ScaleMode.CHANNEL, shift, scale, channel_axis=1).get_output(0)
