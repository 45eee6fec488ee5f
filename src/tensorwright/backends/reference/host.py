# SPDX-License-Identifier: Apache-2.0
"""Nodes that run in NumPy as part of an engine: host steps, and whole graphs for target "reference"."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tensorwright.errors import InputError, InternalError, PlanError
from tensorwright.ir.dtype import DType
from tensorwright.ir.evaluate import learn
from tensorwright.ir.graph import Node, Value
from tensorwright.ir.op import Array, with_dims
from tensorwright.ir.parse import parse_graph
from tensorwright.ops.label import label

# What a reference raises on data that its op is not defined for.
_REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)


class HostProgram:
    """A graph whose nodes are evaluated one after the other by `Op.reference`. Holds no state of a run: all contexts
    share it. Slow, and the definition of every op."""

    def __init__(self, text: str, constants: Mapping[str, Array], where: str) -> None:
        """Raises PlanError P106 when `text` is no graph over these constants, P105 when an op's package is missing."""
        import tensorwright.ops  # noqa: F401  registers the ops that the text names

        try:
            graph = parse_graph(text, constants)
        except ValueError as error:
            raise PlanError(
                "the plan's graph cannot be read", where=where, why=str(error), do="build the plan again", code="P106"
            ) from error
        except ImportError as error:
            raise PlanError(
                "the plan has host steps that need a package which is not installed",
                where=where,
                why=str(error),
                do="install it, or build the plan with host_steps=False",
                code="P105",
            ) from error
        self._nodes = tuple(graph.nodes)
        self.steps = tuple((node.name, node.origin, label(node.op)) for node in self._nodes)
        self.inputs = tuple(value.name for value in graph.inputs)
        self.outputs = graph.output_names
        self._inputs, self._results = graph.inputs, graph.outputs
        self._constants = {value: _read_only(array) for value, array in graph.constants.items()}
        last = {v: node for node in self._nodes for v in (*node.inputs, *node.outputs) if v is not None}
        self._dropped: dict[Node, list[Value]] = {node: [] for node in self._nodes}
        for value, node in last.items():
            if value not in graph.outputs:
                self._dropped[node].append(value)

    def run(
        self, feeds: Mapping[str, Any], times: Array | None = None, sizes: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """The outputs by name for the inputs by name; results may share memory with inputs and constants.

        `sizes` are the values of symbols that the shapes of the inputs do not tell; it learns those of this run.

        `times`, i64[nodes, 2], receives monotonic nanoseconds at the start and end of each node. Raises InputError
        I109 when a node refuses its data.
        """
        values: dict[Value, Any] = {value: feeds[value.name] for value in self._inputs} | self._constants
        known = {} if sizes is None else sizes
        for value in self._inputs:
            learn(value, values[value], known)
        with np.errstate(all="ignore"):  # NaN and infinities flow, as in kernels
            for number, node in enumerate(self._nodes):
                started = time.perf_counter_ns()
                arguments = [None if v is None else values[v] for v in node.inputs]
                for value, result in zip(node.outputs, _evaluated(node, arguments, known), strict=True):
                    values[value] = result
                    learn(value, result, known)
                for value in self._dropped[node]:
                    values.pop(value, None)
                if times is not None:
                    times[number] = started, time.perf_counter_ns()
        return {name: values[value] for name, value in zip(self.outputs, self._results, strict=True)}


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _evaluated(node: Node, arguments: list[Any], sizes: Mapping[str, int]) -> list[Any]:
    """The results of a node, checked against its types."""
    try:
        results = with_dims(node.op, sizes).reference(*arguments)
    except _REFUSALS as error:
        raise InputError(
            f"step {node.name!r} ({label(node.op)}) cannot compute on the data it was given",
            where=", ".join(node.origin),
            why=f"{type(error).__name__}: {error}",
            do="check the inputs of this run",
            code="I109",
        ) from error
    return [_typed(node, value, result) for value, result in zip(node.outputs, results, strict=True)]


def _typed(node: Node, value: Value, result: Any) -> Any:
    if value.type.dtype is DType.object:
        return result
    array = np.asarray(result)
    shape = value.type.shape
    if (
        array.dtype != value.type.dtype.numpy
        or len(shape) != array.ndim
        or any(isinstance(d, int) and d != n for d, n in zip(shape, array.shape, strict=True))
    ):
        raise InternalError(
            f"step {node.name!r} ({label(node.op)}) does not give what its type says",
            why=f"{array.dtype}{list(array.shape)} instead of {value.type}",
            where=", ".join(node.origin),
            code="X110",
        )
    return array
