# SPDX-License-Identifier: Apache-2.0
"""Plans through files: everything comes back, weights are stored once, content is checked field by field."""

from __future__ import annotations

import copy
import dataclasses
import pathlib

import numpy as np
import pytest

from tensorwright.backends.cpu.launch import cpu_code
from tensorwright.errors import PlanError
from tensorwright.ir.dtype import DType
from tensorwright.plan.format import from_json, to_json
from tensorwright.plan.interface import TensorInfo
from tensorwright.plan.plan import Choice, Native, Plan, plan_bytes, read_plan, save_plan
from tensorwright.plan.read import open_container
from tensorwright.plan.schedule import HostSegment, HostStep, NativeSegment, Schedule
from tensorwright.plan.write import pack
from tests.runtime.tiny import plan_of, sample


def small_plan(**changes: object) -> Plan:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(16, 4)).astype(np.float32)
    weights = np.zeros(512, np.uint8)
    weights[128:384] = shared.view(np.uint8).reshape(-1)
    constants = {
        "w": shared,
        "again": shared.copy(),
        "scalar": np.float32(3.5).reshape(()),
        "none": np.zeros((0, 3), np.int64),
        "flags": np.array([True, False]),
        "strided": rng.normal(size=(6, 4)).astype(np.float32).T,
        "i8": np.arange(5, dtype=np.int8),
        "half": np.array([1, 2], DType.bf16.numpy),
    }
    native = Native("triple|avx2|cpu|0", {"weights": [[128, 256]], "steps": []}, b"\x7fELF code", weights)
    plan = Plan(
        name="née",
        producer="test 1",
        inputs=(TensorInfo("x", DType.f32, (1, 3)),),
        outputs=(TensorInfo("y", DType.i64, ()), TensorInfo("z", DType.bool, (0, 2))),
        graph="graph née {\n}\n",
        constants=constants,
        choices=(Choice("matmul(f32[1,3])", "gemm", 2, {"rows": 6}, 1e-5),),
        options={"precision": "fp32"},
        report={"edits": [1, 2]},
        native={"cpu": native},
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def segmented_plan(**changes: object) -> Plan:
    part = small_plan().native["cpu"]
    host = HostSegment("graph small.1\n", (HostStep("sort", "unique", ("a", "b"), "there is no kernel"),))
    x = TensorInfo("x", DType.f32, (1, 3))
    schedule = Schedule((NativeSegment("cpu.0", (x,), ()), host, NativeSegment("cpu.2", (), (x,))), ("x", "words"))
    outputs = (
        TensorInfo("y", DType.f32, ("n", 3, "2*n+1")),
        TensorInfo("z", DType.object, (), "seq(tensor(string))"),
    )
    native = {"cpu.0": part, "cpu.2": part}
    return small_plan(**{"schedule": schedule, "outputs": outputs, "native": native, **changes})


def check_equal(a: Plan, b: Plan) -> None:
    for field in ("name", "producer", "inputs", "outputs", "graph", "choices", "options", "report", "schedule"):
        assert getattr(a, field) == getattr(b, field), field
    assert list(a.constants) == list(b.constants)
    for name, array in a.constants.items():
        assert b.constants[name].dtype == array.dtype
        np.testing.assert_array_equal(b.constants[name], array, err_msg=name)
    assert a.native.keys() == b.native.keys()
    for key, native in a.native.items():
        assert (native.fingerprint, native.program) == (b.native[key].fingerprint, b.native[key].program)
        assert bytes(native.code) == bytes(b.native[key].code)
        np.testing.assert_array_equal(native.weights, b.native[key].weights)


def test_plan_through_a_file_comes_back_equal_and_saves_to_the_same_bytes(tmp_path: pathlib.Path) -> None:
    plan = small_plan()
    save_plan(plan, tmp_path / "a.plan")
    read = read_plan(tmp_path / "a.plan")
    check_equal(plan, read)
    assert plan_bytes(read) == plan_bytes(plan) == (tmp_path / "a.plan").read_bytes()
    assert not read.constants["w"].flags.writeable


def test_plan_of_segments_comes_back_equal_and_saves_to_the_same_bytes() -> None:
    plan = segmented_plan()
    read = read_plan(plan_bytes(plan))
    check_equal(plan, read)
    assert plan_bytes(read) == plan_bytes(plan)
    assert read.native_keys == ("cpu.0", "cpu.2") and small_plan().native_keys == ("cpu",)
    assert [str(info) for info in read.outputs] == ["y: f32[n,3,2*n+1]", "z: seq(tensor(string))"]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("f32", [""]),
        ("f32", ["3"]),
        ("f32", ["n n"]),
        ("f32", ["n+"]),
        ("f32", [[1]]),
        ("f32", [None]),
        ("f32", [True]),
        ("f32", "n"),
        ("f32", None),
        ("object", []),
        ("object", ""),
        ("object", [1]),
        ("object", 3),
    ],
)
def test_interface_of_no_meaning_is_a_plan_error(dtype: str, shape: object) -> None:
    container = open_container(plan_bytes(segmented_plan()))
    sections = {s.name: bytes(container[s.name]) for s in container.sections}
    meta = from_json(sections["meta"], "", "")
    assert isinstance(meta, dict)
    sections["meta"] = to_json({**meta, "inputs": [["x", dtype, shape]]})
    with pytest.raises(PlanError, match="P106"):
        read_plan(pack(list(sections.items())))


def test_plan_without_native_part_or_constants_comes_back() -> None:
    plan = small_plan(native={}, constants={})
    check_equal(plan, read_plan(plan_bytes(plan)))


def test_equal_arrays_are_stored_once_and_those_in_packed_weights_not_again() -> None:
    container = open_container(plan_bytes(small_plan()))
    index = {row[0]: row[3:] for row in from_json(container["constants.index"], "", "")}
    assert index["w"] == index["again"] == ["weights:cpu", 128]
    assert len(container["constants"]) < 256 + 6 * 64
    alone = open_container(plan_bytes(small_plan(native={})))
    index = {row[0]: row[3:] for row in from_json(alone["constants.index"], "", "")}
    assert index["w"] == index["again"] == ["constants", 0]


def test_constants_in_a_file_are_aligned() -> None:
    for array in read_plan(plan_bytes(small_plan())).constants.values():
        assert array.flags.aligned


REFUSED = {
    "meta": [
        b"",
        b"[]",
        b"null",
        {"name": 3},
        {"name": None},
        {"inputs": [["x", "f33", [1]]]},
        {"inputs": [["x", "f32", [-1]]]},
        {"inputs": [["x", "f32"]]},
        {"inputs": 3},
        {"outputs": [["x", "f32", ["1"]]]},
        {"native": []},
        {"native": {"cpu": 1}},
        {"native": {"gpu": "x"}},
        {"options": []},
        {"report": "x"},
    ],
    "graph": [b"\xff\xfe"],
    "choices": [b"{}", b"[[1]]", b'[["a","b",1.5,{},1]]', b'[["a","b",1,{},"x"]]', b"[" * 100_000],
    "constants.index": [
        b"{}",
        b'[["w","f32",[1],"nowhere",0]]',
        b'[["w","f32",[1],"constants",-1]]',
        b'[["w","f32",[9999999999999999],"constants",0]]',
        b'[["w","f32",[100000],"constants",0]]',
        b'[["w","f32",[true],"constants",0]]',
    ],
    "program:cpu": [b"[]", b"3", b"{"],
}


@pytest.mark.parametrize(("section", "content"), [(s, c) for s, contents in REFUSED.items() for c in contents])
def test_section_of_wrong_content_is_a_plan_error(section: str, content: bytes | dict[str, object]) -> None:
    container = open_container(plan_bytes(small_plan()))
    sections = {s.name: bytes(container[s.name]) for s in container.sections}
    if isinstance(content, dict):
        meta = from_json(sections[section], "", "")
        content = to_json({k: v for k, v in {**meta, **content}.items() if v is not None})
    sections[section] = content
    with pytest.raises(PlanError) as caught:
        read_plan(pack(list(sections.items())))
    assert caught.value.code == "P106" and caught.value.why, caught.value


@pytest.mark.parametrize(
    "missing", ["meta", "graph", "choices", "constants.index", "constants", "code:cpu", "weights:cpu", "program:cpu"]
)
def test_missing_section_is_a_plan_error(missing: str) -> None:
    container = open_container(plan_bytes(small_plan()))
    with pytest.raises(PlanError, match=missing):
        read_plan(pack([(s.name, bytes(container[s.name])) for s in container.sections if s.name != missing]))


@pytest.mark.parametrize(
    "change",
    [
        {"objects": [["main", 5]]},
        {"objects": [["main", -1]]},
        {"objects": [["main", 1 << 40]]},
        {"objects": 1},
        {"arena_bytes": -1},
        {"arena_bytes": "1"},
        {"scratch_bytes": None},
        {"max_threads": 1.5},
        {"steps": [3]},
        {"steps": [{"name": "a"}]},
        {"steps": [{"name": "a", "origin": [1], "kernel": "", "workload": ""}]},
    ],
)
def test_cpu_code_with_wrong_description_is_a_plan_error(change: dict[str, object]) -> None:
    program = {
        "objects": [["main", 9]],
        "arena_bytes": 0,
        "scratch_bytes": 0,
        "max_threads": 0,
        "symbols": [],
        "decided": [],
        "steps": [{"name": "a", "origin": ["n"], "kernel": "k", "workload": "w"}],
    }
    code = b"\x7fELF code"
    assert cpu_code(Native("f", copy.deepcopy(program), code, np.zeros(0, np.uint8)), "p").steps[0].origin == ("n",)
    with pytest.raises(PlanError) as caught:
        cpu_code(Native("f", {**program, **change}, code, np.zeros(0, np.uint8)), "p")
    assert caught.value.code == "P106"


def test_nan_in_a_report_is_refused_at_save_rather_than_written_as_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        plan_bytes(small_plan(report={"x": float("nan")}))


def test_format_page_describes_every_section_and_every_field_that_is_written() -> None:
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "plan-format.md").read_text(encoding="utf-8")
    plan = plan_of(sample())
    container = open_container(plan_bytes(plan))
    program = plan.native["cpu"].program
    names = [s.name for s in container.sections] + list(program) + list(program["steps"][0]) + list(program["memory"])
    names += list(from_json(container["meta"], "", ""))
    segmented = open_container(plan_bytes(segmented_plan()))
    schedule = from_json(segmented["segments"], "", "")
    assert isinstance(schedule, dict)
    names += [s.name for s in segmented.sections if s.name not in ("program:cpu.2", "code:cpu.2", "weights:cpu.2")]
    names += [*schedule, *({key for segment in schedule["segments"] for key in segment} - {"inputs", "outputs"})]
    missing = [name for name in names if f"`{name}`" not in page and f'"{name}": ' not in page]
    assert not missing, f"docs/plan-format.md does not describe {missing}"
