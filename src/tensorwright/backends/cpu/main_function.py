# SPDX-License-Identifier: Apache-2.0
"""The function that every worker enters: phases of kernel calls, with barriers between them.

Each stage of a kernel has `units` of work; worker t of n takes units [ceil(t*units/n), ceil((t+1)*units/n)),
so that the lowest ranks get the remainder and a stage of one unit runs on the caller. A step too short to be
worth sharing runs on one worker; in a row of such steps no barrier is needed, since the caller runs them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tensorwright.backends.base import CpuKernel, Stage
from tensorwright.backends.cpu import launch
from tensorwright.backends.cpu.emitter import Module, Reg
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import emit_barrier
from tensorwright.backends.cpu.weights import PackedWeights
from tensorwright.ir.dims import Dim, SymDim, high, opt
from tensorwright.lower.memory import MemoryPlan
from tensorwright.lower.program import Place, Program, View

_SHARED_S: Final = 1e-6  # a shared step that takes less spends most of it at the barrier and moving data between cores
_MONOTONIC: Final = 1  # CLOCK_MONOTONIC of Linux


def emit_main(
    program: Program,
    kernels: Sequence[CpuKernel],
    memory: MemoryPlan,
    weights: PackedWeights,
    scratch_bytes: int,
    target: CpuTarget,
    seconds: Sequence[float] = (),
) -> str:
    """LLVM IR text that defines `tw_main` and `tw_profile` (see `launch`) and calls the kernels' stages.

    `seconds` are the measured times of the steps on all cores, 0 where unknown.
    """
    module = Module()
    alone = frozenset(i for i, time in enumerate(seconds) if 0 < time < _SHARED_S)
    layout = _Layout(program, kernels, memory, weights, scratch_bytes, alone)
    _emit_program(module, layout, target)
    _emit_profiled(module, layout, target)
    return module.text()


@dataclass(frozen=True, slots=True)
class _Call:
    """A stage of a step; `is_alone` keeps it on one worker."""

    step: int
    stage: Stage
    is_alone: bool


Group = list[_Call]  # run side by side


@dataclass(frozen=True)
class _Layout:
    """Where everything is, as static offsets; `alone` are the steps that one worker runs."""

    program: Program
    kernels: Sequence[CpuKernel]
    memory: MemoryPlan
    weights: PackedWeights
    scratch_bytes: int
    alone: frozenset[int]

    def groups(self, steps: Sequence[int]) -> list[Group]:
        """Stages of concurrent steps: the first of all, then the second of all, and so on."""
        stages = {i: self.kernels[i].stages for i in steps}
        depth = max(map(len, stages.values()), default=0)
        return [
            [_Call(i, of[s], high(of[s].units) <= 1 or i in self.alone) for i, of in stages.items() if s < len(of)]
            for s in range(depth)
        ]


def _emit_program(module: Module, layout: _Layout, target: CpuTarget) -> None:
    body = _Body(module, launch.MAIN, layout, target)
    previous: Group | None = None
    for phase in layout.program.phases:
        for group in layout.groups(phase):
            if previous is not None and not (_is_on_caller(previous) and _is_on_caller(group)):
                body.barrier()
            body.group(group)
            previous = group
    body.f.ret()


def _is_on_caller(group: Group) -> bool:
    return len(group) == 1 and group[0].is_alone


def _emit_profiled(module: Module, layout: _Layout, target: CpuTarget) -> None:
    _emit_clock(module)
    body = _Body(module, launch.PROFILED_MAIN, layout, target)
    order = [step for phase in layout.program.phases for step in phase]
    for step in order:
        body.stamp(2 * step)
        for group in layout.groups([step]):
            body.group(group)
            body.barrier()
        body.stamp(2 * step + 1)
    body.f.ret()


def _emit_clock(module: Module) -> None:
    """`void tw_clock(ptr nanoseconds)`: the monotonic clock."""
    f = module.function("tw_clock", [("ptr", "nanoseconds")], private=True)
    time = Reg(f, "ptr", f.var("[2 x i64]").slot)  # struct timespec: seconds, nanoseconds
    f.call("clock_gettime", "i32", f.const("i32", _MONOTONIC), time)
    f.store(f.load("i64", time) * 1_000_000_000 + f.load("i64", time, 1), f.arg("nanoseconds"))
    f.ret()


class _Body:
    """One of the two functions under construction."""

    def __init__(self, module: Module, name: str, layout: _Layout, target: CpuTarget) -> None:
        self.layout, self.target = layout, target
        self.f = f = module.function(name, [("ptr", "table"), ("i64", "tid"), ("i64", "nthreads")])
        self.tid, self.nthreads = f.arg("tid"), f.arg("nthreads")
        tensors = len(layout.program.inputs) + len(layout.program.outputs)
        self.table = [f.load("ptr", f.arg("table"), slot) for slot in range(launch.FIRST_TENSOR + tensors)]
        self.scratch = f.gep(self.table[launch.SCRATCH], self.tid * layout.scratch_bytes, "i8")
        self.null = Reg(f, "ptr", "null")
        self.dims = self.table[launch.DIMS]
        self._spans: dict[tuple[int, Dim, bool], tuple[Reg, Reg]] = {}
        self._prepare_spans()

    def _prepare_spans(self) -> None:
        """Compute every distinct fixed unit range once, where it dominates all uses. A symbolic one is computed at
        its use, since an earlier step may have set the size."""
        for phase in self.layout.program.phases:
            for group in (*self.layout.groups(phase), *(g for step in phase for g in self.layout.groups([step]))):
                for key in self._keys(group):
                    if key not in self._spans and not isinstance(key[1], SymDim):
                        self._spans[key] = self._span(*key)

    def _keys(self, group: Group) -> list[tuple[int, Dim, bool]]:
        """(rank, units, alone) of each call. Short ones of a group start at different workers, not all at the first."""
        keys: list[tuple[int, Dim, bool]] = []
        short = 0
        for call in group:
            is_short = call.is_alone or opt(call.stage.units) < 2 * self.target.cores
            keys.append((short if is_short else 0, call.stage.units, call.is_alone))
            short += is_short
        return keys

    def _span(self, rank: int, size: Dim, is_alone: bool) -> tuple[Reg, Reg]:
        f, last = self.f, self.nthreads - 1
        units = f.size_now(size, self.dims)
        tid = (self.tid + rank) % self.nthreads if rank else self.tid
        if is_alone:
            return f.i64(0), f.select(f.compare("eq", tid, 0), units, f.i64(0))
        return (tid * units + last) // self.nthreads, ((tid + 1) * units + last) // self.nthreads

    def group(self, group: Group) -> None:
        """This worker's share of some concurrent stages."""
        for call, key in zip(group, self._keys(group), strict=True):
            begin, end = self._spans.get(key) or self._span(*key)
            with self.f.when(self.f.compare("ult", begin, end)):
                is_symbolic = self.layout.program.steps[call.step].workload.is_symbolic
                sizes = [self.dims] if is_symbolic else []
                self.f.call(call.stage.symbol, "void", *self._arguments(call.step), begin, end, *sizes)

    def _arguments(self, step: int) -> list[Reg]:
        """In the order of `CpuKernel`: inputs, outputs, workspace, scratch."""
        layout, item, kernel = self.layout, self.layout.program.steps[step], self.layout.kernels[step]
        views = [self._packed(step, i) or self._address(view) for i, view in enumerate(item.inputs)]
        workspace = self._at(launch.ARENA, layout.memory.workspace_offsets[step])
        return [
            *views,
            *(self._address(view) for view in item.outputs),
            workspace if kernel.workspace_bytes else self.null,
            self.scratch if kernel.scratch_bytes else self.null,
        ]

    def _at(self, slot: int, offset: Reg | int) -> Reg:
        return self.f.gep(self.table[slot], offset, "i8")

    def _packed(self, step: int, position: int) -> Reg | None:
        offset = self.layout.weights.packed.get((step, position))
        return self._at(launch.WEIGHTS, offset) if offset is not None else None

    def _address(self, view: View | None) -> Reg:
        if view is None:
            return self.null
        buffer = view.buffer
        offset = self.f.size_now(view.offset * view.operand.dtype.size_bytes, self.dims)
        match buffer.place:
            case Place.arena:
                return self._at(launch.ARENA, offset + self.layout.memory.offsets[buffer])
            case Place.constant:
                return self._at(launch.WEIGHTS, offset + self.layout.weights.constants[buffer.index])
            case Place.input:
                return self._at(launch.FIRST_TENSOR + buffer.index, offset)
            case Place.output:
                return self._at(launch.FIRST_TENSOR + len(self.layout.program.inputs) + buffer.index, offset)

    def barrier(self) -> None:
        """Wait for all workers."""
        emit_barrier(self.f, self.table[launch.BARRIER], self.nthreads, self.target)

    def stamp(self, slot: int) -> None:
        """The caller writes the time to entry `slot` of the profile buffer."""
        with self.f.when(self.f.compare("eq", self.tid, 0)):
            self.f.call("tw_clock", "void", self.f.gep(self.table[launch.PROFILE], slot, "i64"))
