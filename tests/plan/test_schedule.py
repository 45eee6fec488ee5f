# SPDX-License-Identifier: Apache-2.0
"""Segments with bodies as data: they come back from JSON, and what does not fit is refused."""

from __future__ import annotations

import copy
import pathlib
import re
from typing import Any

import pytest

from tensorwright.errors import PlanError
from tensorwright.ir.dtype import DType
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import from_json, to_json
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.schedule import (
    Body,
    HostSegment,
    HostStep,
    IfSegment,
    LoopSegment,
    NativeSegment,
    ScanSegment,
    Schedule,
    read_schedule,
    schedule_json,
)

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "plan-format.md"
COUNT, V, ROW = TensorInfo("i", DType.i64, ()), TensorInfo("v", DType.f32, (2, 3)), TensorInfo("row", DType.f32, (3,))
GO, N = TensorInfo("go", DType.bool, ()), TensorInfo("n", DType.f32, (2, 3))


def body(inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], key: str) -> Body:
    return Body(inputs, outputs, Schedule((NativeSegment(key, inputs, outputs),), tuple(o.name for o in outputs)))


def host(name: str) -> Body:
    step = HostStep(name, "unique", (name,), "there is no kernel")
    return Body((V,), (N,), Schedule((HostSegment("graph h\n", (step,)),), ("n",)))


SCHEDULE = Schedule(
    (
        IfSegment(("c", "x"), ("r",), body((V,), (N,), "cpu.0.then_body"), host("inside")),
        LoopSegment(("m", "", "r", "x"), ("a", "b"), 1, True, body((COUNT, V, V), (GO, N, ROW), "cpu.1.body")),
        ScanSegment(
            ("a", "xs", "x"),
            ("z", "s"),
            1,
            (1,),
            (True,),
            (2,),
            (False,),
            body((V, ROW, V), (N, V), "cpu.2.body"),
        ),
    ),
    ("z",),
)


def read(data: Any) -> Schedule:
    return read_schedule(Fields(from_json(to_json(data), "segments", "here"), "segments", "here"), (V,))


def test_schedule_comes_back_from_json() -> None:
    assert read(schedule_json(SCHEDULE)) == SCHEDULE
    assert SCHEDULE.native_keys == ("cpu.0.then_body", "cpu.1.body", "cpu.2.body")
    assert [step.name for step in SCHEDULE.host_steps] == ["inside"]


def test_page_describes_every_field() -> None:
    page = PAGE.read_text(encoding="utf-8")
    data: Any = from_json(to_json(schedule_json(SCHEDULE)), "segments", "here")
    fields = {name for segment in data["segments"] for name in segment}
    assert not [name for name in fields if not re.search(rf'"{name}"', page)]


@pytest.mark.parametrize(
    ("segment", "change"),
    [
        (0, {"inputs": ["c"]}),
        (0, {"inputs": []}),
        (0, {"outputs": ["r", "q"]}),
        (0, {"else": None}),
        (1, {"carried": 3}),
        (1, {"carried": -1}),
        (1, {"conditional": False}),
        (1, {"conditional": 1}),
        (1, {"inputs": ["m"]}),
        (1, {"outputs": ["a"]}),
        (1, {"loop": {}}),
        (2, {"carried": 2}),
        (2, {"scanned": []}),
        (2, {"scanned": [[2, True]]}),
        (2, {"scanned": [[0, True], [4, True]]}),
        (2, {"stacked": [[3, False]]}),
        (2, {"stacked": [[-1, False]]}),
        (2, {"stacked": [[0, 0]]}),
    ],
)
def test_segment_that_does_not_fit_its_body_is_refused(segment: int, change: dict[str, Any]) -> None:
    data: Any = copy.deepcopy(schedule_json(SCHEDULE))
    data["segments"][segment].update(change)
    with pytest.raises(PlanError, match="P106"):
        read(data)


def test_body_with_other_results_is_refused() -> None:
    data: Any = copy.deepcopy(schedule_json(SCHEDULE))
    data["segments"][1]["loop"]["results"] = ["go", "n"]
    with pytest.raises(PlanError, match="P106"):
        read(data)
