# SPDX-License-Identifier: Apache-2.0
"""`tensorwright doctor`: what was found on this machine, what would be used, and whether it works."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from typing import Any

import typer

from tensorwright.cli.common import Debug, Json, answer, bytes_text, command
from tensorwright.errors import InternalError

CORE = ("numpy", "onnx", "llvmlite", "rich", "typer")
PEERS = {"onnxruntime": "bench", "openvino": "bench", "torch": "torch"}  # package -> the extra that brings it


@command
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Show the machine as Tensorwright sees it, and build and run a tiny network to prove that it works."""
    facts: dict[str, dict[str, Any]] = {
        "python": _python(),
        "packages": _versions(CORE),
        "optional": _versions(PEERS),
        "target": _target(),
        "cache": _cache(),
        "self_test": self_test(),
    }
    answer(facts, lambda: _draw(facts), as_json=as_json)
    if not facts["self_test"]["passed"]:
        raise InternalError(
            "the self test computed a wrong result",
            code="X102",
            why=f"relative error {facts['self_test']['relative_error']:.1e}",
            do="report it with the output of `tensorwright doctor --json`",
        )


def _python() -> dict[str, object]:
    import tensorwright

    return {
        "tensorwright": tensorwright.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
    }


def _versions(names: tuple[str, ...] | dict[str, str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _target() -> dict[str, object]:
    from tensorwright.backends.cpu.target import CpuTarget
    from tensorwright.backends.cpu.threads import default_threads

    target = CpuTarget.probe()
    return {**dataclasses.asdict(target), "threads": default_threads(), "fingerprint": target.fingerprint}


def _cache() -> dict[str, object]:
    from tensorwright import knobs

    folder = knobs.CACHE.get()
    files = [path for path in folder.glob("**/*") if path.is_file()] if folder.is_dir() else []
    return {"folder": str(folder), "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def self_test() -> dict[str, object]:
    """Build and run convolution + bias + relu, and compare with NumPy. Raises what the build raises."""
    import numpy as np

    import tensorwright as tw
    from tensorwright.network import ActivationType

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(8).astype(np.float32)
    x = rng.standard_normal((1, 3, 6, 7)).astype(np.float32)

    start = time.perf_counter()
    network = tw.Network("self_test")
    layer = network.add_convolution_nd(network.add_input("x", tw.DType.f32, x.shape), 8, (3, 3), weights, bias)
    network.mark_output(network.add_activation(layer.get_output(0), ActivationType.RELU).get_output(0))
    got = tw.build(network, target="cpu", tune="off")(x)
    seconds = time.perf_counter() - start

    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    want = np.maximum(np.einsum("nchwij,kcij->nkhw", windows, weights) + bias[:, None, None], 0)
    error = float(np.abs(got - want).max() / np.abs(want).max())
    return {"passed": error < 1e-5, "relative_error": error, "seconds": round(seconds, 3)}


def _draw(facts: dict[str, dict[str, Any]]) -> None:
    python, target, cache, test = facts["python"], facts["target"], facts["cache"], facts["self_test"]
    verdict = "passed" if test["passed"] else "FAILED"
    lines = {
        "version": f"tensorwright {python['tensorwright']}, Python {python['python']} on {python['system']}",
        "packages": ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items()),
        "optional": ", ".join(_optional(name, version) for name, version in facts["optional"].items()),
        "target": f"{target['isa']} ({target['cpu']}), {target['cores']} cores, {target['threads']} threads a run",
        "caches": " / ".join(bytes_text(target[f"l{level}_bytes"]) for level in (1, 2, 3)) + " (L1 / L2 / L3)",
        "ceilings": f"{target['gflops']:.0f} GFLOP/s f32 and {target['gbytes']:.0f} GB/s from memory, a core",
        "own files": f"{cache['folder']} ({cache['files']} files, {bytes_text(cache['bytes'])})",
        "self test": f"{verdict} in {test['seconds']} s, relative error {test['relative_error']:.1e}",
    }
    for name, text in lines.items():
        typer.echo(f"{name:10s} {text}")


def _optional(name: str, version: object) -> str:
    return f"{name} {version}" if version else f"{name} not installed (pip install 'tensorwright[{PEERS[name]}]')"
