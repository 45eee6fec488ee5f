# SPDX-License-Identifier: Apache-2.0
"""Whole networks against ONNX Runtime: built and tuned, saved, loaded, and made again for another instruction set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorwright as tw
from tests.networks.nets import NETS, feed

ort = pytest.importorskip("onnxruntime", reason="the oracle of whole networks")


@pytest.mark.parametrize("name", NETS)
def test_network_matches_onnxruntime_tuned_saved_and_respecialised(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = NETS[name]()
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    feeds = feed(model, seed)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    (want,) = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    output = model.graph.output[0].name

    def check(engine: tw.Engine, what: str) -> None:
        for _ in range(2):
            got = engine.run(feeds)[output]
            error = np.abs(got - want).max() / np.abs(want).max()
            assert got.shape == want.shape and error < 1e-4, f"{name} {what}: error {error}, seed {seed}"

    with tw.build(model, timing_cache=tmp_path / "tune.json") as engine:
        check(engine, "tuned")
        engine.save(tmp_path / "net.plan")
    with tw.load(tmp_path / "net.plan") as engine:
        check(engine, "loaded")
        assert not engine.notes
    with tw.load(tmp_path / "net.plan", target="cpu:avx2") as engine:
        check(engine, "for AVX2")
        assert len(engine.notes) == 1 and "avx2" in engine.notes[0]


def test_one_thread_gives_the_same_bits_as_two() -> None:
    model = NETS["residual"]()
    feeds = feed(model, 5)
    with tw.build(model, tune="off", threads=1) as one, tw.build(model, tune="off") as two:
        (a,), (b,) = one.run(feeds).values(), two.run(feeds).values()
    np.testing.assert_array_equal(a, b)


def test_same_choices_give_identical_plan_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with tw.build(NETS["mobile"](), timing_cache=tmp_path / "tune.json") as engine:
            engine.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("name", ["mobile", "encoder"])
def test_reference_target_agrees_with_native_code_and_its_plan_becomes_one(name: str, tmp_path: Path) -> None:
    model = NETS[name]()
    feeds = feed(model, 9)
    with tw.build(model, target="reference") as engine:
        (want,) = engine.run(feeds).values()
        assert engine.threads == 1 and sum(step.us for step in engine.profile(feeds, repeat=2)) > 0
        engine.save(tmp_path / "portable.plan")
    for target in ("cpu", "reference"):
        with tw.load(tmp_path / "portable.plan", target=target) as engine:
            (got,) = engine.run(feeds).values()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
