# SPDX-License-Identifier: Apache-2.0
"""From a plan file to an engine: its native code where that fits, else code made again from the portable part."""

from __future__ import annotations

import logging
import os
import time
from typing import Literal

from tensorwright.errors import PlanError
from tensorwright.plan.format import Bytes
from tensorwright.plan.plan import Plan, read_plan
from tensorwright.runtime.engine import Engine

_LOG = logging.getLogger("tensorwright")


def load(
    source: str | os.PathLike[str] | Bytes,
    *,
    target: str = "cpu",
    native: Literal["use", "ignore"] = "use",
    threads: int | None = None,
) -> Engine:
    """Load a plan from a path (weights stay mapped) or from bytes.

    Native code made for `target` is used as it is: loading does no other work. Otherwise code for `target` is made
    from the plan's graph and choices, and one line in the log and in `engine.notes` says so. A plan carries machine
    code: with native="ignore" none of it runs, and code is made from the portable part, which is data only.
    Target "reference" evaluates the graph in NumPy. `threads` bounds the workers of a run.

    Raises PlanError (P101 to P107), TargetError for an unknown target.
    """
    plan = read_plan(source)
    where = "plan in memory" if isinstance(source, bytes | bytearray | memoryview) else os.fspath(source)
    if target == "reference":
        return Engine(plan, target=target, where=where)
    from tensorwright.backends.cpu.target import CpuTarget  # LLVM is loaded only when code is

    here = CpuTarget.parse(target).fingerprint
    made_for = {plan.native[key].fingerprint if key in plan.native else "" for key in plan.native_keys}
    if made_for <= {here} and native == "use":
        return Engine(plan, threads=threads, where=where)
    return _respecialise(plan, target, threads, where, _reason(", ".join(sorted(made_for)), here, native))


def _reason(made_for: str, here: str, native: str) -> str:
    if native == "ignore":
        return "its native code was not to be used"
    return f"it holds code for {made_for}, this is {here}" if made_for else f"it holds no code for {here}"


def _respecialise(plan: Plan, target: str, threads: int | None, where: str, reason: str) -> Engine:
    try:
        from tensorwright.builder import respecialise
    except ImportError as error:  # a runtime installed without the builder's dependencies
        raise PlanError(
            "the plan has no code for this machine, and the builder that would make it is not installed",
            where=where,
            why=(reason, str(error)),
            do="build the plan on a machine like this one",
            code="P105",
        ) from error
    started = time.perf_counter()
    fresh = respecialise(plan, target=target)
    note = f"{where}: {reason}; code was made again from the portable part in {time.perf_counter() - started:.1f} s"
    _LOG.warning(note)
    return Engine(fresh, threads=threads, notes=(note,), where=where)
