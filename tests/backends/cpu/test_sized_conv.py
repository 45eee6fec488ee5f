# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose batch or image size only a run knows: borders, strides and dilations at every size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.op import Array, Instr
from tests.backends.cpu.sized_check import Shape, check_sized

BATCH = {"n": (0, 4, 9)}
IMAGE = {"h": (3, 14, 40), "w": (5, 30, 50)}
ODD: Sequence[Mapping[str, int]] = [
    {"h": h, "w": w} for h, w in ((4, 6), (7, 13), (14, 31), (15, 29), (22, 30), (31, 16))
]


def weights(*shape: int) -> Array:
    return np.random.default_rng().standard_normal(shape).astype(np.float32)


def conv(pads: int = 0, stride: int = 1, dilation: int = 1, groups: int = 1, rank: int = 2) -> o.Convolution:
    return o.Convolution((stride,) * rank, (pads,) * (2 * rank), (dilation,) * rank, groups)


@pytest.mark.parametrize("family", ["conv_direct", "conv_winograd"])
def test_dense_convolution_with_symbolic_batch(family: str) -> None:
    check_sized(
        conv(1),
        ("n", 24, 9, 11),
        weights(20, 24, 3, 3),
        bounds=BATCH,
        at=[{"n": 3}],
        families=[family],
        channels_last=True,
    )


def test_depthwise_convolution_with_symbolic_batch() -> None:
    w = weights(21, 1, 3, 3)
    check_sized(
        conv(1, 2, groups=21),
        ("n", 21, 9, 11),
        w,
        bounds=BATCH,
        at=[{"n": 3}],
        families=["conv_depthwise"],
        channels_last=True,
    )


def test_grouped_convolution_with_symbolic_batch() -> None:
    w = weights(8, 3, 3, 3)
    check_sized(conv(1, groups=2), ("n", 6, 9, 11), w, bounds=BATCH, at=[{"n": 1}], families=["conv_grouped"])


@pytest.mark.parametrize(
    "op,kernel",
    [
        (conv(1), (3, 3)),
        (conv(3, stride=2), (7, 7)),
        (conv(0), (3, 3)),
        (conv(2, dilation=2), (3, 3)),
        (o.Convolution((2, 3), (2, 0, 1, 4), (1, 2)), (2, 4)),
        (conv(0), (1, 1)),
        (conv(0, stride=2), (1, 1)),
    ],
    ids=["same", "stem", "valid", "dilated", "uneven", "pointwise", "pointwise_strided"],
)
def test_direct_convolution_with_symbolic_image(op: o.Convolution, kernel: tuple[int, int]) -> None:
    bounds, at = IMAGE, list(ODD)
    if kernel == (2, 4):
        bounds, at = {"h": (3, 14, 40), "w": (7, 30, 50)}, [p for p in ODD if p["w"] >= 7]
    check_sized(op, (2, 5, "h", "w"), weights(19, 5, *kernel), bounds=bounds, at=at, families=["conv_direct"])


def test_direct_convolution_with_everything_symbolic() -> None:
    bounds = {"n": (1, 2, 3), **IMAGE}
    at = [{"n": 2, **p} for p in ODD]
    check_sized(conv(1), ("n", 16, "h", "w"), weights(32, 16, 3, 3), bounds=bounds, at=at, families=["conv_direct"])


def test_winograd_convolution_with_symbolic_image() -> None:
    bounds = {"n": (1, 2, 3), **IMAGE}
    at = [{"n": 2, **p} for p in ODD]
    check_sized(
        conv(1),
        ("n", 16, "h", "w"),
        weights(32, 16, 3, 3),
        bounds=bounds,
        at=at,
        families=["conv_winograd"],
        channels_last=True,
    )


@pytest.mark.parametrize("op", [conv(1, groups=19), conv(1, 2, groups=19), conv(4, 1, 2, groups=19)])
def test_depthwise_convolution_with_symbolic_image(op: o.Convolution) -> None:
    kernel = 3 if op.dilations == (1, 1) else 5
    w = weights(19, 1, kernel, kernel)
    check_sized(op, (2, 19, "h", "w"), w, bounds=IMAGE, at=ODD, families=["conv_depthwise"], channels_last=True)


def test_depthwise_convolution_of_symbolic_length() -> None:
    bounds = {"t": (1, 33, 90)}
    at = [{"t": t} for t in (2, 7, 15, 34, 64)]
    check_sized(conv(2, groups=16, rank=1), (2, 16, "t"), weights(16, 1, 5), bounds=bounds, at=at, channels_last=True)
    check_sized(conv(1, 2, rank=1), (2, 8, "t"), weights(24, 8, 3), bounds=bounds, at=at, families=["conv_direct"])


@pytest.mark.parametrize("op", [conv(1, groups=3), conv(2, 3, 2, groups=3), conv(7, groups=3)])
def test_grouped_convolution_with_symbolic_image(op: o.Convolution) -> None:
    kernel = 14 if op.pads[0] == 7 else 3  # 14 columns of taps are walked by a loop
    check_sized(
        op, ("n", 6, "h", "w"), weights(9, 2, kernel, kernel), bounds={"n": (0, 2, 3), **IMAGE},
        at=[{"n": 1, **p} for p in ODD], families=["conv_grouped"],
    )  # fmt: skip


def test_convolution_with_weights_known_in_a_run_and_symbolic_image() -> None:
    check_sized(conv(1), (2, 6, "h", "w"), (9, 6, 3, 3), bounds=IMAGE, at=ODD, families=["conv_grouped"])


def test_volume_convolution_with_symbolic_sides() -> None:
    bounds = {"d": (1, 3, 5), "w": (1, 9, 20)}
    at = [{"d": 2, "w": w} for w in (2, 8, 17)]
    check_sized(conv(1, 2, rank=3), (1, 3, "d", 5, "w"), weights(4, 3, 3, 3, 3), bounds=bounds, at=at)


@pytest.mark.parametrize(
    "op,kernel",
    [
        (o.Deconvolution((2, 2), (0,) * 4, (1, 1)), 2),
        (o.Deconvolution((2, 2), (1,) * 4, (1, 1), 1, (1, 1)), 3),
        (o.Deconvolution((3, 1), (0, 1, 1, 2), (1, 2)), 4),
        (o.Deconvolution((5, 5), (0,) * 4, (1, 1)), 5),
        (o.Deconvolution((3, 3), (0,) * 4, (1, 1)), 2),
    ],
    ids=["double", "overlapping", "uneven", "many_phases", "gaps"],
)
def test_deconvolution_with_symbolic_image(op: o.Deconvolution, kernel: int) -> None:
    bounds = {"n": (1, 2, 3), "h": (1, 6, 12), "w": (1, 14, 33)}
    at = [{"n": 1, "h": h, "w": w} for h, w in ((2, 2), (3, 7), (6, 15), (5, 29))]
    check_sized(op, ("n", 5, "h", "w"), weights(5, 18, kernel, kernel), bounds=bounds, at=at, families=["deconv"])


def with_tail(op: o.Convolution) -> o.Fused:
    """The convolution of x by weights, plus a bias and a residual, then relu."""
    body = (Instr(o.Add(), (4, 2)), Instr(o.Add(), (5, 3)), Instr(o.Relu(), (6,)))
    return o.Fused(op, 2, body)


@pytest.mark.parametrize("family", ["conv_direct", "conv_winograd"])
def test_epilogues_with_symbolic_sizes(family: str) -> None:
    bounds = {"n": (1, 2, 3), **IMAGE}
    at = [{"n": 2, **p} for p in ODD]
    residual: Shape = ("n", 20, "h", "w")
    x: Shape = ("n", 16, "h", "w")
    check_sized(
        with_tail(conv(1)), x, weights(20, 16, 3, 3), weights(20, 1, 1), residual, bounds=bounds, at=at,
        families=[family], channels_last=True,
    )  # fmt: skip
