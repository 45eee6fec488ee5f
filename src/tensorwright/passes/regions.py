# SPDX-License-Identifier: Apache-2.0
"""Building `Fused` nodes: which pointwise nodes can go into a region, and writing the region's body."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, Node, Value, union_origins
from tensorwright.ops.elementwise import Pointwise
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.passes.base import Rewrite

MOST_INSTRS = 24
MOST_OPERANDS = 8
_KERNEL_DTYPES = frozenset(
    {
        *(DType.f64, DType.f32, DType.f16, DType.bf16, DType.bool),
        *(DType.i64, DType.i32, DType.i16, DType.i8, DType.u64, DType.u32, DType.u16, DType.u8),
    }
)


def is_pointwise(node: Node) -> bool:
    """Whether a region may compute the node: a pointwise op on types that kernels have."""
    if not isinstance(node.op, Pointwise):
        return False
    return all(v is not None and v.type.dtype in _KERNEL_DTYPES for v in (*node.inputs, *node.outputs))


def literal(graph: Graph, value: Value) -> Literal | None:
    """The instruction for a scalar f32 constant.

    None for NaN and -0.0, which do not equal themselves or equal 0.0 as attributes: those stay operands.
    """
    array = graph.constant(value)
    if array is None or array.size != 1 or value.type.dtype is not DType.f32:
        return None
    number = float(array.reshape(-1)[0])
    return None if math.isnan(number) or (number == 0 and math.copysign(1, number) < 0) else Literal(number)


def region_operands(graph: Graph, nodes: Sequence[Node], made: Value | None = None) -> list[Value]:
    """What the pointwise `nodes` read, each once, but for their own results, the anchor's (`made`) and literals."""
    inside = {v for node in nodes for v in node.outputs}
    read = dict.fromkeys(v for node in nodes for v in node.inputs if v is not None)
    return [v for v in read if v not in inside and v is not made and literal(graph, v) is None]


def fits(graph: Graph, nodes: Sequence[Node], made: Value | None = None) -> bool:
    """Whether the nodes stay within the largest body and operand count of a region."""
    inside = {v for node in nodes for v in node.outputs}
    read = {v for node in nodes for v in node.inputs if v is not None}
    literals = sum(1 for v in read if v not in inside and literal(graph, v) is not None)
    return len(nodes) + literals <= MOST_INSTRS and len(region_operands(graph, nodes, made)) <= MOST_OPERANDS


def fuse(graph: Graph, anchor: Node | None, nodes: Sequence[Node], because: str) -> Edit:
    """The edit that computes `anchor` and the pointwise `nodes` (in topological order) as one `Fused` node.

    It takes the name of the anchor (else of the last node) and the value of the last node.
    """
    made = anchor.output if anchor is not None else None
    extras = region_operands(graph, nodes, made)
    inputs: list[Value | None] = [*(anchor.inputs if anchor is not None else ()), *extras]
    first = len(inputs) - len(extras)
    number: dict[Value, int] = {value: first + i for i, value in enumerate(extras)}
    count = len(inputs)
    if made is not None:
        number[made] = count
        count += 1
    body: list[Instr] = []

    def index(value: Value) -> int:
        nonlocal count
        if value not in number:
            constant = literal(graph, value)
            if constant is None:
                raise KeyError(f"{value} is not known inside its region")
            body.append(Instr(constant, ()))
            number[value] = count
            count += 1
        return number[value]

    for node in nodes:
        args = tuple(index(v) for v in node.inputs if v is not None)
        body.append(Instr(node.op, args))
        number[node.output] = count
        count += 1
    like = anchor if anchor is not None else nodes[-1]
    new = Rewrite(graph, like)
    parts = ([anchor] if anchor is not None else []) + list(nodes)
    new.finish(
        Fused(anchor.op if anchor is not None else None, first, tuple(body)),
        *inputs,
        result=nodes[-1].output,
        origin=union_origins(parts),
    )
    return new.edit(*parts, because=because)
