# SPDX-License-Identifier: Apache-2.0
"""Depthwise and grouped convolution against the reference: borders, strides, dilation, tails, layouts, epilogues."""

from __future__ import annotations

import dataclasses

import pytest

from tensorwright.backends.base import Operand, Reject, Workload
from tensorwright.backends.cpu.kernels.conv_depthwise import ConvDepthwise
from tensorwright.backends.cpu.kernels.conv_grouped import ConvGrouped
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.types import TensorType
from tensorwright.ops.conv import Convolution
from tests.backends.cpu.dense_check import BODIES, F32, compiles_for_neon, image, plain, with_body
from tests.backends.cpu.kernel_check import check_kernel, weights

ISAS = ("avx512", "avx2")


def grouped(
    x: Operand,
    w: Operand,
    groups: int,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...] = (),
    body: str = "none",
    *,
    planar: bool = False,
    pad: int = 0,
) -> Workload:
    """A grouped convolution whose output is channels-last (with `pad` extra channels) or planar."""
    conv = Convolution(strides, pads, dilations or (1,) * len(strides), groups)
    (out,) = conv.infer(TensorType(F32, x.shape), TensorType(F32, w.shape))
    return with_body(conv, [x, w], plain(*out.static_shape) if planar else image(*out.static_shape, pad=pad), body, 1)


def depthwise(
    x: Operand,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...] = (),
    body: str = "none",
    pad: int = 0,
) -> Workload:
    return grouped(x, weights(x.shape[1], 1, *kernel), x.shape[1], strides, pads, dilations, body, pad=pad)


DEPTHWISE = {
    "mobilenet_stride_2": depthwise(image(1, 32, 22, 22), (3, 3), (2, 2), (1, 1, 1, 1), body="bias_relu"),
    "efficientnet_5x5": depthwise(image(1, 48, 14, 14), (5, 5), (1, 1), (2, 2, 2, 2), body="residual"),
    "ragged_channels": depthwise(image(2, 37, 9, 17), (3, 3), (1, 1), (1, 1, 1, 1), body="residual"),
    "few_channels": depthwise(image(1, 3, 5, 4), (3, 3), (1, 1), (1, 0, 0, 1)),
    "uneven": depthwise(image(1, 20, 13, 11), (2, 5), (3, 2), (1, 0, 0, 3), (1, 2)),
    "dilated": depthwise(image(1, 16, 12, 10), (3, 3), (1, 1), (3, 3, 3, 3), (3, 3), body="scalars"),
    "kernel_wider_than_input": depthwise(image(1, 17, 3, 2), (7, 7), (1, 1), (3, 3, 3, 3)),
    "rows_of_padding": depthwise(image(1, 16, 2, 2), (2, 2), (1, 1), (4, 4, 4, 4)),
    "inside_concats": depthwise(image(2, 40, 6, 7, pad=9), (3, 3), (1, 1), (1, 1, 1, 1), pad=5),
    "one_dimensional": depthwise(image(2, 24, 31), (4,), (2,), (1, 2), body="bias_relu"),
    "single_pixel": depthwise(image(1, 5, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
}
GROUPED = {
    "resnext": grouped(image(1, 32, 7, 9), weights(32, 4, 3, 3), 8, (1, 1), (1, 1, 1, 1), body="bias_relu"),
    "planar": grouped(plain(2, 6, 8, 7), weights(10, 3, 3, 3), 2, (2, 2), (1, 1, 1, 1), planar=True, body="residual"),
    "channel_multiplier": grouped(image(1, 5, 6, 6), weights(15, 1, 3, 3), 5, (1, 1), (1, 1, 1, 1), pad=3),
    "many_outputs": grouped(image(1, 4, 5, 33), weights(150, 2, 3, 3), 2, (1, 1), (1, 1, 1, 1), body="residual"),
    "weights_at_run_time": grouped(image(1, 6, 5, 7), plain(44, 3, 3, 2), 2, (1, 2), (1, 1, 0, 1), (1, 2)),
    "three_dimensional": grouped(
        plain(1, 4, 4, 5, 6), weights(6, 2, 3, 2, 3), 2, (1, 2, 1), (1, 0, 1, 1, 1, 1), planar=True
    ),
    "wide_kernel": grouped(image(1, 6, 2, 40), weights(4, 3, 1, 31), 2, (1, 1), (0, 15, 0, 15), body="bias_relu"),
    "dense_1d": grouped(plain(1, 7, 19), plain(18, 7, 5), 1, (3,), (2, 2), (2,), planar=True),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_convolution_matches(isa: str, name: str) -> None:
    check_kernel(ConvDepthwise(), DEPTHWISE[name], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GROUPED)
def test_grouped_convolution_matches(isa: str, name: str) -> None:
    check_kernel(ConvGrouped(), GROUPED[name], isa, most=2)


@pytest.mark.parametrize("body", BODIES)
def test_depthwise_epilogue_matches(body: str) -> None:
    check_kernel(
        ConvDepthwise(), depthwise(image(1, 19, 6, 9), (3, 3), (1, 1), (1, 1, 1, 1), body=body), "avx512", most=1
    )


def test_depthwise_empty_batch_runs() -> None:
    check_kernel(ConvDepthwise(), depthwise(image(0, 16, 6, 9), (3, 3), (1, 1), (1, 1, 1, 1)), "avx2", most=1)
    check_kernel(
        ConvGrouped(), grouped(image(0, 4, 6, 9), weights(4, 2, 3, 3), 2, (1, 1), (0, 0, 0, 0)), "avx2", most=1
    )


def test_depthwise_rejects_other_convolutions() -> None:
    target, family = CpuTarget.parse("cpu:avx512"), ConvDepthwise()
    good = DEPTHWISE["ragged_channels"]
    cases = {
        "not depthwise": GROUPED["resnext"],
        "channel strides": grouped(plain(1, 4, 6, 6), weights(4, 1, 3, 3), 4, (1, 1), (0,) * 4),
        "not constant": grouped(image(1, 4, 6, 6), plain(4, 1, 3, 3), 4, (1, 1), (0,) * 4),
        "f64": _with_dtype(good),
    }
    for reason, w in cases.items():
        answer = family.accepts(w, target)
        assert isinstance(answer, Reject) and reason in answer.reason, answer


def test_grouped_leaves_specialised_convolutions_to_their_families() -> None:
    target = CpuTarget.parse("cpu:avx512")
    cases = {
        "conv_direct": grouped(image(1, 4, 6, 6), weights(8, 4, 3, 3), 1, (1, 1), (0,) * 4),
        "conv_depthwise": DEPTHWISE["ragged_channels"],
    }
    for family, w in cases.items():
        answer = ConvGrouped().accepts(w, target)
        assert isinstance(answer, Reject) and family in answer.reason, answer


def _with_dtype(w: Workload) -> Workload:
    x = w.inputs[0]
    assert x is not None
    return dataclasses.replace(w, inputs=(dataclasses.replace(x, dtype=DType.f64), *w.inputs[1:]))


@pytest.mark.parametrize("name", ["ragged_channels", "resnext"])
def test_depthwise_compiles_for_neon(name: str) -> None:
    if name in DEPTHWISE:
        compiles_for_neon(ConvDepthwise(), DEPTHWISE[name])
    else:
        compiles_for_neon(ConvGrouped(), GROUPED[name])
