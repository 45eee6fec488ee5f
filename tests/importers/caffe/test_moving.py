# SPDX-License-Identifier: Apache-2.0
"""Layers that move, choose or combine elements, against NumPy."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.importers.caffe import oracle
from tests.importers.caffe.cases import Case, check_case
from tests.importers.caffe.writer import Array, Word, check, engines, layer

RNG = np.random.default_rng()
SHAPE = (2, 6, 4, 5)


def moved(kind: str, function: Any, shapes: Any = SHAPE, tops: int = 1, **p: Any) -> Case:
    """`function` gives the first top, or all of them, from the bottoms."""

    def run(bottoms: Any, fields: Any, blobs: Any) -> list[Array]:
        result = function(*bottoms)
        return list(result) if isinstance(result, list) else [result]

    return Case(kind, [shapes] if isinstance(shapes, tuple) else shapes, p, [], run, tops=tops)


def reshape(wanted: list[int], result: tuple[int, ...], shape: tuple[int, ...] = SHAPE, **p: Any) -> Case:
    return moved("Reshape", lambda x: x.reshape(result), shape, shape={"dim": wanted}, **p)


def arg_max(shape: tuple[int, ...] = SHAPE, most: int = 0, **p: Any) -> Case:
    return Case("ArgMax", [shape], p, [], oracle.arg_max, most=most)


def reduction(operation: str, shape: tuple[int, ...] = SHAPE, **p: Any) -> Case:
    return Case("Reduction", [shape], {"operation": Word(operation), **p}, [], oracle.reduction)


CASES = {
    "split": moved("Split", lambda x: [x, x, x], tops=3),
    "dropout": moved("Dropout", lambda x: x * 1, dropout_ratio=0.3),
    "concat": moved("Concat", lambda *xs: np.concatenate(xs, 1), [(2, 3, 4), (2, 1, 4), (2, 2, 4)]),
    "concat_axis": moved("Concat", lambda *xs: np.concatenate(xs, -1), [(2, 3, 4), (2, 3, 1)], axis=-1),
    "concat_dim": moved("Concat", lambda *xs: np.concatenate(xs, 0), [(2, 3), (1, 3)], concat_dim=0),
    "concat_one": moved("Concat", lambda x: x, [(2, 3)]),
    "slice": moved("Slice", lambda x: np.split(x, 3, 1), tops=3),
    "slice_points": moved("Slice", lambda x: np.split(x, [1, 4], 2), (2, 3, 7), tops=3, axis=2, slice_point=[1, 4]),
    "slice_dim": moved("Slice", lambda x: np.split(x, [1], 0), tops=2, slice_dim=0, slice_point=1),
    "slice_from_end": moved("Slice", lambda x: np.split(x, 2, -2), tops=2, axis=-2),
    "slice_one": moved("Slice", lambda x: [x], tops=1),
    "crop": Case("Crop", [SHAPE, (2, 6, 2, 3)], {"offset": 1}, [], oracle.crop),
    "crop_offsets": Case("Crop", [SHAPE, (7, 7, 3, 2)], {"offset": [1, 3]}, [], oracle.crop),
    "crop_channels": Case("Crop", [SHAPE, (1, 3, 4, 2)], {"axis": 1, "offset": [2, 0, 1]}, [], oracle.crop),
    "crop_last": Case("Crop", [SHAPE, (1, 1, 1, 3)], {"axis": -1, "offset": 2}, [], oracle.crop),
    "crop_none": Case("Crop", [SHAPE, SHAPE], {}, [], oracle.crop),
    "flatten": moved("Flatten", lambda x: x.reshape(2, 120)),
    "flatten_axes": moved("Flatten", lambda x: x.reshape(2, 24, 5), axis=1, end_axis=2),
    "flatten_all": moved("Flatten", lambda x: x.reshape(-1), axis=0),
    "flatten_from_end": moved("Flatten", lambda x: x.reshape(2, 6, 20), axis=-2, end_axis=-1),
    "flatten_nothing": moved("Flatten", lambda x: x.reshape(2, 6, 1, 4, 5), axis=2, end_axis=1),
    "reshape": reshape([0, -1], (2, 120)),
    "reshape_copied": reshape([0, 0, 20], (2, 6, 20)),
    "reshape_axis": reshape([2, -1], (2, 2, 3, 4, 5), axis=1, num_axes=1),
    "reshape_axis_0": reshape([0, 2, -1], (2, 6, 2, 10), axis=1),
    "reshape_inserted": reshape([1, 1], (2, 6, 1, 1, 4, 5), axis=2, num_axes=0),
    "reshape_from_end": reshape([-1], (2, 6, 20), axis=-3),
    "reshape_appended": reshape([1], (2, 6, 4, 5, 1), axis=-1, num_axes=0),
    "reshape_no_rest": reshape([3, 4, 20], (3, 4, 20)),
    "permute": moved("Permute", lambda x: x.transpose(0, 2, 3, 1), order=[0, 2, 3, 1]),
    "permute_short": moved("Permute", lambda x: x.transpose(2, 0, 1, 3), order=[2]),
    "tile": moved("Tile", lambda x: np.tile(x, (1, 3, 1, 1)), tiles=3),
    "tile_axis": moved("Tile", lambda x: np.tile(x, (1, 1, 1, 2)), tiles=2, axis=-1),
    "shuffle": moved("ShuffleChannel", lambda x: x.reshape(2, 3, 2, 20).swapaxes(1, 2).reshape(x.shape), group=3),
    **{
        f"reduce_{operation.lower()}_{axis}": reduction(operation, axis=axis, coeff=coeff)
        for operation in ("SUM", "ASUM", "SUMSQ", "MEAN")
        for axis, coeff in ((0, 1), (1, 0.5), (-1, 2))
    },
    "reduce_rank_1": reduction("MEAN", (7,)),
    "arg_max": arg_max(),
    "arg_max_rank_2": arg_max((3, 9)),
    "arg_max_values": arg_max(out_max_val=True, top_k=4),
    "arg_max_rank_2_values": arg_max((3, 9), out_max_val=True),
    "arg_max_rank_5": arg_max((2, 2, 2, 2, 2), top_k=3),
    "arg_max_axis": arg_max(axis=1),
    "arg_max_axis_top": arg_max(axis=2, top_k=2),
    "arg_max_axis_values": arg_max(axis=1, top_k=3, out_max_val=True),
    "arg_max_ties": arg_max(most=3, axis=1),
    "arg_max_ties_top": arg_max(most=3, top_k=7, out_max_val=True),
    "upsample": Case("Upsample", [(2, 3, 3, 2)], {"scale": 3}, [], oracle.upsample),
    "interp_zoom": Case("Interp", [(2, 3, 4, 5)], {"zoom_factor": 3}, [], oracle.interp),
    "interp_shrink": Case("Interp", [(2, 3, 9, 7)], {"shrink_factor": 2}, [], oracle.interp),
    "interp_size": Case("Interp", [(1, 2, 4, 5)], {"height": 7, "width": 3}, [], oracle.interp),
    "interp_like": Case("Interp", [(1, 2, 4, 5), (1, 1, 6, 9)], {}, [], oracle.interp),
    "interp_shrink_first": Case(
        "Interp", [(1, 2, 9, 7)], {"shrink_factor": 2, "height": 3, "width": 3}, [], oracle.interp
    ),
    "interp_blob": Case("Interp", [(1, 2, 4, 5), (1, 1, 6, 9)], {"use_blob_size": True}, [], oracle.interp),
    "interp_both": Case("Interp", [(1, 2, 9, 7)], {"shrink_factor": 2, "zoom_factor": 3}, [], oracle.interp),
    "interp_cropped": Case(
        "Interp", [(1, 2, 6, 7)], {"pad_beg": -1, "pad_end": -2, "zoom_factor": 2}, [], oracle.interp
    ),
    "interp_one": Case("Interp", [(1, 2, 6, 7)], {"height": 1, "width": 4}, [], oracle.interp),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str, tmp_path: pathlib.Path) -> None:
    check_case(CASES[name], tmp_path)


def test_batch_is_taken_at_indices(tmp_path: pathlib.Path) -> None:
    case = moved("BatchReindex", lambda x, i: x[i.astype(int)], [(4, 3, 2), (5,)])
    check_case(case, tmp_path, {1: RNG.integers(0, 4, 5).astype(np.float32)})


def test_segnet_puts_maxima_where_they_were(tmp_path: pathlib.Path) -> None:
    x = RNG.standard_normal((2, 3, 6, 8)).astype(np.float32)
    p = {"kernel_size": 2, "stride": 2}
    small, mask = oracle.pooling([x], p, [])
    (whole,) = oracle.upsample([small, mask], {"scale": 2}, [])
    layers = [
        layer("Pooling", ("x",), ("small", "mask"), pooling_param=p),
        layer("Upsample", ("small", "mask"), ("y",), upsample_param={"scale": 2}),
    ]
    check(tmp_path, layers, {"x": x}, {"y": whole})


def test_dummies_of_one_number_are_constants(tmp_path: pathlib.Path) -> None:
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    p = {"data_filler": [{"value": 1.5}, {"value": -2}], "shape": [{"dim": [2, 3]}, {"dim": [3]}]}
    layers = [
        layer("DummyData", (), ("a", "b"), dummy_data_param=p),
        layer("Eltwise", ("x", "a"), ("s",)),
        layer("Bias", ("s", "b"), ("y",)),
    ]
    check(tmp_path, layers, {"x": x}, {"y": x + np.float32(-0.5)})


def test_random_dummies_are_inputs(tmp_path: pathlib.Path) -> None:
    p = {"data_filler": {"type": "gaussian"}, "num": 2, "channels": 3, "height": 4, "width": 5}
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    layers = [layer("DummyData", (), ("x",), dummy_data_param=p), layer("ReLU", ("x",), ("y",))]
    for engine in engines(tmp_path, layers):
        np.testing.assert_array_equal(engine.run({"x": x})["y"], np.maximum(x, 0))
