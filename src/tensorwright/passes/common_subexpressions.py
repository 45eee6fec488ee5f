# SPDX-License-Identifier: Apache-2.0
"""Computes equal expressions once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator

from tensorwright.ir.graph import Edit, Graph, Value
from tensorwright.passes.base import sweep

_COMPARED_BYTES = 1 << 16  # larger constants are equal only when they are the same value


@sweep(name="equal_nodes_into_one")
def equal_nodes_into_one(graph: Graph) -> Iterator[Edit]:
    """Nodes with the same op on the same inputs (or equal small constants): the later one reads as the first."""
    first: dict[Hashable, tuple[Value, ...]] = {}
    constants: dict[Value, Hashable] = {}

    def identity(value: Value | None) -> Hashable:
        array = graph.constant(value)
        if value is None or array is None or array.nbytes > _COMPARED_BYTES:
            return value
        if value not in constants:
            constants[value] = (value.type, hashlib.sha256(array.tobytes()).digest())
        return constants[value]

    for outputs in [node.outputs for node in graph.nodes]:
        node = graph.producer(outputs[0])
        if node is None or not getattr(node.op, "pure", True):
            continue  # what is drawn at random is drawn for each node
        # repr tells 0.0 from -0.0 among attributes, equality does not
        key = (node.op, repr(node.op), *map(identity, node.inputs))
        kept = first.setdefault(key, outputs)
        if kept is not outputs:
            twin = graph.producer(kept[0])
            because = f"it computes the same as {twin.name if twin else kept[0].name}"
            yield Edit((node,), (), dict(zip(outputs, kept, strict=True)), {}, because)


RULES = (equal_nodes_into_one,)
