# SPDX-License-Identifier: Apache-2.0
"""The figures of a trace, by the definitions that trtexec's users know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.cli.twexec.measure import Trace
from tensorwright.ir.op import Array


@dataclass(frozen=True, slots=True)
class Parts:
    """What each query took, in ms: copying in, handing over, computing, copying out; `latency` is the copies and the
    computation."""

    h2d: Array
    enqueue: Array
    compute: Array
    d2h: Array

    @property
    def latency(self) -> Array:
        return self.h2d + self.compute + self.d2h

    @staticmethod
    def of(trace: Trace) -> Parts:
        """The parts of all queries that were kept."""
        spans = np.diff(trace.times, axis=1) / 1e6
        return Parts(spans[:, 0], spans[:, 1], spans[:, 2], spans[:, 3])

    def groups(self, size: int) -> Iterator[tuple[int, Parts]]:
        """Groups of so many queries in a row, each with its number; a last one that is not full is left out, unless it
        is the only one."""
        count = len(self.compute)
        for number in range(max(count // size, 1)):
            part = slice(number * size, (number + 1) * size)
            yield number, Parts(self.h2d[part], self.enqueue[part], self.compute[part], self.d2h[part])


@dataclass(frozen=True, slots=True)
class Figures:
    """The summary of one part of all queries, in ms. `percentiles` are in the order asked."""

    min: float
    max: float
    mean: float
    median: float
    percentiles: tuple[float, ...]
    variation: float

    @staticmethod
    def of(values: Array, percents: Sequence[float]) -> Figures:
        """`variation` is the standard deviation divided by the mean."""
        ordered = np.sort(values)
        mean = float(ordered.mean())
        return Figures(
            float(ordered[0]),
            float(ordered[-1]),
            mean,
            float(np.median(ordered)),
            tuple(percentile(ordered, percent) for percent in percents),
            float(ordered.std()) / mean if mean else 0.0,
        )


def percentile(ordered: Array, percent: float) -> float:
    """The value that so many percent of the n ascending values do not exceed: number n - 1 - floor((100 - percent) n /
    100), counted from 0. 100 gives the last, 0 the first."""
    count = len(ordered)
    return float(ordered[max(count - 1 - int(round((100 - percent) * count / 100, 6)), 0)])
