# SPDX-License-Identifier: Apache-2.0
"""What all layers of a network share: tensors, inputs, and properties that may be set at any time.

A layer says in `emit` which ops it becomes. It is asked when the graph, or the type of a tensor behind it, is asked
for; so every property set until then counts. ValueErrors become a ModelError M110 that names the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import NetworkBuilder

if TYPE_CHECKING:
    from tensorwright.network.base import BaseNetwork as Network
    from tensorwright.network.writer import Writer

Ints = tuple[int, ...]
Get = TypeVar("Get")
Set = TypeVar("Set")


class Tensor:
    """A tensor of a network: an input, or the output of a layer. Made by the network, compared by identity."""

    def __init__(
        self, network: Network, layer: Layer | None, name: str = "", type: TensorType | None = None, index: int = 0
    ) -> None:
        self._network, self._layer, self._name, self._type = network, layer, name, type
        self.index = index  # among the outputs of its layer

    @property
    def name(self) -> str:
        """The given name; by default that of the layer, with the index of an output after the first."""
        if self._name or self._layer is None:
            return self._name
        return f"{self._layer.name}_{self.index}" if self.index else self._layer.name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        self._network.changed()

    @property
    def type(self) -> TensorType:
        """dtype and shape with all properties as they are now. Raises ModelError when layers do not fit."""
        return self._type if self._type is not None else self._network.value_of(self).type

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dims; symbolic where the network's inputs are."""
        return self.type.shape

    @shape.setter
    def shape(self, shape: Sequence[int | str]) -> None:
        """Only of a network input."""
        if self._type is None:
            raise ModelError(
                f"the shape of tensor {self.name!r} follows from its layer",
                code="M110",
                do="set the shape of the network's input",
            )
        self._type = self._type.with_shape(as_dims(self.name, shape))
        self._network.changed()

    @property
    def is_network_input(self) -> bool:
        """Whether it is an input of the network."""
        return self._layer is None

    @property
    def is_network_output(self) -> bool:
        """Whether it is marked as an output."""
        return self._network.is_output(self)

    def belongs_to(self, network: Network) -> bool:
        """Whether `network` made it."""
        return self._network is network

    @property
    def layer(self) -> Layer | None:
        """The layer that makes it; None for a network input."""
        return self._layer

    def __repr__(self) -> str:
        return f"Tensor({self.name!r})"


class Setting(Generic[Get, Set]):
    """A property of a layer: what is set goes through `convert(layer, value)`, and the network looks again."""

    def __init__(self, convert: Callable[[Any, Set], Get]) -> None:
        self.convert = convert

    def __set_name__(self, owner: type[Layer], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type[Layer]) -> Setting[Get, Set]: ...
    @overload
    def __get__(self, layer: Layer, owner: type[Layer]) -> Get: ...
    def __get__(self, layer: Layer | None, owner: type[Layer]) -> Setting[Get, Set] | Get:
        if layer is None:
            return self
        value: Get = layer.settings[self.name]
        return value

    def __set__(self, layer: Layer, value: Set) -> None:
        try:
            layer.settings[self.name] = self.convert(layer, value)
        except (ValueError, TypeError) as error:
            raise layer.error(f"{self.name} cannot be {value!r}: {error}") from error
        layer.network.changed(layer)


class Layer:
    """Base of all layers. `kind` is the word that default names are made of."""

    kind: ClassVar[str] = ""
    most_inputs: ClassVar[int] = 1
    is_check: ClassVar[bool] = False  # whether no graph is made before the layer is written
    num_outputs: int = 1

    def __init__(self, network: Network, name: str, inputs: Sequence[Tensor]) -> None:
        self.network, self._name = network, name
        self.settings: dict[str, Any] = {}
        self._inputs: list[Tensor | None] = []
        for index, tensor in enumerate(inputs):
            self._inputs.append(self._own(index, tensor))
        self._outputs: list[Tensor] = []

    @property
    def name(self) -> str:
        """The layer's name; it becomes the name and origin of its node."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        self.network.changed(self)

    @property
    def num_inputs(self) -> int:
        """The number of input tensors."""
        return len(self._inputs)

    def get_input(self, index: int) -> Tensor | None:
        """Input tensor `index`; None past the end."""
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def read(self, index: int) -> Tensor:
        """Input tensor `index`. Raises ModelError when it was not set."""
        tensor = self.get_input(index)
        if tensor is None:
            raise self.error(f"input {index} is not set", "call set_input")
        return tensor

    def set_input(self, index: int, tensor: Tensor) -> None:
        """Read another tensor. Raises ModelError when the layer has no such input."""
        limit = max(self.most_inputs, len(self._inputs))
        if not 0 <= index < limit:
            raise self.error(f"there is no input {index}; it has {limit}")
        tensor = self._own(index, tensor)
        self._inputs += [None] * (index + 1 - len(self._inputs))
        self._inputs[index] = tensor
        self.network.changed(self)

    def get_output(self, index: int = 0) -> Tensor:
        """Output tensor `index`. Raises ModelError when the layer has no such output."""
        if not 0 <= index < self.num_outputs:
            raise self.error(f"there is no output {index}; it has {self.num_outputs or 'none'}")
        while len(self._outputs) <= index:
            self._outputs.append(Tensor(self.network, self, index=len(self._outputs)))
        return self._outputs[index]

    def error(self, what: str, do: str = "") -> ModelError:
        """A ModelError about this layer."""
        return ModelError(
            f"layer {self.name!r} ({type(self).__name__}): {what}",
            where=f"network {self.network.name!r}",
            code="M110",
            do=do,
        )

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value | Sequence[Value]:
        """The layer's results, written with `b`. Raises ValueError when the inputs do not fit."""
        raise NotImplementedError

    def needs(self) -> list[Tensor]:
        """The tensors whose values must be there before `write`."""
        return [t for t in self._inputs if t is not None]

    def needs_inside(self) -> list[Tensor]:
        """The tensors that the outputs follow from, also those of a body: `needs`, unless the layer has one."""
        return self.needs()

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        """Write the layer: its outputs, and those of others that are written with it."""
        results = self.emit(writer.builder, [None if t is None else writer.values[t] for t in self._inputs])
        values = [results] if isinstance(results, Value) else list(results)
        return {self.get_output(i): value for i, value in enumerate(values)}

    def _own(self, index: int, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise self.error(
                f"input {index} must be a tensor, it is {type(tensor).__name__}",
                "pass layer.get_output(0)" if isinstance(tensor, Layer) else "make it one with add_constant",
            )
        if not tensor.belongs_to(self.network):
            raise self.error(f"input {index}, {tensor.name!r}, belongs to another network")
        return tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def present(inputs: Sequence[Value | None], index: int = 0) -> Value:
    """Input `index`. Raises ValueError when it was not set."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise ValueError(f"input {index} is not set")
    return value


def as_dims(name: str, shape: Sequence[int | str]) -> tuple[Dim, ...]:
    """Dims of an input: a text is a symbol, -1 the symbol `<name>_<axis>`. Raises ModelError for anything else."""
    dims: list[Dim] = []
    for axis, size in enumerate(shape):
        if isinstance(size, str) or size == -1:
            dims.append(SymDim.symbol(size if isinstance(size, str) else f"{name}_{axis}"))
        elif isinstance(size, int | np.integer) and size >= 0:
            dims.append(int(size))
        else:
            raise ModelError(
                f"input {name!r} cannot have the shape {tuple(shape)}",
                code="M110",
                do="use sizes from 0 on, -1 for an open dim",
            )
    return tuple(dims)


def as_dtype(dtype: DType | str | np.dtype[Any] | type) -> DType:
    """A DType from itself, its short name ("f32"), or anything NumPy takes. Raises ValueError."""
    if isinstance(dtype, DType):
        return dtype
    try:
        return DType(dtype) if dtype in {d.value for d in DType} else DType.of(dtype)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{dtype!r} is no element type; use a DType such as DType.f32") from error


def known(b: NetworkBuilder, value: Value, what: str) -> Array:
    """The elements of an input that must be a constant. Raises ValueError."""
    array = b.known(value)
    if array is None:
        raise ValueError(f"{what} must be known when the network is built: make it with add_constant")
    return array


def pair(layer: Layer, value: int | Sequence[int]) -> Ints:
    """Sizes per spatial dim; one int means the same for two dims."""
    return (int(value),) * 2 if isinstance(value, int | np.integer) else tuple(int(v) for v in value)


def flag(layer: Layer, value: bool) -> bool:
    """A bool."""
    return bool(value)


def integer(layer: Layer, value: int) -> int:
    """An int."""
    if int(value) != value:
        raise ValueError("it must be an integer")
    return int(value)


def optional_integer(layer: Layer, value: int | None) -> int | None:
    """An int or None for the default."""
    return None if value is None else integer(layer, value)


def number(layer: Layer, value: float) -> float:
    """A float."""
    return float(value)


def optional_number(layer: Layer, value: float | None) -> float | None:
    """A float or None for the default."""
    return None if value is None else float(value)


def optional_ints(layer: Layer, value: Sequence[int] | None) -> Ints | None:
    """Ints or None for the default."""
    return None if value is None else tuple(int(v) for v in value)


def weights(layer: Layer, value: Any) -> Array | None:
    """An array of numbers, not copied; None or an empty one means absent. Lists of floats become f32."""
    if value is None:
        return None
    array = np.asarray(value) if hasattr(value, "dtype") else _listed(value)
    try:
        DType.of(array.dtype)
    except KeyError as error:
        raise ValueError(f"weights cannot have the dtype {array.dtype}") from error
    return array if array.size else None


def member(kind: type[Any]) -> Callable[[Layer, Any], Any]:
    """A converter that accepts only members of an enum."""

    def convert(layer: Layer, value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"it must be a member of {kind.__name__}")
        return value

    return convert


def shaped(array: Array, shape: Sequence[int], what: str, like: DType) -> Array:
    """Weights in their shape and in the dtype they work with. Raises ValueError when their number does not fit."""
    if array.size != np.prod(shape, dtype=object):
        raise ValueError(f"{what} has {array.size} elements, {'x'.join(map(str, shape)) or 1} are needed")
    if DType.of(array.dtype).is_float != like.is_float:
        raise ValueError(f"{what} is {array.dtype}, but the input is {like}")
    return np.ascontiguousarray(array, like.numpy).reshape(shape)


def axes_of(mask: int, rank: int) -> Ints:
    """The axes whose bits are set. Raises ValueError for none, or one beyond the rank."""
    axes = tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
    if mask <= 0 or axes[-1] >= rank:
        raise ValueError(f"axes {bin(mask)} do not fit a tensor of rank {rank}")
    return axes


def _listed(value: Any) -> Array:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array
