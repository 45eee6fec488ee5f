# SPDX-License-Identifier: Apache-2.0
"""Runs an engine and another runtime on the same inputs and compares all outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorwright.compare.difference import Difference, Tolerance, difference
from tensorwright.errors import BuildError, TensorwrightError

if TYPE_CHECKING:
    from tensorwright.ir.op import Array
    from tensorwright.runtime.engine import Engine

Arrays = Mapping[str, "Array"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outputs of an engine against those of `runtime`, in the engine's order. `found` are the engine's."""

    runtime: str
    tolerance: Tolerance
    outputs: tuple[Difference, ...]
    found: Arrays

    @property
    def passed(self) -> bool:
        """Whether all outputs agree within the tolerance."""
        return all(output.passed for output in self.outputs)

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "with": self.runtime,
            "passed": self.passed,
            "rtol": self.tolerance.rtol,
            "atol": self.tolerance.atol,
            "outputs": [output.as_dict() for output in self.outputs],
        }


def compare(
    engine: Engine,
    model: str,
    feeds: Arrays,
    runtime: str,
    tolerance: Tolerance,
    *,
    weights: str | None = None,
    outputs: Sequence[str] | None = None,
) -> Comparison:
    """Run `engine` and `runtime` ("onnxruntime", or "reference": the model as it was imported, in NumPy) on `feeds`.

    `model`, `weights` and `outputs` are what the engine was built from; onnxruntime reads ONNX only. Raises BuildError
    B111 for an unknown runtime, TensorwrightError T112 when the runtime is not installed or cannot run the model.
    """
    run = _RUNTIMES.get(runtime)
    if run is None:
        raise BuildError(
            f"cannot compare with {runtime!r}", do=f"name one of {', '.join(_RUNTIMES)} after --with", code="B111"
        )
    expected = run(model, feeds, weights, outputs)
    found = engine.run(feeds)
    results = tuple(difference(info.name, found[info.name], expected[info.name], tolerance) for info in engine.outputs)
    return Comparison(runtime, tolerance, results, found)


def reference_outputs(
    model: str, feeds: Arrays, weights: str | None = None, outputs: Sequence[str] | None = None
) -> Arrays:
    """What the model gives as it was imported, unoptimised, in NumPy."""
    from tensorwright.builder import build

    shapes = {name: array.shape for name, array in feeds.items()}
    with build(model, target="reference", weights=weights, outputs=outputs, shapes=shapes) as engine:
        return engine.run(feeds)


def _onnxruntime(model: str, feeds: Arrays, weights: str | None, outputs: Sequence[str] | None) -> Arrays:
    try:
        import onnxruntime
    except ImportError as error:
        raise TensorwrightError(
            "onnxruntime is not installed",
            why=str(error),
            do="pip install 'tensorwright[bench]', or compare with the reference",
            code="T112",
        ) from error
    if weights is not None or not model.endswith(".onnx"):
        raise TensorwrightError(
            "onnxruntime reads ONNX models only",
            where=model,
            do="compare with the reference: the model as it was imported, in NumPy",
            code="T112",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = list(outputs or (output.name for output in session.get_outputs()))
        results = session.run(names, dict(feeds))
    except Exception as error:  # its exceptions have no common base
        raise TensorwrightError(
            "onnxruntime could not run the model",
            where=model,
            why=str(error).splitlines()[0],
            do="compare with the reference, or check the model with onnx.checker",
            code="T112",
        ) from error
    return {name: np.asarray(array) for name, array in zip(names, results, strict=True)}


_Run = Callable[[str, Arrays, "str | None", "Sequence[str] | None"], Arrays]
_RUNTIMES: Mapping[str, _Run] = {"onnxruntime": _onnxruntime, "reference": reference_outputs}
