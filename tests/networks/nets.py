# SPDX-License-Identifier: Apache-2.0
"""Small ONNX networks with the building blocks of well-known ones, seeded weights, a few milliseconds each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """Writes one ONNX graph; every method adds a node and returns its output name."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array: object) -> str:
        name = f"c{len(self.inits)}"
        self.inits.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) != 2 else shape[0]
        return self.const((self.rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))

    def vector(self, n: int, low: float = -0.1, high: float = 0.1) -> str:
        return self.const(self.rng.uniform(low, high, n).astype(np.float32))

    def op(self, kind: str, *ins: str, n: int = 1, **attrs: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        outs = [name] if n == 1 else [f"{name}_{i}" for i in range(n)]
        self.nodes.append(helper.make_node(kind, list(ins), outs, name=name, **attrs))
        return outs[0]

    def conv(self, x: str, c: int, k: int, size: int = 1, s: int = 1, g: int = 1, bias: bool = True) -> str:
        ins = [x, self.weight(k, c // g, size, size), *([self.vector(k)] if bias else [])]
        return self.op("Conv", *ins, kernel_shape=[size, size], strides=[s, s], pads=[size // 2] * 4, group=g)

    def bn(self, x: str, c: int) -> str:
        return self.op(
            "BatchNormalization", x, self.vector(c, 0.8, 1.2), self.vector(c), self.vector(c), self.vector(c, 0.8, 1.2)
        )

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def linear(self, x: str, c: int, k: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(c, k)), self.vector(k))

    def norm(self, x: str, c: int) -> str:
        return self.op("LayerNormalization", x, self.vector(c, 0.9, 1.1), self.vector(c), axis=-1)

    def model(self, *outputs: str) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, infos, self.inits)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        return onnx.shape_inference.infer_shapes(model)


def residual() -> onnx.ModelProto:
    """Stem, basic block, bottleneck with projection, global pool and classifier."""
    w = Writer(1)
    x = w.op("Relu", w.bn(w.conv(w.input("data", 1, 3, 33, 33), 3, 24, 7, 2, bias=False), 24))
    x = w.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = w.bn(w.conv(w.op("Relu", w.bn(w.conv(x, 24, 24, 3), 24)), 24, 24, 3), 24)
    x = w.op("Relu", w.op("Add", y, x))
    y = w.bn(w.conv(w.op("Relu", w.bn(w.conv(w.op("Relu", w.conv(x, 24, 16)), 16, 16, 3, 2), 16)), 16, 48), 48)
    x = w.op("Relu", w.op("Add", y, w.bn(w.conv(x, 24, 48, 1, 2), 48)))
    x = w.op("Flatten", w.op("GlobalAveragePool", x))
    return w.model(w.op("Gemm", x, w.weight(10, 48), w.vector(10), transB=1))


def inception() -> onnx.ModelProto:
    """Four branches into a concat, LRN, ceil-mode pooling, softmax."""
    w = Writer(2)
    x = w.op(
        "LRN", w.op("Relu", w.conv(w.input("data", 1, 3, 23, 19), 3, 32, 3)), size=5, alpha=1e-3, beta=0.75, bias=1.0
    )
    x = w.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)

    def cr(x: str, c: int, k: int, size: int = 1) -> str:
        return w.op("Relu", w.conv(x, c, k, size))

    pooled = w.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = w.op(
        "Concat", cr(x, 32, 16), cr(cr(x, 32, 24), 24, 32, 3), cr(cr(x, 32, 8), 8, 12, 5), cr(pooled, 32, 16), axis=1
    )
    x = w.op("AveragePool", x, kernel_shape=[2, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return w.model(w.op("Softmax", w.op("Gemm", w.op("Flatten", x), w.weight(76 * 6 * 5, 9)), axis=1))


def mobile() -> onnx.ModelProto:
    """Inverted residual with squeeze and excite, clip and silu, depthwise of several kinds."""
    w = Writer(3)
    x = w.op(
        "Clip",
        w.bn(w.conv(w.input("data", 1, 3, 20, 22), 3, 18, 3, 2), 18),
        w.const(np.float32(0)),
        w.const(np.float32(6)),
    )
    y = w.silu(w.bn(w.conv(w.silu(w.bn(w.conv(x, 18, 54), 54)), 54, 54, 5, 1, 54), 54))
    gate = w.conv(w.silu(w.conv(w.op("GlobalAveragePool", y), 54, 6)), 6, 54)
    x = w.op("Add", w.bn(w.conv(w.op("Mul", y, w.op("Sigmoid", gate)), 54, 18), 18), x)
    x = w.op("HardSwish", w.conv(x, 18, 18, 3, 2, 18))
    return w.model(w.op("ReduceMean", x, axes=[2, 3], keepdims=0))


def detector() -> onnx.ModelProto:
    """Split-and-concat block, pooled pyramid, nearest upsampling into a concat, flattened heads."""
    w = Writer(4)
    x = w.silu(w.conv(w.input("images", 1, 3, 24, 24), 3, 16, 3, 2))
    w.op("Split", x, w.ints(8, 8), n=2, axis=1)
    low, high = (w.nodes[-1].output[i] for i in range(2))
    x = w.conv(w.op("Concat", low, high, w.op("Add", high, w.silu(w.conv(high, 8, 8, 3))), axis=1), 24, 16)
    small = w.silu(w.conv(x, 16, 32, 3, 2))
    pools = [small]
    for _ in range(2):
        pools.append(w.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    small = w.silu(w.conv(w.op("Concat", *pools, axis=1), 96, 16))
    up = w.op(
        "Resize",
        small,
        "",
        w.const(np.array([1, 1, 2, 2], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    wide = w.conv(w.op("Concat", up, x, axis=1), 32, 12)
    heads = [w.op("Reshape", h, w.ints(0, 12, -1)) for h in (wide, w.conv(small, 16, 12))]
    return w.model(w.op("Sigmoid", w.op("Concat", *heads, axis=2)))


def unet() -> onnx.ModelProto:
    """Deconvolution beside a skip connection; one-channel mask."""
    w = Writer(5)
    skip = w.op("Relu", w.conv(w.input("image", 1, 3, 18, 14), 3, 16, 3))
    x = w.op("Relu", w.conv(w.op("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2]), 16, 32, 3))
    x = w.op("ConvTranspose", x, w.weight(32, 16, 2, 2), w.vector(16), kernel_shape=[2, 2], strides=[2, 2])
    x = w.op("Relu", w.conv(w.op("Concat", x, skip, axis=1), 32, 16, 3))
    x = w.op(
        "ConvTranspose",
        x,
        w.weight(16, 8, 3, 3),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
        output_padding=[1, 1],
    )
    return w.model(w.op("Sigmoid", w.conv(x, 8, 1)))


def _attention(w: Writer, x: str, d: int, heads: int, mask: str | None) -> str:
    def split(y: str, perm: list[int]) -> str:
        return w.op("Transpose", w.op("Reshape", y, w.ints(0, -1, heads, d // heads)), perm=perm)

    q, k, v = (w.linear(x, d, d) for _ in range(3))
    s = w.op(
        "Div", w.op("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])), w.const(np.float32(np.sqrt(d // heads)))
    )
    s = w.op("Softmax", w.op("Add", s, mask) if mask else s, axis=-1)
    y = w.op("Transpose", w.op("MatMul", s, split(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return w.linear(w.op("Reshape", y, w.ints(0, -1, d)), d, d)


def _gelu(w: Writer, x: str) -> str:
    e = w.op("Erf", w.op("Div", x, w.const(np.float32(np.sqrt(2)))))
    return w.op("Mul", w.op("Mul", x, w.op("Add", e, w.const(np.float32(1)))), w.const(np.float32(0.5)))


def encoder() -> onnx.ModelProto:
    """Text encoder: embedding, additive mask, two post-norm blocks."""
    w, d, seq = Writer(6), 24, 11
    ids, att = (w.input(n, 1, seq, dtype=TensorProto.INT64) for n in ("input_ids", "attention_mask"))
    x = w.norm(w.op("Add", w.op("Gather", w.weight(50, d), ids), w.weight(1, seq, d)), d)
    mask = w.op("Cast", w.op("Unsqueeze", att, w.ints(1, 2)), to=TensorProto.FLOAT)
    mask = w.op("Mul", w.op("Sub", w.const(np.float32(1)), mask), w.const(np.float32(-1e4)))
    for _ in range(2):
        x = w.norm(w.op("Add", x, _attention(w, x, d, 3, mask)), d)
        x = w.norm(w.op("Add", x, w.linear(_gelu(w, w.linear(x, d, 40)), 40, d)), d)
    return w.model(x)


def vision_transformer() -> onnx.ModelProto:
    """Patch convolution, class token through shape arithmetic, pre-norm block, class row."""
    w, d = Writer(7), 20
    x = w.op(
        "Conv", w.input("data", 1, 3, 24, 16), w.weight(d, 3, 8, 8), w.vector(d), kernel_shape=[8, 8], strides=[8, 8]
    )
    x = w.op("Transpose", w.op("Reshape", x, w.ints(0, d, -1)), perm=[0, 2, 1])
    shape = w.op("Concat", w.op("Shape", x, start=0, end=1), w.ints(1, d), axis=0)
    x = w.op("Concat", w.op("Expand", w.weight(1, 1, d), shape), x, axis=1)
    x = w.op("Add", x, w.weight(1, 7, d))
    x = w.op("Add", x, _attention(w, w.norm(x, d), d, 2, None))
    x = w.op("Add", x, w.linear(_gelu(w, w.linear(w.norm(x, d), d, 33)), 33, d))
    x = w.op("Gather", w.norm(x, d), w.const(np.int64(0)), axis=1)
    return w.model(w.op("Gemm", x, w.weight(9, d), transB=1))


def recurrent() -> onnx.ModelProto:
    """Embedded tokens, a bidirectional LSTM with initial states, a GRU, and a classifier of its last state."""
    w, d, seq, hidden = Writer(8), 12, 9, 20
    x = w.op(
        "Transpose", w.op("Gather", w.weight(50, d), w.input("ids", 2, seq, dtype=TensorProto.INT64)), perm=[1, 0, 2]
    )
    state = w.const(w.rng.standard_normal((2, 2, hidden)).astype(np.float32))
    r = w.weight(2, 4 * hidden, hidden)
    x = w.op(
        "LSTM", x, w.weight(2, 4 * hidden, d), r, "", "", state, state, direction="bidirectional", hidden_size=hidden
    )
    x = w.op("Reshape", w.op("Transpose", x, perm=[0, 2, 1, 3]), w.ints(0, 0, -1))
    weights = w.weight(1, 3 * hidden, 2 * hidden), w.weight(1, 3 * hidden, hidden), w.weight(1, 6 * hidden)
    x = w.op("GRU", x, *weights, n=2, linear_before_reset=1, hidden_size=hidden)
    return w.model(w.linear(w.op("Squeeze", x.removesuffix("0") + "1", w.ints(0)), hidden, 7))


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    f.__name__: f for f in (residual, inception, mobile, detector, unet, encoder, vision_transformer, recurrent)
}


def feed(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Random inputs: normal floats, small ids, masks of ones with a zero tail."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for v in model.graph.input:
        shape = [d.dim_value for d in v.type.tensor_type.shape.dim]
        if v.type.tensor_type.elem_type == TensorProto.FLOAT:
            out[v.name] = rng.standard_normal(shape).astype(np.float32)
        elif "mask" in v.name:
            out[v.name] = (np.arange(shape[-1]) < shape[-1] - 3).astype(np.int64)[None]
        else:
            out[v.name] = rng.integers(0, 50, shape)
    return out
