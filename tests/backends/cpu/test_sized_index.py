# SPDX-License-Identifier: Apache-2.0
"""Gathers, scatters, extremes, sorts and running sums whose sizes are known only in a run."""

from __future__ import annotations

import pytest

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tests.backends.cpu.sized_check import check_sized
from tests.suites.op_case import Spec

BOTH = {"n": (1, 4, 9), "m": (2, 20, 70)}
FROM_ZERO = {"n": (1, 4, 9), "k": (0, 6, 21)}


def index(*shape: int | str, below: int) -> Spec:
    return Spec(shape, f"index {below}", DType.i64)  # type: ignore[arg-type]


def test_gather_rows_by_a_symbolic_number_of_indices() -> None:
    check_sized(o.Gather(0), (30, 17), index("n", "k", below=30), bounds=FROM_ZERO, families=["gather_rows"])
    check_sized(o.Gather(1), ("n", 6, 5), index("k", below=6), bounds=FROM_ZERO)
    check_sized(o.Gather(0), ("m", 5), index(4, below=2), bounds=BOTH)


def test_gather_and_scatter_elements() -> None:
    check_sized(o.GatherElements(1), ("n", 6), index("n", "k", below=6), bounds=FROM_ZERO)
    check_sized(o.GatherNd(0), ("n", 6, "k"), index("k", 2, below=1), bounds={"n": (1, 4, 9), "k": (1, 6, 21)})
    check_sized(o.ScatterElements(1, "none"), ("n", "m"), index("n", 1, below=2), ("n", 1), bounds=BOTH)
    check_sized(o.ScatterNd("add"), ("n", "m"), index(3, 1, below=1), (3, "m"), bounds=BOTH)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_extremes_and_running_sums(axis: int) -> None:
    check_sized(o.ArgMax(axis, False), Spec(("n", "m", 5), "integers"), bounds=BOTH)  # type: ignore[arg-type]
    check_sized(o.CumSum(axis, False, True), Spec(("n", "m", 5), "integers"), bounds=BOTH)  # type: ignore[arg-type]


@pytest.mark.parametrize("largest", [True, False])
def test_top_k(largest: bool) -> None:
    x = Spec(("n", "m"), "integers")  # type: ignore[arg-type]
    check_sized(o.TopKIndices(2, 1, largest), x, bounds=BOTH)
    check_sized(o.TopKValues(1, 0, largest), x, bounds=BOTH)
