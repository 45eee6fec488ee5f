# SPDX-License-Identifier: Apache-2.0
"""Pools, resampling, sampling and local normalisation whose batch or image size only a run knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.backends.base import KernelFamily
from tensorwright.backends.cpu.kernels.conv_depthwise import ConvDepthwise
from tensorwright.backends.cpu.kernels.conv_direct import ConvDirect
from tensorwright.backends.cpu.kernels.conv_winograd import ConvWinograd
from tensorwright.backends.cpu.kernels.deconv import Deconv
from tensorwright.backends.cpu.kernels.pool import PoolNd
from tensorwright.backends.cpu.kernels.resize import ResizeTables
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Instr, Op
from tensorwright.lower.lower import lower
from tensorwright.ops.shape import PadMode, ResizeMode
from tests.backends.cpu.dense_check import compiles_for_neon
from tests.backends.cpu.sized_check import check_sized, sized_graph, symbols
from tests.backends.cpu.test_sized_conv import conv, weights
from tests.suites.op_case import Spec

BATCH = {"n": (0, 4, 9)}
IMAGE = {"n": (1, 2, 3), "h": (3, 14, 24), "w": (5, 30, 41)}
ODD: Sequence[Mapping[str, int]] = [
    {"n": 2, "h": h, "w": w} for h, w in ((4, 6), (5, 7), (6, 8), (7, 9), (13, 29), (14, 31), (15, 30))
]
WINDOWS = {
    "plain": ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    "padded": ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "overlapping": ((3, 2), (1, 1), (0, 1, 2, 0), (1, 1)),
    "dilated": ((2, 3), (3, 2), (1, 1, 0, 2), (2, 2)),
    "wide": ((3, 5), (1, 1), (1, 2, 1, 2), (1, 1)),
}


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_maximum_pool_with_symbolic_image(name: str, ceil_mode: bool) -> None:
    op = o.MaxPool(*WINDOWS[name], ceil_mode)
    check_sized(op, ("n", 19, "h", "w"), bounds=IMAGE, at=ODD, families=["pool_nd"], channels_last=True)


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_average_pool_with_symbolic_image(name: str, include_pad: bool) -> None:
    op = o.AveragePool(*WINDOWS[name], name != "plain", include_pad)
    check_sized(op, ("n", 5, "h", "w"), bounds=IMAGE, at=ODD, families=["pool_nd"])


def test_pools_with_symbolic_batch() -> None:
    for op in (o.MaxPool(*WINDOWS["padded"]), o.AveragePool(*WINDOWS["padded"])):
        check_sized(op, ("n", 19, 9, 11), bounds=BATCH, at=[{"n": 1}], families=["pool_nd"], channels_last=True)


def test_pool_of_symbolic_length_and_of_a_volume() -> None:
    length = {"t": (1, 40, 100)}
    check_sized(o.MaxPool((4,), (3,), (1, 2), (1,)), (2, 7, "t"), bounds=length, at=[{"t": 2}, {"t": 41}])
    sides = {"d": (1, 3, 6), "w": (2, 9, 20)}
    op = o.AveragePool((2, 2, 3), (1, 2, 2), (1, 0, 1, 0, 0, 1), (1, 1, 1))
    check_sized(op, (1, 3, "d", 5, "w"), bounds=sides, at=[{"d": 2, "w": w} for w in (3, 8, 17)])


def test_pool_with_epilogue_and_symbolic_image() -> None:
    op = o.Fused(o.MaxPool(*WINDOWS["overlapping"]), 1, (Instr(o.Add(), (2, 1)), Instr(o.Relu(), (3,))))
    scale = np.random.default_rng().standard_normal((19, 1, 1)).astype(np.float32)
    check_sized(op, ("n", 19, "h", "w"), scale, bounds=IMAGE, at=ODD, families=["pool_nd"], channels_last=True)


@pytest.mark.parametrize("column_major", [False, True])
def test_positions_of_maxima_with_symbolic_image(column_major: bool) -> None:
    op = o.MaxPoolIndices(*WINDOWS["padded"], True, column_major)
    check_sized(op, ("n", 3, "h", "w"), bounds=IMAGE, at=ODD, families=["pool_indices"])


def resized(mode: ResizeMode, how: str, **attributes: object) -> o.Resize:
    """Resize of [n,5,h,w] to twice the size, half of it, or a size of its own."""
    dims = symbols({**IMAGE, "a": (1, 20, 50), "b": (1, 17, 33)})
    n, h, w = dims["n"], dims["h"], dims["w"]
    targets: dict[str, tuple[tuple[Dim, Dim], tuple[float | None, float | None]]] = {
        "double": ((2 * h, 2 * w), (2.0, 2.0)),
        "half": ((h // 2, w // 2), (0.5, 0.5)),
        "uneven": ((h * 3 // 2, w), (1.5, 1.0)),
        "fixed": ((11, 23), (None, None)),
        "other": ((dims["a"], dims["b"]), (None, None)),
    }
    (height, width), scales = targets[how]
    return o.Resize(mode, (n, 5, height, width), (1.0, 1.0, *scales), **attributes)  # type: ignore[arg-type]


RESIZES = {
    "nearest": {"mode": "nearest", "coordinates": "asymmetric", "rounding": "floor"},
    "nearest_half_pixel": {"mode": "nearest"},
    "nearest_prefer_ceil": {"mode": "nearest", "coordinates": "half_pixel_symmetric", "rounding": "round_prefer_ceil"},
    "linear": {"mode": "linear"},
    "linear_align": {"mode": "linear", "coordinates": "align_corners"},
    "linear_torch": {"mode": "linear", "coordinates": "pytorch_half_pixel"},
    "cubic": {"mode": "cubic", "cubic_coeff": -0.5},
    "cubic_inside": {"mode": "cubic", "exclude_outside": True},
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("how", ["double", "half", "uneven", "fixed"])
@pytest.mark.parametrize("name", RESIZES)
def test_resize_with_symbolic_image(name: str, how: str, channels_last: bool) -> None:
    op = resized(how=how, **RESIZES[name])  # type: ignore[arg-type]
    check_sized(op, ("n", 5, "h", "w"), bounds=IMAGE, at=ODD, families=["resize_tables"], channels_last=channels_last)


@pytest.mark.parametrize("name", RESIZES)
def test_resize_to_the_size_of_another_image(name: str) -> None:
    bounds = {**IMAGE, "a": (1, 20, 50), "b": (1, 17, 33)}
    at = [{**p, "a": 7 + 5 * i, "b": 31 - 3 * i} for i, p in enumerate(ODD)]
    op = o.Fused(resized(how="other", **RESIZES[name]), 1, (Instr(o.Add(), (2, 1)),))  # type: ignore[arg-type]
    check_sized(op, ("n", 5, "h", "w"), ("n", 5, "a", "b"), bounds=bounds, at=at, families=["resize_tables"])


def test_resize_with_symbolic_batch() -> None:
    op = o.Resize("linear", (symbols(BATCH)["n"], 19, 18, 22), (1.0, 1.0, 2.0, 2.0))
    check_sized(op, ("n", 19, 9, 11), bounds=BATCH, at=[{"n": 1}], families=["resize_tables"], channels_last=True)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pad_with_symbolic_image(mode: PadMode, channels_last: bool) -> None:
    op = o.Pad((0, 0, 2, 1, 0, 0, 1, 2), mode, 1.5)
    check_sized(op, ("n", 5, "h", "w"), bounds=IMAGE, at=ODD, families=["resize_tables"], channels_last=channels_last)


def test_pad_that_crops_a_symbolic_image() -> None:
    op = o.Pad((0, 0, -1, 2, 0, 0, -2, -3), "constant", -1.0)
    bounds = {"n": (1, 2, 3), "h": (3, 14, 24), "w": (5, 30, 41)}
    check_sized(op, ("n", 5, "h", "w"), bounds=bounds, at=ODD, families=["resize_tables"])


def test_tile_and_reversed_slice_of_symbolic_dims() -> None:
    check_sized(o.Tile((1, 2, 3)), ("n", "h", "w"), bounds=IMAGE, at=ODD, families=["resize_tables"])
    w = symbols(IMAGE)["w"]
    op = o.Slice((w - 1,), (-1,), (2,), (-1,))
    check_sized(op, ("n", "h", "w"), bounds=IMAGE, at=ODD)


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("channels_last", [False, True])
def test_local_response_normalisation_with_symbolic_image(beta: float, channels_last: bool) -> None:
    op = o.Lrn(5, 0.01, beta, 2.0)
    check_sized(op, ("n", 37, "h", "w"), bounds=IMAGE, at=ODD, families=["lrn_channels"], channels_last=channels_last)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_grid_sample_with_symbolic_sizes(mode: str, align_corners: bool, padding: str) -> None:
    bounds = {"n": (1, 2, 3), "h": (1, 6, 9), "w": (1, 7, 12), "g": (0, 3, 8)}
    at = [{"n": 2, "h": 5, "w": 1, "g": 4}, {"n": 1, "h": 2, "w": 8, "g": 1}]
    op = o.GridSample(mode, padding, align_corners)  # type: ignore[arg-type]
    check_sized(op, ("n", 3, "h", "w"), ("n", "g", 5, 2), bounds=bounds, at=at, families=["grid_sample_nd"])


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align_with_symbolic_sizes(samples: int, maximum: bool) -> None:
    bounds = {"n": (1, 2, 3), "h": (1, 8, 12), "w": (2, 9, 15), "r": (0, 4, 9)}
    at = [{"n": 3, "h": 5, "w": 7, "r": 3}]
    op = o.RoiAlign(3, 2, samples, 1.0, True, maximum)
    batch = Spec(("r",), "index 1", DType.i64)  # type: ignore[arg-type]  # check_sized takes names of dims
    check_sized(op, ("n", 3, "h", "w"), ("r", 4), batch, bounds=bounds, at=at, families=["roi_align_cells"])


@pytest.mark.parametrize(
    "family,op,inputs",
    [
        (ConvDirect(), conv(1), [("n", 16, "h", "w"), weights(32, 16, 3, 3)]),
        (ConvWinograd(), conv(1), [("n", 16, "h", "w"), weights(32, 16, 3, 3)]),
        (ConvDepthwise(), conv(1, groups=16), [("n", 16, "h", "w"), weights(16, 1, 3, 3)]),
        (Deconv(), o.Deconvolution((2, 2), (0,) * 4, (1, 1)), [("n", 16, "h", "w"), weights(16, 8, 2, 2)]),
        (PoolNd(), o.AveragePool(*WINDOWS["padded"]), [("n", 16, "h", "w")]),
        (ResizeTables(), resized(how="double", mode="cubic"), [("n", 5, "h", "w")]),
    ],
)
def test_image_families_with_symbolic_sizes_compile_for_neon(
    family: KernelFamily[Any, Any, Any], op: Op, inputs: list[Any]
) -> None:
    graph = sized_graph(op, inputs, symbols(IMAGE), channels_last=True)
    compiles_for_neon(family, lower(graph).steps[0].workload)
