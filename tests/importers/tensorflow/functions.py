# SPDX-License-Identifier: Apache-2.0
"""Writes functions into a GraphDef, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.importers.tensorflow.graphs import TfWriter


class FunctionWriter(TfWriter):
    """A FunctionDef under construction; inputs are named as functions name them: `argument`, or `node:output:0`."""

    def __init__(self, outer: TfWriter, name: str, arguments: Mapping[str, int]) -> None:
        super().__init__()
        self.function, self.name = outer.graph.library.function.add(), name
        self.function.signature.name = name
        for argument, type_ in arguments.items():
            self.function.signature.input_arg.add(name=argument, type=type_)

    def node(self, op: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        return f"{super().node(op, *inputs, name=name, **attrs)}:output:0"

    def constant(self, array: Any, name: str = "") -> str:
        return f"{super().constant(array, name)}:output:0"

    def result(self, **outputs: str) -> str:
        """Finish: what the results are. Returns the function's name."""
        for key, value in outputs.items():
            self.function.signature.output_arg.add(name=key)
            self.function.ret[key] = value
        self.function.node_def.extend(self.graph.node)
        return self.name


def call(g: TfWriter, op: str, *inputs: str, name: str = "", **functions: str | list[str]) -> str:
    """A node with attributes that name functions."""
    made = TfWriter.node(g, op, *inputs, name=name)
    for key, value in functions.items():
        attr = g.graph.node[-1].attr[key]
        if isinstance(value, str):
            attr.func.name = value
        else:
            for function in value:
                attr.list.func.add(name=function)
    return made


def i32(number: int) -> np.ndarray[Any, Any]:
    """A constant of rank 0."""
    return np.array(number, np.int32)
