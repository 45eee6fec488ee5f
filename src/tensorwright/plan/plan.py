# SPDX-License-Identifier: Apache-2.0
"""What a plan holds, in memory, and how that maps to the sections of a file.

The portable part (meta, graph, constants, choices) is enough to make code for any target; a native part
per backend makes loading on its target free of work.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import Bytes, from_json, malformed, to_json
from tensorwright.plan.interface import TensorInfo, info_rows, read_dtype, read_infos
from tensorwright.plan.read import Container, open_container
from tensorwright.plan.schedule import Schedule, read_schedule, schedule_json
from tensorwright.plan.write import pack, write_sections

Json = dict[str, Any]

_ALIGNMENT = 64  # of arrays inside a section


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

    @property
    def native_keys(self) -> tuple[str, ...]:
        """The native parts that a run on the CPU needs."""
        return ("cpu",) if self.schedule is None else self.schedule.native_keys


def save_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write the plan to a file, atomically. Raises PlanError P108 when the system refuses."""
    write_sections(path, _sections(plan))


def plan_bytes(plan: Plan) -> bytes:
    """The plan file as bytes; equal plans give equal bytes."""
    return pack(_sections(plan))


def read_plan(source: str | os.PathLike[str] | Bytes) -> Plan:
    """Read a plan from a path or bytes. Weights are views of the mapped file.

    Raises PlanError (P101 to P107): see `open_container`, and P106 for content that is not as documented.
    """
    return _plan(open_container(source))


# -- to sections ------------------------------------------------------------------------------------
def _sections(plan: Plan) -> list[tuple[str, Bytes]]:
    blob, index = _store_constants(plan)
    sections: list[tuple[str, Bytes]] = [
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
            (f"weights:{key}", _raw(native.weights)),
        ]
    return sections


def _raw(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _store_constants(plan: Plan) -> tuple[bytes, list[list[object]]]:
    """The constants section and its index [name, dtype, shape, section, offset].

    An array whose bytes are in the blob already, or in a native weights section, is stored once and pointed to.
    """
    chunks: list[Bytes] = []
    index: list[list[object]] = []
    stored = _native_arrays(plan)
    end = 0
    for name, array in plan.constants.items():
        data = _raw(array)
        key = hashlib.blake2b(data).digest() if len(data) else b""
        if key not in stored:
            chunks += [bytes(-end % _ALIGNMENT), data]
            end += -end % _ALIGNMENT
            stored[key] = ("constants", end)
            end += len(data)
        index.append([name, str(DType.of(array.dtype)), list(array.shape), *stored[key]])
    return b"".join(chunks), index


def _native_arrays(plan: Plan) -> dict[bytes, tuple[str, int]]:
    """Content hash of every array inside native weights (their programs list [offset, bytes]) -> where it is."""
    found: dict[bytes, tuple[str, int]] = {}
    for key, native in sorted(plan.native.items()):
        data = _raw(native.weights)
        for offset, size in Fields(native.program, f"program:{key}", plan.name).at("weights").rows(int, int):
            found.setdefault(hashlib.blake2b(data[offset : offset + size]).digest(), (f"weights:{key}", offset))
    return found


# -- from sections ----------------------------------------------------------------------------------
def _plan(container: Container) -> Plan:
    meta = _fields(container, "meta")
    prints = meta.get("native", dict)
    outputs = read_infos(meta.at("outputs"))
    return Plan(
        name=meta.get("name", str),
        producer=meta.get("producer", str),
        inputs=read_infos(meta.at("inputs")),
        outputs=outputs,
        graph=_text(container, "graph"),
        constants=_Constants(container),
        choices=tuple(Choice(*row) for row in _fields(container, "choices").rows(str, str, int, dict, float)),
        options=meta.get("options", dict),
        report=meta.get("report", dict),
        native={key: _native(container, key, meta.at("native").get(key, str)) for key in prints},
        schedule=read_schedule(_fields(container, "segments"), outputs) if "segments" in container else None,
    )


def _native(container: Container, key: str, fingerprint: str) -> Native:
    program = from_json(container[f"program:{key}"], f"section 'program:{key}'", container.where)
    if not isinstance(program, dict):
        raise malformed(f"section 'program:{key}'", container.where, "expected an object")
    return Native(fingerprint, program, container[f"code:{key}"], np.frombuffer(container[f"weights:{key}"], np.uint8))


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

    def __init__(self, container: Container) -> None:
        fields = _fields(container, "constants.index")
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
