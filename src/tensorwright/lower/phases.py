# SPDX-License-Identifier: Apache-2.0
"""Phases: steps that do not depend on each other run between the same two barriers."""

from __future__ import annotations

from collections.abc import Sequence


def group_phases(needs: Sequence[set[int]]) -> tuple[list[list[int]], list[int]]:
    """Phases of step numbers by longest dependency chain, and the execution order they imply.

    `needs[i]` are steps that must finish before step i; every number in it is below i.
    """
    level: list[int] = []
    for waits in needs:
        level.append(1 + max((level[j] for j in waits), default=-1))
    phases: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for step, at in enumerate(level):
        phases[at].append(step)
    return phases, [step for phase in phases for step in phase]
