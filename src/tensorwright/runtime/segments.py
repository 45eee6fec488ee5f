# SPDX-License-Identifier: Apache-2.0
"""Engines of several segments: native programs, steps in NumPy, and segments with bodies, one after the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tensorwright.backends.cpu.launch import LoadedProgram, StepInfo, cpu_code
from tensorwright.errors import PlanError
from tensorwright.ir.dims import Symbol
from tensorwright.ir.op import Array
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import malformed
from tensorwright.plan.interface import Equality, TensorInfo, read_symbols
from tensorwright.plan.plan import Json, Plan
from tensorwright.plan.schedule import (
    ControlSegment,
    HostSegment,
    NativeSegment,
    Schedule,
    Segment,
    bodies_of,
)
from tensorwright.runtime.bindings import OWNABLE, Binding, accept_output, admit_all, check_names
from tensorwright.runtime.context import Context
from tensorwright.runtime.control import control_run
from tensorwright.runtime.sizes import Sizes, size_of

if TYPE_CHECKING:
    from tensorwright.backends.reference.host import HostProgram

    _Segment: TypeAlias = "NativeProgram | ControlProgram | HostProgram"
    _Part: TypeAlias = "_NativePart | _ControlPart | HostProgram"


class NativeProgram:
    """A segment's code, with the names of the values that it reads and makes."""

    def __init__(self, program: LoadedProgram, segment: NativeSegment, where: str) -> None:
        """Raises PlanError P106 when the code was made for other inputs or outputs."""
        _check_interface(program.code.program, segment, where)
        self.program, self.segment = program, segment
        self.inputs = tuple(info.name for info in segment.inputs)
        self.outputs = tuple(info.name for info in segment.outputs)
        self.steps = program.code.steps


class ControlProgram:
    """A segment with bodies, which are loaded programs of segments themselves."""

    def __init__(self, segment: ControlSegment, bodies: Sequence[SegmentedProgram]) -> None:
        self.segment, self.bodies = segment, tuple(bodies)
        self.inputs, self.outputs = tuple(filter(None, segment.inputs)), segment.outputs
        self.steps: tuple[StepInfo, ...] = tuple(step for body in bodies for step in body.steps)


class SegmentedProgram:
    """Loaded segments in execution order. `results` names the value that each output is."""

    def __init__(self, segments: Sequence[_Segment], results: Sequence[str], inputs: Sequence[str], where: str) -> None:
        """Raises PlanError P106 when a segment reads what nothing before it made."""
        self.segments, self.results, self.inputs = tuple(segments), tuple(results), tuple(inputs)
        _check_flow(self.segments, self.results, inputs, where)
        self.native: tuple[LoadedProgram, ...] = tuple(p for s in self.segments for p in _programs(s))
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
    def of(
        plan: Plan, schedule: Schedule, threads: int | None, where: str, inputs: Sequence[TensorInfo] | None = None
    ) -> SegmentedProgram:
        """The segments of a plan, or of a body with these inputs, its code loaded.

        Raises PlanError P106, TargetError D105.
        """
        segments = [_loaded(plan, segment, threads, where) for segment in schedule.segments]
        names = [info.name for info in (plan.inputs if inputs is None else inputs)]
        return SegmentedProgram(segments, schedule.results, names, where)

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


class SegmentsRun:
    """Segments with the memory that one context has for them: a context for each native one."""

    def __init__(self, program: SegmentedProgram) -> None:
        self.program = program
        self._parts: list[_Part] = [_part(segment) for segment in program.segments]

    @property
    def native(self) -> Context | None:
        """The context of the only segment, where that takes and gives all values as they are, in shapes that are known
        before it runs."""
        if len(self._parts) != 1 or not isinstance(self._parts[0], _NativePart):
            return None
        part, program = self._parts[0], self.program
        same = (part.inputs, part.outputs) == (program.inputs, program.results)
        return part.context if same and not part.context.decides_sizes else None

    @property
    def contexts(self) -> Iterator[Context]:
        """Of all native segments, those in bodies as well."""
        for part in self._parts:
            if isinstance(part, _NativePart):
                yield part.context
            elif isinstance(part, _ControlPart):
                for body in part.bodies:
                    yield from body.contexts

    def call(self, inputs: Sequence[Any], times: Array | None, sizes: Mapping[str, int] | None = None) -> list[Any]:
        """The results for these inputs, in order. Arrays pass from segment to segment as they are; what no later
        segment reads is dropped at once. `times`, i64[steps, 2], receives the start and end of each step in ns; `sizes`
        are the symbols that are known."""
        program, known = self.program, dict(sizes or {})
        values = dict(zip(program.inputs, inputs, strict=True))
        first = 0
        for part, dropped, count in zip(self._parts, program.dropped, program.counts, strict=True):
            values.update(part.run(values, None if times is None else times[first : first + count], known))
            first += count
            for name in dropped:
                values.pop(name, None)
        return [values[name] for name in program.results]


class _NativePart:
    def __init__(self, program: NativeProgram) -> None:
        self.segment, self.inputs, self.outputs = program.segment, program.inputs, program.outputs
        self.context = Context(program.program, program.segment.inputs, program.segment.outputs)

    def run(self, values: Mapping[str, Any], times: Array | None, known: dict[str, int]) -> Iterable[tuple[str, Any]]:
        given, context = [values[name] for name in self.inputs], self.context
        made = (
            context.execute_sized(given, None, known) if times is None else context.execute_timed(given, times, known)
        )
        return zip(self.outputs, made, strict=True)


class _ControlPart:
    def __init__(self, program: ControlProgram) -> None:
        self.bodies = [SegmentsRun(body) for body in program.bodies]
        self._control = control_run(program.segment, self.bodies, [len(body.steps) for body in program.bodies])

    def run(self, values: Mapping[str, Any], times: Array | None, known: dict[str, int]) -> Mapping[str, Any]:
        return self._control.run(values, times, known)


class SegmentedContext(Context):
    """A context of an engine of several segments."""

    def __init__(
        self,
        program: SegmentedProgram,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        symbols: Iterable[Symbol] = (),
        equalities: Iterable[Equality] = (),
    ) -> None:
        self._set_interface(inputs, outputs)
        self._run = SegmentsRun(program)
        self._sized = Sizes(inputs, outputs, symbols, equalities=equalities)

    @property
    def memory_bytes(self) -> int:
        """What this context takes for itself; arrays of host steps come and go besides."""
        return sum(inner.memory_bytes for inner in self._run.contexts)

    def execute(self, arrays: Sequence[Any], out: Mapping[str, Array] | None = None) -> list[Array]:
        """As `run`, with inputs and outputs in declared order."""
        if not self._lock.acquire(blocking=False):
            self._refuse()
        try:
            self._check_open()
            if out is not None:
                check_names(out, self._outputs, "output", all_needed=False)
            admitted, sizes = self._admitted(arrays)
            results = _owned(self._run.call(admitted, None, sizes), admitted)
            return results if out is None else self._into(out, results, admitted)
        finally:
            self._lock.release()

    def execute_profiled(self, arrays: Sequence[Any], repeat: int) -> Array:
        """Run `repeat` times step by step; returns i64[repeat, steps, 2], the start and end of each step in ns."""
        times: Array = np.zeros((repeat, len(self._run.program.steps), 2), np.int64)
        with self._lock:
            self._check_open()
            admitted, sizes = self._admitted(arrays)
            for one in times:
                self._run.call(admitted, one, sizes)
        return times

    def _admitted(self, arrays: Sequence[Any]) -> tuple[list[Any], dict[str, int]]:
        """The inputs, and the sizes that they tell. Raises InputError I102 to I104, I130."""
        admitted = admit_all(arrays, self._inputs)
        if not self._sized.symbols:
            return admitted, {}
        shapes = [() if b.info.is_object else np.shape(x) for b, x in zip(self._inputs, admitted, strict=True)]
        return admitted, self._sized.told(shapes)

    def close(self) -> None:
        """Give the memory back (waits for a run in progress); later runs raise InputError I108."""
        self._closed = True
        with self._lock:
            for inner in self._run.contexts:
                inner.close()

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


def _loaded(plan: Plan, segment: Segment, threads: int | None, where: str) -> _Segment:
    from tensorwright.backends.reference.host import HostProgram  # ops are loaded only when something needs them

    if isinstance(segment, NativeSegment):
        return NativeProgram(LoadedProgram(cpu_code(plan.native[segment.key], where), threads), segment, where)
    if isinstance(segment, HostSegment):
        return HostProgram(segment.graph, plan.constants, where)
    bodies = [SegmentedProgram.of(plan, b.schedule, threads, where, b.inputs) for b in bodies_of(segment)]
    return ControlProgram(segment, bodies)


def _part(segment: _Segment) -> _Part:
    if isinstance(segment, NativeProgram):
        return _NativePart(segment)
    return _ControlPart(segment) if isinstance(segment, ControlProgram) else segment


def _programs(segment: _Segment) -> Iterator[LoadedProgram]:
    """The programs with code."""
    if isinstance(segment, NativeProgram):
        yield segment.program
    elif isinstance(segment, ControlProgram):
        for body in segment.bodies:
            yield from body.native


def _steps(segment: _Segment) -> tuple[StepInfo, ...]:
    if isinstance(segment, NativeProgram | ControlProgram):
        return segment.steps
    return tuple(StepInfo(name, origin, f"numpy {op}", "") for name, origin, op in segment.steps)


def _check_interface(program: Json, segment: NativeSegment, where: str) -> None:
    fields = Fields(program, f"section 'program:{segment.key}'", where)
    buffers = fields.at("buffers").rows(str, str, int, object)
    shapes = Sizes(segment.inputs, segment.outputs, read_symbols(fields.at("symbols")))
    most: dict[str, int] = {name: symbol.high for name, symbol in shapes.symbols.items()}
    for place, infos in (("input", segment.inputs), ("output", segment.outputs)):
        sizes = {number: size for _, kind, size, number in buffers if kind == place and isinstance(number, int)}
        dims = [[size_of(d, most) for d in shapes.dims(info)] for info in infos]
        given = {i: math.prod(d) * info.dtype.size_bytes for i, (d, info) in enumerate(zip(dims, infos, strict=True))}
        if sizes != given:
            raise malformed(
                f"segment {segment.key!r}", where, f"its {place}s have {given} bytes; the code is for {sizes}"
            )


def _check_flow(segments: Sequence[_Segment], results: Sequence[str], inputs: Sequence[str], where: str) -> None:
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
