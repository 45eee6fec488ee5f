# SPDX-License-Identifier: Apache-2.0
"""The tuner: which kernel each workload gets, from the cache or from a race of candidates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat, zip_longest
from typing import Any, Final

from tensorwright.backends.base import Config, Measurer, Reject, Target, Workload, accepted, usable
from tensorwright.errors import BuildError
from tensorwright.ir.op import Array
from tensorwright.ops.label import label
from tensorwright.tune.cache import TuningCache
from tensorwright.tune.progress import Listener, Reporter
from tensorwright.tune.race import Candidate, Effort, Family, Race
from tensorwright.tune.record import MODES, Choice, Outcome, Record
from tensorwright.tune.workload import short

EFFORTS: Final = {
    "quick": Effort(candidates=8, turns=6, seconds=0.3),
    "full": Effort(candidates=64, turns=15, seconds=3.0),
}
_WEIGHT_BYTES = 512 << 20  # of weights are re-formatted for the candidates of one workload, and at least for two


def tune(
    workloads: Sequence[Workload],
    constants: Mapping[str, Mapping[int, Array]] | None,
    target: Target,
    families: Sequence[Family],
    *,
    mode: str = "quick",
    cache: TuningCache | None = None,
    budget_s: float | None = None,
    progress: Listener | None = None,
    where: Mapping[str, str] | None = None,
) -> dict[str, Choice]:
    """A choice for every workload, by `Workload.key`.

    `constants` holds the arrays of constant inputs by workload key and input index; random ones stand in for others.
    Modes: "off" takes the cached choice or the first candidate of the first accepting family, unmeasured; "quick"
    times a few candidates; "full" times all. After `budget_s` seconds the rest is decided as with "off"; so is
    everything for a target whose code cannot run here. `where` says by key where in the model a workload is.

    The cache is saved whatever happens. Raises BuildError B102 when no family accepts a workload, B103 when all
    candidates of one fail, B104 when the listener cancels, and lets KeyboardInterrupt through.
    """
    if mode not in MODES:
        raise BuildError(f"unknown tuning mode {mode!r}", do=f"use one of {', '.join(MODES)}", code="B105")
    jobs = [_job(key, w, target, families) for key, w in {w.key: w for w in workloads}.items()]
    _refuse_unsupported(jobs, where or {})
    memory = cache if cache is not None else TuningCache(None)
    try:
        return _Tuner(target, mode, memory, budget_s, where or {}).run(jobs, constants or {}, progress)
    finally:
        memory.save()


def unsupported(workloads: Iterable[Workload], target: Target, families: Sequence[Family]) -> dict[str, str]:
    """By `Workload.key`, in one phrase: the workloads that no family accepts."""
    return {
        w.key: f"no kernel takes {label(w.op)} of {_operands(w)}"
        for w in workloads
        if all(isinstance(accepted(family, w, target), Reject) for family in families)
    }


def parse_config(family: Family, config: Mapping[str, Any]) -> Config | None:
    """The family's config from its dict form; None when it does not fit (another version of the family wrote it)."""
    try:
        parsed: Config = family.config(**config)
    except TypeError:
        return None
    return parsed


def _operands(w: Workload) -> str:
    return ", ".join("nothing" if o is None else str(o.type) for o in w.inputs) or "no inputs"


@dataclass(frozen=True)
class _Job:
    """One workload with the families that accept it and the answers of those that do not."""

    key: str
    workload: Workload
    accepting: tuple[Family, ...]
    rejects: tuple[Outcome, ...]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(f"{f.name}@{f.version}" for f in self.accepting)

    def limit(self, effort: Effort) -> int:
        """Candidates to try. Huge weights allow few: formatting them takes long, and memory bounds every kernel."""
        weights = sum(o.type.size_bytes for o in self.workload.inputs if o is not None and o.constant)
        return min(effort.candidates, max(2, _WEIGHT_BYTES // max(weights, 1)))

    def guesses(self, target: Target) -> Iterator[Candidate]:
        """Candidates of all families in turns: the first of each, the second of each, ..."""
        ranks = zip_longest(*(zip(repeat(f), usable(f, self.workload, target)) for f in self.accepting))
        pairs = (pair for rank in ranks for pair in rank if pair is not None)
        for order, (family, config) in enumerate(pairs):
            yield Candidate(order, family, config)


def _job(key: str, w: Workload, target: Target, families: Sequence[Family]) -> _Job:
    answers = [(family, accepted(family, w, target)) for family in families]
    rejects = [
        Outcome(family.name, family.version, None, "rejected", reason=answer.reason)
        for family, answer in answers
        if isinstance(answer, Reject)
    ]
    return _Job(key, w, tuple(f for f, answer in answers if not isinstance(answer, Reject)), tuple(rejects))


def _refuse_unsupported(jobs: Sequence[_Job], where: Mapping[str, str]) -> None:
    """One error for all workloads that no family accepts."""
    lost = [job for job in jobs if not job.accepting]
    if not lost:
        return
    reasons = []
    for job in lost:
        reasons.append(f"{where.get(job.key, 'workload')}: {job.key}")
        reasons += [f"  {reject.family}: {reject.reason}" for reject in job.rejects]
    others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    raise BuildError(
        f"no kernel can run {short(lost[0].workload)}{others}",
        where=where.get(lost[0].key, ""),
        why=reasons,
        do="change these layers, or build with target='reference' (slow, NumPy)",
        code="B102",
    )


class _Tuner:
    """What all workloads of one call of `tune` share."""

    def __init__(
        self, target: Target, mode: str, cache: TuningCache, budget_s: float | None, where: Mapping[str, str]
    ) -> None:
        self.target, self.cache, self.where = target, cache, where
        self.measurer: Measurer[Any] | None = target.measurer() if target.runs_here else None
        self.mode = mode if self.measurer is not None else "off"
        self.cache_key = target.fingerprint + (f"|{self.measurer.conditions}" if self.measurer is not None else "")
        self.deadline = None if budget_s is None else time.monotonic() + budget_s

    def run(
        self, jobs: Sequence[_Job], constants: Mapping[str, Mapping[int, Array]], progress: Listener | None
    ) -> dict[str, Choice]:
        choices = {job.key: choice for job in jobs if (choice := self._known(job)) is not None}
        effort = EFFORTS.get(self.mode)
        if effort is None or self.measurer is None:
            return {job.key: choices.get(job.key) or self._first_guess(job) for job in jobs}
        races = {
            job.key: list(islice(job.guesses(self.target), job.limit(effort))) for job in jobs if job.key not in choices
        }
        reporter = Reporter(progress, len(jobs), len(choices), sum(map(len, races.values())))
        reporter.tell("start")
        for job in (job for job in jobs if job.key in races):
            reporter.tell("workload", short(job.workload))
            if self.is_late() or job.workload.op.decides:  # what decides a size has no opt size to be timed at
                reporter.passed_over(len(races[job.key]))
                choice = self._first_guess(job)
            else:
                race = Race(job.workload, races[job.key], self.target, self.measurer, constants.get(job.key, {}))
                choice = self._measure(job, race, effort, reporter)
            choices[job.key] = choice
            settings = " ".join(f"{key}={value}" for key, value in choice.config.items())
            reporter.decided(f"{choice.family} {settings}", choice.seconds)
        reporter.tell("end")
        return {job.key: choices[job.key] for job in jobs}

    def is_late(self) -> bool:
        """Whether the time budget is used up."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _known(self, job: _Job) -> Choice | None:
        """The cached choice, if it still is one."""
        record = self.cache.get(self.cache_key, job.key)
        won = record.winner if record is not None and record.answers(job.families, self.mode) else None
        if won is None or won.config is None:
            return None
        family = next((f for f in job.accepting if (f.name, f.version) == (won.family, won.version)), None)
        if family is None or parse_config(family, won.config) is None:
            return None
        return Choice(won.family, won.version, won.config, won.seconds or 0.0, "cache")

    def _first_guess(self, job: _Job) -> Choice:
        guess = next(job.guesses(self.target), None)
        if guess is None:
            raise BuildError(
                f"the kernel families for {short(job.workload)} offer no candidate",
                where=self.where.get(job.key, job.key),
                why=job.families,
                code="B103",
            )
        return Choice(guess.family.name, guess.family.version, guess.config.as_dict(), 0.0, "heuristic")

    def _measure(self, job: _Job, race: Race, effort: Effort, reporter: Reporter) -> Choice:
        """Race, verify, record. An interrupted race leaves no record."""
        past = self.cache.get(self.cache_key, job.key)

        def is_verified(candidate: Candidate) -> bool:
            known = past.known(candidate.outcome("won")) if past is not None else None
            return known is not None and known.verified

        try:
            race.run(effort, self.is_late, reporter.tried)
            winner = race.winner(is_verified)
            outcomes = (*race.outcomes(), *job.rejects)
        finally:
            race.close()
        self.cache.put(self.cache_key, job.key, Record(self.mode, job.families, outcomes).with_past(past))
        if winner is None:
            failures = [f"{o.family} {o.config}: {o.reason or o.status}" for o in outcomes if o.status != "rejected"]
            raise BuildError(
                f"every kernel for {short(job.workload)} failed",
                why=failures,
                code="B103",
                where=self.where.get(job.key, job.key),
                do="this is a defect of Tensorwright: report it with `tensorwright doctor --json`",
            )
        return Choice(winner.family.name, winner.family.version, winner.config.as_dict(), race.best(winner), "measured")


__all__ = ["EFFORTS", "parse_config", "tune", "unsupported"]
