# SPDX-License-Identifier: Apache-2.0
"""Grid sampling and region pooling against their references, also far outside the image and with NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.cpu.kernels.grid_sample import GridSampleNd
from tensorwright.backends.cpu.kernels.max_roi_pool import MaxRoiPoolCells
from tensorwright.backends.cpu.kernels.roi_align import RoiAlignCells
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.sample import GridSample, MaxRoiPool, RoiAlign
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, ordered, rejected, verify, workload

NHWC = (0, 2, 3, 1)
MODES: list[Any] = ["nearest", "linear", "cubic"]
PADDINGS: list[Any] = ["zeros", "border", "reflection"]
SHAPES = {
    "image": (dense(2, 3, 7, 5), dense(2, 4, 6, 2)),
    "channels_last": (ordered(NHWC, 2, 19, 7, 5), ordered((0, 2, 1, 3), 2, 9, 8, 2)),
    "line": (dense(2, 3, 9), dense(2, 5, 1)),
    "volume": (dense(1, 2, 3, 4, 5), dense(1, 2, 3, 2, 3)),
    "one_pixel": (dense(1, 1, 1, 1), dense(1, 3, 3, 2)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("name", [*SHAPES])
def test_grid_sample_equals_reference(name: str, align: bool, padding: Any, mode: Any, isa: str) -> None:
    x, grid = SHAPES[name]
    rng = np.random.default_rng(SEED)
    points = rng.standard_normal(grid.shape).astype(np.float32) * 1.5
    arrays = [rng.standard_normal(x.shape).astype(np.float32), points]
    verify(GridSampleNd(), workload(GridSample(mode, padding, align), x, grid), isa, arrays)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", PADDINGS)
def test_grid_sample_far_outside_and_nan_reads_no_other_memory(padding: Any, mode: Any, isa: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((1, 2, 4, 5)).astype(np.float32)
    edges = np.array([np.nan, 1e9, -1e9, 3e38, -1.0, 1.0, 0.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    grid = np.stack(np.meshgrid(edges, edges), -1)[None].astype(np.float32)
    w = workload(GridSample(mode, padding), dense(1, 2, 4, 5), dense(*grid.shape))
    (want,) = w.op.reference(x, grid)
    assert np.isnan(want[0, :, 0]).all() and not np.isnan(want[0, :, 4:7, 4:7]).any()
    verify(GridSampleNd(), w, isa, [x, grid])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("half_pixel", [False, True])
@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align_equals_reference(samples: int, half_pixel: bool, maximum: bool, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    op = RoiAlign(3, 2, samples, 0.5, half_pixel, maximum)
    corners = rng.uniform(-4, 24, (9, 2))
    rois = np.concatenate([corners, corners + rng.uniform(-2, 12, (9, 2))], 1).astype(np.float32)
    batch = rng.integers(-2, 2, 9)
    for x in (dense(2, 3, 9, 11), ordered(NHWC, 2, 18, 9, 11)):
        values = rng.standard_normal(x.shape).astype(np.float32)
        w = workload(op, x, dense(9, 4), dense(9, dtype=DType.i64))
        verify(RoiAlignCells(), w, isa, [values, rois, batch])


@pytest.mark.parametrize("isa", ISAS)
def test_roi_of_no_image_is_nan_and_nan_box_is_zero(isa: str) -> None:
    x = np.ones((2, 3, 4, 5), np.float32)
    rois = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [np.nan] * 4, [-1e30, 0, 1, 1]], np.float32)
    batch = np.array([2, 1 << 40, 0, 1])
    want = np.array([np.nan, np.nan, 0, 0], np.float32).reshape(4, 1, 1, 1) * np.ones((4, 3, 1, 1), np.float32)
    op = RoiAlign(1, 1, 1, half_pixel=False)
    verify(
        RoiAlignCells(),
        workload(op, dense(2, 3, 4, 5), dense(4, 4), dense(4, dtype=DType.i64)),
        isa,
        [x, rois, batch],
        want=want,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_max_roi_pool_equals_reference(scale: float, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    corners = rng.uniform(-6, 14, (40, 2))
    rois = np.concatenate([corners, corners + rng.uniform(-4, 12, (40, 2))], 1).astype(np.float32)
    rois[:3] = [[0.5, 1.5, 2.5, 3.5], [-0.5, -1.5, 30, 30], [40, 40, 50, 50]]
    batch = rng.integers(-2, 2, 40)
    for x in (dense(2, 3, 9, 11), ordered(NHWC, 2, 18, 9, 11)):
        values = rng.standard_normal(x.shape).astype(np.float32)
        values[0, 0, 4, 4] = np.nan
        for cells in ((3, 2), (1, 1), (7, 13)):
            w = workload(MaxRoiPool(*cells, scale), x, dense(40, 4), dense(40, dtype=DType.i64))
            verify(MaxRoiPoolCells(), w, isa, [values, rois, batch])


@pytest.mark.parametrize("isa", ISAS)
def test_max_roi_pool_of_no_image_is_nan_and_of_no_pixel_zero(isa: str) -> None:
    x = np.full((2, 3, 4, 5), -1, np.float32)
    rois = np.array([[0, 0, 2, 2], [90, 90, 95, 95], [-40, 0, 1, 1]], np.float32)
    want = np.array([np.nan, 0, -1], np.float32).reshape(3, 1, 1, 1) * np.ones((3, 3, 1, 1), np.float32)
    w = workload(MaxRoiPool(1, 1), dense(2, 3, 4, 5), dense(3, 4), dense(3, dtype=DType.i32))
    verify(MaxRoiPoolCells(), w, isa, [x, rois, np.array([5, 0, 1], np.int32)], want=want)


def test_sampling_families_say_why_they_reject() -> None:
    f64 = DType.f64
    assert "f64" in rejected(
        GridSampleNd(), workload(GridSample(), dense(1, 1, 2, dtype=f64), dense(1, 2, 1, dtype=f64))
    )
    assert "not a grid_sample" in rejected(GridSampleNd(), workload(Relu(), dense(3)))
    assert "not a max_roi_pool" in rejected(MaxRoiPoolCells(), workload(Relu(), dense(3)))
    assert "not a roi_align" in rejected(RoiAlignCells(), workload(Relu(), dense(3)))


def test_sampling_families_compile_for_neon() -> None:
    compiles_for_neon(GridSampleNd(), workload(GridSample("cubic", "reflection"), *SHAPES["image"]))
    compiles_for_neon(
        RoiAlignCells(), workload(RoiAlign(3, 2), dense(2, 3, 4, 5), dense(4, 4), dense(4, dtype=DType.i64))
    )
    compiles_for_neon(
        MaxRoiPoolCells(), workload(MaxRoiPool(3, 2), dense(2, 3, 4, 5), dense(4, 4), dense(4, dtype=DType.i64))
    )
