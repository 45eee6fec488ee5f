# SPDX-License-Identifier: Apache-2.0
"""One trained LeNet four ways: from Caffe, from ONNX, from a TensorFlow frozen graph, and layer by layer."""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

import tensorwright as tw

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "digits"))
from digits import to_input  # noqa: E402  it lies beside the data it prepares
from formats import CAFFEMODEL, DIGITS, ONNX, PROTOTXT, frozen_graph, network, trained  # noqa: E402


def engines(folder: pathlib.Path, tune: str) -> Iterator[tuple[str, tw.Engine]]:
    """The four engines. The frozen graph is written to `folder` first."""
    weights, frozen = trained(), folder / "frozen.pb"
    frozen.write_bytes(frozen_graph(weights))
    yield "Caffe: mnist.prototxt + mnist.caffemodel", tw.build(PROTOTXT, weights=CAFFEMODEL, tune=tune)
    yield "ONNX: lenet_digits.onnx", tw.build(ONNX, tune=tune)
    yield "TensorFlow: frozen.pb (NHWC)", tw.build(frozen, outputs=["prob"], tune=tune)
    yield "tw.Network, layer by layer", tw.build(network(weights), tune=tune)


def answers(engine: tw.Engine, images: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The digit read from each image f32[1, 28, 28], and the probabilities. One engine wants channels last."""
    shape = engine.inputs[0].shape
    probabilities = np.stack([np.array(engine(image.reshape(shape))).reshape(10) for image in images])
    return probabilities.argmax(axis=1).tolist(), probabilities


def main() -> int:
    """Read all held-out digits with all engines. Returns 1 when they do not agree."""
    with np.load(DIGITS / "held_out.npz") as data:
        images, labels = to_input(data["images"]), data["labels"]
    tune = "off" if "--quick" in sys.argv else "quick"
    reads, differences, first = [], [], None
    with tempfile.TemporaryDirectory() as folder:
        for name, engine in engines(pathlib.Path(folder), tune):
            read, probabilities = answers(engine, images)
            first = probabilities if first is None else first
            reads.append(read)
            differences.append(float(np.abs(probabilities - first).max()))
            right, steps = int(np.sum(read == labels)), len(engine.report()["steps"])
            print(f"{name:42s} {right} of {len(labels)} right, {steps} steps, differs by {differences[-1]:.1e} at most")
    if any(read != reads[0] for read in reads):
        print("the four do not read the same digits", file=sys.stderr)
        return 1
    print(f"all four read the same in all {len(labels)} digits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
