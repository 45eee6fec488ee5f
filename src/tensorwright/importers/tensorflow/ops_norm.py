# SPDX-License-Identifier: Apache-2.0
"""TensorFlow normalisations, softmax and losses."""

from __future__ import annotations

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.windows import as_given, image
from tensorwright.ir.dims import product
from tensorwright.ops.elementwise import Add, Div, Mul, Sqrt, Sub
from tensorwright.ops.norm import BatchNorm, Lrn
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Reshape, Transpose


@tf_op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def fused_batch_norm(b: Builder, n: OpNode) -> Result:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, with given statistics or those of the batch."""
    x, scale, offset = image(b, n, n.input(0)), n.input(1), n.input(2)
    epsilon = n.real("epsilon", 1e-4)
    if not n.flag("is_training", True):
        y = b.add(BatchNorm(epsilon), x, scale, offset, n.input(3), n.input(4))
        return [as_given(b, n, y), n.input(3), n.input(4)]
    axes = (0, *range(2, x.type.rank))
    mean = b.add(Reduce("mean", axes), x)
    centred = b.add(Sub(), x, mean)
    variance = b.add(Reduce("mean", axes), b.add(Mul(), centred, centred))
    spread = b.add(Sqrt(), b.add(Add(), variance, b.scalar(epsilon, x.type.dtype)))
    shape = (scale.type.shape[0], *[1] * (x.type.rank - 2))
    scaled = b.add(Mul(), b.add(Div(), centred, spread), b.add(Reshape(shape), scale))
    y = b.add(Add(), scaled, b.add(Reshape(shape), offset))
    flat_mean, flat_variance = (b.add(Reshape(scale.type.shape), v) for v in (mean, variance))
    count = product([d for i, d in enumerate(x.type.shape) if i != 1])
    if not isinstance(count, int):
        return [as_given(b, n, y), flat_mean]
    unbiased = b.scalar(count / max(count - 1, 1), x.type.dtype)  # the variance that it gives is Bessel's
    return [as_given(b, n, y), flat_mean, b.add(Mul(), flat_variance, unbiased)]


@tf_op("BatchNormWithGlobalNormalization")
def old_batch_norm(b: Builder, n: OpNode) -> Result:
    """The op of TensorFlow before 0.12, over the last dim."""
    x, mean, variance, beta, gamma = (n.input(i) for i in range(5))
    channels, rank = x.type.shape[-1], x.type.rank
    if not isinstance(channels, int):
        n.refuse(f"it normalises channels of the open size {channels}")
    scale = gamma if n.flag("scale_after_normalization", True) else b.constant(np.ones(channels, x.type.dtype.numpy))
    first = b.add(Transpose((0, rank - 1, *range(1, rank - 1))), x)
    y = b.add(BatchNorm(n.real("variance_epsilon", 1e-3)), first, scale, beta, mean, variance)
    return b.add(Transpose((0, *range(2, rank), 1)), y)


@tf_op("LRN")
def lrn(b: Builder, n: OpNode) -> Result:
    """x / (bias + alpha * sum of squares)^beta over 2 * depth_radius + 1 channels, the last dim."""
    x = n.input()
    if x.type.rank != 4:
        raise ValueError(f"it normalises images of rank 4, not {x.type}")
    size = 2 * n.integer("depth_radius", 5) + 1
    op = Lrn(size, n.real("alpha", 1.0) * size, n.real("beta", 0.5), n.real("bias", 1.0))
    return b.add(Transpose((0, 2, 3, 1)), b.add(op, b.add(Transpose((0, 3, 1, 2)), x)))


@tf_op("Softmax", "LogSoftmax")
def softmax(b: Builder, n: OpNode) -> Result:
    """Over the last dim."""
    x = n.input()
    if not x.type.rank:
        raise ValueError("it works along a dim, but the input has none")
    return b.add((Softmax if n.op == "Softmax" else LogSoftmax)(x.type.rank - 1), x)


@tf_op("L2Loss")
def l2_loss(b: Builder, n: OpNode) -> Result:
    """Half of the sum of squares."""
    x = n.input()
    total = b.add(Reduce("sum", tuple(range(x.type.rank)), False), b.add(Mul(), x, x))
    return b.add(Mul(), total, b.scalar(0.5, x.type.dtype))


OPS: list[TfOp] = [*fused_batch_norm, *old_batch_norm, *lrn, *softmax, *l2_loss]
