# SPDX-License-Identifier: Apache-2.0
"""Probing: instruction sets, caches, control groups, measured ceilings and their cache file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tensorwright.backends.cpu import ceilings as ceilings_module
from tensorwright.backends.cpu import target as target_module
from tensorwright.backends.cpu.ceilings import Ceilings, ceilings, measure_ceilings
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.target import CpuTarget, available_cores, cache_sizes, cgroup_quota, choose_isa
from tensorwright.errors import TargetError
from tensorwright.ir.dtype import DType

AVX2 = dict.fromkeys(("avx2", "fma", "f16c", "bmi", "bmi2"), True)
AVX512 = {**AVX2, **dict.fromkeys(("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"), True)}


@pytest.mark.parametrize(
    "machine, features, isa",
    [
        ("x86_64", AVX512, "avx512"),
        ("AMD64", AVX2, "avx2"),
        ("x86_64", {**AVX512, "avx512vl": False}, "avx2"),
        ("aarch64", {}, "neon"),
        ("arm64", {}, "neon"),
    ],
)
def test_choose_isa_takes_the_widest_complete_set(machine: str, features: dict[str, bool], isa: str) -> None:
    assert choose_isa(machine, features) == isa


@pytest.mark.parametrize(
    "machine, features, code, word",
    [("x86_64", {**AVX2, "fma": False}, "D103", "fma"), ("riscv64", AVX2, "D102", "riscv64")],
)
def test_choose_isa_of_unsupported_machines_says_what_is_missing(
    machine: str, features: dict[str, bool], code: str, word: str
) -> None:
    with pytest.raises(TargetError, match=word) as caught:
        choose_isa(machine, features)
    assert caught.value.code == code
    assert "reference" in caught.value.do


def test_probe_of_another_system_is_a_target_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    with pytest.raises(TargetError, match="D104.*Plan9"):
        target_module._probe_static()


def test_probe_describes_this_machine() -> None:
    host = CpuTarget.probe()
    assert host is CpuTarget.probe()
    assert host is CpuTarget.parse("cpu")
    assert host is CpuTarget.parse(f"cpu:{host.isa}")
    assert host.runs_here
    assert 1 <= host.cores <= len(os.sched_getaffinity(0))
    assert host.l1_bytes <= host.l2_bytes <= host.l3_bytes
    assert 1 < host.gflops < 2000
    assert 0.5 < host.gbytes <= host.cache_gbytes
    json.dumps(host.as_dict())


@pytest.mark.parametrize(
    "text, lanes, registers, arm",
    [("cpu:avx512", 16, 32, False), ("cpu:avx2", 8, 16, False), ("cpu:neon", 4, 32, True)],
)
def test_parse_overrides_the_instruction_set(text: str, lanes: int, registers: int, arm: bool) -> None:
    target = CpuTarget.parse(text)
    assert (target.lanes(DType.f32), target.vector_registers, target.is_arm) == (lanes, registers, arm)
    assert target.lanes(DType.i64) == lanes // 2
    assert compile_object("define void @f() #0 { ret void }", target)


def test_parse_gives_every_instruction_set_its_own_fingerprint() -> None:
    assert len({CpuTarget.parse(f"cpu:{isa}").fingerprint for isa in ("avx512", "avx2", "neon")}) == 3


@pytest.mark.parametrize("text", ["cpu:", "cpu:sse", "cuda", "", "cpu:AVX2", "gpu:avx2", "cpu:avx2:avx2"])
def test_parse_of_unknown_text_is_a_target_error(text: str) -> None:
    with pytest.raises(TargetError, match="D101"):
        CpuTarget.parse(text)


def test_runs_here_follows_architecture_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    avx512, avx2, neon = (CpuTarget.parse(f"cpu:{isa}") for isa in ("avx512", "avx2", "neon"))
    runs = {}
    for host in (avx512, avx2, neon):
        monkeypatch.setattr(CpuTarget, "probe", staticmethod(lambda host=host: host))
        runs[host.isa] = [t.isa for t in (avx512, avx2, neon) if t.runs_here]
    assert runs == {"avx512": ["avx512", "avx2"], "avx2": ["avx2"], "neon": ["neon"]}


def test_roofline_is_the_slower_of_arithmetic_and_traffic() -> None:
    host = CpuTarget.probe()
    assert host.roofline(1e9, 8) == pytest.approx(1 / (host.gflops * host.cores))
    huge = 10.0 * host.l3_bytes
    assert host.roofline(1.0, huge) == pytest.approx(huge / (host.gbytes * 1e9 * host.cores))


# -- caches and control groups -------------------------------------------------------------------------
def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


def test_cache_sizes_reads_data_and_unified_caches(tmp_path: Path) -> None:
    levels = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "Unified", "1G")]
    files = {
        f"index{i}/{name}": value
        for i, level in enumerate(levels)
        for name, value in zip(("level", "type", "size"), level, strict=True)
    }
    assert cache_sizes(write(tmp_path, files)) == (48 << 10, 2 << 20, 1 << 30)


@pytest.mark.parametrize(
    "files, sizes",
    [
        ({}, (32 << 10, 1 << 20, 8 << 20)),
        ({"index0/level": "one", "index0/type": "Data", "index0/size": "1K"}, (32 << 10, 1 << 20, 8 << 20)),
        ({"index0/level": "2", "index0/type": "Unified", "index0/size": "512K"}, (32 << 10, 512 << 10, 512 << 10)),
    ],
)
def test_cache_sizes_without_information_are_common_ones(
    tmp_path: Path, files: dict[str, str], sizes: tuple[int, int, int]
) -> None:
    assert cache_sizes(write(tmp_path, files)) == sizes


@pytest.mark.parametrize(
    "membership, files, quota",
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "250000 100000"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/gone", {}, None),
        ("4:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("0::/a", {"a/cpu.max": "garbage"}, None),
        ("no such line", {}, None),
    ],
)
def test_cgroup_quota_is_the_tightest_limit(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    own = tmp_path / "self"
    own.write_text(membership + "\n")
    assert cgroup_quota(write(tmp_path / "fs", files), own) == quota
    assert cgroup_quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(
    "quota, siblings, cores",
    [(None, ["0,2", "1,3", "0,2", "1,3"], 2), (1.5, ["0", "1", "2", "3"], 1), (0.2, ["0"], 1), (8.0, ["0", "1"], 2)],
)
def test_available_cores_counts_cores_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, siblings: list[str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(len(siblings))))
    monkeypatch.setattr(target_module, "_siblings", lambda cpu: siblings[cpu])
    monkeypatch.setattr(target_module, "cgroup_quota", lambda *_: quota)
    assert available_cores() == cores


# -- ceilings -------------------------------------------------------------------------------------------
@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Ceilings with a scripted measurement and their own cache folder; counts the measurements."""
    calls: list[int] = []

    def fake(_: CpuTarget) -> Ceilings:
        calls.append(1)
        return Ceilings(100.0, 10.0, 50.0)

    monkeypatch.setenv("TENSORWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ceilings_module, "measure_ceilings", fake)
    return calls


@pytest.mark.parametrize(
    "damage",
    [
        None,
        "",
        "{",
        "[]",
        '{"x": 1}',
        "null",
        '{"CPU": {"gflops": 0, "gbytes": 1, "cache_gbytes": 1}}',
        '{"CPU": {"gflops": "fast", "gbytes": 1, "cache_gbytes": 1}}',
    ],
)
def test_ceilings_are_measured_once_and_again_when_the_file_is_damaged(
    measured: list[int], tmp_path: Path, damage: str | None
) -> None:
    host = CpuTarget.probe()
    assert ceilings(host) == ceilings(host) == Ceilings(100.0, 10.0, 50.0)
    assert len(measured) == 1
    (file,) = (tmp_path / "cache").iterdir()
    if damage is not None:
        file.write_text(damage.replace("CPU", f"{host.cpu}|{host.isa}"))
    assert ceilings(host) == Ceilings(100.0, 10.0, 50.0)
    assert len(measured) == (1 if damage is None else 2)


def test_ceilings_without_a_writable_folder_are_measured_each_time(measured: list[int], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert ceilings(CpuTarget.probe()) == ceilings(CpuTarget.probe())
    assert len(measured) == 2


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_measure_ceilings_gives_plausible_numbers(isa: str) -> None:
    target = CpuTarget.parse(f"cpu:{isa}")
    if not target.runs_here:
        pytest.skip(f"this machine does not run {isa}")
    found = measure_ceilings(target)
    assert 1 < found.gflops < 2000
    assert 0.5 < found.gbytes <= found.cache_gbytes < 5000
