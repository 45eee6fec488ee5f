# SPDX-License-Identifier: Apache-2.0
"""Lets a flattened image enter a matrix product in the order in which it lies in memory."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Pointwise
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import BatchNorm, Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.shape import Concat, Reshape, Transpose
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import made_by, operands

_CHANNELS_LAST = (Convolution, Deconvolution, MaxPool, AveragePool)
_KEEPS_LAYOUT = (Pointwise, BatchNorm, Lrn, Concat)
_FARTHEST = 64  # values looked at on the way back


@rule(on=MatMul, name="flatten_order_into_weights")
def flatten_order_into_weights(graph: Graph, node: Node) -> Edit | None:
    """[n,c,h,w] flattened to [n, c*h*w] before constant weights: flatten [n,h,w,c] and permute the weights' rows.

    Activations around convolutions are stored channels-last, so the new flatten moves nothing.
    """
    flat, weights = operands(node)
    reshape, array = made_by(graph, flat, Reshape), graph.constant(weights)
    if reshape is None or array is None or array.ndim != 2 or graph.only_user(flat) is None:
        return None
    x = operands(reshape)[0]
    shape = x.type.shape
    if len(shape) != 4 or flat.type.rank != 2 or flat.type.shape[0] != shape[0]:
        return None
    c, h, w = shape[1:]
    if not isinstance(c, int) or not isinstance(h, int) or not isinstance(w, int) or c == 1 or h * w <= 1:
        return None
    if c * h * w != array.shape[0] or not _is_channels_last(graph, x):
        return None
    new = Rewrite(graph, node)
    rows = array.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(array.shape)
    last = new.add(Transpose((0, 2, 3, 1)), x, name=f"{reshape.name}/channels_last", origin=reshape.origin)
    flattened = new.add(Reshape(flat.type.shape), last, heir_of=reshape, origin=reshape.origin)
    new.finish(MatMul(), flattened, new.constant(np.ascontiguousarray(rows), weights.name), origin=node.origin)
    because = "the image lies channels-last in memory: with permuted weight rows, flattening it is free"
    return new.edit(reshape, node, because=because)


def _is_channels_last(graph: Graph, value: Value) -> bool:
    """Whether `value` comes from a convolution or pool through nothing but layout-keeping ops on its way."""
    work, seen = [value], {value}
    while work and len(seen) < _FARTHEST:
        node = graph.producer(work.pop())
        if node is None or not isinstance(node.op, (*_CHANNELS_LAST, *_KEEPS_LAYOUT)):
            continue
        if isinstance(node.op, _CHANNELS_LAST):
            return True
        before = [v for v in operands(node) if v.type.rank == value.type.rank and v not in seen]
        seen.update(before)
        work += before
    return False


RULES = (flatten_order_into_weights,)
