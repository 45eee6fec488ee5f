# SPDX-License-Identifier: Apache-2.0
"""Pointwise regions and copies against NumPy: broadcasts, layouts, transposes, dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Gelu, Relu, Sigmoid
from tensorwright.ops.copy import Copy
from tensorwright.ops.elementwise import Abs, Add, Cast, Equal, Floor, Less, Mul, Not, Sub, Where
from tensorwright.ops.fused import Literal
from tensorwright.ops.norm import BatchNorm
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

NCHW, NHWC = (0, 1, 2, 3), (0, 2, 3, 1)
I64, I32, U8, BOOL, F64, F16 = DType.i64, DType.i32, DType.u8, DType.bool, DType.f64, DType.f16

BIAS_RELU = region(None, 2, (Add(), (0, 1)), (Relu(), (2,)))
MASKED = region(None, 3, (Literal(0.5), ()), (Mul(), (1, 3)), (Where(), (0, 4, 2)))

WORKLOADS = {
    "scalar": workload(Sigmoid(), dense()),
    "one_element": workload(Relu(), dense(1, 1, 1)),
    "tiny": workload(Relu(), dense(3)),
    "empty": workload(Relu(), dense(2, 0, 3)),
    "odd": workload(Gelu(), dense(5, 37)),
    "large": workload(region(None, 2, (Add(), (0, 1)), (Gelu(), (2,))), dense(3, 7001), dense(3, 7001)),
    "row_broadcast": workload(BIAS_RELU, dense(33, 70), dense(70)),
    "column_broadcast": workload(BIAS_RELU, dense(33, 70), dense(33, 1)),
    "outer_product": workload(Add(), dense(19, 1), dense(1, 21)),
    "channels_last_bias": workload(
        BIAS_RELU, ordered(NHWC, 2, 24, 5, 6), dense(24, 1, 1), out=ordered(NHWC, 2, 24, 5, 6)
    ),
    "inside_concats": workload(
        BIAS_RELU, ordered(NHWC, 1, 10, 9, 8, gap=3), dense(10, 1, 1), out=ordered(NHWC, 1, 10, 9, 8, gap=6)
    ),
    "mixed_layouts": workload(Add(), ordered(NHWC, 1, 20, 7, 9), dense(1, 20, 7, 9), out=ordered(NHWC, 1, 20, 7, 9)),
    "two_transposed": workload(Add(), ordered((1, 0), 40, 35), ordered((1, 0), 40, 35, gap=2)),
    "interleaved_bias": workload(BIAS_RELU, ordered(NHWC, 1, 3, 9, 11), dense(3, 1, 1), out=ordered(NHWC, 1, 3, 9, 11)),
    "masks": workload(MASKED, dense(6, 1, 45, dtype=BOOL), dense(1, 9, 45), dense(1)),
    "strided_slice": workload(Relu(), view((5, 17), (70, 2))),
    "reversed": workload(Relu(), view((5, 17), (17, -1))),
    "strided_output": workload(Relu(), dense(5, 17), out=view((5, 17), (40, 2))),
    "literal_only": workload(
        region(None, 1, (Literal(2.5), ()), (Literal(1.5), ()), (Add(), (1, 2)), (Mul(), (0, 3))), dense(20)
    ),
    "batch_norm": workload(
        BatchNorm(1e-3), ordered(NHWC, 2, 13, 4, 3), *(dense(13) for _ in range(4)), out=ordered(NHWC, 2, 13, 4, 3)
    ),
    "i64": workload(region(None, 2, (Add(), (0, 1)), (Abs(), (2,))), dense(3, 19, dtype=I64), dense(19, dtype=I64)),
    "i32_to_f32": workload(Cast(DType.f32), dense(35, dtype=I32)),
    "f32_to_i64": workload(Cast(I64), dense(35)),
    "u8_to_f32": workload(
        region(None, 1, (Cast(DType.f32), (0,)), (Literal(1 / 255), ()), (Mul(), (1, 2))),
        ordered(NHWC, 1, 3, 10, 9, dtype=U8),
    ),
    "f64": workload(region(None, 1, (Floor(), (0,)), (Sub(), (0, 1))), dense(21, dtype=F64)),
    "bool": workload(
        region(None, 2, (Equal(), (0, 1)), (Not(), (2,))), dense(4, 33, dtype=I64), dense(4, 1, dtype=I64)
    ),
    "compare": workload(Less(), dense(50), dense(1)),
}

COPIES = {
    "contiguous": Workload(Copy(), (dense(37),), (dense(37),)),
    "to_channels_last_rgb": Workload(Copy(), (dense(1, 3, 14, 15),), (ordered(NHWC, 1, 3, 14, 15),)),
    "to_planar_rgb": Workload(Copy(), (ordered(NHWC, 2, 3, 14, 15),), (dense(2, 3, 14, 15),)),
    "to_channels_last": Workload(Copy(), (dense(2, 40, 9, 7),), (ordered(NHWC, 2, 40, 9, 7),)),
    "to_planar": Workload(Copy(), (ordered(NHWC, 2, 40, 9, 7, gap=1),), (dense(2, 40, 9, 7),)),
    "heads": Workload(Copy(), (ordered((0, 2, 1, 3), 2, 3, 10, 24),), (dense(2, 3, 10, 24),)),
    "bool_transpose": Workload(Copy(), (ordered((1, 0), 50, 33, dtype=BOOL),), (dense(50, 33, dtype=BOOL),)),
    "i64_transpose": Workload(Copy(), (ordered((1, 0), 21, 18, dtype=I64),), (dense(21, 18, dtype=I64),)),
    "f16": Workload(Copy(), (ordered((1, 0), 9, 5, dtype=F16),), (dense(9, 5, dtype=F16),)),
    "expand": Workload(Copy(), (view((6, 4, 10), (0, 1, 0)),), (dense(6, 4, 10),)),
    "pairs": Workload(Copy(), (ordered((1, 0), 2, 70),), (dense(2, 70),)),
    "into_one_channel": Workload(Copy(), (dense(5, 6),), (view((5, 6), (18, 3)),)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*WORKLOADS])
def test_pointwise_region_equals_reference(name: str, isa: str) -> None:
    verify(PointwiseNd(), WORKLOADS[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*COPIES])
def test_copy_moves_every_element(name: str, isa: str) -> None:
    verify(PointwiseNd(), COPIES[name], isa)


@pytest.mark.parametrize("isa", ISAS)
def test_pointwise_nan_and_infinity_flow(isa: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38] * 5, np.float32).reshape(5, 7)
    verify(PointwiseNd(), workload(BIAS_RELU, dense(5, 7), dense(7)), isa, [x, x[0][::-1].copy()])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["large", "channels_last_bias", "interleaved_bias", "mixed_layouts", "scalar"])
def test_pointwise_in_place_equals_reference(name: str, isa: str) -> None:
    verify_in_place(PointwiseNd(), WORKLOADS[name], isa)


def _random_operand(rng: np.random.Generator, shape: tuple[int, ...], *, may_broadcast: bool) -> Operand:
    """Axes in random order with random gaps; some broadcast, some leading ones left out."""
    dims = [1 if may_broadcast and rng.random() < 0.2 else d for d in shape]
    strides, step = [0] * len(dims), 1
    for axis in rng.permutation(len(dims)):
        strides[axis] = step
        step = step * dims[axis] + int(rng.random() < 0.25)
    first = int(rng.integers(0, len(dims) + 1)) if may_broadcast and rng.random() < 0.2 else 0
    return view(dims[first:], strides[first:])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("number", range(20))
def test_pointwise_random_layouts_equal_reference(number: int, isa: str) -> None:
    rng = np.random.default_rng([SEED, number])
    shape = tuple(int(d) for d in rng.choice([1, 2, 3, 5, 7, 9, 16, 19, 33], int(rng.integers(1, 5))))
    inputs = [_random_operand(rng, shape, may_broadcast=k > 0) for k in range(3)]
    op = region(None, 3, (Sub(), (0, 1)), (Mul(), (3, 2)))
    verify(PointwiseNd(), workload(op, *inputs, out=_random_operand(rng, shape, may_broadcast=False)), isa, most=1)


def test_pointwise_rejects_what_it_cannot_emit() -> None:
    assert "relu of f8e5m2" in rejected(PointwiseNd(), workload(Relu(), dense(3, dtype=DType.f8e5m2)))
    assert "cast to f8e8m0fnu" in rejected(PointwiseNd(), workload(Cast(DType.f8e8m0fnu), dense(3)))
    assert "not pointwise" in rejected(PointwiseNd(), workload(region(Relu(), 1, (Relu(), (1,))), dense(3)))


def test_pointwise_compiles_for_neon() -> None:
    compiles_for_neon(PointwiseNd(), WORKLOADS["channels_last_bias"])
    compiles_for_neon(PointwiseNd(), COPIES["to_channels_last"])
