# SPDX-License-Identifier: Apache-2.0
"""Runs segments with bodies: branches, and loops whose iterations cost little more than entering native code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from tensorwright.backends.cpu import launch
from tensorwright.errors import InputError
from tensorwright.ir.dim_text import parse_dim
from tensorwright.ir.op import Array
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.schedule import Body, ControlSegment, IfSegment, LoopSegment, ScanSegment
from tensorwright.runtime.bindings import Binding, address, admit
from tensorwright.runtime.context import Context
from tensorwright.runtime.sizes import Shape, size_of

_FIRST_ROWS: Final = 16  # of a stack whose size is known only at its end; it doubles when it is full


class BodyRun(Protocol):
    """A body with the memory that one context has for it."""

    @property
    def native(self) -> Context | None:
        """Its context, where the whole body is one program, and all its shapes are known before it runs."""

    def call(self, inputs: Sequence[Any], times: Array | None, sizes: Mapping[str, int]) -> list[Any]:
        """Its outputs. `times`, i64[steps, 2], receives the start and end of each step in ns; `sizes` are the symbols
        that are known around it."""


class IfRun:
    """Runs one of two bodies."""

    def __init__(self, segment: IfSegment, bodies: Sequence[BodyRun], steps: Sequence[int]) -> None:
        """`steps` are the numbers of steps of the bodies."""
        self._segment, self._bodies, self._first = segment, bodies, (0, steps[0], sum(steps))

    def run(self, values: Mapping[str, Any], times: Array | None, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The outputs by name. Steps of the other body take no time."""
        condition, *given = (values[name] for name in self._segment.inputs)
        taken = 0 if _one(condition) else 1
        part = None
        if times is not None:
            times[:] = time.perf_counter_ns()
            part = times[self._first[taken] : self._first[taken + 1]]
        return dict(zip(self._segment.outputs, self._bodies[taken].call(given, part, sizes), strict=True))


@dataclass(frozen=True, slots=True)
class _Ends:
    """What a run of a loop is given: `limit` bounds the iterations, `rows` are the scanned arrays by slice."""

    limit: int | None
    carried: list[Any]
    rows: list[Array]
    captured: list[Any]


class LoopRun:
    """Runs a body again and again: loops and scans.

    A body that is one program, of shapes that are known before it runs, reads carried values where the last iteration
    wrote them, in one of two arrays that stay, and rows and slices in place: an iteration writes a few addresses and
    enters the program.
    """

    def __init__(self, segment: LoopSegment | ScanSegment, body: BodyRun) -> None:
        self._segment, self._body = segment, body
        self._counted, self._conditional = isinstance(segment, LoopSegment), False
        stacks = len(segment.outputs) - segment.carried
        self._axes, self._backwards = (0,) * stacks, (False,) * stacks
        if isinstance(segment, LoopSegment):
            self._conditional = segment.conditional
        else:
            self._axes, self._backwards = segment.output_axes, segment.output_backwards
        made = segment.body.outputs[self._conditional :]
        self._rows_made = made[segment.carried :]
        if self._counted:
            self._counter: Array = np.zeros([int(d) for d in segment.body.inputs[0].shape], np.int64)
        self._native = None
        if body.native is not None:
            self._native = _NativeBody(body.native, segment.body, segment.carried, self._counted, self._conditional)

    def run(self, values: Mapping[str, Any], times: Array | None, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The outputs by name; a step's time is that of all iterations together."""
        ends, going = self._begin(values)
        clock = None if times is None else _Clock(times)
        if not going or ends.limit == 0:
            carried, stacks = ends.carried, [_no_rows(info, sizes) for info in self._rows_made]
        elif self._native is not None:
            carried, stacks = self._native.run(ends, self._backwards, clock, sizes)
        else:
            carried, stacks = self._run(ends, clock, sizes)
        if clock is not None:
            clock.stop()
        results = (
            np.ascontiguousarray(np.moveaxis(x, 0, axis)) if axis else x
            for x, axis in zip(stacks, self._axes, strict=True)
        )
        return dict(zip(self._segment.outputs, (*carried, *results), strict=True))

    def _begin(self, values: Mapping[str, Any]) -> tuple[_Ends, bool]:
        """What the run is given, and whether it begins at all."""
        segment = self._segment
        given: list[Any] = [values[name] if name else None for name in segment.inputs]
        if isinstance(segment, LoopSegment):
            trips, condition, *given = given
            limit = None if trips is None else max(int(_one(trips)), 0)
            ends = _Ends(limit, given[: segment.carried], [], given[segment.carried :])
            return ends, condition is None or bool(_one(condition))
        count = segment.carried + len(segment.input_axes)
        rows = [
            np.moveaxis(x, axis, 0)[:: -1 if backwards else 1]
            for x, axis, backwards in zip(
                given[segment.carried : count], segment.input_axes, segment.input_backwards, strict=True
            )
        ]
        lengths = {len(x) for x in rows}
        if len(lengths) != 1:
            raise _unfit(segment, f"the scanned values have {', '.join(map(str, sorted(lengths)))} slices")
        return _Ends(len(rows[0]), given[: segment.carried], rows, given[count:]), True

    def _run(self, ends: _Ends, clock: _Clock | None, sizes: Mapping[str, int]) -> tuple[list[Any], list[Array]]:
        """Any body, whatever its shapes."""
        stacks: list[list[Any]] = [[] for _ in self._rows_made]
        carried, count, going, iteration = ends.carried, self._segment.carried, True, 0
        while going and iteration != ends.limit:
            first = [np.full_like(self._counter, iteration)] if self._counted else []
            slices = [x[iteration, ...] for x in ends.rows]
            given = [*first, *carried, *slices, *ends.captured]
            results = self._body.call(given, None if clock is None else clock.part, sizes)
            if clock is not None:
                clock.add()
            if self._conditional:
                going = bool(_one(results.pop(0)))
            carried = results[:count]
            for stack, value in zip(stacks, results[count:], strict=True):
                stack.append(value)
            iteration += 1
        try:
            return carried, [np.stack(x[:: -1 if b else 1]) for x, b in zip(stacks, self._backwards, strict=True)]
        except ValueError as error:
            raise _unfit(self._segment, f"iterations gave values of different shapes: {error}") from error


class _NativeBody:
    """A body that is one program, of shapes that are known before it runs."""

    def __init__(self, context: Context, body: Body, carried: int, counted: bool, conditional: bool) -> None:
        self.context, self.counted, self.conditional = context, counted, conditional
        slots = [Binding(info, launch.FIRST_TENSOR + i) for i, info in enumerate((*body.inputs, *body.outputs))]
        inputs, outputs = slots[counted : len(body.inputs)], slots[len(body.inputs) + conditional :]
        self.carried, self.read, self.made = inputs[:carried], inputs[carried:], outputs[carried:]
        self.results = [b.slot for b in outputs[:carried]]
        self.numbers = [b.shape for b in slots[:counted]]
        self.shapes: list[Shape] | None = None  # of the inputs, when it last ran
        self.row_shapes: list[Shape] = []
        self.counter: Array = np.zeros(1, np.int64)
        self.flag: Array = np.zeros(1, np.bool_)
        if counted:
            context.table[slots[0].slot] = address(self.counter)
        if conditional:
            context.table[slots[len(body.inputs)].slot] = address(self.flag)

    def _fit(self, carried: Sequence[Array], read: Sequence[Shape], sizes: Mapping[str, int]) -> None:
        """Make room for values of these shapes, where it ran with others before."""
        shapes = [*self.numbers, *(x.shape for x in carried), *read]
        made = self.context.set_sizes(shapes, sizes)
        self.row_shapes = made[len(made) - len(self.made) :]
        if shapes != self.shapes:
            self.buffers = [[np.empty_like(x) for x in carried] for _ in range(2)]
            self.addresses = [[address(x) for x in side] for side in self.buffers]
            self.shapes = shapes

    def run(
        self, ends: _Ends, backwards: Sequence[bool], clock: _Clock | None, sizes: Mapping[str, int]
    ) -> tuple[list[Array], list[Array]]:
        """At least one iteration; returns the carried values and the stacks, arrays of their own."""
        table, enter, limit = self.context.table, self.context.enter, ends.limit
        first = [admit(x, binding) for x, binding in zip(ends.carried, self.carried, strict=True)]
        scanned, captured = self.read[: len(ends.rows)], self.read[len(ends.rows) :]
        rows = [np.ascontiguousarray(x) for x in ends.rows]
        rest = [admit(x, binding) for x, binding in zip(ends.captured, captured, strict=True)]
        self._fit(first, [*(x.shape[1:] for x in rows), *(x.shape for x in rest)], sizes)
        for binding, x in zip(captured, rest, strict=True):
            table[binding.slot] = address(x)
        stacks = _Stacks(self.made, self.row_shapes, backwards, None if self.conditional else limit)
        moving = [(b.slot, address(x), x.strides[0]) for b, x in zip(scanned, rows, strict=True)]
        sources, slots, iteration = [address(x) for x in first], [b.slot for b in self.carried], 0
        while True:
            self.counter[0] = iteration
            results = self.addresses[iteration & 1]
            for slot, place in zip(slots, sources, strict=True):
                table[slot] = place
            for slot, place in zip(self.results, results, strict=True):
                table[slot] = place
            for slot, start, step in moving:
                table[slot] = start + iteration * step
            for slot, start, step in stacks.room(iteration):
                table[slot] = start + iteration * step
            if clock is None:
                enter()
            else:
                enter(clock.part)
                clock.add()
            sources = results
            iteration += 1
            if iteration == limit or (self.conditional and not self.flag[0]):
                break
        return [x.copy() for x in self.buffers[(iteration - 1) & 1]], stacks.taken(iteration)


class _Stacks:
    """Arrays that native code fills row by row. Where the count of rows is not known they grow."""

    def __init__(
        self, made: Sequence[Binding], shapes: Sequence[Shape], backwards: Sequence[bool], count: int | None
    ) -> None:
        self.slots, self.backwards = [b.slot for b in made], backwards
        self.capacity = _FIRST_ROWS if count is None else count
        self.arrays = [np.empty((self.capacity, *s), b.dtype) for b, s in zip(made, shapes, strict=True)]
        self.places = self._places()

    def room(self, iteration: int) -> list[tuple[int, int, int]]:
        """(slot, address of row 0, bytes from row to row) of each stack, which then has a row for the iteration."""
        if iteration == self.capacity:
            self.capacity *= 2
            old, self.arrays = self.arrays, [np.empty((self.capacity, *x.shape[1:]), x.dtype) for x in self.arrays]
            for new, x in zip(self.arrays, old, strict=True):
                new[:iteration] = x
            self.places = self._places()
        return self.places

    def taken(self, count: int) -> list[Array]:
        """The first `count` rows of each."""
        return [x if count == len(x) else x[:count].copy() for x in self.arrays]

    def _places(self) -> list[tuple[int, int, int]]:
        found = []
        for slot, x, backwards in zip(self.slots, self.arrays, self.backwards, strict=True):
            step = x.nbytes // len(x)
            start = address(x)
            found.append((slot, start + step * (len(x) - 1), -step) if backwards else (slot, start, step))
        return found


class _Clock:
    """Adds up the times of steps that run in every iteration."""

    def __init__(self, times: Array) -> None:
        self.times, self.part = times, np.zeros_like(times)
        self.total: Array = np.zeros(len(times), np.int64)
        self.started = time.perf_counter_ns()

    def add(self) -> None:
        """Count what `part` holds."""
        self.total += self.part[:, 1] - self.part[:, 0]

    def stop(self) -> None:
        """Write the sums."""
        self.times[:, 0] = self.started
        self.times[:, 1] = self.started + self.total


def control_run(segment: ControlSegment, bodies: Sequence[BodyRun], steps: Sequence[int]) -> IfRun | LoopRun:
    """What runs a segment; `steps` are the numbers of steps of its bodies."""
    return IfRun(segment, bodies, steps) if isinstance(segment, IfSegment) else LoopRun(segment, bodies[0])


def _one(x: Any) -> Any:
    """The only element."""
    return np.asarray(x).reshape(-1)[0]


def _no_rows(info: TensorInfo, sizes: Mapping[str, int]) -> Array:
    """A stack of no iteration. What only iterations would decide is 0."""
    dims = [max(size_of(parse_dim(d) if isinstance(d, str) else d, sizes), 0) for d in info.shape]
    return np.empty((0, *dims), info.dtype.numpy)


def _unfit(segment: LoopSegment | ScanSegment, why: str) -> InputError:
    return InputError(
        f"the loop that makes {', '.join(segment.outputs)} cannot compute on the data it was given",
        why=why,
        do="check the inputs of this run",
        code="I109",
    )
