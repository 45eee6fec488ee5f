# SPDX-License-Identifier: Apache-2.0
"""Convolutions, products, pools and what else reads windows, against loops."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.importers.caffe import oracle
from tests.importers.caffe.cases import Case, check_case
from tests.importers.caffe.writer import Word

AVE, FLOOR = {"pool": Word("AVE")}, {"round_mode": Word("FLOOR")}


def conv(shape: tuple[int, ...], weights: tuple[int, ...], bottoms: int = 1, **p: Any) -> Case:
    blobs = [weights, *([(p["num_output"],)] if p.get("bias_term", True) else [])]
    return Case("Convolution", [shape] * bottoms, p, blobs, oracle.convolution, tops=bottoms)


def deconv(shape: tuple[int, ...], weights: tuple[int, ...], **p: Any) -> Case:
    blobs = [weights, *([(p["num_output"],)] if p.get("bias_term", True) else [])]
    return Case("Deconvolution", [shape], p, blobs, oracle.deconvolution)


def dense(shape: tuple[int, ...], weights: tuple[int, ...], **p: Any) -> Case:
    blobs = [weights, *([(p["num_output"],)] if p.get("bias_term", True) else [])]
    return Case("InnerProduct", [shape], p, blobs, oracle.inner_product)


def pool(shape: tuple[int, ...], tops: int = 1, **p: Any) -> Case:
    return Case("Pooling", [shape], p, [], oracle.pooling, tops=tops)


CONVOLUTIONS = {
    "plain": conv((2, 3, 7, 5), (4, 3, 3, 3), num_output=4, kernel_size=3),
    "rectangle": conv(
        (1, 3, 9, 8), (5, 3, 3, 2), num_output=5, kernel_h=3, kernel_w=2, stride_h=2, stride_w=1, pad_h=0, pad_w=1
    ),
    "listed": conv((1, 2, 8, 9), (3, 2, 1, 3), num_output=3, kernel_size=[1, 3], pad=[2, 1], stride=[3, 2]),
    "grouped": conv((2, 6, 5, 5), (4, 3, 3, 3), num_output=4, kernel_size=3, group=2, pad=1),
    "depthwise": conv((1, 5, 6, 7), (5, 1, 3, 3), num_output=5, kernel_size=3, group=5, pad=1, bias_term=False),
    "dilated": conv((1, 2, 11, 12), (3, 2, 3, 3), num_output=3, kernel_size=3, dilation=[2, 3], pad=2),
    "stride_4": conv((1, 3, 23, 19), (4, 3, 11, 11), num_output=4, kernel_size=11, stride=4),
    "pointwise": conv((3, 7, 1, 1), (2, 7, 1, 1), num_output=2, kernel_size=1),
    "one_dim": conv((2, 3, 9), (4, 3, 3), num_output=4, kernel_size=3, stride=2, pad=1),
    "three_dims": conv((1, 2, 5, 4, 6), (3, 2, 2, 2, 3), num_output=3, kernel_size=[2, 2, 3], pad=1),
    "axis_2": conv((2, 3, 4, 5, 6), (2, 4, 3, 3), num_output=2, kernel_size=3, axis=2),
    "axis_0": conv((4, 5, 6), (2, 4, 3, 3), num_output=2, kernel_size=3, axis=0),
    "axis_from_end": conv((2, 3, 4, 6), (2, 3, 2, 2), num_output=2, kernel_size=2, axis=-3),
    "several_bottoms": conv((1, 3, 6, 5), (4, 3, 3, 3), 2, num_output=4, kernel_size=3),
    "transposed": deconv((2, 3, 4, 5), (3, 4, 3, 3), num_output=4, kernel_size=3, stride=2),
    "transposed_padded": deconv((1, 3, 4, 5), (3, 2, 4, 4), num_output=2, kernel_size=4, stride=2, pad=1),
    "transposed_grouped": deconv((1, 4, 3, 4), (4, 3, 4, 4), num_output=6, kernel_size=4, stride=3, pad=1, group=2),
    "transposed_depthwise": deconv(
        (1, 4, 3, 4), (4, 1, 4, 4), num_output=4, kernel_size=4, stride=2, pad=1, group=4, bias_term=False
    ),
    "transposed_dilated": deconv((1, 2, 4, 3), (2, 3, 3, 2), num_output=3, kernel_size=[3, 2], dilation=2, pad=1),
    "transposed_one_dim": deconv((1, 2, 7), (2, 3, 3), num_output=3, kernel_size=3, stride=2),
    "fork": Case(
        "DepthwiseConvolution",
        [(1, 4, 6, 5)],
        {"num_output": 4, "kernel_size": 3, "pad": 1, "group": 4},
        [(4, 1, 3, 3), (4,)],
        oracle.convolution,
    ),
    "dense": dense((3, 2, 4, 5), (6, 40), num_output=6),
    "dense_rank_2": dense((3, 7), (4, 7), num_output=4, bias_term=False),
    "dense_transposed": dense((3, 2, 3), (6, 5), num_output=5, transpose=True),
    "dense_axis_2": dense((2, 3, 4, 5), (6, 20), num_output=6, axis=2),
    "dense_axis_0": dense((2, 3), (4, 6), num_output=4, axis=0),
    "dense_axis_from_end": dense((2, 3, 5), (4, 5), num_output=4, axis=-1),
    "embed": Case("Embed", [(3, 4)], {"num_output": 5, "input_dim": 9}, [(9, 5), (5,)], oracle.embed, most=9),
    "embed_bare": Case(
        "Embed", [(2,)], {"num_output": 3, "input_dim": 4, "bias_term": False}, [(4, 3)], oracle.embed, most=4
    ),
}

POOLS = {
    f"{kind}_{h}x{w}_{'_'.join(map(str, p.values()))}": pool((2, 3, h, w), **p, **more)
    for kind, more in (("max", {}), ("ave", AVE))
    for h, w, p in (
        (7, 6, {"kernel_size": 3, "stride": 2}),
        (6, 9, {"kernel_size": 3, "stride": 2, "pad": 1}),
        (5, 5, {"kernel_size": 2, "stride": 2, "pad": 1}),
        (8, 7, {"kernel_size": 3, "stride": 3, "pad": 2}),
        (4, 4, {"kernel_size": 4, "stride": 3, "pad": 3}),
        (9, 8, {"kernel_h": 3, "kernel_w": 2, "stride_h": 2, "stride_w": 3, "pad_h": 1, "pad_w": 0}),
        (8, 9, {"kernel_h": 2, "kernel_w": 3, "stride_h": 3, "stride_w": 2, "pad_h": 0, "pad_w": 2}),
        (5, 6, {"kernel_size": 1, "stride": 3}),
        (9, 8, {"kernel_size": 2, "stride": 4}),
        (7, 7, {"kernel_size": 1, "stride": 4, "pad": 0}),
        (4, 7, {"kernel_size": 5, "stride": 4}),
        (1, 1, {"kernel_size": 1, "stride": 1}),
    )
} | {
    "floor": pool((1, 2, 8, 7), kernel_size=3, stride=2, **FLOOR),
    "floor_padded": pool((1, 2, 8, 7), kernel_size=3, stride=2, pad=1, **FLOOR, **AVE),
    "ceil_mode": pool((1, 2, 8, 7), kernel_size=3, stride=2, ceil_mode=False, **AVE),
    "global_max": pool((2, 3, 5, 4), global_pooling=True),
    "global_ave": pool((2, 3, 5, 4), global_pooling=True, **AVE),
    "positions": pool((2, 3, 7, 6), 2, kernel_size=3, stride=2),
    "positions_padded": pool((2, 3, 6, 7), 2, kernel_size=3, stride=2, pad=1),
    "positions_global": pool((2, 3, 4, 5), 2, global_pooling=True),
    "pyramid": Case("SPP", [(2, 3, 9, 7)], {"pyramid_height": 3}, [], oracle.spatial_pyramid),
    "pyramid_ave": Case("SPP", [(2, 3, 8, 11)], {"pyramid_height": 2, **AVE}, [], oracle.spatial_pyramid),
    "pyramid_of_one": Case("SPP", [(2, 3, 8, 5)], {"pyramid_height": 1}, [], oracle.spatial_pyramid),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_layer_with_weights(name: str, tmp_path: pathlib.Path) -> None:
    check_case(CONVOLUTIONS[name], tmp_path)


@pytest.mark.parametrize("name", POOLS)
def test_pool(name: str, tmp_path: pathlib.Path) -> None:
    check_case(POOLS[name], tmp_path)


def test_regions_are_pooled(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng()
    corners = rng.uniform(0, 18, (6, 2))
    rois = np.concatenate([rng.integers(0, 2, (6, 1)), corners, corners + rng.uniform(0, 12, (6, 2))], 1)
    p = {"pooled_h": 3, "pooled_w": 2, "spatial_scale": 0.5}
    case = Case("ROIPooling", [(2, 3, 12, 11), (6, 5)], p, [], oracle.roi_pooling)
    check_case(case, tmp_path, {1: rois.astype(np.float32)})
