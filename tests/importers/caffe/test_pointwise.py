# SPDX-License-Identifier: Apache-2.0
"""Layers that compute each element by itself, and normalisations, against loops."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.importers.caffe import oracle
from tests.importers.caffe.cases import Case, check_case
from tests.importers.caffe.writer import Word

SHAPE = (2, 3, 4, 5)
GLOBAL = {"use_global_stats": True}


def unary(kind: str, function: Any, shape: tuple[int, ...] = SHAPE, *, positive: bool = False, **p: Any) -> Case:
    return Case(kind, [shape], p, [], oracle.each(function), positive=positive)


def eltwise(operation: str, count: int = 2, **p: Any) -> Case:
    return Case("Eltwise", [SHAPE] * count, {"operation": Word(operation), **p}, [], oracle.eltwise)


def scale(shapes: list[tuple[int, ...]], blobs: list[tuple[int, ...]], **p: Any) -> Case:
    return Case("Scale", shapes, p, blobs, oracle.scale)


def bias(shapes: list[tuple[int, ...]], blobs: list[tuple[int, ...]], **p: Any) -> Case:
    return Case("Bias", shapes, p, blobs, oracle.bias)


def norm(
    kind: str,
    function: oracle.Oracle,
    shape: tuple[int, ...] = SHAPE,
    blobs: tuple[tuple[int, ...], ...] = (),
    **p: Any,
) -> Case:
    return Case(kind, [shape], p, blobs, function, positive=kind in ("BatchNorm", "BN"))


def sigmoid(x: oracle.Array) -> oracle.Array:
    return np.asarray(1 / (1 + np.exp(-x)))


ELEMENTS = {
    "relu": unary("ReLU", lambda x, p: np.maximum(x, 0)),
    "relu_leaky": unary("ReLU", lambda x, p: np.where(x > 0, x, x * p["negative_slope"]), negative_slope=0.1),
    "relu_rank_1": unary("ReLU", lambda x, p: np.maximum(x, 0), (7,)),
    "relu6": unary("ReLU6", lambda x, p: x.clip(0, 6)),
    "elu": unary("ELU", lambda x, p: np.where(x > 0, x, np.exp(x) - 1)),
    "elu_alpha": unary("ELU", lambda x, p: np.where(x > 0, x, p["alpha"] * (np.exp(x) - 1)), alpha=0.3),
    "sigmoid": unary("Sigmoid", lambda x, p: sigmoid(x)),
    "tanh": unary("TanH", lambda x, p: np.tanh(x)),
    "abs": unary("AbsVal", lambda x, p: abs(x)),
    "bnll": unary("BNLL", lambda x, p: np.log1p(np.exp(x))),
    "swish": unary("Swish", lambda x, p: x * sigmoid(x)),
    "swish_beta": unary("Swish", lambda x, p: x * sigmoid(p["beta"] * x), beta=-1.7),
    "clip": unary("Clip", lambda x, p: x.clip(p["min"], p["max"]), min=-0.5, max=0.25),
    "threshold": unary("Threshold", lambda x, p: (x > p["threshold"]).astype(float), threshold=0.3),
    "threshold_0": unary("Threshold", lambda x, p: (x > 0).astype(float)),
    "exp": unary("Exp", lambda x, p: np.exp(x)),
    "exp_base": unary("Exp", lambda x, p: 2.5 ** (0.5 - 1.5 * x), base=2.5, scale=-1.5, shift=0.5),
    "exp_shift": unary("Exp", lambda x, p: np.exp(2 + x), shift=2),
    "exp_1": unary("Exp", lambda x, p: np.ones_like(x), base=1, shift=3),
    "log": unary("Log", lambda x, p: np.log(x), positive=True),
    "log_base": unary("Log", lambda x, p: np.log(0.5 + 2 * x) / np.log(10), positive=True, base=10, scale=2, shift=0.5),
    "log_small_base": unary("Log", lambda x, p: np.log(x) / np.log(0.5), positive=True, base=0.5),
    **{
        f"power_{i}": Case("Power", [SHAPE], p, [], oracle.power, positive=p.get("power", 1) % 1 != 0)
        for i, p in enumerate(
            (
                {},
                {"power": 2},
                {"power": 3, "shift": -1.5},
                {"power": 0.5, "scale": 2},
                {"power": -1.5, "shift": 0.25},
                {"scale": -0.017, "shift": 2},
                {"power": 0, "shift": -3},
                {"scale": 0, "power": 2, "shift": -3},
                {"scale": 0},
            )
        )
    },
    "prelu": Case("PReLU", [SHAPE], {}, [(3,)], oracle.prelu),
    "prelu_rank_2": Case("PReLU", [(4, 7)], {}, [(7,)], oracle.prelu),
    "prelu_shared": Case("PReLU", [SHAPE], {"channel_shared": True}, [()], oracle.prelu),
    "prelu_shared_1": Case("PReLU", [SHAPE], {"channel_shared": True}, [(1,)], oracle.prelu),
    "sum": Case("Eltwise", [SHAPE] * 2, {}, [], oracle.eltwise),
    "sum_4": eltwise("SUM", 4),
    "sum_weighted": eltwise("SUM", 3, coeff=[0.5, -1, 2]),
    "product": eltwise("PROD", 3),
    "maximum": eltwise("MAX", 3),
    "maximum_coeff": eltwise("MAX", 2, coeff=[3, 4]),
    "axpy": Case("Axpy", [(2, 3, 1, 1), SHAPE, SHAPE], {}, [], lambda xs, p, blobs: [xs[0] * xs[1] + xs[2]]),
}

SCALES = {
    "plain": scale([SHAPE], [(3,)]),
    "biased": scale([SHAPE], [(3,), (3,)], bias_term=True),
    "two_axes": scale([SHAPE], [(3, 4), (3, 4)], num_axes=2, bias_term=True),
    "all_axes": scale([SHAPE], [SHAPE], axis=0, num_axes=-1),
    "last_axis": scale([SHAPE], [(5,)], axis=-1),
    "to_the_end": scale([SHAPE], [(4, 5)], axis=2, num_axes=-1),
    "scalar": scale([SHAPE], [(), ()], num_axes=0, bias_term=True),
    "scalar_1": scale([SHAPE], [(1,)], num_axes=0),
    "rank_2": scale([(4, 6)], [(6,), (6,)], bias_term=True),
    "bottom": scale([SHAPE, (3, 4)], []),
    "bottom_axis_0": scale([SHAPE, (2, 3)], [], axis=0),
    "bottom_scalar": scale([SHAPE, ()], []),
    "bottom_biased": scale([SHAPE, (2, 3)], [(2, 3)], axis=0, bias_term=True),
    "bottom_whole": scale([SHAPE, SHAPE], [], axis=0),
    "bias": bias([SHAPE], [(3,)]),
    "bias_last": bias([SHAPE], [(4, 5)], axis=-2, num_axes=2),
    "bias_scalar": bias([SHAPE], [()], num_axes=0),
    "bias_bottom": bias([SHAPE, (2,)], [], axis=0),
    "bias_bottom_scalar": bias([SHAPE, ()], []),
}

STATISTICS = ((3,), (3,), (1,))
NORMS = {
    "batch_norm": norm("BatchNorm", oracle.batch_norm, SHAPE, STATISTICS),
    "batch_norm_eps": norm("BatchNorm", oracle.batch_norm, SHAPE, STATISTICS, eps=0.1, **GLOBAL),
    "batch_norm_rank_2": norm("BatchNorm", oracle.batch_norm, (5, 3), STATISTICS),
    "batch_norm_rank_5": norm("BatchNorm", oracle.batch_norm, (2, 3, 2, 3, 2), STATISTICS),
    "batch_statistics": norm("BatchNorm", oracle.batch_norm, SHAPE, STATISTICS, use_global_stats=False),
    "batch_statistics_rank_2": norm("BatchNorm", oracle.batch_norm, (5, 3), STATISTICS, use_global_stats=False),
    "pspnet": norm("BN", oracle.fork_norm, SHAPE, ((1, 3, 1, 1),) * 4, eps=0.01),
    "segnet": norm("BN", oracle.fork_norm, SHAPE, ((1, 3, 1, 1),) * 2, bn_mode=Word("INFERENCE")),
    "segnet_learning": norm("BN", oracle.fork_norm, SHAPE, ((1, 3, 1, 1),) * 2, bn_mode=Word("LEARN")),
    "lrn": norm("LRN", oracle.lrn),
    "lrn_alexnet": norm("LRN", oracle.lrn, (1, 9, 3, 4), local_size=5, alpha=1e-1, beta=0.75, k=2),
    "lrn_wide": norm("LRN", oracle.lrn, (1, 4, 2, 3), local_size=11, alpha=0.5, beta=1.5),
    "lrn_one": norm("LRN", oracle.lrn, (1, 4, 2, 3), local_size=1),
    "lrn_within": norm("LRN", oracle.lrn, (1, 2, 6, 7), local_size=3, norm_region=Word("WITHIN_CHANNEL"), k=7, alpha=2),
    "lrn_within_wide": norm("LRN", oracle.lrn, (1, 2, 2, 3), local_size=5, norm_region=Word("WITHIN_CHANNEL")),
    "mvn": norm("MVN", oracle.mean_variance),
    "mvn_across": norm("MVN", oracle.mean_variance, across_channels=True, eps=0.01),
    "mvn_mean": norm("MVN", oracle.mean_variance, normalize_variance=False),
    "mvn_rank_2": norm("MVN", oracle.mean_variance, (4, 5)),
    "mvn_rank_2_across": norm("MVN", oracle.mean_variance, (4, 5), across_channels=True),
    "mvn_rank_3": norm("MVN", oracle.mean_variance, (2, 3, 4)),
    "normalize": norm("Normalize", oracle.normalize, SHAPE, ((),)),
    "normalize_ssd": norm("Normalize", oracle.normalize, SHAPE, ((3,),), across_spatial=False, channel_shared=False),
    "normalize_channels": norm("Normalize", oracle.normalize, SHAPE, ((3,),), channel_shared=False, eps=0.5),
    "normalize_rank_2": norm("Normalize", oracle.normalize, (4, 5), ((1,),), across_spatial=False),
    "softmax": norm("Softmax", oracle.softmax),
    "softmax_axis_2": norm("Softmax", oracle.softmax, axis=2),
    "softmax_last": norm("Softmax", oracle.softmax, (3, 7), axis=-1),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements(name: str, tmp_path: pathlib.Path) -> None:
    check_case(ELEMENTS[name], tmp_path)


@pytest.mark.parametrize("name", SCALES)
def test_scale_and_bias_stand_at_an_axis(name: str, tmp_path: pathlib.Path) -> None:
    check_case(SCALES[name], tmp_path)


@pytest.mark.parametrize("name", NORMS)
def test_normalisation(name: str, tmp_path: pathlib.Path) -> None:
    check_case(NORMS[name], tmp_path)
