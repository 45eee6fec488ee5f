# SPDX-License-Identifier: Apache-2.0
"""Frozen graphs that TensorFlow itself writes, against what it computes. Skipped where TensorFlow is not installed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorwright as tw

tf: Any = pytest.importorskip("tensorflow", reason="the oracle")
rng = np.random.default_rng(7)

Function = Callable[..., Any]


def a(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    return rng.uniform(low, high, shape).astype(np.float32)


def unrolled_lstm(x: Any) -> Any:
    """BasicLSTMCell of TensorFlow 1: gates i, j, f, o and a forget bias of 1."""
    w, bias = a(7, 16) * np.float32(0.5), a(16)
    h = c = tf.zeros([2, 4])
    for t in range(5):
        i, j, f, o = tf.split(tf.concat([x[:, t], h], 1) @ w + bias, 4, 1)
        c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        h = tf.tanh(c) * tf.sigmoid(o)
    return h


def layer_norm(x: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6) * a(8) + a(8)


def attention(x: Any) -> Any:
    q, k, v = (tf.transpose(tf.reshape(x @ a(8, 8), [-1, 5, 2, 4]), [0, 2, 1, 3]) for _ in range(3))
    weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.5)
    return tf.reshape(tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3]), [tf.shape(x)[0], 5, 8])


def inverted_residual(x: Any) -> Any:
    y = tf.nn.relu6(tf.nn.conv2d(x, a(1, 1, 3, 9), 1, "SAME"))
    y = tf.pad(y, [[0, 0], [0, 1], [0, 1], [0, 0]])
    y = tf.nn.relu6(tf.nn.depthwise_conv2d(y, a(3, 3, 9, 1), [1, 2, 2, 1], "VALID"))
    gate = tf.sigmoid(tf.nn.conv2d(tf.reduce_mean(y, [1, 2], keepdims=True), a(1, 1, 9, 9), 1, "SAME"))
    return tf.nn.conv2d(y * gate, a(1, 1, 9, 4), 1, "SAME")


CASES: dict[str, tuple[dict[str, Any], Function]] = {
    "conv_same_2": ({"x": a(2, 9, 8, 3)}, lambda x: tf.nn.conv2d(x, a(3, 4, 3, 5), 2, "SAME")),
    "conv_nhwc_dilated": (
        {"x": a(1, 12, 11, 2)},
        lambda x: tf.nn.conv2d(x, a(3, 3, 2, 4), 1, "VALID", dilations=[2, 3]),
    ),
    "atrous": ({"x": a(1, 13, 11, 2)}, lambda x: tf.nn.atrous_conv2d(x, a(3, 3, 2, 4), 2, "SAME")),
    "conv1d": ({"x": a(2, 13, 3)}, lambda x: tf.nn.conv1d(x, a(4, 3, 5), 2, "SAME")),
    "conv3d": ({"x": a(1, 5, 6, 7, 2)}, lambda x: tf.nn.conv3d(x, a(3, 2, 3, 2, 4), [1, 1, 2, 1, 1], "SAME")),
    "separable": (
        {"x": a(1, 9, 9, 3)},
        lambda x: tf.nn.separable_conv2d(x, a(3, 3, 3, 2), a(1, 1, 6, 4), [1, 1, 1, 1], "SAME"),
    ),
    "transposed": ({"x": a(1, 5, 6, 3)}, lambda x: tf.nn.conv2d_transpose(x, a(3, 3, 4, 3), [1, 9, 11, 4], 2, "SAME")),
    "max_pool_3d": ({"x": a(1, 5, 6, 7, 2)}, lambda x: tf.nn.max_pool3d(x, 2, 2, "SAME")),
    "argmax_of_pool": (
        {"x": a(1, 6, 6, 3)},
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "SAME").argmax,
    ),
    "lrn": ({"x": a(1, 4, 5, 9)}, lambda x: tf.nn.lrn(x, 2, 1.5, 0.3, 0.6)),
    "bilinear": ({"x": a(1, 5, 7, 2)}, lambda x: tf.image.resize(x, (9, 4))),
    "nearest": ({"x": a(1, 5, 7, 2)}, lambda x: tf.image.resize(x, (9, 4), "nearest")),
    "top_k": ({"x": np.round(a(3, 9))}, lambda x: tf.math.top_k(x, 4).indices),
    "scatter": ({"x": a(2, 3)}, lambda x: tf.scatter_nd([[1], [1]], x, [4, 3])),
    "one_hot": ({"x": rng.integers(-1, 6, (3, 4)).astype(np.int32)}, lambda x: tf.one_hot(x, 5, 2.0, -1.0)),
    "gather_batched": (
        {"x": a(3, 5, 6, 4)},
        lambda x: tf.gather(x, np.array([[1, 2], [0, 5], [3, 3]]), batch_dims=1, axis=2),
    ),
    "einsum": ({"x": a(2, 3, 4)}, lambda x: tf.einsum("bij,jk->bik", x, a(4, 6))),
    "fake_quant": ({"x": a(3, 40)}, lambda x: tf.quantization.fake_quant_with_min_max_vars(x, -1.3, 1.1)),
    "mask": ({"x": a(5, 3)}, lambda x: tf.boolean_mask(x, [True, False, True, True, False])),
    "boxes": (
        {"x": np.concatenate([a(9, 2, low=0, high=1), a(9, 2, low=1, high=2)], 1)},
        lambda x: tf.image.non_max_suppression(x, np.linspace(0.1, 0.9, 9).astype(np.float32), 5, 0.5),
    ),
    "lstm": ({"x": a(2, 5, 3)}, unrolled_lstm),
    "layer_norm": ({"x": a(2, 5, 8)}, layer_norm),
    "attention": ({"x": a(3, 5, 8)}, attention),
    "inverted_residual": ({"x": a(2, 12, 12, 3)}, inverted_residual),
    "log1p": ({"x": a(40, low=-0.9)}, lambda x: tf.math.log1p(x) + tf.math.expm1(x)),
    "moments": ({"x": a(2, 3, 4)}, lambda x: tf.nn.moments(x, [0, 1])[1]),
}


OPEN = ("attention", "layer_norm", "conv_same_2", "inverted_residual")  # any batch


@pytest.mark.parametrize(("name", "open_batch"), [*((n, False) for n in CASES), *((n, True) for n in OPEN)])
def test_frozen_graph_gives_what_tensorflow_gives(tmp_path: pathlib.Path, name: str, open_batch: bool) -> None:
    feeds, function = CASES[name]
    graph = tf.Graph()
    with graph.as_default():
        fed = {
            key: tf.compat.v1.placeholder(x.dtype, [None, *x.shape[1:]] if open_batch else x.shape, name=key)
            for key, x in feeds.items()
        }
        result = tf.identity(function(**fed), name="out")
        with tf.compat.v1.Session() as session:
            want = session.run(result, {fed[key]: x for key, x in feeds.items()})
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    sizes = {key: tw.Range((1, *x.shape[1:]), x.shape, (len(x) + 6, *x.shape[1:])) for key, x in feeds.items()}
    engine = tw.build(path, outputs=["out"], shapes=sizes if open_batch else None, tune="off", host_steps=False)
    got = engine.run(feeds)["out"]
    assert got.shape == want.shape and got.dtype == want.dtype
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, atol=2e-5 * max(float(np.abs(want).max()), 1.0))
    else:
        np.testing.assert_array_equal(got, want)
