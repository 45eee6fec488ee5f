# SPDX-License-Identifier: Apache-2.0
"""`make demo`: build a plan of the trained LeNet, load it in a fresh process, read handwritten digits.

    python examples/digits/demo.py

Ends with an error when a step fails or fewer than 97% of the held-out digits are read correctly.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import tensorwright as tw
from digits import PIXEL_MAX, to_input
from tensorwright.tune.progress import Event

HERE = pathlib.Path(__file__).resolve().parent
MODEL, PLAN, HELD_OUT = HERE / "lenet_digits.onnx", HERE / "lenet_digits.plan", HERE / "held_out.npz"
REQUIRED_ACCURACY = 0.97
SHADES = " ░▒▓█" if (sys.stdout.encoding or "").lower().startswith("utf") else " .:*#"
COLUMNS = 4

Digits = npt.NDArray[np.integer[Any]]


def main() -> int:
    """Build, classify in a child process, show. Returns the exit code."""
    print(f"1. build {_shown(MODEL)}")
    start = time.perf_counter()
    engine = tw.build(MODEL, target="cpu", progress=True if sys.stderr.isatty() else print_choice)
    engine.save(PLAN)
    print(f"   done in {time.perf_counter() - start:.1f} s\n")

    print("2. what was fused")
    print(_indent(fused(engine)), end="\n\n")

    print("3. load the plan in a fresh process and read the held-out digits")
    command = [sys.executable, __file__, "--classify", str(PLAN)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        print(child.stderr, file=sys.stderr)
        return 1
    result = json.loads(child.stdout)

    with np.load(HELD_OUT) as data:
        images, labels = data["images"], data["labels"]
    answers = np.array(result["answers"])
    accuracy = float(np.mean(answers == labels))
    print(_indent(draw(images, labels, answers)), end="\n\n")
    print(f"   accuracy  {np.sum(answers == labels)} of {len(labels)} right ({accuracy:.1%})")
    print(f"   latency   {result['median_us']:.1f} us, the median of {len(labels)} single digits")
    print(f"   load      {result['load_ms']:.1f} ms, without importing {', '.join(result['not_imported'])}")
    print(f"   plan      {_shown(PLAN)}, {PLAN.stat().st_size / 2**20:.2f} MiB")
    if accuracy < REQUIRED_ACCURACY:
        print(f"accuracy {accuracy:.1%} is below the required {REQUIRED_ACCURACY:.0%}", file=sys.stderr)
        return 1
    return 0


def print_choice(event: Event) -> None:
    """Progress where no bar can be drawn: a line for each decided kernel."""
    if event.kind == "chosen":
        print(f"   {event.workload} of {event.workloads}  {event.text}", flush=True)


def classify(plan: str) -> None:
    """The child process: load the plan, run every held-out digit by itself, print the answers as JSON."""
    with np.load(HELD_OUT) as data:
        inputs = to_input(data["images"])
    start = time.perf_counter()
    engine = tw.load(plan)
    load_ms = (time.perf_counter() - start) * 1e3
    context, name = engine.create_context(), engine.inputs[0].name
    answers, samples = [], []
    for image in inputs:
        begin = time.perf_counter()
        outputs = context.run({name: image[None]})
        samples.append(time.perf_counter() - begin)
        answers.append(int(outputs["probability"].argmax()))
    not_imported = [module for module in ("onnx", "tensorwright.builder") if module not in sys.modules]
    print(
        json.dumps(
            {
                "answers": answers,
                "median_us": statistics.median(samples) * 1e6,
                "load_ms": load_ms,
                "not_imported": not_imported,
            }
        )
    )


def fused(engine: tw.Engine) -> str:
    """The steps that came from several nodes of the model."""
    steps = engine.report()["steps"]
    lines = [f"{' + '.join(step['origin']):40s} {step['kernel']}" for step in steps]
    nodes = {name for step in steps for name in step["origin"]}
    return "\n".join([f"{len(nodes)} nodes of the model became {len(steps)} steps:", *lines])


def draw(images: Digits, labels: Digits, answers: Digits) -> str:
    """Two rows of digits with what was read: seven at even distances, and the first that was misread."""
    wrong = np.flatnonzero(answers != labels)[:1].tolist()
    chosen = np.linspace(0, len(images) - 1, 2 * COLUMNS - len(wrong), dtype=int).tolist() + wrong
    lines: list[str] = []
    for row in (chosen[:COLUMNS], chosen[COLUMNS:]):
        lines += ["   ".join(_pixels(images[i][y]) for i in row) for y in range(images.shape[1])]
        lines.append("   ".join(_caption(answers[i], labels[i]).center(2 * images.shape[2]) for i in row))
    return "\n".join(lines)


def _pixels(row: Digits) -> str:
    return "".join(2 * SHADES[int(ink) * (len(SHADES) - 1) // PIXEL_MAX] for ink in row)


def _caption(answer: int, label: int) -> str:
    return f"read {answer}" if answer == label else f"read {answer}, is {label}"


def _indent(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())


def _shown(path: pathlib.Path) -> str:
    here = pathlib.Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--classify"]:
        classify(sys.argv[2])
    else:
        sys.exit(main())
