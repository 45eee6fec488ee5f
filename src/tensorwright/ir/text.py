# SPDX-License-Identifier: Apache-2.0
"""The text form of ops and graphs: readable, deterministic, exact, and read back without evaluating anything.

    graph lenet
    symbol batch = 0 in 1..32 opt 8
    input %image: f32[batch,1,28,28]
    const %scale: f32[] = (0.5)
    const %weights: f32[8,1,5,5]
    %conv: f32[batch,8,24,24] = convolution[strides=(1,1) pads=(0,0,0,0) dilations=(1,1) groups=1](%image, %weights)
    %relu: f32[batch,8,24,24] = relu(%conv) @relu_node from Relu_3, Mul_4
    output probabilities = %relu

A symbol with bounds has a line with its slot (its number in the engine's table of sizes), bounds and opt value.
An op with bodies names them, and their text follows, indented:

    %y: f32[3] = loop[body=l/body carried=1 length=4 conditional=false](%trips, _, %x) @l
      graph l/body
      input %l/body/i: i64[]
      input %l/body/v: f32[3]
      %l/body/w: f32[3] = exp(%l/body/v)
      output w = %l/body/w

A node is called as its first output unless `@` says otherwise, and came from a source node of its own name unless
`from` lists others. An absent optional input is `_`. Names that are not plain are JSON strings. Constants of more
than eight elements are stored beside the text, under their value's name, which no other body has. `#` begins a
comment line.
"""

from __future__ import annotations

import enum
import json
import re
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.attributes import hints_of, item_of, optional_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Graph, Node, Value, bodies_of
from tensorwright.ir.op import Array, Instr, Op
from tensorwright.ir.types import TensorType

INLINE_ELEMS = 8
"""Constants of at most so many elements are part of the text."""

INDENT = "  "  # of bodies
PLAIN = re.compile(r"[A-Za-z0-9_./\-]+(?::+[A-Za-z0-9_./\-]+)*")


# -- writing ------------------------------------------------------------------------------------
def op_text(op: Op) -> str:
    """The op with all its attributes: `softmax[axis=1]`, `relu`. Equal ops have equal text. Bodies are only named."""
    hints = hints_of(op.kind)
    fields = " ".join(f"{name}={_value_text(getattr(op, name), hint)}" for name, hint in hints.items())
    return f"{op.kind}[{fields}]" if fields else op.kind


def graph_text(graph: Graph) -> str:
    """The whole graph, nodes in topological order. `stored_constants` are the arrays that it refers to."""
    lines = [f"graph {_name_text(graph.name)}"]
    lines += [f"symbol {_name_text(s)} = {s.slot} in {s.low}..{s.high} opt {s.opt}" for s in graph.symbols]
    lines += [f"input {_typed(value)}" for value in graph.inputs]
    lines += [f"const {_typed(value)}{_array_text(array)}" for value, array in graph.constants.items()]
    lines += [_node_text(node) for node in graph.nodes]
    outputs = zip(graph.output_names, graph.outputs, strict=True)
    lines += [f"output {_name_text(name)} = %{_name_text(value.name)}" for name, value in outputs]
    return "\n".join(lines) + "\n"


def stored_constants(graph: Graph) -> dict[str, Array]:
    """The constants that `graph_text` leaves out, by value name, those of bodies as well."""
    found = {value.name: array for value, array in graph.constants.items() if array.size > INLINE_ELEMS}
    for node in graph.nodes:
        for body in bodies_of(node.op).values():
            found |= stored_constants(body)
    return found


def _node_text(node: Node) -> str:
    outputs = ", ".join(map(_typed, node.outputs))
    inputs = ", ".join("_" if v is None else f"%{_name_text(v.name)}" for v in node.inputs)
    text = f"{outputs} = {op_text(node.op)}({inputs})"
    if not node.outputs or node.name != node.outputs[0].name:
        text += f" @{_name_text(node.name)}"
    if node.origin != (node.name,):
        text += f" from {', '.join(map(_name_text, node.origin))}".rstrip()
    bodies = "".join(graph_text(body) for body in bodies_of(node.op).values())
    return "\n".join((text, *(INDENT + line for line in bodies.splitlines())))


def _typed(value: Value) -> str:
    return f"%{_name_text(value.name)}: {value.type}"


def _name_text(name: str) -> str:
    return name if PLAIN.fullmatch(name) else json.dumps(name)


def _array_text(array: Array) -> str:
    """` = (values)`, or the bytes in hex where values would not be exact (NaN payloads), or nothing when stored."""
    if array.size > INLINE_ELEMS:
        return ""
    flat = np.ascontiguousarray(array).reshape(-1)
    words = [str(x).lower() if array.dtype == np.bool_ else str(x) for x in flat]
    if array_of(words, flat.dtype).tobytes() == flat.tobytes():
        return f" = ({', '.join(words)})"
    return f" = 0x{flat.tobytes().hex()}"


def array_of(words: Sequence[str], dtype: np.dtype[Any]) -> Array:
    """The elements that these words stand for."""
    if dtype == np.bool_:
        return np.array([word == "true" for word in words], dtype)
    if dtype.kind in "iu":
        return np.array([int(word) for word in words], dtype)
    return np.array([float(word) for word in words], np.float64).astype(dtype)


def _value_text(value: Any, hint: Any) -> str:
    """An attribute of the declared type `hint`."""
    inner = optional_of(hint)
    if inner is not None:
        return "none" if value is None else _value_text(value, inner)
    if hint == Dim:
        return str(value)
    item = item_of(hint)
    if item is not None:
        return f"({','.join(_value_text(v, item) for v in value)})"
    if typing.get_origin(hint) is typing.Literal or hint is str:
        return _name_text(value)
    if hint is bool:
        return "true" if value else "false"
    if hint in (int, float):
        return repr(hint(value))
    if hint is Instr:
        return f"{op_text(value.op)}({','.join(map(str, value.args))})"
    if hint is TensorType:
        return str(value)
    if hint is Graph:
        return _name_text(value.name)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _name_text(value.value)
    if isinstance(hint, type) and issubclass(hint, Op):
        return op_text(value)
    raise TypeError(f"the text form has no notation for attributes of type {hint}")
