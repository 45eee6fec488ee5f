# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's ops with bodies: If and Case here, While in `loops`; and all ops that need the reader itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tensorwright.importers.tensorflow.bodies import (
    Body,
    added,
    applied,
    given_parts,
    inside,
    like,
    part_of,
    refuse_list,
    whole,
)
from tensorwright.importers.tensorflow.graph_def import Part, TfNode
from tensorwright.importers.tensorflow.loops import read_while
from tensorwright.importers.tensorflow.variables import VARIABLE_OPS
from tensorwright.ir.dims import SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import RefusalError
from tensorwright.ops.control_flow import If
from tensorwright.ops.elementwise import Cast, Equal
from tensorwright.ops.shape import Reshape

if TYPE_CHECKING:
    from tensorwright.importers.tensorflow.reader import Anything, GraphReader

Results = Sequence["Anything | None"]
Translate = Callable[["GraphReader", TfNode, Sequence["Anything"]], Results]


def read_if(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Results:
    """If: the branch that a known condition takes, or both as bodies."""
    if not inputs:
        raise ValueError("it has no condition")
    parts = given_parts(node)
    if parts is None:
        parts = [part_of(reader, node, f"{b}_branch", len(inputs) - 1, f"{node.name}/{b}") for b in ("then", "else")]
    condition = refuse_list(inputs[0], "its condition")
    return _chosen(reader, node, [_truth(reader, condition)], parts, inputs[1:])


def read_case(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Results:
    """Case: If for all branches but the last, which also stands for numbers out of range."""
    parts = given_parts(node)
    if parts is None:
        count = len(node.attrs["branches"].list.func) if "branches" in node.attrs else 0
        parts = [part_of(reader, node, "branches", len(inputs) - 1, f"{node.name}/{i}", i) for i in range(count)]
    if not inputs or not parts:
        raise ValueError("it has no branches")
    index = refuse_list(inputs[0], "its branch number")
    b = reader.builder
    flat = b.add(Reshape(()), index)
    conditions = [b.add(Equal(), flat, b.scalar(i, index.type.dtype)) for i in range(len(parts) - 1)]
    return _chosen(reader, node, conditions, parts, inputs[1:])


def _truth(reader: GraphReader, condition: Value) -> Value:
    """One bool: a number holds when it is not 0, an array when it has elements."""
    b, shape = reader.builder, condition.type.shape
    if shape and not all(isinstance(d, int) for d in shape):
        raise RefusalError(f"its condition is {condition.type}, not one bool")
    if shape and condition.type.elems != 1:
        return b.constant(np.asarray(condition.type.elems > 0))
    one = b.add(Reshape(()), condition) if shape else condition
    return one if one.type.dtype is DType.bool else b.add(Cast(DType.bool), one)


def _chosen(
    reader: GraphReader,
    node: TfNode,
    conditions: Sequence[Value],
    parts: Sequence[Part],
    inputs: Sequence[Anything | None],
) -> Results:
    """The results of the first part whose condition holds; the last has none."""
    if len({len(part.results) for part in parts}) > 1:
        raise ValueError(f"its branches give {', '.join(str(len(part.results)) for part in parts)} results")
    if not conditions:
        return applied(reader, parts[0], reader.builder, inputs, reader.problems)
    known = reader.builder.known(conditions[0])
    if known is not None and known.reshape(-1)[0]:
        return applied(reader, parts[0], reader.builder, inputs, reader.problems)
    if known is not None:
        return _chosen(reader, node, conditions[1:], parts[1:], inputs)
    bodies = [Body(reader.builder, f"{node.name}/{which}_body") for which in ("then", "else")]
    given = [[body.take(value) for value in (*conditions[1:], *inputs)] for body in bodies]
    rest = len(conditions) - 1
    found = [applied(reader, parts[0], bodies[0].builder, given[0][rest:], reader.problems)]
    inner = inside(reader, reader.graph.nodes, bodies[1].builder, reader.problems)
    later = [value for value in given[1][:rest] if isinstance(value, Value)]
    bodies[1].builder.source = node.name
    found.append(list(_chosen(inner, node, later, parts[1:], given[1][rest:])))
    results = [whole(values, body.builder) for values, body in zip(found, bodies, strict=True)]
    then, other = results
    if then is None or other is None:
        return [None] * len(parts[0].results)
    pairs = enumerate(zip(then, other, strict=True))
    types = tuple(_joined(node, i, a.type, b.type) for i, (a, b) in pairs)
    op = If(bodies[0].graph([], then), bodies[1].graph([], other), types)
    values = added(reader, op, [conditions[0], *bodies[0].given()])
    return [like(value, model) for value, model in zip(values, found[0], strict=True)]


def _joined(node: TfNode, number: int, one: TensorType, other: TensorType) -> TensorType:
    """The type of a result: a dim in which the branches differ is a symbol."""
    if one.dtype is not other.dtype or one.rank != other.rank:
        raise RefusalError(f"its branches give {one} and {other}", "let both branches give tensors of one rank")
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return one.with_shape(a if a == b else SymDim.symbol(f"{node.name}_{number}_{axis}") for axis, (a, b) in pairs)


def _unstructured(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Results:
    raise RefusalError(
        "it belongs to a loop or condition of TensorFlow 1 that has an unusual form",
        "freeze or save the model with TensorFlow 2, which keeps While and If",
    )


CONTROL_FLOW: Mapping[str, Translate] = {
    "If": read_if,
    "StatelessIf": read_if,
    "Case": read_case,
    "StatelessCase": read_case,
    "While": read_while,
    "StatelessWhile": read_while,
    **dict.fromkeys(("Switch", "RefSwitch", "_SwitchN", "Merge", "RefMerge", "_MergeN"), _unstructured),
    **dict.fromkeys(("Enter", "RefEnter", "Exit", "RefExit", "NextIteration", "RefNextIteration"), _unstructured),
    "LoopCond": _unstructured,
    **VARIABLE_OPS,
}
"""By op: gives its results; None for one whose problem was reported. Raises RefusalError and ValueError."""
