# SPDX-License-Identifier: Apache-2.0
"""`compare`, `check` and `surgeon` as users call them: answers, JSON, exit codes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from tensorwright.cli.compare import parse_tolerance
from tensorwright.cli.main import app
from tensorwright.compare.difference import Tolerance
from tensorwright.errors import InputError
from tests.importers.models import model as make_model
from tests.importers.models import node, runtime_outputs
from tests.networks.nets import NETS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mobile(tmp_path: pathlib.Path) -> str:
    onnx.save(NETS["mobile"](), tmp_path / "mobile.onnx")
    return "mobile.onnx"


@pytest.fixture
def odd(tmp_path: pathlib.Path) -> str:
    """A model with two operators that nobody has."""
    nodes = [
        node("Odd", ["x"], ["a"], name="first", domain="somewhere"),
        node("Relu", ["a"], ["b"]),
        node("Strange", ["b"], ["y"], name="second", domain="somewhere"),
    ]
    proto = make_model(nodes, {"x": (2, 3)})
    proto.opset_import.append(helper.make_opsetid("somewhere", 1))
    onnx.save(proto, tmp_path / "odd.onnx")
    return "odd.onnx"


@pytest.fixture
def host(tmp_path: pathlib.Path) -> str:
    """A model whose middle node has no kernel."""
    nodes = [
        node("Tanh", ["x"], ["a"], name="before"),
        node("Binarizer", ["a"], ["d"], name="above", domain="ai.onnx.ml", threshold=0.5),
        node("Exp", ["d"], ["y"], name="behind"),
    ]
    proto = make_model(nodes, {"x": (2, 3, 3)})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(proto, tmp_path / "host.onnx")
    return "host.onnx"


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def call_json(*words: object, code: int = 0) -> dict[str, Any]:
    answer = json.loads(call(*words, "--json", code=code))
    assert isinstance(answer, dict)
    return answer


# -- compare --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_compare_with_a_runtime_agrees(runtime: str, mobile: str) -> None:
    answer = call_json("compare", mobile, "--with", runtime, "--tune", "off", "--localise")
    (output,) = answer["outputs"]
    assert answer["passed"] and answer["with"] == runtime and output["passed"] and 0 < output["max_abs"] < 1e-3
    assert answer["localised"]["verdict"] == "every step agrees" and answer["localised"]["first_bad"] is None


def test_compare_below_rounding_exits_with_one_and_shows_a_histogram(mobile: str) -> None:
    text = call("compare", mobile, "--with", "onnxruntime", "--tune", "off", "--tolerance", "1e-12", code=1)
    assert "MISMATCH" in text and "absolute errors:" in text and "#" in text
    assert "it would pass with rtol" in text and "it would pass with atol" in text and "first at [" in text


def test_compare_localise_below_rounding_shows_every_step(mobile: str) -> None:
    words = ("compare", mobile, "--with", "reference", "--tune", "off", "--tolerance", "1e-12", "--localise")
    text = call(*words, code=1)
    assert "beyond the tolerance" in text and "every kernel is right" in text and "BAD" not in text


def test_compare_reads_given_inputs(mobile: str) -> None:
    shape = [d.dim_value for d in NETS["mobile"]().graph.input[0].type.tensor_type.shape.dim]
    np.save("x.npy", np.zeros(shape, np.float32))
    answer = call_json("compare", mobile, "--with", "onnxruntime", "--tune", "off", "--input", "x.npy")
    assert answer["random_inputs"] == [] and answer["passed"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--with", "abacus"), "B111"),
        (("--with", "reference", "--tolerance", "much"), "I115"),
        (("--with", "reference", "--target", "reference", "--localise"), "B113"),
    ],
)
def test_compare_with_wrong_options_says_so(words: tuple[str, ...], code: str, mobile: str) -> None:
    assert call_json("compare", mobile, "--tune", "off", *words, code=2)["code"] == code


def test_parse_tolerance_takes_one_or_two_numbers() -> None:
    assert parse_tolerance("1e-3,1e-5") == Tolerance(1e-3, 1e-5)
    assert parse_tolerance("0.5") == Tolerance(0.5, 0.5)
    for text in ("", "1,2,3", "-1", "nan", "inf"):
        with pytest.raises(InputError):
            parse_tolerance(text)


# -- check ----------------------------------------------------------------------------------------------------
def test_check_of_a_supported_model_ends_with_zero(mobile: str) -> None:
    answer = call_json("check", mobile, "--strict")
    assert answer["ok"] and answer["problems"] == [] and answer["host_steps"] == [] and answer["nodes"] > 5
    assert "nodes run as generated code" in call("check", mobile)


def test_check_lists_every_unsupported_node_at_once(odd: str) -> None:
    answer = call_json("check", odd, code=2)
    assert not answer["ok"] and len(answer["problems"]) == 2
    assert all(any(name in problem for problem in answer["problems"]) for name in ("first", "second"))
    text = call("check", odd, code=2)
    assert "somewhere.Odd" in text and "somewhere.Strange" in text


def test_check_names_host_steps_and_fails_only_when_strict(host: str) -> None:
    answer = call_json("check", host)
    (step,) = answer["host_steps"]
    assert answer["ok"] and step["origin"] == ["above"] and step["op"] == "ai.onnx.ml.Binarizer" and step["reason"]
    assert call_json("check", host, "--strict", code=3) == answer
    assert "above" in call("check", host, "--strict", code=3)


def test_compare_localise_walks_through_host_steps(host: str) -> None:
    answer = call_json("compare", host, "--with", "onnxruntime", "--tune", "off", "--localise")
    steps = answer["localised"]["steps"]
    assert answer["passed"] and answer["localised"]["verdict"] == "every step agrees"
    (on_host,) = [step for step in steps if step["kernel"] == "host ai.onnx.ml.Binarizer"]
    assert on_host["origin"] == ["above"] and len(steps) >= 3


def test_check_of_open_dims_asks_for_one_size() -> None:
    proto = make_model([node("Relu", ["x"], ["a"]), node("Exp", ["a"])], {"x": ("batch", 3)})
    onnx.save(proto, "open.onnx")
    assert call_json("check", "open.onnx", "--strict")["nodes"] >= 1


def test_check_of_a_missing_file_is_an_error() -> None:
    assert call_json("check", "nothing.onnx", code=2)["code"] == "M101"


# -- surgeon --------------------------------------------------------------------------------------------------
def test_surgeon_commands_write_models_that_run(mobile: str) -> None:
    before = NETS["mobile"]()
    (source,) = [i.name for i in before.graph.input]
    (target,) = [o.name for o in before.graph.output]
    x = np.random.default_rng(1).standard_normal(
        [d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim], dtype=np.float32
    )
    (want,) = runtime_outputs(before, {source: x})

    clean = call_json("surgeon", "sanitize", mobile, "--fold-constants", "-o", "clean.onnx")
    assert clean["nodes"] == clean["nodes_after"] <= clean["nodes_before"] and clean["written"] == ["clean.onnx"]
    (got,) = runtime_outputs(onnx.load("clean.onnx"), {source: x})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

    call("surgeon", "insert", "clean.onnx", "--on", target, "--op", "LeakyRelu", "--attr", "alpha=0.0", "-o", "i.onnx")
    (got,) = runtime_outputs(onnx.load("i.onnx"), {source: x})
    np.testing.assert_allclose(got, np.maximum(want, 0), rtol=1e-5, atol=1e-6)

    relu = next(n for n in onnx.load("i.onnx").graph.node if n.op_type == "LeakyRelu")
    call("surgeon", "replace", "i.onnx", "--node", relu.name, "--op", "Neg", "-o", "r.onnx")
    (got,) = runtime_outputs(onnx.load("r.onnx"), {source: x})
    np.testing.assert_allclose(got, -want, rtol=1e-5, atol=1e-6)

    call("surgeon", "extract", "r.onnx", "--inputs", relu.input[0], "--outputs", target, "-o", "e.onnx")
    (got,) = runtime_outputs(onnx.load("e.onnx"), {relu.input[0]: want})
    np.testing.assert_array_equal(got, -want)


def test_surgeon_keeps_external_data_external(mobile: str) -> None:
    onnx.save(NETS["mobile"](), "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0)
    answer = call_json("surgeon", "sanitize", "big.onnx", "--fold-constants", "-o", "out.onnx")
    assert answer["written"] == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model("out.onnx", full_check=True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("extract", "--inputs", "nowhere", "--outputs", "nothing"), "M120"),
        (("insert", "--on", "data", "--op", "NoSuchOperator"), "M121"),
        (("insert", "--on", "data", "--op", "Relu", "--attr", "alpha"), "I114"),
        (("replace", "--op", "Relu"), "M125"),
        (("sanitize", "--size-limit", "huge"), "B122"),
    ],
)
def test_surgeon_with_wrong_words_writes_nothing(words: tuple[str, ...], code: str, mobile: str) -> None:
    command, *rest = words
    assert call_json("surgeon", command, mobile, *rest, "-o", "out.onnx", code=2)["code"] == code
    assert not pathlib.Path("out.onnx").exists()
