# SPDX-License-Identifier: Apache-2.0
"""`tensorwright check`: whether a model can be built, and what of it would not run as generated code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tensorwright.cli.common import (
    EXIT_ERROR,
    Debug,
    Json,
    ModelOnly,
    Outputs,
    Shapes,
    Target,
    Weights,
    answer,
    command,
    parse_shapes,
    source,
    table,
)

if TYPE_CHECKING:
    from tensorwright.compare.check import Checked

EXIT_HOST_STEPS = 3


@command
def check(
    model: ModelOnly,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 3 when there are host steps.")] = False,
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006  typer copies it
    shapes: Shapes = [],  # noqa: B006
    target: Target = "cpu",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List what cannot be imported (exit code 2) and what would run in NumPy, not as generated code (3 if strict)."""
    from tensorwright.compare.check import check

    found = check(model, **source(weights, outputs), shapes=parse_shapes(shapes), target=target)
    answer({"model": model, **found.as_dict()}, lambda: _draw(found), as_json=as_json)
    if found.problems:
        raise typer.Exit(EXIT_ERROR)
    if strict and found.host_steps:
        raise typer.Exit(EXIT_HOST_STEPS)


def _draw(found: Checked) -> None:
    if found.problems:
        typer.echo(f"{found.problem}:")
        for problem in found.problems:
            typer.echo(f"  {problem}")
        if found.do:
            typer.echo(f"to do: {found.do}")
        return
    if found.host_steps:
        typer.echo(f"{len(found.host_steps)} of {found.nodes} nodes run in NumPy:")
        table(
            "",
            {"nodes of the model": "left", "op": "left", "reason": "left"},
            [[", ".join(step.origin), step.op, step.reason] for step in found.host_steps],
        )
    else:
        typer.echo(f"all {found.nodes} nodes run as generated code on {found.target}")
