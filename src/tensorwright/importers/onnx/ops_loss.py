# SPDX-License-Identifier: Apache-2.0
"""ONNX loss functions."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.graph import Value
from tensorwright.ops.elementwise import Div, Equal, Mul, Neg, Where
from tensorwright.ops.index import Gather
from tensorwright.ops.reduce import LogSoftmax, Reduce
from tensorwright.ops.select import GatherElements
from tensorwright.ops.shape import Expand, Reshape


@onnx_op("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(b: Builder, n: OnnxNode) -> Result:
    """The negative log-probability of each label's class, weighted and reduced."""
    return _loss(b, n, n.input(0))


@onnx_op("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(b: Builder, n: OnnxNode) -> Result:
    """The same of scores, whose log-probabilities are the second output."""
    logs = b.add(LogSoftmax(1), n.input(0))
    return [_loss(b, n, logs), logs]


def _loss(b: Builder, n: OnnxNode, logs: Value) -> Value:
    """logs[N, C, ...] and labels[N, ...]; labels equal to `ignore_index` count nothing, whatever class they name."""
    labels, weights, reduction = n.input(1), n.optional(2), n.attr("reduction", str, "mean")
    dtype, shape = logs.type.dtype, labels.type.shape
    if reduction not in ("none", "sum", "mean") or logs.type.rank < 2 or labels.type.rank != logs.type.rank - 1:
        raise ValueError(f"a loss of {logs.type} for labels {labels.type}, reduced by {reduction!r}, is not defined")
    ignored = None
    if n.has("ignore_index"):
        ignored = b.add(Equal(), labels, b.scalar(n.attr("ignore_index", int), labels.type.dtype))
        labels = b.add(Where(), ignored, b.scalar(0, labels.type.dtype), labels)
    chosen = b.add(GatherElements(1), logs, b.add(Reshape((shape[0], 1, *shape[1:])), labels))
    loss = b.add(Neg(), b.add(Reshape(shape), chosen))
    weight = b.add(Gather(0), weights, labels) if weights is not None else None
    if ignored is not None:
        kept = weight if weight is not None else b.add(Expand(shape), b.scalar(1, dtype))
        weight = b.add(Where(), ignored, b.scalar(0, dtype), kept)
        loss = b.add(Where(), ignored, b.scalar(0, dtype), loss)
    if weight is not None:
        loss = b.add(Mul(), loss, weight)
    if reduction == "none":
        return loss
    axes = tuple(range(len(shape)))
    total = b.add(Reduce("sum", axes, False), loss)
    if reduction == "sum":
        return total
    if weight is None:
        return b.add(Reduce("mean", axes, False), loss)
    return b.add(Div(), total, b.add(Reduce("sum", axes, False), weight))


OPS = [negative_log_likelihood_loss, softmax_cross_entropy_loss]
