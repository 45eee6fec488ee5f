# SPDX-License-Identifier: Apache-2.0
"""How the parts of a network that no single program runs follow one another, as data in a plan."""

from __future__ import annotations

from collections.abc import Sequence
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


Segment = NativeSegment | HostSegment


@dataclass(frozen=True, slots=True)
class Schedule:
    """Segments in execution order, and the name of the value that each engine output is."""

    segments: tuple[Segment, ...]
    results: tuple[str, ...]

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """All of them, in execution order."""
        return tuple(step for s in self.segments if isinstance(s, HostSegment) for step in s.steps)

    @property
    def native_keys(self) -> tuple[str, ...]:
        """The native parts that the segments run."""
        return tuple(s.key for s in self.segments if isinstance(s, NativeSegment))


def schedule_json(schedule: Schedule) -> dict[str, object]:
    """The schedule as the section `segments` holds it."""
    return {"results": list(schedule.results), "segments": [_segment_json(s) for s in schedule.segments]}


def read_schedule(fields: Fields, outputs: Sequence[TensorInfo]) -> Schedule:
    """The schedule of a plan with these outputs. Raises PlanError P106."""
    results = fields.texts(fields.get("results", list))
    if len(results) != len(outputs):
        raise malformed(fields.what, fields.where, f"{len(results)} results for {len(outputs)} outputs")
    rows = fields.get("segments", list)
    return Schedule(
        tuple(_segment(Fields(row, f"{fields.what} {i}", fields.where)) for i, row in enumerate(rows)), results
    )


def _segment_json(segment: Segment) -> dict[str, object]:
    if isinstance(segment, NativeSegment):
        return {"native": segment.key, "inputs": info_rows(segment.inputs), "outputs": info_rows(segment.outputs)}
    return {"host": segment.graph, "steps": [[s.name, s.op, list(s.origin), s.reason] for s in segment.steps]}


def _segment(fields: Fields) -> Segment:
    if isinstance(fields.value, dict) and "native" in fields.value:
        return NativeSegment(
            fields.get("native", str),
            read_infos(fields.at("inputs"), static=True),
            read_infos(fields.at("outputs"), static=True),
        )
    rows = fields.at("steps")
    steps = tuple(HostStep(n, op, rows.texts(origin), why) for n, op, origin, why in rows.rows(str, str, list, str))
    return HostSegment(fields.get("host", str), steps)
