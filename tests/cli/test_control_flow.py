# SPDX-License-Identifier: Apache-2.0
"""The commands on a model with bodies."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from tensorwright.cli.main import app
from tests.runtime.test_control_flow import if_in_loop, with_host_step_inside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("bodies")
    onnx.save(if_in_loop(), path / "native.onnx")
    onnx.save(with_host_step_inside(), path / "host.onnx")
    return path


def ask(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_commands_show_what_is_inside_bodies(folder: pathlib.Path) -> None:
    model, plan = folder / "native.onnx", folder / "native.plan"
    ask("build", model, "-o", plan, "--tune", "off")
    facts = ask("inspect", plan)
    steps = {step["name"] for native in facts["targets"].values() for step in native["steps"]}
    assert facts["host_steps"] == [] and any(name.startswith("loop/body/parity/then/") for name in steps)
    assert "  graph loop/body\n" in facts["graph"] and "    graph loop/body/parity/else\n" in facts["graph"]
    assert {step["name"] for step in ask("explain", model)["after"]} == steps
    assert ask("run", plan)["outputs"]["rows"]["shape"] == [19, 4]
    for words in (("inspect", plan), ("explain", model), ("run", plan), ("check", model)):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output


def test_check_finds_host_steps_inside_bodies(folder: pathlib.Path) -> None:
    assert ask("check", folder / "native.onnx")["host_steps"] == []
    found = ask("check", folder / "host.onnx")
    assert {step["name"] for step in found["host_steps"]} == {"loop/body/pair", "loop/body/count"}
    assert found["nodes"] > len(found["host_steps"])
