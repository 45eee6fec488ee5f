# SPDX-License-Identifier: Apache-2.0
"""Runs a graph node by node through `Op.reference`: the oracle of every test, and a backend of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.op import Array
from tensorwright.ir.types import ObjectType


def interpret(graph: Graph, feeds: Mapping[str, Array], *, keep: Iterable[Value] = ()) -> dict[str, Array]:
    """The graph's outputs by name, and the values `keep` by their value names.

    `feeds` holds one array per graph input, by name, already of the right dtype and shape. Every other array is
    dropped after its last reader, so the peak is what is alive at one time. Raises KeyError for a missing feed.
    """
    kept = {value.name: value for value in keep} | dict(zip(graph.output_names, graph.outputs, strict=True))
    arrays: dict[Value, Array] = {
        value: feeds[value.name] if isinstance(value.type, ObjectType) else np.asarray(feeds[value.name])
        for value in graph.inputs
    }
    arrays |= graph.constants
    readers = Counter(v for node in graph.nodes for v in node.inputs if v is not None)
    readers.update(kept.values())
    for node in graph.nodes:
        results = node.op.reference(*(None if v is None else arrays[v] for v in node.inputs))
        arrays.update(zip(node.outputs, results, strict=True))
        readers.subtract(v for v in node.inputs if v is not None)
        for value in (*node.inputs, *node.outputs):
            if value is not None and not readers[value]:
                arrays.pop(value, None)
    return {name: arrays[value] for name, value in kept.items()}
