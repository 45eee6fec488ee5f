# SPDX-License-Identifier: Apache-2.0
"""The figures of a difference are those of their definitions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tensorwright.compare.difference import Tolerance, difference, histogram, histogram_lines

WANT = np.array([[1.0, -2.0, 0.0], [4.0, 8.0, 100.0]], np.float32)


def test_equal_arrays_pass_with_no_error() -> None:
    found = difference("y", WANT, WANT.copy(), Tolerance(0, 0))
    assert found.passed and found.first is None and not found.histogram
    assert (found.max_abs, found.mean_abs, found.max_rel, found.needed_rtol, found.needed_atol) == (0, 0, 0, 0, 0)


def test_figures_of_a_mismatch_follow_their_definitions() -> None:
    got = WANT.copy()
    got[0, 1], got[1, 2] = -2.5, 101.0
    found = difference("y", got, WANT, Tolerance(rtol=1e-3, atol=0.05))
    assert not found.passed and found.mismatches == 2 and found.elements == 6
    assert (found.first, found.first_got, found.first_want) == ((0, 1), "-2.5", "-2.0")
    assert (found.max_abs, found.max_rel, found.scaled) == (1.0, 0.25, 0.01)
    assert found.mean_abs == pytest.approx(1.5 / 6) and found.mean_rel == pytest.approx(0.26 / 5)
    assert found.needed_rtol == pytest.approx(0.45 / 2) and found.needed_atol == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(5))
def test_needed_tolerance_passes_and_a_little_less_fails(seed: int) -> None:
    rng = np.random.default_rng(seed)
    want = rng.standard_normal(50)
    got = want + 1e-3 * rng.standard_normal(50)
    asked = Tolerance(1e-5, 1e-5)
    found = difference("y", got, want, asked)
    assert found.needed_rtol and found.needed_atol
    for factor, passes in ((1.001, True), (0.999, False)):
        assert difference("y", got, want, Tolerance(found.needed_rtol * factor, asked.atol)).passed is passes
        assert difference("y", got, want, Tolerance(asked.rtol, found.needed_atol * factor)).passed is passes


def test_nothing_helps_where_zero_is_wanted_or_nan_is_got() -> None:
    off = difference("y", np.array([1.0, 1.0]), np.array([0.0, 1.0]), Tolerance(1, 0))
    assert off.needed_rtol is None and off.needed_atol == 1.0
    odd = difference("y", np.array([math.nan, 1.0]), np.array([0.0, 1.0]), Tolerance(1, 1))
    assert not odd.passed and odd.needed_rtol is None and odd.needed_atol is None and odd.first == (0,)
    assert odd.as_dict()["max_abs"] is None
    json.dumps(odd.as_dict(), allow_nan=False)


def test_nan_and_infinity_agree_with_themselves_only() -> None:
    odd = np.array([math.nan, math.inf, -math.inf])
    assert difference("y", odd, odd.copy(), Tolerance(0, 0)).passed
    assert difference("y", odd, np.roll(odd, 1), Tolerance(1, 1)).mismatches == 3
    assert difference("y", np.ones(3), odd, Tolerance(1, 1)).mismatches == 3
    assert difference("y", odd, np.ones(3), Tolerance(1, 1)).mismatches == 3


def test_other_shape_or_dtype_is_a_mismatch() -> None:
    for got in (WANT[:1], WANT.astype(np.float64)):
        found = difference("y", got, WANT, Tolerance())
        assert not found.passed and "instead of float32[2, 3]" in found.reason


def test_strings_and_integers_compare_exactly() -> None:
    words = np.array(["a", "b"], object)
    assert difference("y", words, words.copy(), Tolerance()).passed
    found = difference("y", np.array(["a", "c"], object), words, Tolerance())
    assert (found.first, found.first_got, found.mismatches) == ((1,), "c", 1)
    assert difference("y", np.array([5]), np.array([6]), Tolerance(0, 0)).max_abs == 1
    assert difference("y", np.array([True]), np.array([False]), Tolerance()).mismatches == 1


def test_empty_and_scalar_arrays_have_a_difference() -> None:
    assert difference("y", np.zeros((0, 3)), np.zeros((0, 3)), Tolerance()).passed
    assert difference("y", np.float32(1), np.float32(2), Tolerance()).first == ()


def test_histogram_counts_every_error_once() -> None:
    errors = np.array([0, 0, 1e-30, 3e-4, 5e-4, 2e-3, 0.5])
    bins = histogram(errors)
    assert sum(b.count for b in bins) == errors.size
    assert [b.count for b in bins if b.count] == [2, 1, 2, 1, 1]
    assert all(b.low <= e < b.high for b, e in [(bins[-1], 0.5), (bins[1], 1e-30)])
    lines = histogram_lines(bins)
    assert len(lines) == len(bins) and "exact" in lines[0] and lines[0].count("#") == 32 and "#" not in lines[-2]
