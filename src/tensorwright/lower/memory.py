# SPDX-License-Identifier: Apache-2.0
"""Where every intermediate value lives: one arena, offsets assigned by liveness.

Time is counted in phases: steps of one phase run side by side, so everything that a phase touches is
alive together. A value lives from the first phase that writes it to the last that reads it; a step's
workspace lives in its own phase. Values whose lives do not meet may share memory, and a pointwise step
writes over an input that dies in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tensorwright.errors import InternalError
from tensorwright.lower.program import Buffer, Place, Program, Step, View
from tensorwright.ops.fused import Fused

ALIGNMENT = 64  # a cache line, and the widest vector
_NOISY_ORDERS = 64


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets into one arena of `arena_bytes` (the peak), all multiples of 64.

    `workspace_offsets` has one entry per step. `naive_bytes` is the sum without any sharing,
    `lower_bound_bytes` the most that is alive in one phase: no plan can be smaller.
    `in_place` lists (written, overwritten) buffer names.
    """

    offsets: dict[Buffer, int]
    workspace_offsets: tuple[int, ...]
    arena_bytes: int
    naive_bytes: int
    lower_bound_bytes: int
    in_place: tuple[tuple[str, str], ...]


@dataclass(eq=False)
class _Block:
    """Memory that one or more buffers (written one over the other) or one workspace take in phases first..last."""

    size: int
    first: int
    last: int
    buffers: list[Buffer] = field(default_factory=list)
    offset: int = 0

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(eq=False)
class _Life:
    """First and last phase of a buffer, and the steps that touch it, by phase."""

    first: int
    last: int
    steps: dict[int, set[int]] = field(default_factory=dict)


def plan_memory(program: Program, workspace_bytes: Sequence[int]) -> MemoryPlan:
    """Assign every arena buffer and every step's workspace (`workspace_bytes`, one entry per step) an offset.

    Raises InternalError when a step reads arena memory that nothing has written.
    """
    phase_of = {step: phase for phase, steps in enumerate(program.phases) for step in steps}
    lives = _lives(program, phase_of)
    blocks, in_place = _blocks(program, phase_of, lives)
    workspaces = [_Block(_aligned(size), phase_of[i], phase_of[i]) for i, size in enumerate(workspace_bytes)]
    every = [block for block in (*blocks, *workspaces) if block.size]
    bound = max(
        (sum(b.size for b in every if b.first <= phase <= b.last) for phase in range(len(program.phases))), default=0
    )
    return MemoryPlan(
        arena_bytes=_place(every, bound),
        offsets={buffer: block.offset for block in blocks for buffer in block.buffers},
        workspace_offsets=tuple(block.offset for block in workspaces),
        naive_bytes=sum(_aligned(b.size_bytes) for b in lives) + sum(block.size for block in workspaces),
        lower_bound_bytes=bound,
        in_place=in_place,
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _lives(program: Program, phase_of: dict[int, int]) -> dict[Buffer, _Life]:
    """The life of every arena buffer, in order of first writing."""
    lives: dict[Buffer, _Life] = {}
    for index in sorted(phase_of, key=lambda i: (phase_of[i], i)):
        step, phase = program.steps[index], phase_of[index]
        for view in step.outputs:
            if view.buffer.place is Place.arena:
                life = lives.setdefault(view.buffer, _Life(phase, phase))
                life.last = max(life.last, phase)
                life.steps.setdefault(phase, set()).add(index)
    for index, step in enumerate(program.steps):
        for view in _arena_views(step.inputs):
            phase = phase_of[index]
            if view.buffer not in lives or lives[view.buffer].first >= phase:
                raise InternalError(f"step {step.name!r} reads {view.buffer.name!r} before anything has written it")
            life = lives[view.buffer]
            life.last = max(life.last, phase)
            life.steps.setdefault(phase, set()).add(index)
    return lives


def _arena_views(views: Iterable[View | None]) -> Iterable[View]:
    return (view for view in views if view is not None and view.buffer.place is Place.arena)


def _blocks(
    program: Program, phase_of: dict[int, int], lives: dict[Buffer, _Life]
) -> tuple[list[_Block], tuple[tuple[str, str], ...]]:
    """One block per buffer, or per chain of buffers written one over the other."""
    block_of: dict[Buffer, _Block] = {}
    in_place = []
    for buffer, life in lives.items():
        over = _overwritable(program, buffer, life, lives)
        if over is None:
            block_of[buffer] = _Block(_aligned(buffer.size_bytes), life.first, life.last, [buffer])
        else:
            block = block_of[buffer] = block_of[over]
            block.buffers.append(buffer)
            block.last = life.last
            in_place.append((buffer.name, over.name))
    return list(dict.fromkeys(block_of.values())), tuple(in_place)


def _overwritable(program: Program, buffer: Buffer, life: _Life, lives: dict[Buffer, _Life]) -> Buffer | None:
    """The input of `buffer`'s writer that dies there element by element under the result, if any."""
    writers = life.steps[life.first]
    if len(writers) != 1:
        return None
    (index,) = writers
    step = program.steps[index]
    if not isinstance(step.workload.op, Fused) or step.workload.op.anchor is not None or len(step.outputs) != 1:
        return None
    (out,) = step.outputs
    for view in _arena_views(step.inputs):
        other = lives[view.buffer]
        if other.steps[other.last] == {index} and _same_elements(step, view, out):
            return view.buffer
    return None


def _same_elements(step: Step, view: View, out: View) -> bool:
    """Whether every use of the input's buffer in this step reads element k exactly where result k is written."""
    a, b = view.operand, out.operand
    uses = [v for v in _arena_views(step.inputs) if v.buffer == view.buffer]
    return (
        all((v.offset, v.operand) == (view.offset, a) for v in uses)
        and view.offset == out.offset
        and (a.shape, a.strides) == (b.shape, b.strides)
        and a.dtype.size_bytes == b.dtype.size_bytes
        and a.type.size_bytes == view.buffer.size_bytes == out.buffer.size_bytes
    )


def _place(blocks: list[_Block], bound: int) -> int:
    """Give every block an offset; returns the peak. Greedy orders are tried until one reaches the bound."""
    best: tuple[int, list[int]] | None = None
    for order in _orders(blocks):
        peak = _greedy(order)
        if best is None or peak < best[0]:
            best = peak, [block.offset for block in blocks]
        if best[0] == bound:
            break
    if best is None:
        return 0
    for block, offset in zip(blocks, best[1], strict=True):
        block.offset = offset
    return best[0]


def _orders(blocks: list[_Block]) -> Iterator[list[_Block]]:
    """Large blocks first, then large in space and time, then by size with some noise (the same in every build)."""
    yield sorted(blocks, key=lambda b: (-b.size, b.first))
    yield sorted(blocks, key=lambda b: -b.size * (1 + b.last - b.first))
    noise = random.Random(0)
    for _ in range(_NOISY_ORDERS):
        yield sorted(blocks, key=lambda b: -b.size * (0.5 + noise.random()))


def _greedy(order: list[_Block]) -> int:
    """Place blocks one after the other, each into the tightest gap that is free for its whole life."""
    placed: list[_Block] = []  # by offset
    for block in order:
        tightest: int | None = None
        at = end = 0
        for other in placed:
            if not other.meets(block):
                continue
            gap = other.offset - end
            if gap >= block.size and (tightest is None or gap < tightest):
                tightest, at = gap, end
            end = max(end, other.offset + other.size)
        block.offset = at if tightest is not None else end
        placed.append(block)
        placed.sort(key=lambda b: b.offset)
    return max((b.offset + b.size for b in placed), default=0)
