# SPDX-License-Identifier: Apache-2.0
"""Two engines with a layer of your own between them: the LeNet of examples/digits, cut in two, pooled by NumPy.

This is how a layer that no engine has is run without a plugin: cut the model before and after it.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import numpy.typing as npt
import onnx

import tensorwright as tw
from tensorwright.surgeon.extract import extract

DIGITS = pathlib.Path(__file__).resolve().parent.parent / "digits"
sys.path.insert(0, str(DIGITS))
from digits import to_input  # noqa: E402  it lies beside the data it prepares

Images = npt.NDArray[np.float32]

FIRST, LAST = "relu2_out", "flatten_out"  # the tensors before and after the own layer


def own_layer(features: Images) -> Images:
    """What the model's layers pool2 and flatten do: the maximum of 2x2 pixels, f32[1, 50, 8, 8] -> f32[1, 800]."""
    batch, channels, height, width = features.shape
    blocks = features.reshape(batch, channels, height // 2, 2, width // 2, 2)
    pooled: Images = blocks.max(axis=(3, 5)).reshape(batch, -1)
    return pooled


def main() -> int:
    """Read all held-out digits with both halves and with the whole. Returns 1 when they differ."""
    tune = "off" if "--quick" in sys.argv else "quick"
    model = onnx.load(DIGITS / "lenet_digits.onnx")
    whole = tw.build(model, tune=tune)
    features = tw.build(model, outputs=[FIRST], tune=tune)  # what only later layers need is left out
    classifier = tw.build(extract(model, [LAST], ["probability"]), tune=tune)
    print(f"features    {features.inputs[0]} -> {features.outputs[0]}")
    print("own layer   NumPy")
    print(f"classifier  {classifier.inputs[0]} -> {classifier.outputs[0]}")
    with np.load(DIGITS / "held_out.npz") as data:
        images, labels = to_input(data["images"]), data["labels"]
    differences, right = [], 0
    for image, label in zip(images, labels, strict=True):
        found, expected = classifier(own_layer(features(image[None]))), whole(image[None])
        differences.append(float(np.abs(found - expected).max()))
        right += int(found.argmax() == label)
    print(f"{right} of {len(labels)} right; the largest difference from the whole network is {max(differences):.1e}")
    return int(max(differences) > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
