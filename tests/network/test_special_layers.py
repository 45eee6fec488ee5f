# SPDX-License-Identifier: Apache-2.0
"""Layers that choose, count, quantise or sample, and sequences: compiled without host steps, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.network import (
    AttentionNormalizationOp,
    BoundingBoxFormat,
    CumulativeOperation,
    ElementWiseOperation,
    FillOperation,
    InterpolationMode,
    Layer,
    ReduceOperation,
    SampleMode,
    ScatterMode,
    Tensor,
    TopKOperation,
)
from tests.network.single import RNG, Array, compiled, constant, network_of, random, with_properties


def with_input(layer: Layer, index: int, tensor: Tensor) -> Layer:
    layer.set_input(index, tensor)
    return layer


# -- choosing, placing, counting --------------------------------------------------------------------
@pytest.mark.parametrize("op", list(TopKOperation))
@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_topk_gives_values_and_indices(op: TopKOperation, dtype: str) -> None:
    x = random(3, 9, 5)
    values, places = compiled(lambda n, t: n.add_topk(t, op, 4, 1 << 1, dtype), x)
    order = np.argsort(-x if op is TopKOperation.MAX else x, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))
    assert places.dtype == (np.int32 if dtype == "i32" else np.int64)


def test_topk_takes_k_as_a_constant_and_in_a_run() -> None:
    x = random(4, 7)
    (values, _) = compiled(lambda n, t: with_input(n.add_topk(t, TopKOperation.MAX, 1, 2), 1, constant(n, 3)), x)
    np.testing.assert_array_equal(values, -np.sort(-x, 1)[:, :3])
    network, _ = network_of(lambda n, t, k: with_input(n.add_topk(t, TopKOperation.MAX, 1, 2), 1, k), x, np.int32(0))
    engine = tw.build(network, tune="off", host_steps=False, threads=1)
    for k in (0, 1, 5, 7):
        found = engine.run({"in0": x, "in1": np.int32(k)})
        np.testing.assert_array_equal(found["topk_1"], -np.sort(-x, 1)[:, :k])


def test_scatter_writes_elements_and_blocks() -> None:
    data, updates = random(4, 5), random(2, 5)
    index = np.array([[0, 3, 1, 2, 0], [2, 1, 0, 3, 1]], np.int32)
    (found,) = compiled(lambda n, d, i, u: n.add_scatter(d, i, u, ScatterMode.ELEMENT), data, index, updates)
    expected = data.copy()
    np.put_along_axis(expected, index.astype(np.int64), updates, 0)
    np.testing.assert_array_equal(found, expected)
    columns = np.array([[1, 4], [0, 2], [3, 1], [2, 0]], np.int64)
    (found,) = compiled(
        lambda n, d, i, u: with_properties(n.add_scatter(d, i, u, ScatterMode.ELEMENT), axis=-1),
        data,
        columns,
        updates.reshape(-1)[:8].reshape(4, 2),
    )
    expected = data.copy()
    np.put_along_axis(expected, columns, updates.reshape(-1)[:8].reshape(4, 2), 1)
    np.testing.assert_array_equal(found, expected)
    rows = np.array([[2], [0]])
    (found,) = compiled(lambda n, d, i, u: n.add_scatter(d, i, u, ScatterMode.ND), data, rows, updates)
    expected = data.copy()
    expected[[2, 0]] = updates
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_places_two_values(axis: int) -> None:
    index, values = RNG.integers(-4, 4, (3, 5)).astype(np.int32), random(2)
    (found,) = compiled(lambda n, i, v: n.add_one_hot(i, v, constant(n, 4), axis), index, values)
    hot = np.where(np.eye(4, dtype=bool)[index % 4], values[1], values[0])
    np.testing.assert_array_equal(found, np.moveaxis(hot, -1, axis))


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
def test_non_zero_lists_positions_of_any_number(shape: tuple[int, ...]) -> None:
    network, _ = network_of(lambda n, t: n.add_non_zero(t), random(*shape))
    engine = tw.build(network, tune="off", host_steps=False, threads=1)
    for share in (0, 0.4, 1):
        x = np.where(RNG.random(shape) < share, random(*shape), 0).astype(np.float32)
        found = engine.run({"in0": x})["non_zero_1"]
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, np.array(np.nonzero(x)))


def iou(a: Array, b: Array) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.maximum(high - low, 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


@pytest.mark.parametrize("form", list(BoundingBoxFormat))
def test_nms_keeps_boxes_that_do_not_overlap(form: BoundingBoxFormat) -> None:
    low = RNG.random((2, 12, 2)).astype(np.float32)
    size = RNG.random((2, 12, 2)).astype(np.float32) + np.float32(0.2)
    corners, scores = np.concatenate([low, low + size], -1), RNG.random((2, 12, 3)).astype(np.float32)
    boxes = corners if form is BoundingBoxFormat.CORNER_PAIRS else np.concatenate([low + size / 2, size], -1)

    def make(n: tw.Network, b: Tensor, s: Tensor) -> Layer:
        layer = with_properties(n.add_nms(b, s, constant(n, 4)), bounding_box_format=form)
        return with_input(with_input(layer, 3, constant(n, 0.3, "float32")), 4, constant(n, 0.2, "float32"))

    rows, count = compiled(make, boxes, scores)
    expected = []
    for image, kind in np.ndindex(2, 3):
        chosen: list[int] = []
        for i in np.argsort(-scores[image, :, kind], kind="stable"):
            fits = all(iou(corners[image, i], corners[image, j]) <= 0.3 for j in chosen)
            if len(chosen) < 4 and scores[image, i, kind] > 0.2 and fits:
                chosen.append(int(i))
        expected += [(image, kind, i) for i in chosen]
    np.testing.assert_array_equal(rows, expected)
    assert count.shape == () and count == len(expected) and rows.dtype == count.dtype == np.int32


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative_sums(exclusive: bool, reverse: bool) -> None:
    x = random(3, 6, 4)
    (found,) = compiled(
        lambda n, t: n.add_cumulative(t, constant(n, 1), CumulativeOperation.SUM, exclusive, reverse), x
    )
    way = x[:, ::-1] if reverse else x
    sums = np.cumsum(way, 1) - (way if exclusive else 0)
    np.testing.assert_allclose(found, sums[:, ::-1] if reverse else sums, rtol=1e-4, atol=1e-5)


def test_assertion_holds_or_stops_the_graph() -> None:
    for holds in (True, False):
        network, layer = network_of(lambda n, t: n.add_identity(t), random(2))
        network.add_assertion(constant(network, [True, holds], "bool"), "sizes must agree")
        if holds:
            assert len(network.to_graph().outputs) == 1
            continue
        with pytest.raises(ModelError, match="assertion_1.*sizes must agree") as caught:
            network.to_graph()
        assert caught.value.code == "M110"
    network, layer = network_of(lambda n, t: n.add_identity(t), np.ones(2, bool))
    network.add_assertion(layer.get_output(0), "it is data")
    with pytest.raises(ModelError, match="only a run decides"):
        network.to_graph()


# -- shapes and numbers -----------------------------------------------------------------------------
def test_shape_squeeze_unsqueeze() -> None:
    x = random(2, 1, 3, 1)
    (found,) = compiled(lambda n, t: n.add_shape(t), x)
    np.testing.assert_array_equal(found, np.array([2, 1, 3, 1]))
    assert found.dtype == np.int64
    assert compiled(lambda n, t: n.add_squeeze(t, constant(n, [-1])), x)[0].shape == (2, 1, 3)
    assert compiled(lambda n, t: n.add_squeeze(t, constant(n, [])), x)[0].shape == (2, 3)
    (found,) = compiled(lambda n, t: n.add_unsqueeze(t, constant(n, [0, -1])), x)
    np.testing.assert_array_equal(found, x[None, ..., None])


def test_shape_of_an_open_dim_is_told_in_a_run() -> None:
    network = tw.Network()
    network.mark_output(network.add_shape(network.add_input("x", "f32", ("n", 3))).get_output(0))
    ranges = {"x": tw.Range((1, 3), (2, 3), (8, 3))}
    engine = tw.build(network, tune="off", host_steps=False, threads=1, shapes=ranges)
    for n in (1, 5):
        np.testing.assert_array_equal(engine.run({"x": random(n, 3)})["shape_1"], [n, 3])


@pytest.mark.parametrize("dtype", ["f32", "i32", "i64"])
def test_fill_linspace(dtype: str) -> None:
    line = lambda n, t: with_properties(  # noqa: E731
        n.add_fill((6,), FillOperation.LINSPACE, dtype), alpha=2.0, beta=3.0
    )
    (found,) = compiled(line, random(1))
    np.testing.assert_array_equal(found, 2 + 3 * np.arange(6))
    assert found.dtype == tw.Network().add_input("x", dtype).dtype.numpy

    def plane(n: tw.Network, start: Tensor, steps: Tensor) -> Layer:
        return with_input(with_input(n.add_fill((3, 4), FillOperation.LINSPACE, dtype), 1, start), 2, steps)

    start, steps = np.int32(5), np.array([10, -2], np.int32)
    (found,) = compiled(plane, start, steps)
    np.testing.assert_array_equal(found, 5 + 10 * np.arange(3)[:, None] - 2 * np.arange(4))


@pytest.mark.parametrize("operation", [FillOperation.RANDOM_UNIFORM, FillOperation.RANDOM_NORMAL])
def test_fill_random_has_its_distribution_and_changes(operation: FillOperation) -> None:
    network, _ = network_of(
        lambda n, t: with_properties(n.add_fill((50, 400), operation), alpha=3.0, beta=5.0), random(1)
    )
    engine = tw.build(network, tune="off", host_steps=False, threads=1)
    first, second = (np.array(engine.run({"in0": random(1)})["fill_1"]) for _ in range(2))
    assert (first != second).mean() > 0.99
    uniform = operation is FillOperation.RANDOM_UNIFORM
    assert abs(first.mean() - (4 if uniform else 3)) < 0.2 and abs(first.std() - (0.577 if uniform else 5)) < 0.2
    assert not uniform or (first.min() >= 3 and first.max() <= 5)


# -- quantised tensors ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scale", "properties"),
    [
        (np.float32(0.05), {}),
        (np.float32([0.05, 0.1, 0.02]), {"axis": 1}),
        (abs(random(2, 3, 2)) / 50 + np.float32(0.01), {"block_shape": (1, 1, 4)}),
    ],
)
def test_quantize_and_dequantize_by_tensor_axis_and_block(scale: Array, properties: dict[str, Any]) -> None:
    x = random(2, 3, 8) * 3
    wide = scale.reshape(3, 1) if scale.ndim == 1 else scale.repeat(4, 2) if scale.ndim else scale
    (found,) = compiled(lambda n, t, s: with_properties(n.add_quantize(t, s), **properties), x, scale)
    expected = np.clip(np.rint(x / wide), -128, 127)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int8
    (back,) = compiled(lambda n, t, s: with_properties(n.add_dequantize(t, s), **properties), found, scale)
    np.testing.assert_allclose(back, expected * wide, rtol=1e-6)


def test_quantize_adds_zero_points() -> None:
    x, zero = random(4, 3), np.array([3, 128, 250], np.uint8)
    (found,) = compiled(
        lambda n, t, s, z: with_input(with_properties(n.add_quantize(t, s, "u8"), axis=1), 2, z),
        x,
        np.full(3, 0.1, np.float32),
        zero,
    )
    np.testing.assert_array_equal(found, np.clip(np.rint(x / np.float32(0.1)) + zero, 0, 255))


# -- sequences and images ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("ij->ji", [(3, 4)]),
        ("ii->", [(4, 4)]),
        ("...i,i->...", [(2, 3, 4), (4,)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
    ],
)
def test_einsum_agrees_with_numpy(equation: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [random(*shape) for shape in shapes]
    (found,) = compiled(lambda n, *t: n.add_einsum(t, equation), *arrays)
    np.testing.assert_allclose(found, np.einsum(equation, *arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(1, 0), (0, 1)])
def test_reverse_sequence_turns_the_first_steps(axes: tuple[int, int]) -> None:
    x, lengths = random(4, 4, 3), np.array([0, 1, 3, 4], np.int32)
    (found,) = compiled(
        lambda n, t, s: with_properties(n.add_reverse_sequence(t, s), batch_axis=axes[0], sequence_axis=axes[1]),
        x,
        lengths,
    )
    expected = np.moveaxis(x, axes[0], 0).copy()
    for row, length in zip(expected, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    np.testing.assert_array_equal(found, np.moveaxis(expected, 0, axes[0]))


@pytest.mark.parametrize("mode", list(InterpolationMode))
@pytest.mark.parametrize("outside", [SampleMode.FILL, SampleMode.CLAMP, SampleMode.REFLECT])
def test_grid_sample_gives_back_the_image_on_its_own_points(mode: InterpolationMode, outside: SampleMode) -> None:
    x = random(2, 3, 4, 5)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 5), indexing="ij")
    grid = np.stack([columns, rows], -1)[None].repeat(2, 0).astype(np.float32)
    make = lambda n, t, g: with_properties(  # noqa: E731
        n.add_grid_sample(t, g), interpolation_mode=mode, sample_mode=outside, align_corners=True
    )
    (found,) = compiled(make, x, grid)
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-4)
    (far,) = compiled(make, x, np.full((2, 1, 1, 2), 9, np.float32))
    corner = {SampleMode.FILL: 0 * x[..., 0, 0], SampleMode.CLAMP: x[..., -1, -1]}
    if outside in corner:
        np.testing.assert_allclose(far[..., 0, 0], corner[outside], rtol=1e-4, atol=1e-5)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_ragged_softmax_stops_at_the_bounds() -> None:
    x, bounds = random(5, 6), np.array([[0], [1], [3], [6], [2]], np.int32)
    (found,) = compiled(lambda n, t, b: n.add_ragged_softmax(t, b), x, bounds)
    expected = np.zeros_like(x)
    for row, given, (bound,) in zip(expected, x, bounds, strict=True):
        row[:bound] = softmax(given[:bound]) if bound else 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_agrees_with_its_formula(causal: bool, mask: str, key_heads: int) -> None:
    q, k, v = random(2, 4, 5, 8) / 3, random(2, key_heads, 5, 8), random(2, key_heads, 5, 6)
    allowed = RNG.random((2, 1, 5, 5)) < 0.6
    allowed[..., 0] = True
    masks = {"none": [], "bool": [allowed], "float": [random(5, 5)]}[mask]

    def make(n: tw.Network, *t: Tensor) -> Layer:
        layer = n.add_attention(*t[:3], AttentionNormalizationOp.SOFTMAX, causal)
        return with_properties(layer, mask=t[3]) if len(t) > 3 else layer

    (found,) = compiled(make, q, k, v, *masks)
    scores = q @ k.repeat(4 // key_heads, 1).swapaxes(-1, -2)
    for given in masks:
        scores = scores + (np.where(given, 0, -np.inf) if mask == "bool" else given)
    scores = scores + (np.triu(np.full((5, 5), -np.inf), 1) if causal else 0)
    np.testing.assert_allclose(found, softmax(scores) @ v.repeat(4 // key_heads, 1), rtol=1e-4, atol=1e-5)


def test_attention_without_normalisation_is_two_products() -> None:
    q, k, v = random(1, 2, 3, 4), random(1, 2, 5, 4), random(1, 2, 5, 6)
    (found,) = compiled(lambda n, *t: n.add_attention(*t, AttentionNormalizationOp.NONE, False), q, k, v)
    np.testing.assert_allclose(found, q @ k.swapaxes(-1, -2) @ v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [0b100, 0b110])
def test_rms_normalization(axes: int) -> None:
    x, scale = random(3, 4, 16), random(16)
    (found,) = compiled(lambda n, t, s: n.add_rms_normalization(t, s, axes), x, scale)
    over = tuple(i for i in range(3) if axes >> i & 1)
    np.testing.assert_allclose(
        found, x / np.sqrt((x * x).mean(over, keepdims=True) + 1e-5) * scale, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("axes", "shape", "groups"),
    [(0b1000, (1, 1, 1, 6), 1), (0b1100, (1, 4, 1, 1), 1), (0b1101, (1, 4, 1, 1), 1), (0b1100, (1, 4, 1, 1), 2)],
)
def test_normalization_compiles_over_layers_instances_batches_and_groups(
    axes: int, shape: tuple[int, ...], groups: int
) -> None:
    compiled(
        lambda n, t, s, b: with_properties(n.add_normalization(t, s, b, axes), num_groups=groups),
        random(2, 4, 7, 6),
        random(*shape),
        random(*shape),
    )


# -- mistakes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda n, x: n.add_topk(x, TopKOperation.MAX, 9, 1 << 1), "topk_1.*cannot take 9"),
        (lambda n, x: n.add_topk(x, TopKOperation.MAX, 2, 3), "one axis"),
        (lambda n, x: n.add_topk(x, TopKOperation.MAX, 2, 2, "f32"), "i32 or i64"),
        (lambda n, x: n.add_scatter(x, x, x, ScatterMode.ND), "i32 or i64 indices"),
        (lambda n, x: n.add_one_hot(constant(n, [1]), x, constant(n, 4), 0), "two values"),
        (lambda n, x: n.add_one_hot(constant(n, [1]), constant(n, [0, 1]), constant(n, [4, 4]), 0), "one integer"),
        (lambda n, x: n.add_cumulative(x, constant(n, 2), CumulativeOperation.SUM, False, False), "axis 2"),
        (lambda n, x: n.add_squeeze(x, constant(n, [0])), "not all 1"),
        (lambda n, x: n.add_squeeze(x, x), "known when the network is built"),
        (lambda n, x: n.add_unsqueeze(x, constant(n, [0, 0])), "twice"),
        (lambda n, x: n.add_fill((2, 2), FillOperation.LINSPACE), "vector of 2 steps"),
        (lambda n, x: n.add_fill((2,), FillOperation.RANDOM_NORMAL, "i32"), "floats"),
        (lambda n, x: n.add_quantize(x, constant(n, [1, 1, 1, 1], "float32")), "no axis"),
        (lambda n, x: n.add_einsum([x], "ij,jk->ik"), "2 operands"),
        (lambda n, x: n.add_einsum([x], "ii->i"), "repeats over dims"),
        (lambda n, x: n.add_reverse_sequence(x, x), "lengths are i32"),
        (lambda n, x: n.add_ragged_softmax(x, constant(n, [1, 2, 3])), "the bounds"),
        (lambda n, x: with_properties(n.add_grid_sample(x, x), sample_mode=SampleMode.WRAP), "sample_mode is WRAP"),
        (lambda n, x: n.add_attention(x, x, x, AttentionNormalizationOp.SOFTMAX, False), "rank 4"),
        (lambda n, x: n.add_nms(x, x, constant(n, 1)), "rank 3"),
        (lambda n, x: n.add_rms_normalization(x, constant(n, [1] * 3, "float32"), 2), "broadcast"),
        (lambda n, x: n.add_non_zero(n.add_input("open", "f32", ("n",))), "non_zero_1.*no bounds"),
    ],
)
def test_mistake_gives_m110_that_names_the_layer(mistake: Callable[[tw.Network, Tensor], Any], text: str) -> None:
    network = tw.Network()
    with pytest.raises(ModelError, match=text) as caught:
        network.mark_output(mistake(network, network.add_input("x", "f32", (3, 4))).get_output(0))
        network.to_graph()
    assert caught.value.code == "M110"


def test_sizes_that_data_decides_go_with_open_dims_and_later_layers() -> None:
    """x at the positions where a mask holds, times an input of open size."""
    n = tw.Network()
    mask, x, y = n.add_input("mask", "i32", (6,)), n.add_input("x", "f32", (6, 3)), n.add_input("y", "f32", ("n", "m"))
    places = n.add_squeeze(n.add_non_zero(mask).get_output(0), constant(n, [0])).get_output(0)
    chosen = n.add_gather(x, places, 0).get_output(0)
    total = n.add_reduce(chosen, ReduceOperation.SUM, 1).get_output(0)
    scaled = n.add_elementwise(y, n.add_reduce(total, ReduceOperation.SUM, 1).get_output(0), ElementWiseOperation.PROD)
    for tensor in (chosen, scaled.get_output(0)):
        n.mark_output(tensor)
    ranges = {"y": tw.Range((1, 1), (2, 2), (4, 9))}
    engine = tw.build(n, tune="off", host_steps=False, threads=1, shapes=ranges)
    values = random(6, 3)
    for count, size in ((0, (1, 9)), (4, (3, 2)), (6, (4, 1))):
        chosen_rows, given = np.arange(6) < count, random(*size)
        found = engine.run({"mask": chosen_rows.astype(np.int32), "x": values, "y": given})
        np.testing.assert_array_equal(found["gather_1"], values[:count])
        np.testing.assert_allclose(found["elementwise_1"], given * values[:count].sum(), rtol=1e-4, atol=1e-5)
