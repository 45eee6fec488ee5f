# SPDX-License-Identifier: Apache-2.0
"""What tuning learnt about one workload, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

STATUSES: Final = ("won", "measured", "slow", "wrong", "failed", "skipped", "rejected")
MODES: Final = ("off", "quick", "full")


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel that a workload gets. `seconds` is 0 when it was not measured.

    `source` is "measured" (in this build), "cache" (by an earlier one) or "heuristic" (the family's first guess,
    neither timed nor verified).
    """

    family: str
    version: int
    config: Mapping[str, Any]
    seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one candidate.

    `status`: won; measured (to the end); slow (given up early); wrong (disagrees with the reference); failed (could not
    be compiled); skipped (not tried: a better one was good enough, or the limits of the mode); rejected (the family
    does not accept the workload; `config` is None). `seconds` is None unless timed.
    """

    family: str
    version: int
    config: Mapping[str, Any] | None
    status: str
    seconds: float | None = None
    verified: bool = False
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form; what says nothing is left out."""
        config = None if self.config is None else dict(self.config)
        optional = {"seconds": self.seconds, "verified": self.verified or None, "reason": self.reason or None}
        return {
            "family": self.family,
            "version": self.version,
            "config": config,
            "status": self.status,
            **{k: v for k, v in optional.items() if v is not None},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Outcome:
        """Raises ValueError, KeyError or TypeError when the data is not an outcome."""
        config, seconds = data["config"], data.get("seconds")
        if data["status"] not in STATUSES or not (config is None or isinstance(config, dict)):
            raise ValueError(f"not an outcome: {data!r}")
        return Outcome(
            str(data["family"]),
            int(data["version"]),
            config,
            data["status"],
            None if seconds is None else float(seconds),
            bool(data.get("verified")),
            str(data.get("reason", "")),
        )

    def is_same_kernel(self, other: Outcome) -> bool:
        """Whether both speak of the same code."""
        return (self.family, self.version, self.config) == (other.family, other.version, other.config)


@dataclass(frozen=True, slots=True)
class Record:
    """All outcomes of one workload on one target. `families` ("name@version") had their say."""

    mode: str
    families: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def winner(self) -> Outcome | None:
        """The verified winner, if any."""
        return next((o for o in self.outcomes if o.status == "won" and o.verified and o.config is not None), None)

    def answers(self, families: Sequence[str], mode: str) -> bool:
        """Whether this record can decide for the accepting `families` in `mode` without a new measurement."""
        return (
            self.winner is not None
            and set(families) <= set(self.families)
            and (mode == "off" or MODES.index(self.mode) >= MODES.index(mode))
        )

    def known(self, outcome: Outcome) -> Outcome | None:
        """What is recorded about the kernel of `outcome`."""
        return next((o for o in self.outcomes if o.is_same_kernel(outcome)), None)

    def with_past(self, past: Record | None) -> Record:
        """This record plus verifications and outcomes of `past` about kernels that were not looked at again."""
        if past is None:
            return self
        merged = []
        for outcome in self.outcomes:
            old = past.known(outcome)
            merged.append(replace(outcome, verified=True) if old is not None and old.verified else outcome)
        rest = [
            replace(o, status="measured") if o.status == "won" else o for o in past.outcomes if self.known(o) is None
        ]
        return Record(self.mode, self.families, (*merged, *rest))

    def as_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "families": list(self.families), "outcomes": [o.as_dict() for o in self.outcomes]}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Record:
        """Raises ValueError, KeyError or TypeError when the data is not a record."""
        if data["mode"] not in MODES:
            raise ValueError(f"not a tuning mode: {data['mode']!r}")
        return Record(data["mode"], tuple(map(str, data["families"])), tuple(map(Outcome.from_dict, data["outcomes"])))
