# SPDX-License-Identifier: Apache-2.0
"""Ops with bodies: graphs of their own, which are optimised and compiled as the graph around them is.

What a body reads from around it is an explicit input of the op, and of the body, after all others ("captured"). Bodies
belong to their op and never change; whoever wants another body makes another op.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dims import Dim, substitute
from tensorwright.ir.dtype import DType
from tensorwright.ir.evaluate import evaluate
from tensorwright.ir.graph import Graph, Value, bodies_of
from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType


class ControlFlow(Op):
    """An op with bodies. No kernel runs it: its bodies have kernels."""

    @property
    def bodies(self) -> dict[str, Graph]:
        """The bodies by attribute name."""
        return bodies_of(self)

    @property
    def first_captured(self) -> int:
        """The number of inputs of the op before the captured ones."""
        raise NotImplementedError

    @property
    def first_captured_inside(self) -> int:
        """The number of inputs of each body before the captured ones."""
        raise NotImplementedError

    def with_bodies(self, bodies: dict[str, Graph]) -> ControlFlow:
        """The same op with other bodies."""
        return dataclasses.replace(self, **bodies)  # type: ignore[type-var]  # every op is a dataclass


@op("if", compare=EXACT)
class If(ControlFlow):
    """The outputs of one of two bodies. Inputs: the condition (one bool), then what the bodies capture.

    Both bodies have all captured values as inputs, and as many outputs. `types` are the op's: a dim in which the bodies
    differ is a symbol.
    """

    then_body: Graph
    else_body: Graph
    types: tuple[TensorType, ...]

    @property
    def first_captured(self) -> int:
        return 1

    @property
    def first_captured_inside(self) -> int:
        return 0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        condition, *captured = inputs
        _one(condition, DType.bool, "the condition of an if")
        for name, body in self.bodies.items():
            _takes(body, captured, name)
            given = [v.type for v in body.outputs]
            if len(given) != len(self.types) or not all(_fits(t, u) for t, u in zip(given, self.types, strict=True)):
                raise ValueError(f"{name} gives {_listed(given)}, the if {_listed(self.types)}")
        return self.types

    def reference(self, *inputs: Any) -> tuple[Any, ...]:
        condition, *captured = inputs
        return tuple(_run(self.then_body if number(condition) else self.else_body, captured))


@op("loop", compare=EXACT)
class Loop(ControlFlow):
    """Runs its body while the condition holds, at most so often as it is told. Inputs: the number of iterations (one
    i64), the condition (one bool), either may be absent; then `carried` initial values, then what the body captures.

    The body takes the iteration's number (i64), the carried values and the captured ones. It gives the condition to go
    on when `conditional`, the carried values, and values that are stacked, one row an iteration. The op gives the last
    carried values and the stacks. `length` is the number of iterations: a symbol where only a run decides.
    """

    body: Graph
    carried: int
    length: Dim
    conditional: bool

    @property
    def first_captured(self) -> int:
        return 2 + self.carried

    @property
    def first_captured_inside(self) -> int:
        return 1 + self.carried

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        trips, condition, *values = inputs
        if trips is None and condition is None and not self.conditional:
            raise ValueError("the loop has neither a number of iterations nor a condition: it never ends")
        if trips is not None:
            _one(trips, DType.i64, "the number of iterations")
        if condition is not None:
            _one(condition, DType.bool, "the condition of a loop")
        if not self.body.inputs:
            raise ValueError("the body takes no iteration number")
        _one(self.body.inputs[0].type, DType.i64, "the iteration's number")
        _takes(self.body, [self.body.inputs[0].type, *values], "body")
        results = [v.type for v in self.body.outputs]
        if self.conditional:
            _one(results.pop(0) if results else None, DType.bool, "the condition that the body gives")
        stacked = _carries(values, results, self.carried)
        return (*results[: self.carried], *(t.with_shape((self.length, *t.shape)) for t in stacked))

    def reference(self, *inputs: Any) -> tuple[Any, ...]:
        trips, condition, *values = inputs
        states, captured = values[: self.carried], values[self.carried :]
        types = [v.type for v in self.body.outputs[self.conditional + self.carried :]]
        rows: list[list[Any]] = [[] for _ in types]
        limit = None if trips is None else int(number(trips))
        going, iteration = condition is None or bool(number(condition)), 0
        while going and (limit is None or iteration < limit):
            counter = np.full(self.body.inputs[0].type.static_shape, iteration, np.int64)
            results = _run(self.body, [counter, *states, *captured])
            if self.conditional:
                going = bool(number(results.pop(0)))
            states = results[: self.carried]
            for row, value in zip(rows, results[self.carried :], strict=True):
                row.append(value)
            iteration += 1
        sizes = _told(self.body.inputs[1:], values)
        return (*states, *(_stacked(row, t, 0, sizes) for row, t in zip(rows, types, strict=True)))


@op("scan", compare=EXACT)
class Scan(ControlFlow):
    """Runs its body once for each slice. Inputs: `carried` initial values, then one scanned value per entry of
    `input_axes`, then what the body captures; the body takes slices in place of the scanned values.

    The body gives the carried values, and values that are stacked along `output_axes`. An entry of `input_backwards`
    means that slices are taken from the end, one of `output_backwards` that the stack is filled from the end.
    """

    body: Graph
    carried: int
    input_axes: tuple[int, ...]
    input_backwards: tuple[bool, ...]
    output_axes: tuple[int, ...]
    output_backwards: tuple[bool, ...]

    @property
    def first_captured(self) -> int:
        return self.carried + len(self.input_axes)

    @property
    def first_captured_inside(self) -> int:
        return self.first_captured

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        count = self.first_captured
        if len(inputs) < count or None in inputs or not self.input_axes:
            raise ValueError("a scan takes a value for each carried and scanned one, and scans at least one")
        scanned = [t for t in inputs[self.carried : count] if t is not None]
        if any(not 0 <= axis < t.rank for axis, t in zip(self.input_axes, scanned, strict=True)):
            raise ValueError(f"axes {self.input_axes} do not fit {_listed(scanned)}")
        lengths = [t.shape[axis] for axis, t in zip(self.input_axes, scanned, strict=True)]
        known = sorted({d for d in lengths if isinstance(d, int)})
        if len(known) > 1:
            raise ValueError(f"the scanned values have {', '.join(map(str, known))} slices")
        length = (known or lengths)[0]  # a run checks what only it decides
        slices = [without(t, axis) for axis, t in zip(self.input_axes, scanned, strict=True)]
        _takes(self.body, [*inputs[: self.carried], *slices, *inputs[count:]], "body")
        results = [v.type for v in self.body.outputs]
        stacked = _carries(inputs, results, self.carried)
        if not len(stacked) == len(self.output_axes) == len(self.output_backwards):
            raise ValueError(f"the body gives {len(stacked)} values to stack, for {len(self.output_axes)} axes")
        return (
            *results[: self.carried],
            *(stack_type(t, axis, length) for t, axis in zip(stacked, self.output_axes, strict=True)),
        )

    def reference(self, *inputs: Any) -> tuple[Any, ...]:
        count = self.first_captured
        states, captured = list(inputs[: self.carried]), inputs[count:]
        scanned = [
            np.moveaxis(x, axis, 0)[:: -1 if backwards else 1]
            for x, axis, backwards in zip(
                inputs[self.carried : count], self.input_axes, self.input_backwards, strict=True
            )
        ]
        types = [v.type for v in self.body.outputs[self.carried :]]
        rows: list[list[Any]] = [[] for _ in types]
        for slices in zip(*scanned, strict=True):
            results = _run(self.body, [*states, *(np.ascontiguousarray(x).reshape(x.shape) for x in slices), *captured])
            states = results[: self.carried]
            for row, value in zip(rows, results[self.carried :], strict=True):
                row.append(value)
        given = (*inputs[: self.carried], *captured)
        sizes = _told((*self.body.inputs[: self.carried], *self.body.inputs[count:]), given)
        ways = zip(rows, types, self.output_axes, self.output_backwards, strict=True)
        return (*states, *(_stacked(row[:: -1 if back else 1], t, axis, sizes) for row, t, axis, back in ways))


def without(t: TensorType, axis: int) -> TensorType:
    """The type of a slice."""
    return t.with_shape((*t.shape[:axis], *t.shape[axis + 1 :]))


def stack_type(t: TensorType, axis: int, length: Dim) -> TensorType:
    """The type of `length` values of type `t`, stacked along `axis`."""
    return t.with_shape((*t.shape[:axis], length, *t.shape[axis:]))


def nested(graph: Graph) -> Iterator[Graph]:
    """The graph, and all bodies in it, outer ones first."""
    yield graph
    for node in graph.nodes:
        for body in bodies_of(node.op).values():
            yield from nested(body)


def number(x: Any) -> Any:
    """The only element of an array."""
    return np.asarray(x).reshape(-1)[0]


def _run(body: Graph, inputs: Sequence[Any]) -> list[Any]:
    values = evaluate(body, inputs)
    return [values[v] for v in body.outputs]


def _stacked(rows: Sequence[Any], t: TensorType, axis: int, sizes: Mapping[str, int]) -> Array:
    """The rows along a new axis; without any, dims that `sizes` do not tell count as 0."""
    if rows:
        return np.ascontiguousarray(np.stack(rows, axis))
    found = (substitute(d, sizes) for d in stack_type(t, axis, 0).shape)
    return np.empty([d if isinstance(d, int) else 0 for d in found], t.dtype.numpy)


def _told(inputs: Sequence[Value], arrays: Sequence[Any]) -> dict[str, int]:
    """The symbols that the shapes of a body's inputs tell."""
    sizes: dict[str, int] = {}
    for value, array in zip(inputs, arrays, strict=True):
        value.type.learn(np.shape(array), sizes)
    return sizes


def _one(t: TensorType | None, dtype: DType, what: str) -> None:
    if t is None or t.dtype is not dtype or not t.is_static or t.elems != 1:
        raise ValueError(f"{what} must be one {dtype}, it is {t}")


def _takes(body: Graph, given: Sequence[TensorType | None], name: str) -> None:
    declared = [v.type for v in body.inputs]
    if declared != list(given):
        raise ValueError(f"{name} takes {_listed(declared)}, and is given {_listed(given)}")


def _carries(initial: Sequence[TensorType | None], results: Sequence[TensorType], carried: int) -> Sequence[TensorType]:
    """The types that are stacked; what is carried must keep its type."""
    if list(initial[:carried]) != list(results[:carried]) or len(results) < carried:
        raise ValueError(f"carried values change from {_listed(initial[:carried])} to {_listed(results[:carried])}")
    return results[carried:]


def _fits(found: TensorType, declared: TensorType) -> bool:
    if found == declared:
        return True
    pairs = zip(found.shape, declared.shape, strict=False)
    return (
        type(found) is type(declared) is TensorType
        and found.dtype is declared.dtype
        and found.rank == declared.rank
        and all(a == b or not isinstance(b, int) for a, b in pairs)
    )


def _listed(types: Sequence[TensorType | None]) -> str:
    return ", ".join(map(str, types)) or "nothing"
