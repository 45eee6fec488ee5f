# SPDX-License-Identifier: Apache-2.0
"""What the op table's f32 rows do not show: narrow floats, integer rounding, long sums, unfolding in blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ops import conv


@pytest.mark.parametrize("dtype", [DType.f16, DType.bf16])
def test_narrow_floats_compute_in_f32_and_round_once(dtype: DType) -> None:
    rng = np.random.default_rng(11)
    x, w = (rng.standard_normal(s, dtype=np.float32).astype(dtype.numpy) for s in ((1, 8, 6, 6), (4, 8, 3, 3)))
    cases = [
        (o.Silu(), (x,)),
        (o.Add(), (x, x[:, :1])),
        (o.Softmax(1), (x,)),
        (o.LayerNorm(3), (x, x[0, 0, 0])),
        (o.Convolution((1, 1), (1,) * 4, (1, 1)), (x, w)),
        (o.MatMul(), (x, x)),
        (o.Reduce("sum", (1,)), (x,)),
        (o.AveragePool((2, 2), (2, 2), (0,) * 4, (1, 1)), (x,)),
        (o.MaxPool((2, 2), (2, 2), (0,) * 4, (1, 1)), (x,)),
    ]
    for op, arrays in cases:
        (narrow,) = op.reference(*arrays)
        (wide,) = op.reference(*(a.astype(np.float32) for a in arrays))
        assert narrow.dtype == dtype.numpy
        np.testing.assert_array_equal(narrow.astype(np.float32), wide.astype(dtype.numpy).astype(np.float32), op.kind)


def test_integer_division_rounds_towards_zero() -> None:
    a, b = np.meshgrid(np.arange(-7, 8), np.array([-3, -2, -1, 1, 2, 3]))
    for dtype in (np.int32, np.int64):
        (y,) = o.Div().reference(a.astype(dtype), b.astype(dtype))
        np.testing.assert_array_equal(y, np.vectorize(lambda p, q: math.trunc(p / q))(a, b))
        assert y.dtype == dtype


def test_integer_remainders_follow_the_chosen_sign() -> None:
    a, b = np.meshgrid(np.arange(-7, 8), np.array([-3, 3]))
    (floor,), (trunc,) = o.Mod().reference(a, b), o.Mod(fmod=True).reference(a, b)
    np.testing.assert_array_equal(floor, np.vectorize(lambda p, q: p - q * math.floor(p / q))(a, b))
    np.testing.assert_array_equal(trunc, np.vectorize(lambda p, q: p - q * math.trunc(p / q))(a, b))


def test_integer_powers_stay_integers() -> None:
    (y,) = o.Pow().reference(np.array([2, -3, 10, 2]), np.array([10, 3, 0, -1]))
    assert y.tolist() == [1024, -27, 1, 0] and y.dtype == np.int64
    (z,) = o.Pow().reference(np.array([3], np.int32), np.array([2.5], np.float32))
    assert z.tolist() == [15] and z.dtype == np.int32


def test_clip_of_integers_takes_bounds_beyond_the_type() -> None:
    x = np.array([-128, 0, 127], np.int8)
    np.testing.assert_array_equal(o.Clip(-1e30, 1e30).reference(x)[0], x)
    np.testing.assert_array_equal(o.Clip(-5.0, 5.0).reference(x)[0], [-5, 0, 5])


def test_long_f32_sums_do_not_drift() -> None:
    x = np.full((3, 100_000), 0.1, np.float32)
    for op in (o.Reduce("sum", (1,), False), o.Reduce("sum", (0, 1), False)):
        (y,) = op.reference(x)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, np.float32(0.1) * np.float64(x.size // y.size), rtol=1e-7)
    np.testing.assert_allclose(o.LayerNorm(1).reference(x + 1e4, np.ones(100_000, np.float32))[0], 0, atol=1e-3)


def test_erf_is_exact_to_f32_rounding() -> None:
    x = np.concatenate([np.linspace(-7, 7, 999), [0.0, -0.0, 1e-40, np.inf, -np.inf]]).astype(np.float32)
    (y,) = o.Erf().reference(x)
    np.testing.assert_array_equal(y, np.array([math.erf(v) for v in x.tolist()], np.float32))
    assert math.copysign(1, y[1000]) == -1 and np.isnan(o.Erf().reference(np.float32([np.nan]))[0]).all()


def test_convolution_unfolded_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    op = o.Convolution((2, 1), (1, 2, 0, 1), (2, 1), 2)
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in ((2, 4, 15, 9), (6, 2, 3, 2)))
    (whole,) = op.reference(x, w)
    for limit in (1, 600, 2000):
        monkeypatch.setattr(conv, "_BLOCK_ELEMS", limit)
        np.testing.assert_allclose(op.reference(x, w)[0], whole, rtol=1e-5, atol=1e-6)
