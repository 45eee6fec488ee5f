# SPDX-License-Identifier: Apache-2.0
"""If, Loop, Scan and Optional for `onnx.reference`, as ONNX defines them.

The implementations that onnx 1.23 brings join the scan outputs of Loop instead of stacking them, know neither the axes
and directions of Scan nor its form of opset 8, and wrap optionals in lists or refuse empty ones.
Import this file late: it needs onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference.op_run import OpRun

from tensorwright.ir.op import Array


class _WithBody(OpRun):
    """An operator that runs its attribute `body`, which also sees the values around it."""

    op_domain = ""
    body: Any  # this and the following are made by OpRun from the node's attributes
    _run_body: Callable[..., Any]

    def need_context(self) -> bool:
        return True

    def _step(self, around: Mapping[str, Any] | None, given: Sequence[Any], attributes: Any) -> list[Any]:
        """The outputs of the body for these inputs, in order."""
        feeds = dict(around or {}) | dict(zip(self.body.input_names, given, strict=True))
        return list(self._run_body(feeds, attributes=attributes))

    def _stacked(self, parts: Sequence[Any], output: int, axis: int = 0) -> Array:
        """What one scan output gave at each step; the body's declaration tells its type when there was no step."""
        if parts:
            return np.stack(parts, axis)
        declared = self.body.proto_.output[output].type.tensor_type
        dtype = tensor_dtype_to_np_dtype(declared.elem_type) if declared.elem_type else np.float32
        return np.empty((0, *(dim.dim_value for dim in declared.shape.dim)), dtype)


class Loop(_WithBody):
    """The body with iteration number, condition and carried values, while that holds, at most `trips` times."""

    def _run(
        self,
        trips: Any,
        condition: Any = None,
        *initial: Any,
        context: Any = None,
        attributes: Any = None,
        body: Any = None,
        bindings: Any = None,
    ) -> tuple[Any, ...]:
        carried = len(self.body.input_names) - 2
        states: list[Any] = [*initial, *[None] * (carried - len(initial))]
        scans: list[list[Any]] = [[] for _ in self.body.output_names[1 + carried :]]
        limit = None if trips is None else int(np.asarray(trips).item())
        going, iteration = condition is None or bool(np.asarray(condition).item()), 0
        while going and (limit is None or iteration < limit):
            outputs = self._step(context, [np.int64(iteration), np.bool_(going), *states], attributes)
            going, states = bool(np.asarray(outputs[0]).item()), outputs[1 : 1 + carried]
            for scan, value in zip(scans, outputs[1 + carried :], strict=True):
                scan.append(value)
            iteration += 1
        return (*states, *(self._stacked(scan, 1 + carried + i) for i, scan in enumerate(scans)))


class Scan(_WithBody):
    """The body for each slice of the scan inputs, with states that it hands on."""

    num_scan_inputs: int

    def _run(
        self, *inputs: Any, context: Any = None, attributes: Any = None, bindings: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        if self.run_params["opsets"][""] > 8:
            return self._scan(inputs, context, attributes)
        lengths, *rest = inputs  # until opset 8 there is a batch axis before all others
        if lengths is not None:
            raise RuntimeError("Scan with sequence lengths is not implemented")
        rows = [self._scan([x[i] for x in rest], context, attributes) for i in range(len(rest[0]))]
        return tuple(np.stack(column) for column in zip(*rows, strict=True))

    def _scan(self, inputs: Sequence[Any], context: Any, attributes: Any) -> tuple[Any, ...]:
        kept = len(inputs) - self.num_scan_inputs
        states, scanned = list(inputs[:kept]), inputs[kept:]
        made = len(self.body.output_names) - kept
        axes, backwards = self._listed("scan_input_axes", len(scanned)), self._directions(len(scanned))
        slices = [
            np.moveaxis(x, axis, 0)[:: -1 if b else 1] for x, axis, b in zip(scanned, axes, backwards, strict=True)
        ]
        scans: list[list[Any]] = [[] for _ in range(made)]
        for given in zip(*slices, strict=True):
            outputs = self._step(context, [*states, *given], attributes)
            states = outputs[:kept]
            for scan, value in zip(scans, outputs[kept:], strict=True):
                scan.append(value)
        reverse, axes = self._listed("scan_output_directions", made), self._listed("scan_output_axes", made)
        results = [
            self._stacked(scan[:: -1 if r else 1], kept + i, axis)
            for i, (scan, r, axis) in enumerate(zip(scans, reverse, axes, strict=True))
        ]
        return (*states, *results)

    def _directions(self, count: int) -> list[int]:
        old = self._listed("directions", count)  # the name until opset 8
        return [a or b for a, b in zip(old, self._listed("scan_input_directions", count), strict=True)]

    def _listed(self, name: str, count: int) -> list[int]:
        values = getattr(self, name, None)
        return list(values) if values else [0] * count


class _MayBeEmpty(OpRun):
    """An operator that may give an empty optional, None, which OpRun takes for a defect."""

    op_domain = ""

    def _check_and_fix_outputs(self, res: tuple[Any, ...]) -> tuple[Any, ...]:
        return res


class If(_MayBeEmpty):
    """One of two branches, which also see the values around them."""

    _run_then_branch: Callable[..., Any]  # made by OpRun from the node's attributes
    _run_else_branch: Callable[..., Any]

    def need_context(self) -> bool:
        return True

    def _run(self, condition: Any, context: Any = None, attributes: Any = None, **_: Any) -> tuple[Any, ...]:
        branch = self._run_then_branch if np.asarray(condition).item() else self._run_else_branch
        return tuple(branch(context, attributes=attributes))


class Optional(_MayBeEmpty):
    """The value itself, or None."""

    def _run(self, x: Any = None, type: Any = None) -> tuple[Any]:
        return (x,)


CONTROL_FLOW = [If, Loop, Scan, Optional]
