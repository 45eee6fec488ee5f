# SPDX-License-Identifier: Apache-2.0
"""Operators that ONNX had before its first release and that old exporters still write."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.graph import Value
from tensorwright.ops.activation import Softplus
from tensorwright.ops.elementwise import Add, Mul, Tanh


@onnx_op("ImageScaler")
def image_scaler(b: Builder, n: OnnxNode) -> Result:
    """x[N, C, ...] times `scale`, plus a `bias` for each channel."""
    x, scale, bias = n.input(0), n.attr("scale", float, 1.0), n.floats("bias")
    y = _times(b, x, scale)
    if bias is None:
        return y
    if x.type.rank < 2 or (isinstance(x.type.shape[1], int) and x.type.shape[1] != len(bias)):
        raise ValueError(f"{len(bias)} biases do not fit the channels of {x.type}")
    column = np.reshape(bias, (-1, *(1,) * (x.type.rank - 2))).astype(x.type.dtype.numpy)
    return b.add(Add(), y, b.constant(column))


@onnx_op("ParametricSoftplus")
def parametric_softplus(b: Builder, n: OnnxNode) -> Result:
    """alpha * log(1 + exp(beta * x))."""
    x = _times(b, n.input(0), n.attr("beta", float))
    return _times(b, b.add(Softplus(), x), n.attr("alpha", float))


@onnx_op("ScaledTanh")
def scaled_tanh(b: Builder, n: OnnxNode) -> Result:
    """alpha * tanh(beta * x)."""
    x = _times(b, n.input(0), n.attr("beta", float))
    return _times(b, b.add(Tanh(), x), n.attr("alpha", float))


def _times(b: Builder, x: Value, factor: float) -> Value:
    return x if factor == 1 else b.add(Mul(), x, b.scalar(factor, x.type.dtype))


OPS = [image_scaler, parametric_softplus, scaled_tanh]
