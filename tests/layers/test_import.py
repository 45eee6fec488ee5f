# SPDX-License-Identifier: Apache-2.0
"""What importing the package costs, and what it brings into a process."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

import tensorwright as tw

HEAVY = ("numpy", "onnx", "google.protobuf", "llvmlite", "typer", "rich", "ml_dtypes")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_tensorwright_takes_under_150_ms() -> None:
    code = "import time; t = time.perf_counter(); import tensorwright; print(time.perf_counter() - t)"
    samples = [float(run(code)) for _ in range(7)]
    assert statistics.median(samples) < 0.150, samples


def test_import_tensorwright_loads_nothing_heavy() -> None:
    loaded = run(f"import sys, tensorwright; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in tw.__all__ if name not in ("errors", "__version__")])
def test_public_name_in_a_fresh_process_is_found(name: str) -> None:
    kind = run(f"import tensorwright as tw; print(type(tw.{name}).__name__, callable(tw.{name}))")
    assert kind.split()[1] == "True", kind


@pytest.mark.parametrize("name", [name for name in tw.__all__ if name not in ("errors", "__version__")])
def test_public_name_after_importing_its_module_is_not_that_module(name: str) -> None:
    home = getattr(tw, name).__module__
    assert run(f"import {home}, tensorwright as tw; print(type(tw.{name}).__name__)").strip() != "module"


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        tw.bild  # noqa: B018


def test_dir_lists_public_names() -> None:
    assert set(dir(tw)) == set(tw.__all__)
