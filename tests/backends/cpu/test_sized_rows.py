# SPDX-License-Identifier: Apache-2.0
"""Softmax, normalisations and reductions whose sizes are known only in a run."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Instr
from tests.backends.cpu.sized_check import check_sized
from tests.suites.op_case import Spec

BOTH = {"n": (1, 4, 9), "m": (1, 20, 70)}
ENDS = [{"n": 3, "m": k} for k in (2, 15, 16, 17, 63, 64, 65)]


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng().standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_along_every_axis(axis: int) -> None:
    check_sized(o.Softmax(axis), ("n", "m", 33), bounds=BOTH, at=ENDS, families=["softmax_rows"])
    check_sized(o.LogSoftmax(axis), ("n", 20, "m"), bounds=BOTH, at=ENDS, families=["softmax_rows"])


def test_layer_norm_of_symbolic_rows_and_of_symbolic_length() -> None:
    norm = o.LayerNorm(2, 1e-5)
    check_sized(norm, ("n", "m", 48), weights(48), weights(48), bounds=BOTH, families=["norm_rows"])
    check_sized(o.InstanceNorm(1e-5), ("n", 5, "m"), weights(5), weights(5), bounds=BOTH, at=ENDS)


@pytest.mark.parametrize("how", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_reductions(how: str, axes: tuple[int, ...]) -> None:
    spec = Spec(("n", "m", 19), "positive")  # type: ignore[arg-type]
    check_sized(o.Reduce(how, axes, False), spec, bounds={"n": (1, 2, 3), "m": (1, 20, 37)}, at=ENDS[:1])
    if how != "mean":
        ints = Spec(("n", 4, "m"), "integers", DType.i32)  # type: ignore[arg-type]
        check_sized(o.Reduce(how, axes, True), ints, bounds=BOTH)


def test_reduction_with_epilogue() -> None:
    op = o.Fused(o.Reduce("mean", (1,), True), 1, (Instr(o.Mul(), (2, 1)),))
    check_sized(op, ("n", "m", 7), ("n", 1, 7), bounds=BOTH, at=ENDS)
