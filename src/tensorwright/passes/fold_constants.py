# SPDX-License-Identifier: Apache-2.0
"""Computes at build what does not depend on the inputs."""

from __future__ import annotations

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.ir.graph import Edit, Graph, Node
from tensorwright.ir.op import Op
from tensorwright.memory import release
from tensorwright.ops.control_flow import ControlFlow
from tensorwright.ops.host import OnnxHost
from tensorwright.ops.shape import ShapeOf
from tensorwright.passes.base import Rewrite, rule
from tensorwright.passes.match import operands

GROWTH, SMALL_BYTES = 4, 1 << 20
"""A result may be `GROWTH` times as large as its operands, or `SMALL_BYTES`: folding must not blow a plan up."""


@rule(on=Op, name="constants_into_constant")
def constants_into_constant(graph: Graph, node: Node) -> Edit | None:
    """A node that reads only constants is computed with the op's reference."""
    read = [v for v in node.inputs if v is not None]
    if not read or any(v not in graph.constants for v in read) or isinstance(node.op, (OnnxHost, ControlFlow)):
        return None  # what a host op could be folded to was folded at import; a loop may run long
    if not all(v.type.is_static for v in node.outputs):
        return None
    limit = max(GROWTH * sum(v.type.size_bytes for v in read), SMALL_BYTES)
    if sum(v.type.size_bytes for v in node.outputs) > limit:
        return None
    try:
        with np.errstate(all="ignore"):
            arrays = node.op.reference(*(graph.constant(v) for v in node.inputs))
    except (IndexError, ValueError) as error:
        raise ModelError(
            "a constant expression cannot be computed",
            where=f"node {node.name} ({node.op.kind})",
            why=str(error),
            do="correct the constant in the model",
            code="M110",
        ) from error
    new = Rewrite(graph, node)
    replace = {old: new.constant(np.asarray(array), old.name) for old, array in zip(node.outputs, arrays, strict=True)}
    for value in read:
        release(graph.constants[value])
    return new.edit(node, because="all its inputs are constant", replace=replace)


@rule(on=ShapeOf, name="shape_into_constant")
def shape_into_constant(graph: Graph, node: Node) -> Edit | None:
    """Known dims of a value are a constant."""
    (x,) = operands(node)
    if not isinstance(node.op, ShapeOf) or not x.type.with_shape(x.type.shape[node.op.start : node.op.end]).is_static:
        return None
    shape = np.asarray(x.type.shape[node.op.start : node.op.end], np.int64)
    new = Rewrite(graph, node)
    return new.edit(
        node,
        because=f"the dims are known: {shape.tolist()}",
        replace={node.output: new.constant(shape, node.output.name)},
    )


RULES = (shape_into_constant, constants_into_constant)
