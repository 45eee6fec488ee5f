# SPDX-License-Identifier: Apache-2.0
"""Positions of window maxima against the reference, and against the maxima themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.cpu.kernels.pool_indices import PoolIndices
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.pool import MaxPool, MaxPoolIndices
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, ordered, rejected, verify, workload

NHWC = (0, 2, 3, 1)
CASES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "plain": (((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), dense(2, 3, 8, 9)),
    "padded": (((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)), ordered(NHWC, 1, 17, 7, 9)),
    "dilated_ceil": (((3, 2), (2, 3), (1, 0, 1, 1), (2, 2), True), dense(1, 2, 9, 10)),
    "column_major": (((2, 3), (1, 2), (0, 1, 0, 1), (1, 1), False, True), dense(2, 3, 5, 6)),
    "line": (((4,), (3,), (1, 2), (1,)), dense(2, 3, 13)),
    "volume": (((2, 3, 2), (2, 2, 1), (0, 1, 0, 1, 1, 0), (1, 1, 1), False, True), dense(1, 2, 5, 6, 7)),
    "u8": (((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), dense(1, 2, 6, 6, dtype=DType.u8)),
    "i8": (((2, 2), (1, 1), (1, 1, 1, 1), (1, 1)), dense(1, 2, 6, 6, dtype=DType.i8)),
    "f16": (((2, 2), (1, 1), (1, 1, 1, 1), (1, 1)), dense(1, 2, 6, 6, dtype=DType.f16)),
    "empty": (((2,), (1,), (0, 0), (1,)), dense(0, 2, 6)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*CASES])
def test_pool_indices_equal_reference(name: str, isa: str) -> None:
    attributes, x = CASES[name]
    verify(PoolIndices(), workload(MaxPoolIndices(*attributes), x), isa)


@pytest.mark.parametrize("isa", ISAS)
def test_pool_indices_find_the_first_nan(isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((1, 2, 9, 9)).astype(np.float32)
    x[np.random.default_rng(SEED).random(x.shape) < 0.2] = np.nan
    op = MaxPoolIndices((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    verify(PoolIndices(), workload(op, dense(1, 2, 9, 9)), isa, [x])


@pytest.mark.parametrize("name", ["plain", "padded", "dilated_ceil", "line"])
def test_positions_lead_to_the_maxima(name: str) -> None:
    attributes, x = CASES[name]
    values = np.random.default_rng(SEED).standard_normal(x.shape).astype(np.float32)
    (found,) = MaxPoolIndices(*attributes).reference(values)
    np.testing.assert_array_equal(values.reshape(-1)[found], MaxPool(*attributes).reference(values)[0])


def test_pool_indices_say_why_they_reject_and_compile_for_neon() -> None:
    assert "not a max_pool_indices" in rejected(PoolIndices(), workload(Relu(), dense(3)))
    attributes, x = CASES["padded"]
    compiles_for_neon(PoolIndices(), workload(MaxPoolIndices(*attributes), x))
