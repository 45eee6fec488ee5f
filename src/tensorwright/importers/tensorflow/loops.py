# SPDX-License-Identifier: Apache-2.0
"""While loops of TensorFlow become Loops.

What the body hands on unchanged is captured. Counters that only depend on known numbers are computed at import: they
tell how often the loop runs, and follow from the iteration's number. A list that each iteration writes in order, and
nothing reads, is what the loop stacks; other lists are carried as arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.bodies import Body, added, applied, given_parts, is_read, part_of, refuse_list
from tensorwright.importers.tensorflow.counters import Counters, Trips, counters_of
from tensorwright.importers.tensorflow.graph_def import LoopParts, TfNode
from tensorwright.importers.tensorflow.list_values import Rows, TensorList, Watch
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import RefusalError
from tensorwright.ops.control_flow import Loop, Scan
from tensorwright.ops.elementwise import Add, Cast, Mul
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Concat, Reshape, Slice

if TYPE_CHECKING:
    from tensorwright.importers.tensorflow.reader import Anything, GraphReader

_UNROLLED = 16  # iterations; `passes.control_flow` may unroll so many
_ATTEMPTS = 4  # a list may change its way twice


def read_while(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything | None]:
    """While: the values of all its variables after the last iteration."""
    parts = given_parts(node)
    if parts is None:
        parts = LoopParts(
            *(part_of(reader, node, name, len(inputs), f"{node.name}/{name}") for name in ("cond", "body"))
        )
    if len(parts.body.results) != len(inputs) or len(parts.condition.results) != 1:
        raise ValueError(f"its body gives {len(parts.body.results)} values for {len(inputs)} variables")
    return _While(reader, node, parts, inputs).results()


Way = Literal["invariant", "counter", "carried", "list", "stacked", "pushed", "unshaped"]
"""What becomes of a variable. Of lists: an array that is carried; rows that the loop stacks, into places that are there
or appended; not known before the body was read once."""


@dataclass(slots=True)
class _Read:
    """A body that was read."""

    body: Body
    counter: Value
    inside: list[Anything | None] = field(default_factory=list)
    after: list[Anything | None] = field(default_factory=list)
    goes_on: Value | None = None
    counted: dict[int, Value] = field(default_factory=dict)
    steps: set[Value] = field(default_factory=set)  # what is the iteration's number
    scanned: dict[int, Rows] = field(default_factory=dict)


class _While:
    def __init__(self, reader: GraphReader, node: TfNode, parts: LoopParts, inputs: Sequence[Anything]) -> None:
        self.reader, self.node, self.parts, self.inputs = reader, node, parts, list(inputs)
        body = parts.body
        same = [body.through(r) == a for r, a in zip(body.results, body.arguments, strict=True)]
        self.counters: Counters = counters_of(reader, parts.condition, body, inputs, same)
        self.trips: Trips | None = self.counters.trips
        self.ways: list[Way] = [self._way(i, value, same[i]) for i, value in enumerate(inputs)]
        self.shapes: dict[int, tuple[Dim, ...]] = {}  # of lists, found by reading

    def _way(self, number: int, value: Anything, is_same: bool) -> Way:
        if is_same:
            return "invariant"
        if number in self.counters.values:
            return "counter"
        if not isinstance(value, TensorList):
            return "carried"
        if self.trips is not None and value.count == 0:
            return "pushed"
        if self.trips is not None and _is_filled(value, self.trips):
            return "stacked"
        return "list" if value.shape is not None else "unshaped"

    # -- the whole ------------------------------------------------------------------------------
    def results(self) -> list[Anything | None]:
        if self.trips is not None and self.trips.length == 0:
            return list(self.inputs)
        known = self.counters.starts(self.reader, self.parts.condition, self.inputs)
        if known is False:
            return list(self.inputs)
        read = self._settled()
        if read is None:
            return [None] * len(self.inputs)
        return self._added(read, known if isinstance(known, Value) else None)

    def _settled(self) -> _Read | None:
        """The body, read so that all lists go their ways; None when a problem was reported."""
        for _ in range(_ATTEMPTS):
            aside = Problems("node", "")
            read = self._read(aside)
            if aside.first:
                break
            if not self._changed_ways(read):
                return read
        self._read(self.reader.problems)  # which reports what is wrong
        if not self.reader.problems.first:
            raise RefusalError("its lists of tensors cannot be followed")
        return None

    # -- the body -------------------------------------------------------------------------------
    def _read(self, problems: Problems) -> _Read:
        body = Body(self.reader.builder, f"{self.node.name}/body")
        body.builder.source = self.node.name
        counter = body.builder.input(f"{body.prefix}/iteration", TensorType(DType.i64, ()))
        read = _Read(body, counter)
        for number in self.counters.values:  # the lists need to know what counts
            read.counted[number] = self._counted(read, number)
        read.inside = [self._inside(read, i) for i in range(len(self.inputs))]
        read.after = applied(self.reader, self.parts.body, body.builder, read.inside, problems)
        if self.trips is None and not problems.first:
            (found,) = applied(self.reader, self.parts.condition, body.builder, read.after, problems)
            read.goes_on = None if found is None else refuse_list(found, "its condition")
        return read

    def _inside(self, read: _Read, number: int) -> Anything | None:
        """A variable at the start of an iteration."""
        value, way = self.inputs[number], self.ways[number]
        if way == "invariant":
            return self._fixed(read, number)
        if way == "counter":
            return read.counted[number]
        if isinstance(value, Value):
            return read.body.state(number, value.type)
        shape = self.shapes.get(number, value.shape)
        empty = TensorList(value.dtype, value.count, shape, watch=Watch())
        if way != "list" or shape is None:
            return empty
        base = read.body.state(number, TensorType(value.dtype, (value.count, *shape)))
        return dataclasses.replace(empty, base=base)

    def _fixed(self, read: _Read, number: int) -> Anything | None:
        """What no iteration changes; a list may be scanned."""
        value = self.inputs[number]
        taken = read.body.take(value)
        if not isinstance(taken, TensorList) or self.trips is None or not isinstance(value, TensorList):
            return taken
        if value.base is None or value.written or value.last is not None or value.shape is None:
            return taken
        if value.count != self.trips.length or value.base.type.shape[0] != value.count or not self._scans(value):
            return taken
        row = read.body.builder.input(f"{read.body.prefix}/row_{number}", TensorType(value.dtype, value.shape))
        rows = Rows(row, read.steps)
        read.scanned[number] = rows
        return dataclasses.replace(taken, rows=rows)

    def _scans(self, value: TensorList) -> bool:
        """Whether elements are taken in place: not in a short loop, which is likely to be unrolled."""
        assert self.trips is not None and value.base is not None
        length, types = self.trips.length, [v.type for v in self.inputs if isinstance(v, Value)]
        short = isinstance(length, int) and length <= _UNROLLED
        return not short or not all(t.is_static for t in (value.base.type, *types))

    def _counted(self, read: _Read, number: int) -> Value:
        """A counter, from the iteration's number."""
        values, given, b = self.counters.values[number], self.inputs[number], read.body.builder
        if values is not None and (values == values[:1]).all():
            return b.constant(np.asarray(values[0]))
        flat = None if values is None else values.reshape(len(values), -1)[:, 0]
        start, step = (0, 1) if flat is None else (int(flat[0]), int(flat[1]) - int(flat[0]))
        if values is not None and flat is not None:
            line = start + step * np.arange(len(flat))
            if values.dtype == np.bool_ or not np.array_equal(flat.astype(np.int64), line):
                return b.add(Gather(0), b.constant(np.ascontiguousarray(values)), read.counter)
        value = refuse_list(given, "a counter")
        counted = read.counter
        counted = b.add(Mul(), counted, b.scalar(step, DType.i64)) if step != 1 else counted
        counted = b.add(Add(), counted, b.scalar(start, DType.i64)) if start else counted
        counted = b.add(Cast(value.type.dtype), counted) if value.type.dtype is not DType.i64 else counted
        counted = b.add(Reshape(value.type.shape), counted) if value.type.rank else counted
        if step == 1 and not start:
            read.steps.add(counted)
        return counted

    def _changed_ways(self, read: _Read) -> bool:
        """Look at what became of the lists; whether the body must be read again."""
        changed = False
        for number, way in enumerate(self.ways):
            before, after = read.inside[number], read.after[number]
            if way not in ("stacked", "pushed", "unshaped", "list"):
                continue
            if not isinstance(before, TensorList) or not isinstance(after, TensorList):
                raise RefusalError("a list of tensors becomes none in its body")
            if way == "list" or (way != "unshaped" and _is_written_once(read, before, after, way)):
                continue
            if after.shape is None or before.count != after.count:
                raise RefusalError(f"a list grows from {before.count} to {after.count} elements in each iteration")
            self.ways[number], self.shapes[number], changed = "list", after.shape, True
        return changed

    # -- the op ---------------------------------------------------------------------------------
    def _added(self, read: _Read, begins: Value | None) -> list[Anything | None]:
        b, body = self.reader.builder, read.body.builder
        b.source = body.source = self.node.name
        carried = [i for i, way in enumerate(self.ways) if way in ("carried", "list")]
        stacked = [i for i, way in enumerate(self.ways) if way in ("stacked", "pushed")]
        initial = [self._initial(i) for i in carried]
        states = [_array(read.inside[i]) for i in carried]
        following = [_array(read.after[i], read) for i in carried]
        for i, old, new in zip(carried, states, following, strict=True):
            if old.type != new.type:
                raise RefusalError(
                    f"its variable {i} changes its type: {old.type} before, {new.type} after an iteration",
                    "keep the shapes of loop variables, or give every input a fixed shape with shapes=",
                )
        rows = [_row(read.after[i]) for i in stacked]
        if any(rows_.used for rows_ in read.scanned.values()):
            values = self._scan(read, initial, states, following, rows)
        else:
            values = self._loop(read, begins, initial, states, [*following, *rows])
        finals: dict[int, Anything | None] = dict(zip(carried, values, strict=False))
        finals |= {i: self._filled(i, v) for i, v in zip(stacked, values[len(carried) :], strict=True)}
        return [self._final(i, finals.get(i)) for i in range(len(self.inputs))]

    def _loop(
        self, read: _Read, begins: Value | None, initial: list[Value], states: list[Value], results: list[Value]
    ) -> list[Value]:
        conditional, length = read.goes_on is not None, self.trips.length if self.trips is not None else None
        if read.goes_on is not None:
            if read.goes_on.type.dtype is not DType.bool or read.goes_on.type.rank:
                raise RefusalError(f"its condition is {read.goes_on.type}, not one bool")
            results = [read.goes_on, *results]
        symbol = SymDim.symbol(f"{self.node.name}_iterations")
        graph = read.body.graph([read.counter, *states], results)
        op = Loop(graph, len(states), symbol if length is None else length, conditional)
        trips = None if self.trips is None else self.trips.value(self.reader.builder)
        return added(self.reader, op, [trips, begins, *initial, *read.body.given()])

    def _scan(
        self, read: _Read, initial: list[Value], states: list[Value], following: list[Value], rows: list[Value]
    ) -> list[Value]:
        """Elements of lists are slices of a Scan; the iteration's number, where it is read, is carried."""
        b, body = self.reader.builder, read.body.builder
        used = {i: r for i, r in read.scanned.items() if r.used}
        lists = [value.base for i in used for value in [self.inputs[i]] if isinstance(value, TensorList)]
        slices = [r.row for r in used.values()]
        counts = is_read(read.body.graph([read.counter, *states, *slices], [*following, *rows]), 0)
        if counts:
            initial, states = [b.scalar(0, DType.i64), *initial], [read.counter, *states]
            following = [body.add(Add(), read.counter, body.scalar(1, DType.i64)), *following]
        op = Scan(
            read.body.graph([*states, *slices], [*following, *rows]),
            len(states),
            (0,) * len(used),
            (False,) * len(used),
            (0,) * len(rows),
            (False,) * len(rows),
        )
        return added(self.reader, op, [*initial, *lists, *read.body.given()])[int(counts) :]

    def _initial(self, number: int) -> Value:
        """A variable before the first iteration."""
        value = self.inputs[number]
        if isinstance(value, TensorList):
            shape = self.shapes.get(number, value.shape)
            return dataclasses.replace(value, shape=shape).stacked(self.reader.builder)
        return value

    def _filled(self, number: int, rows: Value) -> TensorList:
        """The list that a loop filled."""
        before, b = self.inputs[number], self.reader.builder
        if not isinstance(before, TensorList) or self.ways[number] == "pushed" or before.count == rows.type.shape[0]:
            return TensorList.of(rows)
        shaped = dataclasses.replace(before, shape=rows.type.shape[1:])
        rest = b.add(Slice((rows.type.shape[0],), (before.count,), (0,), (1,)), shaped.stacked(b))
        return TensorList.of(b.add(Concat(0), rows, rest))

    def _final(self, number: int, found: Anything | None) -> Anything | None:
        way, value = self.ways[number], self.inputs[number]
        if way == "counter":
            return self._last(number)
        if way == "list" and isinstance(found, Value):
            return TensorList.of(found)
        return value if way == "invariant" else found

    def _last(self, number: int) -> Value:
        """A counter after the last iteration."""
        b, final, value = self.reader.builder, self.counters.finals[number], self.inputs[number]
        if final is not None:
            return b.constant(final)
        assert self.trips is not None and isinstance(value, Value)
        count = self.trips.value(b)
        count = b.add(Cast(value.type.dtype), count) if value.type.dtype is not DType.i64 else count
        return b.add(Reshape(value.type.shape), count) if value.type.rank else count


def _is_filled(value: TensorList, trips: Trips) -> bool:
    """Whether a list has a place for each iteration."""
    count, length = value.count, trips.length
    return count == length or (isinstance(count, int) and isinstance(length, int) and count > length)


def _is_written_once(read: _Read, before: TensorList, after: TensorList, way: Way) -> bool:
    """Whether an iteration writes the list at its own number, or appends to it, and nothing reads it."""
    if before.watch is None or before.watch.read or after.watch is not before.watch or after.base is not None:
        return False
    if way == "pushed" and after.last is None:
        return after.count == 1 and set(after.written) == {0}
    return after.last is not None and not after.written and after.last[0] in read.steps


def _row(after: Anything | None) -> Value:
    """What an iteration puts into a list."""
    assert isinstance(after, TensorList)
    return after.last[1] if after.last is not None else after.written[0]


def _array(value: Anything | None, read: _Read | None = None) -> Value:
    if isinstance(value, TensorList):
        if read is not None:
            return value.stacked(read.body.builder)
        value = value.base
    assert isinstance(value, Value)
    return value
