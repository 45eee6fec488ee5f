# SPDX-License-Identifier: Apache-2.0
"""Damaged ONNX files through the whole road, each in a process of its own: a typed error or a right answer, no more.

    python -m tests.fuzz.files --count 2000            # every case; exit code 1 when one fails
    python -m tests.fuzz.files --case 1234             # one case, with its traceback

A case fails when it ends the process, raises anything but a TensorwrightError (an InternalError is a failure, too),
computes another result than the imported graph does in NumPy, reads data outside of its folder, works longer than
`SECONDS`, or takes more than twice the memory that it honestly needs: `SLACK_BYTES` for code and compiler, plus twice
what its files hold, plus, once it is built and run, twice what the tensors of its graph hold. The limit is the address
space of the process, so that memory which is asked for and never touched counts as well.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorwright as tw
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.cli.common import random_inputs
from tensorwright.compare.difference import Tolerance, difference
from tensorwright.errors import InternalError, TensorwrightError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.graph import Graph
from tests.fuzz.mutate import Case, written

SECONDS = 10  # of processor time
_WALL_SECONDS = 60  # for what waits without working, on a machine that may be busy
SLACK_BYTES = 256 << 20
_RUN_BYTES = 256 << 20  # what honestly needs more is built, and not run
_HUGE = 1e6  # weights above this make any rounding visible


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended, in seconds of processor time and MiB: the most memory that the process held, and the most that
    its address space grew by. `kind`: "refused" (a typed error), "ran" (and agreed), "built" (too large to run here),
    "uncompared" (ran, but nothing says what is right), or "FAILED"."""

    number: int
    model: str
    damage: str
    kind: str
    what: str
    seconds: float
    peak_mib: float
    grown_mib: float


def run_cases(numbers: Iterable[int]) -> Iterator[Outcome]:
    """Every case in a fork of this process, which must have no threads."""
    CpuTarget.probe()  # measured once, before the limits
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="tensorwright_fuzz_") as folder:
            yield _supervised(written(number, pathlib.Path(folder)))


def _supervised(case: Case) -> Outcome:
    reading, writing = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _child(case, writing)
    os.close(writing)
    text = b""
    while True:
        ready, _, _ = select.select([reading], [], [], max(_WALL_SECONDS - (time.perf_counter() - start), 0))
        part = os.read(reading, 1 << 16) if ready else b""
        text += part
        if not part:
            break
    os.close(reading)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    lines = [json.loads(line) for line in text.decode().splitlines()]
    stage = next((line["stage"] for line in reversed(lines) if "stage" in line), "start")
    kind, what = next(((line["kind"], line["what"]) for line in lines if "kind" in line), ("FAILED", ""))
    if not ready:
        kind, what = "FAILED", f"no answer after {_WALL_SECONDS} s in {stage}"
    elif os.WIFSIGNALED(status):
        kind, what = "FAILED", f"{signal.Signals(os.WTERMSIG(status)).name} in {stage}"
    elif kind == "FAILED":
        what = f"in {stage}: {what}"
    seconds = round(usage.ru_utime + usage.ru_stime, 3)
    grown = next((line["grown"] for line in lines if "grown" in line), 0.0)
    return Outcome(case.number, case.model, case.damage, kind, what, seconds, round(usage.ru_maxrss / 1024, 1), grown)


def _child(case: Case, writing: int) -> None:
    def say(**facts: Any) -> None:
        os.write(writing, json.dumps(facts).encode() + b"\n")

    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing:  # what C++ code complains about
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        base = _address_space("VmSize")
        kind, what = _outcome(case, lambda stage: say(stage=stage))
        say(kind=kind, what=what, grown=round((_address_space("VmPeak") - base) / 2**20, 1))
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent has to hear of it
        frame = traceback.extract_tb(error.__traceback__)[-1]
        say(kind="FAILED", what=f"{type(error).__name__}: {error} at {frame.filename}:{frame.lineno}"[:2000])
    finally:
        os._exit(0)


def _outcome(case: Case, stage: Any) -> tuple[str, str]:
    base = _address_space("VmSize")
    stored = sum(path.stat().st_size for path in case.path.parent.iterdir() if path.is_file() and not path.is_symlink())
    _limit(base + SLACK_BYTES + 2 * stored)
    warnings.simplefilter("ignore")
    try:
        stage("import")
        graph = import_onnx(case.path)
        if case.escapes:
            return "FAILED", "data outside of the model's folder was read"
        stage("build")
        shapes = _shapes(graph)
        cache = case.path.with_name("cache.json")
        with tw.build(case.path, tune="off", threads=1, shapes=shapes, timing_cache=cache) as engine:
            need = stored + _tensor_bytes(graph)
            stage("allocate")
            _limit(base + SLACK_BYTES + 2 * min(need, _RUN_BYTES))
            if need > _RUN_BYTES:
                engine.create_context()
                return "built", f"its tensors hold {need >> 20} MiB"
            stage("run")
            feeds = random_inputs(engine, case.number)
            found = engine.run(feeds)
        stage("compare")
        return _compared(case, graph, feeds, found)
    except InternalError:
        raise
    except TensorwrightError as error:
        return "refused", error.code


def _compared(case: Case, graph: Graph, feeds: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    """Against the graph as it was imported, in NumPy, where that says what is right."""
    shapes = {name: array.shape for name, array in feeds.items()}
    with tw.build(case.path, target="reference", shapes=shapes) as engine:
        want = engine.run(feeds)
    if any(not getattr(node.op, "pure", True) for node in graph.nodes):
        return "uncompared", "its results are random"
    if not all((np.abs(numbers) < _HUGE).all() for numbers in _float_parameters(graph)):
        return "uncompared", "its weights or attributes are huge or not finite"
    for name, array in want.items():
        scale = _scale(array)
        result = difference(name, found[name], array, Tolerance(1e-3, 1e-4 * scale))
        if not result.passed:
            return "FAILED", f"output {name!r}: {result.reason}, first {result.first_got} for {result.first_want}"
    return "ran", ""


def _float_parameters(graph: Graph) -> Iterator[Any]:
    """Weights and attributes."""
    yield from (array for array in graph.constants.values() if array.dtype.kind == "f")
    for node in graph.nodes:
        fields = (getattr(node.op, field.name) for field in dataclasses.fields(node.op))  # type: ignore[arg-type]
        yield from (np.asarray(value) for value in fields if isinstance(value, float))


def _shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Twos for the open dims of inputs."""
    loose = [value for value in graph.inputs if value.type.shape and not value.type.is_static]
    return {value.name: tuple(d if isinstance(d, int) else 2 for d in value.type.shape) for value in loose}


def _scale(array: Any) -> float:
    array = np.asarray(array)
    if array.dtype.kind not in "f":
        return 1.0
    return max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=1.0)))


def _tensor_bytes(graph: Graph) -> int:
    """Bytes of all tensors of the graph; a dim that only the data decides counts as 1."""
    values = {v for node in graph.nodes for v in (*node.inputs, *node.outputs) if v is not None} | {*graph.inputs}
    total = 0
    for value in values:
        elems = 1
        for dim in value.type.shape:
            elems *= dim if isinstance(dim, int) else 1
        total += elems * value.type.dtype.numpy.itemsize
    return total


def _address_space(field: str) -> int:
    """Bytes of this process: VmSize now, VmPeak at most since the fork."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


# -- the command ------------------------------------------------------------------------------------------------
def main() -> int:
    """Run cases and report; 1 when one failed."""
    parser = argparse.ArgumentParser(description="Damaged ONNX files through the whole road.")
    parser.add_argument("--count", type=int, default=2000, help="cases 0 to COUNT-1")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case, in this process, without limits")
    parser.add_argument("--json", help="file for one line of JSON per case")
    words = parser.parse_args()
    if words.case is not None:
        return _alone(words.case)
    outcomes = []
    with open(words.json, "w", 1, encoding="utf-8") if words.json else contextlib.nullcontext() as log:
        for outcome in run_cases(range(words.start, words.start + words.count)):
            outcomes.append(outcome)
            if log is not None:
                log.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            if outcome.kind == "FAILED":
                sys.stdout.write(f"case {outcome.number} ({outcome.model}: {outcome.damage}): {outcome.what}\n")
                sys.stdout.flush()
    kinds = collections.Counter(outcome.kind for outcome in outcomes)
    slowest, largest = max(o.seconds for o in outcomes), max(o.peak_mib for o in outcomes)
    sys.stdout.write(f"{json.dumps(dict(kinds))}, slowest {slowest} s, largest {largest} MiB\n")
    return 1 if kinds["FAILED"] else 0


def _alone(number: int) -> int:
    with tempfile.TemporaryDirectory(prefix="tensorwright_fuzz_") as folder:
        case = written(number, pathlib.Path(folder))
        sys.stdout.write(f"{case.model}: {case.damage}\n")
        global _limit
        _limit = lambda size: None  # noqa: E731
        sys.stdout.write(f"{_outcome(case, lambda stage: sys.stdout.write(stage + chr(10)))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
