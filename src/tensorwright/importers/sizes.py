# SPDX-License-Identifier: Apache-2.0
"""What `shapes=` says of the symbolic dims of a model's inputs, whatever the model's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorwright.errors import ModelError
from tensorwright.ir.dims import Dim, Symbol, SymDim, substitute
from tensorwright.ir.graph import Graph, Node, Value
from tensorwright.ir.op import with_dims
from tensorwright.ir.types import TensorType
from tensorwright.shapes import Range


def sized(graph: Graph, shapes: Mapping[str, Sequence[int] | Range]) -> Graph:
    """The graph with the symbolic dims of its inputs fixed or bounded. Raises ModelError M106 as `symbol_bindings`."""
    bindings = symbol_bindings(graph.name, {v.name: v.type for v in graph.inputs}, shapes)
    values: dict[Value, Value] = {}

    def bound(value: Value) -> Value:
        if value not in values:
            shape = (substitute(d, bindings) for d in value.type.shape)
            values[value] = Value(value.name, value.type.with_shape(shape))
        return values[value]

    nodes = [
        Node(
            node.name,
            with_dims(node.op, bindings),
            tuple(None if v is None else bound(v) for v in node.inputs),
            tuple(bound(v) for v in node.outputs),
            node.origin,
        )
        for node in graph.nodes
    ]
    outputs = [(name, bound(v)) for name, v in zip(graph.output_names, graph.outputs, strict=True)]
    constants = {bound(v): array for v, array in graph.constants.items()}
    return Graph(graph.name, [bound(v) for v in graph.inputs], outputs, nodes, constants)


def symbol_bindings(
    where: str, declared: Mapping[str, TensorType | None], shapes: Mapping[str, Sequence[int] | Range]
) -> dict[str, Dim]:
    """What each symbol of the declared inputs stands for, as `shapes` says: its value, or the symbol with its bounds.

    Raises ModelError M106 when `shapes` names unknown inputs, contradicts a declaration or itself.
    """
    sizes: dict[str, tuple[int, int, int]] = {}
    why: list[str] = []
    for name, given in shapes.items():
        if name not in declared:
            why.append(f"there is no input {name!r}; the inputs are {', '.join(declared)}")
            continue
        input_type, shape = declared[name], Range.of(given)
        if input_type is None:
            continue
        if len(shape.opt) != input_type.rank or any(d < 0 for d in shape.min):
            why.append(f"input {name!r} is declared as {input_type}, given is {shape}")
            continue
        for dim, size in zip(input_type.shape, zip(shape.min, shape.opt, shape.max, strict=True), strict=True):
            wanted = sizes.setdefault(next(iter(dim.symbols)), size) if isinstance(dim, SymDim) else (dim, dim, dim)
            if wanted != size:
                numbers = " .. ".join(map(str, dict.fromkeys(wanted)))
                why.append(
                    f"input {name!r} is declared as {input_type}, given is {shape}"
                    + (f", but {dim} is {numbers} elsewhere" if isinstance(dim, SymDim) else "")
                )
                break
    if why:
        raise ModelError(
            "shapes= does not fit the model",
            where=where,
            why=why,
            code="M106",
            do="give shapes that the declarations allow",
        )
    bindings: dict[str, Dim] = {}
    for name, (low, opt, high) in sizes.items():
        slot = sum(isinstance(dim, SymDim) for dim in bindings.values())
        bindings[name] = low if low == high else SymDim.symbol(Symbol(name, low, opt, high, slot))
    return bindings
