# SPDX-License-Identifier: Apache-2.0
"""Writes what kernels do not take in terms of what they take."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Reshape
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.fold_batch_norm import batch_norm_into_arithmetic, batch_norm_into_mul_add
from tensorwright.passes.match import operands, per_channel


@rule(on=(Convolution, Deconvolution), name="bias_into_add")
def bias_into_add(graph: Graph, node: Node) -> Edit | None:
    """The bias of a convolution becomes an addition, which the epilogue of any kernel can compute."""
    x, weights, bias = (*node.inputs, None)[:3]
    if len(node.inputs) == 2:
        return None
    new = Rewrite(graph, node)
    if bias is None:
        new.finish(node.op, x, weights)
        return new.edit(node, because="its bias is absent")
    rank, array = node.output.type.rank, graph.constant(bias)
    shape = (*bias.type.shape, *(1,) * (rank - 2))
    column = new.add(Reshape(shape), bias) if array is None else new.constant(per_channel(array, rank), bias.name)
    conv = new.add(node.op, x, weights, heir_of=node)
    new.finish(Add(), conv, column, name=graph.fresh_name(f"{node.name}/bias"))
    return new.edit(node, because="the bias is an addition that an epilogue computes")


@rule(on=Reduce, name="empty_reduce_into_constant")
def empty_reduce_into_constant(graph: Graph, node: Node) -> Edit | None:
    """A reduction over an axis without elements does not depend on its input."""
    (x,) = operands(node)
    if not isinstance(node.op, Reduce) or not x.type.is_static or 0 not in x.type.shape or 0 in node.output.type.shape:
        return None
    new = Rewrite(graph, node)
    (result,) = node.op.reference(np.empty(x.type.static_shape, x.type.dtype.numpy))
    new.finish(Reshape(node.output.type.shape), new.constant(result, f"{node.name}/of_nothing"))
    return new.edit(node, because=f"{x.type} has no elements: the {node.op.how} of nothing is a constant")


RULES = (empty_reduce_into_constant, batch_norm_into_mul_add, batch_norm_into_arithmetic, bias_into_add)
