# SPDX-License-Identifier: Apache-2.0
"""Lets a flattened image enter a matrix product in the order in which it lies in memory."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node
from tensorwright.ops.linear import MatMul
from tensorwright.ops.shape import Reshape, Transpose
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import is_image, made_by, operands


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
    if c * h * w != array.shape[0] or not is_image(graph, x):
        return None
    new = Rewrite(graph, node)
    rows = array.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(array.shape)
    last = new.add(Transpose((0, 2, 3, 1)), x, name=f"{reshape.name}/channels_last", origin=reshape.origin)
    flattened = new.add(Reshape(flat.type.shape), last, heir_of=reshape, origin=reshape.origin)
    new.finish(MatMul(), flattened, new.constant(np.ascontiguousarray(rows), weights.name), origin=node.origin)
    because = "the image lies channels-last in memory: with permuted weight rows, flattening it is free"
    return new.edit(reshape, node, because=because)


RULES = (flatten_order_into_weights,)
