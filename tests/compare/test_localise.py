# SPDX-License-Identifier: Apache-2.0
"""A kernel that is broken on purpose is named, and none of those that suffer from it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import tensorwright as tw
from tensorwright import builder
from tensorwright.backends.base import Accept, CpuKernel, KernelFamily, Reject, Workload
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.cli.main import app
from tensorwright.compare import localise as module
from tensorwright.compare.difference import Tolerance
from tensorwright.compare.localise import Localised, localise
from tensorwright.errors import BuildError
from tensorwright.ir.op import Array
from tests.importers.models import model, node
from tests.networks.nets import NETS, feed


class Spoiled(KernelFamily):  # type: ignore[type-arg]
    """A family whose kernels of some workloads use weights that are a little off."""

    def __init__(self, family: KernelFamily, spoils: Callable[[Workload], bool]) -> None:  # type: ignore[type-arg]
        self.inner, self.spoils = family, spoils
        self.name, self.version, self.config = family.name, family.version, family.config

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        return self.inner.accepts(w, t)

    def candidates(self, w: Workload, t: CpuTarget) -> Iterable[object]:
        return self.inner.candidates(w, t)

    def emit(self, w: Workload, c: object, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        used = {i: a * np.float32(1.01) if a.ndim > 1 else a for i, a in constants.items()}
        return self.inner.emit(w, c, t, symbol, used if self.spoils(w) else constants)


def spoil(monkeypatch: pytest.MonkeyPatch, spoils: Callable[[Workload], bool]) -> None:
    families = tuple(Spoiled(family, spoils) for family in FAMILIES)
    monkeypatch.setattr(builder, "FAMILIES", families)
    monkeypatch.setattr(module, "FAMILIES", families)


def walked(name: str, folder: pathlib.Path, tolerance: Tolerance = Tolerance(), seed: int = 4) -> Localised:  # noqa: B008
    proto = NETS[name]() if name in NETS else segmented()
    feeds = feed(proto, seed)
    with tw.build(proto, target="reference") as engine:
        expected = engine.run(feeds)
    with tw.build(proto, tune="off", timing_cache=folder / "tune.json") as engine:
        got = engine.run(feeds)
        result = localise(engine.plan, feeds, got, expected, tolerance, threads=engine.threads)
    assert set(got) == set(expected)
    return result


def segmented() -> onnx.ModelProto:
    """Three native segments with a host step between each two."""
    rng = np.random.default_rng(3)
    weights = {f"w{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate([(6, 8), (8, 10), (10, 3)])}
    scaled = {"offset": [0.1], "scale": [0.5], "domain": "ai.onnx.ml"}
    nodes = [
        node("MatMul", ["x", "w0"], ["a"], name="first"),
        node("Scaler", ["a"], ["b"], name="host_one", **scaled),
        node("MatMul", ["b", "w1"], ["c"], name="second"),
        node("Tanh", ["c"], ["d"], name="tanh"),
        node("Scaler", ["d"], ["e"], name="host_two", **scaled),
        node("MatMul", ["e", "w2"], ["y"], name="third"),
    ]
    result = model(nodes, {"x": (4, 6)}, constants=weights)
    for name, width in {"b": 8, "e": 10}.items():  # ONNX infers nothing behind a Scaler
        result.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, width]))
    result.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return result


@pytest.mark.parametrize("name", [*NETS, "segmented"])
def test_sound_engine_has_no_bad_step(name: str, tmp_path: pathlib.Path) -> None:
    result = walked(name, tmp_path)
    assert result.faulty is None and result.beyond is None and result.verdict == "every step agrees"
    assert len(result.steps) > 3 and all(output.passed for output in result.optimiser)
    json.dumps(result.as_dict(), allow_nan=False)


def test_walk_ends_with_the_outputs_of_the_engine(tmp_path: pathlib.Path) -> None:
    """What the steps gather is what the engine computes: the walk is of this engine, not of another one."""
    proto = NETS["inception"]()
    feeds = feed(proto, 2)
    with tw.build(proto, tune="off", timing_cache=tmp_path / "tune.json") as engine:
        walk = module._Walk(engine.plan, CpuTarget.probe(), Tolerance(), engine.threads)
        list(walk.steps(feeds))
        for name, array in engine.run(feeds).items():
            np.testing.assert_array_equal(walk.got[name], array)


def test_broken_kernel_is_named_and_its_successors_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def middle(w: Workload) -> bool:  # the 3x3 convolution of the bottleneck: 16 to 16 channels
        return any(o is not None and o.constant and o.shape == (16, 16, 3, 3) for o in w.inputs)

    spoil(monkeypatch, middle)
    result = walked("residual", tmp_path, Tolerance(1e-4, 1e-4))
    convs = [n.name for n in NETS["residual"]().graph.node if n.op_type == "Conv"]
    assert result.faulty is not None
    (bad,) = [step for step in result.steps if step.fault]
    assert bad is result.faulty is result.beyond
    sizes = {n.name: t.dims for n in NETS["residual"]().graph.node for t in NETS["residual"]().graph.initializer
             if n.op_type == "Conv" and n.input[1] == t.name}  # fmt: skip
    wanted = next(name for name in convs if list(sizes[name]) == [16, 16, 3, 3])
    assert wanted in bad.origin and not set(convs) - {wanted} & set(bad.origin)
    assert wanted in result.verdict and "the first bad node" in result.verdict
    behind = result.steps[result.steps.index(bad) + 1 :]
    assert behind and all(step.local.passed and not step.fault for step in behind)
    assert any(not step.gathered.passed for step in behind)
    assert all(output.passed for output in result.optimiser)


@pytest.mark.parametrize(("shape", "wanted"), [((6, 8), "first"), ((8, 10), "second"), ((10, 3), "third")])
def test_broken_kernel_is_named_in_whichever_segment_it_is(
    shape: tuple[int, ...], wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    spoil(monkeypatch, lambda w: any(o is not None and o.constant and o.shape == shape for o in w.inputs))
    result = walked("segmented", tmp_path, Tolerance(1e-4, 1e-4))
    (bad,) = [step for step in result.steps if step.fault]
    assert bad is result.faulty and wanted in bad.origin and wanted in result.verdict
    hosts = [step for step in result.steps if step.kernel.startswith("host ")]
    assert [step.origin for step in hosts] == [("host_one",), ("host_two",)]
    behind = result.steps[result.steps.index(bad) + 1 :]
    assert all(step.local.passed and not step.gathered.passed for step in behind)
    assert all(output.passed for output in (*result.optimiser, *result.program))


def test_command_names_the_broken_kernel_and_draws_a_histogram(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    spoil(monkeypatch, lambda w: any(o is not None and o.constant and o.shape == (8, 10) for o in w.inputs))
    path = tmp_path / "segmented.onnx"
    onnx.save(segmented(), path)
    words = ["compare", str(path), "--with", "onnxruntime", "--tune", "off", "--tolerance", "1e-4", "--localise"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 1 and "the first bad node is second" in shown.output, shown.output
    assert "MISMATCH" in shown.output and "absolute errors:" in shown.output and "BAD" in shown.output
    answer = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    (output,) = answer["outputs"]
    assert not answer["passed"] and "second" in answer["localised"]["first_bad"]
    assert 0 < output["mean_abs"] <= output["max_abs"] and 0 < output["mean_rel"] <= output["max_rel"]
    assert sum(b["count"] for b in output["histogram"]) == output["elements"] == 12


def test_first_of_two_broken_kernels_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    spoil(monkeypatch, lambda w: any(o is not None and o.constant and len(o.shape) == 4 for o in w.inputs))
    result = walked("residual", tmp_path)
    assert result.faulty is result.steps[0] and sum(bool(step.fault) for step in result.steps) > 1


def test_fault_outside_of_kernels_is_blamed_on_optimiser_or_program(tmp_path: pathlib.Path) -> None:
    proto = NETS["mobile"]()
    feeds = feed(proto, 1)
    with tw.build(proto, tune="off", timing_cache=tmp_path / "tune.json") as engine:
        got = engine.run(feeds)
        other = {name: array + 1 for name, array in got.items()}
        passes, program = (localise(engine.plan, feeds, *pair, Tolerance()) for pair in ((got, other), (other, got)))
    assert passes.faulty is None and "TENSORWRIGHT_STOP_AFTER_EDITS" in passes.verdict and not passes.agrees
    assert program.faulty is None and "the engine as a whole" in program.verdict and not program.agrees


def test_tolerance_below_rounding_names_where_it_gathers(tmp_path: pathlib.Path) -> None:
    result = walked("residual", tmp_path, Tolerance(1e-9, 1e-9))
    # The unoptimised network rounds elsewhere, so its outputs are not equal to the last bit either.
    assert result.faulty is None and result.beyond is not None and "every kernel is right" in result.verdict


def test_only_live_values_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    alive: list[int] = []
    memories: list[module._Memory] = []

    class Watched(module._Memory):
        def write(self, views: object, arrays: object) -> None:
            super().write(views, arrays)  # type: ignore[arg-type]
            alive.append(len(self._arena))
            memories.append(self)

    monkeypatch.setattr(module, "_Memory", Watched)
    result = walked("residual", tmp_path)
    assert max(alive) <= 3 < len(result.steps)
    assert all(not memory._arena for memory in memories)


def test_plan_for_another_target_is_refused(tmp_path: pathlib.Path) -> None:
    proto = NETS["encoder"]()
    feeds = feed(proto, 1)
    with tw.build(proto, target="reference") as engine, pytest.raises(BuildError) as caught:
        localise(engine.plan, feeds, {}, engine.run(feeds), Tolerance())
    assert caught.value.code == "B113"
