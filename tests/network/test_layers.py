# SPDX-License-Identifier: Apache-2.0
"""Each layer against NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tensorwright.network import (
    ActivationType,
    ElementWiseOperation,
    InterpolationMode,
    Layer,
    MatrixOperation,
    PaddingMode,
    PoolingType,
    ReduceOperation,
    ResizeCoordinateTransformation,
    ScaleMode,
    Tensor,
    UnaryOperation,
)
from tests.network.single import Array, random, run, with_properties

IMAGE = random(2, 4, 7, 6)


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        (ActivationType.RELU, lambda x: np.maximum(x, 0)),
        (ActivationType.SIGMOID, lambda x: 1 / (1 + np.exp(-x))),
        (ActivationType.TANH, np.tanh),
        (ActivationType.LEAKY_RELU, lambda x: np.where(x < 0, 0.3 * x, x)),
        (ActivationType.ELU, lambda x: np.where(x < 0, 0.3 * np.expm1(x), x)),
        (ActivationType.SELU, lambda x: 0.7 * np.where(x > 0, x, 0.3 * np.expm1(x))),
        (ActivationType.SOFTSIGN, lambda x: x / (1 + abs(x))),
        (ActivationType.SOFTPLUS, lambda x: 0.3 * np.log1p(np.exp(0.7 * x))),
        (ActivationType.CLIP, lambda x: np.clip(x, 0.3, 0.7)),
        (ActivationType.HARD_SIGMOID, lambda x: np.clip(0.3 * x + 0.7, 0, 1)),
        (ActivationType.SCALED_TANH, lambda x: 0.3 * np.tanh(0.7 * x)),
        (ActivationType.THRESHOLDED_RELU, lambda x: np.where(x > 0.3, x, 0)),
        (ActivationType.GELU_TANH, lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activation_computes_its_formula(type: ActivationType, expected: Callable[[Array], Array]) -> None:
    found = run(lambda n, x: with_properties(n.add_activation(x, type), alpha=0.3, beta=0.7), IMAGE)
    np.testing.assert_allclose(found, expected(IMAGE.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (ElementWiseOperation.SUM, np.add),
        (ElementWiseOperation.PROD, np.multiply),
        (ElementWiseOperation.MAX, np.maximum),
        (ElementWiseOperation.MIN, np.minimum),
        (ElementWiseOperation.SUB, np.subtract),
        (ElementWiseOperation.DIV, np.divide),
        (ElementWiseOperation.FLOOR_DIV, np.floor_divide),
        (ElementWiseOperation.EQUAL, np.equal),
        (ElementWiseOperation.GREATER, np.greater),
        (ElementWiseOperation.LESS, np.less),
    ],
)
def test_elementwise_computes_with_broadcasting(
    op: ElementWiseOperation, expected: Callable[[Array, Array], Array]
) -> None:
    a, b = random(2, 3, 4), random(3, 1)
    np.testing.assert_allclose(run(lambda n, x, y: n.add_elementwise(x, y, op), a, b), expected(a, b), rtol=1e-6)


def test_integer_floor_division_rounds_down() -> None:
    a, b = np.array([7, -7, 7, -7, 6, -6]), np.array([2, 2, -2, -2, 3, 3])
    found = run(lambda n, x, y: n.add_elementwise(x, y, ElementWiseOperation.FLOOR_DIV), a, b)
    np.testing.assert_array_equal(found, a // b)


@pytest.mark.parametrize("op", [op for op in UnaryOperation if op is not UnaryOperation.NOT])
def test_unary_computes_what_numpy_does(op: UnaryOperation) -> None:
    numpy_names = {
        "RECIP": "reciprocal",
        "NEG": "negative",
        "ASIN": "arcsin",
        "ACOS": "arccos",
        "ATAN": "arctan",
        "ASINH": "arcsinh",
        "ACOSH": "arccosh",
        "ATANH": "arctanh",
        "ROUND": "rint",
    }
    x = np.append(random(40), np.float32([np.inf, np.nan, 0.0]))
    found = run(lambda n, t: n.add_unary(t, op), x)
    if op is UnaryOperation.ERF:
        assert (
            abs(found[:40] - np.tanh(x[:40] * 1.2)).max() < 0.05 and found[40] == 1
        )  # a rough likeness; the op has its own tests
        return
    with np.errstate(all="ignore"):
        want = getattr(np, numpy_names.get(op.name, op.name.lower()))(x)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "shape"), [(ScaleMode.UNIFORM, ()), (ScaleMode.CHANNEL, (4, 1, 1)), (ScaleMode.ELEMENTWISE, (4, 7, 6))]
)
def test_scale_computes_scale_shift_power(mode: ScaleMode, shape: tuple[int, ...]) -> None:
    shift, scale, power = (abs(random(*shape)) + 1 for _ in range(3))
    x = abs(IMAGE)
    for add in ("add_scale", "add_scale_nd"):
        found = run(lambda n, t, add=add: getattr(n, add)(t, mode, shift.ravel(), scale.ravel(), power.ravel()), x)
        np.testing.assert_allclose(found, (x * scale + shift) ** power, rtol=1e-5)
    np.testing.assert_allclose(run(lambda n, t: n.add_scale(t, mode, scale=scale), x), x * scale, rtol=1e-6)


def test_pooling_modes_agree_with_their_parts() -> None:
    def pool(kind: PoolingType, **properties: Any) -> Array:
        return run(lambda n, t: with_properties(n.add_pooling_nd(t, kind, 3), stride_nd=2, **properties), IMAGE)

    assert pool(PoolingType.MAX).shape == (2, 4, 3, 2)
    assert pool(PoolingType.MAX, padding_mode=PaddingMode.EXPLICIT_ROUND_UP).shape == (2, 4, 3, 3)
    assert pool(PoolingType.MAX, padding_mode=PaddingMode.SAME_UPPER).shape == (2, 4, 4, 3)
    assert pool(PoolingType.MAX, pre_padding=(1, 0), post_padding=(0, 2)).shape == (2, 4, 3, 3)
    blend = pool(PoolingType.MAX_AVERAGE_BLEND, blend_factor=0.25, padding_nd=1)
    np.testing.assert_allclose(
        blend, 0.75 * pool(PoolingType.MAX, padding_nd=1) + 0.25 * pool(PoolingType.AVERAGE, padding_nd=1), rtol=1e-5
    )
    counted = pool(PoolingType.AVERAGE, padding_nd=1, average_count_excludes_padding=False)
    np.testing.assert_allclose(
        counted[:, :, 0, 0] * 9, pool(PoolingType.AVERAGE, padding_nd=1)[:, :, 0, 0] * 4, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("mode", "size"),
    [
        (PaddingMode.EXPLICIT_ROUND_DOWN, (3, 2)),
        (PaddingMode.EXPLICIT_ROUND_UP, (3, 3)),
        (PaddingMode.SAME_UPPER, (4, 3)),
        (PaddingMode.SAME_LOWER, (4, 3)),
    ],
)
def test_convolution_padding_modes_give_their_sizes(mode: PaddingMode, size: tuple[int, int]) -> None:
    found = run(
        lambda n, t: with_properties(n.add_convolution_nd(t, 5, 3, random(5, 4, 3, 3)), stride_nd=2, padding_mode=mode),
        IMAGE,
    )
    assert found.shape == (2, 5, *size)


def test_grouped_dilated_convolution_takes_weights_of_any_shape_and_dtype() -> None:
    kernel = random(6, 2, 3, 2).astype(np.float64)
    flat = run(
        lambda n, t: with_properties(
            n.add_convolution_nd(t, 6, (3, 2), kernel.ravel(), [0.5] * 6), num_groups=2, dilation_nd=(2, 1)
        ),
        IMAGE,
    )
    plain = run(
        lambda n, t: with_properties(n.add_convolution_nd(t, 6, (3, 2), kernel), num_groups=2, dilation_nd=(2, 1)),
        IMAGE,
    )
    np.testing.assert_allclose(flat - 0.5, plain, rtol=1e-4, atol=1e-5)


def _with_kernel(layer: Layer, kernel: Tensor) -> Layer:
    layer.set_input(1, kernel)
    return layer


def test_kernel_may_be_a_tensor() -> None:
    kernel = random(6, 4, 3, 3)
    by_tensor = run(lambda n, t, k: _with_kernel(n.add_convolution_nd(t, 6, 3), k), IMAGE, kernel)
    np.testing.assert_array_equal(by_tensor, run(lambda n, t: n.add_convolution_nd(t, 6, 3, kernel), IMAGE))


@pytest.mark.parametrize("mode", [PaddingMode.SAME_UPPER, PaddingMode.SAME_LOWER])
@pytest.mark.parametrize("kernel", [2, 3, 4, 1])
def test_deconvolution_same_gives_size_times_stride(mode: PaddingMode, kernel: int) -> None:
    weights = random(4, 3, kernel, kernel)
    found = run(
        lambda n, t: with_properties(n.add_deconvolution_nd(t, 3, kernel, weights), stride_nd=2, padding_mode=mode),
        IMAGE,
    )
    assert found.shape == (2, 3, 14, 12)


def test_deconvolution_spreads_each_element_over_its_kernel() -> None:
    weights = random(4, 3, 2, 2)
    found = run(
        lambda n, t: with_properties(n.add_deconvolution_nd(t, 3, 2, weights, [1.0, 2.0, 3.0]), stride_nd=2), IMAGE
    )
    want = np.einsum("nchw,ckij->nkhiwj", IMAGE, weights).reshape(2, 3, 14, 12) + np.float32([1, 2, 3])[:, None, None]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_fully_connected_keeps_the_rank_of_images() -> None:
    kernel, bias = random(5, 4 * 7 * 6), random(5)
    found = run(lambda n, t: n.add_fully_connected(t, 5, kernel, bias), IMAGE)
    np.testing.assert_allclose(
        found, (IMAGE.reshape(2, -1) @ kernel.T + bias).reshape(2, 5, 1, 1), rtol=1e-4, atol=1e-4
    )


def test_shuffle_transposes_reshapes_transposes() -> None:
    found = run(
        lambda n, t: with_properties(
            n.add_shuffle(t), first_transpose=(0, 2, 3, 1), reshape_dims=(0, -1, 2, 2), second_transpose=(1, 0, 3, 2)
        ),
        IMAGE,
    )
    np.testing.assert_array_equal(found, IMAGE.transpose(0, 2, 3, 1).reshape(2, 42, 2, 2).transpose(1, 0, 3, 2))
    empty = run(
        lambda n, t: with_properties(n.add_shuffle(t), reshape_dims=(0, 5), zero_is_placeholder=False),
        np.zeros((3, 0), np.float32),
    )
    assert empty.shape == (0, 5)


def test_slice_takes_start_size_stride_and_axes() -> None:
    np.testing.assert_array_equal(
        run(lambda n, t: n.add_slice(t, (0, 1, 2, 5), (2, 2, 3, 3), (1, 2, 1, -2)), IMAGE), IMAGE[:, 1::2, 2:5, 5::-2]
    )
    np.testing.assert_array_equal(
        run(lambda n, t: with_properties(n.add_slice(t, (1,), (2,)), axes=(-2,)), IMAGE), IMAGE[:, :, 1:3]
    )


def test_concatenation_default_axis_is_channels() -> None:
    found = run(lambda n, a, b: n.add_concatenation([a, b]), IMAGE, IMAGE[:, :1])
    np.testing.assert_array_equal(found, np.concatenate([IMAGE, IMAGE[:, :1]], 1))
    np.testing.assert_array_equal(
        run(lambda n, a, b: n.add_concatenation([a, b], axis=-1), IMAGE, IMAGE), np.concatenate([IMAGE, IMAGE], -1)
    )


@pytest.mark.parametrize("op", list(ReduceOperation))
def test_reduce_over_a_bitmask(op: ReduceOperation) -> None:
    names = {"AVG": "mean"}
    want = getattr(np, names.get(op.name, op.name.lower()))(IMAGE, axis=(1, 3))
    np.testing.assert_allclose(run(lambda n, t: n.add_reduce(t, op, 1 << 1 | 1 << 3), IMAGE), want, rtol=1e-4)
    assert run(lambda n, t: n.add_reduce(t, op, 0b1010, keep_dims=True), IMAGE).shape == (2, 1, 7, 1)


def test_softmax_default_axis_and_axes_bitmask() -> None:
    np.testing.assert_allclose(run(lambda n, t: n.add_softmax(t), IMAGE).sum(1), np.ones((2, 7, 6)), rtol=1e-5)
    np.testing.assert_allclose(
        run(lambda n, t: with_properties(n.add_softmax(t), axes=1 << 3), IMAGE).sum(3), np.ones((2, 4, 7)), rtol=1e-5
    )


def test_lrn_gather_select_prelu_cast_padding_identity_constant() -> None:
    np.testing.assert_allclose(
        run(lambda n, t: n.add_lrn(t, 1, 0.5, 1.0, 2.0), IMAGE), IMAGE / (2 + 0.5 * IMAGE**2), rtol=1e-5
    )
    np.testing.assert_array_equal(
        run(lambda n, t, i: n.add_gather(t, i, 2), IMAGE, np.array([3, 0])), IMAGE[:, :, [3, 0]]
    )
    np.testing.assert_array_equal(run(lambda n, c, a, b: n.add_select(c, a, b), IMAGE > 0, IMAGE, -IMAGE), abs(IMAGE))
    slopes = random(4, 1, 1)
    np.testing.assert_allclose(
        run(lambda n, t, s: n.add_parametric_relu(t, s), IMAGE, slopes), np.where(IMAGE < 0, IMAGE * slopes, IMAGE)
    )
    assert run(lambda n, t: n.add_cast(t, "i64"), IMAGE).dtype == np.int64
    found = run(lambda n, t: n.add_padding_nd(t, (1, -2), (0, 3)), IMAGE)
    np.testing.assert_array_equal(found, np.pad(IMAGE[..., 2:], [(0, 0), (0, 0), (1, 0), (0, 3)]))
    np.testing.assert_array_equal(run(lambda n, t: n.add_identity(t), IMAGE), IMAGE)
    np.testing.assert_array_equal(run(lambda n: n.add_constant((2, 1), [1.5, 2.5])), np.float32([[1.5], [2.5]]))


@pytest.mark.parametrize(
    ("op0", "op1", "a", "b", "subscripts"),
    [
        (MatrixOperation.NONE, MatrixOperation.NONE, (2, 3, 4), (4, 5), "bij,jk->bik"),
        (MatrixOperation.TRANSPOSE, MatrixOperation.NONE, (4, 3), (4, 5), "ji,jk->ik"),
        (MatrixOperation.NONE, MatrixOperation.TRANSPOSE, (3, 4), (5, 4), "ij,kj->ik"),
        (MatrixOperation.NONE, MatrixOperation.VECTOR, (2, 3, 4), (2, 4), "bij,bj->bi"),
        (MatrixOperation.VECTOR, MatrixOperation.NONE, (2, 3), (2, 3, 4), "bi,bij->bj"),
        (MatrixOperation.VECTOR, MatrixOperation.VECTOR, (2, 3), (2, 3), "bi,bi->b"),
    ],
)
def test_matrix_multiply_reads_its_operands_as_told(
    op0: MatrixOperation, op1: MatrixOperation, a: Sequence[int], b: Sequence[int], subscripts: str
) -> None:
    x, y = random(*a), random(*b)
    np.testing.assert_allclose(
        run(lambda n, s, t: n.add_matrix_multiply(s, op0, t, op1), x, y),
        np.einsum(subscripts, x, y),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("axes", "shape", "groups"),
    [
        (0b1000, (1, 1, 1, 6), 1),
        (0b1100, (1, 4, 1, 1), 1),
        (0b1110, (1, 4, 7, 6), 1),
        (0b0010, (1, 4, 1, 1), 1),
        (0b1100, (1, 4, 1, 1), 2),
    ],
)
def test_normalization_over_axes_and_groups(axes: int, shape: tuple[int, ...], groups: int) -> None:
    scale, bias = random(*shape), random(*shape)
    found = run(
        lambda n, t, s, b: with_properties(n.add_normalization(t, s, b, axes), num_groups=groups, epsilon=1e-3),
        IMAGE,
        scale,
        bias,
    )
    x = IMAGE.astype(np.float64).reshape(2, groups, -1) if groups > 1 else IMAGE.astype(np.float64)
    over = (2,) if groups > 1 else tuple(i for i in range(4) if axes >> i & 1)
    normal = (x - x.mean(over, keepdims=True)) / np.sqrt(x.var(over, keepdims=True) + 1e-3)
    np.testing.assert_allclose(found, normal.reshape(IMAGE.shape) * scale + bias, rtol=1e-4, atol=1e-5)


def test_resize_by_scales_and_by_shape() -> None:
    np.testing.assert_array_equal(
        run(lambda n, t: with_properties(n.add_resize(t), scales=(2, 3)), IMAGE), IMAGE.repeat(2, 2).repeat(3, 3)
    )
    linear = run(
        lambda n, t: with_properties(
            n.add_resize(t),
            shape=(2, 4, 13, 6),
            resize_mode=InterpolationMode.LINEAR,
            coordinate_transformation=ResizeCoordinateTransformation.ALIGN_CORNERS,
        ),
        IMAGE,
    )
    np.testing.assert_allclose(linear[:, :, ::2], IMAGE, rtol=1e-5)
    np.testing.assert_allclose(linear[:, :, 1::2], (IMAGE[:, :, 1:] + IMAGE[:, :, :-1]) / 2, rtol=1e-4, atol=1e-6)
