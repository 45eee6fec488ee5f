# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's elementwise ops against NumPy."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.importers.tensorflow.graphs import Array, Type, applied

rng = np.random.default_rng()


def agree(got: Array, want: Any, tolerance: float = 2e-6) -> None:
    want = np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype, (got.dtype, want.dtype)
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=tolerance * 10, atol=tolerance)
    else:
        np.testing.assert_array_equal(got, want)


erf = np.vectorize(math.erf, otypes=[np.float32])
UNARY: dict[str, tuple[Callable[[Array], Any], float, float]] = {
    "Abs": (np.abs, -3, 3),
    "Neg": (np.negative, -3, 3),
    "Exp": (np.exp, -3, 3),
    "Log": (np.log, 0.01, 5),
    "Sqrt": (np.sqrt, 0, 5),
    "Rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 5),
    "Reciprocal": (lambda x: 1 / x, 0.2, 5),
    "Square": (np.square, -3, 3),
    "Tanh": (np.tanh, -3, 3),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -5, 5),
    "Relu": (lambda x: np.maximum(x, 0), -3, 3),
    "Relu6": (lambda x: np.clip(x, 0, 6), -3, 9),
    "Elu": (lambda x: np.where(x < 0, np.expm1(x), x), -3, 3),
    "Selu": (lambda x: np.where(x < 0, 1.7580993 * np.expm1(x), 1.050701 * x), -3, 3),
    "Softplus": (lambda x: np.log1p(np.exp(x)), -5, 5),
    "Softsign": (lambda x: x / (1 + np.abs(x)), -5, 5),
    "Erf": (erf, -3, 3),
    "Erfc": (lambda x: 1 - erf(x), -2, 2),
    "Expm1": (np.expm1, -2, 2),
    "Log1p": (np.log1p, -0.9, 5),
    "Floor": (np.floor, -5, 5),
    "Ceil": (np.ceil, -5, 5),
    "Round": (np.round, -5, 5),
    "Rint": (np.rint, -5, 5),
    "Sign": (np.sign, -5, 5),
    "Sin": (np.sin, -9, 9),
    "Cos": (np.cos, -9, 9),
    "Tan": (np.tan, -1.2, 1.2),
    "Asin": (np.arcsin, -1, 1),
    "Acos": (np.arccos, -1, 1),
    "Atan": (np.arctan, -9, 9),
    "Sinh": (np.sinh, -3, 3),
    "Cosh": (np.cosh, -3, 3),
    "Asinh": (np.arcsinh, -9, 9),
    "Acosh": (np.arccosh, 1.01, 9),
    "Atanh": (np.arctanh, -0.95, 0.95),
    "IsNan": (np.isnan, -1, 1),
    "ZerosLike": (np.zeros_like, -1, 1),
    "OnesLike": (np.ones_like, -1, 1),
}


@pytest.mark.parametrize("op", UNARY)
def test_function_of_one_value(tmp_path: pathlib.Path, op: str) -> None:
    function, low, high = UNARY[op]
    x = rng.uniform(low, high, (3, 1, 37)).astype(np.float32)
    want = function(x.astype(np.float64) if op not in ("IsNan",) else x)
    for target in ("cpu", "reference"):
        (got,) = applied(tmp_path, op, [x], {}, target=target)
        agree(got, want if op == "IsNan" else np.asarray(want, np.float32), 3e-6)


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "Pow": np.power,
    "SquaredDifference": lambda x, y: (x - y) ** 2,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Atan2": np.arctan2,
}


@pytest.mark.parametrize("op", BINARY)
def test_function_of_two_broadcast_values(tmp_path: pathlib.Path, op: str) -> None:
    x, y = (rng.uniform(0.2, 4, s).astype(np.float32) for s in ((2, 3, 5), (3, 1)))
    if op in ("Equal", "NotEqual", "LessEqual"):
        x, y = np.round(x), np.round(y)
    (got,) = applied(tmp_path, op, [x, y], {})
    agree(got, BINARY[op](x, y), 2e-6)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("FloorDiv", np.floor_divide),
        ("FloorMod", np.mod),
        ("Div", lambda x, y: np.trunc(x / y).astype(np.int32)),
        ("TruncateDiv", lambda x, y: np.trunc(x / y).astype(np.int32)),
        ("TruncateMod", np.fmod),
    ],
)
def test_integer_division_of_every_sign(tmp_path: pathlib.Path, op: str, function: Callable[[Any, Any], Any]) -> None:
    x = rng.integers(-20, 20, (4, 9)).astype(np.int32)
    y = (rng.integers(1, 6, 9) * rng.choice([-1, 1], 9)).astype(np.int32)
    (got,) = applied(tmp_path, op, [x, y], {})
    agree(got, function(x, y))


def test_quotient_that_is_zero_where_the_divisor_is(tmp_path: pathlib.Path) -> None:
    x, y = np.array([1, 2, -3, 0], np.float32), np.array([0, 4, 0, 0], np.float32)
    agree(applied(tmp_path, "DivNoNan", [x, y], {})[0], np.array([0, 0.5, 0, 0], np.float32))


def test_logic(tmp_path: pathlib.Path) -> None:
    x, y = (rng.integers(0, 2, (3, 5)).astype(bool) for _ in range(2))
    agree(applied(tmp_path, "LogicalAnd", [x, y], {})[0], x & y)
    agree(applied(tmp_path, "LogicalOr", [x, y], {})[0], x | y)
    agree(applied(tmp_path, "LogicalNot", [x], {})[0], ~x)


def test_leaky_relu_takes_its_slope_and_tensorflow_s_default(tmp_path: pathlib.Path) -> None:
    x = rng.uniform(-2, 2, (3, 7)).astype(np.float32)
    agree(applied(tmp_path, "LeakyRelu", [x], {"alpha": 0.3})[0], np.where(x < 0, np.float32(0.3) * x, x))
    agree(applied(tmp_path, "LeakyRelu", [x], {})[0], np.where(x < 0, np.float32(0.2) * x, x))


def test_bias_stands_at_the_channels_of_the_data_format(tmp_path: pathlib.Path) -> None:
    x, bias = rng.standard_normal((2, 3, 4, 3)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    agree(applied(tmp_path, "BiasAdd", [x], {}, constants={1: bias})[0], x + bias)
    got = applied(tmp_path, "BiasAdd", [x], {"data_format": "NCHW"}, constants={1: bias})[0]
    agree(got, x + bias[:, None, None])


def test_select_by_a_vector_picks_rows(tmp_path: pathlib.Path) -> None:
    x, y = (rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
    rows = np.array([True, False, True])
    agree(applied(tmp_path, "Select", [x, y], {}, constants={0: rows})[0], np.where(rows[:, None], x, y))
    agree(applied(tmp_path, "SelectV2", [x > 0, x, y], {})[0], np.where(x > 0, x, y))


def test_cast_and_clip_and_sum(tmp_path: pathlib.Path) -> None:
    x = rng.uniform(-4, 4, (3, 5)).astype(np.float32)
    agree(applied(tmp_path, "Cast", [x], {"DstT": Type(3)})[0], x.astype(np.int32))
    got = applied(tmp_path, "ClipByValue", [x], {}, constants={1: np.float32(-1), 2: np.float32(0.5)})[0]
    agree(got, np.clip(x, np.float32(-1), np.float32(0.5)))
    agree(applied(tmp_path, "AddN", [x, x, x], {})[0], x + x + x)


def test_fake_quantisation_moves_zero_onto_a_step(tmp_path: pathlib.Path) -> None:
    x = rng.uniform(-8, 8, (5, 40)).astype(np.float32)
    got = applied(tmp_path, "FakeQuantWithMinMaxArgs", [x], {"min": -6.0, "max": 5.3, "num_bits": 8})[0]
    scale = 11.3 / 255
    low = -round(6.0 / scale) * scale
    want = np.floor((np.clip(x, low, low + 255 * scale) - low) / scale + 0.5) * scale + low
    assert np.mean(np.abs(got - want) > 1e-4) < 0.02  # a value between two steps may go to either
    assert np.abs(got - want).max() < scale * 1.01
