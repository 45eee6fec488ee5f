# SPDX-License-Identifier: Apache-2.0
"""`tensorwright build`: a model becomes a plan file."""

from __future__ import annotations

import pathlib
import time
from typing import Annotated

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    ModelOnly,
    Outputs,
    Shapes,
    Target,
    Threads,
    TimingCache,
    Tune,
    Weights,
    answer,
    bytes_text,
    command,
    parse_shapes,
    source,
)


@command
def build(
    model: ModelOnly,
    output: Annotated[str, typer.Option("--output", "-o", help="Plan file to write [default: MODEL with .plan]")] = "",
    target: Target = "cpu",
    precision: Annotated[str, typer.Option("--precision", help="Element type of the computation.")] = "fp32",
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006  typer copies it
    shapes: Shapes = [],  # noqa: B006
    timing_cache: TimingCache = "",
    tune: Tune = "quick",
    threads: Threads = 0,
    no_host_steps: Annotated[
        bool, typer.Option("--no-host-steps", help="Fail when a node would run in NumPy, for want of a kernel.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Import, optimise, tune and compile a network, and write it as a plan."""
    import tensorwright as tw

    plan = pathlib.Path(output) if output else pathlib.Path(model).with_suffix(".plan")
    start = time.perf_counter()
    engine = tw.build(
        model,
        **source(weights, outputs),
        target=target,
        precision=precision,
        shapes=parse_shapes(shapes),
        tune=tune,
        timing_cache=timing_cache or None,
        threads=threads or None,
        progress=not (quiet or as_json),
        host_steps=not no_host_steps,
    )
    built = time.perf_counter() - start
    engine.save(plan)
    report = engine.report()
    edits = sum(len(stage["edits"]) for stage in report.get("passes", {}).get("stages", ()))
    data = {
        "plan": str(plan),
        "plan_bytes": plan.stat().st_size,
        "build_seconds": round(built, 3),
        "target": target,
        "steps": len(report["steps"]),
        "edits": edits,
        "memory": engine.memory().as_dict(),
        "notes": list(engine.notes),
    }
    memory = engine.memory()
    lines = (
        f"{plan}  {bytes_text(plan.stat().st_size)}, {len(report['steps'])} steps, built in {built:.1f} s",
        f"memory: {bytes_text(memory.weights)} packed weights, {bytes_text(memory.code)} code; each context plans "
        f"a peak of {bytes_text(memory.arena)} for activations and {bytes_text(memory.scratch)} scratch",
        *engine.notes,
    )
    answer(data, "\n".join(lines), as_json=as_json)
