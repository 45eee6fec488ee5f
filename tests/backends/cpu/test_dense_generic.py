# SPDX-License-Identifier: Apache-2.0
"""Products, convolutions and pools of f64 and integers against NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.kernels.dense_generic import DenseGeneric
from tensorwright.ir.dtype import DType
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.linear import MatMul
from tensorwright.ops.pool import AveragePool, MaxPool
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    rejected,
    verify,
    view,
    workload,
)

NUMBERS = [d for d in ELEMENTS if d not in (DType.f32, DType.bool)]
NHWC = (0, 2, 3, 1)


def d(*shape: int) -> Operand:
    return dense(*shape, dtype=DType.f64)


def image(*shape: int) -> Operand:
    return ordered(NHWC, *shape, dtype=DType.f64)


CASES = {
    "rows": workload(MatMul(), d(7, 33), d(33, 21)),
    "broadcast": workload(MatMul(), d(2, 1, 5, 8), d(3, 8, 9)),
    "vector_left": workload(MatMul(), d(8), d(3, 8, 9)),
    "vector_right": workload(MatMul(), d(3, 5, 8), d(8)),
    "dot": workload(MatMul(), d(8), d(8)),
    "no_terms": workload(MatMul(), d(3, 0), d(0, 5)),
    "empty": workload(MatMul(), d(0, 3), d(3, 5)),
    "transposed": workload(MatMul(), view((5, 6), (1, 7), DType.f64), view((6, 9), (1, 8), DType.f64)),
    "conv": workload(Convolution((2, 1), (1, 0, 2, 1), (1, 2), 1), d(2, 5, 9, 8), d(7, 5, 3, 3)),
    "conv_1d": workload(Convolution((2,), (1, 2), (1,), 1), d(1, 3, 11), d(9, 3, 4)),
    "conv_3d": workload(Convolution((1,) * 3, (1,) * 6, (1,) * 3, 1), d(1, 2, 4, 5, 3), d(3, 2, 3, 3, 3)),
    "conv_groups": workload(
        Convolution((1, 1), (1, 1, 1, 1), (1, 1), 3), image(1, 6, 5, 4), d(9, 2, 3, 3), out=image(1, 9, 5, 4)
    ),
    "deconv": workload(Deconvolution((2, 3), (1, 0, 0, 1), (1, 1), 1, (1, 0)), d(1, 6, 4, 5), d(6, 8, 3, 2)),
    "deconv_groups": workload(Deconvolution((1, 2), (0, 0, 0, 0), (2, 1), 2, (0, 0)), d(2, 4, 3, 5), d(4, 3, 2, 2)),
    "max_pool": workload(MaxPool((3, 2), (2, 1), (1, 0, 1, 1), (1, 2), True), d(2, 5, 9, 8)),
    "average_pool": workload(AveragePool((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)), image(2, 5, 9, 8)),
    "average_pool_padded": workload(AveragePool((3, 2), (2, 2), (1, 0, 1, 1), (1, 1), True, True), d(1, 3, 8, 9)),
}
for _t in (DType.i32, DType.i64, DType.i8):  # weights as they are, and constant ones, which are packed
    for _name, _x, _w, _conv in (
        ("odd", (2, 5, 9, 8), (7, 5, 3, 3), Convolution((2, 1), (1, 0, 2, 1), (1, 2), 1)),
        ("groups", (1, 6, 5, 4), (18, 2, 3, 3), Convolution((1, 1), (1, 1, 1, 1), (1, 1), 3)),
        ("depthwise", (1, 19, 6, 5), (19, 1, 3, 3), Convolution((1, 1), (1, 1, 1, 1), (1, 1), 19)),
        ("wide", (1, 33, 3, 3), (70, 33, 1, 1), Convolution((1, 1), (0,) * 4, (1, 1), 1)),
        ("line", (1, 3, 11), (9, 3, 4), Convolution((2,), (1, 2), (1,), 1)),
    ):
        _weights = dense(*_w, dtype=_t)
        CASES[f"conv_{_name}_{_t}"] = workload(_conv, dense(*_x, dtype=_t), _weights)
        CASES[f"conv_{_name}_{_t}_constant"] = workload(
            _conv, dense(*_x, dtype=_t), dataclasses.replace(_weights, constant=True)
        )
CASES |= {f"matmul_{t}": workload(MatMul(), dense(5, 9, dtype=t), dense(9, 37, dtype=t)) for t in NUMBERS}
CASES |= {f"max_pool_{t}": workload(MaxPool((2,), (1,), (1, 1), (1,)), dense(2, 19, 7, dtype=t)) for t in NUMBERS}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_generic_kernel_equals_reference(name: str, isa: str) -> None:
    verify(DenseGeneric(), CASES[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [t for t in NUMBERS if t.is_integer], ids=str)
def test_integer_products_wrap(dtype: DType, isa: str) -> None:
    rng, info = np.random.default_rng(SEED), np.iinfo(dtype.numpy)
    a, b = (rng.integers(info.min, info.max, s, dtype.numpy, endpoint=True) for s in ((3, 20), (20, 7)))
    verify(DenseGeneric(), workload(MatMul(), dense(3, 20, dtype=dtype), dense(20, 7, dtype=dtype)), isa, [a, b])


@pytest.mark.parametrize("isa", ISAS)
def test_max_pool_of_nan_is_nan(isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((1, 5, 9))
    x[0, 2, 4], x[0, 1, 0], x[0, 3, 8] = np.nan, np.inf, -np.inf
    verify(DenseGeneric(), workload(MaxPool((3,), (1,), (1, 1), (1,)), d(1, 5, 9)), isa, [x])


def test_generic_leaves_f32_and_other_ops_to_others() -> None:
    assert "input is f32" in rejected(DenseGeneric(), workload(MatMul(), dense(3, 4), dense(4, 3)))
    biased = workload(Convolution((1,), (0, 0), (1,), 1), d(1, 3, 11), d(9, 3, 4), d(9))
    assert "bias" in rejected(DenseGeneric(), biased)


def test_generic_kernels_compile_for_neon() -> None:
    for name in ("rows", "conv", "max_pool_i8"):
        compiles_for_neon(DenseGeneric(), CASES[name])
