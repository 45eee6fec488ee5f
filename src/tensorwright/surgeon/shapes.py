# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic element by element: what is known of a shape of which some dims are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

from tensorwright.ir.op import Array
from tensorwright.surgeon.types import static_shape

Elements = list[int | None]
Found = tuple[Elements, bool] | None
_MOST_ELEMS = 64  # a shape has few elements


class KnownShapes:
    """The elements of integer vectors and scalars, None for an open dim. `stored` is read as it grows."""

    def __init__(self, types: Mapping[str, TypeProto], stored: Mapping[str, TensorProto]) -> None:
        self.types, self.stored = types, stored
        self._elements: dict[str, tuple[Elements, bool]] = {}  # with whether it is a scalar

    def elements(self, name: str) -> Elements | None:
        """The elements of a tensor; None when nothing is known of it."""
        found = self.find(name)
        return found[0] if found is not None else None

    def follow(self, node: NodeProto) -> None:
        """Learn the result of a node of shape arithmetic."""
        rule = _RULES.get(node.op_type) if not node.domain else None
        if rule is None:
            return
        result = rule(self, node)
        if result is not None:
            self._elements[node.output[0]] = result

    def complete(self, node: NodeProto) -> Array | None:
        """The i64 result of a node of shape arithmetic when all elements of it are known."""
        found = self._elements.get(node.output[0]) if node.output else None
        if found is None or any(element is None for element in found[0]):
            return None
        array = np.array(found[0], np.int64)
        return array.reshape(()) if found[1] else array

    def find(self, name: str) -> Found:
        """The elements of a tensor, and whether it is a scalar; None when nothing is known of it."""
        if name in self._elements:
            return self._elements[name]
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_type != TensorProto.INT64 or len(tensor.dims) > 1:
            return None
        array = numpy_helper.to_array(tensor)
        return ([int(x) for x in array.flat], array.ndim == 0) if array.size <= _MOST_ELEMS else None


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _shape(known: KnownShapes, node: NodeProto) -> Found:
    shape = static_shape(known.types.get(node.input[0]))
    if shape is None:
        return None
    given = _attributes(node)
    return list(shape[given.get("start", 0) : given.get("end", None)]), False


def _size(known: KnownShapes, node: NodeProto) -> Found:
    shape = static_shape(known.types.get(node.input[0]))
    if shape is None or any(dim is None for dim in shape):
        return None
    return [int(np.prod([dim for dim in shape if dim is not None], dtype=np.int64))], True


def _gather(known: KnownShapes, node: NodeProto) -> Found:
    data, indices = known.find(node.input[0]), known.find(node.input[1])
    if data is None or indices is None or data[1] or _attributes(node).get("axis", 0) != 0:
        return None
    picked: Elements = []
    for index in indices[0]:
        if index is None or not -len(data[0]) <= index < len(data[0]):
            return None
        picked.append(data[0][index])
    return picked, indices[1]


def _slice(known: KnownShapes, node: NodeProto) -> Found:
    data = known.find(node.input[0])
    if data is None or data[1] or len(node.input) < 3:
        return None
    defaults: list[Elements] = [[None], [None], [0], [1]]
    given = [known.elements(name) if name else default for name, default in zip(node.input[1:], defaults, strict=False)]
    values = [*given, *defaults[len(given) :]]
    if any(value is None or len(value) != 1 for value in values):
        return None
    start, end, axis, step = (value[0] for value in values if value is not None)
    if start is None or end is None or axis not in (0, -1) or step is None or step < 1:
        return None
    return data[0][start:end:step], False


def _concat(known: KnownShapes, node: NodeProto) -> Found:
    parts = [known.find(name) for name in node.input]
    joined: Elements = []
    for part in parts:
        if part is None or part[1]:
            return None
        joined += part[0]
    return joined, False


def _unsqueeze(known: KnownShapes, node: NodeProto) -> Found:
    data = known.find(node.input[0])
    axes: Sequence[int | None] | None = _attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = known.elements(node.input[1])
    if data is None or not data[1] or axes is None or list(axes) not in ([0], [-1]):
        return None
    return data[0], False


def _squeeze(known: KnownShapes, node: NodeProto) -> Found:
    data = known.find(node.input[0])
    return (data[0], True) if data is not None and len(data[0]) == 1 else None


def _same(known: KnownShapes, node: NodeProto) -> Found:
    return known.find(node.input[0])


def _cast(known: KnownShapes, node: NodeProto) -> Found:
    return known.find(node.input[0]) if _attributes(node).get("to") == TensorProto.INT64 else None


_RULES: Mapping[str, Callable[[KnownShapes, NodeProto], Found]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Identity": _same,
    "Cast": _cast,
}
