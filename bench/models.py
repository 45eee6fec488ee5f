# SPDX-License-Identifier: Apache-2.0
"""Time several ONNX models on Tensorwright and its peers, and sum up. See README.md."""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import subprocess
import sys
from typing import Any


def bench(model: str, vs: str, threads: int, seconds: float) -> dict[str, Any]:
    """The JSON answer of `tensorwright bench` for one model. Raises CalledProcessError when it fails."""
    command = [
        sys.executable,
        "-m",
        "tensorwright.cli.main",
        "bench",
        model,
        "--vs",
        vs,
        "--threads",
        str(threads),
        "--seconds",
        str(seconds),
        "--json",
    ]
    answer: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return answer


def main() -> None:
    """Parse arguments, time each model, print a line each and the mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--vs", default="onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    answers, ratios = [], []
    for model in arguments.models:
        answer = bench(model, arguments.vs, arguments.threads, arguments.seconds)
        answers.append(answer)
        medians = {name: row["median_us"] for name, row in answer["runtimes"].items()}
        line = f"{pathlib.Path(model).stem:20s}" + "".join(f"  {name} {us:10.1f} us" for name, us in medians.items())
        peers = [us for name, us in medians.items() if name != "tensorwright"]
        if peers:
            ratios.append(min(peers) / medians["tensorwright"])
            line += f"  best peer / tensorwright {ratios[-1]:.2f}"
        print(line, flush=True)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"geometric mean {mean:.3f}, worst {min(ratios):.3f}, {len(ratios)} models")
    if arguments.json:
        arguments.json.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
