# SPDX-License-Identifier: Apache-2.0
"""Choose what an engine runs on: the CPU by default, another instruction set, NumPy, or a GPU where there is one."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

import tensorwright as tw
from tensorwright.backends.cpu.target import CpuTarget

DIGITS = pathlib.Path(__file__).resolve().parent.parent / "digits"
CPUS = ("cpu", "cpu:avx512", "cpu:avx2", "cpu:neon")


def listing() -> str:
    """What can be chosen here, a line each."""
    host = CpuTarget.probe()
    lines = [f"{'cpu':12s}{host.cpu}, {host.isa}, {host.cores} cores: the default"]
    for name in CPUS[1:]:
        target = CpuTarget.parse(name)
        able = "runs here" if target.runs_here else "code can be built here, not run"
        lines.append(f"{name:12s}{target.isa} code, {able}")
    lines.append(f"{'reference':12s}the network in NumPy, unoptimised: slow, to compare with")
    lines.append(f"{'cuda:0 ...':12s}{gpus()}")
    return "\n".join(lines)


def gpus() -> str:
    """What this version says of GPUs."""
    try:
        tw.build(DIGITS / "lenet_digits.onnx", target="cuda", tune="off")
    except tw.errors.TargetError as error:
        return f"not available: {error.what}"
    return "available"


def main(arguments: Sequence[str] | None = None) -> int:
    """List the targets, then build and run on the chosen one. Returns 2 when it cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="cpu", help="what to build for; see the list that this program prints")
    parser.add_argument("--threads", type=int, help="the most worker threads of the engine")
    given = parser.parse_args(arguments)
    print(listing())
    image = np.load(DIGITS / "digit.npy")
    try:
        engine = tw.build(DIGITS / "lenet_digits.onnx", target=given.target, threads=given.threads, tune="off")
        digit = int(engine(image).argmax())
    except tw.errors.TensorwrightError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{given.target}: {engine.threads} threads, the digit is a {digit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
