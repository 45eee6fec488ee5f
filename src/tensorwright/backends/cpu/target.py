# SPDX-License-Identifier: Apache-2.0
"""What the CPU in front of us can do: instruction set, caches, cores, measured ceilings."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm

from tensorwright.errors import TargetError
from tensorwright.ir.dtype import DType

if TYPE_CHECKING:
    from tensorwright.backends.cpu.measure import CpuMeasurer

_AVX512 = "+avx512f,+avx512dq,+avx512bw,+avx512vl,+avx512cd,+avx2,+fma,+f16c,+bmi,+bmi2,-prefer-256-bit"
_AVX2 = "+avx2,+fma,+f16c,+bmi,+bmi2,-avx512f"
_AVX512_NEEDS = ("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd", "avx2", "fma", "f16c", "bmi", "bmi2")
_AVX2_NEEDS = ("avx2", "fma", "f16c", "bmi", "bmi2")
_CHOICES = "use cpu, cpu:avx512, cpu:avx2 or cpu:neon"


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """One CPU as code generation and tuning see it.

    `cores` are the physical cores this process may use. `gflops` is the f32 FMA peak of one core; `gbytes` and
    `cache_gbytes` are the read bandwidths of one core from memory and from its L2 cache, in GB/s.
    """

    isa: str
    triple: str
    cpu: str
    features: str
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    gflops: float
    gbytes: float
    cache_gbytes: float

    def lanes(self, dtype: DType) -> int:
        """Vector lanes of one register."""
        return {"avx512": 64, "avx2": 32, "neon": 16}[self.isa] // dtype.size_bytes

    @property
    def vector_registers(self) -> int:
        return 16 if self.isa == "avx2" else 32

    @property
    def is_arm(self) -> bool:
        """Whether code is for AArch64 rather than x86-64."""
        return self.triple.startswith("aarch64")

    @property
    def fingerprint(self) -> str:
        """What native code depends on: equal fingerprints may share object code.

        The number stands for the feature list: a hypervisor may hide features of the same CPU model.
        """
        return f"{self.triple}|{self.isa}|{self.cpu}|{zlib.crc32(self.features.encode()):08x}"

    @property
    def runs_here(self) -> bool:
        """Whether this process can execute code generated for the target."""
        host = CpuTarget.probe()
        return self.is_arm == host.is_arm and (self.isa == host.isa or host.isa == "avx512")

    def measurer(self) -> CpuMeasurer:
        """Times kernels on the shared worker pool. Only for a target that `runs_here`."""
        from tensorwright.backends.cpu.measure import CpuMeasurer

        return CpuMeasurer(self)

    def roofline(self, flops: float, size_bytes: float) -> float:
        """Lower bound in seconds, on all cores, of `flops` f32 operations that read and write `size_bytes` once.

        Data that fits the last cache is assumed to be there (Williams et al., "Roofline", CACM 2009).
        """
        bandwidth = self.gbytes if size_bytes > self.l3_bytes else max(self.cache_gbytes, self.gbytes)
        return max(flops / self.gflops, size_bytes / bandwidth) / (1e9 * self.cores)

    def as_dict(self) -> dict[str, Any]:
        """Every field and derived property, for `doctor --json` and plan headers."""
        return {
            **dataclasses.asdict(self),
            "f32_lanes": self.lanes(DType.f32),
            "vector_registers": self.vector_registers,
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    @functools.cache
    def probe() -> CpuTarget:
        """The machine this process runs on. Raises TargetError when no kernel of ours can run on it.

        The ceilings are measured once per machine and user (about 0.1 s) and then read from the user cache directory.
        """
        from tensorwright.backends.cpu.ceilings import ceilings

        bare = _probe_static()
        peak = ceilings(bare)
        return replace(bare, gflops=peak.gflops, gbytes=peak.gbytes, cache_gbytes=peak.cache_gbytes)

    @staticmethod
    def parse(text: str) -> CpuTarget:
        """`cpu`, or `cpu:avx2` / `cpu:avx512` / `cpu:neon` to override the instruction set.

        Code for an overridden set may not run here: see `runs_here`. Raises TargetError for anything else.
        """
        kind, _, isa = text.partition(":")
        if kind != "cpu" or isa not in ("", "avx512", "avx2", "neon") or text.endswith(":"):
            raise TargetError(f"unknown CPU target {text!r}", do=_CHOICES, code="D101")
        host = CpuTarget.probe()
        if isa in ("", host.isa):
            return host
        if isa == "neon":
            return replace(host, isa=isa, triple="aarch64-unknown-linux-gnu", cpu="generic", features="+neon")
        triple = "x86_64-unknown-linux-gnu" if host.is_arm else host.triple
        if isa == "avx2":
            return replace(
                host,
                isa=isa,
                triple=triple,
                cpu="haswell",
                features=_AVX2,
                gflops=host.gflops / 2 if host.isa == "avx512" else host.gflops,
            )
        return replace(host, isa=isa, triple=triple, cpu="skylake-avx512", features=_AVX512)


def choose_isa(machine: str, features: dict[str, bool]) -> str:
    """The instruction set to generate for, from `platform.machine()` and LLVM's host features.

    Raises TargetError when there is none.
    """
    machine = machine.lower()
    if machine in ("aarch64", "arm64"):
        return "neon"
    if machine not in ("x86_64", "amd64"):
        raise TargetError(
            f"no CPU kernels for {machine!r} machines",
            why="generated code is for x86-64 and AArch64",
            do="use target='reference' (slow, NumPy)",
            code="D102",
        )
    if all(features.get(name) for name in _AVX512_NEEDS):
        return "avx512"
    missing = [name for name in _AVX2_NEEDS if not features.get(name)]
    if missing:
        raise TargetError(
            "this CPU lacks instructions that every kernel needs",
            why=f"missing: {', '.join(missing)}",
            do="run on a CPU with AVX2 and FMA (2013 or later; in a virtual machine pass the host's CPU "
            "features through), or use target='reference' (slow, NumPy)",
            code="D103",
        )
    return "avx2"


def _probe_static() -> CpuTarget:
    """Everything but the measured ceilings, which are 0."""
    if platform.system() != "Linux":
        raise TargetError(
            f"the CPU backend does not run on {platform.system()}",
            why="its thread pool uses Linux futexes",
            do="use Linux, or target='reference' (slow, NumPy)",
            code="D104",
        )
    features = llvm.get_host_cpu_features()
    isa = choose_isa(platform.machine(), features)
    # Wide registers pay off in dense kernels; LLVM's own default would often split them.
    extra = {"avx512": ",-prefer-256-bit", "avx2": ",-avx512f", "neon": ""}[isa]
    l1, l2, l3 = cache_sizes(Path("/sys/devices/system/cpu/cpu0/cache"))
    return CpuTarget(
        isa,
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        features.flatten() + extra,
        available_cores(),
        l1,
        l2,
        l3,
        0.0,
        0.0,
        0.0,
    )


# -- caches and cores ---------------------------------------------------------------------------------
def cache_sizes(folder: Path) -> tuple[int, int, int]:
    """Bytes of L1 data, L2 and L3 from a sysfs cache folder; common sizes where it does not say.

    L3 is what the whole process sees (a machine without L3 reports its L2).
    """
    found: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
            units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
            if kind in ("Data", "Unified") and size:
                found[level] = int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)
        except (OSError, ValueError):
            continue  # containers may hide parts of sysfs
    l1, l2 = found.get(1, 32 << 10), found.get(2, 1 << 20)
    return l1, l2, found.get(3, l2 if found else 8 << 20)


def available_cores() -> int:
    """Physical cores this process may keep busy: CPU affinity, without sibling threads, within the cgroup quota."""
    allowed = os.sched_getaffinity(0)
    physical = {_siblings(cpu) for cpu in allowed}
    quota = cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    # Rounded down: a throttled worker stalls all others at the next barrier for the rest of the period.
    return max(1, min(len(physical), int(quota)) if quota else len(physical))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def cgroup_quota(root: Path, membership: Path) -> float | None:
    """CPUs that control groups grant (the tightest of this group and its ancestors), None without a limit."""
    limits: list[float] = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / "cpu"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            limits += _limit_of(folder)
            if folder == base:
                break
    return min(limits, default=None)


def _limit_of(folder: Path) -> list[float]:
    """The quota of one group as a list of none or one, in version 2 or version 1 files."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
        return [int(quota) / int(period)] if quota.strip() not in ("max", "-1") else []
    except (OSError, ValueError, ZeroDivisionError):
        return []
