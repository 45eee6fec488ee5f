# SPDX-License-Identifier: Apache-2.0
"""Conditionals and loops of the network API, compiled without host steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.network import (
    ActivationType,
    ElementWiseOperation,
    LoopOutput,
    MatrixOperation,
    ReduceOperation,
    Tensor,
    TripLimit,
    UnaryOperation,
)
from tests.network.single import Array, constant, random


def engine_of(network: tw.Network) -> Any:
    return tw.build(network, tune="off", host_steps=False, threads=1)


def binary(n: tw.Network, a: Tensor, b: Tensor, op: ElementWiseOperation) -> Tensor:
    return n.add_elementwise(a, b, op).get_output(0)


def named(n: tw.Network, tensor: Tensor, name: str) -> Tensor:
    tensor.name = name
    n.mark_output(tensor)
    return tensor


def conditional() -> tuple[tw.Network, Tensor]:
    """y = relu(x) @ w where the sum of x is positive, else -x @ w; z = |x| or x."""
    n = tw.Network()
    x = n.add_input("x", "f32", (3, 4))
    total = n.add_reduce(x, ReduceOperation.SUM, 0b11).get_output(0)
    choice = n.add_if_conditional()
    choice.set_condition(binary(n, total, constant(n, 0, "float32"), ElementWiseOperation.GREATER))
    inside = choice.add_input(x).get_output(0)
    w = n.add_constant((4, 2), W).get_output(0)
    products = [
        n.add_matrix_multiply(t, MatrixOperation.NONE, w, MatrixOperation.NONE).get_output(0)
        for t in (
            n.add_activation(inside, ActivationType.RELU).get_output(0),
            n.add_unary(inside, UnaryOperation.NEG).get_output(0),
        )
    ]
    named(n, choice.add_output(*products).get_output(0), "y")
    named(n, choice.add_output(n.add_unary(inside, UnaryOperation.ABS).get_output(0), inside).get_output(0), "z")
    return n, inside


W = random(4, 2)


def test_conditional_computes_the_chosen_part() -> None:
    network, _ = conditional()
    assert [node.op.kind for node in network.to_graph()].count("if") == 1
    engine = engine_of(network)
    for x in (abs(random(3, 4)), -abs(random(3, 4))):
        found, positive = engine.run({"x": x}), x.sum() > 0
        np.testing.assert_allclose(found["y"], (np.maximum(x, 0) if positive else -x) @ W, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["z"], abs(x) if positive else x)


def test_conditional_in_a_conditional() -> None:
    n = tw.Network()
    x, first, second = (
        n.add_input(name, t, s) for name, t, s in (("x", "f32", (4,)), ("a", bool, ()), ("b", bool, ()))
    )
    outer, inner = n.add_if_conditional(), n.add_if_conditional()
    outer.set_condition(first)
    inner.set_condition(second)
    t = outer.add_input(x).get_output(0)
    u = inner.add_input(t).get_output(0)
    chosen = inner.add_output(
        n.add_unary(u, UnaryOperation.EXP).get_output(0), binary(n, u, t, ElementWiseOperation.SUM)
    ).get_output(0)
    named(n, outer.add_output(n.add_unary(chosen, UnaryOperation.NEG).get_output(0), t).get_output(0), "y")
    engine, x = engine_of(n), random(4)
    for a in (True, False):
        for b in (True, False):
            found = engine.run({"x": x, "a": np.array(a), "b": np.array(b)})["y"]
            np.testing.assert_allclose(found, -(np.exp(x) if b else 2 * x) if a else x, rtol=1e-5)


def counted(n: tw.Network, count: Tensor, *, reverse: bool = False, axis: int = 0) -> Tensor:
    """h = tanh(h @ w + x[i]) for each row of x; the last state, and all of them along an axis."""
    x, start = n.add_input("x", "f32", (20, 3, 4)), n.add_input("start", "f32", (3, 4))
    loop = n.add_loop()
    loop.add_trip_limit(count, TripLimit.COUNT)
    state = loop.add_recurrence(start)
    row = loop.add_iterator(x, 0, reverse).get_output(0)
    h = state.get_output(0)
    w = n.add_constant((4, 4), R).get_output(0)
    product = n.add_matrix_multiply(h, MatrixOperation.NONE, w, MatrixOperation.NONE).get_output(0)
    new = n.add_activation(binary(n, product, row, ElementWiseOperation.SUM), ActivationType.TANH).get_output(0)
    state.set_input(1, new)
    named(n, loop.add_loop_output(h, LoopOutput.LAST_VALUE).get_output(0), "last")
    if n.num_inputs == 2:
        named(n, loop.add_loop_output(new, LoopOutput.CONCATENATE, axis).get_output(0), "all")
        named(n, loop.add_loop_output(new, LoopOutput.REVERSE, axis).get_output(0), "turned")
    return new


R = random(4, 4) / 2


def states(x: Array, h: Array, count: int, *, reverse: bool = False) -> Array:
    rows = [h]
    for row in (x[::-1] if reverse else x)[:count]:
        rows.append(np.tanh(rows[-1] @ R + row))
    return np.stack(rows)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("count", [3, 20])
def test_counted_loop_gives_last_value_and_stacks(reverse: bool, axis: int, count: int) -> None:
    n = tw.Network()
    counted(n, constant(n, count), reverse=reverse, axis=axis)
    x, start = random(20, 3, 4), random(3, 4)
    found, want = engine_of(n).run({"x": x, "start": start}), states(x, start, count, reverse=reverse)
    np.testing.assert_allclose(found["last"], want[-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["all"], np.moveaxis(want[1:], 0, axis), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["turned"], np.moveaxis(want[:0:-1], 0, axis), rtol=1e-3, atol=1e-4)


def test_number_of_iterations_may_be_an_input() -> None:
    n = tw.Network()
    counted(n, n.add_input("count", "i32", ()))
    engine, x, start = engine_of(n), random(20, 3, 4), random(3, 4)
    for count in (0, 1, 20):
        found = engine.run({"x": x, "start": start, "count": np.int32(count)})
        np.testing.assert_allclose(found["last"], states(x, start, count)[-1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("limit", [None, 4])
def test_loop_goes_on_while_its_condition_holds(limit: int | None) -> None:
    """x doubles while its sum is below the bound."""
    n = tw.Network()
    x, bound = n.add_input("x", "f32", (3,)), n.add_input("bound", "f32", ())
    loop = n.add_loop()
    state = loop.add_recurrence(x)
    t = state.get_output(0)
    total = n.add_reduce(t, ReduceOperation.SUM, 1).get_output(0)
    loop.add_trip_limit(binary(n, total, bound, ElementWiseOperation.LESS), TripLimit.WHILE)
    if limit is not None:
        loop.add_trip_limit(constant(n, limit), TripLimit.COUNT)
    state.set_input(1, binary(n, t, t, ElementWiseOperation.SUM))
    named(n, loop.add_loop_output(t, LoopOutput.LAST_VALUE).get_output(0), "y")
    engine, x = engine_of(n), np.float32([1, 2, 3])
    for bound in (5, 7, 100, 1000):
        want, turns = x, 0
        while want.sum() < bound and turns != limit:
            want, turns = want + want, turns + 1
        np.testing.assert_array_equal(engine.run({"x": x, "bound": np.float32(bound)})["y"], want)


def test_conditional_inside_a_loop() -> None:
    """Collatz steps of a float."""
    n = tw.Network()
    start = n.add_input("x", "f32", (1,))
    loop = n.add_loop()
    loop.add_trip_limit(n.add_input("count", "i64", ()), TripLimit.COUNT)
    state = loop.add_recurrence(start)
    x = state.get_output(0)
    two = constant(n, [2], "float32")
    half = binary(n, x, two, ElementWiseOperation.DIV)
    even = binary(n, n.add_unary(half, UnaryOperation.FLOOR).get_output(0), half, ElementWiseOperation.EQUAL)
    choice = n.add_if_conditional()
    choice.set_condition(n.add_squeeze(even, constant(n, [0])).get_output(0))
    inside = choice.add_input(x).get_output(0)
    up = binary(n, inside, constant(n, [3], "float32"), ElementWiseOperation.PROD)
    odd = binary(n, up, constant(n, [1], "float32"), ElementWiseOperation.SUM)
    down = binary(n, inside, two, ElementWiseOperation.DIV)
    state.set_input(1, choice.add_output(down, odd).get_output(0))
    named(n, loop.add_loop_output(x, LoopOutput.LAST_VALUE).get_output(0), "y")
    engine, want = engine_of(n), 27.0
    for count in range(12):
        found = engine.run({"x": np.float32([27]), "count": np.int64(count)})["y"]
        assert found.tolist() == [want]
        want = want / 2 if want % 2 == 0 else 3 * want + 1


def test_property_of_a_layer_inside_changes_the_graph() -> None:
    n = tw.Network()
    x, go = n.add_input("x", "f32", (4,)), n.add_input("go", bool, ())
    choice = n.add_if_conditional()
    choice.set_condition(go)
    t = choice.add_input(x).get_output(0)
    unary = n.add_unary(t, UnaryOperation.EXP)
    named(n, choice.add_output(unary.get_output(0), t).get_output(0), "y")
    assert n.get_output(0).shape == (4,)
    unary.op = UnaryOperation.NEG
    x = random(4)
    np.testing.assert_array_equal(engine_of(n).run({"x": x, "go": np.array(True)})["y"], -x)


# -- mistakes ---------------------------------------------------------------------------------------
def without_condition(n: tw.Network, x: Tensor) -> Tensor:
    choice = n.add_if_conditional()
    t = choice.add_input(x).get_output(0)
    return choice.add_output(t, t).get_output(0)


def parts_of_two_types(n: tw.Network, x: Tensor) -> Tensor:
    choice = n.add_if_conditional()
    choice.set_condition(n.add_input("go", bool, ()))
    t = choice.add_input(x).get_output(0)
    return choice.add_output(t, n.add_cast(t, "i32").get_output(0)).get_output(0)


def read_outside(n: tw.Network, x: Tensor) -> Tensor:
    choice = n.add_if_conditional()
    choice.set_condition(n.add_input("go", bool, ()))
    return n.add_unary(choice.add_input(x).get_output(0), UnaryOperation.EXP).get_output(0)


def loop_of(change: Callable[[tw.Network, Any, Tensor], Tensor]) -> Callable[[tw.Network, Tensor], Tensor]:
    def make(n: tw.Network, x: Tensor) -> Tensor:
        loop = n.add_loop()
        return change(n, loop, x)

    return make


def endless(n: tw.Network, loop: Any, x: Tensor) -> Tensor:
    state = loop.add_recurrence(x)
    state.set_input(1, state.get_output(0))
    return loop.add_loop_output(state.get_output(0), LoopOutput.LAST_VALUE).get_output(0)


def nothing_follows(n: tw.Network, loop: Any, x: Tensor) -> Tensor:
    loop.add_trip_limit(constant(n, 3), TripLimit.COUNT)
    return loop.add_loop_output(loop.add_recurrence(x).get_output(0), LoopOutput.LAST_VALUE).get_output(0)


def grows(n: tw.Network, loop: Any, x: Tensor) -> Tensor:
    loop.add_trip_limit(constant(n, 3), TripLimit.COUNT)
    state = loop.add_recurrence(x)
    t = state.get_output(0)
    state.set_input(1, n.add_concatenation([t, t], 0).get_output(0))
    return loop.add_loop_output(t, LoopOutput.LAST_VALUE).get_output(0)


def stacks_unknown(n: tw.Network, loop: Any, x: Tensor) -> Tensor:
    loop.add_trip_limit(n.add_input("count", "i32", ()), TripLimit.COUNT)
    state = loop.add_recurrence(x)
    state.set_input(1, state.get_output(0))
    return loop.add_loop_output(state.get_output(0), LoopOutput.CONCATENATE).get_output(0)


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (without_condition, "if_1.*no condition"),
        (parts_of_two_types, r"conditional_output_1.*f32\[4\] and i32\[4\]"),
        (read_outside, "conditional_input_1.*outside of 'if_1'"),
        (loop_of(endless), "loop_1.*never ends"),
        (loop_of(nothing_follows), "recurrence_1.*input 1 is not set"),
        (loop_of(grows), "recurrence_1.*changes from"),
        (loop_of(stacks_unknown), "loop_output_1.*only a run decides"),
    ],
)
def test_mistake_gives_m110(mistake: Callable[[tw.Network, Tensor], Tensor], text: str) -> None:
    n = tw.Network()
    with pytest.raises(ModelError, match=text) as caught:
        n.mark_output(mistake(n, n.add_input("x", "f32", (4,))))
        n.to_graph()
    assert caught.value.code == "M110"
