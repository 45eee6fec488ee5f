# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's convolutions, pools, norms and resizes against plain loops over windows."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tests.importers.tensorflow.graphs import Array, TfWriter, applied

rng = np.random.default_rng()


def normal(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def close(got: Array, want: Array) -> None:
    assert got.shape == want.shape, (got.shape, want.shape)
    np.testing.assert_allclose(got, want, atol=2e-5 * max(float(np.abs(want).max(initial=0)), 1.0))


def same_or_valid(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Outputs, padding before and after: SAME puts the odd element at the end."""
    if padding == "VALID":
        return (size - kernel) // stride + 1, 0, 0
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def windows(x: Array, kernel: tuple[int, int], stride: int, padding: str, fill: float) -> list[tuple[int, int, Array]]:
    """Every window [n, *kernel, c] of an NHWC image, with its place."""
    (oh, t, b), (ow, left, right) = (
        same_or_valid(size, k, stride, padding) for size, k in zip(x.shape[1:3], kernel, strict=True)
    )
    wide = np.pad(x.astype(np.float64), ((0, 0), (t, b), (left, right), (0, 0)), constant_values=fill)
    cut = lambda i, j: wide[:, i * stride : i * stride + kernel[0], j * stride : j * stride + kernel[1]]  # noqa: E731
    return [(i, j, cut(i, j)) for i, j in itertools.product(range(oh), range(ow))]


def gathered(found: list[tuple[int, int, Array]]) -> Array:
    rows, columns = found[-1][0] + 1, found[-1][1] + 1
    first = found[0][2]
    y = np.zeros((first.shape[0], rows, columns, first.shape[-1]), np.float32)
    for i, j, value in found:
        y[:, i, j] = value
    return y


def convolved(x: Array, w: Array, stride: int, padding: str) -> Array:
    kernel = (w.shape[0], w.shape[1])
    return gathered(
        [(i, j, np.einsum("nhwc,hwck->nk", part, w)) for i, j, part in windows(x, kernel, stride, padding, 0)]
    )


GEOMETRIES = [
    (padding, stride, kernel)
    for padding in ("SAME", "VALID")
    for stride in (1, 2, 3)
    for kernel in ((3, 3), (1, 1), (2, 5))
]


@pytest.mark.parametrize(("padding", "stride", "kernel"), GEOMETRIES)
def test_convolutions_and_pools_in_both_data_formats(
    tmp_path: pathlib.Path, padding: str, stride: int, kernel: tuple[int, int]
) -> None:
    height, width = rng.integers(6, 12, 2)
    x, w, d = normal(2, height, width, 3), normal(*kernel, 3, 4), normal(*kernel, 3, 2)
    parts = windows(x, kernel, stride, padding, 0)
    inside = windows(np.ones_like(x), kernel, stride, padding, 0)
    low = windows(x, kernel, stride, padding, -np.inf)
    wants = {
        "Conv2D": (w, convolved(x, w, stride, padding)),
        "DepthwiseConv2dNative": (
            d,
            gathered([(i, j, np.einsum("nhwc,hwcm->ncm", p, d).reshape(2, -1)) for i, j, p in parts]),
        ),
        "AvgPool": (
            None,
            gathered(
                [(i, j, p.sum((1, 2)) / q.sum((1, 2))) for (i, j, p), (_, _, q) in zip(parts, inside, strict=True)]
            ),
        ),
        "MaxPool": (None, gathered([(i, j, p.max((1, 2))) for i, j, p in low])),
    }
    for op, (weights, want) in wants.items():
        for fmt, turn, back in (("NHWC", (0, 1, 2, 3), (0, 1, 2, 3)), ("NCHW", (0, 3, 1, 2), (0, 2, 3, 1))):
            sides = (1, stride, stride, 1) if fmt == "NHWC" else (1, 1, stride, stride)
            attrs: dict[str, Any] = {"strides": sides, "padding": padding, "data_format": fmt}
            if weights is None:
                attrs["ksize"] = (1, *kernel, 1) if fmt == "NHWC" else (1, 1, *kernel)
            constants = {} if weights is None else {1: weights}
            (got,) = applied(tmp_path, op, [np.ascontiguousarray(x.transpose(turn))], attrs, constants=constants)
            close(got.transpose(back), want)


def test_convolution_with_dilation_groups_and_explicit_padding(tmp_path: pathlib.Path) -> None:
    x, w = normal(1, 11, 9, 4), normal(3, 2, 2, 6)
    spread = np.zeros((5, 4, 2, 6), np.float32)
    spread[::2, ::3] = w
    wide = np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)))
    want = np.concatenate(
        [convolved(wide[..., 2 * g : 2 * g + 2], spread[..., 3 * g : 3 * g + 3], 1, "VALID") for g in (0, 1)], -1
    )
    attrs = {"dilations": (1, 2, 3, 1), "padding": "EXPLICIT", "explicit_paddings": (0, 0, 1, 2, 0, 3, 0, 0)}
    close(applied(tmp_path, "Conv2D", [x], {"strides": (1, 1, 1, 1), **attrs}, constants={1: w})[0], want)


@pytest.mark.parametrize(
    ("padding", "stride", "less"), [("SAME", 1, 0), ("SAME", 2, 1), ("VALID", 2, 0), ("SAME", 3, 2)]
)
def test_transposed_convolution_is_the_gradient_of_one(
    tmp_path: pathlib.Path, padding: str, stride: int, less: int
) -> None:
    """Its result y satisfies <conv(v), x> = <v, y> for every v of the size asked for."""
    w, x = normal(3, 4, 5, 2), normal(2, 5, 4, 2)
    sizes = [
        d * stride - less if padding == "SAME" else (d - 1) * stride + k for d, k in zip((5, 4), (3, 4), strict=True)
    ]
    shape = np.array([2, *sizes, 5], np.int32)
    attrs = {"strides": (1, stride, stride, 1), "padding": padding}
    (got,) = applied(tmp_path, "Conv2DBackpropInput", [x], attrs, constants={0: shape, 1: w})
    assert got.shape == tuple(shape)
    v = normal(*shape)
    left = float((convolved(v, w, stride, padding).astype(np.float64) * x).sum())
    assert abs(left - float((v.astype(np.float64) * got).sum())) < 1e-3 * max(abs(left), 10)


def test_batch_norm_of_given_and_of_own_statistics(tmp_path: pathlib.Path) -> None:
    x, scale, offset, mean = normal(3, 4, 5, 6), normal(6), normal(6), normal(6)
    variance = rng.uniform(0.3, 2, 6).astype(np.float32)
    for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
        constants = {1: scale, 2: offset, 3: mean, 4: variance}
        (got,) = applied(tmp_path, op, [x], {"is_training": False, "epsilon": 1e-3}, constants=constants)
        close(got, (x - mean) / np.sqrt(variance + 1e-3) * scale + offset)
    none = np.zeros(0, np.float32)
    constants = {1: scale, 2: offset, 3: none, 4: none}
    (got,) = applied(tmp_path, "FusedBatchNormV3", [x], {"is_training": True, "epsilon": 1e-3}, constants=constants)
    own = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + offset
    close(got, own)


def test_lrn_and_softmax(tmp_path: pathlib.Path) -> None:
    x = normal(1, 3, 2, 9)
    squares = [(x[..., max(c - 2, 0) : c + 3] ** 2).sum(-1) for c in range(9)]
    want = x / (1.5 + 0.3 * np.stack(squares, -1)) ** 0.6
    close(applied(tmp_path, "LRN", [x], {"depth_radius": 2, "bias": 1.5, "alpha": 0.3, "beta": 0.6})[0], want)
    e = np.exp(x - x.max(-1, keepdims=True))
    close(applied(tmp_path, "Softmax", [x], {})[0], e / e.sum(-1, keepdims=True))
    close(applied(tmp_path, "LogSoftmax", [x], {})[0], np.log(e / e.sum(-1, keepdims=True)))


def place(i: int, size: int, out: int, attrs: dict[str, bool]) -> float:
    if attrs.get("align_corners"):
        return i * (size - 1) / (out - 1) if out > 1 else 0.0
    return (i + 0.5) * size / out - 0.5 if attrs.get("half_pixel_centers") else i * size / out


@pytest.mark.parametrize("attrs", [{}, {"align_corners": True}, {"half_pixel_centers": True}])
@pytest.mark.parametrize("target", [(9, 14), (3, 4), (5, 7), (10, 6)])
def test_resizes_in_the_three_conventions(
    tmp_path: pathlib.Path, attrs: dict[str, bool], target: tuple[int, int]
) -> None:
    x = normal(1, 5, 7, 2)

    def line(image: Array, axis: int, out: int) -> Array:
        size, rows = image.shape[axis], []
        for i in range(out):
            p = place(i, size, out, attrs)
            low = int(np.floor(p))
            at = [np.take(image, min(max(k, 0), size - 1), axis) for k in (low, low + 1)]
            rows.append(at[0] + (at[1] - at[0]) * (p - low))
        return np.stack(rows, axis)

    want = line(line(x.astype(np.float64), 1, target[0]), 2, target[1]).astype(np.float32)
    sizes = np.array(target, np.int32)
    close(applied(tmp_path, "ResizeBilinear", [x], dict(attrs), constants={1: sizes})[0], want)

    def nearest(i: int, size: int, out: int) -> int:
        p = place(i, size, out, attrs)
        if attrs.get("align_corners"):
            return min(int(np.floor(p + 0.5)), size - 1)
        return min(max(int(np.floor(p + 0.5 if attrs else p)), 0), size - 1)

    rows, columns = ([nearest(i, s, o) for i in range(o)] for s, o in zip((5, 7), target, strict=True))
    got = applied(tmp_path, "ResizeNearestNeighbor", [x], dict(attrs), constants={1: sizes})[0]
    np.testing.assert_array_equal(got, x[:, rows][:, :, columns])


def test_network_in_nhwc_keeps_the_transposition_of_its_input_only(tmp_path: pathlib.Path) -> None:
    """Two convolutions with bias and activation, a residual, concat, pool and mean: one step for each window."""
    g = TfWriter()
    x = g.placeholder("x", np.float32, (1, 17, 15, 3))
    layer, channels = x, 3
    for i, filters in enumerate((8, 8)):
        conv = g.node(
            "Conv2D", layer, g.constant(normal(3, 3, channels, filters)), strides=(1, 1, 1, 1), padding="SAME"
        )
        biased = g.node("BiasAdd", conv, g.constant(normal(filters)))
        layer, channels = g.node("Relu", g.node("AddV2", biased, layer) if i else biased), filters
    joined = g.node("ConcatV2", layer, layer, g.constant(np.int32(-1)), N=2)
    pooled = g.node("MaxPool", joined, ksize=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding="SAME")
    g.node("Mean", pooled, g.constant(np.array([1, 2], np.int32)), name="y", keep_dims=False)
    path = g.save(tmp_path / "nhwc.pb")
    data = {"x": normal(1, 17, 15, 3)}
    engine = tw.build(path, tune="off", host_steps=False)
    close(engine.run(data)["y"], tw.build(path, target="reference").run(data)["y"])
    from tensorwright.importers.base import import_model
    from tensorwright.passes.pipeline import optimise

    kinds = [node.op.kind for node in optimise(import_model(path)).graph.nodes]
    assert kinds.count("transpose") == 1, kinds
