# SPDX-License-Identifier: Apache-2.0
"""Engines of several segments: native programs and steps in NumPy that run one after the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorwright.backends.cpu.launch import LoadedProgram, StepInfo, cpu_code
from tensorwright.errors import PlanError
from tensorwright.ir.op import Array
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import malformed
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.plan import Json, Plan
from tensorwright.plan.schedule import NativeSegment, Schedule
from tensorwright.runtime.bindings import OWNABLE, Binding, accept_output, admit_all, check_names
from tensorwright.runtime.context import Context

if TYPE_CHECKING:
    from tensorwright.backends.reference.host import HostProgram


class NativeProgram:
    """A segment's code, with the names of the values that it reads and makes."""

    def __init__(self, program: LoadedProgram, segment: NativeSegment, where: str) -> None:
        """Raises PlanError P106 when the code was made for other inputs or outputs."""
        _check_interface(program.code.program, segment, where)
        self.program, self.segment = program, segment
        self.inputs = tuple(info.name for info in segment.inputs)
        self.outputs = tuple(info.name for info in segment.outputs)
        self.steps = program.code.steps


class SegmentedProgram:
    """Loaded segments in execution order. `results` names the value that each engine output is."""

    def __init__(
        self, segments: Sequence[NativeProgram | HostProgram], results: Sequence[str], inputs: Sequence[str], where: str
    ) -> None:
        """Raises PlanError P106 when a segment reads what nothing before it made."""
        self.segments, self.results = tuple(segments), tuple(results)
        _check_flow(self.segments, self.results, inputs, where)
        self.native = tuple(s.program for s in self.segments if isinstance(s, NativeProgram))
        self.threads = max((program.threads for program in self.native), default=1)
        self.fingerprint = self.native[0].code.fingerprint if self.native else "reference"
        self.counts = [len(s.steps) for s in self.segments]
        self.steps = tuple(step for s in self.segments for step in _steps(s))
        reads = Counter([*self.results, *(name for s in self.segments for name in set(s.inputs))])
        self.dropped: list[list[str]] = []  # by segment: values that nothing reads after it
        for segment in self.segments:
            reads.subtract(set(segment.inputs))
            self.dropped.append([name for name in {*segment.inputs, *segment.outputs} if not reads[name]])

    @staticmethod
    def of(plan: Plan, schedule: Schedule, threads: int | None, where: str) -> SegmentedProgram:
        """The segments of a plan, its code loaded. Raises PlanError P106, TargetError D105."""
        from tensorwright.backends.reference.host import HostProgram  # ops are loaded only when something needs them

        segments = [
            NativeProgram(LoadedProgram(cpu_code(plan.native[s.key], where), threads), s, where)
            if isinstance(s, NativeSegment)
            else HostProgram(s.graph, plan.constants, where)
            for s in schedule.segments
        ]
        return SegmentedProgram(segments, schedule.results, [i.name for i in plan.inputs], where)

    @staticmethod
    def reference(plan: Plan, where: str) -> SegmentedProgram:
        """The whole graph of a plan in NumPy. Raises PlanError P106."""
        from tensorwright.backends.reference.host import HostProgram

        program = HostProgram(plan.graph, plan.constants, where)
        return SegmentedProgram([program], program.outputs, [i.name for i in plan.inputs], where)

    def close(self) -> None:
        """Free the code. No context may be running it."""
        for program in self.native:
            program.close()


class SegmentedContext(Context):
    """A context of an engine of several segments: one inner context for each native segment.

    Arrays pass from segment to segment as they are; what no later segment reads is dropped at once.
    """

    def __init__(self, program: SegmentedProgram, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
        self._set_interface(inputs, outputs)
        self._segmented = program
        self._inner = [
            Context(s.program, s.segment.inputs, s.segment.outputs) if isinstance(s, NativeProgram) else None
            for s in program.segments
        ]

    @property
    def memory_bytes(self) -> int:
        """What this context takes for itself; arrays of host steps come and go besides."""
        return sum(inner.memory_bytes for inner in self._inner if inner is not None)

    def execute(self, arrays: Sequence[Any], out: Mapping[str, Array] | None = None) -> list[Array]:
        """As `run`, with inputs and outputs in declared order."""
        if not self._lock.acquire(blocking=False):
            self._refuse()
        try:
            self._check_open()
            if out is not None:
                check_names(out, self._outputs, "output", all_needed=False)
            admitted = admit_all(arrays, self._inputs)
            results = _owned(self._values(admitted, None), admitted)
            return results if out is None else self._into(out, results, admitted)
        finally:
            self._lock.release()

    def execute_profiled(self, arrays: Sequence[Any], repeat: int) -> Array:
        """Run `repeat` times step by step; returns i64[repeat, steps, 2], the start and end of each step in ns."""
        times: Array = np.zeros((repeat, len(self._segmented.steps), 2), np.int64)
        with self._lock:
            self._check_open()
            admitted = admit_all(arrays, self._inputs)
            for one in times:
                self._values(admitted, one)
        return times

    def close(self) -> None:
        """Give the memory back (waits for a run in progress); later runs raise InputError I108."""
        self._closed = True
        with self._lock:
            for inner in self._inner:
                if inner is not None:
                    inner.close()

    def _values(self, arrays: Sequence[Any], times: Array | None) -> list[Any]:
        """Run all segments; returns the values that the engine's outputs are."""
        program = self._segmented
        values = {binding.name: array for binding, array in zip(self._inputs, arrays, strict=True)}
        first = 0
        for segment, inner, dropped, count in zip(
            program.segments, self._inner, program.dropped, program.counts, strict=True
        ):
            part = None if times is None else times[first : first + count]
            first += count
            if not isinstance(segment, NativeProgram):
                values.update(segment.run(values, part))
            elif inner is not None:
                given = [values[name] for name in segment.inputs]
                made = inner.execute(given) if part is None else inner.execute_timed(given, part)
                values.update(zip(segment.outputs, made, strict=True))
            for name in dropped:
                values.pop(name, None)
        return [values[name] for name in program.results]

    def _into(self, out: Mapping[str, Array], results: list[Any], inputs: Sequence[Any]) -> list[Any]:
        """The results, written to the caller's arrays where there are any; all are checked before one is written."""
        taken = [x for x in inputs if isinstance(x, np.ndarray)]
        for i, (binding, result) in enumerate(zip(self._outputs, results, strict=True)):
            given = out.get(binding.name)
            if given is not None:
                exact = TensorInfo(binding.name, binding.info.dtype, np.shape(result))
                taken.append(accept_output(given, Binding(exact, i), taken))
        for i, (binding, result) in enumerate(zip(self._outputs, results, strict=True)):
            given = out.get(binding.name)
            if given is not None:
                given[...] = result
                results[i] = given
        return results


def _owned(results: list[Any], inputs: Sequence[Any]) -> list[Any]:
    """The results as contiguous arrays that share memory with no input, no constant and no other result."""
    seen = {id(x) for x in inputs}
    own = []
    for result in results:
        if isinstance(result, np.ndarray):
            is_own = result.flags.owndata and result.flags.num & OWNABLE == OWNABLE
            own.append(result if is_own and id(result) not in seen else np.array(result, order="C"))
            seen.add(id(result))
        else:
            own.append(result)
    return own


def _steps(segment: NativeProgram | HostProgram) -> tuple[StepInfo, ...]:
    if isinstance(segment, NativeProgram):
        return segment.steps
    return tuple(StepInfo(name, origin, f"numpy {op}", "") for name, origin, op in segment.steps)


def _check_interface(program: Json, segment: NativeSegment, where: str) -> None:
    buffers = Fields(program, f"section 'program:{segment.key}'", where).at("buffers").rows(str, str, int, object)
    for place, infos in (("input", segment.inputs), ("output", segment.outputs)):
        sizes = {number: size for _, kind, size, number in buffers if kind == place and isinstance(number, int)}
        given = {i: math.prod(info.static_shape) * info.dtype.size_bytes for i, info in enumerate(infos)}
        if sizes != given:
            raise malformed(
                f"segment {segment.key!r}", where, f"its {place}s have {given} bytes; the code is for {sizes}"
            )


def _check_flow(
    segments: Sequence[NativeProgram | HostProgram], results: Sequence[str], inputs: Sequence[str], where: str
) -> None:
    known = set(inputs)
    for number, segment in enumerate(segments):
        missing = [name for name in segment.inputs if name not in known]
        if missing:
            raise _no_value(f"segment {number}", missing, where)
        known.update(segment.outputs)
    missing = [name for name in results if name not in known]
    if missing:
        raise _no_value("the list of results", missing, where)


def _no_value(reader: str, missing: Sequence[str], where: str) -> PlanError:
    return PlanError(
        "the plan's segments do not fit together",
        where=where,
        why=f"{reader} reads {', '.join(missing)}, which nothing before it makes",
        do="build the plan again",
        code="P106",
    )
