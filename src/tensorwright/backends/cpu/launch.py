# SPDX-License-Identifier: Apache-2.0
"""The run-time half of the CPU backend: assembled code as data, and loaded so that it can be entered.

A run is one call of native `void tw_main(ptr table, i64 tid, i64 nthreads)` on every worker. The table is
an array of pointers in the order below, then one per engine input and one per output.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tensorwright.errors import TargetError
from tensorwright.ir.dims import Symbol
from tensorwright.ir.op import Array
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import Bytes, malformed
from tensorwright.plan.interface import read_symbols
from tensorwright.plan.plan import Json, Native

if TYPE_CHECKING:
    from tensorwright.backends.cpu.jit import LoadedCode
    from tensorwright.backends.cpu.threads import Pool

# Slots of the pointer table. PROFILE points to two i64 per step and only tw_profile reads it; DIMS to the values of
# the engine's symbols, i64 each.
BARRIER, ARENA, WEIGHTS, SCRATCH, PROFILE, DIMS, FIRST_TENSOR = range(7)

MAIN: Final = "tw_main"
PROFILED_MAIN: Final = "tw_profile"
_OBJECT_MAGIC: Final = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One step for people: its source-model nodes, its kernel ("family key=value ...") and its workload."""

    name: str
    origin: tuple[str, ...]
    kernel: str
    workload: str


@dataclass(frozen=True)
class CpuCode:
    """A program assembled for one CPU target.

    `objects` are (name, object file); `weights` is the packed blob (uint8) that code addresses by static offsets.
    A context provides `arena_bytes`, and `scratch_bytes` for each worker. `max_threads` bounds the workers
    (0: no bound). `symbols` are the sizes that a run decides, `decided` those of them that the program
    itself finds in the data. `program` describes the whole for `inspect`, as plain JSON: docs/plan-format.md.
    """

    fingerprint: str
    objects: tuple[tuple[str, bytes], ...]
    weights: Array
    arena_bytes: int
    scratch_bytes: int
    max_threads: int
    steps: tuple[StepInfo, ...]
    program: Json
    symbols: tuple[Symbol, ...] = ()
    decided: tuple[str, ...] = ()


def native_of(code: CpuCode) -> Native:
    """The native part of a plan that holds `code`."""
    return Native(code.fingerprint, code.program, b"".join(data for _, data in code.objects), code.weights)


def cpu_code(native: Native, where: str) -> CpuCode:
    """The code in a native part of the plan at `where`. Raises PlanError P106 when it is not as documented."""
    fields = Fields(native.program, "section 'program:cpu'", where)
    return CpuCode(
        fingerprint=native.fingerprint,
        objects=_objects(fields, native.code),
        weights=native.weights,
        arena_bytes=fields.size("arena_bytes"),
        scratch_bytes=fields.size("scratch_bytes"),
        max_threads=fields.size("max_threads"),
        steps=_steps(fields),
        program=native.program,
        symbols=read_symbols(fields.at("symbols")),
        decided=fields.texts(fields.get("decided", list)),
    )


def _objects(fields: Fields, code: Bytes) -> tuple[tuple[str, bytes], ...]:
    found, end = [], 0
    for name, size in fields.at("objects").rows(str, int):
        data = bytes(code[end : end + max(size, 0)])
        if len(data) != size or not data.startswith(_OBJECT_MAGIC):
            raise malformed(f"object {name!r}", fields.where, "it is not an object file")
        found.append((name, data))
        end += size
    if end != len(code):
        raise malformed("list of objects", fields.where, f"it covers {end} of {len(code)} bytes of code")
    return tuple(found)


def _steps(fields: Fields) -> tuple[StepInfo, ...]:
    steps = (Fields(step, f"{fields.what} step {i}", fields.where) for i, step in enumerate(fields.get("steps", list)))
    return tuple(
        StepInfo(s.get("name", str), s.texts(s.get("origin", list)), s.get("kernel", str), s.get("workload", str))
        for s in steps
    )


class LoadedProgram:
    """Code in executable memory, with the weights it reads and the worker pool it runs on. Shared by all contexts."""

    def __init__(self, code: CpuCode, threads: int | None = None) -> None:
        """`threads` bounds the workers of a run, besides the code's own bound and the pool's size.

        Raises TargetError D105 when this CPU cannot execute the code.
        """
        from tensorwright.backends.cpu.jit import LoadedCode  # LLVM is loaded only when code is
        from tensorwright.backends.cpu.threads import BARRIER_BYTES, Pool

        _check_runs_here(code.fingerprint)
        self.code = dataclasses.replace(code, objects=())  # the executable copy is enough
        self.code_bytes = sum(len(data) for _, data in code.objects)
        self.barrier_bytes: int = BARRIER_BYTES
        self.weights = _aligned(code.weights)
        self._loaded: LoadedCode = LoadedCode(*(data for _, data in code.objects))
        self._main = self._loaded.address(MAIN)
        self._profiled = self._loaded.address(PROFILED_MAIN)
        self._pool: Pool = Pool.shared()
        self.threads = min(bound for bound in (threads, code.max_threads, self._pool.size) if bound)

    @property
    def steps(self) -> tuple[StepInfo, ...]:
        """All steps, in the order of the program's description."""
        return self.code.steps

    @property
    def fingerprint(self) -> str:
        """The target that the code was made for."""
        return self.code.fingerprint

    @property
    def native(self) -> tuple[LoadedProgram, ...]:
        """The programs with code: this one."""
        return (self,)

    def run(self, table: int) -> None:
        """Enter the program with the pointer table at this address; returns when every worker is done."""
        self._pool.run(self._main, table, self.threads)

    def run_profiled(self, table: int) -> None:
        """As `run`, one step at a time, writing monotonic nanoseconds at the start and end of each to PROFILE."""
        self._pool.run(self._profiled, table, self.threads)

    def close(self) -> None:
        """Free the code. No context may be running it."""
        self._loaded.close()
        self.weights = np.empty(0, np.uint8)
        self.code = dataclasses.replace(self.code, weights=self.weights)
        self.code_bytes = 0


def _check_runs_here(fingerprint: str) -> None:
    from tensorwright.backends.cpu.target import CpuTarget

    isa, host = (*fingerprint.split("|"), "")[1], CpuTarget.probe()
    if isa != host.isa and (isa, host.isa) != ("avx2", "avx512"):
        raise TargetError(
            f"this CPU ({host.isa}) cannot run code made for {isa}",
            why=f"the code was made for {fingerprint}",
            do="load the plan on such a machine, or build with target='cpu'",
            code="D105",
        )


def _aligned(array: Array) -> Array:
    """The same bytes on a 64-byte boundary; copied only when they are not on one."""
    if array.ctypes.data % 64 == 0:
        return array
    copy: Array = np.empty(array.size + 64, np.uint8)
    start = -copy.ctypes.data % 64
    copy[start : start + array.size] = array
    return copy[start : start + array.size]
