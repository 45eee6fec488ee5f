# SPDX-License-Identifier: Apache-2.0
"""Runs a graph node by node through `Op.reference`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.op import with_dims
from tensorwright.ir.types import ObjectType


def learn(value: Value, array: Any, sizes: dict[str, int]) -> None:
    """Put the symbols that the dims of a value are into `sizes`, as its array has them."""
    if not value.type.is_static and not isinstance(value.type, ObjectType):
        value.type.learn(np.shape(array), sizes)


def evaluate(graph: Graph, inputs: Sequence[Any], *, keep: Iterable[Value] = ()) -> dict[Value, Any]:
    """The values that the graph's outputs are, and the values `keep`.

    `inputs` are the graph's, in order, of the right dtype and shape. Every other array is dropped after its last
    reader, so the peak is what is alive at one time.
    """
    kept = dict.fromkeys((*keep, *graph.outputs))
    arrays: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True)) | graph.constants
    readers = Counter(v for node in graph.nodes for v in node.inputs if v is not None)
    readers.update(list(kept))
    sizes: dict[str, int] = {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        learn(value, array, sizes)
    for node in graph.nodes:
        op = with_dims(node.op, sizes)
        results = op.reference(*(None if v is None else arrays[v] for v in node.inputs))
        for value, result in zip(node.outputs, results, strict=True):
            arrays[value] = result
            learn(value, result, sizes)
        readers.subtract(v for v in node.inputs if v is not None)
        for used in (*node.inputs, *node.outputs):
            if used is not None and not readers[used]:
                arrays.pop(used, None)
    return {value: arrays[value] for value in kept}
