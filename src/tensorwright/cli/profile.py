# SPDX-License-Identifier: Apache-2.0
"""`tensorwright profile`: where the time of an inference goes, by the model's own node names."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    Model,
    Outputs,
    Shapes,
    Target,
    Threads,
    TimingCache,
    Weights,
    answer,
    command,
    names_text,
    open_engine,
    parse_shapes,
    random_inputs,
    source,
    table,
)


@command
def profile(
    model: Model,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs to take the median of.")] = 50,
    top: Annotated[int, typer.Option("--top", min=0, help="Show only the slowest steps; 0 shows all in order.")] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")] = 0,
    target: Target = "cpu",
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006  typer copies it
    shapes: Shapes = [],  # noqa: B006
    timing_cache: TimingCache = "",
    threads: Threads = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Time every step of an engine on random inputs."""
    engine = open_engine(
        model,
        **source(weights, outputs),
        target=target,
        threads=threads,
        shapes=parse_shapes(shapes),
        timing_cache=timing_cache or None,
    )
    times = engine.profile(random_inputs(engine, seed), repeat)
    total = sum(time.us for time in times)
    shown = sorted(times, key=lambda time: -time.us)[:top] if top else times
    data = {
        "total_us": total,
        "threads": engine.threads,
        "repeat": repeat,
        "steps": [dataclasses.asdict(time) for time in shown],
    }

    def draw() -> None:
        columns = {"us": "right", "share": "right", "kernel": "left", "nodes of the model": "left"}
        table(
            "",
            columns,
            [[f"{time.us:.2f}", f"{time.share:.1%}", time.kernel, names_text(time.origin)] for time in shown],
        )
        typer.echo(f"{total:.1f} us in {len(times)} steps, one after the other, {engine.threads} threads")

    answer(data, draw, as_json=as_json)
