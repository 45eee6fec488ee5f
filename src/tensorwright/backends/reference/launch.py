# SPDX-License-Identifier: Apache-2.0
"""The run-time half of the reference backend: a plan's graph evaluated in NumPy behind the interface of native code."""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any, Final

import numpy as np

from tensorwright.backends.cpu.launch import FIRST_TENSOR, PROFILE, CpuCode, StepInfo
from tensorwright.errors import PlanError
from tensorwright.ir.op import Array
from tensorwright.plan.plan import Plan, TensorInfo

FINGERPRINT: Final = "reference"


class ReferenceProgram:
    """Stands where `LoadedProgram` stands: `run` finds inputs and outputs through the same pointer table.

    One thread, no arena: NumPy allocates as it goes. Slow, and the definition of every op.
    """

    threads: Final = 1
    barrier_bytes: Final = 0
    code_bytes: Final = 0

    def __init__(self, plan: Plan) -> None:
        """Raises PlanError P106 when the plan's graph cannot be read."""
        import tensorwright.ops  # noqa: F401  registers the ops that the text names
        from tensorwright.ir.text import parse_graph

        try:
            self._graph = parse_graph(plan.graph, plan.constants)
        except ValueError as error:
            raise PlanError(
                "the plan's graph cannot be read",
                where=plan.name,
                why=str(error),
                do="build the plan again",
                code="P106",
            ) from error
        self._inputs, self._outputs = plan.inputs, plan.outputs
        self.weights: Array = np.empty(0, np.uint8)
        steps = tuple(StepInfo(n.name, n.origin, f"reference {n.op.kind}", "") for n in self._graph.nodes)
        self.code = CpuCode(FINGERPRINT, (), self.weights, 0, 0, 1, steps, {})

    def run(self, table: int) -> None:
        """Evaluate the graph on the arrays in the pointer table at this address."""
        self._evaluate(table, None)

    def run_profiled(self, table: int) -> None:
        """As `run`, with monotonic nanoseconds at the start and end of each node written to PROFILE."""
        pointers = (ctypes.c_uint64 * FIRST_TENSOR).from_address(table)
        self._evaluate(table, _array(pointers[PROFILE], (len(self.code.steps), 2), np.dtype(np.int64)))

    def close(self) -> None:
        """Nothing native to free."""

    def _evaluate(self, table: int, times: Array | None) -> None:
        tensors: tuple[TensorInfo, ...] = (*self._inputs, *self._outputs)
        pointers = (ctypes.c_uint64 * (FIRST_TENSOR + len(tensors))).from_address(table)
        arrays: list[Array] = [
            _array(p, t.shape, t.dtype.numpy) for p, t in zip(pointers[FIRST_TENSOR:], tensors, strict=True)
        ]
        values = dict(zip(self._graph.inputs, arrays, strict=False)) | self._graph.constants
        with np.errstate(all="ignore"):  # NaN and infinities flow, as in kernels
            for number, node in enumerate(self._graph.nodes):
                started = time.perf_counter_ns()
                results = node.op.reference(*(None if v is None else values[v] for v in node.inputs))
                values.update(zip(node.outputs, results, strict=True))
                if times is not None:
                    times[number] = started, time.perf_counter_ns()
        for array, value in zip(arrays[len(self._inputs) :], self._graph.outputs, strict=True):
            array[...] = values[value]


def _array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The contiguous array at an address."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    raw: Array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return raw.view(dtype).reshape(shape)
