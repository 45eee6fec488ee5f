# SPDX-License-Identifier: Apache-2.0
"""Gather, and the table-driven ops, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.base import Workload
from tensorwright.backends.cpu.kernels.gather import GatherRows
from tensorwright.backends.cpu.kernels.index_maps import DimMap, Run
from tensorwright.backends.cpu.kernels.resize import ResizeTables
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.elementwise import Add
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Pad, Resize, Slice, Tile
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
I64, I32, U8, F64, F16, BOOL = DType.i64, DType.i32, DType.u8, DType.f64, DType.f16, DType.bool

GATHERS = {
    "rows": workload(Gather(0), dense(30, 70), dense(9, dtype=I64)),
    "wide_rows": workload(Gather(0), dense(5, 1000), dense(2, 3, dtype=I32)),
    "middle": workload(Gather(1), dense(3, 9, 20), dense(4, dtype=I64)),
    "elements": workload(Gather(1), dense(3, 9), dense(4, 2, dtype=I64)),
    "scalar_index": workload(Gather(0), dense(9, 5), dense(dtype=I64)),
    "strided_data": workload(Gather(1), ordered((2, 0, 1), 3, 9, 20), dense(4, dtype=I64)),
    "f64": workload(Gather(0), dense(9, 5, dtype=F64), dense(4, dtype=I64)),
    "i64": workload(Gather(0), dense(9, dtype=I64), dense(4, dtype=I64)),
    "bool": workload(Gather(0), dense(9, 33, dtype=BOOL), dense(4, dtype=I64)),
    "epilogue": workload(region(Gather(0), 2, (Add(), (3, 2))), dense(9, 20), dense(4, dtype=I64), dense(4, 20)),
    "empty": workload(Gather(0), dense(9, 20), dense(0, dtype=I64)),
}


def resize(mode: Any, shape: tuple[int, ...], sizes: tuple[int, ...], **attributes: Any) -> Workload:
    """Channels-last unless the rank is 2."""
    op = Resize(mode, sizes, tuple(b / a for a, b in zip(shape, sizes, strict=True)), **attributes)
    order = NHWC if len(shape) == 4 else tuple(range(len(shape)))
    return workload(op, ordered(order, *shape), out=ordered(order, *sizes))


TABLES = {
    "nearest_2x": resize("nearest", (1, 40, 5, 6), (1, 40, 10, 12), coordinates="asymmetric", rounding="floor"),
    "nearest_odd": resize("nearest", (2, 7, 5, 6), (2, 7, 8, 3)),
    "nearest_planar": workload(Resize("nearest", (1, 3, 8, 10), (1, 1, 2, 2)), dense(1, 3, 4, 5)),
    "nearest_u8": workload(Resize("nearest", (4, 10), (2, 2)), dense(2, 5, dtype=U8)),
    "linear": resize("linear", (1, 21, 5, 6), (1, 21, 9, 4)),
    "linear_align_corners": resize("linear", (1, 18, 5, 6), (1, 18, 10, 12), coordinates="align_corners"),
    "linear_planar": workload(
        Resize("linear", (2, 3, 7, 9), (1, 1, 7 / 4, 9 / 5), "pytorch_half_pixel"), dense(2, 3, 4, 5)
    ),
    "linear_one_dim": workload(Resize("linear", (3, 11), (1, 11 / 4)), dense(3, 4)),
    "cubic": resize("cubic", (1, 17, 5, 6), (1, 17, 9, 7)),
    "cubic_exclude_outside": resize("cubic", (1, 4, 5, 6), (1, 4, 4, 9), cubic_coeff=-0.5, exclude_outside=True),
    "linear_epilogue": workload(
        region(Resize("linear", (1, 20, 8, 8), (1, 1, 2, 2)), 1, (Add(), (2, 1)), (Relu(), (3,))),
        ordered(NHWC, 1, 20, 4, 4),
        ordered(NHWC, 1, 20, 8, 8),
        out=ordered(NHWC, 1, 20, 8, 8),
    ),
    "pad_constant": workload(Pad((0, 1, 2, 1, 0, 3), value=-1.5), dense(2, 3, 40)),
    "pad_crop": workload(Pad((0, -1, 2, -3)), dense(5, 20)),
    "pad_channels_last": workload(
        Pad((0, 0, 1, 1, 0, 2, 1, 1), value=2.0), ordered(NHWC, 1, 20, 4, 5), out=ordered(NHWC, 1, 22, 6, 7)
    ),
    "pad_infinite": workload(Pad((1, 2), value=-np.inf), dense(18)),
    "pad_reflect": workload(Pad((2, 3, 1, 2), "reflect"), dense(4, 19)),
    "pad_edge": workload(Pad((2, 3, 1, 2), "edge"), dense(4, 19)),
    "pad_wrap": workload(Pad((0, 3, 1, 2), "wrap"), dense(4, 19)),
    "pad_i64": workload(Pad((1, 1), value=7.0), dense(5, dtype=I64)),
    "pad_negative_i64": workload(Pad((1, 1), value=-7.0), dense(5, dtype=I64)),
    "pad_high_u8": workload(Pad((1, 20), value=255.0), dense(5, dtype=U8)),
    "pad_f16": workload(Pad((1, 1), value=-2.0), dense(5, dtype=F16)),
    "tile": workload(Tile((2, 3)), dense(4, 19)),
    "tile_many": workload(Tile((2, 40)), dense(2, 3)),
    "slice_reversed": workload(Slice((4, 18), (-1, 2), (0, 1), (-2, -3)), dense(5, 19)),
    "slice_reversed_rows": workload(Slice((4,), (-1,), (0,), (-1,)), dense(5, 40)),
    "one_element": workload(Pad((0, 0)), dense(1)),
    "empty": workload(Tile((0, 2)), dense(2, 3)),
}


def gather_inputs(w: Workload) -> list[Any]:
    """Random data, and indices of both signs over the whole range."""
    rng = np.random.default_rng(SEED)
    data, indices, *extras = w.inputs
    assert data is not None and indices is not None
    size = data.shape[getattr(w.op, "anchor", w.op).axis]
    values = rng.standard_normal(data.shape) * 9
    more = [rng.standard_normal(e.shape).astype(np.float32) for e in extras if e is not None]
    return [
        values.astype(data.dtype.numpy),
        rng.integers(-size, size, indices.shape).astype(indices.dtype.numpy),
        *more,
    ]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*GATHERS])
def test_gather_equals_reference(name: str, isa: str) -> None:
    verify(GatherRows(), GATHERS[name], isa, gather_inputs(GATHERS[name]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [DType.f32, F64, F16, I64, U8])
def test_gather_out_of_range_index_shows_as_nan_or_zero(dtype: DType, isa: str) -> None:
    x = np.random.default_rng(SEED).integers(1, 9, (5, 20)).astype(dtype.numpy)
    indices = np.array([0, 5, -6, -5, 1 << 40, -(1 << 62), 4], np.int64)
    bad = np.nan if dtype.is_float else 0
    want = np.stack([x[i] if -5 <= i < 5 else np.full(20, bad, x.dtype) for i in indices])
    verify(
        GatherRows(), workload(Gather(0), dense(5, 20, dtype=dtype), dense(7, dtype=I64)), isa, [x, indices], want=want
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*TABLES])
def test_table_op_equals_reference(name: str, isa: str) -> None:
    verify(ResizeTables(), TABLES[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["nearest_odd", "linear", "pad_edge"])
def test_table_op_nan_and_infinity_flow(name: str, isa: str) -> None:
    w = TABLES[name]
    assert w.inputs[0] is not None
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal(w.inputs[0].shape).astype(np.float32)
    x[rng.random(x.shape) < 0.05], x[rng.random(x.shape) < 0.05] = np.nan, np.inf
    verify(ResizeTables(), w, isa, [x])


def test_runs_of_a_map_cover_it_in_order() -> None:
    assert DimMap.of(np.array([[0], [0], [0], [1], [2], [-1], [-1]])).runs == [
        Run(0, 3, 0, 0),
        Run(3, 5, 1, 1),
        Run(5, 7, -1, None),
    ]
    assert DimMap.of(np.array([[4], [2], [0]])).line == (4, -2)
    assert DimMap.of(np.array([[4], [2], [0]]), np.ones((3, 1))).runs == []


def test_gather_and_tables_say_why_they_reject() -> None:
    assert "empty" in rejected(GatherRows(), workload(Gather(0), dense(0, 3), dense(2, dtype=I64)))
    assert "f64" in rejected(ResizeTables(), workload(Resize("linear", (6,), (2.0,)), dense(3, dtype=F64)))
    assert "not an index map" in rejected(ResizeTables(), workload(Relu(), dense(3)))


def test_gather_and_tables_compile_for_neon() -> None:
    compiles_for_neon(GatherRows(), GATHERS["rows"])
    compiles_for_neon(ResizeTables(), TABLES["linear"])
