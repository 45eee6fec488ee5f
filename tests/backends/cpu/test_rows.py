# SPDX-License-Identifier: Apache-2.0
"""Softmax, normalisations, reductions and arg-extremes against NumPy, along every kind of axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.base import KernelFamily, Workload
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.kernels.arg_extreme import ArgExtreme
from tensorwright.backends.cpu.kernels.norm import NormRows
from tensorwright.backends.cpu.kernels.reduce import ReduceNd
from tensorwright.backends.cpu.kernels.softmax import SoftmaxRows
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.elementwise import Add
from tensorwright.ops.index import ArgMax, ArgMin
from tensorwright.ops.norm import InstanceNorm, LayerNorm
from tensorwright.ops.reduce import How, LogSoftmax, Reduce, Softmax
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    region,
    rejected,
    verify,
    verify_in_place,
    view,
    workload,
)

NHWC = (0, 2, 3, 1)
I64, I32, U8, BOOL = DType.i64, DType.i32, DType.u8, DType.bool
NUMBERS = [d for d in ELEMENTS if d not in (DType.f32, BOOL)]
HOWS: tuple[How, ...] = ("sum", "prod", "max", "min")
MEAN_HW = Reduce("mean", (2, 3))

SOFTMAX = {
    "short": workload(Softmax(1), dense(7, 10)),
    "one_element": workload(Softmax(0), dense(1)),
    "in_registers": workload(Softmax(2), dense(2, 3, 150)),
    "long": workload(Softmax(1), dense(3, 1003)),
    "long_log": workload(LogSoftmax(1), dense(3, 1003)),
    "log": workload(LogSoftmax(1), dense(5, 33)),
    "outer_axis": workload(Softmax(0), dense(9, 21)),
    "outer_axis_long": workload(Softmax(1), dense(2, 70, 37)),
    "channels_last": workload(Softmax(1), ordered(NHWC, 1, 21, 6, 5, gap=3), out=ordered(NHWC, 1, 21, 6, 5)),
    "strided": workload(Softmax(1), view((4, 9), (50, 5))),
    "strided_long": workload(LogSoftmax(1), view((2, 300), (900, 3)), out=view((2, 300), (601, 2))),
    "epilogue": workload(region(Softmax(1), 1, (Add(), (2, 1)), (Relu(), (3,))), dense(4, 600), dense(600)),
    "many_rows": workload(Softmax(3), dense(2, 4, 40, 49)),
    "empty": workload(Softmax(1), dense(0, 5)),
}
NORM = {
    "layer": workload(LayerNorm(2), dense(2, 5, 96), dense(96), dense(96)),
    "layer_long": workload(LayerNorm(1), dense(3, 1000), dense(1000), dense(1000)),
    "layer_without_bias": workload(LayerNorm(1, 1e-3), dense(3, 41), dense(41)),
    "layer_absent_bias": workload(LayerNorm(1), dense(3, 41), dense(41), None),
    "layer_two_axes": workload(LayerNorm(1), view((3, 5, 23), (200, 30, 1)), dense(5, 23), dense(5, 23)),
    "layer_scalar_scale": workload(LayerNorm(1), dense(3, 50), dense(1), dense(3, 1)),
    "layer_strided": workload(LayerNorm(1), ordered((1, 0), 30, 12), dense(12), dense(12), out=dense(30, 12)),
    "layer_residual": workload(
        region(LayerNorm(1), 3, (Add(), (3, 4))), dense(9, 70), dense(70), dense(70), dense(9, 70)
    ),
    "instance_channels_last": workload(
        InstanceNorm(), ordered(NHWC, 2, 21, 9, 7), dense(21), dense(21), out=ordered(NHWC, 2, 21, 9, 7)
    ),
    "instance_planar": workload(InstanceNorm(), dense(2, 3, 9, 17), dense(3), dense(3)),
    "empty": workload(LayerNorm(1), dense(0, 8), dense(8), dense(8)),
}
REDUCE = {
    "global_average_channels_last": workload(MEAN_HW, ordered(NHWC, 1, 70, 7, 7)),
    "global_average_planar": workload(MEAN_HW, dense(2, 5, 9, 7)),
    "global_average_epilogue": workload(
        region(MEAN_HW, 1, (Add(), (2, 1))), ordered(NHWC, 2, 20, 5, 5), dense(20, 1, 1)
    ),
    "rows": workload(Reduce("sum", (1,), False), dense(9, 1001)),
    "columns": workload(Reduce("sum", (0,), False), dense(301, 45)),
    "outer_and_inner": workload(Reduce("mean", (0, 2), False), dense(6, 5, 37)),
    "everything": workload(Reduce("sum", (0, 1, 2), False), dense(6, 5, 37)),
    "strided": workload(Reduce("max", (1,)), view((5, 20), (100, 3))),
    "prod": workload(Reduce("prod", (1,)), dense(4, 9)),
    "max": workload(Reduce("max", (0, 2)), dense(3, 4, 50)),
    "min_columns": workload(Reduce("min", (1,), False), dense(3, 40, 33)),
    "i64_sum": workload(Reduce("sum", (1,)), dense(3, 40, dtype=I64)),
    "i32_min": workload(Reduce("min", (0,)), dense(30, 21, dtype=I32)),
    "bool_any": workload(Reduce("max", (1,)), dense(30, 3, dtype=BOOL)),
    "u8_max": workload(Reduce("max", (1,)), dense(3, 100, dtype=U8)),
    "large_few_channels": workload(MEAN_HW, ordered(NHWC, 1, 20, 60, 56)),
    "large_parts_epilogue": workload(region(MEAN_HW, 1, (Add(), (2, 1))), ordered(NHWC, 2, 9, 70, 60), dense(9, 1, 1)),
    "large_everything": workload(Reduce("max", (0, 1), False), dense(260, 301)),
    "large_everything_mean": workload(Reduce("mean", (0,), True), dense(70000)),
    "unit_axis": workload(Reduce("sum", (1,), False), dense(6, 1, 5)),
    **{f"{d}_{how}": workload(Reduce(how, (1,)), dense(3, 77, dtype=d)) for d in NUMBERS for how in HOWS},
    **{f"{d}_min_columns": workload(Reduce("min", (0,)), dense(33, 9, dtype=d)) for d in NUMBERS},
    "i64_mean": workload(Reduce("mean", (1,)), dense(3, 40, dtype=I64)),
    "u64_mean": workload(Reduce("mean", (0,)), dense(31, 5, dtype=DType.u64)),
    "f64_mean": workload(Reduce("mean", (1,)), dense(3, 40, dtype=DType.f64)),
    "bool_all": workload(Reduce("min", (1,)), dense(30, 3, dtype=BOOL)),
    "empty": workload(Reduce("sum", (1,)), dense(0, 3)),
}
ARG = {
    "row": workload(ArgMax(1), dense(5, 301)),
    "last": workload(ArgMax(1, False, True), dense(5, 37, dtype=U8)),
    "columns": workload(ArgMin(0), dense(31, 45)),
    "middle": workload(ArgMax(1, False), ordered(NHWC, 1, 21, 5, 6)),
    "i64": workload(ArgMin(1), dense(4, 33, dtype=I64)),
    "strided": workload(ArgMax(1), view((3, 20), (90, 4))),
    "single": workload(ArgMax(0), dense(1)),
    **{f"{d}_max": workload(ArgMax(1), dense(4, 70, dtype=d)) for d in NUMBERS},
    **{f"{d}_min": workload(ArgMin(0), dense(20, 5, dtype=d)) for d in NUMBERS},
}
CASES: list[tuple[KernelFamily[Any, Any, Any], str, Workload]] = [
    (family, name, w)
    for family, table in ((SoftmaxRows(), SOFTMAX), (NormRows(), NORM), (ReduceNd(), REDUCE), (ArgExtreme(), ARG))
    for name, w in table.items()
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("family", "name", "w"), CASES, ids=[f"{f.name}-{n}" for f, n, _ in CASES])
def test_row_kernel_equals_reference(family: KernelFamily[Any, Any, Any], name: str, w: Workload, isa: str) -> None:
    verify(family, w, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["in_registers", "long", "long_log", "outer_axis_long"])
def test_softmax_in_place_equals_reference(name: str, isa: str) -> None:
    verify_in_place(SoftmaxRows(), SOFTMAX[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["layer", "layer_long", "instance_channels_last"])
def test_norm_in_place_equals_reference(name: str, isa: str) -> None:
    verify_in_place(NormRows(), NORM[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", [Softmax(1), LogSoftmax(1)])
@pytest.mark.parametrize("n", [20, 700])
def test_softmax_special_rows_equal_reference(n: int, op: Softmax, isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((6, n)).astype(np.float32)
    x[0] = -np.inf
    x[1, 3], x[2, n - 1], x[3, 2], x[4, ::2] = np.nan, np.inf, -np.inf, -1e38
    x[5] = 300 * x[5]
    verify(SoftmaxRows(), workload(op, dense(6, n)), isa, [x])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("how", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reduce_nan_and_infinity_reach_the_result(axis: int, how: Any, isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((50, 52)).astype(np.float32)
    x[3, 5], x[40, 49], x[17, 20] = np.nan, np.inf, -np.inf
    verify(ReduceNd(), workload(Reduce(how, (axis,)), dense(50, 52)), isa, [x])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("op", [ArgMax, ArgMin])
@pytest.mark.parametrize("axis", [0, 1])
def test_arg_extreme_ties_and_nan_follow_the_reference(axis: int, op: Any, last: bool, isa: str) -> None:
    x = np.random.default_rng(SEED).integers(0, 3, (40, 37)).astype(np.float32)
    x[5], x[:, 6], x[7, 8], x[7, 9], x[20, 1] = -np.inf, np.inf, np.nan, np.nan, np.nan
    verify(ArgExtreme(), workload(op(axis, True, last), dense(40, 37)), isa, [x])


@pytest.mark.parametrize("isa", ISAS)
def test_layer_norm_of_offset_rows_keeps_its_precision(isa: str) -> None:
    x = (np.random.default_rng(SEED).standard_normal((4, 384)) + 1000).astype(np.float32)
    one, zero = np.ones(384, np.float32), np.zeros(384, np.float32)
    w = workload(LayerNorm(1), dense(4, 384), dense(384), dense(384))
    (want,) = w.op.reference(x.astype(np.float64), one.astype(np.float64), zero.astype(np.float64))
    verify(NormRows(), w, isa, [x, one, zero], want=want.astype(np.float32))


def test_row_families_say_why_they_reject() -> None:
    assert "f64" in rejected(SoftmaxRows(), workload(Softmax(0), dense(3, dtype=DType.f64)))
    assert "may not fit i8" in rejected(ReduceNd(), workload(Reduce("mean", (0,)), dense(3, dtype=DType.i8)))
    assert "empty" in rejected(ReduceNd(), workload(Reduce("sum", (1,)), dense(3, 0)))
    assert "softmax is neither" in rejected(NormRows(), SOFTMAX["short"])


def test_row_kernels_compile_for_neon() -> None:
    for family, w in (
        (SoftmaxRows(), SOFTMAX["long"]),
        (NormRows(), NORM["layer"]),
        (ReduceNd(), REDUCE["outer_and_inner"]),
        (ArgExtreme(), ARG["row"]),
    ):
        compiles_for_neon(family, w)
