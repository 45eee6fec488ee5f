# SPDX-License-Identifier: Apache-2.0
"""What a plan holds, in memory, and how that maps to the sections of a file.

The portable part (meta, graph, constants, choices) is enough to make code for any target; a native part
per backend makes loading on its target free of work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tensorwright.errors import PlanError
from tensorwright.ir.dims import Symbol
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.memory import Contents, as_bytes, has_changed, release
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import Bytes, Data, from_json, malformed, to_json
from tensorwright.plan.interface import (
    Equality,
    TensorInfo,
    equality_rows,
    info_rows,
    read_dtype,
    read_equalities,
    read_infos,
    read_symbols,
    symbol_rows,
)
from tensorwright.plan.read import Container, open_container
from tensorwright.plan.schedule import Schedule, read_schedule, schedule_json
from tensorwright.plan.write import pack, write_sections

Json = dict[str, Any]

_ALIGNMENT = 64  # of arrays inside a section

IMPORT_NOTES = "import_notes"
"""Where a plan's report has the lines that the importer wants the user to read."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel that the tuner chose for a workload (`Workload.key`); `seconds` is its measured time."""

    workload: str
    family: str
    version: int
    config: Json
    seconds: float


@dataclass(frozen=True)
class Native:
    """Code for one target: `program` describes it, `code` and `weights` are opaque bytes to the plan.

    `fingerprint` names the target; code runs only where the fingerprint is the same.
    """

    fingerprint: str
    program: Json
    code: Bytes
    weights: Array


@dataclass(frozen=True)
class Plan:
    """A built network. `graph` is the optimised graph in text form, `constants` its arrays by value name,
    `options` what the build was asked, `report` what it did (both plain JSON), `native` maps a backend to its code.

    Where some nodes run in NumPy, `schedule` lists the segments; each native one then has its own part in `native`.
    `symbols` are the sizes that a run decides, `equalities` what a run must find equal among them.
    `profiles` are plans of the same network for further ranges of shapes.
    """

    name: str
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    graph: str
    constants: Mapping[str, Array]
    choices: tuple[Choice, ...] = ()
    options: Json = field(default_factory=dict)
    report: Json = field(default_factory=dict)
    native: Mapping[str, Native] = field(default_factory=dict)
    schedule: Schedule | None = None
    symbols: tuple[Symbol, ...] = ()
    equalities: tuple[Equality, ...] = ()
    profiles: tuple[Plan, ...] = ()

    @property
    def native_keys(self) -> tuple[str, ...]:
        """The native parts that a run on the CPU needs."""
        return ("cpu",) if self.schedule is None else self.schedule.native_keys


def save_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write the plan to a file, atomically. Raises PlanError P108 when the system refuses, P109 when the model's
    weights, which a plan reads from the model's own file, are not there any more as they were."""
    write_sections(path, _sections(plan))


def plan_bytes(plan: Plan) -> bytes:
    """The plan file as bytes; equal plans give equal bytes. Raises PlanError P109 as `save_plan` does."""
    return pack(_sections(plan))


def read_plan(source: str | os.PathLike[str] | Bytes) -> Plan:
    """Read a plan from a path or bytes. Weights are views of the mapped file.

    Raises PlanError (P101 to P107): see `open_container`, and P106 for content that is not as documented.
    """
    return _plan(open_container(source))


# -- to sections ------------------------------------------------------------------------------------
def _sections(plan: Plan) -> list[tuple[str, Data]]:
    sections: list[tuple[str, Data]] = []
    stored: Contents[tuple[str, int]] = Contents()
    for number, profile in enumerate((plan, *plan.profiles)):
        sections += _profile_sections(profile, f"profile{number}." if number else "", stored, len(plan.profiles))
    return sections


def _profile_sections(
    plan: Plan, prefix: str, stored: Contents[tuple[str, int]], further: int
) -> list[tuple[str, Data]]:
    """The sections of one profile, called with its prefix; `stored` has the arrays of those before it."""
    _refuse_changed(plan)
    blob, index = _store_constants(plan, prefix, stored)
    sections: list[tuple[str, Data]] = [
        (
            "meta",
            to_json(
                {
                    "name": plan.name,
                    "producer": plan.producer,
                    "inputs": info_rows(plan.inputs),
                    "outputs": info_rows(plan.outputs),
                    "options": plan.options,
                    "report": plan.report,
                    "symbols": symbol_rows(plan.symbols),
                    "equalities": equality_rows(plan.equalities),
                    "profiles": further,
                    "native": {key: native.fingerprint for key, native in plan.native.items()},
                }
            ),
        ),
        ("graph", plan.graph.encode()),
        ("choices", to_json([[c.workload, c.family, c.version, c.config, c.seconds] for c in plan.choices])),
        ("constants.index", to_json(index)),
        ("constants", blob),
    ]
    if plan.schedule is not None:
        sections.append(("segments", to_json(schedule_json(plan.schedule))))
    for key, native in sorted(plan.native.items()):
        sections += [
            (f"program:{key}", to_json(native.program)),
            (f"code:{key}", native.code),
            (f"weights:{key}", as_bytes(native.weights).data),
        ]
    return [(prefix + name, data) for name, data in sections]


def _refuse_changed(plan: Plan) -> None:
    changed = next((name for name, array in plan.constants.items() if has_changed(array)), None)
    if changed is not None:
        raise PlanError(
            "the model's file was changed after the engine was built from it",
            where=plan.name,
            why=f"the weights {changed!r} are read from it when the plan is saved",
            do="build again, then save before the model is written over; or write models under a new name and rename",
            code="P109",
        )


def _store_constants(
    plan: Plan, prefix: str, stored: Contents[tuple[str, int]]
) -> tuple[list[Bytes], list[list[object]]]:
    """The constants section and its index [name, dtype, shape, section, offset].

    An array whose bytes are in the blob already, or in a native weights section, is stored once and pointed to.
    """
    parts: list[Bytes] = []
    index: list[list[object]] = []
    _note_native_arrays(plan, prefix, stored)
    end = 0
    for name, array in plan.constants.items():
        data = as_bytes(array)
        place = stored.find(data)
        if place is None:
            parts += [bytes(-end % _ALIGNMENT), data.data]
            end += -end % _ALIGNMENT
            place = (f"{prefix}constants", end)
            stored.note(data, place)
            end += data.size
        index.append([name, str(DType.of(array.dtype)), list(array.shape), *place])
        release(array)
    return parts, index


def _note_native_arrays(plan: Plan, prefix: str, stored: Contents[tuple[str, int]]) -> None:
    """Note every array inside native weights (their programs list [offset, bytes]), and where it is."""
    for key, native in sorted(plan.native.items()):
        data = as_bytes(native.weights)
        for offset, size in Fields(native.program, f"program:{key}", plan.name).at("weights").rows(int, int):
            stored.note(data[offset : offset + size], (f"{prefix}weights:{key}", offset))


# -- from sections ----------------------------------------------------------------------------------
def _plan(container: Container) -> Plan:
    first = _profile(container, "")
    further = _fields(container, "meta").size("profiles")
    return replace(first, profiles=tuple(_profile(container, f"profile{number + 1}.") for number in range(further)))


def _profile(container: Container, prefix: str) -> Plan:
    meta = _fields(container, f"{prefix}meta")
    prints = meta.get("native", dict)
    outputs, segments = read_infos(meta.at("outputs")), f"{prefix}segments"
    return Plan(
        name=meta.get("name", str),
        producer=meta.get("producer", str),
        inputs=read_infos(meta.at("inputs")),
        outputs=outputs,
        graph=_text(container, f"{prefix}graph"),
        constants=_Constants(container, prefix),
        choices=tuple(Choice(*row) for row in _fields(container, f"{prefix}choices").rows(str, str, int, dict, float)),
        options=meta.get("options", dict),
        report=meta.get("report", dict),
        native={key: _native(container, prefix, key, meta.at("native").get(key, str)) for key in prints},
        schedule=read_schedule(_fields(container, segments), outputs) if segments in container else None,
        symbols=read_symbols(meta.at("symbols")),
        equalities=read_equalities(meta.at("equalities")),
    )


def _native(container: Container, prefix: str, key: str, fingerprint: str) -> Native:
    name = f"{prefix}program:{key}"
    program = from_json(container[name], f"section {name!r}", container.where)
    if not isinstance(program, dict):
        raise malformed(f"section {name!r}", container.where, "expected an object")
    weights = np.frombuffer(container[f"{prefix}weights:{key}"], np.uint8)
    return Native(fingerprint, program, container[f"{prefix}code:{key}"], weights)


def _fields(container: Container, name: str) -> Fields:
    what = f"section {name!r}"
    return Fields(from_json(container[name], what, container.where), what, container.where)


def _text(container: Container, name: str) -> str:
    try:
        return bytes(container[name]).decode()
    except UnicodeDecodeError as error:
        raise malformed(f"section {name!r}", container.where, str(error)) from None


class _Constants(Mapping[str, Array]):
    """Arrays by name, as read-only views of the file."""

    def __init__(self, container: Container, prefix: str) -> None:
        fields = _fields(container, f"{prefix}constants.index")
        self._arrays = {}
        for name, text, shape, section, offset in fields.rows(str, str, list, str, int):
            dtype, sizes, data = read_dtype(fields, text), fields.sizes(shape), container[section]
            if dtype is DType.object:
                raise malformed(fields.what, fields.where, f"constant {name!r} is no array of numbers")
            size = math.prod(sizes) * dtype.size_bytes
            if not 0 <= offset <= len(data) - size:
                raise malformed(fields.what, fields.where, f"constant {name!r} lies outside section {section!r}")
            self._arrays[name] = np.frombuffer(data[offset : offset + size], np.uint8).view(dtype.numpy).reshape(sizes)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
