# SPDX-License-Identifier: Apache-2.0
"""What a network is made of: its inputs, layers and outputs, and the graph that they become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.layer import Layer, Tensor, as_dims, as_dtype
from tensorwright.network.writer import Writer

if TYPE_CHECKING:
    from tensorwright.network.control import BorderLayer, Construct

L = TypeVar("L", bound=Layer)
B = TypeVar("B", bound="BorderLayer")


class BaseNetwork:
    """All of a `Network` but the methods that add layers."""

    def __init__(self, name: str = "network") -> None:
        self.name = name
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._layers: list[Layer] = []
        self._counts: dict[str, int] = {}
        self._writer = Writer(NetworkBuilder(name))

    # -- inputs and outputs ---------------------------------------------------------------------
    def add_input(
        self, name: str, dtype: DType | str | np.dtype[Any] | type = DType.f32, shape: Sequence[int | str] = ()
    ) -> Tensor:
        """A network input. A dim of -1, or a text that names it, is open."""
        if not name or any(t.name == name for t in self._inputs):
            raise ModelError(f"input {name!r} needs a name of its own", where=f"network {self.name!r}", code="M110")
        try:
            type = TensorType(as_dtype(dtype), as_dims(name, shape))
        except ValueError as error:
            raise ModelError(f"input {name!r}: {error}", where=f"network {self.name!r}", code="M110") from error
        tensor = Tensor(self, None, name, type)
        self._inputs.append(tensor)
        self.changed()
        return tensor

    def mark_output(self, tensor: Tensor) -> None:
        """Make the tensor an output, under its name."""
        if not isinstance(tensor, Tensor) or not tensor.belongs_to(self):
            raise ModelError(f"{tensor!r} is no tensor of this network", where=f"network {self.name!r}", code="M110")
        if tensor not in self._outputs:
            self._outputs.append(tensor)

    def unmark_output(self, tensor: Tensor) -> None:
        """Make the tensor no output any more."""
        if tensor in self._outputs:
            self._outputs.remove(tensor)

    def is_output(self, tensor: Tensor) -> bool:
        """Whether the tensor is marked."""
        return tensor in self._outputs

    @property
    def num_inputs(self) -> int:
        """The number of inputs."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """The number of marked outputs."""
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self._layers)

    def get_input(self, index: int) -> Tensor:
        """Input `index`, in the order of adding. Raises IndexError."""
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        """Output `index`, in the order of marking. Raises IndexError."""
        return self._outputs[index]

    def get_layer(self, index: int) -> Layer:
        """Layer `index`, in the order of adding. Raises IndexError."""
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer:
        return self._layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    # -- the graph ------------------------------------------------------------------------------
    def to_graph(self) -> Graph:
        """The Graph of what the outputs need. Origins and node names are layer names, value names tensor names.

        Raises ModelError M110 when nothing is marked as output, names clash, or layers do not fit together.
        """
        if not self._outputs:
            raise ModelError(
                "the network has no outputs", where=f"network {self.name!r}", code="M110", do="call mark_output"
            )
        names = [t.name for t in self._outputs]
        if len(set(names)) != len(names):
            raise ModelError(
                f"the output names {', '.join(names)} are not all different",
                where=f"network {self.name!r}",
                code="M110",
                do="set the name of the tensors",
            )
        values = [self.value_of(tensor) for tensor in self._outputs]
        for check in self._checks:
            for tensor in check.needs():
                self.value_of(tensor)
            self._writer.write(check)
        builder = self._writer.builder
        builder.name = self.name
        return builder.finish(list(zip(names, values, strict=True)))

    @property
    def _checks(self) -> list[Layer]:
        """Layers without outputs: a graph is only made when they agree."""
        return [layer for layer in self._layers if layer.is_check]

    def changed(self, layer: Layer | None = None) -> None:
        """A property of the layer, or of an input, was set: what is known of the tensors behind it is out of date."""
        if layer is None or layer in self._writer.written:
            self._writer = Writer(NetworkBuilder(self.name))

    def value_of(self, tensor: Tensor) -> Value:
        """The graph value of a tensor, with the layers it needs written first."""
        writer = self._writer
        if not writer.values:
            writer.values.update((t, writer.builder.input(t.name, t.type)) for t in self._inputs)
        return writer.value_of(tensor)

    def next_name(self, kind: str) -> str:
        """The next default name of layers of a kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"

    def add_border(self, kind: type[B], construct: Construct, *inputs: Tensor) -> B:
        """A layer at the border of a conditional or loop."""
        layer = self._add(kind, *inputs)
        layer.construct = construct
        return layer

    def _add(self, kind: type[L], *inputs: Tensor) -> L:
        layer = kind(self, self.next_name(kind.kind), inputs)
        self._layers.append(layer)
        return layer
