# SPDX-License-Identifier: Apache-2.0
"""`tensorwright explain`: what the optimiser does to a model and why, before any kernel is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    ModelOnly,
    Outputs,
    Shapes,
    Weights,
    answer,
    command,
    names_text,
    parse_shapes,
    source,
    table,
)

if TYPE_CHECKING:
    from tensorwright.ir.graph import Graph
    from tensorwright.lower.partition import Division
    from tensorwright.lower.program import Program


@command
def explain(
    model: ModelOnly,
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006  typer copies it
    shapes: Shapes = [],  # noqa: B006
    limit: Annotated[int, typer.Option("--limit", min=0, help="Edits to show of each rule; 0 shows all.")] = 10,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the pipeline, every edit with its reason, and the steps before and after."""
    from tensorwright.importers.base import import_model
    from tensorwright.lower.partition import divide
    from tensorwright.passes.pipeline import optimise
    from tensorwright.passes.report import report_text

    graph = import_model(model, **source(weights, outputs), shapes=parse_shapes(shapes))
    report = optimise(graph)
    # Before: what the model would run as it was exported, one step a node.
    before = graph_steps(graph)
    after = division_steps(divide(report.graph, lambda program: {}))  # no target is chosen that could lack a kernel
    data = {"model": model, "before": before, **report.as_dict(), "after": after}

    def draw() -> None:
        typer.echo(report_text(report, limit=limit or None))
        for title, steps in (("before", before), ("after", after)):
            typer.echo(f"\n{title}: {len(steps)} steps")
            table(
                "",
                {"step": "left", "op": "left", "result": "left", "nodes of the model": "left"},
                [[step["name"], step["op"], step["result"], names_text(step["origin"])] for step in steps],
            )

    answer(data, draw, as_json=as_json)


def division_steps(division: Division) -> list[dict[str, Any]]:
    """The steps of all parts, those of bodies as well."""
    steps: list[dict[str, Any]] = []
    for part in division.parts:
        for body in part.bodies.values():
            steps += division_steps(body)
        if not part.bodies:
            steps += graph_steps(part.graph) if part.program is None else program_steps(part.program)
    return steps


def graph_steps(graph: Graph) -> list[dict[str, Any]]:
    """The nodes of a graph in order."""
    from tensorwright.ops.label import label

    return [
        {
            "name": node.name,
            "op": label(node.op),
            "result": ", ".join(str(value.type) for value in node.outputs),
            "origin": list(node.origin),
        }
        for node in graph.nodes
    ]


def program_steps(program: Program) -> list[dict[str, Any]]:
    """The steps of a program in execution order."""
    return [
        {
            "name": step.name,
            "op": op_name(step.workload.op),
            "result": ", ".join(map(str, step.workload.outputs)),
            "origin": list(step.origin),
        }
        for step in program.steps
    ]


def op_name(op: object) -> str:
    """The kind of an op; of a fused one, its anchor and then what is done to each element."""
    from tensorwright.ops.fused import Fused

    if not isinstance(op, Fused):
        return str(getattr(op, "kind", type(op).__name__))
    body = [instruction.op.kind for instruction in op.body]
    return " + ".join(([op.anchor.kind] if op.anchor is not None else []) + body)
