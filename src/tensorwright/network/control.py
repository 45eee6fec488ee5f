# SPDX-License-Identifier: Apache-2.0
"""What conditionals and loops share: layers between tensors inside of a body and those around it.

What depends on an input layer of a conditional, or on a recurrence or an iterator of a loop, is inside; all else that a
body reads is computed before. The layers inside become a graph of their own (`ops.control_flow`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from tensorwright.errors import ModelError
from tensorwright.ir.graph import Graph, Value
from tensorwright.network.builder import NetworkBuilder, RefusalError
from tensorwright.network.layer import Layer, Tensor
from tensorwright.network.writer import Writer, depending, outside

if TYPE_CHECKING:
    from tensorwright.network.base import BaseNetwork

L = TypeVar("L", bound=Layer)


class Construct:
    """What a conditional and a loop share: the layers at their borders, and the name that those begin with."""

    kind: ClassVar[str]

    def __init__(self, network: BaseNetwork) -> None:
        self.network = network
        self._name = network.next_name(self.kind)

    @property
    def name(self) -> str:
        """The name; it becomes the name and origin of the node."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        self.network.changed()

    def error(self, what: str, do: str = "") -> ModelError:
        """A ModelError about this construct."""
        where = f"network {self.network.name!r}"
        return ModelError(f"{type(self).__name__} {self.name!r}: {what}", where=where, code="M110", do=do)

    def sources(self) -> list[Tensor]:
        """The tensors that are inside for certain."""
        raise NotImplementedError

    def results(self) -> list[Tensor]:
        """The tensors that leave a body."""
        raise NotImplementedError

    def entering(self) -> list[Tensor]:
        """The tensors that the border itself reads."""
        raise NotImplementedError

    def needs(self) -> list[Tensor]:
        """All tensors around the bodies that must be there before."""
        inside = depending(self.results(), self.sources())
        return list(dict.fromkeys([*self.entering(), *outside(self.results(), inside)]))

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        """Write the whole construct: the values of all its outputs."""
        raise NotImplementedError


class BorderLayer(Layer):
    """A layer at the border of a conditional or a loop, of which it is a part."""

    construct: Construct

    def needs_inside(self) -> list[Tensor]:
        return []


class EntryLayer(BorderLayer):
    """A layer whose output only exists inside."""

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        raise RefusalError(f"its output is read outside of {self.construct.name!r}", "add an output of that")


class OutputLayer(BorderLayer):
    """A layer that gives a result of the construct; all of them are written together."""

    def needs(self) -> list[Tensor]:
        return self.construct.needs()

    def needs_inside(self) -> list[Tensor]:
        return self.needs()

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        return self.construct.write(writer)


class Body:
    """The graph of a body while it is written. `captured` are the values around it that it reads, by its inputs."""

    def __init__(self, outer: Writer, name: str, inside: set[Tensor]) -> None:
        self.outer, self.name = outer, name
        self.builder = NetworkBuilder(name)
        self.captured: dict[Tensor, Value] = {}
        self.writer = Writer(self.builder, inside, self._capture)
        self.writer.written = outer.written

    def _capture(self, tensor: Tensor) -> Value:
        around = self.outer.values[tensor]
        array = self.outer.builder.known(around)
        if array is not None:
            return self.builder.constant(array, f"{self.name}/{tensor.name}")
        if tensor not in self.captured:
            self.captured[tensor] = self.builder.input(f"{self.name}/{tensor.name}", around.type)
        return self.captured[tensor]

    def graph(self, results: Sequence[Value], first: Sequence[Value], captured: Sequence[Value]) -> Graph:
        """The finished body: its own inputs, then the captured ones."""
        names = [f"{self.name}/output_{i}" for i in range(len(results))]
        return self.builder.finish(list(zip(names, results, strict=True)), [*first, *captured])
