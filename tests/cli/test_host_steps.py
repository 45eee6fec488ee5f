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
    """Relu, then the places that are not zero, and the sequence of all rows."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("NonZero", ["r"], ["places"], name="find"),
        helper.make_node("SplitToSequence", ["r"], ["rows"], name="rows", axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info("places", TensorProto.INT64, [2, "found"]),
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
    assert any(note.startswith("2 host steps") and "NonZero" in note for note in notes)
    facts = ask("inspect", plan)
    assert [step["op"] for step in facts["host_steps"]] == ["NonZero", "SplitToSequence"]
    assert list(facts["targets"]) == ["cpu.0"]
    assert {step["name"] for step in ask("explain", model)["after"]} == {"relu", "find", "rows"}
    outputs = ask("run", plan)["outputs"]
    assert outputs["places"]["dtype"] == "int64" and outputs["rows"] == {"dtype": "list", "shape": [3]}
    for words in (("inspect", plan), ("run", plan), ("explain", model)):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["inspect", str(plan)]).stdout
    assert "host step" in shown and "NonZero" in shown


def test_sequence_cannot_be_written_to_a_file_of_arrays(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(app, ["run", str(model), "-o", str(tmp_path / "out.npz")])
    assert done.exit_code == 2 and "T111" in done.output and "'rows' is a list" in done.output
