# SPDX-License-Identifier: Apache-2.0
"""From a program and one kernel per step to code: objects, packed weights, and the function that runs it all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tensorwright.backends.base import CpuKernel
from tensorwright.backends.cpu.compile import compile_cached, compile_object
from tensorwright.backends.cpu.launch import CpuCode, StepInfo
from tensorwright.backends.cpu.main_function import emit_main
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.weights import PackedWeights, pack_weights
from tensorwright.errors import InternalError
from tensorwright.ir.dims import Dim, high
from tensorwright.lower.memory import MemoryPlan, plan_memory
from tensorwright.lower.program import Buffer, Place, Program, Step, View
from tensorwright.plan.interface import symbol_rows
from tensorwright.plan.plan import Json

_SMALL_S: Final = 10e-6  # a program shorter than this runs on the caller alone
_EXPECTED_GROWTH: Final = 4  # of sizes over their opt that changes nothing in how steps are shared
_WORKER_ALIGNMENT: Final = 128  # scratch of two workers never shares a line, nor a pair that is fetched together


def assemble(
    program: Program,
    kernels: Sequence[CpuKernel],
    target: CpuTarget,
    *,
    labels: Sequence[str] = (),
    seconds: Sequence[float] = (),
    max_threads: int = 0,
) -> CpuCode:
    """Assemble code for `program`, running `kernels[i]` for step i.

    Steps whose kernels have equal IR share its code; otherwise stage symbols must differ. `labels` name each step's
    kernel for reports ("conv_direct rows=6"); `seconds` are their measured times on all cores (0: unknown), by which
    the shortest stay on one worker. `max_threads` bounds the workers of a run (0: no bound).
    Equal arguments give equal bytes. Raises InternalError when symbols clash or LLVM refuses a kernel.
    """
    memory = plan_memory(program, [kernel.workspace_bytes for kernel in kernels])
    weights = pack_weights(program, kernels)
    scratch = max((-(-k.scratch_bytes // _WORKER_ALIGNMENT) * _WORKER_ALIGNMENT for k in kernels), default=0)
    modules = _distinct_modules(program, kernels)
    seconds = [time * _growth(step) for time, step in zip(seconds, program.steps, strict=len(seconds) > 0)]
    if _is_small(kernels, seconds):
        max_threads = 1
    main = emit_main(program, kernels, memory, weights, scratch, target, seconds)
    objects = (
        *((name, compile_cached(ir, target)) for ir, name in modules.items()),
        ("main", compile_object(main, target)),
    )
    symbols = program.symbols
    infos = tuple(
        StepInfo(step.name, step.origin, label, step.workload.key)
        for step, label in zip(program.steps, labels or [""] * len(program.steps), strict=True)
    )
    return CpuCode(
        fingerprint=target.fingerprint,
        objects=objects,
        weights=weights.blob,
        arena_bytes=memory.arena_bytes,
        scratch_bytes=scratch,
        max_threads=max_threads,
        steps=infos,
        symbols=symbols,
        decided=program.decided,
        program={
            "objects": [[name, len(code)] for name, code in objects],
            "weights": [list(place) for place in weights.stored],
            "arena_bytes": memory.arena_bytes,
            "scratch_bytes": scratch,
            "max_threads": max_threads,
            "symbols": symbol_rows(symbols),
            "decided": list(program.decided),
            **_describe(program, kernels, infos, memory, weights),
        },
    )


def _growth(step: Step) -> float:
    """How much longer than at opt sizes a step should count, so that sizes far above opt are shared among workers."""
    growth = math.prod(s.high / max(s.opt, 1) for s in step.workload.symbols)
    return max(1.0, growth / _EXPECTED_GROWTH)


def _is_small(kernels: Sequence[CpuKernel], seconds: Sequence[float]) -> bool:
    """Whether other workers could not help: no step can be divided, or all of them take less than waking a worker
    costs where the cores are busy."""
    if all(high(stage.units) <= 1 for kernel in kernels for stage in kernel.stages):
        return True
    return len(seconds) > 0 and min(seconds) > 0 and sum(seconds) < _SMALL_S


def _distinct_modules(program: Program, kernels: Sequence[CpuKernel]) -> dict[str, str]:
    """IR text -> object name (the first step that uses it), checked for symbol clashes."""
    modules: dict[str, str] = {}
    owner: dict[str, str] = {}
    for step, kernel in zip(program.steps, kernels, strict=True):
        modules.setdefault(kernel.ir, step.name)
        for stage in kernel.stages:
            if owner.setdefault(stage.symbol, kernel.ir) != kernel.ir:
                raise InternalError(
                    f"step {step.name!r} and step {modules[owner[stage.symbol]]!r} have different "
                    f"kernels of the same symbol {stage.symbol!r}"
                )
    return modules


# -- description for `inspect` ------------------------------------------------------------------------
def _describe(
    program: Program,
    kernels: Sequence[CpuKernel],
    infos: Sequence[StepInfo],
    memory: MemoryPlan,
    weights: PackedWeights,
) -> Json:
    number = {buffer: i for i, buffer in enumerate(program.buffers)}
    return {
        "memory": {
            "naive_bytes": memory.naive_bytes,
            "lower_bound_bytes": memory.lower_bound_bytes,
            "in_place": [list(pair) for pair in memory.in_place],
        },
        "phases": [list(phase) for phase in program.phases],
        "buffers": [[b.name, b.place.value, b.size_bytes, _offset(b, memory, weights)] for b in program.buffers],
        "steps": [
            _describe_step(*item, memory.workspace_offsets[i], number)
            for i, item in enumerate(zip(program.steps, kernels, infos, strict=True))
        ],
    }


def _offset(buffer: Buffer, memory: MemoryPlan, weights: PackedWeights) -> int | None:
    """Offset in the arena or the weights; the number of an input or output; None for a constant only read packed."""
    if buffer.place is Place.arena:
        return memory.offsets.get(buffer)
    return weights.constants.get(buffer.index) if buffer.place is Place.constant else buffer.index


def _describe_step(
    step: Step, kernel: CpuKernel, info: StepInfo, workspace_offset: int, number: dict[Buffer, int]
) -> Json:
    def place(view: View | None) -> list[int | str] | None:
        return [number[view.buffer], _plain(view.offset)] if view is not None else None

    return {
        "name": info.name,
        "origin": list(info.origin),
        "kernel": info.kernel,
        "workload": info.workload,
        "inputs": [place(view) for view in step.inputs],
        "outputs": [place(view) for view in step.outputs],
        "stages": [[stage.symbol, _plain(stage.units)] for stage in kernel.stages],
        "workspace": [workspace_offset, kernel.workspace_bytes],
    }


def _plain(dim: Dim) -> int | str:
    """A size for JSON: symbolic ones are text."""
    return dim if isinstance(dim, int) else str(dim)
