# SPDX-License-Identifier: Apache-2.0
"""Deconvolution against the reference: phases, pads, output padding, dilation, groups, layouts, epilogues."""

from __future__ import annotations

import pytest

from tensorwright.backends.base import Operand, Reject, Workload
from tensorwright.backends.cpu.kernels.deconv import Deconv
from tensorwright.backends.cpu.kernels.spatial import SpatialAxis
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.types import TensorType
from tensorwright.ops.conv import Deconvolution
from tests.backends.cpu.dense_check import BODIES, F32, compiles_for_neon, conv_workload, image, plain, with_body
from tests.backends.cpu.kernel_check import check_kernel, weights

ISAS = ("avx512", "avx2")


def deconv(
    x: Operand,
    w: Operand,
    strides: tuple[int, ...],
    pads: tuple[int, ...] = (),
    dilations: tuple[int, ...] = (),
    groups: int = 1,
    extra: tuple[int, ...] = (),
    body: str = "none",
    *,
    planar: bool = False,
    pad: int = 0,
) -> Workload:
    """A deconvolution whose output is channels-last (with `pad` extra channels) or planar."""
    rank = len(strides)
    op = Deconvolution(strides, pads or (0,) * (2 * rank), dilations or (1,) * rank, groups, extra or (0,) * rank)
    (out,) = op.infer(TensorType(F32, x.shape), TensorType(F32, w.shape))
    return with_body(op, [x, w], plain(*out.static_shape) if planar else image(*out.static_shape, pad=pad), body, 1)


CASES = {
    "unet": deconv(image(1, 24, 5, 9), weights(24, 40, 2, 2), (2, 2), body="bias_relu", pad=8),
    "kernel_is_stride": deconv(image(2, 5, 3, 4), weights(5, 7, 3, 2), (3, 2), body="residual"),
    "overlapping": deconv(image(1, 8, 6, 7), weights(8, 20, 4, 4), (2, 2), (1, 1, 1, 1), body="bias_relu"),
    "output_padding": deconv(image(1, 6, 5, 4), weights(6, 9, 3, 3), (2, 2), (1, 1, 1, 1), extra=(1, 1)),
    "grouped_dilated": deconv(
        image(2, 6, 4, 5), weights(6, 4, 3, 3), (2, 3), (1, 0, 2, 1), (2, 2), 3, (0, 1), "residual"
    ),
    "phases_without_taps": deconv(image(1, 3, 4, 3), weights(3, 5, 1, 2), (3, 4), extra=(2, 1), body="bias_relu"),
    "stride_1": deconv(image(1, 4, 5, 20), weights(4, 33, 3, 3), (1, 1), (1, 1, 1, 1)),
    "wide_stride": deconv(image(1, 3, 2, 3), weights(3, 6, 16, 16), (8, 8), (4, 4, 4, 4), body="scalars"),
    "planar": deconv(plain(1, 5, 4, 6), weights(5, 18, 2, 2), (2, 2), planar=True, body="residual"),
    "weights_at_run_time": deconv(image(1, 5, 4, 3), plain(5, 3, 3, 3), (2, 2), (1, 1, 0, 0)),
    "one_dimensional": deconv(plain(2, 4, 11), weights(4, 6, 5), (3,), (2, 1), planar=True),
    "three_dimensional": deconv(
        plain(1, 4, 2, 3, 4), weights(4, 3, 2, 3, 2), (2, 1, 2), (0, 1, 1, 0, 1, 0), planar=True
    ),
    "single_pixel": deconv(image(1, 1, 1, 1), weights(1, 1, 1, 1), (1, 1)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_deconvolution_matches(isa: str, name: str) -> None:
    check_kernel(Deconv(), CASES[name], isa, most=2)


@pytest.mark.parametrize("body", BODIES)
def test_deconvolution_epilogue_matches(body: str) -> None:
    check_kernel(Deconv(), deconv(image(1, 9, 4, 5), weights(9, 35, 2, 2), (2, 2), body=body), "avx512", most=1)


def test_deconvolution_compiles_for_neon() -> None:
    compiles_for_neon(Deconv(), CASES["overlapping"])


def test_deconvolution_rejects_convolution() -> None:
    answer = Deconv().accepts(conv_workload(image(1, 4, 5, 5), 8, (3, 3)), CpuTarget.parse("cpu:avx2"))
    assert isinstance(answer, Reject) and "not a deconvolution" in answer.reason


@pytest.mark.parametrize("transposed", [False, True])
def test_spatial_axis_reads_counts_taps_inside(transposed: bool) -> None:
    """The closed form agrees with walking every output through the phases."""
    for size, kernel, stride, pad, dilation in [(7, 3, 1, 1, 1), (9, 4, 3, 2, 2), (2, 5, 2, 4, 1), (5, 1, 4, 0, 1)]:
        room = size + 2 * pad - (kernel - 1) * dilation - 1
        count = (size - 1) * stride + (kernel - 1) * dilation + 1 - 2 * pad if transposed else room // stride + 1
        axis = SpatialAxis(size, count, kernel, stride, pad, dilation, transposed)
        walked = sum(run.repeat * sum(map(sum, run.valid)) for phase in axis.phases for run in phase.runs(3))
        assert axis.reads == walked
        assert sorted(p.first + j * p.step for p in axis.phases for j in range(p.count)) == list(range(count))
