# SPDX-License-Identifier: Apache-2.0
"""The command line with models of other formats than ONNX: --weights and --outputs."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

from tensorwright.cli.main import app

LENET = pathlib.Path(__file__).resolve().parents[2] / "examples" / "lenet"
MODEL, WEIGHTS = str(LENET / "mnist.prototxt"), str(LENET / "mnist.caffemodel")
FAST = ("--tune", "off")


def answer(*words: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == code, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_build_takes_weights_and_outputs(tmp_path: pathlib.Path) -> None:
    plan = str(tmp_path / "lenet.plan")
    data = answer("build", MODEL, "--weights", WEIGHTS, "--outputs", "ip1,prob", "-o", plan, *FAST)
    assert data["notes"] == []
    found = answer("inspect", plan)
    assert [text.split(":")[0] for text in found["outputs"]] == ["ip1", "prob"]


def test_build_without_weights_says_that_they_are_random(tmp_path: pathlib.Path) -> None:
    data = answer("build", MODEL, "-o", str(tmp_path / "random.plan"), *FAST)
    assert "random" in " ".join(data["notes"])


@pytest.mark.parametrize("command", ["check", "explain"])
def test_check_and_explain_read_the_model(command: str) -> None:
    assert answer(command, MODEL, "--weights", WEIGHTS)


def test_inspect_shows_a_model_without_its_weights() -> None:
    data = answer("inspect", MODEL)
    assert data["kind"] == "model" and data["nodes"]


def test_run_and_profile_build_on_the_fly() -> None:
    data = answer("run", MODEL, "--weights", WEIGHTS, "--outputs", "ip1")
    assert list(data["outputs"]) == ["ip1"]
    assert answer("profile", MODEL, "--weights", WEIGHTS, "--repeat", "1")["steps"]


def test_compare_with_the_reference_and_not_with_a_runtime_of_another_format() -> None:
    words = ("compare", MODEL, "--weights", WEIGHTS, *FAST)
    assert answer(*words, "--with", "reference", "--localise")["passed"] is True
    assert answer(*words, "--with", "onnxruntime", code=2)["code"] == "T112"


def test_weights_of_a_format_that_has_none_are_refused() -> None:
    model = str(LENET.parent / "digits" / "lenet_digits.onnx")
    assert answer("build", model, "--weights", WEIGHTS, code=2)["code"] == "M105"
