# SPDX-License-Identifier: Apache-2.0
"""Functions that are applied to values while a graph is read: in the graph itself, or as the body of an op."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tensorwright.importers.builder import Builder
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.frames import structured
from tensorwright.importers.tensorflow.graph_def import Part, Ref, TfGraph, TfNode, body_of
from tensorwright.importers.tensorflow.list_values import TensorList
from tensorwright.ir.dims import SymDim
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import RefusalError
from tensorwright.ops.control_flow import ControlFlow

if TYPE_CHECKING:
    from tensorwright.importers.tensorflow.reader import Anything, GraphReader


_DEEPEST, _MOST = 24, 10_000  # functions within each other, and in all


def given_parts(node: TfNode) -> Any:
    """The parts of an op that was put in the place of several nodes; None for one with functions."""
    return node.attrs["parts"] if isinstance(node.attrs, dict) and "parts" in node.attrs else None


def part_of(reader: GraphReader, node: TfNode, attribute: str, count: int, prefix: str, number: int = 0) -> Part:
    """The function that an attribute names, of `count` arguments; its nodes get names that begin with the prefix.

    Raises ValueError when there is no such function.
    """
    value = node.attrs[attribute] if attribute in node.attrs else None
    names = [] if value is None else [f.name for f in value.list.func] or [value.func.name]
    name = names[number] if number < len(names) else ""
    function = reader.graph.library.get(name)
    if function is None:
        raise ValueError(f"its attribute {attribute!r} names the function {name!r}, which is not there")
    arguments = [Ref(f"{prefix}/argument_{i}", 0) for i in range(count)]
    problems = Problems("node", "")
    nodes, results = body_of(function, arguments, prefix, reader.graph.library, problems)
    if problems.first:
        raise ValueError(f"the function {name!r}: {problems.first}")
    structured(nodes)
    return Part(nodes, arguments, results)


def applied(
    reader: GraphReader,
    part: Part,
    builder: Builder,
    arguments: Sequence[Anything | None],
    problems: Problems,
    results: Sequence[Ref] | None = None,
) -> list[Anything | None]:
    """The results of a function (or other values in it) written to a builder; None where a problem was reported."""
    inner = inside(reader, part.nodes, builder, problems)
    inner.values.update(zip(part.arguments, arguments, strict=True))
    source = builder.source
    wanted = part.results if results is None else results
    found = [inner.values[ref] if ref in inner.values else inner.value(ref) for ref in wanted]
    builder.source = source
    return found


def inside(reader: GraphReader, nodes: dict[str, TfNode], builder: Builder, problems: Problems) -> GraphReader:
    """A reader for a part of the model."""
    from tensorwright.importers.tensorflow.reader import GraphReader

    reader.applications[0] += 1
    if reader.depth >= _DEEPEST or reader.applications[0] > _MOST:
        raise RefusalError("its functions contain each other, or too many")
    inner = GraphReader(TfGraph(reader.graph.where, nodes, reader.graph.library), builder, problems)
    inner.depth, inner.applications = reader.depth + 1, reader.applications
    return inner


class Body:
    """A body while it is written: a graph of its own, which takes what it needs from around it."""

    def __init__(self, outer: Builder, prefix: str) -> None:
        self.outer, self.prefix = outer, prefix
        self.builder = Builder(prefix, outer)
        self.builder.data_symbols = outer.data_symbols
        self.captured: dict[Value, Value] = {}  # values around, and what they are inside

    def state(self, number: int, type: TensorType) -> Value:
        """An input of its own."""
        return self.builder.input(f"{self.prefix}/state_{number}", type)

    def take(self, value: Anything | None) -> Anything | None:
        """What a value around is inside: a constant, or an input."""
        if isinstance(value, TensorList):
            return dataclasses.replace(
                value,
                base=self._taken(value.base) if value.base is not None else None,
                written={i: self._taken(item) for i, item in value.written.items()},
                last=None if value.last is None else (self._taken(value.last[0]), self._taken(value.last[1])),
            )
        return None if value is None else self._taken(value)

    def _taken(self, value: Value) -> Value:
        if value not in self.captured:
            name, array = f"{self.prefix}/captured_{len(self.captured)}", self.outer.known(value)
            if array is not None:
                self.captured[value] = self.builder.constant(array, name)
                return self.captured[value]
            self.captured[value] = self.builder.input(name, value.type)
            contents = self.outer.contents(value)
            if contents is not None and TensorType(value.type.dtype, tuple(contents.flat)).is_bounded:
                self.builder.tell(self.captured[value], contents)
        return self.captured[value]

    def graph(self, first: Sequence[Value], results: Sequence[Value]) -> Graph:
        """The finished body: its own inputs, then the captured ones."""
        names = [f"{self.prefix}/output_{i}" for i in range(len(results))]
        captured = [inside for inside in self.captured.values() if self.builder.known(inside) is None]
        return self.builder.finish(list(zip(names, results, strict=True)), [*first, *captured])

    def given(self) -> list[Value]:
        """The values around that it takes as inputs."""
        return [value for value, inside in self.captured.items() if self.builder.known(inside) is None]


def whole(values: Sequence[Anything | None], builder: Builder) -> list[Value] | None:
    """Values that leave a body: lists as arrays. None where one of them is missing, which was reported."""
    found = [v.stacked(builder) if isinstance(v, TensorList) else v for v in values]
    known = [v for v in found if v is not None]
    return known if len(known) == len(found) else None


def added(reader: GraphReader, op: ControlFlow, inputs: Sequence[Value | None]) -> list[Value]:
    """The results of an op with bodies; sizes that only it decides are noted."""
    values = list(reader.builder.add_all(op, *inputs))
    known = {s for v in inputs if v is not None for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    found = {s for v in values for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    reader.builder.data_symbols |= found - known - reader.builder.input_symbols
    return values


def like(value: Value, model: Anything | None) -> Anything:
    """A value that left a body as what it was inside: a list, or itself."""
    return TensorList.of(value) if isinstance(model, TensorList) else value


def refuse_list(value: Anything, what: str) -> Value:
    """The value, which must be no list."""
    if isinstance(value, TensorList):
        raise RefusalError(f"{what} is a list of tensors")
    return value


def is_read(graph: Graph, number: int) -> bool:
    """Whether a graph reads its input of this number."""
    value = graph.inputs[number]
    return bool(graph.users(value)) or graph.is_output(value)
