# SPDX-License-Identifier: Apache-2.0
"""The trained LeNet of examples/digits in other forms: a .caffemodel, a frozen TensorFlow graph, a `tw.Network`.

As a program it writes mnist.caffemodel, which belongs to mnist.prototxt: `python examples/lenet/formats.py`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import tensorwright as tw
from tensorwright.importers.tensorflow.schema import GraphDef
from tensorwright.network import ActivationType, PoolingType

HERE = pathlib.Path(__file__).resolve().parent
DIGITS = HERE.parent / "digits"
ONNX = DIGITS / "lenet_digits.onnx"
PROTOTXT, CAFFEMODEL = HERE / "mnist.prototxt", HERE / "mnist.caffemodel"

Array = np.ndarray[Any, Any]

CAFFE_NAMES = {"conv1": "conv1", "conv2": "conv2", "fc1": "ip1", "fc2": "ip2"}


def trained() -> Mapping[str, Array]:
    """The trained weights by their names in the ONNX model: conv1.weight, conv1.bias, ..."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(ONNX).graph.initializer}


# -- Caffe ------------------------------------------------------------------------------------------
def caffemodel(weights: Mapping[str, Array]) -> bytes:
    """The weights as Caffe's trainer stores them: a layer of the same name has a blob for each of its parameters.

    Written by hand, since a .caffemodel packs its numbers: NetParameter has name (1) and layers (100), a layer has name
    (1), type (2) and blobs (7), a blob has data (5) and shape (7), whose dims are field 1.
    """
    net = field(1, b"LeNet")
    for source, name in CAFFE_NAMES.items():
        layer = field(1, name.encode()) + field(2, b"Convolution" if "conv" in name else b"InnerProduct")
        for part in ("weight", "bias"):
            array = weights[f"{source}.{part}"]
            shape = field(1, b"".join(varint(size) for size in array.shape))
            layer += field(7, field(5, array.astype("<f4").tobytes()) + field(7, shape))
        net += field(100, layer)
    return net


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message that has a length: text, a message, or packed numbers."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits in each byte, the lowest first."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


# -- TensorFlow -------------------------------------------------------------------------------------
FLOAT, INT32 = 1, 3  # DT_FLOAT, DT_INT32


class FrozenGraph:
    """Writes the nodes of a GraphDef; each method returns the name of its node."""

    def __init__(self) -> None:
        self.graph = GraphDef()

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        """A node of f32 tensors. Attributes: bytes, a list of ints, or a type by its number."""
        node = self.graph.node.add(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            if isinstance(value, bytes):
                node.attr[key].s = value
            elif isinstance(value, list):
                node.attr[key].list.i.extend(value)
            else:
                node.attr[key].type = value
        return name

    def constant(self, name: str, array: Array) -> str:
        """A Const of f32 or i32."""
        kind = FLOAT if array.dtype == np.float32 else INT32
        self.node(name, "Const", dtype=kind)
        tensor = self.graph.node[-1].attr["value"].tensor
        tensor.dtype, tensor.tensor_content = kind, array.tobytes()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        return name

    def convolution(self, name: str, x: str, weight: Array, bias: Array) -> str:
        """Convolution, bias, ReLU and 2x2 pooling. TensorFlow's kernels are height x width x in x out."""
        image = {"T": FLOAT, "data_format": b"NHWC", "padding": b"VALID"}
        kernel = self.constant(f"{name}/weights", np.ascontiguousarray(weight.transpose(2, 3, 1, 0)))
        y = self.node(f"{name}/Conv2D", "Conv2D", x, kernel, strides=[1, 1, 1, 1], **image)
        biases = self.constant(f"{name}/biases", bias)
        y = self.node(f"{name}/BiasAdd", "BiasAdd", y, biases, T=FLOAT, data_format=b"NHWC")
        y = self.node(f"{name}/Relu", "Relu", y, T=FLOAT)
        return self.node(f"{name}/MaxPool", "MaxPool", y, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], **image)

    def dense(self, name: str, x: str, weight: Array, bias: Array) -> str:
        """A fully connected layer; weight is out x in."""
        kernel = self.constant(f"{name}/weights", np.ascontiguousarray(weight.T))
        y = self.node(f"{name}/MatMul", "MatMul", x, kernel, T=FLOAT)
        return self.node(f"{name}/BiasAdd", "BiasAdd", y, self.constant(f"{name}/biases", bias), T=FLOAT)


def frozen_graph(weights: Mapping[str, Array]) -> bytes:
    """A frozen graph in TensorFlow's own layout, NHWC: input "data" f32[1,28,28,1], output "prob"."""
    g = FrozenGraph()
    x = g.node("data", "Placeholder", dtype=FLOAT)
    for size in (1, 28, 28, 1):
        g.graph.node[-1].attr["shape"].shape.dim.add(size=size)
    for name in ("conv1", "conv2"):
        x = g.convolution(name, x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    x = g.node(
        "flatten", "Reshape", x, g.constant("flatten/shape", np.array([-1, 800], np.int32)), T=FLOAT, Tshape=INT32
    )
    # The flat image is height x width x channels here, so the columns of the first dense layer stand in that order.
    fc1 = weights["fc1.weight"].reshape(500, 50, 4, 4).transpose(0, 2, 3, 1).reshape(500, 800)
    x = g.node("relu", "Relu", g.dense("ip1", x, fc1, weights["fc1.bias"]), T=FLOAT)
    g.node("prob", "Softmax", g.dense("ip2", x, weights["fc2.weight"], weights["fc2.bias"]), T=FLOAT)
    data: bytes = g.graph.SerializeToString()
    return data


# -- layer by layer ---------------------------------------------------------------------------------
def network(weights: Mapping[str, Array]) -> tw.Network:
    """The same network written with the definition API: input "data" f32[1,1,28,28], output "prob"."""
    n = tw.Network("lenet")
    x = n.add_input("data", tw.DType.f32, (1, 1, 28, 28))
    for name, maps in (("conv1", 20), ("conv2", 50)):
        conv = n.add_convolution_nd(x, maps, 5, weights[f"{name}.weight"], weights[f"{name}.bias"])
        conv.name = name
        relu = n.add_activation(conv.get_output(0), ActivationType.RELU)
        pool = n.add_pooling_nd(relu.get_output(0), PoolingType.MAX, 2)
        pool.stride_nd = 2
        x = pool.get_output(0)
    flat = n.add_shuffle(x)
    flat.reshape_dims = (1, 800)
    ip1 = n.add_fully_connected(flat.get_output(0), 500, weights["fc1.weight"], weights["fc1.bias"])
    relu = n.add_activation(ip1.get_output(0), ActivationType.RELU)
    ip2 = n.add_fully_connected(relu.get_output(0), 10, weights["fc2.weight"], weights["fc2.bias"])
    prob = n.add_softmax(ip2.get_output(0))
    prob.axes, prob.name = 1 << 1, "prob"
    n.mark_output(prob.get_output(0))
    return n


if __name__ == "__main__":
    CAFFEMODEL.write_bytes(caffemodel(trained()))
