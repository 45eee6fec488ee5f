# SPDX-License-Identifier: Apache-2.0
"""Loading: native code where it fits, code made again with one line where it does not, errors for anything else."""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
import types
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.errors import PlanError, TargetError
from tensorwright.plan.plan import Plan, plan_bytes
from tensorwright.runtime.load import load
from tests.runtime.tiny import plan_of, sample

TINY = sample()
PLAN = plan_of(TINY)
FOREIGN = replace(PLAN, native={"cpu": replace(PLAN.native["cpu"], fingerprint="riscv|v|u|0")})
FEEDS = TINY.feeds(np.random.default_rng(9))
BUILDER = (
    "onnx",
    "google.protobuf",
    "rich",
    "typer",
    "tensorwright.importers",
    "tensorwright.passes",
    "tensorwright.lower",
    "tensorwright.tune",
    "tensorwright.builder",
    "tensorwright.ops",
    "tensorwright.network",
    "tensorwright.backends.cpu.kernels",
    "tensorwright.backends.cpu.assemble",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stands in for the builder; records (plan name, target) of every request and answers with good code."""
    requests = []

    def respecialise(plan: Plan, *, target: str) -> Plan:
        requests.append((plan.name, target))
        return replace(plan, native=PLAN.native)

    builder = types.ModuleType("tensorwright.builder")
    builder.respecialise = respecialise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorwright.builder", builder)
    return requests


def test_native_plan_loads_without_the_builder(asked: list[tuple[str, str]], caplog: pytest.LogCaptureFixture) -> None:
    with load(plan_bytes(PLAN)) as engine:
        np.testing.assert_array_equal(engine.run(FEEDS)["first"], TINY.expected(FEEDS)["first"])
    assert not asked and not caplog.records


@pytest.mark.parametrize(
    ("plan", "how", "reason"),
    [
        (FOREIGN, "use", f"it holds code for riscv|v|u|0, this is {CpuTarget.probe().fingerprint}"),
        (replace(PLAN, native={}), "use", f"it holds no code for {CpuTarget.probe().fingerprint}"),
        (PLAN, "ignore", "its native code was not to be used"),
    ],
)
def test_plan_without_fitting_code_is_made_again_and_says_so(
    asked: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
    plan: Plan,
    how: Literal["use", "ignore"],
    reason: str,
) -> None:
    with caplog.at_level(logging.WARNING, "tensorwright"), load(plan_bytes(plan), native=how) as engine:
        np.testing.assert_array_equal(engine.run(FEEDS)["first"], TINY.expected(FEEDS)["first"])
        assert asked == [("tiny", "cpu")]
        assert [r.getMessage() for r in caplog.records] == list(engine.notes) == engine.report()["notes"]
        assert engine.notes[0].startswith(f"plan in memory: {reason}; code was made again")


def test_overridden_target_is_passed_on(asked: list[tuple[str, str]]) -> None:
    isa = "avx2" if CpuTarget.probe().isa != "avx2" else "avx512"
    load(plan_bytes(PLAN), target=f"cpu:{isa}").close()
    assert asked == [("tiny", f"cpu:{isa}")]


def test_plan_for_an_overridden_target_loads_with_that_target(asked: list[tuple[str, str]]) -> None:
    native = replace(PLAN.native["cpu"], fingerprint=CpuTarget.parse("cpu:avx2").fingerprint)
    if not CpuTarget.parse("cpu:avx2").runs_here:
        pytest.skip("this machine runs no AVX2 code")
    load(plan_bytes(replace(PLAN, native={"cpu": native})), target="cpu:avx2").close()
    assert not asked


def test_unknown_target_is_refused() -> None:
    with pytest.raises(TargetError):
        load(plan_bytes(PLAN), target="tpu")


def test_foreign_plan_without_a_builder_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorwright.builder", None)
    with pytest.raises(PlanError, match="the builder that would make it is not installed") as caught:
        load(plan_bytes(FOREIGN))
    assert caught.value.code == "P105" and "riscv" in caught.value.why[0]


def test_any_damage_to_a_plan_file_is_a_plan_error(tmp_path: pathlib.Path) -> None:
    good, path = plan_bytes(PLAN), tmp_path / "m.plan"
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    for i in range(150):
        data = bytearray(good)
        if i % 3:
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        else:
            del data[int(rng.integers(0, len(data))) :]
        path.write_bytes(data)
        with pytest.raises(PlanError) as caught:
            load(path)
        assert caught.value.code in ("P101", "P102", "P103", "P104"), f"seed {seed}"
        assert caught.value.where == str(path)


def test_absent_path_is_a_plan_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PlanError, match="P107"):
        load(tmp_path / "absent.plan")


def test_loading_and_running_in_a_fresh_process_imports_no_builder(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(plan_bytes(PLAN))
    program = (
        "import sys, numpy as np, tensorwright as tw\n"
        f"engine = tw.load({str(path)!r})\n"
        "engine(np.zeros(37, np.float32), np.zeros(37, np.float32))\n"
        f"print(sorted(m for m in sys.modules if m.startswith({BUILDER!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
