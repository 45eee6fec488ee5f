# SPDX-License-Identifier: Apache-2.0
"""The commands on a model of which some nodes run in NumPy."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from tensorwright.cli.main import app


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Relu, then the different values, and the sequence of all rows."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Unique", ["r"], ["places"], name="find"),
        helper.make_node("SplitToSequence", ["r"], ["rows"], name="rows", axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info("places", TensorProto.FLOAT, ["found"]),
        helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, [1, 4]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])
    path = tmp_path_factory.mktemp("host") / "host.onnx"
    proto = helper.make_model(
        helper.make_graph(nodes, "host", [x], outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    onnx.save(proto, path)
    return path


def ask(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_commands_take_a_model_with_host_steps(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plan = tmp_path / "host.plan"
    notes = ask("build", model, "-o", plan, "--tune", "off")["notes"]
    assert any(note.startswith("2 host steps") and "Unique" in note for note in notes)
    facts = ask("inspect", plan)
    assert [step["op"] for step in facts["host_steps"]] == ["Unique", "SplitToSequence"]
    assert list(facts["targets"]) == ["cpu.0"]
    assert {step["name"] for step in ask("explain", model)["after"]} == {"relu", "find", "rows"}
    outputs = ask("run", plan)["outputs"]
    assert outputs["places"]["dtype"] == "float32" and outputs["rows"] == {"dtype": "list", "shape": [3]}
    for words in (("inspect", plan), ("run", plan), ("explain", model)):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["inspect", str(plan)]).stdout
    assert "host step" in shown and "Unique" in shown


def test_sequence_cannot_be_written_to_a_file_of_arrays(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(app, ["run", str(model), "-o", str(tmp_path / "out.npz")])
    assert done.exit_code == 2 and "T111" in done.output and "'rows' is a list" in done.output


def test_build_without_host_steps_names_them_and_writes_nothing(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plan = tmp_path / "none.plan"
    words = ["build", str(model), "-o", str(plan), "--tune", "off", "--no-host-steps", "--json"]
    done = CliRunner().invoke(app, words)
    error = json.loads(done.stdout)
    assert done.exit_code == 2 and error["code"] == "B102" and not plan.exists()
    assert any("rows" in reason and "SplitToSequence" in reason for reason in error["why"])
    sound = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits" / "lenet_digits.onnx"
    assert ask("build", sound, "-o", plan, "--tune", "off", "--no-host-steps")["plan"] == str(plan) and plan.exists()
