# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan with compiled bodies, against ONNX Runtime and ONNX's reference; reports, plans and memory."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import tensorwright as tw
from tensorwright.errors import BuildError, InputError, PlanError
from tensorwright.ops.onnx_control_flow import CONTROL_FLOW
from tensorwright.plan.plan import plan_bytes
from tensorwright.plan.schedule import IfSegment, LoopSegment, ScanSegment
from tensorwright.runtime.engine import Engine
from tests.importers.models import model, node, runtime_outputs

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Feeds = dict[str, Any]
Shape = Sequence[int | str] | None
RNG = np.random.default_rng(5)
W = RNG.normal(size=(8, 8)).astype(np.float32) / 3


def body(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, tuple[int, Shape]],
    constants: Mapping[str, Any] | None = None,
) -> onnx.GraphProto:
    given, made = ([helper.make_tensor_value_info(n, t, s) for n, (t, s) in side.items()] for side in (inputs, outputs))
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    return helper.make_graph(list(nodes), "body", given, made, tensors)


def counted(**carried: tuple[int, Shape]) -> dict[str, tuple[int, Shape]]:
    return {"i": (I64, []), "keep": (BOOL, []), **carried}


def if_with_outer_values() -> onnx.ModelProto:
    """Branches that read different values around them, one of which nothing else reads."""
    then_branch = body([node("MatMul", ["e", "w"], ["p"]), node("Add", ["p", "x"], ["t"])], {}, {"t": (F, [4, 8])})
    else_branch = body([node("Mul", ["x", "two"], ["q"])], {}, {"q": (F, [4, 8])}, {"two": np.float32(2)})
    nodes = [
        node("Exp", ["x"], ["e"], "exp"),
        node("If", ["c"], ["r"], "choose", then_branch=then_branch, else_branch=else_branch),
        node("Relu", ["r"], ["y"], "relu"),
    ]
    return model(nodes, {"x": [4, 8], "c": []}, constants={"w": W}, kinds={"c": BOOL})


def if_with_two_shapes() -> onnx.ModelProto:
    then_branch = body([node("Neg", ["x"], ["t"])], {}, {"t": (F, [3, 8])})
    else_branch = body([node("Concat", ["x", "x"], ["q"], axis=0)], {}, {"q": (F, [6, 8])})
    nodes = [node("If", ["c"], ["y"], "choose", then_branch=then_branch, else_branch=else_branch)]
    return model(nodes, {"x": [3, 8], "c": []}, kinds={"c": BOOL})


def loop_with_rows() -> onnx.ModelProto:
    """v = tanh(v w + x) so many times; each sum is a row."""
    nodes = [
        node("MatMul", ["v", "w"], ["p"], "mm"),
        node("Add", ["p", "e"], ["a"]),
        node("Tanh", ["a"], ["n"]),
        node("Identity", ["keep"], ["go"]),
        node("ReduceSum", ["n"], ["s"], "sum", keepdims=0),
    ]
    inner = body(nodes, counted(v=(F, [2, 8])), {"go": (BOOL, []), "n": (F, [2, 8]), "s": (F, [])})
    outer = [node("Exp", ["x"], ["e"], "exp"), node("Loop", ["m", "", "v0"], ["y", "sums"], "loop", body=inner)]
    kinds = {"m": I64}
    return model(outer, {"m": [], "v0": [2, 8], "x": [2, 8]}, ["y", "sums"], {"w": W}, kinds=kinds)


def loop_with_exit() -> onnx.ModelProto:
    """v *= 1.5 until its largest element is above the limit; rows are v and whether it goes on."""
    nodes = [
        node("Mul", ["v", "f"], ["n"], "grow"),
        node("ReduceMax", ["n"], ["top"], "top", keepdims=0),
        node("Less", ["top", "bound"], ["go"], "less"),
        node("Identity", ["n"], ["row"]),
        node("Identity", ["go"], ["went"]),
        node("Add", ["count", "i"], ["counted"], "count"),
    ]
    made = {"go": (BOOL, []), "n": (F, [3]), "counted": (I64, []), "row": (F, [3]), "went": (BOOL, [])}
    inner = body(nodes, counted(v=(F, [3]), count=(I64, [])), made, {"f": np.float32(1.5)})
    outer = [node("Loop", ["m", "c", "v0", "k"], ["y", "sum", "rows", "going"], "loop", body=inner)]
    kinds = {"m": I64, "c": BOOL, "k": I64, "sum": I64, "going": BOOL}
    inputs: dict[str, Sequence[int]] = {"m": [], "c": [], "v0": [3], "bound": [], "k": []}
    return model(outer, inputs, ["y", "sum", "rows", "going"], kinds=kinds)


def loop_that_swaps() -> onnx.ModelProto:
    """a, b, c = b, a + b, c: values that change places and one that stays; the number of iterations is known."""
    nodes = [node("Add", ["a", "b"], ["s"]), node("Identity", ["keep"], ["go"]), node("Identity", ["b"], ["old"])]
    carried: dict[str, tuple[int, Shape]] = {n: (F, [5]) for n in "abc"}
    inner = body(nodes, counted(**carried), {"go": (BOOL, []), **{n: (F, [5]) for n in ("old", "s", "c")}})
    outer = [node("Loop", ["m", "", "a0", "b0", "c0"], ["a", "b", "c"], "loop", body=inner)]
    return model(outer, {n: [5] for n in ("a0", "b0", "c0")}, ["a", "b", "c"], {"m": np.int64(21)})


def if_in_loop() -> onnx.ModelProto:
    """Odd iterations double, even ones add a value from two levels up; rows of a known count, numbers of shape [1]."""
    odd = body([node("Mul", ["v", "two"], ["o"])], {}, {"o": (F, [4])}, {"two": np.float32(2)})
    even = body([node("Add", ["v", "e"], ["a"])], {}, {"a": (F, [4])})
    nodes = [
        node("Mod", ["i", "two_i"], ["r"]),
        node("Cast", ["r"], ["is_odd"], to=BOOL),
        node("Reshape", ["is_odd", "scalar"], ["odd"]),
        node("If", ["odd"], ["n"], "parity", then_branch=odd, else_branch=even),
        node("Identity", ["keep"], ["go"]),
        node("Neg", ["n"], ["row"]),
    ]
    inner = body(
        nodes,
        {"i": (I64, [1]), "keep": (BOOL, [1]), "v": (F, [4])},
        {"go": (BOOL, [1]), "n": (F, [4]), "row": (F, [4])},
        {"two_i": np.array([2]), "scalar": np.array([], np.int64)},
    )
    outer = [node("Exp", ["x"], ["e"]), node("Loop", ["m", "", "x"], ["y", "rows"], "loop", body=inner)]
    return model(outer, {"x": [4]}, ["y", "rows"], {"m": np.array([19])})


def loop_in_loop() -> onnx.ModelProto:
    """The inner loop runs as often as the outer one has; its rows are summed."""
    inner = body(
        [node("Add", ["u", "x"], ["w"]), node("Identity", ["keep2"], ["go2"]), node("Mul", ["w", "w"], ["row"])],
        {"j": (I64, []), "keep2": (BOOL, []), "u": (F, [3])},
        {"go2": (BOOL, []), "w": (F, [3]), "row": (F, [3])},
    )
    nodes = [
        node("Loop", ["n", "", "v"], ["last", "all"], "inner", body=inner),
        node("Identity", ["keep"], ["go"]),
        node("Mul", ["last", "half"], ["out"]),
    ]
    made = {"go": (BOOL, []), "out": (F, [3]), "all": (F, [2, 3])}
    outside = body(nodes, counted(v=(F, [3])), made, {"half": np.float32(0.5), "n": np.int64(2)})
    outer = [node("Loop", ["m", "", "x"], ["y", "rows"], "outer", body=outside)]
    return model(outer, {"m": [], "x": [3]}, ["y", "rows"], kinds={"m": I64})


def if_without_work() -> onnx.ModelProto:
    """One branch gives a value around it, the other one a constant."""
    then_branch = body([node("Identity", ["x"], ["same"])], {}, {"same": (F, [3])})
    else_branch = body([], {}, {"k": (F, [3])}, {"k": np.array([1, 2, 3], np.float32)})
    choose = node("If", ["c"], ["y"], "choose", then_branch=then_branch, else_branch=else_branch)
    return model([choose], {"x": [3], "c": []}, kinds={"c": BOOL})


def if_on_known_conditions() -> onnx.ModelProto:
    """Inside a loop its condition holds, and so does a constant around it: no branch is left."""
    branches = [body([node(op, ["v"], ["b"])], {}, {"b": (F, [4])}) for op in ("Tanh", "Exp")]
    nodes = [
        node("If", ["keep"], ["p"], "first", then_branch=branches[0], else_branch=branches[1]),
        node("If", ["no"], ["q"], "second", then_branch=branches[0], else_branch=branches[1]),
        node("Sub", ["p", "q"], ["n"]),
        node("Identity", ["keep"], ["go"]),
    ]
    inner = body(nodes, counted(v=(F, [4])), {"go": (BOOL, []), "n": (F, [4])})
    loop = node("Loop", ["m", "", "x"], ["y"], "loop", body=inner)
    return model([loop], {"m": [], "x": [4]}, constants={"no": np.array(False)}, kinds={"m": I64})


def loop_of_constants(trips: int = 17) -> onnx.ModelProto:
    """All that the loop reads is known at build; it still runs, and its rows have a known count."""
    nodes = [
        node("Add", ["v", "v"], ["n"]),
        node("Identity", ["keep"], ["go"]),
        node("Neg", ["n"], ["row"]),
        node("Cast", ["i"], ["f"], to=F),
    ]
    made = {"go": (BOOL, []), "n": (F, [4]), "row": (F, [4]), "f": (F, [])}
    loop = node("Loop", ["m", "", "v0"], ["z", "rows", "numbers"], "loop", body=body(nodes, counted(v=(F, [4])), made))
    constants = {"m": np.int64(trips), "v0": np.arange(4, dtype=np.float32)}
    return model([loop, node("Add", ["rows", "x"], ["y"])], {"x": [4]}, ["y", "z", "numbers"], constants)


def loop_of_nothing() -> onnx.ModelProto:
    """Values without elements."""
    nodes = [node("Add", ["v", "v"], ["n"]), node("Identity", ["keep"], ["go"]), node("Neg", ["n"], ["row"])]
    inner = body(nodes, counted(v=(F, [0, 4])), {"go": (BOOL, []), "n": (F, [0, 4]), "row": (F, [0, 4])})
    loop = node("Loop", ["m", "", "x"], ["y", "rows"], "loop", body=inner)
    return model([loop], {"m": [], "x": [0, 4]}, ["y", "rows"], kinds={"m": I64})


def scan_of(length: int | str, in_axis: int, in_back: int, out_axis: int, out_back: int) -> onnx.ModelProto:
    """A recurrent layer over one input, with a second one beside it."""
    nodes = [
        node("MatMul", ["h", "w"], ["p"], "mm"),
        node("Add", ["p", "a"], ["q"]),
        node("Tanh", ["q"], ["n"]),
        node("Mul", ["n", "b"], ["row"], "scale"),
    ]
    inner = body(
        nodes, {"h": (F, [2, 8]), "a": (F, [2, 8]), "b": (F, [])}, {"n": (F, [2, 8]), "row": (F, [2, 8])}, {"w": W}
    )
    scan = node(
        "Scan",
        ["h0", "x", "gains"],
        ["y", "rows"],
        "scan",
        body=inner,
        num_scan_inputs=2,
        scan_input_axes=[in_axis, 0],
        scan_input_directions=[in_back, 1 - in_back],
        scan_output_axes=[out_axis],
        scan_output_directions=[out_back],
    )
    shape: list[int | str] = [2, 8]
    shape.insert(in_axis % 3, length)
    return model([scan], {"h0": [2, 8], "x": shape, "gains": [length]}, ["y", "rows"])


def arrays(proto: onnx.ModelProto, length: Any = 6, **given: Any) -> Feeds:
    """Random arrays for the inputs that are not given; open dims are `length`."""
    feeds: Feeds = {name: np.asarray(value) for name, value in given.items()}
    for info in proto.graph.input:
        shape = [d.dim_value if d.HasField("dim_value") else length for d in info.type.tensor_type.shape.dim]
        if info.name not in feeds:
            feeds[info.name] = RNG.normal(size=shape).astype(np.float32)
    return feeds


def exits(m: int, bound: float, go: bool = True) -> Callable[[onnx.ModelProto], Feeds]:
    start = np.array([1, 0.5, -1], np.float32)
    return lambda proto: arrays(proto, m=np.int64(m), c=go, bound=np.float32(bound), k=np.int64(3), v0=start)


def with_scalar(name: str, *values: Any) -> list[Callable[[onnx.ModelProto], Feeds]]:
    def of(value: Any) -> Callable[[onnx.ModelProto], Feeds]:
        return lambda proto: arrays(proto, **{name: value})

    return [of(value) for value in values]


Case = tuple[Callable[[], onnx.ModelProto], list[Callable[[onnx.ModelProto], Feeds]]]
SCANS: dict[str, Case] = {
    f"scan_{'_'.join(map(str, at))}": (functools.partial(scan_of, *at), [arrays] * 2)
    for at in ((6, 0, 0, 0, 0), (5, 1, 1, 2, 0), (3, -1, 0, 1, 1), (1, 2, 1, -1, 1))
}
CASES: dict[str, Case] = {
    "if": (if_with_outer_values, with_scalar("c", True, False)),
    "if_two_shapes": (if_with_two_shapes, with_scalar("c", False, True)),
    "loop_rows": (loop_with_rows, with_scalar("m", np.int64(5), np.int64(1), np.int64(0), np.int64(-2))),
    "loop_exit": (
        loop_with_exit,
        [exits(100, 20), exits(3, 1e9), exits(100, 1e12), exits(9, 0.1), exits(9, 9, go=False), exits(0, 9)],
    ),
    "loop_swap": (loop_that_swaps, [arrays] * 2),
    "if_in_loop": (if_in_loop, [arrays] * 2),
    "loop_in_loop": (loop_in_loop, with_scalar("m", np.int64(4), np.int64(1))),
    "if_without_work": (if_without_work, with_scalar("c", True, False)),
    "if_on_known_conditions": (if_on_known_conditions, with_scalar("m", np.int64(3))),
    "loop_of_constants": (loop_of_constants, [arrays] * 2),
    "loop_of_nothing": (loop_of_nothing, with_scalar("m", np.int64(3), np.int64(0))),
    **SCANS,
}
ALL = pytest.mark.parametrize("name", CASES)


def reference_outputs(proto: onnx.ModelProto, feeds: Feeds) -> list[Any]:
    return list(ReferenceEvaluator(proto, new_ops=list(CONTROL_FLOW)).run(None, feeds))


def agree(engine: Engine, proto: onnx.ModelProto, feeds: Feeds) -> None:
    given = {name: x.copy() for name, x in feeds.items()}
    got = engine.run(feeds)
    for want in (runtime_outputs(proto, feeds), reference_outputs(proto, feeds)):
        for (name, a), b in zip(got.items(), want, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, np.shape(b)), name
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5, err_msg=name)
    for name, x in given.items():
        np.testing.assert_array_equal(feeds[name], x, err_msg=f"input {name} was written")


@ALL
def test_engine_agrees_with_onnx_runtime_and_the_reference(name: str) -> None:
    make, feeds_of = CASES[name]
    proto = make()
    with tw.build(proto, tune="off") as engine:
        assert engine.report()["host_steps"] == [] and engine.notes == ()
        for feeds in (f(proto) for f in feeds_of):
            agree(engine, proto, feeds)
            agree(engine, proto, feeds)  # what a run leaves behind does not matter to the next


@ALL
def test_plan_read_again_gives_the_same(name: str, tmp_path: pathlib.Path) -> None:
    make, feeds_of = CASES[name]
    proto = make()
    feeds = feeds_of[0](proto)
    with tw.build(proto, tune="off") as engine:
        engine.save(tmp_path / "a.plan")
        wanted = engine.run(feeds)
        names = [step["name"] for step in engine.report()["steps"]]
    with tw.load(tmp_path / "a.plan") as loaded:
        assert plan_bytes(loaded.plan) == (tmp_path / "a.plan").read_bytes()
        assert [step["name"] for step in loaded.report()["steps"]] == names
        for output, array in loaded.run(feeds).items():
            np.testing.assert_array_equal(array, wanted[output])
    with tw.load(tmp_path / "a.plan", native="ignore") as fresh:
        agree(fresh, proto, feeds)
        assert fresh.report()["host_steps"] == []
    with tw.load(tmp_path / "a.plan", target="reference") as reference, tw.build(proto, target="reference") as plain:
        agree(reference, proto, feeds)
        agree(plain, proto, feeds)


@pytest.mark.parametrize("seq", [1, 4, 9])
def test_scan_of_a_length_that_only_a_run_decides_is_native(seq: int) -> None:
    proto = scan_of("seq", 0, 1, 1, 1)
    with tw.build(proto, tune="off") as engine:
        assert engine.report()["host_steps"] == []
        agree(engine, proto, arrays(proto, seq))


def test_steps_of_bodies_are_called_after_their_place() -> None:
    with tw.build(loop_with_rows(), tune="off") as engine:
        assert [step["name"] for step in engine.report()["steps"]] == ["exp", "loop/body/mm", "loop/body/sum"]
    with tw.build(if_in_loop(), tune="off") as engine:
        names = {step["name"].rpartition("/")[0] for step in engine.report()["steps"]}
        assert {"loop/body", "loop/body/parity/then", "loop/body/parity/else"} <= names


def test_schedule_nests_as_the_model_does() -> None:
    kinds = {if_with_outer_values: IfSegment, loop_with_rows: LoopSegment}
    for make, kind in kinds.items():
        with tw.build(make(), tune="off") as engine:
            assert engine.plan.schedule is not None
            assert sum(isinstance(s, kind) for s in engine.plan.schedule.segments) == 1
            assert set(engine.plan.native) == set(engine.plan.schedule.native_keys)
    with tw.build(scan_of(6, 0, 0, 0, 0), tune="off") as engine:
        assert engine.plan.schedule is not None
        (segment,) = engine.plan.schedule.segments
        assert isinstance(segment, ScanSegment) and list(engine.plan.native) == ["cpu.0.body"]


@pytest.mark.parametrize("trips", [0, 1, 3, 16])
def test_short_loop_of_known_length_is_one_program(trips: int) -> None:
    proto = loop_of_constants(trips)
    with tw.build(proto, tune="off") as engine:
        assert list(engine.plan.native) == ["cpu"] and engine.plan.schedule is None
        agree(engine, proto, arrays(proto))


def test_weights_around_a_body_become_its_constants() -> None:
    with tw.build(loop_with_rows(), tune="off") as engine:
        assert engine.plan.schedule is not None
        (loop,) = (s for s in engine.plan.schedule.segments if isinstance(s, LoopSegment))
        assert [info.name for info in loop.body.inputs] == ["loop/body/i", "loop/body/v", "loop/body/e"]
        assert engine.memory().weights >= W.nbytes


def test_results_are_the_callers_own_even_without_iterations() -> None:
    proto = loop_with_rows()
    with tw.build(proto, tune="off") as engine:
        for m in (0, 3):
            feeds = arrays(proto, m=np.int64(m))
            first = engine.run(feeds)
            kept = {name: x.copy() for name, x in first.items()}
            assert not any(np.may_share_memory(first["y"], x) for x in feeds.values())
            engine.run(arrays(proto, m=np.int64(3)))
            for name, x in kept.items():
                np.testing.assert_array_equal(first[name], x)


def test_given_output_arrays_are_written() -> None:
    proto = loop_with_rows()
    with tw.build(proto, tune="off") as engine, engine.create_context() as context:
        feeds = arrays(proto, m=np.int64(4))
        wanted = engine.run(feeds)
        out = {"y": np.empty((2, 8), np.float32), "sums": np.empty(4, np.float32)}
        results = context.run(feeds, out=out)
        assert results["y"] is out["y"] and results["sums"] is out["sums"]
        for name, x in wanted.items():
            np.testing.assert_array_equal(out[name], x)


def test_profile_adds_iterations_up() -> None:
    proto = if_in_loop()
    with tw.build(proto, tune="off") as engine:
        times = {t.name: t for t in engine.profile(arrays(proto), repeat=3)}
        assert {t.name for t in times.values()} == {s["name"] for s in engine.report()["steps"]}
        assert all(t.us > 0 for t in times.values())
    proto = if_with_outer_values()
    with tw.build(proto, tune="off") as engine:
        taken = {t.name: t.us for t in engine.profile(arrays(proto, c=True), repeat=3)}
        assert all((us == 0) == name.startswith("choose/else") for name, us in taken.items())


def test_many_threads_get_the_same_result() -> None:
    proto = loop_with_rows()
    feeds = [arrays(proto, m=np.int64(20 + i)) for i in range(6)]
    with tw.build(proto, tune="off") as engine:
        wanted = [engine.run(f) for f in feeds]
        wrong: list[int] = []

        def run(i: int) -> None:
            for _ in range(20):
                got = engine.run(feeds[i])
                if any(not np.array_equal(got[name], wanted[i][name]) for name in got):
                    wrong.append(i)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(feeds))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


def test_iteration_of_a_static_body_costs_microseconds() -> None:
    proto = loop_with_rows()
    with tw.build(proto, tune="off") as engine:
        feeds = arrays(proto, m=np.int64(4000))
        engine.run(feeds)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            engine.run(feeds)
            seconds.append(time.perf_counter() - started)
        assert min(seconds) / 4000 < 100e-6  # some 5 on an idle core; a context an iteration would take milliseconds


def test_scanned_values_of_different_lengths_are_refused() -> None:
    proto = scan_of("seq", 0, 0, 0, 0)
    proto.graph.input[2].type.tensor_type.shape.dim[0].dim_param = "other"
    with tw.build(proto, tune="off") as engine:
        assert engine.report()["host_steps"] == []
        agree(engine, proto, arrays(proto, 4))
        with pytest.raises(InputError, match="the scanned values have 3, 4 slices"):
            engine.run(arrays(proto, 4, gains=np.ones(3, np.float32)))


def with_host_step_inside() -> onnx.ModelProto:
    """Each iteration adds the length of a sequence, which only the host knows."""
    nodes = [
        node("SequenceConstruct", ["v", "v"], ["u"], "pair"),
        node("SequenceLength", ["u"], ["two"], "count"),
        node("Cast", ["two"], ["s"], "cast", to=F),
        node("Add", ["v", "s"], ["n"], "add"),
        node("Identity", ["keep"], ["go"]),
        node("Neg", ["n"], ["row"], "neg"),
    ]
    inner = body(nodes, counted(v=(F, [3])), {"go": (BOOL, []), "n": (F, [3]), "row": (F, [3])})
    loop = node("Loop", ["m", "", "x"], ["y", "rows"], "loop", body=inner)
    return model([loop], {"m": [], "x": [3]}, ["y", "rows"], kinds={"m": I64})


def test_host_steps_inside_bodies_are_reported_and_nothing_else_is() -> None:
    proto = with_host_step_inside()
    with tw.build(proto, tune="off") as engine:
        steps = engine.report()["host_steps"]
        assert [s["name"] for s in steps] == ["loop/body/pair", "loop/body/count"]
        agree(engine, proto, arrays(proto, m=np.int64(3), x=np.array([1, -1, 1], np.float32)))
    with pytest.raises(BuildError, match="loop/body/pair") as caught:
        tw.build(proto, tune="off", host_steps=False)
    assert caught.value.code == "B102"


def growing() -> onnx.ModelProto:
    """A carried value that grows by a row in each iteration."""
    nodes = [node("Concat", ["v", "x"], ["n"], axis=0), node("Identity", ["keep"], ["go"])]
    inner = body(nodes, counted(v=(F, None)), {"go": (BOOL, []), "n": (F, None)})
    return model([node("Loop", ["m", "", "x"], ["y"], "loop", body=inner)], {"m": [], "x": [1, 2]}, kinds={"m": I64})


def test_carried_shape_that_changes_keeps_the_loop_on_the_host() -> None:
    proto = growing()
    with tw.build(proto, tune="off") as engine:
        (step,) = engine.report()["host_steps"]
        assert step["op"] == "Loop" and step["reason"].startswith("the carried shape changes: loop/body/v is f32[1,2]")
        agree(engine, proto, arrays(proto, m=np.int64(3)))


def test_two_loops_of_one_name_have_bodies_of_their_own() -> None:
    proto = loop_with_rows()
    second = onnx.NodeProto()
    second.CopyFrom(proto.graph.node[1])
    second.input[2] = "y"
    second.output[:] = ["z", "more"]
    inner = next(a.g for a in second.attribute if a.name == "body")
    inner.node[0].input[1] = "w2"
    inner.initializer.append(onnx.numpy_helper.from_array(W * 2, "w2"))
    proto.graph.node.append(second)
    proto.graph.output.append(helper.make_tensor_value_info("z", F, None))
    with tw.build(proto, tune="off") as engine:
        feeds = arrays(proto, m=np.int64(3))
        for a, b in zip(engine.run(feeds).values(), reference_outputs(proto, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_damaged_schedules_are_plan_errors() -> None:
    with tw.build(loop_with_exit(), tune="off") as engine:
        plan = engine.plan
        assert plan.schedule is not None
        index = next(i for i, s in enumerate(plan.schedule.segments) if isinstance(s, LoopSegment))
        loop = plan.schedule.segments[index]
        assert isinstance(loop, LoopSegment)
        for wrong in (
            dataclasses.replace(loop, carried=7),
            dataclasses.replace(loop, conditional=False),
            dataclasses.replace(loop, inputs=loop.inputs[:-1]),
            dataclasses.replace(loop, outputs=loop.outputs[:1]),
            dataclasses.replace(loop, inputs=("nobody", *loop.inputs[1:])),
        ):
            segments = (*plan.schedule.segments[:index], wrong, *plan.schedule.segments[index + 1 :])
            damaged = dataclasses.replace(plan, schedule=dataclasses.replace(plan.schedule, segments=segments))
            with pytest.raises(PlanError, match="P106"):
                tw.load(plan_bytes(damaged))
