# SPDX-License-Identifier: Apache-2.0
"""Where OpenCV is installed, with its own reader of Caffe networks: both give the same."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.importers.caffe.test_networks import NETWORKS, compute, ssd
from tests.importers.caffe.writer import engines, inputs, write

cv2 = pytest.importorskip("cv2")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def reads_caffe() -> None:
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this version of OpenCV does not read Caffe networks")


@pytest.mark.parametrize("name", NETWORKS)
def test_opencv_gives_the_same(name: str, tmp_path: pathlib.Path) -> None:
    make, shape, output = NETWORKS[name]
    layers, x = make(), RNG.standard_normal(shape).astype(np.float32)
    _, weights = compute(layers, {"x": x})
    layers = [*inputs({"x": shape}), *layers]
    network = cv2.dnn.readNetFromCaffe(*write(tmp_path, layers, weights))
    network.setInput(x, "x")
    expected = network.forward()
    for engine in engines(tmp_path, layers, weights):
        found = engine.run({"x": x})[output]
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-3, atol=1e-4)


def test_opencv_detects_the_same(tmp_path: pathlib.Path) -> None:
    """OpenCV orders rows otherwise, and fills them up with zeros to `keep_top_k`."""
    layers, x = [*inputs({"x": (1, 3, 17, 15)}), *ssd()], RNG.standard_normal((1, 3, 17, 15)).astype(np.float32)
    _, weights = compute(layers[1:], {"x": x})
    network = cv2.dnn.readNetFromCaffe(*write(tmp_path, layers, weights))
    network.setInput(x, "x")
    rows = network.forward().reshape(-1, 7)
    rows = rows[rows[:, 2] > 0]
    for engine in engines(tmp_path, layers, weights):
        found = engine.run({"x": x})["found"].reshape(-1, 7)
        assert abs(len(found) - len(rows)) <= 1  # a last bit may decide about one
        if len(found) == len(rows):
            by_score = (found[np.argsort(-found[:, 2])], rows[np.argsort(-rows[:, 2])])
            np.testing.assert_allclose(*by_score, rtol=1e-3, atol=1e-4)
