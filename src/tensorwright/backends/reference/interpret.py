# SPDX-License-Identifier: Apache-2.0
"""Runs a graph on arrays by name: the oracle of every test, and a backend of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tensorwright.ir.evaluate import evaluate
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.op import Array
from tensorwright.ir.types import ObjectType


def interpret(graph: Graph, feeds: Mapping[str, Array], *, keep: Iterable[Value] = ()) -> dict[str, Array]:
    """The graph's outputs by name, and the values `keep` by their value names.

    `feeds` holds one array per graph input, by name, already of the right dtype and shape. Every other array is
    dropped after its last reader, so the peak is what is alive at one time. Raises KeyError for a missing feed.
    """
    given = [feeds[v.name] if isinstance(v.type, ObjectType) else np.asarray(feeds[v.name]) for v in graph.inputs]
    kept = {value.name: value for value in keep} | dict(zip(graph.output_names, graph.outputs, strict=True))
    values = evaluate(graph, given, keep=kept.values())
    return {name: values[value] for name, value in kept.items()}
