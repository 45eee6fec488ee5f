# SPDX-License-Identifier: Apache-2.0
"""Gathers and scatters of elements and blocks against their references, and with indices out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu.kernels.index_elements import IndexElements
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.select import GatherElements, GatherNd, ScatterElements, ScatterNd
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, ordered, rejected, verify, workload

I64, I32, U8, F64, F16, BOOL = DType.i64, DType.i32, DType.u8, DType.f64, DType.f16, DType.bool


def scattered(op: Any, data: Operand, indices: Operand, out: Operand | None = None) -> Workload:
    """The workload with row-major updates of the shape that the op wants."""
    shape = indices.shape
    if isinstance(op, ScatterNd):
        shape = (*indices.shape[:-1], *data.shape[indices.shape[-1] :])
    return workload(op, data, indices, dense(*shape, dtype=data.dtype), out=out)


CASES = {
    "elements": workload(GatherElements(1), dense(3, 9, 5), dense(3, 4, 2, dtype=I64)),
    "elements_i32": workload(GatherElements(0), dense(7), dense(11, dtype=I32)),
    "elements_strided": workload(
        GatherElements(2), ordered((2, 0, 1), 3, 9, 20), ordered((1, 0, 2), 3, 4, 20, dtype=I64)
    ),
    "elements_many": workload(GatherElements(0), dense(50, 300), dense(70, 300, dtype=I64)),
    "elements_bool": workload(GatherElements(1), dense(2, 3, dtype=BOOL), dense(2, 5, dtype=I64)),
    "elements_f16": workload(GatherElements(1), dense(2, 3, dtype=F16), dense(2, 5, dtype=I64)),
    "elements_f64": workload(GatherElements(1), dense(2, 3, dtype=F64), dense(2, 5, dtype=I64)),
    "elements_empty": workload(GatherElements(1), dense(2, 3), dense(2, 0, dtype=I64)),
    "nd": workload(GatherNd(), dense(4, 5, 33), dense(7, 2, dtype=I64)),
    "nd_batch": workload(GatherNd(2), ordered((3, 1, 0, 2), 2, 3, 4, 5), dense(2, 3, 6, 1, dtype=I32)),
    "nd_scalar": workload(GatherNd(), dense(4, 5), dense(2, dtype=I64)),
    "nd_i64": workload(GatherNd(), dense(4, 5, dtype=I64), dense(3, 2, dtype=I64)),
    "scatter": scattered(ScatterElements(1), dense(3, 9, 5), dense(2, 8, 4, dtype=I64)),
    "scatter_strided": scattered(
        ScatterElements(0),
        ordered((1, 0), 30, 7, gap=2),
        ordered((1, 0), 40, 6, dtype=I64),
        out=ordered((1, 0), 30, 7, gap=3),
    ),
    "scatter_bool": scattered(ScatterElements(0), dense(9, dtype=BOOL), dense(4, dtype=I32)),
    "scatter_f16": scattered(ScatterElements(0), dense(9, dtype=F16), dense(4, dtype=I32)),
    "scatter_many": scattered(ScatterElements(0, "add"), dense(40, 300), dense(30, 300, dtype=I64)),
    "scatter_no_updates": scattered(ScatterElements(0), dense(9), dense(0, dtype=I64)),
    "scatter_nd": scattered(ScatterNd(), dense(4, 5, 33), dense(7, 2, dtype=I64)),
    "scatter_nd_elements": scattered(ScatterNd(), dense(4, 5), dense(3, 7, 2, dtype=I64)),
    "scatter_nd_blocks": scattered(ScatterNd("add"), dense(6, 40, 50), dense(9, 1, dtype=I64)),
    "scatter_nd_u8": scattered(ScatterNd("min"), dense(4, 5, dtype=U8), dense(3, 1, dtype=I64)),
    **{
        f"scatter_{how}_{dtype}": scattered(ScatterElements(0, how), dense(5, 3, dtype=dtype), dense(9, 3, dtype=I64))
        for how in ("add", "mul", "max", "min")
        for dtype in (DType.f32, F64, I64, I32, U8)
    },
}


def inputs_of(w: Workload) -> list[Any]:
    """Random data and updates with some NaN, and indices of both signs over the whole range."""
    rng = np.random.default_rng(SEED)
    op: Any = w.op
    arrays = []
    for i, operand in enumerate(w.inputs):
        assert operand is not None
        if i == 1:
            data = w.inputs[0]
            assert data is not None
            if isinstance(op, GatherElements | ScatterElements):
                size = data.shape[op.axis]
            else:
                first = getattr(op, "batch_dims", 0)
                size = min(data.shape[first : first + operand.shape[-1]])
            made = rng.integers(-size, size, operand.shape)
        else:
            made = rng.standard_normal(operand.shape) * 9
            if operand.dtype.is_float:
                made[rng.random(operand.shape) < 0.1] = np.nan
            else:
                made = np.abs(made)
        arrays.append(np.asarray(made).astype(operand.dtype.numpy))
    return arrays


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*CASES])
def test_index_elements_equals_reference(name: str, isa: str) -> None:
    verify(IndexElements(), CASES[name], isa, inputs_of(CASES[name]))


FAR = np.array([0, 5, -6, -5, 1 << 40, -(1 << 62), np.iinfo(np.int64).min, np.iinfo(np.int64).max, 4])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [DType.f32, F16, I64])
def test_gather_of_an_index_out_of_range_shows_as_nan_or_zero(dtype: DType, isa: str) -> None:
    x = np.random.default_rng(SEED).integers(1, 9, 5).astype(dtype.numpy)
    bad = np.nan if dtype.is_float else 0
    want = np.array([x[i] if -5 <= i < 5 else bad for i in FAR.tolist()], x.dtype)
    elements = workload(GatherElements(0), dense(5, dtype=dtype), dense(9, dtype=I64))
    verify(IndexElements(), elements, isa, [x, FAR], want=want)
    blocks = workload(GatherNd(), dense(5, dtype=dtype), dense(9, 1, dtype=I64))
    verify(IndexElements(), blocks, isa, [x, FAR[:, None]], want=want)


@pytest.mark.parametrize("isa", ISAS)
def test_scatter_to_an_index_out_of_range_is_left_out(isa: str) -> None:
    x, updates = (np.random.default_rng(SEED).standard_normal(n).astype(np.float32) for n in (5, 9))
    want = x.copy()
    for i, update in zip(FAR.tolist(), updates, strict=True):
        if -5 <= i < 5:
            want[i] = update
    elements = scattered(ScatterElements(0), dense(5), dense(9, dtype=I64))
    verify(IndexElements(), elements, isa, [x, FAR, updates], want=want)
    blocks = scattered(ScatterNd(), dense(5), dense(9, 1, dtype=I64))
    verify(IndexElements(), blocks, isa, [x, FAR[:, None], updates], want=want)


def test_index_elements_says_why_it_rejects() -> None:
    w = scattered(ScatterElements(0, "add"), dense(5, dtype=F16), dense(9, dtype=I64))
    assert "add of f16" in rejected(IndexElements(), w)
    assert "neither gathers nor scatters" in rejected(IndexElements(), workload(Relu(), dense(3)))


def test_index_elements_compiles_for_neon() -> None:
    for name in ("elements_strided", "nd_batch", "scatter_many", "scatter_nd"):
        compiles_for_neon(IndexElements(), CASES[name])
