# SPDX-License-Identifier: Apache-2.0
"""A real network's plan on other targets: code made again gives the same answer, and the new plan is native there."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensorwright as tw
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.plan.plan import plan_bytes


def small_network() -> onnx.ModelProto:
    """Convolution, ReLU, flatten, matrix product: weights that are re-formatted, and a bias that is not."""
    rng = np.random.default_rng(21)
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "b": rng.normal(size=8), "m": rng.normal(size=(288, 10))}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "m"], ["y"], name="dense"),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 6, 6]), ("y", [1, 10]))
    ]
    initial = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("plans")
    with tw.build(small_network(), tune="off", timing_cache=folder / "cache.json") as engine:
        engine.save(folder / "small.plan")
    return folder / "small.plan"


X = np.random.default_rng(4).normal(size=(1, 3, 6, 6)).astype(np.float32)


def test_plan_loaded_where_it_was_built_is_native(plan_file: pathlib.Path) -> None:
    with tw.load(plan_file) as engine:
        assert engine.notes == ()
        assert {s["origin"][0] for s in engine.report()["steps"]} >= {"conv", "dense"}
        assert [origin for step in engine.profile({"x": X}, 2) for origin in step.origin].count("relu") == 1


@pytest.mark.parametrize(("target", "native"), [("cpu:avx2", "use"), ("cpu", "ignore")])
def test_plan_made_again_for_a_target_gives_the_same_answer(
    plan_file: pathlib.Path, tmp_path: pathlib.Path, target: str, native: str
) -> None:
    if not CpuTarget.parse(target).runs_here or (native == "use" and CpuTarget.probe().isa == "avx2"):
        pytest.skip("this machine has no second instruction set")
    with tw.load(plan_file) as engine:
        wanted = engine(X)
    with tw.load(plan_file, target=target, native=native) as engine:  # type: ignore[arg-type]
        assert len(engine.notes) == 1 and "code was made again" in engine.notes[0]
        np.testing.assert_allclose(engine(X), wanted, rtol=1e-4, atol=1e-5)
        engine.save(tmp_path / "again.plan")
    with tw.load(tmp_path / "again.plan", target=target) as engine:
        assert engine.notes == ()
        np.testing.assert_allclose(engine(X), wanted, rtol=1e-4, atol=1e-5)


def test_two_builds_with_equal_choices_write_equal_bytes(plan_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with tw.build(small_network(), tune="off", timing_cache=tmp_path / "cache.json") as engine:
        assert plan_bytes(engine.plan) == plan_file.read_bytes()
