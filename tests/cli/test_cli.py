# SPDX-License-Identifier: Apache-2.0
"""Every subcommand on a small network: what it prints, that `--json` parses, and how it fails."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import tensorwright as tw
from tensorwright.cli import bench as bench_command
from tensorwright.cli import peers
from tensorwright.cli.common import bytes_text, parse_shapes
from tensorwright.cli.main import app
from tensorwright.errors import InputError

SUBCOMMANDS = ("build", "run", "bench", "inspect", "explain", "check", "compare", "profile", "doctor", "knobs")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """conv 3x3 + relu + global average + fully connected, named nodes, on f32[1,3,9,7]."""
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.standard_normal((5, 3, 3, 3)),
        "b1": rng.standard_normal(5),
        "w2": rng.standard_normal((5, 4)),
        "b2": rng.standard_normal(4),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="stem", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], name="stem_relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["score"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 9, 7])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("cli") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def plan(model: pathlib.Path) -> pathlib.Path:
    path = model.with_suffix(".plan")
    tw.build(model, tune="off").save(path)
    return path


def run(*words: object, code: int = 0) -> str:
    """Standard output of a successful command; standard error of one that ends with `code`."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def run_json(*words: object) -> dict[str, Any]:
    answer = json.loads(run(*words, "--json"))
    assert isinstance(answer, dict)
    return answer


def test_help_lists_every_subcommand_quickly() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tensorwright.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name in done.stdout for name in SUBCOMMANDS)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"numpy", "onnx", "llvmlite"}


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_subcommand_has_json_and_help(name: str) -> None:
    assert "--json" in run(name, "--help")


def test_version_is_that_of_the_package() -> None:
    assert run("--version").strip() == f"tensorwright {tw.__version__}"


def test_build_writes_a_plan_beside_the_model(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(model.read_bytes())
    answer = run_json("build", copy, "--tune", "off")
    assert answer["plan"] == str(tmp_path / "copy.plan")
    assert answer["plan_bytes"] == (tmp_path / "copy.plan").stat().st_size
    assert answer["steps"] >= 1


def test_build_for_people_names_the_plan_and_its_memory(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = run("build", model, "-o", tmp_path / "m.plan", "--tune", "off", "--quiet")
    assert text.startswith(str(tmp_path / "m.plan")) and text.splitlines()[1].startswith("memory: ")


def test_run_given_arrays_matches_the_engine(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = np.random.default_rng(3).standard_normal((1, 3, 9, 7)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    answer = run_json("run", plan, "-i", f"image={tmp_path / 'image.npy'}", "-o", tmp_path / "result.npz")
    assert answer["random_inputs"] == [] and answer["outputs"]["score"]["shape"] == [1, 4]
    with np.load(tmp_path / "result.npz") as result:
        np.testing.assert_array_equal(result["score"], tw.load(plan)(image))


def test_run_with_one_seed_twice_gives_equal_outputs(plan: pathlib.Path) -> None:
    assert run_json("run", plan, "--seed", 5) == run_json("run", plan, "--seed", 5)
    assert run_json("run", plan, "--seed", 5) != run_json("run", plan, "--seed", 6)


def test_run_model_without_building_first_works(model: pathlib.Path) -> None:
    assert "score" in run("run", model)


def test_inspect_plan_shows_interface_steps_and_sections(plan: pathlib.Path) -> None:
    facts = run_json("inspect", plan)
    assert facts["producer"] == f"tensorwright {tw.__version__}"
    assert facts["kind"] == "plan" and facts["inputs"] == ["image: f32[1,3,9,7]"]
    steps = facts["targets"]["cpu"]["steps"]
    assert {"stem", "stem_relu", "head"} <= {name for step in steps for name in step["origin"]}
    assert {"meta", "graph", "constants"} <= {section["name"] for section in facts["sections"]}
    assert all(step["name"] in run("inspect", plan, "--workloads") for step in steps)


def test_inspect_model_counts_ops(model: pathlib.Path) -> None:
    facts = run_json("inspect", model)
    assert facts["kind"] == "model" and facts["ops"]["convolution"] == 1
    assert "convolution" in run("inspect", model)


def test_explain_lists_edits_with_reasons_and_steps(model: pathlib.Path) -> None:
    facts = run_json("explain", model)
    edits = [edit for stage in facts["stages"] for edit in stage["edits"]]
    assert edits and all(edit["reason"] and edit["nodes"] for edit in edits)
    assert len(facts["after"]) < len(facts["before"])
    text = run("explain", model)
    assert all(stage["stage"] in text for stage in facts["stages"]) and "after:" in text


def test_profile_times_every_step(plan: pathlib.Path) -> None:
    facts = run_json("profile", plan, "--repeat", 3)
    assert sum(step["share"] for step in facts["steps"]) == pytest.approx(1)
    assert all(step["us"] >= 0 and step["kernel"] for step in facts["steps"])
    assert len(run_json("profile", plan, "--repeat", 2, "--top", 1)["steps"]) == 1
    assert "stem" in run("profile", plan, "--repeat", 2)


def test_bench_vs_onnxruntime_reports_both(model: pathlib.Path) -> None:
    facts = run_json("bench", model, "--vs", "onnxruntime", "--seconds", 0.02, "--rounds", 2, "--tune", "off")
    assert set(facts["runtimes"]) == {"tensorwright", "onnxruntime"}
    for row in facts["runtimes"].values():
        assert row["min_us"] <= row["p50_us"] <= row["p90_us"] <= row["p99_us"]
        assert row["relative_difference"] < 1e-4


@pytest.mark.parametrize("target", ["cpu:avx2", "reference"])
def test_bench_other_target_times_that_target(model: pathlib.Path, tmp_path: pathlib.Path, target: str) -> None:
    words = ["--target", target, "--seconds", 0.01, "--rounds", 1]
    facts = run_json("bench", model, *words, "--tune", "off")
    assert facts["target"] == target and facts["runtimes"]["tensorwright"]["samples"] >= 5
    plan = tmp_path / "other.plan"
    assert run_json("build", model, "-o", plan, "--target", target, "--tune", "off")["target"] == target
    made_for = [native["fingerprint"].split("|")[1] for native in run_json("inspect", plan)["targets"].values()]
    assert made_for == ([] if target == "reference" else ["avx2"])


def test_bench_for_people_names_peers_that_are_missing(
    plan: pathlib.Path, model: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "is_installed", lambda runtime: False)
    text = run("bench", model, "--vs", "openvino", "--seconds", 0.01, "--rounds", 1, "--tune", "off")
    assert "openvino is not installed: pip install 'tensorwright[bench]'" in text


def test_bench_plan_against_peers_is_refused(plan: pathlib.Path) -> None:
    assert "B112" in run("bench", plan, "--vs", "onnxruntime", code=2)


def test_bench_unknown_peer_is_refused(model: pathlib.Path) -> None:
    assert "B111 cannot compare with abacus" in run("bench", model, "--vs", "abacus", code=2)


def test_figures_of_two_rounds_take_the_median_of_medians() -> None:
    fast, slow = peers.Timing((1.0, 2.0, 3.0), 0.1, {}), peers.Timing((5.0, 6.0, 40.0), 0.3, {})
    row = bench_command.figures([fast, slow])
    assert (row["median_us"], row["min_us"], row["samples"]) == (4.0, 1.0, 6)
    assert row["ready_seconds"] == pytest.approx(0.2) and row["p99_us"] == 40.0


def test_doctor_passes_its_self_test() -> None:
    facts = run_json("doctor")
    assert facts["self_test"]["passed"] and facts["target"]["isa"] in ("avx512", "avx2", "neon")
    assert "self test  passed" in run("doctor")


def test_knobs_lists_the_thread_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORWRIGHT_THREADS", "3")
    knob = next(k for k in run_json("knobs")["knobs"] if k["name"] == "TENSORWRIGHT_THREADS")
    assert knob["value"] == 3 and knob["is_set"]
    assert "3 (set)" in run("knobs")


# -- failures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["build", "run", "bench", "inspect", "explain", "profile"])
def test_missing_file_is_a_typed_error(name: str, tmp_path: pathlib.Path) -> None:
    text = run(name, tmp_path / "nothing.onnx", code=2)
    assert text.startswith("M1") and "Traceback" not in text


def test_error_with_json_is_json_on_stdout(tmp_path: pathlib.Path) -> None:
    result = CliRunner().invoke(app, ["build", str(tmp_path / "nothing.onnx"), "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] == "ModelError"


def test_error_with_debug_shows_the_traceback(tmp_path: pathlib.Path) -> None:
    assert "Traceback" in run("build", tmp_path / "nothing.onnx", "--debug", code=2)


def test_damaged_plan_is_a_plan_error(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    broken = tmp_path / "broken.plan"
    broken.write_bytes(plan.read_bytes()[:-100])
    assert run("run", broken, code=2).startswith("P1")


def test_wrong_command_line_is_a_usage_error() -> None:
    assert "No such option" in run("build", "m.onnx", "--nonsense", code=2)


def test_interrupt_exits_with_130(model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tw, "build", interrupted)
    assert "interrupted" in run("build", model, code=130)


def test_unforeseen_error_is_reported_as_ours(model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(tw, "build", broken)
    assert run("build", model, code=2).startswith("X101 ZeroDivisionError: oops")


@pytest.mark.parametrize(("given", "codes"), [(["nope=x.npy"], "I111"), (["{image}"], "I102 I103 I104 I105")])
def test_run_bad_input_is_an_input_error(
    plan: pathlib.Path, tmp_path: pathlib.Path, given: list[str], codes: str
) -> None:
    np.save(tmp_path / "image.npy", np.zeros((2, 2), np.float32))
    words = [word.format(image=tmp_path / "image.npy") for word in given]
    assert run("run", plan, "-i", *words, code=2).split()[0] in codes


def test_run_unknown_input_name_is_refused(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3, np.float32))
    assert run("run", plan, "-i", f"picture={tmp_path / 'x.npy'}", code=2).startswith("I112")


@pytest.mark.parametrize("text", ["data", ":1x2", "data:1x", "data:axb", "data:-1x3"])
def test_shape_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="I110"):
        parse_shapes([text])


def test_shapes_with_colons_in_names_are_read() -> None:
    assert parse_shapes(["in:0:1x3x224", "b:7", "scalar:"]) == {"in:0": (1, 3, 224), "b": (7,), "scalar": ()}
    assert parse_shapes([]) is None


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (1_725_330, "1.65 MiB"), (5 << 40, "5120 GiB")]
)
def test_bytes_text_has_a_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text
