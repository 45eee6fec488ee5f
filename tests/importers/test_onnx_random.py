# SPDX-License-Identifier: Apache-2.0
"""Random ops draw from the distributions that ONNX names, anew in each run unless there is a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.importers.onnx.reader import import_onnx
from tests.importers.models import model, node

Array = np.ndarray[Any, Any]
MANY = 40_000
DOUBLE, HALF, BF16, I64 = TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64


def draw(op: str, kind: int = TensorProto.FLOAT, inputs: Any = None, feeds: Any = None, **attributes: Any) -> Array:
    """One run of a model of one node, without a host step."""
    kinds = {"y": kind, **({"x": attributes.pop("of")} if "of" in attributes else {})}
    proto = model([node(op, list(inputs or {}), **attributes)], inputs or {}, ["y"], opset=20, kinds=kinds)
    with tw.build(proto, target="cpu", tune="off", host_steps=False) as engine:
        return engine.run(feeds or {})["y"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, DOUBLE, HALF, BF16])
def test_uniform_numbers_fill_their_range_evenly(kind: int) -> None:
    y = draw("RandomUniform", kind, dtype=kind, shape=[MANY], low=-1.0, high=3.0).astype(np.float64)
    assert y.min() >= -1 and y.max() <= 3
    counts = np.histogram(y, 16, (-1, 3))[0]
    assert np.abs(counts - MANY / 16).max() < 6 * np.sqrt(MANY / 16)
    assert abs(np.corrcoef(y[:-1], y[1:])[0, 1]) < 6 / np.sqrt(MANY)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, DOUBLE, HALF, BF16])
def test_unit_numbers_are_below_one_in_every_type(kind: int) -> None:
    y = draw("RandomUniform", kind, dtype=kind, shape=[MANY]).astype(np.float64)
    assert y.min() >= 0 and 0.99 < y.max() < 1


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, DOUBLE, HALF])
def test_normal_numbers_have_the_moments_and_tails_of_the_distribution(kind: int) -> None:
    y = draw("RandomNormal", kind, dtype=kind, shape=[2, MANY // 2], mean=2.0, scale=0.5).astype(np.float64)
    z = (y.reshape(-1) - 2) / 0.5
    assert np.isfinite(z).all()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 6 * np.sqrt(spread / MANY), power
    for limit, share in ((1, 0.6826895), (2, 0.9544997), (3, 0.9973002)):
        assert abs((np.abs(z) < limit).mean() - share) < 6 * np.sqrt(share * (1 - share) / MANY), limit


@pytest.mark.parametrize("op", ["RandomUniformLike", "RandomNormalLike"])
def test_likeness_takes_shape_and_type_of_the_tensor(op: str) -> None:
    x = np.zeros((3, 5), np.float16)
    assert draw(op, HALF, {"x": [3, 5]}, {"x": x}, of=HALF).dtype == np.float16
    y = draw(op, DOUBLE, {"x": [3, 5]}, {"x": x}, of=HALF, dtype=DOUBLE)
    assert (y.dtype, y.shape, len(set(y.reshape(-1)))) == (np.float64, (3, 5), 15)


@pytest.mark.parametrize(
    "op,kind", [("RandomNormalLike", 1), ("RandomNormalLike", DOUBLE), ("RandomUniformLike", HALF)]
)
def test_one_engine_draws_for_every_batch(op: str, kind: int) -> None:
    proto = model([node(op, ["x"], dtype=kind)], {"x": ["batch", 7]}, opset=20, kinds={"y": kind})
    batches = tw.Range((1, 7), (4, 7), (9000, 7))
    with tw.build(proto, shapes={"x": batches}, tune="off", host_steps=False) as engine:
        for batch in (1, 4, 9000, 33, 2):
            x = np.zeros((batch, 7), np.float32)
            one, other = (engine.run({"x": x})["y"].astype(np.float64) for _ in range(2))
            assert one.shape == (batch, 7) and np.mean(one == other) < 0.2
            assert len(np.unique(one)) > min(one.size, 1000) * 0.9
            mean, spread = (0, 1) if op == "RandomNormalLike" else (0.5, 12**-0.5)
            assert abs(one.mean() - mean) < 6 * spread / np.sqrt(one.size)


def test_a_seed_gives_each_batch_the_numbers_that_an_engine_for_it_alone_gives() -> None:
    proto = model([node("RandomNormalLike", ["x"], seed=5.0)], {"x": ["batch", 7]}, opset=20)
    with tw.build(proto, shapes={"x": tw.Range((1, 7), (4, 7), (300, 7))}, tune="off", host_steps=False) as engine:
        for batch in (1, 19, 299):
            x = np.zeros((batch, 7), np.float32)
            with tw.build(proto, shapes={"x": x.shape}, tune="off", host_steps=False) as alone:
                np.testing.assert_allclose(engine(x), alone(x), rtol=1e-6)


@pytest.mark.parametrize("shape", [[5], [300, 300]])  # folded at build, and computed in each run
def test_seed_gives_the_same_numbers_in_each_run_and_none_gives_others(shape: list[int]) -> None:
    nodes = [
        node("RandomNormal", [], ["a"], shape=shape, seed=7.0),
        node("RandomNormal", [], ["b"], shape=shape, seed=8.0),
        node("RandomNormal", [], ["c"], shape=shape),
        node("RandomNormal", [], ["d"], shape=shape),
    ]
    proto = model(nodes, {}, list("abcd"))
    with tw.build(proto, target="cpu", tune="off", host_steps=False) as engine:
        first, second = engine.run({}), engine.run({})
    for name, is_same in (("a", True), ("b", True), ("c", False), ("d", False)):
        assert np.array_equal(first[name], second[name]) == is_same, name
    assert not np.array_equal(first["a"], first["b"])
    assert not np.array_equal(first["c"], first["d"])


def test_seeded_numbers_of_engine_and_reference_agree() -> None:
    proto = model([node("RandomUniform", [], shape=[600, 700], seed=3.0)], {})
    with tw.build(proto, target="cpu", tune="off", host_steps=False) as engine:
        got = engine.run({})["y"]
    np.testing.assert_array_equal(got, interpret(import_onnx(proto), {})["y"])


def test_bernoulli_draws_ones_with_the_given_probability() -> None:
    p = np.repeat(np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32), MANY)
    y = draw("Bernoulli", I64, {"x": [p.size]}, {"x": p}, dtype=I64).reshape(5, MANY)
    assert set(y.reshape(-1)) == {0, 1}
    shares = y.mean(1)
    assert shares[0] == 0 and shares[4] == 1
    assert np.abs(shares - [0, 0.1, 0.5, 0.9, 1]).max() < 6 * np.sqrt(0.25 / MANY)


@pytest.mark.parametrize("kind,of", [(TensorProto.INT32, TensorProto.FLOAT), (I64, DOUBLE)])
def test_multinomial_draws_classes_by_their_weights(kind: int, of: int) -> None:
    weights = np.array([[1, 2, 3, 4], [0, 5, 0, 5], [0, 0, 0, 1]], float)
    with np.errstate(divide="ignore"):
        logs = (np.log(weights) + 100).astype(np.float64 if of == DOUBLE else np.float32)
    y = draw("Multinomial", kind, {"x": [3, 4]}, {"x": logs}, of=of, dtype=kind, sample_size=MANY)
    for row, drawn in zip(weights, y, strict=True):
        share = row / row.sum()
        assert (np.bincount(drawn, minlength=4)[row == 0] == 0).all()
        assert np.abs(np.bincount(drawn, minlength=4) / MANY - share).max() < 6 * np.sqrt(0.25 / MANY)
