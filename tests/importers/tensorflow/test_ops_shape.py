# SPDX-License-Identifier: Apache-2.0
"""TensorFlow ops that move, cut, join, choose, reduce and order elements, against NumPy."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tests.importers.tensorflow.graphs import Array, TfWriter, Type, applied

rng = np.random.default_rng()


def i32(*values: int) -> Array:
    return np.array(values, np.int32)


def floats(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


X = floats(4, 5, 6)
MOVES: dict[str, tuple[str, dict[int, Any], dict[str, Any], Callable[[Array], Any]]] = {
    "reshape": ("Reshape", {1: i32(5, -1)}, {}, lambda x: x.reshape(5, -1)),
    "reshape_to_rank_0": ("Sum", {1: i32(0, 1, 2)}, {}, lambda x: x.sum()),
    "expand": ("ExpandDims", {1: i32(-2)}, {}, lambda x: x[:, :, None]),
    "transpose": ("Transpose", {1: i32(2, 0, 1)}, {}, lambda x: x.transpose(2, 0, 1)),
    "tile": ("Tile", {1: i32(1, 2, 3)}, {}, lambda x: np.tile(x, (1, 2, 3))),
    "pad": (
        "Pad",
        {1: np.array([[1, 0], [0, 2], [3, 1]], np.int32)},
        {},
        lambda x: np.pad(x, [[1, 0], [0, 2], [3, 1]]),
    ),
    "pad_with": (
        "PadV2",
        {1: np.array([[1, 0], [0, 2], [0, 0]], np.int32), 2: np.float32(2.5)},
        {},
        lambda x: np.pad(x, [[1, 0], [0, 2], [0, 0]], constant_values=2.5),
    ),
    "reflect": (
        "MirrorPad",
        {1: np.array([[1, 3], [0, 0], [2, 1]], np.int32)},
        {"mode": "REFLECT"},
        lambda x: np.pad(x, [[1, 3], [0, 0], [2, 1]], "reflect"),
    ),
    "symmetric": (
        "MirrorPad",
        {1: np.array([[1, 4], [0, 0], [2, 1]], np.int32)},
        {"mode": "SYMMETRIC"},
        lambda x: np.pad(x, [[1, 4], [0, 0], [2, 1]], "symmetric"),
    ),
    "slice": ("Slice", {1: i32(1, 0, 2), 2: i32(2, -1, 3)}, {}, lambda x: x[1:3, :, 2:5]),
    "reverse": ("ReverseV2", {1: i32(1, -1)}, {}, lambda x: x[:, ::-1, ::-1]),
    "gather": ("GatherV2", {1: i32(4, 0, 0), 2: i32(1)}, {}, lambda x: x[:, [4, 0, 0]]),
    "gather_nd": ("GatherNd", {1: np.array([[0, 1], [3, 4]], np.int32)}, {}, lambda x: x[[0, 3], [1, 4]]),
    "broadcast": ("BroadcastTo", {1: i32(2, 4, 5, 6)}, {}, lambda x: np.broadcast_to(x, (2, 4, 5, 6))),
    "unpack": ("Unpack", {}, {"num": 5, "axis": 1}, lambda x: x[:, 0]),
    "cumsum": ("Cumsum", {1: i32(1)}, {"exclusive": True}, lambda x: np.cumsum(x, 1) - x),
    "mean": ("Mean", {1: i32(0, -1)}, {"keep_dims": True}, lambda x: x.mean((0, 2), keepdims=True)),
    "max": ("Max", {1: i32(1)}, {}, lambda x: x.max(1)),
    "min": ("Min", {1: np.int32(2)}, {}, lambda x: x.min(2)),
    "prod": ("Prod", {1: i32(2)}, {}, lambda x: x.prod(2)),
    "no_axes": ("Sum", {1: np.zeros(0, np.int32)}, {}, lambda x: x),
    "argmax": ("ArgMax", {1: np.int32(1)}, {}, lambda x: x.argmax(1)),
    "argmin": ("ArgMin", {1: np.int32(-1)}, {"output_type": Type(3)}, lambda x: x.argmin(2).astype(np.int32)),
    "shape": ("Shape", {}, {}, lambda x: i32(4, 5, 6)),
}


@pytest.mark.parametrize("name", MOVES)
def test_op_that_moves_or_reduces(tmp_path: pathlib.Path, name: str) -> None:
    op, constants, attrs, function = MOVES[name]
    if op == "Shape":  # its result is known at import: an input that nothing needs is none
        g = TfWriter()
        x = g.placeholder("x", np.float32, (-1, 5, 6))
        g.node("Add", g.node("Shape", x), g.constant(i32(0, 0, 1)), name="y")
        engine = tw.build(
            g.save(tmp_path / "s.pb"), shapes={"x": tw.Range((1, 5, 6), (2, 5, 6), (9, 5, 6))}, tune="off"
        )
        np.testing.assert_array_equal(engine.run({"x": floats(7, 5, 6)})["y"], i32(7, 5, 7))
        return
    want = np.asarray(function(X))
    for target in ("cpu", "reference"):
        (got,) = applied(tmp_path, op, [X], attrs, constants=constants, target=target)
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


SUBSCRIPTS = [
    np.s_[1:3, ::2],
    np.s_[..., 1],
    np.s_[-2:, ::-1],
    np.s_[None, 1, 2:],
    np.s_[:, None, ..., 2],
    np.s_[3:0:-2, -1],
    np.s_[1:1],
    np.s_[::-1, 1:-1],
    np.s_[..., None],
    np.s_[5:1],
    np.s_[-100:100],
    np.s_[1, 2, 3],
    np.s_[..., 4:0:-3],
]


def strided(subscript: Any) -> tuple[dict[int, Array], dict[str, int]]:
    """The inputs and masks that TensorFlow writes for a subscript."""
    entries = subscript if isinstance(subscript, tuple) else (subscript,)
    masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
    begins, ends, steps = [], [], []
    for i, e in enumerate(entries):
        begin, end, step = 0, 0, 1
        if e is Ellipsis:
            masks["ellipsis_mask"] |= 1 << i
        elif e is None:
            masks["new_axis_mask"] |= 1 << i
        elif isinstance(e, slice):
            step = 1 if e.step is None else e.step
            begin, end = e.start or 0, e.stop or 0
            masks["begin_mask"] |= (e.start is None) << i
            masks["end_mask"] |= (e.stop is None) << i
        else:
            begin, end = e, e + 1
            masks["shrink_axis_mask"] |= 1 << i
        begins.append(begin)
        ends.append(end)
        steps.append(step)
    return {1: i32(*begins), 2: i32(*ends), 3: i32(*steps)}, masks


@pytest.mark.parametrize("subscript", SUBSCRIPTS, ids=str)
def test_strided_slice_is_the_subscript_of_numpy(tmp_path: pathlib.Path, subscript: Any) -> None:
    constants, masks = strided(subscript)
    (got,) = applied(tmp_path, "StridedSlice", [X], masks, constants=constants)
    np.testing.assert_array_equal(got, X[subscript])


def test_concat_pack_split(tmp_path: pathlib.Path) -> None:
    x, y = floats(2, 3), floats(2, 4)
    got = applied(tmp_path, "ConcatV2", [x, y], {"N": 2}, constants={2: np.int32(-1)})[0]
    np.testing.assert_array_equal(got, np.concatenate([x, y], 1))
    np.testing.assert_array_equal(applied(tmp_path, "Pack", [x, x], {"N": 2, "axis": -1})[0], np.stack([x, x], -1))
    parts = applied(tmp_path, "SplitV", [floats(2, 7)], {}, constants={1: i32(2, -1, 1), 2: np.int32(1)}, outputs=3)
    assert [p.shape for p in parts] == [(2, 2), (2, 4), (2, 1)]
    z = floats(6, 2)
    parts = applied(tmp_path, "Split", [z], {"num_split": 3}, constants={0: np.int32(0)}, outputs=3)
    np.testing.assert_array_equal(np.concatenate(parts), z)


def test_gather_with_batch_dims(tmp_path: pathlib.Path) -> None:
    x, indices = floats(3, 5, 6, 2), rng.integers(0, 6, (3, 4)).astype(np.int32)
    got = applied(tmp_path, "GatherV2", [x, indices], {"batch_dims": 1}, constants={2: np.int32(2)})[0]
    np.testing.assert_array_equal(got, np.stack([x[b][:, indices[b]] for b in range(3)]))


def test_ties_go_to_the_lower_index(tmp_path: pathlib.Path) -> None:
    x = rng.integers(0, 3, (4, 12)).astype(np.float32)
    order = np.argsort(-x, 1, kind="stable")[:, :5]
    values, indices = applied(tmp_path, "TopKV2", [x], {}, constants={1: np.int32(5)}, outputs=2)
    np.testing.assert_array_equal(indices, order.astype(np.int32))
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))
    got = applied(tmp_path, "ArgMin", [x], {}, constants={1: np.int32(1)})[0]
    np.testing.assert_array_equal(got, x.argmin(1))


def test_one_hot_leaves_out_what_is_out_of_range(tmp_path: pathlib.Path) -> None:
    x = rng.integers(-2, 7, (3, 4)).astype(np.int32)
    constants = {1: np.int32(5), 2: np.float32(2), 3: np.float32(-1)}
    got = applied(tmp_path, "OneHot", [x], {"axis": 1}, constants=constants)[0]
    want = np.where(np.arange(5)[None, :, None] == x[:, None, :], np.float32(2), np.float32(-1))
    np.testing.assert_array_equal(got, want)


def test_products_of_matrices(tmp_path: pathlib.Path) -> None:
    x, y = floats(2, 3, 4), floats(2, 5, 4)
    got = applied(tmp_path, "BatchMatMulV2", [x, y], {"adj_y": True})[0]
    np.testing.assert_allclose(got, x @ y.transpose(0, 2, 1), rtol=1e-5, atol=1e-5)
    got = applied(tmp_path, "MatMul", [floats(4, 3)], {"transpose_a": True}, constants={1: floats(4, 7)})[0]
    assert got.shape == (3, 7)
    got = applied(tmp_path, "Einsum", [x, y], {"equation": "bij,bkj->bik"})[0]
    np.testing.assert_allclose(got, np.einsum("bij,bkj->bik", x, y), rtol=1e-5, atol=1e-5)


def test_positions_of_what_is_true_are_rows(tmp_path: pathlib.Path) -> None:
    x = rng.random((4, 5)) < 0.4
    np.testing.assert_array_equal(applied(tmp_path, "Where", [x], {})[0], np.argwhere(x))


def test_blocks_of_pixels_become_channels_and_back(tmp_path: pathlib.Path) -> None:
    x = floats(2, 4, 6, 3)
    packed = x.reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 2, 3, 12)
    np.testing.assert_array_equal(applied(tmp_path, "SpaceToDepth", [x], {"block_size": 2})[0], packed)
    np.testing.assert_array_equal(applied(tmp_path, "DepthToSpace", [packed], {"block_size": 2})[0], x)
    constants = {1: i32(2, 3), 2: np.array([[0, 0], [1, 2]], np.int32)}
    batched = applied(tmp_path, "SpaceToBatchND", [x], {}, constants=constants)[0]
    assert batched.shape == (12, 2, 3, 3)
    np.testing.assert_array_equal(applied(tmp_path, "BatchToSpaceND", [batched], {}, constants=constants)[0], x)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_open_batch_goes_through_shape_arithmetic(tmp_path: pathlib.Path, batch: int) -> None:
    """reshape(x, [shape(x)[0], 12]) and back, and ones of the shape of x."""
    g = TfWriter()
    x = g.placeholder("x", np.float32, (-1, 3, 4))
    shape = g.node("Shape", x)
    masks = {"shrink_axis_mask": 1}
    rows = g.node("StridedSlice", shape, *(g.constant(i32(v)) for v in (0, 1, 1)), **masks)
    flat = g.node("Reshape", x, g.node("Pack", rows, g.constant(np.int32(12)), N=2, axis=0))
    scaled = g.node("Mul", flat, g.constant(np.float32(2)))
    g.node("Add", g.node("Reshape", scaled, shape), g.node("Fill", shape, g.constant(np.float32(1))), name="y")
    engine = tw.build(
        g.save(tmp_path / "g.pb"),
        shapes={"x": tw.Range((1, 3, 4), (2, 3, 4), (8, 3, 4))},
        tune="off",
        host_steps=False,
    )
    value = floats(batch, 3, 4)
    np.testing.assert_allclose(engine.run({"x": value})["y"], value * 2 + 1, rtol=1e-6)
