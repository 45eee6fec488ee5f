# SPDX-License-Identifier: Apache-2.0
"""Pooling and local response normalisation against NumPy: borders, layouts, special values."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu.kernels.lrn import LrnChannels
from tensorwright.backends.cpu.kernels.pool import PoolNd
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ops.activation import Relu
from tensorwright.ops.elementwise import Mul
from tensorwright.ops.norm import Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    region,
    rejected,
    verify,
    workload,
)

NHWC = (0, 2, 3, 1)


def last(*shape: int, gap: int = 0) -> Operand:
    """Channels-last in memory."""
    return ordered((0, *range(2, len(shape)), 1), *shape, gap=gap)


def in_place_order(op: Op, x: Operand, *more: Operand, gap: int = 0) -> Workload:
    """The output is channels-last too."""
    (result,) = op.infer(x.type, *(o.type for o in more))
    return workload(op, x, *more, out=last(*result.static_shape, gap=gap))


POOLS = {
    "max_3x3_stride_2": in_place_order(MaxPool((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)), last(2, 24, 13, 12)),
    "max_2x2_inside_concats": in_place_order(
        MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), last(1, 70, 9, 8, gap=2), gap=5
    ),
    "max_5x5_stride_1": in_place_order(MaxPool((5, 5), (1, 1), (2, 2, 2, 2), (1, 1)), last(1, 33, 7, 6)),
    "max_ceil": in_place_order(MaxPool((3, 3), (2, 2), (0, 0, 0, 0), (1, 1), True), last(1, 16, 8, 8)),
    "max_dilated": in_place_order(MaxPool((3, 2), (1, 2), (2, 1, 2, 1), (2, 3)), last(1, 5, 9, 11)),
    "max_planar": workload(MaxPool((2, 3), (2, 1), (1, 0, 0, 1), (1, 1)), dense(2, 6, 7, 9)),
    "max_to_planar": workload(MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), last(1, 20, 6, 6)),
    "max_window_in_padding": in_place_order(MaxPool((2, 2), (1, 1), (2, 2, 2, 2), (1, 1)), last(1, 3, 2, 2)),
    "max_1d": in_place_order(MaxPool((3,), (2,), (1, 1), (1,)), last(2, 9, 15)),
    "max_3d": in_place_order(MaxPool((2, 2, 3), (1, 2, 1), (1, 0, 1, 0, 1, 1), (1, 1, 1)), last(1, 7, 3, 5, 6)),
    "max_one_channel": workload(MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), dense(1, 1, 10, 10)),
    "max_wide_kernel": in_place_order(MaxPool((1, 40), (1, 1), (0, 20, 0, 20), (1, 1)), last(1, 4, 2, 45)),
    "average": in_place_order(AveragePool((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)), last(1, 21, 6, 7)),
    "average_with_pads": in_place_order(
        AveragePool((3, 3), (2, 2), (1, 0, 1, 2), (1, 1), False, True), last(1, 21, 6, 7)
    ),
    "average_ceil_with_pads": in_place_order(
        AveragePool((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), True, True), last(1, 18, 8, 8)
    ),
    "average_global": in_place_order(AveragePool((7, 7), (1, 1), (0, 0, 0, 0), (1, 1)), last(1, 300, 7, 7)),
    "average_planar": workload(AveragePool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), dense(1, 6, 8, 9)),
    "epilogue": in_place_order(
        region(MaxPool((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)), 1, (Mul(), (2, 1)), (Relu(), (3,))),
        last(1, 20, 9, 9),
        dense(20, 1, 1),
    ),
    "empty_batch": in_place_order(MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), last(0, 3, 4, 4)),
}
LRNS = {
    "channels_last": in_place_order(Lrn(5, 1e-2, 0.75, 2.0), last(1, 64, 5, 4)),
    "ragged": in_place_order(Lrn(5, 1e-1), last(2, 37, 3, 3, gap=3)),
    "few_channels": in_place_order(Lrn(5, 1e-1), last(1, 3, 4, 4)),
    "one_channel": in_place_order(Lrn(5, 1e-1), last(1, 1, 8, 5)),
    "one_channel_among_strides": in_place_order(Lrn(3, 1e-1), last(1, 1, 8, 5, gap=3)),
    "even_window": in_place_order(Lrn(4, 0.5, 0.5), last(1, 20, 3, 3)),
    "wide_window": in_place_order(Lrn(31, 0.5, 1.0), last(1, 50, 2, 3)),
    "window_of_all": in_place_order(Lrn(101, 0.5, 0.6), last(1, 50, 2, 3)),
    "planar": workload(Lrn(3, 0.3, 0.6), dense(2, 7, 5, 9)),
    "matrix": workload(Lrn(3, 0.3), dense(6, 40)),
    "epilogue": in_place_order(region(Lrn(3, 0.1), 1, (Relu(), (1,))), last(1, 33, 3, 3)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*POOLS])
def test_pool_equals_reference(name: str, isa: str) -> None:
    verify(PoolNd(), POOLS[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*LRNS])
def test_lrn_equals_reference(name: str, isa: str) -> None:
    verify(LrnChannels(), LRNS[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["max_3x3_stride_2", "max_5x5_stride_1", "average"])
def test_pool_nan_and_infinity_reach_their_windows(name: str, isa: str) -> None:
    w = POOLS[name]
    assert w.inputs[0] is not None
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal(w.inputs[0].shape).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        x[rng.random(x.shape) < 0.03] = value
    x[0, 2] = -np.inf
    verify(PoolNd(), w, isa, [x])


@pytest.mark.parametrize("isa", ISAS)
def test_lrn_nan_and_infinity_reach_their_windows(isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((1, 37, 3, 3)).astype(np.float32)
    x[0, 5, 0, 0], x[0, 30, 1, 1] = np.nan, np.inf
    verify(LrnChannels(), in_place_order(Lrn(5, 1e-1), last(1, 37, 3, 3)), isa, [x])


def test_pool_and_lrn_say_why_they_reject() -> None:
    f64 = Operand(DType.f64, (1, 2, 4, 4), (32, 16, 4, 1))
    assert "f64" in rejected(PoolNd(), workload(MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), f64))
    assert "f64" in rejected(LrnChannels(), workload(Lrn(3), f64))
    four = MaxPool((1,) * 4, (1,) * 4, (0,) * 8, (1,) * 4)
    assert "4 spatial" in rejected(PoolNd(), workload(four, dense(1, 1, 2, 2, 2, 2)))


def test_pool_and_lrn_compile_for_neon() -> None:
    compiles_for_neon(PoolNd(), POOLS["average"])
    compiles_for_neon(LrnChannels(), LRNS["ragged"])
