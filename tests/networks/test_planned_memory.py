# SPDX-License-Identifier: Apache-2.0
"""The planned peak is what a run uses: nothing is written before or after the arena, nor past a worker's scratch."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.cpu import launch
from tests.networks.nets import NETS, feed

GUARD, MARK = 1 << 16, 0xA5


def guarded(size: int) -> tuple[np.ndarray, int]:
    """Marked bytes, and the 128-byte aligned address in them that `size` bytes and a guard follow."""
    raw = np.full(size + 2 * GUARD + 128, MARK, np.uint8)
    start = GUARD + -(raw.ctypes.data + GUARD) % 128
    return raw, start


@pytest.mark.parametrize("name", NETS)
def test_run_stays_inside_the_planned_arena_and_scratch(name: str) -> None:
    model = NETS[name]()
    feeds = feed(model, 21)
    with tw.build(model, tune="off") as engine, engine.create_context() as context:
        want = context.run(feeds)
        memory = engine.memory()
        arena, at_arena = guarded(memory.arena)
        scratch, at_scratch = guarded(memory.scratch)
        context._table[launch.ARENA] = arena.ctypes.data + at_arena
        context._table[launch.SCRATCH] = scratch.ctypes.data + at_scratch
        got = context.run(feeds)
    for raw, start, size in ((arena, at_arena, memory.arena), (scratch, at_scratch, memory.scratch)):
        assert (raw[:start] == MARK).all() and (raw[start + size :] == MARK).all()
    assert (arena[at_arena : at_arena + memory.arena] != MARK).any()
    for key, value in want.items():
        np.testing.assert_array_equal(got[key], value)
