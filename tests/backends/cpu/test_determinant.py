# SPDX-License-Identifier: Apache-2.0
"""Determinants against NumPy: row exchanges, singular matrices, every order of memory."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.cpu.kernels.determinant import DeterminantLu
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.matrix import Determinant
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, ordered, rejected, verify, workload

SHAPES = {
    "one": dense(1, 1),
    "batch": dense(5, 2, 7, 7),
    "columns_first": ordered((0, 2, 1), 3, 6, 6),
    "batch_last": ordered((1, 2, 0), 9, 4, 4, gap=3),
    "large": dense(2, 61, 61),
    "double": dense(4, 9, 9, dtype=DType.f64),
    "empty": dense(3, 0, 0),
    "none": dense(0, 4, 4),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*SHAPES])
def test_determinant_equals_reference(name: str, isa: str) -> None:
    verify(DeterminantLu(), workload(Determinant(), SHAPES[name]), isa)


@pytest.mark.parametrize("isa", ISAS)
def test_determinant_of_known_matrices(isa: str) -> None:
    swapped = np.eye(4)[[1, 0, 2, 3]]
    tiny_pivot = np.array([[1e-20, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    repeated = np.random.default_rng(SEED).standard_normal((4, 4))
    repeated[2] = repeated[0]
    x = np.stack([swapped, tiny_pivot, np.zeros((4, 4)), np.eye(4) * 2]).astype(np.float32)
    want = np.array([-1, -1, 0, 16], np.float32)
    verify(DeterminantLu(), workload(Determinant(), dense(4, 4, 4)), isa, [x], want=want)
    broken = x.copy()
    broken[0, 1, 2] = np.nan
    assert np.isnan(Determinant().reference(broken)[0][0])
    verify(DeterminantLu(), workload(Determinant(), dense(4, 4, 4)), isa, [broken])


def test_determinant_says_why_it_rejects_and_compiles_for_neon() -> None:
    assert "not a determinant" in rejected(DeterminantLu(), workload(Relu(), dense(3)))
    assert "f16" in rejected(DeterminantLu(), workload(Determinant(), dense(3, 3, dtype=DType.f16)))
    compiles_for_neon(DeterminantLu(), workload(Determinant(), dense(2, 5, 5)))
