# SPDX-License-Identifier: Apache-2.0
"""How the parts of a network that no single program runs follow one another, as data in a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorwright.plan.fields import Fields
from tensorwright.plan.format import malformed
from tensorwright.plan.interface import TensorInfo, info_rows, read_infos


@dataclass(frozen=True, slots=True)
class HostStep:
    """A node that runs in NumPy: its name, op and source-model nodes, and why no kernel runs it."""

    name: str
    op: str
    origin: tuple[str, ...]
    reason: str

    def as_dict(self) -> dict[str, object]:
        """The step for reports."""
        return {"name": self.name, "op": self.op, "origin": list(self.origin), "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.name} ({self.op}: {self.reason})"


@dataclass(frozen=True, slots=True)
class NativeSegment:
    """A program: the plan's native part `key` holds its code. It reads and makes the values of these names."""

    key: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class HostSegment:
    """Nodes that run in NumPy. `graph` is their text form; it reads and makes the values that it names as its
    inputs and outputs. Its constants are the plan's."""

    graph: str
    steps: tuple[HostStep, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A schedule inside a segment: what it is given and what it gives, under the names that values have inside."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class IfSegment:
    """One of two bodies. `inputs` names the condition, then what both bodies are given; `outputs` what they give."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    then_body: Body
    else_body: Body


@dataclass(frozen=True, slots=True)
class LoopSegment:
    """A body that runs while a condition holds. `inputs` names the number of iterations and the condition ("": none),
    the values it carries, and what else the body reads; `outputs` the carried values, then stacks, a row an iteration.

    The body is given the iteration's number, the carried values and the rest; it gives the condition to go on when
    `conditional`, the carried values and the rows.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    carried: int
    conditional: bool
    body: Body


@dataclass(frozen=True, slots=True)
class ScanSegment:
    """A body that runs for each slice. `inputs` names the values it carries, the values it scans (along `input_axes`,
    from the end where `input_backwards`), and what else the body reads; `outputs` the carried values, then stacks
    (along `output_axes`, filled from the end where `output_backwards`)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    carried: int
    input_axes: tuple[int, ...]
    input_backwards: tuple[bool, ...]
    output_axes: tuple[int, ...]
    output_backwards: tuple[bool, ...]
    body: Body


ControlSegment = IfSegment | LoopSegment | ScanSegment
Segment = NativeSegment | HostSegment | ControlSegment


@dataclass(frozen=True, slots=True)
class Schedule:
    """Segments in execution order, and the name of the value that each output of the whole is."""

    segments: tuple[Segment, ...]
    results: tuple[str, ...]

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """All of them, in execution order, those inside bodies as well."""
        return tuple(step for s in self._leaves() if isinstance(s, HostSegment) for step in s.steps)

    @property
    def native_keys(self) -> tuple[str, ...]:
        """The native parts that the segments run, those inside bodies as well."""
        return tuple(s.key for s in self._leaves() if isinstance(s, NativeSegment))

    def _leaves(self) -> Iterator[NativeSegment | HostSegment]:
        for segment in self.segments:
            if isinstance(segment, NativeSegment | HostSegment):
                yield segment
            else:
                for body in bodies_of(segment):
                    yield from body.schedule._leaves()


def bodies_of(segment: ControlSegment) -> tuple[Body, ...]:
    """The bodies of a segment."""
    return (segment.then_body, segment.else_body) if isinstance(segment, IfSegment) else (segment.body,)


# -- to JSON ----------------------------------------------------------------------------------------
def schedule_json(schedule: Schedule) -> dict[str, object]:
    """The schedule as the section `segments` holds it."""
    return {"results": list(schedule.results), "segments": [_segment_json(s) for s in schedule.segments]}


def _segment_json(segment: Segment) -> dict[str, object]:
    if isinstance(segment, NativeSegment):
        return {"native": segment.key, "inputs": info_rows(segment.inputs), "outputs": info_rows(segment.outputs)}
    if isinstance(segment, HostSegment):
        return {"host": segment.graph, "steps": [[s.name, s.op, list(s.origin), s.reason] for s in segment.steps]}
    ends: dict[str, object] = {"inputs": list(segment.inputs), "outputs": list(segment.outputs)}
    if isinstance(segment, IfSegment):
        return {"if": _body_json(segment.then_body), "else": _body_json(segment.else_body), **ends}
    ends["carried"] = segment.carried
    if isinstance(segment, LoopSegment):
        return {"loop": _body_json(segment.body), "conditional": segment.conditional, **ends}
    ends["scanned"] = [list(row) for row in zip(segment.input_axes, segment.input_backwards, strict=True)]
    ends["stacked"] = [list(row) for row in zip(segment.output_axes, segment.output_backwards, strict=True)]
    return {"scan": _body_json(segment.body), **ends}


def _body_json(body: Body) -> dict[str, object]:
    return {
        "inputs": info_rows(body.inputs),
        "outputs": info_rows(body.outputs),
        **schedule_json(body.schedule),
    }


# -- from JSON --------------------------------------------------------------------------------------
def read_schedule(fields: Fields, outputs: Sequence[TensorInfo]) -> Schedule:
    """The schedule of a plan, or of a body, with these outputs. Raises PlanError P106."""
    results = fields.texts(fields.get("results", list))
    if len(results) != len(outputs):
        raise malformed(fields.what, fields.where, f"{len(results)} results for {len(outputs)} outputs")
    rows = fields.get("segments", list)
    return Schedule(
        tuple(_segment(Fields(row, f"{fields.what} {i}", fields.where)) for i, row in enumerate(rows)), results
    )


def _segment(fields: Fields) -> Segment:
    kinds = fields.value if isinstance(fields.value, dict) else {}
    if "native" in kinds:
        return NativeSegment(
            fields.get("native", str),
            read_infos(fields.at("inputs")),
            read_infos(fields.at("outputs")),
        )
    if "if" in kinds:
        return _if(fields)
    if "loop" in kinds:
        return _loop(fields)
    if "scan" in kinds:
        return _scan(fields)
    rows = fields.at("steps")
    steps = tuple(HostStep(n, op, rows.texts(origin), why) for n, op, origin, why in rows.rows(str, str, list, str))
    return HostSegment(fields.get("host", str), steps)


def _if(fields: Fields) -> IfSegment:
    inputs, outputs = _ends(fields)
    bodies = [_body(fields.at(name), len(inputs) - 1, len(outputs)) for name in ("if", "else")]
    return IfSegment(inputs, outputs, *bodies)


def _loop(fields: Fields) -> LoopSegment:
    inputs, outputs = _ends(fields)
    carried, conditional = fields.size("carried"), fields.get("conditional", bool)
    body = _body(fields.at("loop"), len(inputs) - 1, len(outputs) + conditional)
    if not carried <= len(outputs) or carried + 2 > len(inputs):
        raise malformed(fields.what, fields.where, f"it cannot carry {carried} values")
    return LoopSegment(inputs, outputs, carried, conditional, body)


def _scan(fields: Fields) -> ScanSegment:
    inputs, outputs = _ends(fields)
    carried = fields.size("carried")
    scanned, stacked = fields.at("scanned").rows(int, bool), fields.at("stacked").rows(int, bool)
    body = _body(fields.at("scan"), len(inputs), len(outputs))
    given = body.inputs[carried : carried + len(scanned)]
    fit = len(given) == len(scanned) > 0 and len(outputs) == carried + len(stacked)
    sides = [*zip(scanned, given, strict=fit), *zip(stacked, body.outputs[carried:], strict=fit)]
    if not fit or any(not 0 <= axis <= len(info.shape) for (axis, _), info in sides):
        raise malformed(fields.what, fields.where, "its axes do not fit its body")
    axes, ways = (tuple(row[i] for row in scanned) for i in range(2))
    return ScanSegment(
        inputs, outputs, carried, axes, ways, tuple(axis for axis, _ in stacked), tuple(way for _, way in stacked), body
    )


def _ends(fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return fields.texts(fields.get("inputs", list)), fields.texts(fields.get("outputs", list))


def _body(fields: Fields, inputs: int, outputs: int) -> Body:
    given, made = read_infos(fields.at("inputs")), read_infos(fields.at("outputs"))
    if (len(given), len(made)) != (inputs, outputs):
        raise malformed(fields.what, fields.where, f"it has {len(given)} inputs and {len(made)} outputs")
    return Body(given, made, read_schedule(fields, made))
