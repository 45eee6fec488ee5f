# SPDX-License-Identifier: Apache-2.0
"""Writes GraphDefs node by node, without TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tensorwright as tw
from tensorwright.importers.tensorflow.schema import GraphDef

Array = np.ndarray[Any, Any]
NUMBERS = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "object": 7,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "float16": 19,
}


class Type(int):
    """An attribute that is an element type."""


class TfWriter:
    """A GraphDef under construction. Methods return the name of what they add."""

    def __init__(self) -> None:
        self.graph = GraphDef()

    def placeholder(self, name: str, dtype: Any, shape: Sequence[int] | None) -> str:
        """A fed tensor; -1 is an open dim, None an unknown shape."""
        node = self.graph.node.add(name=name, op="Placeholder")
        node.attr["dtype"].type = NUMBERS[np.dtype(dtype).name]
        if shape is None:
            node.attr["shape"].shape.unknown_rank = True
        else:
            for size in shape:
                node.attr["shape"].shape.dim.add(size=size)
            node.attr["shape"].shape.SetInParent()
        return name

    def constant(self, array: Any, name: str = "") -> str:
        """A Const with its bytes in tensor_content."""
        array = np.asarray(array)
        node = self.graph.node.add(name=name or f"const_{len(self.graph.node)}", op="Const")
        number = NUMBERS[array.dtype.name]
        node.attr["dtype"].type = number
        tensor = node.attr["value"].tensor
        tensor.dtype = number
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_shape.SetInParent()
        tensor.tensor_content = np.ascontiguousarray(array).tobytes()
        return str(node.name)

    def node(self, op: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        """Any node; attributes by their Python types."""
        node = self.graph.node.add(name=name or f"{op}_{len(self.graph.node)}", op=op)
        node.input.extend(inputs)
        for key, value in attrs.items():
            self.set(node.attr[key], value)
        return str(node.name)

    @staticmethod
    def set(attr: Any, value: Any) -> None:
        """Write an AttrValue."""
        if isinstance(value, bool):
            attr.b = value
        elif isinstance(value, Type):
            attr.type = int(value)
        elif isinstance(value, int):
            attr.i = value
        elif isinstance(value, float):
            attr.f = value
        elif isinstance(value, str):
            attr.s = value.encode()
        else:
            attr.list.i.extend(value)
            attr.list.SetInParent()

    def save(self, path: pathlib.Path) -> pathlib.Path:
        """Write the file."""
        path.write_bytes(self.graph.SerializeToString())
        return path


def applied(
    folder: pathlib.Path,
    op: str,
    feeds: Sequence[Array],
    attrs: Mapping[str, Any],
    *,
    constants: Mapping[int, Any] | None = None,
    outputs: int = 1,
    target: str = "cpu",
    shapes: Any = None,
) -> list[Array]:
    """The results of one op; inputs at the places in `constants` are constants, the others are fed."""
    g, known = TfWriter(), dict(constants or {})
    feeds, inputs, fed = list(feeds), [], {}
    for place in range(len(feeds) + len(known)):
        if place in known:
            inputs.append(g.constant(known[place]))
        else:
            array = feeds.pop(0)
            inputs.append(g.placeholder(f"x{place}", array.dtype, array.shape))
            fed[f"x{place}"] = array
    name = g.node(op, *inputs, name="y", **attrs)
    path = g.save(folder / "graph.pb")
    names = [name if i == 0 else f"{name}:{i}" for i in range(outputs)]
    extra = {} if target == "reference" else {"tune": "off", "host_steps": False}
    engine = tw.build(path, target=target, outputs=names, shapes=shapes, **extra)
    results = engine.run(fed)
    return [results[n] for n in names]
