# SPDX-License-Identifier: Apache-2.0
"""A kernel that is broken on purpose is named, and none of those that suffer from it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import builder
from tensorwright.backends.base import Accept, CpuKernel, KernelFamily, Reject, Workload
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.compare import localise as module
from tensorwright.compare.difference import Tolerance
from tensorwright.compare.localise import Localised, localise
from tensorwright.errors import BuildError
from tensorwright.ir.op import Array
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
    model = NETS[name]()
    feeds = feed(model, seed)
    with tw.build(model, target="reference") as engine:
        expected = engine.run(feeds)
    with tw.build(model, tune="off", timing_cache=folder / "tune.json") as engine:
        got = engine.run(feeds)
        result = localise(engine.plan, feeds, got, expected, tolerance, threads=engine.threads)
    assert set(got) == set(expected)
    return result


@pytest.mark.parametrize("name", NETS)
def test_sound_engine_has_no_bad_step(name: str, tmp_path: pathlib.Path) -> None:
    result = walked(name, tmp_path)
    assert result.faulty is None and result.beyond is None and result.verdict == "every step agrees"
    assert len(result.steps) > 3 and all(output.passed for output in result.optimiser)
    json.dumps(result.as_dict(), allow_nan=False)


def test_walk_ends_with_the_outputs_of_the_engine(tmp_path: pathlib.Path) -> None:
    """What the steps gather is what the engine computes: the walk is of this engine, not of another one."""
    model = NETS["inception"]()
    feeds = feed(model, 2)
    with tw.build(model, tune="off", timing_cache=tmp_path / "tune.json") as engine:
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


def test_first_of_two_broken_kernels_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    spoil(monkeypatch, lambda w: any(o is not None and o.constant and len(o.shape) == 4 for o in w.inputs))
    result = walked("residual", tmp_path)
    assert result.faulty is result.steps[0] and sum(bool(step.fault) for step in result.steps) > 1


def test_fault_outside_of_kernels_is_blamed_on_optimiser_or_program(tmp_path: pathlib.Path) -> None:
    model = NETS["mobile"]()
    feeds = feed(model, 1)
    with tw.build(model, tune="off", timing_cache=tmp_path / "tune.json") as engine:
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
    model = NETS["encoder"]()
    feeds = feed(model, 1)
    with tw.build(model, target="reference") as engine, pytest.raises(BuildError) as caught:
        localise(engine.plan, feeds, {}, engine.run(feeds), Tolerance())
    assert caught.value.code == "B113"
