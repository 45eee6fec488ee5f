# SPDX-License-Identifier: Apache-2.0
"""Loops, conditions and lists of tensors: as TensorFlow 2 writes them (functions) and as TensorFlow 1 did (frames)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import TensorwrightError, UnsupportedError
from tensorwright.importers.base import import_model
from tensorwright.ops.control_flow import If, Loop, Scan
from tests.importers.tensorflow.functions import FunctionWriter, call, i32
from tests.importers.tensorflow.graphs import NUMBERS, TfWriter, Type
from tests.importers.tensorflow.test_saved_model import DATA, arrays, check

Array = np.ndarray[Any, Any]
rng = np.random.default_rng()
F32, I32, BOOL, VARIANT = NUMBERS["float32"], NUMBERS["int32"], NUMBERS["bool"], 21
TARGETS = pytest.mark.parametrize("target", ["cpu", "reference"])


def run(
    g: TfWriter, folder: pathlib.Path, outputs: list[str], target: str = "cpu", *, shapes: Any = None, **feeds: Array
) -> list[Array]:
    options: dict[str, Any] = {"host_steps": False, "tune": "off"} if target == "cpu" else {}
    engine = tw.build(g.save(folder / "net.pb"), outputs=outputs, target=target, shapes=shapes, **options)
    results = engine.run(feeds)
    return [results[name] for name in outputs]


def kinds(g: TfWriter, folder: pathlib.Path, *outputs: str) -> list[type]:
    graph = import_model(g.save(folder / "net.pb"), outputs=list(outputs))
    return [type(node.op) for node in graph.nodes if isinstance(node.op, (If, Loop, Scan))]


def refused(g: TfWriter, folder: pathlib.Path, *outputs: str) -> TensorwrightError:
    with pytest.raises(TensorwrightError) as caught:
        import_model(g.save(folder / "net.pb"), outputs=list(outputs))
    return caught.value


def random(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


# -- models of TensorFlow ---------------------------------------------------------------------------
@TARGETS
@pytest.mark.parametrize("flag", [True, False])
def test_loops_and_conditions_of_a_saved_model(target: str, flag: bool) -> None:
    feeds, want = arrays("flow")
    options: dict[str, Any] = {"host_steps": False, "tune": "off"} if target == "cpu" else {}
    engine = tw.build(DATA / "flow", target=target, **options)
    results = engine.run({**feeds, "flag": np.bool_(flag)})
    if flag:
        check(results, dict(sorted(want.items())))
    else:
        others = {key: array for key, array in sorted(want.items()) if key != "chosen"}
        check({key: results[key] for key in others}, others)


@TARGETS
def test_frames_of_a_frozen_graph(target: str) -> None:
    feeds, want = arrays("frames")
    options: dict[str, Any] = {"host_steps": False, "tune": "off"} if target == "cpu" else {}
    engine = tw.build(DATA / "frames.pb", outputs=list(want), target=target, **options)
    check(engine.run(feeds), want)


def test_list_that_a_loop_fills_is_what_it_stacks() -> None:
    graph = import_model(DATA / "flow", outputs=["powers"])
    (loop,) = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    assert not loop.conditional and loop.length == 20
    assert loop.carried == 1 and len(loop.body.outputs) == 2  # the state; and the stack, which nothing carries


# -- While ----------------------------------------------------------------------------------------
def counting(g: TfWriter, step: int = 1, op: str = "Less") -> tuple[str, str]:
    """Condition and body: y = y * w + y, while i is less than n; the variables are i, n, y, w."""
    types = {"i": I32, "n": I32, "y": F32, "w": F32}
    cond = FunctionWriter(g, f"cond_{step}_{op}", types)
    cond.result(r=cond.node(op, *(("i", "n") if op == "Less" else ("n", "i")), name="go"))
    body = FunctionWriter(g, f"body_{step}_{op}", types)
    body.node("AddV2", "i", body.constant(i32(step), "step"), name="next")
    body.node("Mul", "y", "w", name="product")
    body.node("AddV2", "product:z:0", "y", name="sum")
    body.node("Identity", "n", name="same")
    body.result(i="next:z:0", n="same:output:0", y="sum:z:0", w="w")
    return cond.name, body.name


def counted(y: Array, w: Array, times: int) -> Array:
    for _ in range(times):
        y = y * w + y
    return y


@TARGETS
@pytest.mark.parametrize(("start", "step", "end"), [(0, 1, 5), (0, 1, 40), (3, 4, 30), (9, 1, 9), (9, 1, 2)])
def test_known_trips(tmp_path: pathlib.Path, target: str, start: int, step: int, end: int) -> None:
    g = TfWriter()
    y, w = g.placeholder("y", np.float32, (3,)), g.placeholder("w", np.float32, (3,))
    cond, body = counting(g, step)
    call(g, "StatelessWhile", g.constant(i32(start)), g.constant(i32(end)), y, w, name="l", cond=cond, body=body)
    data, weights = random(3), random(3) * 0.1
    outputs = ["l:2", "l"]
    times = len(range(start, end, step))
    got, last = run(g, tmp_path, outputs, target, y=data, w=weights)
    np.testing.assert_allclose(got, counted(data, weights, times), rtol=1e-4, atol=1e-6)
    assert last == start + times * step and last.dtype == np.int32


@TARGETS
@pytest.mark.parametrize("op", ["Less", "Greater"])
def test_trips_of_a_run(tmp_path: pathlib.Path, target: str, op: str) -> None:
    g = TfWriter()
    n, y, w = (
        g.placeholder("n", np.int32, ()),
        g.placeholder("y", np.float32, (2, 2)),
        g.placeholder("w", np.float32, (2,)),
    )
    cond, body = counting(g, 1, op)
    call(g, "While", g.constant(i32(0)), n, y, w, name="l", cond=cond, body=body)
    data, weights = random(2, 2), random(2) * 0.1
    for times in (0, 1, 7):
        got, last = run(g, tmp_path, ["l:2", "l"], target, n=i32(times), y=data, w=weights)
        np.testing.assert_allclose(got, counted(data, weights, times), rtol=1e-5, atol=1e-6)
        assert last == times


def test_endless_counting_is_left_to_the_run(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    y, w = g.placeholder("y", np.float32, (3,)), g.placeholder("w", np.float32, (3,))
    cond, body = counting(g, 0)
    call(g, "While", g.constant(i32(0)), g.constant(i32(5)), y, w, name="l", cond=cond, body=body)
    graph = import_model(g.save(tmp_path / "net.pb"), outputs=["l:2"])
    (loop,) = [node.op for node in graph.nodes if isinstance(node.op, Loop)]
    assert loop.conditional


def test_variable_that_changes_its_shape_is_refused(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    y = g.placeholder("y", np.float32, (3,))
    cond = FunctionWriter(g, "cond", {"i": I32, "y": F32})
    cond.result(r=cond.node("Less", "i", cond.constant(i32(3)), name="go"))
    body = FunctionWriter(g, "body", {"i": I32, "y": F32})
    body.node("ConcatV2", "y", "y", body.constant(i32(0)), name="longer", N=2)
    body.result(i=body.node("AddV2", "i", body.constant(i32(1)), name="next"), y="longer:output:0")
    call(g, "While", g.constant(i32(0)), y, name="l", cond="cond", body="body")
    error = refused(g, tmp_path, "l:1")
    assert isinstance(error, UnsupportedError) and "f32[3]" in str(error) and "f32[6]" in str(error)


def test_problems_inside_of_a_body_are_named(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    y = g.placeholder("y", np.float32, (3,))
    cond = FunctionWriter(g, "cond", {"i": I32, "y": F32})
    cond.result(r=cond.node("Less", "i", cond.constant(i32(3)), name="go"))
    body = FunctionWriter(g, "body", {"i": I32, "y": F32})
    body.result(i=body.node("AddV2", "i", body.constant(i32(1))), y=body.node("FancyOp", "y", name="fancy"))
    call(g, "While", g.constant(i32(0)), y, name="l", cond="cond", body="body")
    call(g, "While", y, name="lost", cond="gone", body="body")
    error = refused(g, tmp_path, "l:1", "lost")
    assert error.code == "M201" and "FancyOp (l/body/fancy)" in str(error) and "'gone'" in str(error)
    assert str(error).count("FancyOp") == 1 and "no such output" not in str(error)


# -- lists ----------------------------------------------------------------------------------------
def looped(
    g: TfWriter, size: int, inside: Callable[[FunctionWriter], tuple[str, str]], initial: str, *more: str
) -> None:
    """A loop `l` over i < size with the variables i, list, state; `inside` gives the next list and state."""
    types = {"i": I32, "l": VARIANT, "s": F32, **{f"m{k}": F32 for k in range(len(more) - 1)}}
    cond, body = FunctionWriter(g, "cond", types), FunctionWriter(g, "body", types)
    cond.result(r=cond.node("Less", "i", cond.constant(i32(size)), name="go"))
    list_, state = inside(body)
    rest = {f"m{k}": f"m{k}" for k in range(len(more) - 1)}
    body.result(i=body.node("AddV2", "i", body.constant(i32(1)), name="next"), l=list_, s=state, **rest)
    call(g, "While", g.constant(i32(0)), initial, *more, name="l", cond="cond", body="body")


def reserve(g: TfWriter, size: int, shape: list[int] | int = -1) -> str:
    shape_ = np.array(shape, np.int32)
    return g.node("TensorListReserve", g.constant(shape_), g.constant(i32(size)), element_dtype=Type(F32))


def stacked(g: TfWriter, name: str = "all") -> str:
    return g.node("TensorListStack", "l:1", g.constant(np.array(-1, np.int32)), name=name, element_dtype=Type(F32))


@TARGETS
def test_list_with_room_left(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    looped(
        g,
        18,
        lambda f: (f.node("TensorListSetItem", "l", "i", "s", name="put"), f.node("AddV2", "s", "s", name="twice")),
        reserve(g, 20),
        x,
    )
    stacked(g)
    data = random(3)
    (got,) = run(g, tmp_path, ["all"], target, x=data)
    want = np.concatenate([data * 2.0 ** np.arange(18)[:, None], np.zeros((2, 3))]).astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@TARGETS
def test_list_that_is_read_while_it_grows(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    first = g.node("TensorListSetItem", reserve(g, 18, [3]), g.constant(i32(0)), x, name="first")

    def inside(f: FunctionWriter) -> tuple[str, str]:
        f.node("Maximum", f.node("Sub", "i", f.constant(i32(1))), f.constant(i32(0)), name="before")
        read = f.node("TensorListGetItem", "l", "before:z:0", f.constant(np.array([3], np.int32)), name="read")
        f.node("AddV2", read, "s", name="sum")
        return f.node("TensorListSetItem", "l", "i", "sum:z:0", name="put"), "s"

    looped(g, 18, inside, first, x)
    stacked(g)
    data = random(3)
    (got,) = run(g, tmp_path, ["all"], target, x=data)
    rows = [data]
    for i in range(18):
        value = rows[max(i - 1, 0)] + data
        rows[i : i + 1] = [value]
    np.testing.assert_allclose(got, np.stack(rows), rtol=1e-5)


@TARGETS
def test_list_that_is_filled_backwards(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))

    def inside(f: FunctionWriter) -> tuple[str, str]:
        place = f.node("Sub", f.constant(i32(17)), "i", name="place")
        return f.node("TensorListSetItem", "l", place, "s", name="put"), f.node("Neg", "s", name="minus")

    looped(g, 18, inside, reserve(g, 18), x)
    stacked(g)
    data = random(2, 3)
    (got,) = run(g, tmp_path, ["all"], target, x=data)
    np.testing.assert_array_equal(got, np.stack([data * (-1) ** (17 - i) for i in range(18)]))


@TARGETS
def test_list_that_grows_by_one_in_each_iteration(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    empty = g.node("EmptyTensorList", g.constant(np.array(-1, np.int32)), g.constant(i32(-1)), element_dtype=Type(F32))
    looped(
        g,
        17,
        lambda f: (f.node("TensorListPushBack", "l", "s", name="put"), f.node("AddV2", "s", "s", name="twice")),
        empty,
        x,
    )
    stacked(g)
    g.node("TensorListLength", "l:1", name="count")
    data = random(3)
    got, count = run(g, tmp_path, ["all", "count"], target, x=data)
    np.testing.assert_allclose(got, data * (2.0 ** np.arange(17)[:, None]).astype(np.float32), rtol=1e-5)
    assert count == 17


@TARGETS
def test_list_that_is_lengthened_by_writing_behind_its_end(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    options = {"resize_if_index_out_of_bounds": True}

    def inside(f: FunctionWriter) -> tuple[str, str]:
        return f.node("TensorListSetItem", "l", "i", "s", name="put", **options), f.node("Neg", "s", name="minus")

    looped(g, 17, inside, reserve(g, 0), x)
    stacked(g)
    data = random(3)
    (got,) = run(g, tmp_path, ["all"], target, x=data)
    np.testing.assert_array_equal(got, np.stack([data * (-1) ** i for i in range(17)]))


def test_list_that_is_lengthened_anywhere_is_refused(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))

    def inside(f: FunctionWriter) -> tuple[str, str]:
        place = f.node("Mul", "i", f.constant(i32(2)), name="place")
        return f.node("TensorListSetItem", "l", place, "s", name="put", resize_if_index_out_of_bounds=True), "s"

    looped(g, 17, inside, reserve(g, 0), x)
    stacked(g)
    error = refused(g, tmp_path, "all")
    assert isinstance(error, UnsupportedError) and "lengthens a list" in str(error)


@TARGETS
@pytest.mark.parametrize("is_open", [False, True])
def test_rows_of_a_list_become_slices_of_a_scan(tmp_path: pathlib.Path, target: str, is_open: bool) -> None:
    g = TfWriter()
    rows = g.placeholder("rows", np.float32, (18, -1, 3))
    start = g.node("Max", rows, g.constant(i32(0)), name="start")
    types = {"i": I32, "l": VARIANT, "s": F32, "rows": VARIANT}
    cond, body = FunctionWriter(g, "cond", types), FunctionWriter(g, "body", types)
    cond.result(r=cond.node("Less", "i", cond.constant(i32(18)), name="go"))
    row = body.node("TensorListGetItem", "rows", "i", body.constant(i32(-1)), name="row")
    weighted = body.node("Mul", row, body.node("Cast", "i", name="f", SrcT=Type(I32), DstT=Type(F32)), name="w")
    total = body.node("AddV2", "s", weighted, name="total")
    put = body.node("TensorListSetItem", "l", "i", total, name="put")
    body.result(i=body.node("AddV2", "i", body.constant(i32(1)), name="next"), l=put, s=total, rows="rows")
    listed = g.node("TensorListFromTensor", rows, g.constant(i32(-1)))
    call(g, "While", g.constant(i32(0)), reserve(g, 18), start, listed, name="l", cond="cond", body="body")
    stacked(g)
    data = random(18, 4, 3)
    shapes = {"rows": tw.Range((18, 1, 3), (18, 4, 3), (18, 9, 3)) if is_open else data.shape}
    graph = import_model(g.save(tmp_path / "net.pb"), outputs=["all"], shapes=shapes)
    assert [type(n.op) for n in graph.nodes if isinstance(n.op, (If, Loop, Scan))] == [Scan]
    (got,) = run(g, tmp_path, ["all"], target, shapes=shapes, rows=data)
    want = data.max(0) + np.cumsum(data * np.arange(18, dtype=np.float32)[:, None, None], 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@TARGETS
@pytest.mark.parametrize("length", [1, 4, 30])
def test_loop_over_a_dim_that_a_run_knows(tmp_path: pathlib.Path, target: str, length: int) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (-1, 3))
    count = g.node(
        "StridedSlice",
        g.node("Shape", x, out_type=Type(I32)),
        *(g.constant(np.array([k], np.int32)) for k in (0, 1, 1)),
        shrink_axis_mask=1,
    )
    types = {"i": I32, "n": I32, "l": VARIANT, "s": F32, "rows": VARIANT}
    cond, body = FunctionWriter(g, "cond", types), FunctionWriter(g, "body", types)
    cond.result(r=cond.node("LogicalAnd", cond.node("Less", "i", "n"), cond.node("Greater", "n", "i")))
    row = body.node("TensorListGetItem", "rows", "i", body.constant(i32(-1)), name="row")
    total = body.node("AddV2", "s", row, name="total")
    put = body.node("TensorListSetItem", "l", "i", total, name="put")
    body.result(i=body.node("AddV2", "i", body.constant(i32(1))), n="n", l=put, s=total, rows="rows")
    empty = g.node("TensorListReserve", g.constant(i32(-1)), count, element_dtype=Type(F32))
    listed = g.node("TensorListFromTensor", x, g.constant(i32(-1)))
    zeros = g.constant(np.zeros(3, np.float32))
    call(g, "While", g.constant(i32(0)), count, empty, zeros, listed, name="l", cond="cond", body="body")
    g.node("TensorListStack", "l:2", g.constant(i32(-1)), name="all", element_dtype=Type(F32))
    data = random(length, 3)
    shapes = {"x": tw.Range((1, 3), (8, 3), (40, 3))}
    got, times = run(g, tmp_path, ["all", "l"], target, shapes=shapes, x=data)
    np.testing.assert_allclose(got, np.cumsum(data, 0), rtol=1e-4, atol=1e-5)
    assert times == length


def test_lists_outside_of_loops(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    made = reserve(g, 4)
    for place in (2, 0):
        made = g.node("TensorListSetItem", made, g.constant(i32(place)), g.node("Neg", x) if place else x)
    g.node("TensorListStack", made, g.constant(np.array(-1, np.int32)), name="all")
    g.node("TensorListGetItem", made, g.constant(i32(2)), g.constant(np.array(-1, np.int32)), name="one")
    g.node("TensorListGather", made, g.constant(np.array([2, 2, 0], np.int32)), g.constant(i32(-1)), name="some")
    pushed = g.node("TensorListPushBack", made, x)
    g.node("TensorListPopBack", pushed, g.constant(i32(-1)), name="pop")
    g.node("TensorListStack", "pop", g.constant(i32(-1)), name="rest")
    g.node("TensorListLength", pushed, name="count")
    g.node("TensorListConcatV2", made, g.constant(i32(-1)), g.constant(np.array([], np.int64)), name="flat")
    data = random(3)
    want = np.stack([data, np.zeros(3, np.float32), -data, np.zeros(3, np.float32)])
    outputs = ["all", "one", "some", "rest", "count", "flat", "flat:1", "pop:1"]
    all_, one, some, rest, count, flat, lengths, last = run(g, tmp_path, outputs, x=data)
    np.testing.assert_array_equal(all_, want)
    np.testing.assert_array_equal(one, -data)
    np.testing.assert_array_equal(some, want[[2, 2, 0]])
    np.testing.assert_array_equal(rest, want)
    assert count == 5
    np.testing.assert_array_equal(flat, want.reshape(-1))
    np.testing.assert_array_equal(lengths, [3, 3, 3, 3])
    np.testing.assert_array_equal(last, data)


def test_misuse_of_lists(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    y = g.placeholder("y", np.float32, (4,))
    made = g.node("TensorListSetItem", reserve(g, 2), g.constant(i32(0)), x, name="first")
    g.node("TensorListSetItem", made, g.constant(i32(1)), y, name="other_shape")
    g.node("TensorListGetItem", made, g.constant(i32(2)), g.constant(i32(-1)), name="outside")
    g.node("TensorListStack", reserve(g, 2), g.constant(i32(-1)), name="unshaped")
    g.node("Relu", made, name="no_tensor")
    g.node("TensorListStack", "other_shape", g.constant(i32(-1)), name="a")
    error = refused(g, tmp_path, "a", "outside", "unshaped", "no_tensor", "first")
    for text in ("different shapes", "index 2 is not within a list of 2", "nothing says", "reads a list of tensors"):
        assert text in str(error)
    assert isinstance(error, UnsupportedError)


# -- If and Case ----------------------------------------------------------------------------------
def branches(g: TfWriter) -> list[str]:
    names = []
    for k, op in enumerate(("Neg", "Relu", "Square")):
        f = FunctionWriter(g, f"branch_{k}", {"x": F32})
        names.append(f.result(r=f.node("AddV2", f.node(op, "x", name="a"), f.constant(np.float32(k)), name="b")))
    return names


def chosen(x: Array, k: int) -> Array:
    return [-x, np.maximum(x, 0) + 1, np.square(x) + 2][k]


@TARGETS
def test_if_of_a_run(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (2, 3)), g.placeholder("p", np.bool_, ())
    then, other, _ = branches(g)
    call(g, "StatelessIf", p, x, name="y", then_branch=then, else_branch=other)
    data = random(2, 3)
    for flag in (True, False):
        (got,) = run(g, tmp_path, ["y"], target, x=data, p=np.bool_(flag))
        np.testing.assert_allclose(got, chosen(data, 0 if flag else 1), rtol=1e-6)


@pytest.mark.parametrize("flag", [np.bool_(True), np.bool_(False), np.float32(2), np.zeros(0, np.float32)])
def test_if_with_a_known_condition_is_one_branch(tmp_path: pathlib.Path, flag: Any) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))
    then, _, _ = branches(g)
    other = FunctionWriter(g, "other", {"x": F32})
    other.result(r=other.node("Abs" if not np.any(flag) else "FancyOp", "x", name="odd"))
    call(g, "If", g.constant(flag), x, name="y", then_branch=then, else_branch="other")
    assert kinds(g, tmp_path, "y") == []
    data = random(2, 3)
    (got,) = run(g, tmp_path, ["y"], x=data)
    np.testing.assert_allclose(got, -data if np.any(flag) else np.abs(data))


@TARGETS
def test_case_takes_the_last_branch_out_of_range(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x, k = g.placeholder("x", np.float32, (3,)), g.placeholder("k", np.int32, ())
    names = branches(g)
    call(g, "Case", k, x, name="y", branches=names)
    call(g, "Case", g.constant(i32(1)), x, name="z", branches=names)
    data = random(3)
    for number in (-1, 0, 1, 2, 3):
        y, z = run(g, tmp_path, ["y", "z"], target, x=data, k=i32(number))
        np.testing.assert_allclose(y, chosen(data, number if 0 <= number < 3 else 2), rtol=1e-6)
        np.testing.assert_allclose(z, chosen(data, 1), rtol=1e-6)


def test_branches_that_do_not_fit_together(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (2, 3)), g.placeholder("p", np.bool_, ())
    then, *_ = branches(g)
    flat = FunctionWriter(g, "flat", {"x": F32})
    flat.result(r=flat.node("Sum", "x", flat.constant(i32(1)), name="s"))
    two = FunctionWriter(g, "two", {"x": F32})
    two.result(a="x", b="x")
    call(g, "If", p, x, name="ranks", then_branch=then, else_branch="flat")
    call(g, "If", p, x, name="counts", then_branch=then, else_branch="two")
    call(g, "If", p, x, name="lost", then_branch=then, else_branch="gone")
    error = refused(g, tmp_path, "ranks", "counts", "lost")
    for text in ("f32[2,3] and f32[2]", "1, 2 results", "'gone', which is not there"):
        assert text in str(error)


def test_branches_that_contain_each_other_are_stopped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorwright.importers.tensorflow.bodies._MOST", 300)
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (2, 3)), g.placeholder("p", np.bool_, ())
    f = FunctionWriter(g, "again", {"x": F32, "p": BOOL})
    call(f, "If", "p", "x", "p", name="inner", then_branch="again", else_branch="again")
    f.result(r="inner:output:0")
    loop = FunctionWriter(g, "loop", {"x": F32, "p": BOOL})
    call(loop, "While", "x", "p", name="inner", cond="flag", body="loop")
    loop.result(x="inner:output:0", p="p")
    FunctionWriter(g, "flag", {"x": F32, "p": BOOL}).result(r="p")
    call(g, "If", p, x, p, name="y", then_branch="again", else_branch="again")
    call(g, "While", x, p, name="z", cond="flag", body="loop")
    for name in ("y", "z"):
        assert "contain each other" in str(refused(g, tmp_path, name))


# -- TensorFlow 1 ---------------------------------------------------------------------------------
def condition(g: TfWriter, x: str, p: str, name: str = "cond") -> str:
    """As tf.compat.v1.cond writes it: a constant has only a control input that says its side."""
    pivot = g.node("Switch", p, p, name=f"{name}/Switch")
    g.node("Identity", f"{pivot}:1", name=f"{name}/switch_t")
    g.node("Identity", pivot, name=f"{name}/switch_f")
    g.node("Switch", x, p, name=f"{name}/of_x")
    g.constant(np.full((2, 3), 7, np.float32), f"{name}/seven")
    g.graph.node[-1].input.append(f"^{name}/switch_f")
    g.node("Square", f"{name}/of_x:1", name=f"{name}/square")
    return g.node("Merge", f"{name}/seven", f"{name}/square", name=f"{name}/Merge")


@TARGETS
def test_condition_of_tensorflow_1(tmp_path: pathlib.Path, target: str) -> None:
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (2, 3)), g.placeholder("p", np.bool_, ())
    g.node("Neg", condition(g, x, p), name="y")
    assert kinds(g, tmp_path, "y") == [If]
    data = random(2, 3)
    for flag in (True, False):
        (got,) = run(g, tmp_path, ["y"], target, x=data, p=np.bool_(flag))
        np.testing.assert_allclose(got, -np.square(data) if flag else np.full((2, 3), -7, np.float32), rtol=1e-6)


def test_known_condition_of_tensorflow_1_drops_the_dead_side(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))
    p = g.node("PlaceholderWithDefault", g.constant(np.bool_(True)), name="training")
    condition(g, x, p)
    next(n for n in g.graph.node if n.name == "cond/seven").op = "FancyOp"
    assert kinds(g, tmp_path, "cond/Merge") == []
    data = random(2, 3)
    (got,) = run(g, tmp_path, ["cond/Merge"], x=data)
    np.testing.assert_allclose(got, np.square(data), rtol=1e-6)


def test_plumbing_is_no_result(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (2, 3)), g.placeholder("p", np.bool_, ())
    condition(g, x, p)
    assert import_model(g.save(tmp_path / "net.pb")).output_names == ("cond/Merge",)


def test_unusual_frame_is_refused(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x, p = g.placeholder("x", np.float32, (3,)), g.placeholder("p", np.bool_, ())
    g.node("Switch", x, p, name="s")
    g.node("Relu", "s:1", name="y")
    error = refused(g, tmp_path, "y")
    assert isinstance(error, UnsupportedError) and "unusual form" in str(error)
