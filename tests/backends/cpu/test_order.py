# SPDX-License-Identifier: Apache-2.0
"""Top-k and running sums against their references: ties, NaN, every order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.cpu.kernels.cum_sum import CumSumRows
from tensorwright.backends.cpu.kernels.top_k import TopKRows
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.order import CumProd, CumSum, TopKIndices, TopKValues
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    random_values,
    rejected,
    verify,
    workload,
)

TOPS = {
    "rows": (3, 1, dense(5, 40)),
    "one": (1, 0, dense(1)),
    "all": (33, 1, dense(4, 33)),
    "all_but_one": (32, 0, dense(33)),
    "middle": (2, 1, dense(3, 9, 20)),
    "strided": (4, 2, ordered((2, 0, 1), 3, 9, 20, gap=1)),
    "many_rows": (5, 1, dense(300, 100)),
    "none": (0, 1, dense(3, 4)),
    "f64": (3, 1, dense(5, 40, dtype=DType.f64)),
    "f16": (3, 1, dense(5, 40, dtype=DType.f16)),
    "i64": (3, 1, dense(5, 40, dtype=DType.i64)),
    "i8": (3, 1, dense(5, 40, dtype=DType.i8)),
    "u8": (3, 1, dense(5, 40, dtype=DType.u8)),
}
SUMS = {
    "row": dense(40),
    "rows": dense(5, 40),
    "strided": ordered((1, 0), 30, 7, gap=2),
    "many": dense(300, 100),
    "empty": dense(0, 5),
    "f64": dense(5, 4, dtype=DType.f64),
    "f16": dense(5, 4, dtype=DType.f16),
    "i64": dense(5, 4, dtype=DType.i64),
    "u8": dense(3, 90, dtype=DType.u8),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("name", [*TOPS])
def test_top_k_equals_reference(name: str, largest: bool, isa: str) -> None:
    k, axis, x = TOPS[name]
    for kind in (TopKValues, TopKIndices):
        verify(TopKRows(), workload(kind(k, axis, largest), x), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("largest", [True, False])
def test_top_k_orders_ties_by_position_and_nan_as_largest(largest: bool, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    x = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], np.float32), (20, 50))
    for k in (1, 7, 50):
        verify(TopKRows(), workload(TopKIndices(k, 1, largest), dense(20, 50)), isa, [x])


def test_top_k_of_known_rows() -> None:
    x = np.array([2.0, np.nan, 3.0, 2.0, 3.0], np.float32)
    assert TopKIndices(5, 0, True).reference(x)[0].tolist() == [1, 2, 4, 0, 3]
    assert TopKIndices(4, 0, False).reference(x)[0].tolist() == [0, 3, 2, 4]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("exclusive,reverse", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", [*SUMS])
@pytest.mark.parametrize("kind", [CumSum, CumProd])
def test_running_totals_equal_reference(kind: Any, name: str, exclusive: bool, reverse: bool, isa: str) -> None:
    x = SUMS[name]
    for axis in range(len(x.shape)):
        verify(CumSumRows(), workload(kind(axis, exclusive, reverse), x), isa)


@pytest.mark.parametrize("isa", ISAS)
def test_cum_sum_carries_nan_to_the_end(isa: str) -> None:
    x = np.array(random_values(dense(3, 20), np.random.default_rng(SEED)))
    x[0, 5], x[1, 7], x[1, 9] = np.nan, np.inf, -np.inf
    verify(CumSumRows(), workload(CumSum(1), dense(3, 20)), isa, [x])


def test_order_families_say_why_they_reject() -> None:
    assert "no top-k" in rejected(TopKRows(), workload(Relu(), dense(3)))
    assert "bf16" in rejected(TopKRows(), workload(TopKValues(1, 0), dense(3, dtype=DType.bf16)))
    assert "not a running sum" in rejected(CumSumRows(), workload(Relu(), dense(3)))
    assert "bf16" in rejected(CumSumRows(), workload(CumSum(0), dense(3, dtype=DType.bf16)))


def test_order_families_compile_for_neon() -> None:
    compiles_for_neon(TopKRows(), workload(TopKValues(3, 1), dense(5, 40)))
    compiles_for_neon(CumSumRows(), workload(CumSum(1), dense(5, 40)))
