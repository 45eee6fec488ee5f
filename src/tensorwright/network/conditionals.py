# SPDX-License-Identifier: Apache-2.0
"""Conditionals: two parts of a network, of which a run computes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorwright.ir.graph import Value
from tensorwright.network.control import Body, Construct, EntryLayer, OutputLayer
from tensorwright.network.layer import Tensor
from tensorwright.network.writer import Writer, depending
from tensorwright.ops import control_flow
from tensorwright.ops.shape import Reshape

if TYPE_CHECKING:
    from tensorwright.network.base import BaseNetwork


class IfConditional(Construct):
    """Two parts of the network, of which a run computes the one that a condition chooses.

    Call `set_condition`, pass what the parts read through `add_input`, and give each result to `add_output`.
    """

    kind = "if"

    def __init__(self, network: BaseNetwork) -> None:
        super().__init__(network)
        self._condition: ConditionLayer | None = None
        self._inputs: list[IfConditionalInputLayer] = []
        self._outputs: list[IfConditionalOutputLayer] = []

    def set_condition(self, condition: Tensor) -> ConditionLayer:
        """A bool of rank 0."""
        self._condition = self.network.add_border(ConditionLayer, self, condition)
        self.network.changed()
        return self._condition

    def add_input(self, input: Tensor) -> IfConditionalInputLayer:
        """A tensor that the parts read."""
        self._inputs.append(self.network.add_border(IfConditionalInputLayer, self, input))
        return self._inputs[-1]

    def add_output(self, true_subgraph_output: Tensor, false_subgraph_output: Tensor) -> IfConditionalOutputLayer:
        """The first tensor where the condition holds, else the second; both have one type."""
        tensors = (true_subgraph_output, false_subgraph_output)
        self._outputs.append(self.network.add_border(IfConditionalOutputLayer, self, *tensors))
        self.network.changed()
        return self._outputs[-1]

    def sources(self) -> list[Tensor]:
        return [layer.get_output(0) for layer in self._inputs]

    def results(self) -> list[Tensor]:
        return [layer.read(i) for i in (0, 1) for layer in self._outputs]

    def entering(self) -> list[Tensor]:
        if self._condition is None:
            raise self.error("it has no condition", "call set_condition")
        return [self._condition.read(0), *(layer.read(0) for layer in self._inputs)]

    def write(self, writer: Writer) -> dict[Tensor, Value]:
        inside = depending(self.results(), self.sources())
        condition, *given = (writer.values[t] for t in self.entering())
        bodies = [Body(writer, f"{self.name}/{which}", inside) for which in ("then", "else")]
        made: list[list[Value]] = []
        for index, body in enumerate(bodies):
            for layer, value in zip(self._inputs, given, strict=True):
                entry = body.builder.input(f"{body.name}/{layer.name}", value.type)
                body.writer.values[layer.get_output(0)] = entry
            made.append([body.writer.value_of(layer.read(index)) for layer in self._outputs])
        for layer, yes, no in zip(self._outputs, *made, strict=True):
            if yes.type != no.type:
                raise layer.error(f"its inputs are {yes.type} and {no.type}", "give both parts results of one type")
        captured = list(dict.fromkeys(t for body in bodies for t in body.captured))
        graphs = []
        for body, results in zip(bodies, made, strict=True):
            entries = [body.writer.values[t] for t in self.sources()]
            own = [
                body.captured.get(t) or body.builder.input(f"{body.name}/{t.name}", writer.values[t].type)
                for t in captured
            ]
            graphs.append(body.graph(results, entries, own))
        op = control_flow.If(graphs[0], graphs[1], tuple(v.type for v in made[0]))
        writer.builder.source = self.name
        one = condition if condition.type.rank == 0 else writer.builder.add(Reshape(()), condition)
        values = writer.builder.add_all(op, one, *given, *(writer.values[t] for t in captured))
        return {layer.get_output(0): value for layer, value in zip(self._outputs, values, strict=True)}


class ConditionLayer(EntryLayer):
    """The condition of a conditional."""

    kind = "condition"
    num_outputs = 0


class IfConditionalInputLayer(EntryLayer):
    """A tensor as the parts of a conditional see it."""

    kind = "conditional_input"


class IfConditionalOutputLayer(OutputLayer):
    """A result of a conditional."""

    kind = "conditional_output"
    most_inputs = 2
