# SPDX-License-Identifier: Apache-2.0
"""The example's figures are those of the engine, and the demo runs as `make demo` runs it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tensorwright as tw

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"


def test_digits_engine_reads_as_many_as_accuracy_json_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    told = json.loads((DIGITS / "accuracy.json").read_text(encoding="utf-8"))
    engine = tw.build(DIGITS / "lenet_digits.onnx", tune="off")
    with np.load(DIGITS / "held_out.npz") as data:
        inputs, labels = to_input(data["images"]), data["labels"]
    answers = [int(np.argmax(engine(image[None]))) for image in inputs]
    assert len(labels) == told["held_out_digits"]
    assert int(np.sum(answers == labels)) == told["held_out_right"]


def test_digit_npy_is_the_first_held_out_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    with np.load(DIGITS / "held_out.npz") as data:
        np.testing.assert_allclose(np.load(DIGITS / "digit.npy"), to_input(data["images"][:1]), rtol=1e-6)


def test_to_input_of_full_ink_fills_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    image = to_input(np.full((2, 8, 8), 16, np.uint8))
    assert image.shape == (2, 1, 28, 28) and image.dtype == np.float32
    np.testing.assert_allclose(image[:, 0, 4:24, 4:24], 1, rtol=1e-6)
    assert image.sum() == pytest.approx(2 * 400, rel=1e-6)


@pytest.mark.slow
def test_demo_in_a_fresh_process_succeeds(tmp_path: pathlib.Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "digits" / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("accuracy", "latency", "what was fused", "lenet_digits.plan"))


@pytest.mark.slow
def test_demo_with_a_network_that_guesses_fails(tmp_path: pathlib.Path) -> None:
    import onnx
    from onnx import numpy_helper

    shutil.copytree(DIGITS, tmp_path / "digits")
    model = onnx.load(tmp_path / "digits" / "lenet_digits.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "fc2.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, tmp_path / "digits" / "lenet_digits.onnx")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "digits" / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 1
    assert "below the required 97%" in done.stderr
