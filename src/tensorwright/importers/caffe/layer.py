# SPDX-License-Identifier: Apache-2.0
"""What a layer function sees: the layer that it translates, its bottoms and its parameters.

A layer function takes the builder and a `Layer` and gives the values of its tops. It refuses with `layer.refuse(...)`
what this version cannot run, and raises ValueError for what is wrong in the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.weights import Blob, constant_filler, filled, limit_elems, random_numbers
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.builder import RefusalError, normal_axis

Result = Value | Sequence[Value]
Translate = Callable[[Builder, "Layer"], Result]


@dataclass(frozen=True, slots=True)
class LayerType:
    """The layer function of one Caffe layer type."""

    name: str
    translate: Translate


def layer_type(name: str) -> Callable[[Translate], LayerType]:
    """Decorator: register a function for a layer type."""
    return lambda translate: LayerType(name, translate)


class Weights:
    """The parameters of all layers: of the caffemodel, of fillers, or random where there is no caffemodel."""

    def __init__(self, blobs: Mapping[str, Sequence[Blob]] | None) -> None:
        self.blobs = blobs
        self.without: dict[str, None] = {}  # layers that the caffemodel lacks
        self._shared: dict[str, Array] = {}
        self._read: dict[str, set[int]] = {}  # blobs that each layer has read

    def array(self, layer: Layer, index: int, shape: tuple[int, ...], kind: str, filler: Any, fan_in: int) -> Array:
        """The numbers of parameter `index` of a layer, f32. Raises ValueError where those given do not fit."""
        self._read.setdefault(layer.name, set()).add(index)
        spec = layer.proto.param[index] if index < len(layer.proto.param) else None
        if spec is None or not spec.name:
            return self._own(layer, index, shape, kind, filler, fan_in)
        if spec.name not in self._shared:
            self._shared[spec.name] = self._own(layer, index, shape, kind, filler, fan_in)
        shared, permissive = self._shared[spec.name], 1
        if shared.size != math.prod(shape) or (shared.shape != shape and spec.share_mode != permissive):
            given = list(shared.shape)
            raise ValueError(f"it shares the parameter {spec.name!r} of the shape {given}, but needs {list(shape)}")
        return shared.reshape(shape)

    def check_all_read(self, name: str) -> None:
        """Raise ValueError where the caffemodel has more blobs for a layer than it takes."""
        given, read = len((self.blobs or {}).get(name, ())), self._read.get(name, set())
        if given > len(read):
            raise ValueError(f"the weights file has {given} blobs for it, it takes {len(read)}")

    def _own(self, layer: Layer, index: int, shape: tuple[int, ...], kind: str, filler: Any, fan_in: int) -> Array:
        limit_elems(shape)
        if self.blobs is None:
            return random_numbers(kind, shape, fan_in, f"{layer.name}:{index}")
        given = self.blobs.get(layer.name)
        if not given:
            self.without[layer.name] = None
            return filled(filler, shape, f"{layer.name}:{index}")
        if index >= len(given):
            raise ValueError(f"the weights file has {len(given)} blobs for it, it needs blob {index} of {list(shape)}")
        if not given[index].fits(shape):
            raise ValueError(
                f"blob {index} of the weights file has the shape {list(given[index].shape)}, expected {list(shape)}"
            )
        return given[index].data.reshape(shape)


class Layer:
    """One layer with its bottoms as graph values."""

    def __init__(
        self, proto: Any, name: str, bottoms: Sequence[Value], tops: Sequence[str], builder: Builder, weights: Weights
    ) -> None:
        self.proto, self.name, self.bottoms, self.tops = proto, name, tuple(bottoms), tuple(tops)
        self._builder, self._weights = builder, weights

    # -- bottoms --------------------------------------------------------------------------------
    def bottom(self, index: int = 0) -> Value:
        """A required bottom. Raises ValueError when it is absent."""
        if index >= len(self.bottoms):
            raise ValueError(f"it needs {index + 1} bottoms, it has {len(self.bottoms)}")
        return self.bottoms[index]

    def only(self) -> Value:
        """The only bottom."""
        self.take(1, 1)
        return self.bottoms[0]

    def take(self, least: int, most: int) -> None:
        """Raise ValueError unless the layer has so many bottoms."""
        if not least <= len(self.bottoms) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"it takes {wanted} bottoms, it has {len(self.bottoms)}")

    def axis(self, axis: int, rank: int) -> int:
        """A non-negative axis; negative ones count from the end."""
        return normal_axis(axis, rank)

    def known_dims(self, dims: Sequence[Dim], because: str) -> tuple[int, ...]:
        """Dims that must be known now; `because` says what needs them."""
        if any(isinstance(d, SymDim) for d in dims):
            shown = ", ".join(map(str, dims))
            self.refuse(f"{because}, but its size is [{shown}]", "give the inputs a fixed shape with shapes=")
        return tuple(d for d in dims if isinstance(d, int))

    # -- parameters -----------------------------------------------------------------------------
    def array(self, index: int, shape: Sequence[int], kind: str, filler: Any = None, fan_in: int = 0) -> Array:
        """The numbers of parameter `index`: f32 of `shape`, views of the caffemodel where they are there.

        `kind` ("weight", "bias", "scale", "mean", "variance", "factor", "slope") is what random ones look like;
        `fan_in` the number of terms that a weight's sum has.
        """
        filler = constant_filler() if filler is None else filler
        return self._weights.array(self, index, tuple(shape), kind, filler, fan_in)

    def parameter(self, index: int, shape: Sequence[int], kind: str, filler: Any = None, fan_in: int = 0) -> Value:
        """`array` as a constant of the graph."""
        return self._builder.constant(self.array(index, shape, kind, filler, fan_in), f"{self.name}/{index}")

    def refuse(self, reason: str, do: str = "") -> NoReturn:
        """Say that this layer cannot be imported."""
        raise RefusalError(reason, do)


def repeated(values: Sequence[int], count: int, default: int, what: str) -> tuple[int, ...]:
    """A repeated field that is absent, one number for all, or one for each of `count` dims. Raises ValueError."""
    if len(values) not in (0, 1, count):
        raise ValueError(f"it gives {len(values)} numbers of {what} for {count} spatial dims")
    return tuple(values) if len(values) == count else (values[0] if values else default,) * count
