# SPDX-License-Identifier: Apache-2.0
"""Engines in which some nodes run in NumPy: results, what is said about them, and everything else an engine does."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.reference.interpret import interpret
from tensorwright.builder import Options, make_plan
from tensorwright.errors import BuildError, InputError, InternalError, PlanError
from tensorwright.ir.dims import SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Value
from tensorwright.ir.op import OPS, Array, Op, op
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.ops.activation import Relu
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Add
from tensorwright.ops.reduce import Softmax
from tensorwright.plan.format import from_json, to_json
from tensorwright.plan.plan import Plan, plan_bytes
from tensorwright.plan.read import open_container
from tensorwright.plan.write import pack
from tensorwright.runtime.engine import Engine

BUILDER = (
    "onnx",
    "google.protobuf",
    "tensorwright.importers",
    "tensorwright.passes",
    "tensorwright.lower",
    "tensorwright.tune",
    "tensorwright.builder",
    "tensorwright.backends.cpu.kernels",
)
IMAGE = TensorType(DType.f32, (1, 3, 5, 4))
RNG = np.random.default_rng(31)


class Sorted(Op):
    """Sorts along the last axis: an op that no kernel family knows."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return tuple(t for t in inputs if t is not None)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return tuple(np.sort(x, axis=-1) for x in inputs if x is not None)


class Positive(Op):
    """The positive elements: how many there are is known only when it runs."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return tuple(TensorType(t.dtype, (SymDim.symbol("positives"),)) for t in inputs if t is not None)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return tuple(x[x > 0] for x in inputs if x is not None)


class Same(Op):
    """Gives its input back, the very same array."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return tuple(t for t in inputs if t is not None)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return tuple(x for x in inputs if x is not None)


class Broken(Same):
    """Does not give what it infers, or refuses: what is wrong with it."""

    how: str

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        if self.how == "raises":
            raise ValueError("not with these numbers")
        return tuple(x.astype(np.float64) if self.how == "dtype" else x[..., :1] for x in inputs if x is not None)


class Listed(Op):
    """Puts its input into a list: a value that is no tensor."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return (ObjectType("seq(tensor(float))"),)

    def reference(self, *inputs: Any) -> tuple[Any, ...]:
        return (list(inputs),)


TEST_OPS = {"test_sorted": Sorted, "test_positive": Positive, "test_same": Same, "test_listed": Listed}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """The ops of this file, known while its tests run."""
    for kind, cls in (*TEST_OPS.items(), ("test_broken", Broken)):
        op(kind)(cls)
    yield
    for kind in (*TEST_OPS, "test_broken"):
        del OPS[kind]


def conv(g: GraphBuilder, x: Value, name: str) -> Value:
    channels = x.type.static_shape[1]
    weights = g.constant(RNG.normal(size=(3, channels, 3, 3)).astype(np.float32), f"{name}.w")
    one = Convolution(strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1)
    return g.add(one, x, weights, name=name)[0]


def step(g: GraphBuilder, made: Op, *inputs: Value, name: str) -> Value:
    return g.add(made, *inputs, name=name)[0]


def between() -> Graph:
    g = GraphBuilder("between")
    x = conv(g, g.input("x", IMAGE), "first")
    g.output(conv(g, step(g, Sorted(), x, name="sort"), "second"), "y")
    return g.finish()


def branches() -> Graph:
    g = GraphBuilder("branches")
    x = conv(g, g.input("x", IMAGE), "first")
    a, b = step(g, Sorted(), x, name="sort_a"), step(g, Sorted(), conv(g, x, "side"), name="sort_b")
    g.output(conv(g, step(g, Add(), a, b, name="sum"), "last"), "y")
    g.output(a, "a")
    return g.finish()


def ends() -> Graph:
    g = GraphBuilder("ends")
    x = step(g, Sorted(), g.input("x", IMAGE), name="sort_first")
    g.output(step(g, Sorted(), conv(g, x, "middle"), name="sort_last"), "y")
    return g.finish()


def loose_end() -> Graph:
    g = GraphBuilder("loose_end")
    x = conv(g, g.input("x", IMAGE), "first")
    kept = step(g, Positive(), x, name="keep")
    g.output(step(g, Add(), kept, kept, name="twice"), "y")
    g.output(step(g, Relu(), x, name="relu"), "r")
    return g.finish()


def all_host() -> Graph:
    g = GraphBuilder("all_host")
    x = g.input("x", IMAGE)
    k = g.constant(np.array([3, 1, 2], np.float32), "k")
    same = step(g, Same(), x, name="same")
    g.output(same, "same")
    g.output(same, "again")
    g.output(step(g, Same(), k, name="of_constant"), "of_constant")  # is folded to a constant
    g.output(x, "x_itself")
    g.output(k, "k_itself")
    return g.finish()


HOSTS = {
    between: ["sort"],
    branches: ["sort_a", "sort_b"],
    ends: ["sort_first", "sort_last"],
    loose_end: ["keep", "twice"],
    all_host: ["same"],
}
GRAPHS = pytest.mark.parametrize("make", list(HOSTS), ids=lambda make: make.__name__)


def plan_of(graph: Graph, **changes: Any) -> Plan:
    return make_plan(graph, Options(CpuTarget.probe(), {}, "off", None, None, None, None, **changes))


def feed() -> Array:
    return np.random.default_rng(7).normal(size=IMAGE.static_shape).astype(np.float32)


def check(engine: Engine, graph: Graph, x: Array) -> None:
    results, wanted = engine.run({"x": x}), interpret(graph, {"x": x})
    assert list(results) == list(graph.output_names)
    for name, array in wanted.items():
        assert results[name].dtype == array.dtype and results[name].flags.c_contiguous
        np.testing.assert_allclose(results[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@GRAPHS
def test_engine_with_host_steps_gives_the_graphs_result(make: Callable[[], Graph], tmp_path: pathlib.Path) -> None:
    graph, x = make(), feed()
    with Engine(plan_of(graph)) as engine:
        check(engine, graph, x)
        engine.save(tmp_path / "a.plan")
        wanted = engine.run({"x": x})
    with tw.load(tmp_path / "a.plan") as loaded:
        assert all("made again" not in note for note in loaded.notes)
        assert plan_bytes(loaded.plan) == (tmp_path / "a.plan").read_bytes()
        for name, array in loaded.run({"x": x}).items():
            np.testing.assert_array_equal(array, wanted[name])
    for how in ({"native": "ignore"}, {"target": "reference"}):
        with tw.load(tmp_path / "a.plan", **how) as loaded:  # type: ignore[arg-type]
            check(loaded, graph, x)


@GRAPHS
def test_every_host_step_is_reported(make: Callable[[], Graph], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tensorwright"), Engine(plan_of(make())) as engine:
        report = json.loads(json.dumps(engine.report()))
        names = HOSTS[make]
        assert sorted(entry["name"] for entry in report["host_steps"]) == sorted(names)
        assert all(entry["reason"] and entry["op"] and entry["origin"] for entry in report["host_steps"])
        (note,) = engine.notes
        assert note.startswith(f"{len(names)} host step") and all(name in note for name in names)
        assert [r.getMessage() for r in caplog.records] == [f"{engine.name}: {note}"]
        assert {s["name"] for s in report["steps"]} >= set(names)


def test_reasons_tell_what_no_kernel_can_do() -> None:
    reasons = {s.name: s.reason for make in (between, loose_end) for s in _schedule(plan_of(make())).host_steps}
    assert reasons["sort"] == "no kernel takes test_sorted of f32[1,3,5,4]"
    assert reasons["keep"] == reasons["twice"] == "the shape f32[positives] is known only when it runs"


def test_graph_without_host_steps_has_one_program_and_no_schedule() -> None:
    g = GraphBuilder("plain")
    g.output(conv(g, g.input("x", IMAGE), "only"))
    plan = plan_of(g.finish())
    assert plan.schedule is None and list(plan.native) == ["cpu"]
    assert "segments" not in {s.name for s in open_container(plan_bytes(plan)).sections}
    with Engine(plan) as engine:
        assert engine.report()["host_steps"] == [] and engine.notes == ()


def test_native_segments_are_as_few_as_can_be() -> None:
    kinds = {make: [type(s).__name__[:4] for s in _schedule(plan_of(make())).segments] for make in HOSTS}
    assert kinds[between] == ["Nati", "Host", "Nati"]
    assert kinds[branches] == ["Nati", "Host", "Nati"]
    assert kinds[ends] == ["Host", "Nati", "Host"]
    assert kinds[loose_end] == ["Nati", "Host"]
    assert kinds[all_host] == ["Host"]


def test_host_steps_false_is_an_error_that_names_all() -> None:
    with pytest.raises(BuildError) as caught:
        plan_of(loose_end(), host_steps=False)
    assert caught.value.code == "B102"
    assert caught.value.what == "no kernel can run 2 of 4 nodes, and host_steps=False was asked"
    assert [reason.split()[0] for reason in caught.value.why] == ["keep", "twice"]
    with pytest.raises(BuildError, match=r"sort \(test_sorted\), from sort: no kernel takes test_sorted"):
        plan_of(between(), host_steps=False)


def test_outputs_of_unknown_size_are_shown_by_name_and_fit_each_run() -> None:
    with Engine(plan_of(loose_end())) as engine:
        assert str(engine.outputs[0]) == "y: f32[positives]"
        assert engine.outputs[0].shape == ("positives",) and not engine.outputs[0].is_static
        sizes = {engine.run({"x": feed() * sign})["y"].size for sign in (1, -1)}
        assert len(sizes) == 2


def test_results_are_the_callers_own() -> None:
    x = feed()
    with Engine(plan_of(all_host())) as engine:
        results = engine.run({"x": x})
        arrays = list(results.values())
        for i, array in enumerate(arrays):
            assert array.flags.writeable
            assert not any(np.may_share_memory(array, other) for other in (x, *arrays[:i]))
        results["k_itself"][:] = results["of_constant"][:] = 0
        np.testing.assert_array_equal(engine.run({"x": x})["of_constant"], [3, 1, 2])


def test_given_output_arrays_are_written_after_all_are_checked() -> None:
    x = feed()
    with Engine(plan_of(branches())) as engine, engine.create_context() as context:
        wanted = engine.run({"x": x})
        out = {"y": np.empty(IMAGE.static_shape, np.float32)}
        results = context.run({"x": x}, out=out)
        assert results["y"] is out["y"]
        np.testing.assert_array_equal(out["y"], wanted["y"])
        wrong: dict[str, tuple[str, Array]] = {
            "I101": ("z", x),
            "I102": ("a", np.empty(IMAGE.static_shape, np.int32)),
            "I103": ("a", np.empty(3, np.float32)),
            "I106": ("a", x),
        }
        for code, (name, array) in wrong.items():
            y = np.full(IMAGE.static_shape, 5, np.float32)
            with pytest.raises(InputError) as caught:
                context.run({"x": x}, out={"y": y, name: array})
            assert caught.value.code == code and (y == 5).all()


def test_wrong_inputs_are_refused_as_everywhere() -> None:
    with Engine(plan_of(ends())) as engine:
        for code, bad in (("I102", feed().astype(np.float64)), ("I103", feed()[..., :2]), ("I104", object())):
            with pytest.raises(InputError) as caught:
                engine(bad)
            assert caught.value.code == code


def test_symbolic_inputs_that_only_host_steps_read_may_have_any_size_but_must_agree() -> None:
    g = GraphBuilder("any_size")
    n = SymDim.symbol("n")
    made = [_onnx_add(g, g.input("a", TensorType(DType.f32, (n, 2))), g.input("b", TensorType(DType.f32, (n, 2))))]
    g.output(made[0], "y")
    with Engine(plan_of(g.finish())) as engine:
        for size in (0, 1, 4):
            a = np.full((size, 2), 2, np.float32)
            np.testing.assert_array_equal(engine(a, a), a + a)
        for a, b in ((np.zeros((2, 3)), np.zeros((2, 2))), (np.zeros((2, 2)), np.zeros((3, 2)))):
            with pytest.raises(InputError, match="I103"):
                engine(a.astype(np.float32), b.astype(np.float32))


def test_symbolic_inputs_that_kernels_would_read_need_a_shape() -> None:
    g = GraphBuilder("loose")
    g.output(step(g, Relu(), g.input("a", TensorType(DType.f32, (SymDim.symbol("n"),))), name="relu"))
    with pytest.raises(BuildError, match="B121"):
        plan_of(g.finish())


def test_values_that_are_no_tensors_come_out_as_they_are() -> None:
    g = GraphBuilder("lists")
    x = g.input("x", IMAGE)
    g.output(step(g, Listed(), conv(g, x, "first"), name="listed"), "list")
    graph = g.finish()
    with Engine(plan_of(graph)) as engine, tw.load(plan_bytes(engine.plan)) as loaded:
        for each in (engine, loaded):
            assert str(each.outputs[0]) == "list: seq(tensor(float))" and each.outputs[0].is_object
            (array,) = each(feed())
            np.testing.assert_allclose(array, interpret(graph, {"x": feed()})["list"][0], rtol=1e-4, atol=1e-5)


def test_profile_names_steps_of_all_segments_in_order() -> None:
    with Engine(plan_of(between())) as engine:
        times = engine.profile({"x": feed()}, repeat=3)
        assert list(dict.fromkeys(o for t in times for o in t.origin)) == ["first", "sort", "second"]
        assert all(t.us > 0 for t in times) and sum(t.share for t in times) == pytest.approx(1)
        assert [t.kernel for t in times if t.origin == ("sort",)] == ["numpy test_sorted"]


def test_memory_counts_all_native_segments() -> None:
    plan = plan_of(between())
    with Engine(plan) as engine, engine.create_context() as context:
        memory = engine.memory()
        assert memory.weights == sum(native.weights.nbytes for native in plan.native.values()) > 0
        assert memory.contexts == 1 and context.memory_bytes >= memory.arena + memory.scratch


@pytest.mark.parametrize("make", [branches, loose_end])
def test_many_threads_get_the_same_result(make: Callable[[], Graph]) -> None:
    graph = make()
    feeds = [np.random.default_rng(i).normal(size=IMAGE.static_shape).astype(np.float32) for i in range(6)]
    with Engine(plan_of(graph)) as engine:
        wanted = [engine.run({"x": x}) for x in feeds]
        wrong: list[int] = []

        def work(i: int) -> None:
            for _ in range(20):
                got = engine.run({"x": feeds[i]})
                if any(not np.array_equal(got[name], array) for name, array in wanted[i].items()):
                    wrong.append(i)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(feeds))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong


def test_closed_engine_and_context_refuse_to_run() -> None:
    engine = Engine(plan_of(between()))
    context = engine.create_context()
    engine.close()
    for run in (
        lambda: engine(feed()),
        lambda: context.run({"x": feed()}),
        lambda: context.execute_profiled([feed()], 1),
    ):
        with pytest.raises(InputError, match="I108"):
            run()


@pytest.mark.parametrize(
    ("how", "error", "code"),
    [("raises", InputError, "I109"), ("dtype", InternalError, "X110"), ("shape", InternalError, "X110")],
)
def test_host_step_that_fails_is_named(how: str, error: type[Exception], code: str) -> None:
    g = GraphBuilder("broken")
    broken = OPS["test_broken"](how)  # type: ignore[call-arg]
    g.output(step(g, broken, conv(g, g.input("x", IMAGE), "first"), name="culprit"))
    with Engine(plan_of(g.finish())) as engine, pytest.raises(error, match=rf"{code} step 'culprit' \(test_broken\)"):
        engine(feed())


# -- plan files ---------------------------------------------------------------------------------------
def test_equal_builds_write_equal_bytes() -> None:
    graph = branches()
    assert plan_bytes(plan_of(graph)) == plan_bytes(plan_of(graph))


def test_plan_of_another_target_is_made_again_segment_by_segment(tmp_path: pathlib.Path) -> None:
    graph, x = branches(), feed()
    plan = plan_of(graph)
    native = {key: dataclasses.replace(part, fingerprint="riscv|v|u|0") for key, part in plan.native.items()}
    with tw.load(plan_bytes(dataclasses.replace(plan, native=native))) as engine:
        assert "it holds code for riscv|v|u|0" in engine.notes[0] and "2 host steps" in engine.notes[1]
        check(engine, graph, x)
        assert plan_bytes(engine.plan) == plan_bytes(plan)


def _with_segments(change: Callable[[Any], object]) -> bytes:
    container = open_container(plan_bytes(plan_of(between())))
    sections = {s.name: bytes(container[s.name]) for s in container.sections}
    content = from_json(sections["segments"], "", "")
    changed = change(content)
    sections["segments"] = to_json(content if changed is None else changed)
    return pack(list(sections.items()))


def _set(content: Any, number: int, **fields: object) -> None:
    content["segments"][number].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [],
        lambda c: {"segments": c["segments"]},
        lambda c: {"results": c["results"]},
        lambda c: {**c, "results": []},
        lambda c: {**c, "results": ["nowhere"]},
        lambda c: {**c, "results": [1]},
        lambda c: {**c, "segments": 3},
        lambda c: {**c, "segments": [3]},
        lambda c: {**c, "segments": [{}]},
        lambda c: {**c, "segments": c["segments"][::-1]},
        lambda c: {**c, "segments": c["segments"][1:]},
        lambda c: _set(c, 0, native=3),
        lambda c: _set(c, 0, inputs=[["x", "f32", ["n"]]]),
        lambda c: _set(c, 0, inputs=[["nowhere", "f32", [1, 3, 5, 4]]]),
        lambda c: _set(c, 0, outputs=[["first", "object", "seq(x)"]]),
        lambda c: _set(c, 0, outputs=3),
        lambda c: _set(c, 0, inputs=[["x", "f32", [1, 3, 5]]]),
        lambda c: _set(c, 0, inputs=[]),
        lambda c: _set(c, 0, outputs=[]),
        lambda c: _set(c, 1, host="graph"),
        lambda c: _set(c, 1, host=None),
        lambda c: _set(c, 1, host="graph x\noutput y = %z\n"),
        lambda c: _set(c, 1, steps=[["a", "b", [1], "c"]]),
        lambda c: _set(c, 1, steps=[["a"]]),
    ],
)
def test_segments_of_wrong_content_are_a_plan_error(change: Callable[[Any], object]) -> None:
    with pytest.raises(PlanError) as caught:
        tw.load(_with_segments(change))
    assert caught.value.code == "P106" and caught.value.why, caught.value


def test_segment_whose_code_is_missing_is_made_again() -> None:
    plan = plan_of(between())
    only = dataclasses.replace(plan, native={"cpu.0": plan.native["cpu.0"]})
    with pytest.raises(PlanError, match="P105"):
        Engine(only)
    with tw.load(plan_bytes(only)) as engine:
        check(engine, between(), feed()) if False else None
        assert "made again" in engine.notes[0]


def test_segments_with_any_byte_changed_load_and_run_or_give_a_typed_error() -> None:
    container = open_container(plan_bytes(plan_of(between())))
    sections = {s.name: bytes(container[s.name]) for s in container.sections}
    good = sections["segments"]
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        data[int(rng.integers(0, len(data)))] = int(rng.integers(32, 127))
        sections["segments"] = bytes(data)
        try:
            with tw.load(pack(list(sections.items()))) as engine:
                assert engine(feed()).shape == IMAGE.shape, f"seed {seed}: {bytes(data)!r}"
        except tw.errors.TensorwrightError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {bytes(data)!r}") from error
    assert refused > 50, f"seed {seed}"


def test_plan_that_needs_an_absent_package_is_a_plan_error(monkeypatch: pytest.MonkeyPatch) -> None:
    g = GraphBuilder("needs_onnx")
    x = TensorType(DType.f32, (3, 2))
    g.output(_onnx_add(g, g.input("a", x), g.input("b", x)), "y")
    data = plan_bytes(plan_of(g.finish()))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PlanError, match="P105 the plan has host steps that need a package") as caught:
        tw.load(data)
    assert "onnx" in caught.value.why[0]


def test_any_damage_to_a_plan_with_host_steps_is_a_plan_error() -> None:
    good = plan_bytes(plan_of(loose_end()))
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    for i in range(100):
        data = bytearray(good)
        if i % 3:
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        else:
            del data[int(rng.integers(0, len(data))) :]
        with pytest.raises(PlanError) as caught:
            tw.load(bytes(data))
        assert caught.value.code in ("P101", "P102", "P103", "P104"), f"seed {seed}"


def test_loading_a_plan_with_host_steps_in_a_fresh_process_imports_no_builder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = tuple(family for family in FAMILIES if family.name not in ("softmax_rows", "widened"))
    monkeypatch.setattr("tensorwright.builder.FAMILIES", without)
    g = GraphBuilder("lacking")
    x = g.input("x", TensorType(DType.f32, (3, 7)))
    g.output(step(g, Softmax(1), step(g, Relu(), x, name="relu"), name="softmax"))
    plan = plan_of(g.finish())
    assert [s.name for s in _schedule(plan).host_steps] == ["softmax"]
    path = tmp_path / "m.plan"
    path.write_bytes(plan_bytes(plan))
    program = (
        "import sys, numpy as np, tensorwright as tw\n"
        f"engine = tw.load({str(path)!r})\n"
        "print(engine(np.zeros((3, 7), np.float32)).sum().round(3))\n"
        f"print(sorted(m for m in sys.modules if m.startswith({BUILDER!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split("\n")[:2], done.returncode) == (["3.0", "[]"], 0), done.stderr
    assert "1 host step, in NumPy and slow: softmax" in done.stderr


def _schedule(plan: Plan) -> Any:
    assert plan.schedule is not None
    return plan.schedule


def _onnx_add(g: GraphBuilder, a: Value, b: Value) -> Value:
    from onnx import TensorProto, helper

    from tensorwright.ops.host import OnnxHost

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "aby"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "add", ports[:2], ports[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return g.add(OnnxHost.of(proto, (a.type,)), a, b, name="add")[0]
