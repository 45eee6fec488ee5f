# SPDX-License-Identifier: Apache-2.0
"""The race between the candidates of one workload.

A machine's speed changes while it measures: other processes come and go, clocks move. So only neighbouring samples are
compared. A new candidate's first samples enclose one of the leader, and clearly slower ones leave at once; the others
are then sampled in turns. The race ends when the leader is as good as the roofline allows. The winner must agree with
the op's reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorwright import knobs
from tensorwright.backends.base import Config, KernelFamily, Measurer, Target, Trial, Workload
from tensorwright.errors import TensorwrightError
from tensorwright.ir.dims import Undecided
from tensorwright.ir.op import Array
from tensorwright.memory import release
from tensorwright.tune.record import Outcome
from tensorwright.tune.samples import sample_inputs
from tensorwright.tune.verify import mismatch
from tensorwright.tune.workload import symbol_of

Family = KernelFamily[Any, Any, Any]

GIVE_UP = 1.3  # times the leader: out after its first two samples
LATE_GIVE_UP = 1.1  # times the leader: out after a few turns
FEW_TURNS = 3
TIE = 1.02  # times the leader: within noise the earlier guess wins
NEAR_BOUND = 1.1  # times the roofline bound: good enough to end the race


@dataclass(frozen=True, slots=True)
class Effort:
    """How much may be done for one workload: candidates tried, turns of sampling, and seconds for these turns."""

    candidates: int
    turns: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kernel that may be chosen. `order` is its rank as a guess."""

    order: int
    family: Family
    config: Config

    def outcome(
        self, status: str, *, seconds: float | None = None, verified: bool = False, reason: str = ""
    ) -> Outcome:
        """What to record about it."""
        return Outcome(self.family.name, self.family.version, self.config.as_dict(), status, seconds, verified, reason)

    def __str__(self) -> str:
        return f"{self.family.name} {self.config}"


class Race:
    """Candidates of one workload on one device. Use `run`, then `winner`, then `outcomes`, and `close` in any case."""

    def __init__(
        self,
        workload: Workload,
        candidates: Sequence[Candidate],
        target: Target,
        measurer: Measurer[Any],
        constants: Mapping[int, Array],
    ) -> None:
        self.workload, self.candidates, self.target, self.measurer = workload, candidates, target, measurer
        self.sized = workload.at_opt()
        self.inputs = sample_inputs(self.sized, constants)
        families = {c.family.name: c.family for c in candidates}.values()
        self.bound_s = min((family.bound(self.sized, target) for family in families), default=0.0)
        self._trials: dict[int, Trial] = {}
        self._standing: dict[int, float] = {}  # first impression: time relative to the first candidate
        self._turns: dict[int, list[float]] = {}  # samples in seconds, position i taken in turn i
        self._best: dict[int, float] = {}  # shortest sample in seconds
        self._decided: dict[int, Outcome] = {}
        self._expected: tuple[Array, ...] | None = None

    def best(self, candidate: Candidate) -> float:
        """Shortest time in seconds: other processes can only make a sample longer."""
        return self._best[candidate.order]

    @property
    def leader_s(self) -> float:
        """The best time so far, infinite before the first."""
        return min(self._best.values(), default=float("inf"))

    @property
    def is_near_bound(self) -> bool:
        """Whether no candidate can be much faster than the leader."""
        return self.leader_s <= NEAR_BOUND * self.bound_s

    def run(self, effort: Effort, is_late: Callable[[], bool], tried: Callable[[float], None]) -> None:
        """Time the candidates; `tried` hears the best time after each. One timed candidate is enough when `is_late`."""
        for candidate in self.candidates:
            enough = self.is_near_bound or (self._best and is_late())
            if not enough and self._open(candidate):
                self._meet(candidate.order)
                self._drop(self._standing, GIVE_UP)
            tried(self.leader_s)
        ends = time.monotonic() + effort.seconds
        for turn in range(effort.turns):
            if len(self._trials) < 2 or self.is_near_bound or is_late() or time.monotonic() > ends:
                break
            for order in self._trials:
                self._turns.setdefault(order, []).append(self._sample(order))
            if turn + 1 >= FEW_TURNS:
                self._drop({order: min(samples) for order, samples in self._turns.items()}, LATE_GIVE_UP)

    def _meet(self, order: int) -> None:
        """First samples of a candidate, compared with the leader at the same time."""
        leader = min(self._standing, key=self._standing.__getitem__, default=None)
        first = self._sample(order)
        scale = self._standing[leader] / self._sample(leader) if leader is not None else 1 / first
        self._standing[order] = min(first, self._sample(order)) * scale

    def winner(self, is_verified: Callable[[Candidate], bool]) -> Candidate | None:
        """The fastest candidate that agrees with the reference, or was found to do so earlier; None when none does."""
        for candidate in self._ranking():
            if candidate.order not in self._trials and not self._open(candidate):
                continue
            reason = "" if is_verified(candidate) else self._mismatch(self._trials[candidate.order])
            if not reason:
                if candidate.order not in self._best:
                    self._sample(candidate.order)
                won = candidate.outcome("won", seconds=self.best(candidate), verified=True)
                self._decided[candidate.order] = won
                return candidate
            self._decided[candidate.order] = candidate.outcome("wrong", reason=reason)
            knobs.logger("tune").warning("%s is wrong on %s: %s", candidate, self.workload.key, reason)
        return None

    def outcomes(self) -> list[Outcome]:
        """One per candidate, in order of guess."""
        return [self._decided.get(c.order) or self._undecided(c) for c in self.candidates]

    def close(self) -> None:
        """Free what the race holds."""
        for trial in self._trials.values():
            trial.close()
        self._trials = {}
        for operand, array in zip(self.workload.inputs, self.inputs, strict=True):
            if operand is not None and operand.constant and array is not None:
                release(array)

    def _open(self, candidate: Candidate) -> bool:
        """Compile and load; False when that fails."""
        w = self.workload
        constants = {
            i: x
            for i, (o, x) in enumerate(zip(w.inputs, self.inputs, strict=True))
            if o is not None and o.constant and x is not None
        }
        try:
            symbol = symbol_of(w, candidate.family.name, candidate.config.as_dict())
            kernel = candidate.family.emit(w, candidate.config, self.target, symbol, constants)
            self._trials[candidate.order] = self.measurer.load(w, kernel, self.inputs)
        except Undecided as error:  # this configuration needs a number that only a run knows
            self._decided[candidate.order] = candidate.outcome("failed", reason=str(error))
        except TensorwrightError as error:
            self._decided[candidate.order] = candidate.outcome("failed", reason=error.what)
            knobs.logger("tune").warning("%s failed on %s: %s", candidate, w.key, error)
        return candidate.order in self._trials

    def _sample(self, order: int) -> float:
        seconds = float(f"{self._trials[order].sample():.4g}")  # more digits would only be noise in the cache file
        self._best[order] = min(seconds, self._best.get(order, seconds))
        return seconds

    def _drop(self, times: Mapping[int, float], factor: float) -> None:
        """Close the trials that take more than `factor` times the shortest of comparable times."""
        limit = factor * min(times[order] for order in self._trials)
        for order in [o for o in self._trials if times[o] > limit]:
            self._trials.pop(order).close()

    def _ranking(self) -> list[Candidate]:
        """Best first: those still in the race, those dropped, those not timed; within noise, the earlier guess."""
        racing = [c for c in self.candidates if c.order in self._trials]
        dropped = [c for c in self.candidates if c.order in self._standing and c.order not in self._trials]
        times = {order: min(samples) for order, samples in self._turns.items()} or self._standing
        rest = [c for c in self.candidates if c.order not in self._standing and c.order not in self._decided]
        return [*_sorted(racing, times), *_sorted(dropped, self._standing), *rest]

    def _mismatch(self, trial: Trial) -> str:
        if self._expected is None:
            self._expected = self.sized.op.reference(*self.inputs)
        return mismatch(self.sized.op, trial.outputs(), self._expected)

    def _undecided(self, candidate: Candidate) -> Outcome:
        if candidate.order not in self._best:
            return candidate.outcome("skipped")
        status = "measured" if candidate.order in self._trials else "slow"
        return candidate.outcome(status, seconds=self.best(candidate))


def _sorted(candidates: Sequence[Candidate], times: Mapping[int, float]) -> list[Candidate]:
    """By time, but the earliest guess first among those within noise."""
    left, ranking = list(candidates), []
    while left:
        limit = TIE * min(times[c.order] for c in left)
        ranking.append(next(c for c in left if times[c.order] <= limit))
        left.remove(ranking[-1])
    return ranking
