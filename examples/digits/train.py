# SPDX-License-Identifier: Apache-2.0
"""Train LeNet on scikit-learn's handwritten digits with NumPy alone, and write it as ONNX.

    pip install scikit-learn
    python examples/digits/train.py

Writes `lenet_digits.onnx`, `held_out.npz` (the digits that training never saw), `digit.npy` (the first of them as
network input) and `accuracy.json` beside this file. The network of the last epoch is kept: nothing is selected by
looking at the held-out digits.
"""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from digits import to_input

HERE = pathlib.Path(__file__).resolve().parent
SEED, EPOCHS, BATCH, RATE = 2026, 40, 32, 1e-3
HELD_OUT = 450  # the last quarter in file order: neighbours tend to be by one hand, so a shuffled split is easier

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Weights = dict[str, Array]


# -- the network: each layer returns its output and a function from output gradient to input gradient ---------------


@dataclass
class LeNet:
    """conv20 5x5 - relu - pool - conv50 5x5 - relu - pool - fc500 - relu - fc10, on f32[n, 1, 28, 28]."""

    weights: Weights
    gradients: Weights = field(default_factory=dict)

    @staticmethod
    def initialised(rng: np.random.Generator) -> LeNet:
        """He-normal weights, zero biases."""
        shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
        weights: Weights = {}
        for name, shape in shapes.items():
            spread = math.sqrt(2 / math.prod(shape[1:]))
            weights[f"{name}.weight"] = (rng.standard_normal(shape) * spread).astype(np.float32)
            weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return LeNet(weights)

    def forward(self, x: Array, keep: float = 1.0, rng: np.random.Generator | None = None) -> Array:
        """Logits f32[n, 10]; remembers what `backward` needs. `keep` < 1 drops features before fc2 (training)."""
        self._x = x
        self._cols1, y = self._convolve("conv1", x)
        self._mask1, self._pool1 = _pool(np.maximum(y, 0))
        self._cols2, y = self._convolve("conv2", self._pool1)
        self._mask2, y = _pool(np.maximum(y, 0))
        self._pool2_shape, self._flat = y.shape, y.reshape(len(x), -1)
        hidden = np.maximum(self._flat @ self.weights["fc1.weight"].T + self.weights["fc1.bias"], 0)
        if rng is not None:
            hidden *= (rng.random(hidden.shape) < keep).astype(np.float32) / np.float32(keep)
        self._hidden = hidden
        return hidden @ self.weights["fc2.weight"].T + self.weights["fc2.bias"]

    def backward(self, dy: Array, keep: float) -> None:
        """Fill `gradients` from the gradient of the loss by the logits."""
        d_hidden = self._dense_back("fc2", dy, self._hidden) * (self._hidden > 0) / np.float32(keep)
        d_pool2 = self._dense_back("fc1", d_hidden, self._flat).reshape(self._pool2_shape)
        # relu(pool(x)) = pool(relu(x)): the pooled value is 0 exactly where no gradient flows
        d_conv2 = _unpool(d_pool2 * (self._flat.reshape(self._pool2_shape) > 0), self._mask2)
        d_pool1 = self._convolve_back("conv2", d_conv2, self._cols2, self._pool1.shape)
        d_conv1 = _unpool(d_pool1 * (self._pool1 > 0), self._mask1)
        self._convolve_back("conv1", d_conv1, self._cols1, self._x.shape)

    def _convolve(self, name: str, x: Array) -> tuple[Array, Array]:
        """Columns [n, h, w, c*5*5] and the valid 5x5 convolution [n, k, h, w]."""
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(2, 3))
        n, c, h, w = windows.shape[:4]
        cols = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 25)
        weight = self.weights[f"{name}.weight"].reshape(-1, c * 25)
        return cols, (cols @ weight.T + self.weights[f"{name}.bias"]).transpose(0, 3, 1, 2)

    def _convolve_back(self, name: str, dy: Array, cols: Array, x_shape: tuple[int, ...]) -> Array:
        weight = self.weights[f"{name}.weight"]
        flat = dy.transpose(0, 2, 3, 1).reshape(-1, weight.shape[0])
        self.gradients[f"{name}.weight"] = (flat.T @ cols.reshape(len(flat), -1)).reshape(weight.shape)
        self.gradients[f"{name}.bias"] = flat.sum(0)
        d_cols = (flat @ weight.reshape(len(weight), -1)).reshape(*cols.shape[:3], -1, 5, 5)
        dx = np.zeros(x_shape, np.float32)
        h, w = cols.shape[1:3]
        for i in range(5):
            for j in range(5):
                dx[:, :, i : i + h, j : j + w] += d_cols[..., i, j].transpose(0, 3, 1, 2)
        return dx

    def _dense_back(self, name: str, dy: Array, x: Array) -> Array:
        self.gradients[f"{name}.weight"] = dy.T @ x
        self.gradients[f"{name}.bias"] = dy.sum(0)
        return dy @ self.weights[f"{name}.weight"]


def _pool(x: Array) -> tuple[npt.NDArray[np.bool_], Array]:
    """2x2 maximum with stride 2, and the mask [n, c, h/2, w/2, 4] of where each maximum was (the first, if tied)."""
    n, c, h, w = x.shape
    cells = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    return cells.argmax(-1)[..., None] == np.arange(4), cells.max(-1)


def _unpool(dy: Array, mask: npt.NDArray[np.bool_]) -> Array:
    n, c, h, w = dy.shape
    cells = (dy[..., None] * mask).reshape(n, c, h, w, 2, 2)
    return cells.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h * 2, w * 2)


# -- training --------------------------------------------------------------------------------------------------------


def softmax(logits: Array) -> Array:
    """Rows of probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def distorted(images: Array, rng: np.random.Generator) -> Array:
    """Each image turned by up to 12 degrees, scaled by up to 12%, sheared and shifted by up to 2 pixels."""
    n, _, side, _ = images.shape
    angle, shear = rng.uniform(-0.21, 0.21, n), rng.uniform(-0.15, 0.15, n)
    scale = rng.uniform(0.88, 1.12, (2, n))
    shift = rng.uniform(-2, 2, (2, n, 1, 1))
    centre = (side - 1) / 2
    dy, dx = np.meshgrid(np.arange(side) - centre, np.arange(side) - centre, indexing="ij")
    cos, sin = (np.cos(angle) / scale[0])[:, None, None], (np.sin(angle) / scale[1])[:, None, None]
    y = cos * dy + sin * dx + centre + shift[0]
    x = -sin * dy + cos * dx + shear[:, None, None] * dy + centre + shift[1]
    y, x = np.clip(y, 0, side - 1.001), np.clip(x, 0, side - 1.001)
    top, left = y.astype(np.intp), x.astype(np.intp)
    fy, fx, which = y - top, x - left, np.arange(n)[:, None, None]
    plane = images[:, 0]
    upper = plane[which, top, left] * (1 - fx) + plane[which, top, left + 1] * fx
    lower = plane[which, top + 1, left] * (1 - fx) + plane[which, top + 1, left + 1] * fx
    return (upper * (1 - fy) + lower * fy)[:, None].astype(np.float32)


def batches(x: Array, labels: Labels, rng: np.random.Generator) -> Iterator[tuple[Array, Labels]]:
    """One epoch of freshly distorted batches in random order."""
    order = rng.permutation(len(x))
    for start in range(0, len(x), BATCH):
        pick = order[start : start + BATCH]
        yield distorted(x[pick], rng), labels[pick]


def train(x: Array, labels: Labels, rng: np.random.Generator) -> LeNet:
    """Adam (Kingma and Ba, 2015) on cross-entropy, cosine learning rate, decoupled weight decay, dropout 0.5."""
    net = LeNet.initialised(rng)
    mean = {k: np.zeros_like(w) for k, w in net.weights.items()}
    square = {k: np.zeros_like(w) for k, w in net.weights.items()}
    total, step = EPOCHS * math.ceil(len(x) / BATCH), 0
    for epoch in range(EPOCHS):
        loss = 0.0
        for images, target in batches(x, labels, rng):
            step += 1
            p = softmax(net.forward(images, 0.5, rng))
            rows = np.arange(len(target))
            loss -= float(np.log(p[rows, target] + 1e-12).sum())
            p[rows, target] -= 1
            net.backward(p / len(target), 0.5)
            rate = RATE * 0.5 * (1 + math.cos(math.pi * step / total))
            for k, g in net.gradients.items():
                mean[k] += 0.1 * (g - mean[k])
                square[k] += 0.001 * (g * g - square[k])
                update = mean[k] / (1 - 0.9**step) / (np.sqrt(square[k] / (1 - 0.999**step)) + 1e-8)
                net.weights[k] -= np.float32(rate) * (update + 0.01 * net.weights[k]).astype(np.float32)
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {loss / len(x):.4f}", flush=True)
    return net


# -- export ----------------------------------------------------------------------------------------------------------


def to_onnx(net: LeNet) -> onnx.ModelProto:
    """The ops PyTorch's exporter would write, and a softmax: image f32[1,1,28,28] -> probability f32[1,10]."""
    layers = [
        ("Conv", "conv1", {"kernel_shape": [5, 5]}),
        ("Relu", "relu1", {}),
        ("MaxPool", "pool1", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", "conv2", {"kernel_shape": [5, 5]}),
        ("Relu", "relu2", {}),
        ("MaxPool", "pool2", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", "flatten", {"axis": 1}),
        ("Gemm", "fc1", {"transB": 1}),
        ("Relu", "relu3", {}),
        ("Gemm", "fc2", {"transB": 1}),
        ("Softmax", "softmax", {"axis": 1}),
    ]
    nodes, current = [], "image"
    for kind, name, attributes in layers:
        parameters = [f"{name}.weight", f"{name}.bias"] if f"{name}.weight" in net.weights else []
        result = "probability" if name == "softmax" else f"{name}_out"
        nodes.append(helper.make_node(kind, [current, *parameters], [result], name=name, **attributes))
        current = result
    graph = helper.make_graph(
        nodes,
        "lenet_digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(w, name) for name, w in net.weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="tensorwright digits example")
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, measure, write the files."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = data.images.astype(np.uint8), data.target.astype(np.int64)
    x, rng, start = to_input(images), np.random.default_rng(SEED), time.perf_counter()
    net = train(x[:-HELD_OUT], labels[:-HELD_OUT], rng)
    right = net.forward(x).argmax(1) == labels
    seen, unseen = right[:-HELD_OUT], right[-HELD_OUT:]
    accuracy = {
        "held_out_digits": HELD_OUT,
        "held_out_right": int(unseen.sum()),
        "held_out_accuracy": round(float(unseen.mean()), 4),
        "training_digits": len(x) - HELD_OUT,
        "training_accuracy": round(float(seen.mean()), 4),
        "epochs": EPOCHS,
        "seed": SEED,
        "training_seconds": round(time.perf_counter() - start),
    }
    onnx.save(to_onnx(net), HERE / "lenet_digits.onnx")
    np.save(HERE / "digit.npy", x[-HELD_OUT][None])
    np.savez_compressed(HERE / "held_out.npz", images=images[-HELD_OUT:], labels=labels[-HELD_OUT:].astype(np.uint8))
    (HERE / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    print(json.dumps(accuracy, indent=2))


if __name__ == "__main__":
    main()
