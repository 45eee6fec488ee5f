# SPDX-License-Identifier: Apache-2.0
"""How much memory a network with large weights takes, measured in processes of their own.

The same at 3 GB: docs/how-to/large-models.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw
from tensorwright import memory
from tensorwright.errors import PlanError

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench" / "large_model.py"
MIB = 1 << 20
ALLOWANCE = 24 * MIB  # what a network takes besides weights: LLVM, code, activations

# Does the same with a tiny network first, so that what the process loads once is not counted.
SCRIPT = """
import json, os, pathlib, sys
import numpy as np
import tensorwright as tw

def memory(key):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition(key + ":")[2].split()[0]) << 10

def go(name, told):
    folder = pathlib.Path(sys.argv[1])
    engine = tw.build(folder / f"{name}.onnx", tune="off")
    told["built"], told["built_anon"] = memory("VmHWM"), memory("RssAnon")
    engine.save(folder / f"{name}.plan")
    told["saved"] = memory("VmHWM")
    x = np.ones(engine.inputs[0].static_shape, np.float32)
    first = engine(x)
    engine.close()
    del engine
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    told["before_load"], told["before_load_anon"] = memory("VmRSS"), memory("RssAnon")
    engine = tw.load(folder / f"{name}.plan")
    told["loaded"], told["loaded_anon"] = memory("VmHWM"), memory("RssAnon")
    np.testing.assert_array_equal(engine(x), first)
    told["run_anon"] = memory("RssAnon")
    contexts = [engine.create_context() for _ in range(3)]
    for context in contexts:
        np.testing.assert_array_equal(next(iter(context.run({"x": x}).values())), first)
    told["contexts_anon"], told["context_bytes"] = memory("RssAnon"), contexts[0].memory_bytes

go("tiny", {})
pathlib.Path("/proc/self/clear_refs").write_text("5")
told = {"start": memory("VmRSS"), "start_anon": memory("RssAnon")}
go("large", told)
print(json.dumps(told))
"""


def bench() -> Any:
    """The benchmark's module: it knows how to write models of any size."""
    spec = importlib.util.spec_from_file_location("large_model", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(folder: pathlib.Path) -> dict[str, int]:
    environment = {**os.environ, "TENSORWRIGHT_CACHE": str(folder / "cache"), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert not done.returncode, done.stderr
    told: dict[str, int] = json.loads(done.stdout)
    return told


def check(told: dict[str, int], weights: int, *, packed: int) -> None:
    assert told["built"] - told["start"] <= 1.5 * weights + ALLOWANCE
    assert told["built_anon"] - told["start_anon"] <= packed + ALLOWANCE
    assert told["saved"] - told["start"] <= 1.5 * weights + ALLOWANCE
    assert told["loaded"] - told["before_load"] <= 1.1 * weights + ALLOWANCE, "loading maps the file"
    assert told["run_anon"] - told["before_load_anon"] <= ALLOWANCE, "weights are read where they are mapped"
    assert told["contexts_anon"] - told["run_anon"] <= 3 * told["context_bytes"] + MIB, "contexts share weights"


def test_external_weights_are_in_memory_once(tmp_path: pathlib.Path) -> None:
    module = bench()
    module.write(tmp_path / "tiny.onnx", blocks=1, width=32)
    weights = module.write(tmp_path / "large.onnx", blocks=4, width=1024)
    assert weights > 140 * MIB
    check(measured(tmp_path), weights, packed=weights)


def gemms(path: pathlib.Path, layers: int, width: int) -> int:
    """Write a stack of Gemm with transposed weights inside the file; returns the bytes of its weights."""
    rng = np.random.default_rng(3)
    nodes, weights, x = [], [], "x"
    for i in range(layers):
        w = rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5)
        weights.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True))
        nodes.append(helper.make_node("Gemm", [x, f"w{i}"], [f"y{i}"], f"gemm{i}", transB=1))
        x = f"y{i}"
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (16, width)) for name in ("x", x)]
    graph = helper.make_graph(nodes, "gemms", infos[:1], infos[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return layers * width * width * 4


def test_weights_inside_the_file_that_are_transposed_are_in_memory_once(tmp_path: pathlib.Path) -> None:
    gemms(tmp_path / "tiny.onnx", 1, 32)
    weights = gemms(tmp_path / "large.onnx", 8, 2048)
    assert weights == 128 * MIB
    check(measured(tmp_path), weights, packed=weights)


# -- plans whose weights are in the model's file ------------------------------------------------------
def test_an_engine_whose_model_was_written_over_is_not_saved(tmp_path: pathlib.Path) -> None:
    module = bench()
    path = tmp_path / "m.onnx"
    module.write(path, blocks=1, width=32)
    engine = tw.build(path, tune="off")
    engine.save(tmp_path / "before.plan")
    x = np.ones(engine.inputs[0].static_shape, np.float32)
    before = engine(x)
    with (tmp_path / "m.onnx.data").open("r+b") as file:
        file.write(b"\xff" * 64)
    with pytest.raises(PlanError) as caught:
        engine.save(tmp_path / "after.plan")
    assert caught.value.code == "P109" and not (tmp_path / "after.plan").exists()
    np.testing.assert_array_equal(engine(x), before)
    np.testing.assert_array_equal(tw.load(tmp_path / "before.plan")(x), before)


def test_an_engine_outlives_the_replacement_of_its_model(tmp_path: pathlib.Path) -> None:
    module = bench()
    path, data = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    module.write(path, blocks=1, width=32)
    engine = tw.build(path, tune="off")
    x = np.ones(engine.inputs[0].static_shape, np.float32)
    (tmp_path / "new").write_bytes(bytes(data.stat().st_size))
    (tmp_path / "new").replace(data)
    path.unlink()
    engine.save(tmp_path / "m.plan")
    np.testing.assert_array_equal(tw.load(tmp_path / "m.plan", native="ignore")(x), engine(x))


def test_folded_weights_in_files_give_the_same_plan(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gemms(tmp_path / "m.onnx", 2, 96)
    monkeypatch.setenv("TENSORWRIGHT_CACHE", str(tmp_path))
    plans = []
    for large in (memory.LARGE, 1 << 10):
        monkeypatch.setattr(memory, "LARGE", large)
        engine = tw.build(tmp_path / "m.onnx", tune="off")
        engine.save(tmp_path / "m.plan")
        plans.append((tmp_path / "m.plan").read_bytes())
    assert plans[0] == plans[1]
