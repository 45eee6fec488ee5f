# SPDX-License-Identifier: Apache-2.0
"""What an importer function sees: the node it translates, and how it is registered.

An importer function takes the builder and an `OnnxNode`, and returns the node's result (or one value per output).
It refuses with `n.refuse(...)` what this version cannot run, and raises ValueError for what is wrong in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.tensors import array_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.builder import RefusalError as RefusalError
from tensorwright.network.builder import limit_constant
from tensorwright.network.builder import normal_axes as normal_axes
from tensorwright.network.builder import normal_axis as normal_axis

Result = Value | Sequence[Value]
T = TypeVar("T", int, float, str)
_KINDS = {int: AttributeProto.INT, float: AttributeProto.FLOAT, str: AttributeProto.STRING}


@dataclass(frozen=True, slots=True)
class OnnxOp:
    """The importer function of one ONNX op from opset `since` on, up to the next registered version."""

    name: str
    since: int
    translate: Callable[[Builder, OnnxNode], Result]


def onnx_op(name: str, since: int = 7) -> Callable[[Callable[[Builder, OnnxNode], Result]], OnnxOp]:
    """Decorator: register a function for the op `name`. `since` is the opset that brought the form it reads;
    forms older than opset 7 are registered as 7, the oldest opset that is read."""

    def register(translate: Callable[[Builder, OnnxNode], Result]) -> OnnxOp:
        return OnnxOp(name, since, translate)

    return register


class OnnxNode:
    """One ONNX node with its inputs as graph values. Attributes that a function never asked for are a refusal."""

    def __init__(
        self, proto: NodeProto, opset: int, inputs: Sequence[Value | None], used: Sequence[bool], builder: Builder
    ) -> None:
        self.proto, self.opset, self.inputs = proto, opset, tuple(inputs)
        self.used_outputs = tuple(used)  # whether anything reads output i
        self._builder = builder
        self._attributes = {a.name: a for a in proto.attribute}
        self._asked: set[str] = set()

    # -- inputs ---------------------------------------------------------------------------------
    def input(self, index: int) -> Value:
        """A required input. Raises ValueError when it is absent."""
        value = self.optional(index)
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An optional input, None when it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def all_inputs(self) -> list[Value]:
        """The inputs of an op that takes any number, at least one."""
        return [self.input(i) for i in range(max(1, len(self.inputs)))]

    def constant(self, index: int, because: str) -> Array:
        """A required input whose elements must be known now; `because` says what needs them."""
        array = self._builder.known(self.input(index))
        if array is None:
            self._unknown(index, because)
        return array

    def integers(self, index: int, because: str) -> tuple[int, ...]:
        """`constant` as a flat tuple of ints."""
        array = self.constant(index, because)
        if array.dtype.kind not in "iu":
            raise ValueError(f"input {index} must hold integers, it holds {array.dtype}")
        return tuple(int(x) for x in array.reshape(-1))

    def dims(self, index: int, because: str) -> tuple[Dim, ...]:
        """A required integer input as dims: known numbers, or expressions over the symbolic input dims."""
        contents = self._builder.contents(self.input(index))
        if contents is None:
            self._unknown(index, because)
        return tuple(contents.reshape(-1))

    def _unknown(self, index: int, because: str) -> NoReturn:
        self.refuse(
            f"{because}, but input {self.proto.input[index]!r} is only known at run",
            "give every input a fixed shape with shapes="
            if self._builder.has_symbols
            else "replace that input by a constant, for example with onnxsim or by exporting with fixed shapes",
        )

    # -- attributes -----------------------------------------------------------------------------
    def attr(self, name: str, kind: type[T], default: T | None = None) -> T:
        """An attribute of kind int, float or str; without a default it is required. Raises ValueError."""
        proto = self._attribute(name)
        if proto is None:
            if default is None:
                raise ValueError(f"attribute {name!r} is missing")
            return default
        if proto.type != _KINDS[kind]:
            raise ValueError(
                f"attribute {name!r} is {AttributeProto.AttributeType.Name(proto.type)}, expected {kind.__name__}"
            )
        if kind is float:
            return kind(str(np.float32(proto.f)))  # the shortest decimal that is this f32: 1e-05, not 9.99999974e-06
        return kind(proto.i) if kind is int else kind(proto.s.decode("utf-8", "replace"))

    def has(self, name: str) -> bool:
        """Whether the node has the attribute."""
        return name in self._attributes

    def flag(self, name: str, default: bool = False) -> bool:
        """An int attribute that means yes or no."""
        return bool(self.attr(name, int, int(default)))

    def ints(self, name: str) -> tuple[int, ...] | None:
        """An attribute that lists ints; None when absent."""
        proto = self._attribute(name)
        if proto is not None and proto.type != AttributeProto.INTS:
            raise ValueError(f"attribute {name!r} must be a list of integers")
        return tuple(proto.ints) if proto is not None else None

    def floats(self, name: str) -> tuple[float, ...] | None:
        """An attribute that lists floats; None when absent."""
        proto = self._attribute(name)
        if proto is not None and proto.type != AttributeProto.FLOATS:
            raise ValueError(f"attribute {name!r} must be a list of floats")
        return tuple(float(str(np.float32(f))) for f in proto.floats) if proto is not None else None

    def strings(self, name: str) -> tuple[str, ...] | None:
        """An attribute that lists strings; None when absent."""
        proto = self._attribute(name)
        if proto is not None and proto.type != AttributeProto.STRINGS:
            raise ValueError(f"attribute {name!r} must be a list of strings")
        return tuple(s.decode("utf-8", "replace") for s in proto.strings) if proto is not None else None

    def tensor(self, name: str) -> Array | None:
        """An attribute that holds a tensor; None when absent."""
        proto = self._attribute(name)
        if proto is None:
            return None
        if proto.type != AttributeProto.TENSOR:
            raise ValueError(f"attribute {name!r} must be a tensor")
        return array_of(proto.t, self._builder.data)

    def axis(self, name: str, default: int | None, rank: int) -> int:
        """An int attribute that names an axis of a tensor of `rank`, made non-negative."""
        return normal_axis(self.attr(name, int, default), rank)

    def cut(self, name: str, default: int, rank: int) -> int:
        """An int attribute that cuts the axes in two: from 0 to `rank`; negative from the end."""
        axis = self.attr(name, int, default)
        return axis if axis == rank else normal_axis(axis, rank)

    def ignore(self, *names: str) -> None:
        """Attributes that have no effect on inference."""
        self._asked.update(names)

    def unread_attributes(self) -> list[str]:
        """Attributes of the node that the importer function did not ask for."""
        return sorted(set(self._attributes) - self._asked)

    def dtype_attr(self, name: str, default: int | None = None) -> int:
        """An attribute that holds a TensorProto data type number."""
        number = self.attr(name, int, default)
        if number not in TensorProto.DataType.values():
            raise ValueError(f"attribute {name!r} is {number}, which is no data type")
        return number

    def _attribute(self, name: str) -> AttributeProto | None:
        self._asked.add(name)
        proto = self._attributes.get(name)
        if proto is not None and proto.ref_attr_name:
            raise ValueError(f"attribute {name!r} refers to a function's attribute outside a function")
        return proto

    # -- outputs --------------------------------------------------------------------------------
    def output_used(self, index: int) -> bool:
        """Whether anything reads output `index`."""
        return index < len(self.used_outputs) and self.used_outputs[index]

    def limit_constant(self, elems: int) -> None:
        """Refuse to make up a constant of more than 2**24 elements."""
        limit_constant(elems)

    def refuse(self, reason: str, do: str = "") -> NoReturn:
        """Say that this node cannot be imported."""
        raise RefusalError(reason, do)
