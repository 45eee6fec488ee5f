# SPDX-License-Identifier: Apache-2.0
"""Engines and contexts: what goes in and out, what is refused and how it is said, threads, and closing."""

from __future__ import annotations

import gc
import json
import pathlib
import re
import threading
import timeit
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tensorwright.errors import InputError, PlanError, TargetError
from tensorwright.plan.plan import plan_bytes, read_plan
from tensorwright.runtime.context import Context
from tensorwright.runtime.engine import Engine
from tensorwright.runtime.load import load
from tests.runtime.tiny import Tiny, plan_of, sample

N = 37
TINY = sample(N)
PLAN = plan_of(TINY)
FEEDS = TINY.feeds(np.random.default_rng(5))
WANTED = TINY.expected(FEEDS)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(PLAN) as made:
        yield made


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return caught.value.code


# -- arrays in, arrays out ----------------------------------------------------------------------------
def test_call_takes_arrays_in_declared_order_and_returns_a_tuple(engine: Engine) -> None:
    first, second = engine(FEEDS["x"], FEEDS["y"])
    np.testing.assert_array_equal(first, WANTED["first"])
    np.testing.assert_array_equal(second, WANTED["second"])


def test_call_of_engine_with_one_output_returns_the_array() -> None:
    tiny = Tiny(9)
    tiny.negate(tiny.input("x"), "y", output=True)
    with Engine(plan_of(tiny)) as engine:
        np.testing.assert_array_equal(engine(np.ones(9, np.float32)), -np.ones(9, np.float32))


def test_run_takes_and_returns_dicts_in_any_order(engine: Engine) -> None:
    out = engine.run({"y": FEEDS["y"], "x": FEEDS["x"]})
    assert list(out) == ["first", "second"]
    np.testing.assert_array_equal(out["second"], WANTED["second"])


def test_results_of_later_runs_do_not_change_earlier_ones(engine: Engine) -> None:
    before = engine.run(FEEDS)["first"]
    kept = before.copy()
    engine.run({name: array + 1 for name, array in FEEDS.items()})
    np.testing.assert_array_equal(before, kept)


@pytest.mark.parametrize("view", ["strided", "reversed", "read_only", "unaligned", "subclass"])
def test_input_of_unusual_layout_gives_the_same_result(engine: Engine, view: str) -> None:
    x = FEEDS["x"]
    wide = np.repeat(x, 2)
    raw = np.zeros(4 * N + 1, np.uint8)
    raw[1:] = x.view(np.uint8)
    frozen = x.copy()
    frozen.flags.writeable = False
    given = {
        "strided": wide[::2],
        "reversed": x[::-1].copy()[::-1],
        "read_only": frozen,
        "unaligned": raw[1:].view(np.float32),
        "subclass": x.view(np.recarray),
    }[view]
    np.testing.assert_array_equal(engine.run({"x": given, "y": FEEDS["y"]})["first"], WANTED["first"])


def test_python_numbers_take_the_declared_type(engine: Engine) -> None:
    out = engine([float(v) for v in FEEDS["x"]], tuple(int(v) for v in FEEDS["y"]))
    np.testing.assert_array_equal(out[0], WANTED["first"])


def test_object_with_the_array_protocol_is_taken_if_its_dtype_fits(engine: Engine) -> None:
    class Tensor:
        def __init__(self, data: np.ndarray) -> None:
            self.data = data

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.data

    np.testing.assert_array_equal(engine(Tensor(FEEDS["x"]), FEEDS["y"])[0], WANTED["first"])
    assert code_of(lambda: engine(Tensor(FEEDS["x"].astype(np.float64)), FEEDS["y"])) == "I102"


def test_engine_without_elements_runs() -> None:
    with Engine(plan_of(sample(0))) as engine:
        assert [out.shape for out in engine(np.zeros(0, np.float32), [])] == [(0,), (0,)]


def test_input_arrays_are_not_written(engine: Engine) -> None:
    before = {name: array.copy() for name, array in FEEDS.items()}
    engine.run(FEEDS)
    for name, array in FEEDS.items():
        np.testing.assert_array_equal(array, before[name])


# -- refusals -----------------------------------------------------------------------------------------
def message(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def test_wrong_names_are_all_listed_with_a_guess(engine: Engine) -> None:
    assert message(lambda: engine.run({"xx": FEEDS["x"], "x": FEEDS["x"], "Y": 3})) == (
        "I101 the names given do not fit the engine's inputs\n"
        "  why    input 'y' is missing\n"
        "  why    there is no input 'xx'; did you mean 'x'?\n"
        "  why    there is no input 'Y'\n"
        "  do     its inputs are x: f32[37], y: f32[37]"
    )


def test_wrong_number_of_arrays_says_what_is_taken(engine: Engine) -> None:
    assert "takes 2 input arrays; 1 were given" in message(lambda: engine(FEEDS["x"]))
    assert code_of(lambda: engine(1, 2, 3)) == "I101"


def test_wrong_dtype_shows_both_and_how_to_convert(engine: Engine) -> None:
    assert message(lambda: engine(FEEDS["x"].astype(np.float64), FEEDS["y"])) == (
        "I102 input 'x' has the wrong element type\n"
        "  where  input 'x'\n"
        "  why    expected float32\n"
        "  why    given    float64\n"
        "  do     convert it where it is made: x.astype('float32')"
    )


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (np.zeros(N, np.int32), "I102"),
        (np.zeros(N, ">f4"), "I102"),
        (np.zeros(N, np.float16), "I102"),
        (np.zeros(N, bool), "I102"),
        ([True] * N, "I102"),
        (["a"] * N, "I102"),
        ([10**400] * N, "I102"),
        ([1j] * N, "I102"),
        ([None] * N, "I102"),
        ([[1.0], [1.0, 2.0]], "I104"),
        (None, "I104"),
        ("text", "I104"),
        ({"a": 1}, "I104"),
        (object(), "I104"),
        (b"1234", "I102"),
        (np.zeros(N + 1, np.float32), "I103"),
        (np.zeros((1, N), np.float32), "I103"),
        (np.float32(1), "I103"),
        (1.0, "I103"),
        ([], "I103"),
        (np.array([object()] * N), "I102"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_its_code(engine: Engine, given: object, code: str) -> None:
    assert code_of(lambda: engine(given, FEEDS["y"])) == code
    assert code_of(lambda: engine.run({"x": given, "y": FEEDS["y"]})) == code
    np.testing.assert_array_equal(engine.run(FEEDS)["first"], WANTED["first"])  # and the engine works on


def test_wrong_shape_shows_both_and_the_rank(engine: Engine) -> None:
    text = message(lambda: engine(np.zeros((1, N, 1), np.float32), FEEDS["y"]))
    assert "I103 input 'x' has the wrong shape (rank 3 instead of 1)" in text
    assert "expected [37]" in text and "given    [1, 37, 1]" in text


def test_integer_inputs_refuse_python_floats_and_overflow() -> None:
    from tensorwright.ir.dtype import DType
    from tensorwright.plan.interface import TensorInfo
    from tensorwright.runtime.bindings import Binding, admit

    binding = Binding(TensorInfo("ids", DType.i8, (2,)), 0)
    assert admit([1, -2], binding).dtype == np.int8
    assert code_of(lambda: admit([1.0, 2.0], binding)) == "I102"
    assert code_of(lambda: admit([1, 300], binding)) == "I102"
    flags = Binding(TensorInfo("mask", DType.bool, (2,)), 0)
    assert admit([True, False], flags).dtype == np.bool_
    assert code_of(lambda: admit([1, 0], flags)) == "I102"


# -- contexts -----------------------------------------------------------------------------------------
def test_context_writes_into_given_outputs(engine: Engine) -> None:
    out = {"second": np.full(N, np.nan, np.float32)}
    results = engine.create_context().run(FEEDS, out)
    assert results["second"] is out["second"]
    np.testing.assert_array_equal(out["second"], WANTED["second"])
    np.testing.assert_array_equal(results["first"], WANTED["first"])


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (np.zeros(N, np.float64), "I102"),
        (np.zeros(N + 1, np.float32), "I103"),
        ([0.0] * N, "I104"),
        (np.zeros(2 * N, np.float32)[::2], "I105"),
        (np.frombuffer(bytes(4 * N), np.float32), "I105"),
        (FEEDS["x"], "I106"),
    ],
)
def test_output_array_that_does_not_fit_is_refused(engine: Engine, given: object, code: str) -> None:
    before = FEEDS["x"].copy()
    assert code_of(lambda: engine.create_context().run(FEEDS, {"first": given})) == code
    np.testing.assert_array_equal(FEEDS["x"], before)


def test_two_outputs_in_the_same_memory_are_refused(engine: Engine) -> None:
    one = np.zeros(N, np.float32)
    assert code_of(lambda: engine.create_context().run(FEEDS, {"first": one, "second": one})) == "I106"


def test_unknown_output_name_is_refused(engine: Engine) -> None:
    assert code_of(lambda: engine.create_context().run(FEEDS, {"frist": np.zeros(N, np.float32)})) == "I101"


def test_contexts_on_several_threads_share_one_engine() -> None:
    tiny = sample(5000)
    with Engine(plan_of(tiny)) as engine:
        rng = np.random.default_rng(11)
        feeds = [tiny.feeds(rng) for _ in range(6)]
        wanted = [tiny.expected(f) for f in feeds]
        wrong: list[str] = []
        start = threading.Barrier(6)

        def work(i: int, run: Callable[..., dict[str, np.ndarray]]) -> None:
            start.wait()
            for _ in range(60):
                for name, array in run(feeds[i]).items():
                    if not np.array_equal(array, wanted[i][name]):
                        wrong.append(f"thread {i}, {name}")

        runs = [engine.create_context().run if i % 2 else engine.run for i in range(6)]
        threads = [threading.Thread(target=work, args=(i, run)) for i, run in enumerate(runs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong
        assert engine.memory().contexts <= 6


def test_context_used_by_two_threads_at_once_is_a_clear_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    context = engine.create_context()
    entered, leave = threading.Event(), threading.Event()
    real = context._program.run

    def slow(table: int) -> None:
        entered.set()
        leave.wait(10)
        real(table)

    monkeypatch.setattr(context._program, "run", slow)
    thread = threading.Thread(target=context.run, args=(FEEDS,))
    thread.start()
    entered.wait(10)
    text = message(lambda: context.run(FEEDS))
    leave.set()
    thread.join()
    assert "I107 this context is already running on another thread" in text and "one context per thread" in text
    np.testing.assert_array_equal(context.run(FEEDS)["first"], WANTED["first"])


# -- description --------------------------------------------------------------------------------------
def test_engine_describes_inputs_outputs_memory_and_steps(engine: Engine) -> None:
    assert [str(i) for i in engine.inputs] == ["x: f32[37]", "y: f32[37]"]
    outputs = [(o.name, str(o.dtype), o.shape) for o in engine.outputs]
    assert outputs == [("first", "f32", (37,)), ("second", "f32", (37,))]
    context = engine.create_context()
    engine.run(FEEDS)
    memory = engine.memory()
    native = PLAN.native["cpu"]
    assert memory.arena == native.program["arena_bytes"] and memory.contexts == 2
    assert memory.weights == native.weights.nbytes and memory.code == len(native.code)
    assert memory.constants == 2 * 4 * N
    assert memory.total == memory.weights + memory.constants + memory.code + 2 * (memory.arena + memory.scratch)
    assert memory.arena + memory.scratch <= context.memory_bytes
    report = engine.report()
    assert json.loads(json.dumps(report)) == report
    assert [s["name"] for s in report["steps"]] == [s.name for s in TINY.steps]
    assert report["steps"][0]["origin"] == ["node_sum"]


def test_profile_lists_every_step_once_with_its_source_nodes(engine: Engine) -> None:
    steps = engine.profile(FEEDS, repeat=3)
    assert {s.name for s in steps} == {s.name for s in TINY.steps}
    assert all(s.us > 0 and s.origin == (f"node_{s.name}",) and s.kernel == "tiny" for s in steps)
    assert sum(s.share for s in steps) == pytest.approx(1.0)
    order = [s.name for s in steps]
    assert order.index("sum") < order.index("free") < order.index("product") < order.index("first")


def test_profile_checks_its_input(engine: Engine) -> None:
    assert code_of(lambda: engine.profile({"x": FEEDS["x"]})) == "I101"


def test_repr_names_the_interface(engine: Engine) -> None:
    assert repr(engine) == "Engine('tiny': x: f32[37], y: f32[37] -> first: f32[37], second: f32[37])"


# -- saving, closing, cost ----------------------------------------------------------------------------
def test_saved_engine_loads_and_runs(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.save(tmp_path / "m.plan")
    with load(tmp_path / "m.plan") as loaded:
        assert loaded.notes == ()
        for name, array in loaded.run(FEEDS).items():
            np.testing.assert_array_equal(array, WANTED[name])
        loaded.save(tmp_path / "again.plan")
    assert (tmp_path / "again.plan").read_bytes() == (tmp_path / "m.plan").read_bytes()


def test_plan_in_unaligned_memory_runs() -> None:
    data = memoryview(b"x" + plan_bytes(PLAN))[1:]
    with load(data) as engine:
        np.testing.assert_array_equal(engine.run(FEEDS)["first"], WANTED["first"])


def test_closed_engine_and_context_refuse_to_run(tmp_path: pathlib.Path) -> None:
    engine = Engine(PLAN)
    context = engine.create_context()
    engine.run(FEEDS)
    engine.close()
    engine.close()
    for action in (
        lambda: engine.run(FEEDS),
        lambda: engine(*FEEDS.values()),
        engine.create_context,
        lambda: context.run(FEEDS),
        lambda: engine.save(tmp_path / "m.plan"),
        lambda: engine.profile(FEEDS),
    ):
        assert code_of(action) == "I108"
    assert engine.memory().weights == engine.memory().code == engine.memory().constants == 0
    assert [i.name for i in engine.inputs] == ["x", "y"]
    with pytest.raises(InputError), context:
        context.run(FEEDS)


def test_closed_context_leaves_the_engine_running(engine: Engine) -> None:
    with engine.create_context() as context:
        context.run(FEEDS)
    assert code_of(lambda: context.run(FEEDS)) == "I108" and context._arena._map.closed
    np.testing.assert_array_equal(engine.run(FEEDS)["first"], WANTED["first"])


def test_close_while_other_threads_run_waits_for_them() -> None:
    for _ in range(20):
        engine = Engine(PLAN)
        failures: list[str] = []

        def work(engine: Engine = engine, failures: list[str] = failures) -> None:
            try:
                while True:
                    if not np.array_equal(engine.run(FEEDS)["first"], WANTED["first"]):
                        failures.append("wrong result")
            except InputError as error:
                if error.code != "I108":
                    failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads:
            t.start()
        engine.run(FEEDS)
        engine.close()
        for t in threads:
            t.join(10)
        assert not failures and not any(t.is_alive() for t in threads)


def test_context_outlives_a_dropped_engine() -> None:
    context = Engine(PLAN).create_context()
    gc.collect()
    np.testing.assert_array_equal(context.run(FEEDS)["first"], WANTED["first"])


def resident_kib() -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_loading_and_closing_a_thousand_times_leaks_nothing(tmp_path: pathlib.Path, how: str) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(plan_bytes(PLAN))

    def once() -> None:
        engine = load(path)
        engine.run(FEEDS)
        if how == "close":
            engine.close()

    for _ in range(50):
        once()
    gc.collect()
    before, files = resident_kib(), len(list(pathlib.Path("/proc/self/fd").iterdir()))
    for _ in range(1000 if how == "close" else 200):
        once()
    gc.collect()
    assert resident_kib() - before < 4096, "resident memory grew by more than 4 MiB"
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= files


def test_call_of_a_tiny_engine_costs_microseconds() -> None:
    x, y = FEEDS["x"], FEEDS["y"]
    with Engine(PLAN, threads=1) as engine:  # several workers would measure how busy the machine is
        best = min(timeit.repeat(lambda: engine(x, y), number=50, repeat=100)) / 50
    assert best < 30e-6, f"{best * 1e6:.1f} us; 4 us on an idle machine"


def test_engine_of_plan_without_cpu_code_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(PlanError) as caught:
        Engine(replace(PLAN, native={}))
    assert caught.value.code == "P105"


def test_code_for_another_instruction_set_is_refused_before_it_runs() -> None:
    from dataclasses import replace

    native = replace(PLAN.native["cpu"], fingerprint="aarch64-linux|neon|generic|0")
    with pytest.raises(TargetError) as caught:
        Engine(replace(PLAN, native={"cpu": native}))
    assert caught.value.code == "D105"


def test_read_plan_and_engine_keep_no_open_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(plan_bytes(PLAN))
    engine = Engine(read_plan(path))
    path.unlink()
    assert isinstance(engine.create_context(), Context)
    np.testing.assert_array_equal(engine.run(FEEDS)["first"], WANTED["first"])
    engine.close()
