# SPDX-License-Identifier: Apache-2.0
"""Image networks whose batch and image size only a run knows, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tests.networks.nets import Writer

ort = pytest.importorskip("onnxruntime", reason="the oracle")

LEAST, USUAL, MOST = (1, 16, 16), (2, 48, 40), (4, 80, 96)
SIZES = [LEAST, USUAL, MOST, (3, 17, 31), (1, 33, 64), (2, 63, 18)]


def check(w: Writer, *outputs: str, channels: int = 3, multiple: int = 1) -> None:
    """Input "x" has dims b, channels, h, w in the ranges above; the sizes tried are multiples of `multiple`."""
    model = w.model(*outputs).SerializeToString()
    rng = np.random.default_rng()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    shapes = {"x": tw.Range(*((b, channels, height, width) for b, height, width in (LEAST, USUAL, MOST)))}
    with tw.build(model, shapes=shapes, tune="off", host_steps=False) as engine:
        for b, height, width in SIZES:
            size = (b, channels, height // multiple * multiple, width // multiple * multiple)
            feeds = {"x": rng.standard_normal(size, dtype=np.float32)}
            got = engine.run(feeds)
            for name, want in zip(outputs, session.run(None, feeds), strict=True):
                message = f"{name} of {size}"
                np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-4, err_msg=message)


def image(w: Writer) -> str:
    return w.input("x", "b", 3, "h", "w")


def test_encoder_and_decoder_with_skips() -> None:
    w = Writer()
    a = w.op("Relu", w.conv(image(w), 3, 16, 3))
    b = w.op("Relu", w.conv(w.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 16, 32, 3))
    scales = w.const(np.array([1, 1, 2, 2], np.float32))
    up = w.op("Resize", b, "", scales, mode="linear", coordinate_transformation_mode="align_corners")
    turned = w.op("ConvTranspose", b, w.weight(32, 8, 2, 2), strides=[2, 2])
    check(w, w.conv(w.op("Concat", a, up, turned, axis=1), 56, 4, 3), multiple=2)


def test_resize_to_the_size_of_a_skip() -> None:
    w = Writer()
    x = image(w)
    a = w.op("Relu", w.conv(x, 3, 8, 3, 2))
    deep = w.conv(w.op("Relu", w.conv(a, 8, 16, 3, 2)), 16, 8, 1)
    zero, two, four = w.ints(0), w.ints(2), w.ints(4)
    images, sides = w.op("Slice", w.op("Shape", deep), zero, two), w.op("Slice", w.op("Shape", a), two, four)
    up = w.op("Resize", deep, "", "", w.op("Concat", images, sides, axis=0), mode="linear")
    check(w, w.op("Add", up, a))


def test_classifier_with_strides_ceil_mode_and_global_pool() -> None:
    w = Writer()
    x = w.op("Relu", w.conv(image(w), 3, 16, 7, 2))
    x = w.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = w.op("Relu", w.conv(x, 16, 16, 3, 2, 16))
    x = w.op("LRN", x, size=5)
    x = w.op("AveragePool", x, kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    x = w.op("GlobalAveragePool", w.conv(x, 16, 24, 1))
    check(w, w.linear(w.op("Flatten", x), 24, 10))


def test_depthwise_blocks_and_dilated_convolutions() -> None:
    w = Writer()
    x = w.silu(w.conv(image(w), 3, 16, 3))
    y = w.silu(w.conv(x, 16, 16, 5, 1, 16))
    gate = w.op("Sigmoid", w.conv(w.op("GlobalAveragePool", y), 16, 16, 1))
    y = w.op("Mul", y, gate)
    dilated = w.op("Conv", y, w.weight(16, 4, 3, 3), pads=[2] * 4, dilations=[2, 2], group=4)
    check(w, w.op("Add", x, dilated))


def test_padding_modes() -> None:
    w = Writer()
    x = image(w)
    pads = w.ints(0, 0, 2, 1, 0, 0, 1, 3)
    check(w, *(w.op("Relu", w.op("Pad", x, pads, mode=mode)) for mode in ("constant", "reflect", "edge")))


@pytest.mark.parametrize("scale", [0.5, 1.25, 3.0])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales_that_are_simple_fractions(mode: str, scale: float) -> None:
    w = Writer()
    scales = w.const(np.array([1, 1, scale, scale], np.float32))
    check(w, w.op("Resize", image(w), "", scales, mode=mode))


def test_a_scale_whose_sizes_depend_on_rounding_is_a_host_step() -> None:
    w = Writer()
    scales = w.const(np.array([1, 1, 1.3, 1], np.float32))
    model = w.model(w.op("Resize", image(w), "", scales, mode="linear")).SerializeToString()
    x = np.random.default_rng().standard_normal((1, 3, 17, 23), dtype=np.float32)
    (want,) = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    with tw.build(model, shapes={"x": tw.Range((1, 3, 16, 16), (1, 3, 20, 20), (1, 3, 40, 40))}) as engine:
        assert [step["name"] for step in engine.report()["host_steps"]] == ["resize_0"]
        np.testing.assert_allclose(engine.run({"x": x})["resize_0"], want, rtol=1e-5, atol=1e-5)


def test_a_window_wider_than_the_smallest_image_is_refused() -> None:
    w = Writer()
    model = w.model(w.op("Conv", image(w), w.weight(4, 3, 5, 5))).SerializeToString()
    with pytest.raises(ModelError, match="which is 4 at the smallest sizes of its range"):
        tw.build(model, shapes={"x": tw.Range((1, 3, 4, 16), (1, 3, 20, 20), (1, 3, 40, 40))})
