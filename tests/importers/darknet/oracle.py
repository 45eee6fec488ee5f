# SPDX-License-Identifier: Apache-2.0
"""Darknet in plain loops: layers are computed as its C code does, from the options as text and the numbers in order."""

from __future__ import annotations

import math
import pathlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Layers = Sequence[tuple[str, Mapping[str, object]]]

OTHER_NAMES = {
    "conv": "convolutional",
    "deconv": "deconvolutional",
    "conn": "connected",
    "max": "maxpool",
    "lrn": "normalization",
}


def cfg_text(layers: Layers, shape: Sequence[int]) -> str:
    """A .cfg file for images of channels x height x width, or so many elements."""
    names = ("channels", "height", "width") if len(shape) == 3 else ("inputs",)
    net = ("net", {"batch": 64, "subdivisions": 8, "learning_rate": 0.1, **dict(zip(names, shape, strict=True))})
    return "".join(
        f"[{kind}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()) + "\n"
        for kind, options in (net, *layers)
    )


def write(folder: pathlib.Path, layers: Layers, shape: Sequence[int], numbers: Array) -> tuple[str, str]:
    """The paths of a .cfg and a .weights file (version 0.2.0)."""
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(cfg_text(layers, shape))
    weights.write_bytes(struct.pack("<iiiQ", 0, 2, 0, 12345) + numbers.astype("<f4").tobytes())
    return str(cfg), str(weights)


class Oracle:
    """The results of all layers for one sample, f32[channels, height, width] or f32[elements].

    The weights are drawn, and then are `numbers`, in the order of a .weights file. `transpose`: as files of versions
    above 1000 store connected layers.
    """

    def __init__(
        self, layers: Layers, shape: Sequence[int], rng: np.random.Generator, *, transpose: bool = False
    ) -> None:
        self.layers, self.rng, self.transpose = layers, rng, transpose
        self.numbers = np.zeros(0, np.float32)
        self.used = 0
        self.run(np.ones(shape, np.float32))

    def run(self, x: Array) -> list[Array]:
        self.used, self.results = 0, list[Array]()
        for kind, options in self.layers:
            o = {key: str(value) for key, value in options.items()}
            x = getattr(self, OTHER_NAMES.get(kind, kind))(x.astype(np.float64), o).astype(np.float32)
            self.results.append(x)
        return self.results

    def take(self, *shape: int, positive: bool = False) -> Array:
        count = math.prod(shape)
        if self.used == len(self.numbers):
            drawn = self.rng.uniform(0.2, 0.6, count) * (1 if positive else self.rng.choice([-1, 1], count))
            self.numbers = np.concatenate([self.numbers, drawn.astype(np.float32)])
        self.used += count
        return self.numbers[self.used - count : self.used].reshape(shape).astype(np.float64)

    def statistics(self, n: int) -> Array:
        return np.stack([self.take(n), self.take(n), self.take(n, positive=True)])

    # -- layers with weights --------------------------------------------------------------------
    def convolutional(self, x: Array, o: Mapping[str, str]) -> Array:
        n, size, groups = (int(o.get(k, "1")) for k in ("filters", "size", "groups"))
        dilation = int(o.get("dilation", "1")) if size > 1 else 1
        sy, sx = (int(o.get(k, o.get("stride", "1"))) for k in ("stride_y", "stride_x"))
        pad = size // 2 if int(o.get("pad", "0")) else int(o.get("padding", "0"))
        c, h, w = x.shape
        out_h, out_w = (h + 2 * pad - size) // sy + 1, (w + 2 * pad - size) // sx + 1
        bias, bn = self.take(n), None
        if int(o.get("batch_normalize", "0")):
            bn = self.statistics(n)
        kernel = self.take(n, c // groups, size, size)
        if int(o.get("flipped", "0")):
            kernel = kernel.reshape(-1, n).T.reshape(kernel.shape)
        out = np.zeros((n, out_h, out_w))
        for f, i, j in np.ndindex(out.shape):
            first = f // (n // groups) * (c // groups)
            for k, u, v in np.ndindex(kernel.shape[1:]):
                row, col = i * sy + (u - pad) * dilation, j * sx + (v - pad) * dilation
                if 0 <= row < h and 0 <= col < w:
                    out[f, i, j] += kernel[f, k, u, v] * x[first + k, row, col]
        return self.finish(out, bias, bn, o)

    def deconvolutional(self, x: Array, o: Mapping[str, str]) -> Array:
        n, size, stride = (int(o.get(k, "1")) for k in ("filters", "size", "stride"))
        pad = size // 2 if int(o.get("pad", "0")) else int(o.get("padding", "0"))
        c, h, w = x.shape
        bias, bn = self.take(n), None
        if int(o.get("batch_normalize", "0")):
            bn = self.statistics(n)
        kernel = self.take(c, n, size, size)
        out = np.zeros((n, (h - 1) * stride + size - 2 * pad, (w - 1) * stride + size - 2 * pad))
        for k, i, j, f, u, v in np.ndindex(c, h, w, n, size, size):
            row, col = i * stride + u - pad, j * stride + v - pad
            if 0 <= row < out.shape[1] and 0 <= col < out.shape[2]:
                out[f, row, col] += x[k, i, j] * kernel[k, f, u, v]
        return self.finish(out, bias, bn, o)

    def connected(self, x: Array, o: Mapping[str, str]) -> Array:
        n, flat = int(o.get("output", "1")), x.reshape(-1)
        bias = self.take(n)
        kernel = self.take(flat.size, n).T if self.transpose else self.take(n, flat.size)
        bn = self.statistics(n) if int(o.get("batch_normalize", "0")) else None
        out = np.array([sum(k * v for k, v in zip(row, flat, strict=True)) for row in kernel])
        return self.finish(out.reshape(n, 1, 1), bias, bn, o)

    def finish(self, out: Array, bias: Array, bn: Array | None, o: Mapping[str, str]) -> Array:
        for f in range(len(out)):
            if bn is not None:
                out[f] = (out[f] - bn[1, f]) / (np.sqrt(bn[2, f]) + 0.000001) * bn[0, f]
            out[f] += bias[f]
        return activate(out, o.get("activation", "logistic"))

    # -- pooling and resampling -----------------------------------------------------------------
    def maxpool(self, x: Array, o: Mapping[str, str]) -> Array:
        stride = int(o.get("stride", "1"))
        sy, sx = int(o.get("stride_y", stride)), int(o.get("stride_x", stride))
        size = int(o.get("size", stride))
        padding = int(o.get("padding", size - 1))
        c, h, w = x.shape
        out = np.full((c, (h + padding - size) // sy + 1, (w + padding - size) // sx + 1), -np.inf)
        for k, i, j, u, v in np.ndindex(*out.shape, size, size):
            row, col = i * sy + u - padding // 2, j * sx + v - padding // 2
            if 0 <= row < h and 0 <= col < w:
                out[k, i, j] = max(out[k, i, j], x[k, row, col])
        return out

    def avgpool(self, x: Array, o: Mapping[str, str]) -> Array:
        return np.array([channel.sum() / channel.size for channel in x]).reshape(-1, 1, 1)

    def upsample(self, x: Array, o: Mapping[str, str]) -> Array:
        stride = int(o.get("stride", "2"))
        out = np.zeros((len(x), x.shape[1] * stride, x.shape[2] * stride))
        for k, i, j in np.ndindex(out.shape):
            out[k, i, j] = float(o.get("scale", "1")) * x[k, i // stride, j // stride]
        return out

    def crop(self, x: Array, o: Mapping[str, str]) -> Array:
        h, w = int(o["crop_height"]), int(o["crop_width"])
        top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
        cut = x[:, top : top + h, left : left + w]
        return cut if int(o.get("noadjust", "0")) else cut * 2 - 1

    def reorg(self, x: Array, o: Mapping[str, str]) -> Array:
        stride, reverse = int(o.get("stride", "1")), int(o.get("reverse", "0"))
        (c, h, w), flat = x.shape, x.reshape(-1)
        out, out_c = np.zeros(x.size), c // stride**2
        for k, j, i in np.ndindex(x.shape):
            at = i + w * (j + h * k)
            c2, offset = k % out_c, k // out_c
            there = i * stride + offset % stride + w * stride * (j * stride + offset // stride + h * stride * c2)
            if reverse:
                out[there] = flat[at]
            else:
                out[at] = flat[there]
        shape = (out_c, h * stride, w * stride) if reverse else (c * stride**2, h // stride, w // stride)
        return out.reshape(shape)

    # -- layers that read others ----------------------------------------------------------------
    def before(self, text: str) -> list[Array]:
        return [self.results[int(i)].astype(np.float64) for i in text.split(",")]

    def route(self, x: Array, o: Mapping[str, str]) -> Array:
        groups, group = int(o.get("groups", "1")), int(o.get("group_id", "0"))
        parts = []
        for layer in self.before(o["layers"]):
            size = layer.size // groups
            part = layer.reshape(-1)[group * size : (group + 1) * size]
            parts.append(part.reshape(layer.shape[0] // groups, *layer.shape[1:]))
        flat = np.concatenate([part.reshape(-1) for part in parts])
        same = all(part.shape[1:] == parts[0].shape[1:] for part in parts)
        return flat.reshape(sum(len(part) for part in parts), *parts[0].shape[1:]) if same else flat

    def shortcut(self, x: Array, o: Mapping[str, str]) -> Array:
        out, s1, s2 = x.copy(), float(o.get("alpha", "1")), float(o.get("beta", "1"))
        for add in self.before(o["from"]):
            (c1, h1, w1), (c2, h2, w2) = add.shape, out.shape
            stride, sample = max(w1 // w2, 1), max(w2 // w1, 1)
            for k, j, i in np.ndindex(min(c1, c2), min(h1, h2), min(w1, w2)):
                place = (k, j * sample, i * sample)
                out[place] = s1 * out[place] + s2 * add[k, j * stride, i * stride]
        return activate(out, o.get("activation", "linear"))

    def scale_channels(self, x: Array, o: Mapping[str, str]) -> Array:
        (other,) = self.before(o["from"])
        return activate(
            np.array([a * b for a, b in zip(x.reshape(-1), other, strict=True)]), o.get("activation", "linear")
        )

    def sam(self, x: Array, o: Mapping[str, str]) -> Array:
        return activate(x * self.before(o["from"])[0], o.get("activation", "linear"))

    # -- rare kinds ---------------------------------------------------------------------------------
    def batchnorm(self, x: Array, o: Mapping[str, str]) -> Array:
        return self.finish(x.copy(), np.zeros(len(x)), self.statistics(len(x)), {"activation": "linear"})

    def normalization(self, x: Array, o: Mapping[str, str]) -> Array:
        size, squared = int(o.get("size", "5")), float(o.get("alpha", ".0001")) * x**2
        norms = np.full(x.shape, float(o.get("kappa", "1")))
        norms[0] += squared[: size // 2].sum(0)
        for k in range(1, len(x)):
            norms[k] = norms[k - 1]
            if k - (size - 1) // 2 - 1 >= 0:
                norms[k] -= squared[k - (size - 1) // 2 - 1]
            if k + size // 2 < len(x):
                norms[k] += squared[k + size // 2]
        return x * norms ** -float(o.get("beta", ".75"))

    def l2norm(self, x: Array, o: Mapping[str, str]) -> Array:
        out = x.copy()
        for i, j in np.ndindex(x.shape[1:]):
            out[:, i, j] /= math.sqrt(sum(v * v for v in x[:, i, j]))
        return out

    def local(self, x: Array, o: Mapping[str, str]) -> Array:
        n, size, stride, pad = (
            int(o.get(k, d)) for k, d in (("filters", "1"), ("size", "1"), ("stride", "1"), ("pad", "0"))
        )
        c, h, w = x.shape
        out_h, out_w = ((side - (1 if pad else size)) // stride + 1 for side in (h, w))
        out = self.take(n, out_h, out_w)
        kernel = self.take(out_h, out_w, n, c, size, size)
        for f, i, j, k, u, v in np.ndindex(n, out_h, out_w, c, size, size):
            row, col = i * stride + u - pad, j * stride + v - pad
            if 0 <= row < h and 0 <= col < w:
                out[f, i, j] += kernel[i, j, f, k, u, v] * x[k, row, col]
        return activate(out, o.get("activation", "logistic"))

    def detection(self, x: Array, o: Mapping[str, str]) -> Array:
        out, classes = x.reshape(-1).copy(), int(o["classes"])
        for cell in range(int(o["side"]) ** 2 if int(o.get("softmax", "0")) else 0):
            out[cell * classes : (cell + 1) * classes] = softmax(out[cell * classes : (cell + 1) * classes])
        return out

    # -- elementwise ----------------------------------------------------------------------------
    def activation(self, x: Array, o: Mapping[str, str]) -> Array:
        return activate(x, o["activation"])

    def logistic(self, x: Array, o: Mapping[str, str]) -> Array:
        return activate(x, "logistic")

    def softmax(self, x: Array, o: Mapping[str, str]) -> Array:
        parts = x.reshape(int(o.get("groups", "1")), -1) / float(o.get("temperature", "1"))
        return np.concatenate([softmax(part) for part in parts])

    def dropout(self, x: Array, o: Mapping[str, str]) -> Array:
        return x

    def cost(self, x: Array, o: Mapping[str, str]) -> Array:
        return x

    # -- detectors ------------------------------------------------------------------------------
    def yolo(self, x: Array, o: Mapping[str, str]) -> Array:
        entries, scale = 5 + int(o["classes"]), float(o.get("scale_x_y", "1"))
        out = x.copy()
        for channel in range(len(out)):
            entry = channel % entries
            if entry not in (2, 3) and not int(o.get("new_coords", "0")):
                out[channel] = activate(out[channel], "logistic")
            if entry < 2:
                out[channel] = out[channel] * scale - 0.5 * (scale - 1)
        return out

    def region(self, x: Array, o: Mapping[str, str]) -> Array:
        classes, coords, background = int(o["classes"]), int(o.get("coords", "4")), int(o.get("background", "0"))
        softmaxed = int(o.get("softmax", "0"))
        out = x.reshape(int(o["num"]), coords + 1 + classes, -1).copy()
        for box in out:
            first = coords + (not background)
            raw = box[first:].copy()
            box[:2] = activate(box[:2], "logistic")
            if not background:
                box[coords] = activate(box[coords], "logistic")
            if not softmaxed:
                box[coords + 1 :] = activate(box[coords + 1 :], "logistic")
            else:
                for place in range(box.shape[1]):
                    box[first:, place] = softmax(raw[:, place])
        return out.reshape(x.shape)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def activate(x: Array, name: str) -> Array:
    return np.array([FUNCTIONS[name](float(v)) for v in x.reshape(-1)]).reshape(x.shape)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _stair(x: float) -> float:
    n = math.floor(x)
    return math.floor(x / 2) if n % 2 == 0 else (x - n) + math.floor(x / 2)


FUNCTIONS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "logistic": _logistic,
    "loggy": lambda x: 2 / (1 + math.exp(-x)) - 1,
    "relu": lambda x: x if x > 0 else 0,
    "relu6": lambda x: min(max(x, 0), 6),
    "elu": lambda x: x if x >= 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (math.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3)),
    "relie": lambda x: x if x > 0 else 0.01 * x,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "leaky": lambda x: x if x > 0 else 0.1 * x,
    "tanh": math.tanh,
    "plse": lambda x: 0.01 * (x + 4) if x < -4 else 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5,
    "stair": _stair,
    "hardtan": lambda x: min(max(x, -1), 1),
    "lhtan": lambda x: 0.001 * x if x < 0 else 0.001 * (x - 1) + 1 if x > 1 else x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hard_mish": lambda x: x if x > 0 else x * x / 2 + x if x > -2 else 0,
    "swish": lambda x: x * _logistic(x),
}
