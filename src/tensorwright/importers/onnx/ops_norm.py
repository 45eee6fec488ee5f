# SPDX-License-Identifier: Apache-2.0
"""ONNX normalisations."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.network.composed.norm import by_group, by_root_mean_square
from tensorwright.ops.elementwise import Add, Mul, Reciprocal, Sqrt, Sub
from tensorwright.ops.norm import BatchNorm, InstanceNorm, LayerNorm, Lrn
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Expand, Reshape


@onnx_op("BatchNormalization")
def batch_norm(b: Builder, n: OnnxNode) -> Result:
    """With the stored statistics; the parameters take the input's dtype (they may differ since opset 15)."""
    if n.flag("training_mode"):
        n.refuse("it is in training mode", "export the model in evaluation mode")
    if not n.flag("spatial", True):
        n.refuse("it normalises every position by its own statistics (spatial=0)")
    n.ignore("momentum")
    x = n.input(0)
    return b.add(BatchNorm(n.attr("epsilon", float, 1e-5)), x, *(n.input(i) for i in range(1, 5)))


@onnx_op("InstanceNormalization")
def instance_norm(b: Builder, n: OnnxNode) -> Result:
    """Normalisation of each image and channel."""
    return b.add(InstanceNorm(n.attr("epsilon", float, 1e-5)), n.input(0), n.input(1), n.input(2))


@onnx_op("LayerNormalization", since=17)
def layer_norm(b: Builder, n: OnnxNode) -> Result:
    """Normalisation over the axes from `axis` on, and where they are read its mean and 1 / deviation."""
    n.ignore("stash_type")  # the statistics are never computed in less than f32
    x, bias = n.input(0), n.optional(2)
    axis, epsilon = n.axis("axis", -1, x.type.rank), n.attr("epsilon", float, 1e-5)
    y = b.add(LayerNorm(axis, epsilon), x, n.input(1), *(() if bias is None else (bias,)))
    if not n.output_used(1) and not n.output_used(2):
        return y
    axes = tuple(range(axis, x.type.rank))
    mean = b.add(Reduce("mean", axes, True), x)
    centred = b.add(Sub(), x, mean)
    variance = b.add(Reduce("mean", axes, True), b.add(Mul(), centred, centred))
    deviation = b.add(Sqrt(), b.add(Add(), variance, b.scalar(epsilon, x.type.dtype)))
    return y, mean, b.add(Reciprocal(), deviation)


@onnx_op("RMSNormalization", since=23)
def rms_norm(b: Builder, n: OnnxNode) -> Result:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from `axis` on."""
    n.ignore("stash_type")
    x = n.input(0)
    axes = tuple(range(n.axis("axis", -1, x.type.rank), x.type.rank))
    return b.add(Mul(), by_root_mean_square(b, x, axes, n.attr("epsilon", float, 1e-5)), n.input(1))


@onnx_op("GroupNormalization", since=18)
def group_norm_by_group(b: Builder, n: OnnxNode) -> Result:
    """Until opset 20: scale and bias have one element per group."""
    x, groups = n.input(0), n.attr("num_groups", int)
    channels = x.type.shape[1] if x.type.rank > 1 else 0
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise ValueError(f"{x.type} does not have channels in {groups} groups")
    scale, bias = (_per_channel(b, n.input(i), groups, channels) for i in (1, 2))
    return _group_norm(b, n, scale, bias)


def _per_channel(b: Builder, value: Value, groups: int, channels: int) -> Value:
    column = b.add(Reshape((groups, 1)), value)
    return b.add(Reshape((channels,)), b.add(Expand((groups, channels // groups)), column))


@onnx_op("GroupNormalization", since=21)
def group_norm(b: Builder, n: OnnxNode) -> Result:
    """From opset 21 on: scale and bias have one element per channel."""
    n.ignore("stash_type")
    return _group_norm(b, n, n.input(1), n.input(2))


def _group_norm(b: Builder, n: OnnxNode, scale: Value, bias: Value) -> Value:
    """Normalise each group as one channel of an instance norm, then scale and shift the real channels."""
    x = n.input(0)
    y = by_group(b, x, n.attr("num_groups", int), n.attr("epsilon", float, 1e-5))
    column: tuple[Dim, ...] = (x.type.shape[1], *(1,) * (x.type.rank - 2))
    return b.add(Add(), b.add(Mul(), y, b.add(Reshape(column), scale)), b.add(Reshape(column), bias))


@onnx_op("LRN")
def lrn(b: Builder, n: OnnxNode) -> Result:
    """Local response normalisation over channels."""
    op = Lrn(n.attr("size", int), n.attr("alpha", float, 1e-4), n.attr("beta", float, 0.75), n.attr("bias", float, 1.0))
    return b.add(op, n.input(0))


OPS = [batch_norm, instance_norm, layer_norm, rms_norm, group_norm_by_group, group_norm, lrn]
