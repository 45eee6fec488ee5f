# SPDX-License-Identifier: Apache-2.0
"""What an importer function sees: the node that it translates, and how it is registered.

An importer function takes the builder and an `OpNode`, and gives the node's result (or one value per output). It
refuses with `n.refuse(...)` what this version cannot run, and raises ValueError for what is wrong in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.graph_def import TfNode
from tensorwright.importers.tensorflow.tensors import dtype_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.builder import RefusalError, normal_axes, normal_axis

Result = Value | Sequence[Value]
Translate = Callable[[Builder, "OpNode"], Result]


@dataclass(frozen=True, slots=True)
class TfOp:
    """The importer function of one TensorFlow op."""

    name: str
    translate: Translate


def tf_op(*names: str) -> Callable[[Translate], list[TfOp]]:
    """Decorator: register a function for ops."""
    return lambda translate: [TfOp(name, translate) for name in names]


class OpNode:
    """One node with its inputs as graph values."""

    def __init__(self, node: TfNode, inputs: Sequence[Value], builder: Builder) -> None:
        self.node, self.inputs = node, tuple(inputs)
        self._builder = builder

    @property
    def op(self) -> str:
        """The name of the op."""
        return self.node.op

    # -- inputs ---------------------------------------------------------------------------------
    def input(self, index: int = 0) -> Value:
        """A required input. Raises ValueError when it is absent."""
        if index >= len(self.inputs):
            raise ValueError(f"input {index} is missing")
        return self.inputs[index]

    def constant(self, index: int, because: str) -> Array:
        """An input whose elements must be known now; `because` says what needs them."""
        array = self._builder.known(self.input(index))
        if array is None:
            self._unknown(index, because)
        return array

    def number(self, index: int, because: str) -> int:
        """`constant` of one integer."""
        array = self.constant(index, because)
        if array.size != 1:
            raise ValueError(f"input {index} has {array.size} elements, one is expected")
        return int(array.reshape(-1)[0])

    def integers(self, index: int, because: str) -> tuple[int, ...]:
        """`constant` as a flat tuple of ints."""
        return tuple(int(x) for x in self.constant(index, because).reshape(-1))

    def dims(self, index: int, because: str) -> tuple[Dim, ...]:
        """An integer input as dims: known numbers, or expressions over the symbolic input dims."""
        contents = self._builder.contents(self.input(index))
        if contents is None:
            self._unknown(index, because)
        return tuple(contents.reshape(-1))

    def axis(self, index: int, rank: int, because: str = "it works along that axis") -> int:
        """An input that names an axis of a tensor of `rank`."""
        return normal_axis(self.number(index, because), rank)

    def axes(self, index: int, rank: int) -> tuple[int, ...]:
        """An input that names axes of a tensor of `rank`."""
        return normal_axes(self.integers(index, "it works along these axes"), rank)

    def _unknown(self, index: int, because: str) -> NoReturn:
        self.refuse(
            f"{because}, but input {str(self.node.inputs[index])!r} is only known at run",
            "give every input a fixed shape with shapes=" if self._builder.has_symbols else "freeze it into a constant",
        )

    # -- attributes -----------------------------------------------------------------------------
    def _attr(self, name: str, kind: str) -> Any:
        attrs: Mapping[str, Any] = self.node.attrs
        if name not in attrs:
            return None
        value = attrs[name]
        if not value.HasField(kind):
            raise ValueError(f"attribute {name!r} is not of the kind {kind!r}")
        return getattr(value, kind)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self._attr(name, "i")
        return default if value is None else int(value)

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self._attr(name, "f")
        return default if value is None else float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A bool attribute."""
        value = self._attr(name, "b")
        return default if value is None else bool(value)

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        value = self._attr(name, "s")
        return default if value is None else value.decode("utf-8", "replace")

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; None when absent."""
        value = self._attr(name, "list")
        return None if value is None else tuple(value.i)

    def dtype(self, name: str, default: DType | None = None) -> DType:
        """An attribute that names an element type."""
        value = self._attr(name, "type")
        if value is None and default is None:
            raise ValueError(f"attribute {name!r} is missing")
        return default if value is None and default is not None else dtype_of(value)

    def refuse(self, reason: str, do: str = "") -> NoReturn:
        """Say that this node cannot be imported."""
        raise RefusalError(reason, do)
