# SPDX-License-Identifier: Apache-2.0
"""Loop variables that count: how often a loop runs, and what its counters are in each iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.bodies import Body, applied
from tensorwright.importers.tensorflow.graph_def import Part
from tensorwright.importers.tensorflow.tensors import array_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.evaluate import evaluate
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Cast
from tensorwright.ops.shape import Reshape

if TYPE_CHECKING:
    from tensorwright.importers.tensorflow.graph_def import Ref, TfNode
    from tensorwright.importers.tensorflow.reader import Anything, GraphReader

_MOST_WORK = 60_000  # nodes evaluated to find out how often a loop runs


@dataclass(frozen=True, slots=True)
class Trips:
    """How often a loop runs: a number, or a dim whose value is `source`."""

    length: Dim
    source: Value | None = None

    def value(self, b: Builder) -> Value:
        """One i64."""
        if self.source is None:
            return b.constant(np.asarray(self.length, np.int64))
        flat = b.add(Reshape(()), self.source) if self.source.type.rank else self.source
        return flat if flat.type.dtype is DType.i64 else b.add(Cast(DType.i64), flat)


@dataclass(slots=True)
class Counters:
    """What is known of a loop: `values` of variables in each iteration, [trips, ...] (None: the iteration's number),
    and `finals` after the last (None: the number of iterations)."""

    trips: Trips | None = None
    values: dict[int, Array | None] = field(default_factory=dict)
    finals: dict[int, Array | None] = field(default_factory=dict)

    def starts(self, reader: GraphReader, condition: Part, inputs: Sequence[Anything]) -> Value | bool | None:
        """Whether the loop runs at all: True, False or a value; None when the number of its iterations says it."""
        if self.trips is not None:
            return True
        (found,) = applied(reader, condition, reader.builder, inputs, reader.problems)
        if not isinstance(found, Value):
            return None
        known = reader.builder.known(found)
        return found if known is None else bool(known.all())


def counters_of(
    reader: GraphReader, condition: Part, body: Part, inputs: Sequence[Anything], same: Sequence[bool]
) -> Counters:
    """Follow the variables that only depend on known numbers, as long as the condition holds."""
    known = {i: array for i, v in enumerate(inputs) if isinstance(v, Value) for array in [reader.builder.known(v)]}
    fixed = {i for i, is_same in enumerate(same) if is_same and known.get(i) is not None}
    moving = {
        i
        for i, array in known.items()
        if array is not None and not same[i] and array.size == 1 and array.dtype.kind in "iub"
    }
    while True:
        loose = {i for i in moving if not body.read_by([body.results[i]]) <= moving | fixed}
        if not loose:
            break
        moving -= loose
    if not moving or not condition.read_by(condition.results) <= moving | fixed:
        return _counting(reader, condition, body, inputs, same)
    numbers = sorted(moving)
    graph = _step(reader, condition, body, inputs, numbers)
    if graph is None:
        return Counters()
    return _followed(graph, numbers, [np.asarray(known[i]) for i in numbers])


def _step(
    reader: GraphReader, condition: Part, body: Part, inputs: Sequence[Anything], numbers: Sequence[int]
) -> Graph | None:
    """A graph from the counters to the condition and the next counters; None when it cannot be read."""
    aside, scratch = Problems("node", ""), Body(reader.builder, "counters")
    states = {i: scratch.state(i, v.type) for i in numbers for v in [inputs[i]] if isinstance(v, Value)}
    given = [states[i] if i in states else scratch.take(value) for i, value in enumerate(inputs)]
    goes_on = applied(reader, condition, scratch.builder, given, aside)
    wanted: list[Ref] = [body.results[i] for i in numbers]
    following = applied(reader, body, scratch.builder, given, aside, wanted)
    results = [value for value in (*goes_on, *following) if isinstance(value, Value)]
    if aside.first or len(results) != 1 + len(numbers):
        return None
    if any(new.type != states[i].type for i, new in zip(numbers, results[1:], strict=True)):
        return None
    outputs = [(f"output_{i}", value) for i, value in enumerate(results)]
    return scratch.builder.finish(outputs, list(states.values()))


def _followed(graph: Graph, numbers: Sequence[int], start: Sequence[Array]) -> Counters:
    """Run the step until the condition fails; nothing is known when it holds for too long."""
    rows: list[list[Any]] = []
    current: list[Any] = list(start)
    with np.errstate(all="ignore"):
        for _ in range(_MOST_WORK // (len(graph) + 1)):
            values = evaluate(graph, current)
            goes_on, *following = (values[v] for v in graph.outputs)
            if not np.all(goes_on):
                break
            rows.append(current)
            current = following
        else:
            return Counters()
    columns: Mapping[int, Array] = {
        n: np.stack([row[k] for row in rows]) if rows else start[k][None][:0] for k, n in enumerate(numbers)
    }
    finals = {n: np.asarray(current[k]) for k, n in enumerate(numbers)}
    return Counters(Trips(len(rows)), dict(columns), dict(finals))


# -- loops as long as a dim that only a run knows -----------------------------------------------------
def _counting(
    reader: GraphReader, condition: Part, body: Part, inputs: Sequence[Anything], same: Sequence[bool]
) -> Counters:
    """A loop whose condition is that counters from 0 in steps of 1 are less than dims: all the same one."""
    known = [reader.builder.known(v) if isinstance(v, Value) else None for v in inputs]
    units = {
        i
        for i, start in enumerate(known)
        if start is not None and start.dtype.kind == "i" and start.size == 1 and not start.any() and _steps(body, i)
    }
    limits = _limits(condition, condition.results[0], units)
    found: dict[Dim, Value] = {}
    for ref in limits or ():
        number = next((i for i, argument in enumerate(condition.arguments) if argument == ref), None)
        value = inputs[number] if number is not None and same[number] else None
        contents = reader.builder.contents(value) if isinstance(value, Value) else None
        if contents is None or contents.size != 1 or not isinstance(value, Value):
            return Counters()
        found[contents.reshape(-1)[0]] = value
    if len(found) != 1:
        return Counters()
    ((length, source),) = found.items()
    return Counters(Trips(length, source), dict.fromkeys(units), dict.fromkeys(units))


def _steps(body: Part, number: int) -> bool:
    """Whether an iteration adds 1 to a variable."""
    node = body.nodes.get(body.through(body.results[number]).node)
    if node is None or node.op not in ("Add", "AddV2") or len(node.inputs) != 2:
        return False
    first, second = (body.through(ref) for ref in node.inputs)
    step = second if first == body.arguments[number] else first
    maker = body.nodes.get(step.node)
    is_own = body.arguments[number] in (first, second)
    return is_own and maker is not None and maker.op == "Const" and _is_one(maker)


def _is_one(node: TfNode) -> bool:
    try:
        array = array_of(node.attrs["value"].tensor)
    except (ValueError, KeyError):
        return False
    return array.size == 1 and bool((array == 1).all())


def _limits(condition: Part, ref: Ref, units: set[int]) -> list[Ref] | None:
    """What counters must be less than, for the condition to hold; None for other conditions."""
    node = condition.nodes.get(condition.through(ref).node)
    if node is None or len(node.inputs) != 2:
        return None
    if node.op == "LogicalAnd":
        parts = [_limits(condition, ref, units) for ref in node.inputs]
        return None if None in parts else [limit for part in parts if part is not None for limit in part]
    counter, limit = (condition.through(ref) for ref in (node.inputs[::-1] if node.op == "Greater" else node.inputs))
    if node.op not in ("Less", "Greater") or counter not in {condition.arguments[i] for i in units}:
        return None
    return [limit]
