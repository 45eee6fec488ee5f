# SPDX-License-Identifier: Apache-2.0
"""The interpreter against direct evaluation, and what it keeps alive."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import GraphBuilder
from tensorwright.ir.types import TensorType
from tensorwright.ops import Add, Mul, Neg, Relu, Sub

T = TensorType(DType.f32, (2, 3))


def test_interpret_diamond_gives_outputs_by_name() -> None:
    b = GraphBuilder()
    x, z = b.input("x", T), b.input("z", T)
    half = b.constant(np.float32(0.5).reshape(()))
    (s,) = b.add(Add(), x, z)
    (p,) = b.add(Mul(), s, half, name="product")
    (d,) = b.add(Sub(), p, x)
    for value, name in ((d, "difference"), (p, "half"), (x, "same"), (half, "constant")):
        b.output(value, name)
    rng = np.random.default_rng(2)
    feeds = {"z": rng.standard_normal((2, 3), dtype=np.float32), "x": rng.standard_normal((2, 3), dtype=np.float32)}
    got = interpret(b.finish(), feeds, keep=[s])
    product = (feeds["x"] + feeds["z"]) * np.float32(0.5)
    assert list(got) == ["add", "difference", "half", "same", "constant"]
    np.testing.assert_array_equal(got["half"], product)
    np.testing.assert_array_equal(got["difference"], product - feeds["x"])
    np.testing.assert_array_equal(got["same"], feeds["x"])
    np.testing.assert_array_equal(got["add"], feeds["x"] + feeds["z"])


def test_interpret_without_a_feed_raises_key_error() -> None:
    b = GraphBuilder()
    b.output(b.add(Relu(), b.input("x", T))[0])
    with pytest.raises(KeyError, match="x"):
        interpret(b.finish(), {})


def test_interpret_chain_frees_values_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder()
    first = x = b.input("x", T)
    for _ in range(20):
        (x,) = b.add(Neg(), x)
    (x,) = b.add(Add(), x, first)
    b.output(x)
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []
    negate = Neg.reference

    def watched(self: Neg, *inputs: Any) -> tuple[Any, ...]:
        (y,) = negate(self, *inputs)
        made.append(weakref.ref(y))
        alive.append(sum(ref() is not None for ref in made))
        return (y,)

    monkeypatch.setattr(Neg, "reference", watched)
    interpret(b.finish(), {"x": np.ones((2, 3), np.float32)})
    assert len(made) == 20 and max(alive) <= 2
