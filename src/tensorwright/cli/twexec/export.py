# SPDX-License-Identifier: Apache-2.0
"""The files that tools read: times, layer profile, layer information, outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tensorwright.cli.twexec.files import replaced, write_json
from tensorwright.cli.twexec.layers import Layer
from tensorwright.cli.twexec.measure import Trace
from tensorwright.errors import TensorwrightError
from tensorwright.ir.op import Array


def times(trace: Trace) -> Iterator[dict[str, float]]:
    """The rows of --exportTimes: one for each counted query that was kept, in ms since the first began. Handing over
    (Enq) comes between the copy in and the computation."""
    begin = trace.times[:1, 0]
    for row in trace.times:
        t0, t1, t2, t3, t4 = (row - begin).tolist()
        ns = {
            "startEnqMs": t1,
            "endEnqMs": t2,
            "startH2dMs": t0,
            "endH2dMs": t1,
            "startComputeMs": t2,
            "endComputeMs": t3,
            "startD2hMs": t3,
            "endD2hMs": t4,
            "h2dMs": t1 - t0,
            "computeMs": t3 - t2,
            "d2hMs": t4 - t3,
            "latencyMs": t4 - t0 - (t2 - t1),
        }
        yield {key: value / 1e6 for key, value in ns.items()}


def profile_rows(layers: Sequence[Layer], durations: Array, order: Array) -> list[dict[str, Any]]:
    """Time of each layer over all runs of i64[runs, layers] ns, in execution order; layers that took none are left
    out."""
    ms = durations / 1e6
    total = float(ms.sum()) or 1.0
    rows = []
    for i in order.tolist():
        took = float(ms[:, i].sum())
        if took > 0:
            rows.append(
                {
                    "name": layers[i].name,
                    "timeMs": took,
                    "averageMs": took / len(ms),
                    "medianMs": float(np.median(ms[:, i])),
                    "percentage": took / total * 100,
                }
            )
    return rows


def export_profile(path: str, rows: Sequence[Mapping[str, Any]], runs: int) -> None:
    """The number of runs, then the layers."""
    write_json(path, [{"count": runs}, *rows])


def layer_info(layers: Sequence[Layer], bindings: Sequence[str], verbosity: str, format: str) -> dict[str, Any]:
    """The content of --exportLayerInfo: names, objects with "detailed", nothing with "none". `format`: of the model."""
    shown: list[Any] = []
    if verbosity != "none":
        shown = [layer.as_dict(format) if verbosity == "detailed" else layer.name for layer in layers]
    return {"Layers": shown, "Bindings": list(bindings)}


def export_outputs(path: str, outputs: Mapping[str, Any]) -> None:
    """Name, dimensions and flat values of every output. JSON has no NaN and infinities: they are texts."""
    rows = [
        {"name": name, "dimensions": dimensions(x), "values": [_plain(v) for v in _flat(x)]}
        for name, x in outputs.items()
    ]
    write_json(path, rows)


def dimensions(array: Any) -> str:
    """`1x10`; of what is no array, its length."""
    return "x".join(map(str, np.shape(array))) if isinstance(array, np.ndarray) else str(len(array))


def _flat(array: Any) -> list[Any]:
    if not isinstance(array, np.ndarray):
        return list(map(str, array))
    if array.dtype.isbuiltin != 1:  # types of ml_dtypes
        array = array.astype(np.float32)
    return list(array.reshape(-1).tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, int | float | bool) else str(value)


def dump_raw(inputs: Mapping[str, Array], outputs: Mapping[str, Any]) -> list[str]:
    """Write every array to a raw little-endian file in the current folder, and return the names of the files.

    Raises TensorwrightError T111 when one cannot be written, or has no name of its own.
    """
    written: list[str] = []
    for side, arrays in (("input", inputs), ("output", outputs)):
        for name, x in arrays.items():
            if not isinstance(x, np.ndarray):
                continue
            sizes = ".".join(map(str, x.shape)) or "scalar"
            path = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.{side}.{sizes}.{_word(x)}.raw"
            if path in written:
                raise TensorwrightError(
                    "two tensors would be written to one file",
                    where=path,
                    code="T111",
                    do="leave out --dumpRawBindingsToFile",
                )
            with replaced(path) as file:
                file.write_bytes(x.tobytes())
            written.append(path)
    return written


def _word(x: Array) -> str:
    return {"float32": "float", "float16": "half"}.get(str(x.dtype), str(x.dtype))
