# SPDX-License-Identifier: Apache-2.0
"""The files that other tools read, and the tables that are printed from the same figures."""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw
from tensorwright.cli.twexec.layers import layers_of
from tensorwright.errors import PlanError
from tensorwright.plan.plan import read_plan
from tests.cli.twexec.running import LENET, STAMP, failed, figures, quick

TIMES = {
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"),
    *("h2dMs", "computeMs", "d2hMs", "latencyMs"),
}
LAYERS = ["conv1 + relu1", "pool1", "conv2 + relu2", "pool2", "fc1 + relu3", "fc2", "softmax"]


def test_export_times_has_every_counted_query(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "times.json"
    text = quick(f"--loadEngine={plan}", f"--exportTimes={path}", "--iterations=30", "--streams=2")
    rows = json.loads(path.read_text())
    assert len(rows) == 60 and all(set(row) == TIMES for row in rows)
    for row in rows:
        ends = [row[key] for key in ("startH2dMs", "startEnqMs", "startComputeMs", "startD2hMs", "endD2hMs")]
        assert ends == sorted(ends) and row["endH2dMs"] <= row["startComputeMs"]
        assert row["computeMs"] == pytest.approx(row["endComputeMs"] - row["startComputeMs"], abs=1e-6)
        assert row["latencyMs"] == pytest.approx(row["h2dMs"] + row["computeMs"] + row["d2hMs"], abs=1e-6)
    starts = [row["startH2dMs"] for row in rows]
    assert starts[0] == 0 and starts == sorted(starts)
    compute = sorted(row["computeMs"] for row in rows)
    found = figures(text, "GPU Compute Time")
    assert found["min"] == pytest.approx(compute[0], rel=1e-4) and found["max"] == pytest.approx(compute[-1], rel=1e-4)
    assert found["median"] == pytest.approx(np.median(compute), rel=1e-4)
    assert found["percentile(90%)"] == pytest.approx(compute[60 - 1 - 6], rel=1e-4)


def test_export_profile_and_dump_profile_agree(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "profile.json"
    text = quick(f"--loadEngine={plan}", f"--exportProfile={path}", "--dumpProfile", "--iterations=12")
    head, *rows = json.loads(path.read_text())
    assert head == {"count": 12}
    assert [row["name"] for row in rows] == LAYERS
    assert sum(row["percentage"] for row in rows) == pytest.approx(100)
    for row in rows:
        assert set(row) == {"name", "timeMs", "averageMs", "medianMs", "percentage"}
        assert row["averageMs"] == pytest.approx(row["timeMs"] / 12) and row["timeMs"] > 0
    table = text[text.index("=== Profile (12 iterations ) ===") :].splitlines()
    columns = rf"{STAMP}\[I\] +Time\(ms\) +Avg\.\(ms\) +Median\(ms\) +Time\(%\) +Layer"
    assert re.fullmatch(columns, table[1])
    shown = [
        re.fullmatch(rf"{STAMP}\[I\] +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)   (.*)", line) for line in table[2:10]
    ]
    assert [line.group(5) for line in shown] == [*LAYERS, "Total"]
    assert [float(line.group(1)) for line in shown[:-1]] == pytest.approx([r["timeMs"] for r in rows], abs=0.006)
    assert shown[-1].group(4) == "100.0"


def test_layer_information_is_names_unless_detailed(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "layers.json"
    text = quick(f"--loadEngine={plan}", f"--exportLayerInfo={path}", "--dumpLayerInfo")
    assert json.loads(path.read_text()) == {"Layers": LAYERS, "Bindings": ["image", "probability"]}
    shown = re.findall(rf"^{STAMP}\[I\] (.*)$", text[text.index("Layer Information:") :], re.M)
    assert shown[: len(LAYERS) + 1] == ["Layers:", *LAYERS]
    quick(f"--loadEngine={plan}", f"--exportLayerInfo={path}", "--profilingVerbosity=none")
    assert json.loads(path.read_text())["Layers"] == []


def test_detailed_layer_information_has_what_readers_use(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "layers.json"
    text = quick(
        f"--onnx={LENET}",
        f"--exportLayerInfo={path}",
        "--dumpLayerInfo",
        "--profilingVerbosity=detailed",
        "--skipInference",
    )
    layers = json.loads(path.read_text())["Layers"]
    assert [layer["Name"] for layer in layers] == LAYERS
    for layer in layers:
        assert {"LayerType", "Inputs", "Outputs", "ParameterType", "TacticName", "Metadata", "StreamId"} <= set(layer)
        for tensor in (*layer["Inputs"], *layer["Outputs"]):
            assert set(tensor) == {"Name", "Location", "Dimensions", "Format/Datatype"}
            assert "FP32" in tensor["Format/Datatype"]
    first, full = layers[0], layers[4]
    assert [(t["Name"], t["Dimensions"]) for t in first["Inputs"]] == [("image", [1, 1, 28, 28])]
    assert [(t["Name"], t["Dimensions"]) for t in first["Outputs"]] == [("relu1_out", [1, 20, 24, 24])]
    assert first["Outputs"][0]["Format/Datatype"] == "Channel last FP32 format"
    assert first["ParameterType"] == "Convolution" and first["Operation"] == "convolution+add+relu"
    assert first["Weights"] == {"Type": "FP32", "Count": 500} and first["Bias"] == {"Type": "FP32", "Count": 20}
    assert first["Metadata"] == "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]"
    assert full["Weights"]["Count"] == 800 * 500 and full["TacticName"].startswith("gemm")
    assert "Name: conv1 + relu1, LayerType: ConvolutionAddRelu, Inputs: [{ Name: image, Dimensions: [1,1,28,28]" in text


def test_layers_of_dynamic_host_and_reference_engines_match_their_steps(
    dynamic: pathlib.Path, counting: pathlib.Path
) -> None:
    ranges = {"in:0": tw.Range((1, 3, 4, 8), (2, 3, 4, 8), (4, 3, 9, 8))}
    built = tw.build(dynamic, shapes=ranges, tune="off")
    layers = layers_of(built.plan)
    assert [layer.step for layer in layers] == [step["name"] for step in built.report()["steps"]]
    assert layers[0].inputs[0].dims == (-1, 3, -1, 8) and layers[0].outputs[0].dims == (-1, 4, -1, 8)
    reference = tw.build(counting, target="reference")
    layers = layers_of(reference.plan, is_reference=True)
    assert [layer.step for layer in layers] == [step["name"] for step in reference.report()["steps"]]
    assert {tensor.dtype for layer in layers for tensor in layer.inputs} == {"i64"}


def test_host_steps_are_layers_with_inputs_and_outputs(tmp_path: pathlib.Path) -> None:
    node = helper.make_node("Unique", ["x"], ["y"], name="unique")  # a count that no kernel finds
    relu = helper.make_node("Relu", ["y"], ["z"], name="relu")
    graph = helper.make_graph(
        [node, relu],
        "host",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    model = tmp_path / "host.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    path = tmp_path / "layers.json"
    text = quick(
        f"--onnx={model}", f"--exportLayerInfo={path}", "--profilingVerbosity=detailed", "--dumpProfile", "--dumpOutput"
    )
    layers = json.loads(path.read_text())["Layers"]
    assert {"unique", "relu"} <= {layer["Name"] for layer in layers}
    unique = next(layer for layer in layers if layer["Name"] == "unique")
    assert unique["TacticName"] == "numpy" and unique["Inputs"][0]["Name"] == "x" and unique["Outputs"]
    assert "of these in NumPy: 1" in text and text.count("NumPy and slow") == 1


def test_export_output_has_flat_values(plan: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path, image = tmp_path / "out.json", np.random.default_rng(2).random((1, 1, 28, 28), np.float32)
    image.tofile(tmp_path / "image.raw")
    quick(f"--loadEngine={plan}", f"--loadInputs=image:{tmp_path / 'image.raw'}", f"--exportOutput={path}")
    (row,) = json.loads(path.read_text())
    assert (row["name"], row["dimensions"]) == ("probability", "1x10")
    np.testing.assert_array_equal(np.float32(row["values"]), tw.load(plan)(image).reshape(-1))


def test_values_that_json_has_not_are_texts(tmp_path: pathlib.Path) -> None:
    node = helper.make_node("Log", ["x"], ["y"], name="log")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    model = tmp_path / "log.onnx"
    graph = helper.make_graph([node], "log", info[:1], info[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    np.array([-1, 0, 1], "<f4").tofile(tmp_path / "x.raw")
    path = tmp_path / "out.json"
    quick(f"--onnx={model}", f"--loadInputs=x:{tmp_path / 'x.raw'}", f"--exportOutput={path}")
    assert json.loads(path.read_text())[0]["values"] == ["NaN", "-Infinity", 0.0]


def test_raw_bindings_can_be_loaded_again(
    plan: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick(f"--loadEngine={plan}", "--dumpRawBindingsToFile")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["image.input.1.1.28.28.float.raw", "probability.output.1.10.float.raw"]
    image = np.fromfile(names[0], np.float32).reshape(1, 1, 28, 28)
    np.testing.assert_array_equal(np.fromfile(names[1], np.float32), tw.load(plan)(image).reshape(-1))
    quick(f"--loadEngine={plan}", f"--loadInputs=image:{names[0]}", "--dumpRawBindingsToFile")


# -- files that cannot be ---------------------------------------------------------------------------
WRITES = ("saveEngine", "exportTimes", "exportOutput", "exportProfile", "exportLayerInfo", "timingCacheFile")


@pytest.mark.parametrize("flag", WRITES)
def test_file_that_cannot_be_written_is_found_before_the_build(flag: str, tmp_path: pathlib.Path) -> None:
    error = failed(f"--onnx={LENET}", f"--{flag}={tmp_path / 'no' / 'file'}")
    assert error.startswith("T123 ") and f"--{flag}: {tmp_path}/no/file: its folder does not exist" in error
    error = failed(f"--onnx={LENET}", f"--{flag}={tmp_path}")
    assert f"--{flag}: {tmp_path}: it is there already, and is no regular file" in error
    assert list(tmp_path.iterdir()) == []


def test_file_would_replace_another(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(LENET.read_bytes())
    error = failed(f"--onnx={model}", f"--saveEngine={tmp_path}/./m.onnx")
    assert "it is the file of --onnx" in error and model.read_bytes() == LENET.read_bytes()
    error = failed(f"--onnx={LENET}", f"--exportTimes={tmp_path}/a", f"--exportOutput={tmp_path}/a")
    assert "it is the file of --exportTimes" in error


@pytest.mark.parametrize("flag", ["onnx", "deploy", "tf", "darknet", "loadEngine", "engine"])
def test_file_that_is_not_there_is_named(flag: str, tmp_path: pathlib.Path) -> None:
    error = failed(f"--{flag}={tmp_path / 'none.onnx'}")
    assert error.startswith("T123 ") and "there is no such file" in error


@pytest.mark.parametrize(
    ("flag", "suffix", "code"),
    [
        ("onnx", ".onnx", "M103"),
        ("deploy", ".prototxt", "M103"),
        ("darknet", ".cfg", "M1"),
        ("loadEngine", ".plan", "P1"),
    ],
)
def test_foreign_file_is_refused_and_leaves_nothing(flag: str, suffix: str, code: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(b"\x01\x02 this is nothing of the kind {")
    assert failed(f"--{flag}={path}", f"--saveEngine={tmp_path / 'new.plan'}").startswith(code)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_defect_of_ours_is_reported_as_such(plan: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("tensorwright.cli.twexec.measure.make_streams", broken)
    text = quick(f"--loadEngine={plan}", "--verbose", code=1)
    assert "[E] X101 KeyError: 'surprise'" in text and "[V] Traceback" in text


def test_interrupted_build_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tensorwright.builder.make_plan", interrupted)
    assert "[E] interrupted" in quick(f"--onnx={LENET}", f"--saveEngine={tmp_path / 'x.plan'}", code=1)
    assert list(tmp_path.iterdir()) == []


def test_plan_that_describes_no_steps_is_malformed(plan: pathlib.Path) -> None:
    found = read_plan(plan)
    native = replace(found.native["cpu"], program={**found.native["cpu"].program, "buffers": []})
    with pytest.raises(PlanError, match="P106"):
        layers_of(replace(found, native={"cpu": native}))


def test_lack_of_memory_is_told(plan: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError("64 GiB")

    monkeypatch.setattr("tensorwright.cli.twexec.measure.make_streams", greedy)
    assert failed(f"--loadEngine={plan}").startswith("T124 there is not enough memory")
