# SPDX-License-Identifier: Apache-2.0
"""Kernels whose sizes are known only in a run: the parts that all families share."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Instr
from tests.backends.cpu.sized_check import check_sized
from tests.suites.op_case import Spec

BATCH = {"n": (1, 8, 33)}
BOTH = {"n": (1, 4, 9), "m": (1, 20, 70)}


def test_pointwise_with_symbolic_leading_dim() -> None:
    check_sized(o.Relu(), ("n", 3, 17), bounds=BATCH, families=["pointwise_nd"])


def test_pointwise_rows_end_anywhere() -> None:
    check_sized(o.Exp(), ("n", "m"), bounds=BOTH, at=[{"n": 3, "m": k} for k in (2, 15, 16, 17, 63, 65)])


def test_pointwise_of_one_symbolic_axis() -> None:
    check_sized(o.Tanh(), ("m",), bounds={"m": (0, 100, 5000)}, at=[{"m": k} for k in (1, 4097)])


@pytest.mark.parametrize("dtype", [DType.i8, DType.f16, DType.i64, DType.bool])
def test_copies_of_every_width(dtype: DType) -> None:
    check_sized(o.Transpose((1, 0)), Spec(("m", "n"), "integers", dtype), bounds=BOTH)


def test_transposes_with_symbolic_sides() -> None:
    check_sized(o.Transpose((0, 2, 1)), ("n", "m", 24), bounds=BOTH, at=[{"n": 2, "m": 16}, {"n": 2, "m": 33}])
    check_sized(o.Transpose((2, 1, 0)), ("n", 5, "m"), bounds=BOTH)


def test_region_with_broadcast_operands() -> None:
    op = o.Fused(None, 0, (Instr(o.Mul(), (0, 1)), Instr(o.Add(), (3, 2))))
    bias = np.random.default_rng().standard_normal((1, 7)).astype(np.float32)
    check_sized(op, ("n", "m", 7), ("n", 1, 7), bias, bounds=BOTH)
