# SPDX-License-Identifier: Apache-2.0
"""Time one runtime on one network, in a process of its own so that no other runtime's threads disturb it.

`tensorwright bench` starts it as `python -m tensorwright.cli.peers REQUEST`, with REQUEST a JSON object of the fields
of `Request`, and reads one JSON object from its standard output.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorwright.cli.common import save_npz
from tensorwright.errors import TensorwrightError

Arrays = dict[str, np.ndarray[Any, Any]]
Runner = Callable[[], Arrays]

EXTRAS = {"onnxruntime": "bench", "openvino": "bench"}  # a runtime that can be compared -> the extra that installs it
WARM_UP_SECONDS, MOST_SAMPLES, FEWEST_SAMPLES = 0.2, 100_000, 5


@dataclass(frozen=True, slots=True)
class Request:
    """What to time: `model` is a plan for tensorwright and an ONNX file for a peer; `feed` an .npz of its inputs.

    `target` matters to tensorwright only.
    """

    runtime: str
    model: str
    target: str
    feed: str
    threads: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies of one round in microseconds, the time until the runtime was ready, and its outputs."""

    samples_us: tuple[float, ...]
    ready_seconds: float
    outputs: Arrays


def is_installed(runtime: str) -> bool:
    """Whether the peer can be imported here."""
    from importlib.util import find_spec

    return find_spec(runtime) is not None


def measure(request: Request) -> Timing:
    """Run the request in a fresh process. Raises TensorwrightError T110 with the peer's own words when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "outputs.npz"
        text = json.dumps({**dataclasses.asdict(request), "result": str(result)})
        command = [sys.executable, "-m", "tensorwright.cli.peers", text]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:
            last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise TensorwrightError(
                f"{request.runtime} could not run the model",
                where=request.model,
                why=last,
                do=f"leave {request.runtime} out of --vs, or check its installation",
                code="T110",
            )
        facts = json.loads(child.stdout.splitlines()[-1])
        with np.load(result) as arrays:
            outputs = {name: arrays[name] for name in arrays.files}
        return Timing(tuple(facts["samples_us"]), facts["ready_seconds"], outputs)


# -- inside the child process ---------------------------------------------------------------------------------
def _tensorwright(request: Request, feed: Arrays) -> Runner:
    import tensorwright as tw

    context = tw.load(request.model, target=request.target, threads=request.threads).create_context()
    return lambda: context.run(feed)


def _onnxruntime(request: Request, feed: Arrays) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = request.threads, 4
    session = ort.InferenceSession(request.model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, feed), strict=True))


def _openvino(request: Request, feed: Arrays) -> Runner:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": request.threads,
    }
    compiled = openvino.Core().compile_model(request.model, "CPU", options)
    call = compiled.create_infer_request()
    for name, array in feed.items():
        call.set_tensor(name, openvino.Tensor(array))
    names = [output.get_any_name() for output in compiled.outputs]

    def run() -> Arrays:
        call.infer()
        return {name: call.get_output_tensor(i).data for i, name in enumerate(names)}

    return run


_RUNNERS: dict[str, Callable[[Request, Arrays], Runner]] = {
    "tensorwright": _tensorwright,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def _time(run: Runner, seconds: float) -> list[float]:
    end = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
    while time.perf_counter() < end:
        run()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < FEWEST_SAMPLES or (time.perf_counter() < end and len(samples) < MOST_SAMPLES):
        start = time.perf_counter()
        run()
        samples.append((time.perf_counter() - start) * 1e6)
    return samples


def _child(text: str) -> None:
    fields = json.loads(text)
    result = fields.pop("result")
    request = Request(**fields)
    with np.load(request.feed) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    start = time.perf_counter()
    run = _RUNNERS[request.runtime](request, feed)
    ready = time.perf_counter() - start
    save_npz(result, run())
    facts = {"samples_us": _time(run, request.seconds), "ready_seconds": ready}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    _child(sys.argv[1])
