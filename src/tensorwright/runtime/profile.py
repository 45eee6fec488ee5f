# SPDX-License-Identifier: Apache-2.0
"""Where the time of a run goes, step by step, named by the source model's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.backends.cpu.launch import StepInfo
from tensorwright.ir.op import Array


@dataclass(frozen=True, slots=True)
class StepTime:
    """Median time of one step in microseconds, and its share of the sum of all steps (0 to 1)."""

    name: str
    origin: tuple[str, ...]
    kernel: str
    us: float
    share: float


def summarise(times: Array, steps: Sequence[StepInfo]) -> list[StepTime]:
    """`times` is i64[repeats, steps, 2] in ns; the result is in execution order."""
    us = np.median(times[:, :, 1] - times[:, :, 0], axis=0) / 1e3
    total = float(us.sum()) or 1.0
    order = np.argsort(times[-1, :, 0], kind="stable")
    return [
        StepTime(steps[i].name, steps[i].origin, steps[i].kernel, float(us[i]), float(us[i]) / total) for i in order
    ]
