# SPDX-License-Identifier: Apache-2.0
"""The builder for graphs that come from somewhere: a model file, or the layers of `tw.Network`.

It keeps for every node which source node it came from, lets values carry the source's own tensor names, and
computes small constant expressions at once, so that shape arithmetic is known where a shape is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Node, Value, symbols_of
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType

FOLD_LIMIT_ELEMS = 4096
"""Constant expressions whose operands and results all have at most so many elements are computed at import."""


LARGEST_VALUE = 1 << 37
"""Bytes of a value that a model may have: larger ones are mistakes, or meant to do harm."""


_NEVER_FOLDED = (
    *("convolution", "deconvolution", "max_pool", "max_pool_indices", "average_pool", "lrn", "onnx_host"),
    *("if", "loop", "scan"),
)
"""Kinds whose `reference` may need far more memory or time than its operands: no part of any shape computation."""


def _symbols(dims: Sequence[Dim]) -> set[str]:
    return {s for dim in dims if isinstance(dim, SymDim) for s in dim.symbols}


class SourceBuilder:
    """Writes one graph, source node by source node.

    Set `source` to the name of the source node before adding what it becomes; `bind` gives a result the name that
    the source has for it. `finish` keeps only what the outputs need.
    """

    def __init__(self, name: str = "network") -> None:
        self.name = name
        self.source = ""
        self._inputs: list[Value] = []
        self._nodes: list[Node] = []
        self._constants: dict[Value, Array] = {}
        self._bound: dict[Value, str] = {}

    def input(self, name: str, type: TensorType) -> Value:
        """A new graph input."""
        value = Value(name, type)
        self._inputs.append(value)
        self._bound[value] = name
        return value

    def constant(self, array: Array, name: str = "") -> Value:
        """A constant value, by default called after the source node. Raises KeyError for a dtype the IR lacks."""
        array = np.asarray(array)
        value = Value(name or f"{self.source}/const", TensorType(DType.of(array.dtype), tuple(array.shape)))
        self._constants[value] = array
        if name:
            self._bound[value] = name
        return value

    def scalar(self, number: float | bool, dtype: DType) -> Value:
        """A constant of rank 0."""
        return self.constant(np.asarray(number, dtype.numpy))

    def known(self, value: Value | None) -> Array | None:
        """The array of a constant value, else None."""
        return self._constants.get(value) if value is not None else None

    def add(self, op: Op, *inputs: Value | None) -> Value:
        """Apply an op with one result. Raises ValueError (from `op.infer`) when the inputs do not fit the op."""
        (value,) = self.add_all(op, *inputs)
        return value

    def add_all(self, op: Op, *inputs: Value | None) -> tuple[Value, ...]:
        """Apply an op; all its results. Raises ValueError as `add` does, and for results larger than LARGEST_VALUE."""
        types = op.infer(*(v.type if v is not None else None for v in inputs))
        for t in types:
            if t.is_bounded and t.size_bytes > LARGEST_VALUE:
                raise ValueError(f"{op.kind} gives {t}: {t.size_bytes} bytes")
        folded = self._fold(op, inputs, types)
        if folded is not None:
            return folded
        values = tuple(Value(f"{self.source}/{op.kind}", t) for t in types)
        self._nodes.append(Node(op.kind, op, inputs, values, (self.source,)))
        return values

    def bind(self, value: Value, name: str) -> None:
        """Let the value carry the source's name for it; the first name given stays."""
        self._bound.setdefault(value, name)

    def finish(self, outputs: Sequence[tuple[str, Value]], inputs: Sequence[Value] | None = None) -> Graph:
        """The graph of all inputs (`inputs` may give them another order) and of the nodes and constants that `outputs`
        (names and values) depend on."""
        given = self._inputs if inputs is None else inputs
        return _Naming(self.name, given, self._live(outputs), self._constants, self._bound).graph(outputs)

    def _fold(self, op: Op, inputs: Sequence[Value | None], types: Sequence[TensorType]) -> tuple[Value, ...] | None:
        arrays = [self.known(v) for v in inputs]
        if (
            not inputs
            or op.kind in _NEVER_FOLDED
            or any(a is None and v is not None for a, v in zip(arrays, inputs, strict=True))
        ):
            return None
        if not all(t.is_static and t.elems <= FOLD_LIMIT_ELEMS for t in types):
            return None
        if any(a is not None and a.size > FOLD_LIMIT_ELEMS for a in arrays):
            return None
        with np.errstate(all="ignore"):
            return tuple(self.constant(np.asarray(result)) for result in op.reference(*arrays))

    def _live(self, outputs: Sequence[tuple[str, Value]]) -> list[Node]:
        needed = {value for _, value in outputs}
        sizes = {s for v in needed for s in _symbols(v.type.shape)}
        live: list[Node] = []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs) or not sizes.isdisjoint(_symbols(node.op.decides)):
                needed.update(v for v in node.inputs if v is not None)
                sizes |= symbols_of(node)
                live.append(node)
        return live[::-1]


class _Naming:
    """Writes the final graph: a source's last node gets its name, bound values theirs, others `<source>/<kind>`."""

    def __init__(
        self,
        name: str,
        inputs: Sequence[Value],
        nodes: Sequence[Node],
        constants: dict[Value, Array],
        bound: dict[Value, str],
    ) -> None:
        self.builder = GraphBuilder(name)
        self.nodes, self.constants, self.bound = nodes, constants, bound
        self.final = {value: self.builder.input(value.name, value.type) for value in inputs}
        read = {value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
        self.reserved = {bound[v] for v in read if v in bound}

    def graph(self, outputs: Sequence[tuple[str, Value]]) -> Graph:
        for node in self.nodes:
            self._add(node)
        for name, value in outputs:
            self.builder.output(self._value(value), name)
        return self.builder.finish()

    def _add(self, node: Node) -> None:
        (source,) = node.origin
        own = [self.bound.get(v, "") for v in node.outputs]
        name = (
            source if any(own) and source else self._helper_name(f"{source}/{node.op.kind}" if source else node.op.kind)
        )
        if name in self.reserved and name not in own:
            name = self._helper_name(f"{name}/{node.op.kind}")
        wishes = [wish or (name if len(own) == 1 else f"{name}_{i}") for i, wish in enumerate(own)]
        inputs = [self._value(v) if v is not None else None for v in node.inputs]
        values = self.builder.add(node.op, *inputs, name=name, outputs=wishes, origin=node.origin)
        self.final.update(zip(node.outputs, values, strict=True))

    def _helper_name(self, name: str) -> str:
        while name in self.reserved:
            name += "_"
        return name

    def _value(self, value: Value) -> Value:
        if value not in self.final:
            name = self.bound.get(value) or self._helper_name(value.name)
            self.final[value] = self.builder.constant(self.constants[value], name)
        return self.final[value]
