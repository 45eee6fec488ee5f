# SPDX-License-Identifier: Apache-2.0
"""Layers whose parameters contradict themselves or their bottoms: a message for each."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tests.importers.caffe.test_problems import X, fails, mistakes
from tests.importers.caffe.writer import Fields, Word, layer, write


def conv(**p: Any) -> list[Fields]:
    return [layer("Convolution", ("x",), ("y",), convolution_param={"num_output": 4, "kernel_size": 3, **p})]


def pool(**p: Any) -> list[Fields]:
    return [layer("Pooling", ("x",), ("y",), pooling_param=p)]


def one(
    kind: str, key: str, bottoms: tuple[str, ...] = ("x",), tops: tuple[str, ...] = ("y",), **p: Any
) -> list[Fields]:
    return [layer(kind, bottoms, tops, "y", **{key: p})]


LAYERS: dict[str, tuple[list[Fields], str]] = {
    "groups": (conv(group=3), "3 channels to 4 outputs cannot be split into 3 groups"),
    "no_groups": (conv(group=0), "cannot be split into 0 groups"),
    "no_outputs": (conv(num_output=0), "3 channels to 0 outputs"),
    "huge_outputs": (conv(num_output=4294967295), "it has a parameter of the shape [4294967295, 3, 3, 3], more than"),
    "huge_kernel": (conv(kernel_size=4000000000), "it has a parameter of the shape"),
    "wide_kernel": (conv(kernel_size=9), "9"),
    "stride_0": (conv(stride=0), "must be positive"),
    "dilation_0": (conv(dilation=0), "must be positive"),
    "one_stride": (conv(stride_h=2), "must be positive"),
    "two_strides": (conv(stride=1, stride_h=2, stride_w=2), "not together with stride"),
    "kernel_numbers": (conv(kernel_size=[3, 3, 3]), "it gives 3 numbers of kernel_size for 2 spatial dims"),
    "no_kernel": (
        [layer("Convolution", ("x",), ("y",), convolution_param={"num_output": 4})],
        "it has no kernel_size",
    ),
    "axis": (conv(axis=4), "axis 4 is not within a rank of 4"),
    "axis_huge": (conv(axis=2147483647), "axis 2147483647 is not within a rank of 4"),
    "huge_dense": (
        one("InnerProduct", "inner_product_param", num_output=4294967295),
        "it has a parameter of the shape [4294967295, 192]",
    ),
    "pool_kernels": (pool(kernel_size=2, kernel_h=3, kernel_w=3), "either kernel_size, or kernel_h and kernel_w"),
    "pool_kernel_h": (pool(kernel_h=3), "either kernel_size, or kernel_h and kernel_w"),
    "pool_no_kernel": (pool(), "either kernel_size, or kernel_h and kernel_w"),
    "pool_pad": (pool(kernel_size=2, pad=2), "a pad is less than the kernel"),
    "pool_stride": (pool(kernel_size=2, stride=0), "do not fit"),
    "pool_strides": (pool(kernel_size=2, stride=1, stride_h=1, stride_w=1), "either stride, or stride_h and stride_w"),
    "pool_pad_h": (pool(kernel_size=2, pad_h=1), "either pad, or pad_h and pad_w"),
    "pool_global": (pool(kernel_size=2, global_pooling=True), "with global_pooling it has no kernel"),
    "pool_wide": (pool(kernel_size=11), "wider than the input"),
    "pyramid": (one("SPP", "spp_param", pyramid_height=0), "it makes a pyramid of height 0"),
    "lrn_even": (one("LRN", "lrn_param", local_size=4), "its local_size 4 is even"),
    "slice": (one("Slice", "slice_param", tops=("y", "z"), axis=1), "3 cannot be cut into 2 equal parts"),
    "slice_order": (one("Slice", "slice_param", tops=("y", "z", "u"), slice_point=[2, 2]), "the points [2, 2]"),
    "slice_past": (one("Slice", "slice_param", tops=("y", "z"), slice_point=5), "the points [5] do not cut 3"),
    "concat_axis": (one("Concat", "concat_param", ("x", "x"), axis=9), "axis 9 is not within a rank of 4"),
    "reshape": (one("Reshape", "reshape_param", shape={"dim": [5, -1]}), "no whole number of 5 elements"),
    "reshape_two": (one("Reshape", "reshape_param", shape={"dim": [-1, -1]}), "one dim may be -1"),
    "reshape_count": (one("Reshape", "reshape_param", shape={"dim": [5]}), "reshape"),
    "reshape_copy": (one("Reshape", "reshape_param", shape={"dim": [1, 1, 1, 1, 0]}), "copies an axis"),
    "reshape_axis": (one("Reshape", "reshape_param", axis=5), "are not within"),
    "permute": (one("Permute", "permute_param", order=[0, 0]), "the order [0, 0] is none"),
    "permute_rank": (one("Permute", "permute_param", order=[0, 9]), "the order [0, 9] is none"),
    "flatten": (one("Flatten", "flatten_param", axis=3, end_axis=1), "are in the wrong order"),
    "tile": (one("Tile", "tile_param", tiles=-2), "it repeats -2 times"),
    "crop": (one("Crop", "crop_param", ("x", "x"), offset=3), "slice"),
    "crop_offsets": (one("Crop", "crop_param", ("x", "x"), offset=[1, 1, 1]), "with 3 offsets"),
    "arg_max": (one("ArgMax", "argmax_param", axis=1, top_k=7), "it takes the first 7 of 3 elements"),
    "clip": (one("Clip", "clip_param", min=1), "it needs min and max"),
    "exp_base": (one("Exp", "exp_param", base=-2), "its base is -2"),
    "log_base": (one("Log", "log_param", base=1), "its base is 1"),
    "log_nan": (one("Log", "log_param", base=Word("nan")), "its base is nan"),
    "coefficients": (one("Eltwise", "eltwise_param", ("x", "x"), coeff=[1]), "it has 1 coefficients for 2 bottoms"),
    "coefficients_of_product": (
        one("Eltwise", "eltwise_param", ("x", "x"), operation=Word("PROD"), coeff=[1, 2]),
        "products have none",
    ),
    "scale_axes": (one("Scale", "scale_param", num_axes=4), "4 axes from axis 1 on are not within"),
    "scale_negative": (one("Scale", "scale_param", num_axes=-2), "-2 axes"),
    "scale_bottom": (one("Scale", "scale_param", ("x", "x"), axis=1), "does not stand at axis 1"),
    "shuffle": (one("ShuffleChannel", "shuffle_channel_param", group=2), "cannot be shuffled in 2 groups"),
    "upsample": (one("Upsample", "upsample_param", scale=0), "it enlarges images"),
    "interp": (one("Interp", "interp_param", shrink_factor=0), "must be positive"),
    "interp_nothing": ([layer("Interp")], "it needs shrink_factor, zoom_factor, or height and width"),
    "interp_size": (one("Interp", "interp_param", height=-1, width=3), "its size [-1, 3] must be positive"),
    "interp_pad": (one("Interp", "interp_param", pad_beg=2), "they are not positive"),
    "embed": (one("Embed", "embed_param", num_output=3), "it needs num_output and input_dim"),
    "dummy": (
        one("DummyData", "dummy_data_param", (), ("y", "z", "u"), shape=[{"dim": 1}, {"dim": 2}]),
        "it gives 2 shapes for 3 tops",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_that_contradicts_itself(name: str, tmp_path: pathlib.Path) -> None:
    layers, why = LAYERS[name]
    text = mistakes(tmp_path, [*X, *layers])
    assert text.startswith("layer 'y' (") and why in text, text


def test_stochastic_pooling_is_refused(tmp_path: pathlib.Path) -> None:
    error = fails(tmp_path, [*X, *pool(kernel_size=2, pool=Word("STOCHASTIC"))])
    assert error.code == "M201" and "Pooling (y): stochastic pooling draws random numbers" in str(error)


NUMBERS = [Word("nan"), Word("inf"), Word("-inf"), -1.5, 3e38]


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_odd_numbers_build_or_fail_with_a_code(number: Any, tmp_path: pathlib.Path) -> None:
    odd = [
        *one("ReLU", "relu_param", negative_slope=number),
        *one("ELU", "elu_param", alpha=number),
        *one("Power", "power_param", power=number, shift=number),
        *one("Power", "power_param", scale=0, power=number, shift=number),
        *one("Exp", "exp_param", shift=number),
        *one("Exp", "exp_param", base=number),
        *one("Log", "log_param", scale=number, shift=number),
        *one("LRN", "lrn_param", alpha=number, beta=number),
        *one("MVN", "mvn_param", eps=number),
        *one("BatchNorm", "batch_norm_param", eps=number),
        *one("Clip", "clip_param", min=number, max=number),
        *one("Threshold", "threshold_param", threshold=number),
        *one("Reduction", "reduction_param", coeff=number),
        *one("Swish", "swish_param", beta=number),
        *one("PReLU", "prelu_param", filler={"type": "gaussian", "std": number}),
        *one("InnerProduct", "inner_product_param", num_output=2, weight_filler={"type": "uniform", "min": number}),
    ]
    for fields in odd:
        prototxt, caffemodel = write(tmp_path, [*X, fields], {"other": []})
        try:
            engine = tw.build(prototxt, weights=caffemodel, target="reference", tune="off")
            engine.run({"x": np.ones((1, 3, 8, 8), np.float32)})
        except ModelError as error:
            assert error.code == "M104", error
