# SPDX-License-Identifier: Apache-2.0
"""Layout assignment: the order in which each value's axes would best lie in memory.

Image ops want channels-last, matrices row-major, everything else follows its main operand. The result is a
preference: lowering may place a value inside a larger buffer (concat) whose strides differ.
"""

from __future__ import annotations

from tensorwright.backends.base import row_major
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import Op
from tensorwright.lower.views import VIEW_OPS, Strided, channels_last, dense, order_of, view
from tensorwright.ops.attention import Attention
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.fused import Fused
from tensorwright.ops.norm import BatchNorm, InstanceNorm, LayerNorm, Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Concat, Resize

IMAGE_OPS = (Convolution, Deconvolution, MaxPool, AveragePool, Lrn, InstanceNorm, BatchNorm, Resize)
FOLLOWERS = (Softmax, LogSoftmax, LayerNorm, Attention)


def assign_layout(graph: Graph) -> dict[Value, tuple[int, ...]]:
    """Preferred strides (elements, as if each value had a dense buffer of its own) for every value."""
    strides: dict[Value, tuple[int, ...]] = {}
    for value in (*graph.inputs, *graph.constants):
        strides[value] = row_major(value.type.sizes)
    for node in graph.nodes:
        for value in node.outputs:
            strides[value] = _prefer(graph, node, value, strides)
    return strides


def _prefer(graph: Graph, node: Node, value: Value, strides: dict[Value, tuple[int, ...]]) -> tuple[int, ...]:
    shape = value.type.sizes
    op: Op = node.op
    if isinstance(op, VIEW_OPS):
        source = node.inputs[0]
        assert source is not None
        seen = view(op, source.type.sizes, Strided(0, strides[source]), shape)
        return seen.strides if seen is not None and all(s >= 0 for s in seen.strides) else row_major(shape)
    if isinstance(op, Fused) and op.anchor is not None:
        op = op.anchor
    if isinstance(op, IMAGE_OPS):
        return dense(shape, channels_last(len(shape)))
    follow = _leader(graph, node, op, value)
    if follow is None:
        return row_major(shape)
    order = order_of(follow.type.sizes, strides[follow])
    if isinstance(op, Reduce) and not op.keepdims:
        kept = [axis for axis in order if axis not in op.axes]
        rank = {axis: i for i, axis in enumerate(sorted(kept))}
        order = tuple(rank[axis] for axis in kept)
    return dense(shape, order)


def _leader(graph: Graph, node: Node, op: Op, value: Value) -> Value | None:
    """The operand whose order the output follows; None for row-major."""
    shape = value.type.shape
    operands = [v for v in node.inputs if v is not None]
    if isinstance(op, FOLLOWERS) or isinstance(op, Reduce):
        return operands[0]
    computed = [v for v in operands if graph.constant(v) is None]
    if isinstance(op, Concat):
        return computed[0] if computed else None
    if isinstance(op, Fused):
        same = [v for v in computed if v.type.shape == shape]
        made = [v for v in same if graph.producer(v) is not None]
        return next(iter(made or same), None)
    return None
