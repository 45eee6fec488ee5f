# SPDX-License-Identifier: Apache-2.0
"""Loops: a part of a network that a run computes again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import NetworkBuilder, normal_axis
from tensorwright.network.composed.convert import as_type
from tensorwright.network.control import Body, Construct, EntryLayer, OutputLayer
from tensorwright.network.enums import LoopOutput, TripLimit
from tensorwright.network.layer import Setting, Tensor, flag, integer, known, member
from tensorwright.network.writer import Writer, depending
from tensorwright.ops import control_flow
from tensorwright.ops.elementwise import Sub
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Reshape, Slice, Transpose

if TYPE_CHECKING:
    from tensorwright.network.base import BaseNetwork


class Loop(Construct):
    """A part of the network that runs again and again, until a limit that `add_trip_limit` sets.

    `add_recurrence` makes a tensor that keeps a value from one iteration to the next, `add_iterator` one that is a new
    slice in each, and `add_loop_output` gives results to the tensors around the loop.
    """

    kind = "loop"

    def __init__(self, network: BaseNetwork) -> None:
        super().__init__(network)
        self._recurrences: list[RecurrenceLayer] = []
        self._iterators: list[IteratorLayer] = []
        self._limits: list[TripLimitLayer] = []
        self._outputs: list[LoopOutputLayer] = []

    def add_recurrence(self, initial_value: Tensor) -> RecurrenceLayer:
        """A value that starts as `initial_value`; input 1 is what it becomes, of the same type."""
        self._recurrences.append(self.network.add_border(RecurrenceLayer, self, initial_value))
        self.network.changed()
        return self._recurrences[-1]

    def add_iterator(self, tensor: Tensor, axis: int = 0, reverse: bool = False) -> IteratorLayer:
        """Slice i of the tensor in iteration i; with `reverse` from the end."""
        layer = self.network.add_border(IteratorLayer, self, tensor)
        layer.axis, layer.reverse = axis, reverse
        self._iterators.append(layer)
        return layer

    def add_trip_limit(self, tensor: Tensor, kind: TripLimit) -> TripLimitLayer:
        """COUNT: at most so many iterations as the tensor around the loop, one i32 or i64, says. WHILE: as long as the
        bool inside of the loop, of recurrences alone, holds before an iteration. A loop may have one of each."""
        layer = self.network.add_border(TripLimitLayer, self, tensor)
        layer.kind_of_limit = kind
        if any(other.kind_of_limit is kind for other in self._limits):
            raise layer.error(f"the loop has a limit {kind.name} already")
        self._limits.append(layer)
        self.network.changed()
        return layer

    def add_loop_output(self, tensor: Tensor, kind: LoopOutput, axis: int = 0) -> LoopOutputLayer:
        """LAST_VALUE: the value of a recurrence after the loop. CONCATENATE and REVERSE: the tensor's value in each
        iteration, along a new axis; the number of iterations must be a constant."""
        layer = self.network.add_border(LoopOutputLayer, self, tensor)
        layer.kind_of_output, layer.axis = kind, axis
        self._outputs.append(layer)
        self.network.changed()
        return layer

    def limit(self, kind: TripLimit) -> Tensor | None:
        """The tensor of the limit of this kind."""
        return next((layer.read(0) for layer in self._limits if layer.kind_of_limit is kind), None)

    def sources(self) -> list[Tensor]:
        return [layer.get_output(0) for layer in (*self._recurrences, *self._iterators)]

    def results(self) -> list[Tensor]:
        condition = self.limit(TripLimit.WHILE)
        stacked = [layer.read(0) for layer in self._outputs]
        return [*(layer.read(1) for layer in self._recurrences), *stacked, *([] if condition is None else [condition])]

    def entering(self) -> list[Tensor]:
        count = self.limit(TripLimit.COUNT)
        if not self._limits:
            raise self.error("it has no limit: it never ends", "call add_trip_limit")
        read = [layer.read(0) for layer in (*self._recurrences, *self._iterators)]
        return [*read, *([] if count is None else [count])]

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        b, inside = writer.builder, depending(self.results(), self.sources())
        b.source = self.name
        initial = [writer.values[layer.read(0)] for layer in self._recurrences]
        count, condition = self.limit(TripLimit.COUNT), self.limit(TripLimit.WHILE)
        trips = None if count is None else as_type(b, b.add(Reshape(()), writer.values[count]), DType.i64)
        going = None if condition is None else self._before(writer, writer.values.__getitem__, inside, initial)
        body = Body(writer, f"{self.name}/body", inside)
        counter = body.builder.input(f"{body.name}/iteration", TensorType(DType.i64, ()))
        states = [
            body.builder.input(f"{body.name}/{r.name}", v.type) for r, v in zip(self._recurrences, initial, strict=True)
        ]
        body.writer.values.update(zip((r.get_output(0) for r in self._recurrences), states, strict=True))
        for iterator in self._iterators:
            body.writer.values[iterator.get_output(0)] = iterator.slice(body, counter)
        following = [body.writer.value_of(layer.read(1)) for layer in self._recurrences]
        for layer, old, new in zip(self._recurrences, states, following, strict=True):
            if old.type != new.type:
                raise layer.error(f"its value changes from {old.type} to {new.type}", "keep the type of recurrences")
        stacks = [layer for layer in self._outputs if layer.kind_of_output is not LoopOutput.LAST_VALUE]
        results = [*following, *(body.writer.value_of(layer.read(0)) for layer in stacks)]
        if condition is not None:
            results.insert(0, self._before(body.writer, body.writer.value_of, inside, following))
        op = control_flow.Loop(
            body.graph(results, [counter, *states], list(body.captured.values())),
            len(states),
            self._length(b, trips, stacks),
            condition is not None,
        )
        captured = [writer.values[t] for t in body.captured]
        values = b.add_all(op, trips, going, *initial, *captured)
        finals = dict(zip((r.get_output(0) for r in self._recurrences), values, strict=False))
        made = dict(zip(stacks, values[len(states) :], strict=True))
        return {
            layer.get_output(0): layer.final(finals) if layer not in made else layer.placed(b, made[layer])
            for layer in self._outputs
        }

    def _before(
        self, writer: Writer, capture: Callable[[Tensor], Value], inside: set[Tensor], states: Sequence[Value]
    ) -> Value:
        """The condition in the graph that `writer` writes, for these values of the recurrences."""
        condition = self.limit(TripLimit.WHILE)
        assert condition is not None
        other = Writer(writer.builder, inside, capture)
        other.written = writer.written
        other.values.update(zip((r.get_output(0) for r in self._recurrences), states, strict=True))
        return other.value_of(condition)

    def _length(self, b: NetworkBuilder, trips: Value | None, stacks: Sequence[LoopOutputLayer]) -> Dim:
        if not stacks:
            return 0
        if trips is None or self.limit(TripLimit.WHILE) is not None or b.known(trips) is None:
            raise stacks[0].error(
                "it stacks one value for each iteration, and only a run decides how many there are",
                "limit the loop by a constant COUNT alone",
            )
        return max(int(known(b, trips, "the count").reshape(())), 0)


class TripLimitLayer(EntryLayer):
    """What ends a loop."""

    kind = "trip_limit"
    num_outputs = 0
    kind_of_limit = Setting[TripLimit, TripLimit](member(TripLimit))


class RecurrenceLayer(EntryLayer):
    """A value kept from one iteration of a loop to the next: input 0 before the first, input 1 after each."""

    kind = "recurrence"
    most_inputs = 2


class IteratorLayer(EntryLayer):
    """A slice of a tensor in each iteration."""

    kind = "iterator"
    axis = Setting[int, int](integer)
    reverse = Setting[bool, bool](flag)

    def slice(self, body: Body, counter: Value) -> Value:
        """The slice of iteration `counter`."""
        x = body.writer.value_of(self.read(0))
        axis = normal_axis(self.axis, x.type.rank)
        if self.reverse:
            last = x.type.shape[axis]
            if not isinstance(last, int):
                raise self.error(f"it reads {x.type} from the end, which needs a known length")
            counter = body.builder.add(Sub(), body.builder.scalar(last - 1, DType.i64), counter)
        return body.builder.add(Gather(axis), x, counter)


class LoopOutputLayer(OutputLayer):
    """A result of a loop."""

    kind = "loop_output"
    most_inputs = 2
    kind_of_output = Setting[LoopOutput, LoopOutput](member(LoopOutput))
    axis = Setting[int, int](integer)

    def final(self, finals: dict[Tensor, Value]) -> Value:
        """The last value of a recurrence."""
        if self.read(0) not in finals:
            raise self.error("LAST_VALUE needs the output of a recurrence of the loop", "make the tensor one")
        return finals[self.read(0)]

    def placed(self, b: NetworkBuilder, stack: Value) -> Value:
        """The stack, whose rows are iterations, along the axis and in the order that the layer asks for."""
        count, rank = stack.type.shape[0], stack.type.rank
        axis = normal_axis(self.axis, rank)
        if self.kind_of_output is LoopOutput.REVERSE:
            stack = b.add(Slice((count - 1,), (-1,), (0,), (-1,)), stack)
        order = tuple(np.insert(np.arange(1, rank), axis, 0).tolist())
        return stack if axis == 0 else b.add(Transpose(order), stack)
