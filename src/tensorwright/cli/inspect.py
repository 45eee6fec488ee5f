# SPDX-License-Identifier: Apache-2.0
"""`tensorwright inspect`: what is in a plan or a model, without running it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    Model,
    Outputs,
    answer,
    bytes_text,
    command,
    is_plan,
    names_text,
    source,
    table,
)

if TYPE_CHECKING:
    from tensorwright.plan.plan import Plan


@command
def inspect(
    model: Model,
    outputs: Outputs = [],  # noqa: B006  typer copies it
    workloads: Annotated[bool, typer.Option("--workloads", help="Show operands with shapes and strides.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a plan's interface, steps, kernels, memory and sections, or a model's interface and ops."""
    if is_plan(model):
        facts = plan_facts(model)
        answer(facts, lambda: _draw_plan(facts, workloads), as_json=as_json)
    else:
        facts = model_facts(model, source("", outputs)["outputs"])
        answer(facts, lambda: _draw_model(facts), as_json=as_json)


def plan_facts(path: str) -> dict[str, Any]:
    """A plan as plain data. No code of it is loaded. Raises PlanError when the file is not a whole plan."""
    from tensorwright.plan.plan import read_plan
    from tensorwright.plan.read import open_container

    plan = read_plan(path)
    sections = [
        {"name": s.name, "offset": s.offset, "bytes": s.size, "check": s.check} for s in open_container(path).sections
    ]
    return {
        "kind": "plan",
        "name": plan.name,
        "producer": plan.producer,
        "inputs": list(map(str, plan.inputs)),
        "outputs": list(map(str, plan.outputs)),
        "options": plan.options,
        "constants_bytes": sum(array.nbytes for array in plan.constants.values()),
        "host_steps": [step.as_dict() for step in plan.schedule.host_steps] if plan.schedule is not None else [],
        "targets": {kind: _native_facts(plan, kind) for kind in plan.native},
        "sections": sections,
        "graph": plan.graph,
    }


def _native_facts(plan: Plan, kind: str) -> dict[str, Any]:
    native = plan.native[kind]
    sizes = {key: native.program[key] for key in ("arena_bytes", "scratch_bytes")}
    steps = [{key: step[key] for key in ("name", "origin", "kernel", "workload")} for step in native.program["steps"]]
    return {
        "fingerprint": native.fingerprint,
        "code_bytes": len(native.code),
        "weights_bytes": native.weights.nbytes,
        **sizes,
        "steps": steps,
    }


def model_facts(path: str, outputs: list[str] | None = None) -> dict[str, Any]:
    """A model's interface and its ops after import, by kind. Raises ModelError when it cannot be imported."""
    from tensorwright.importers.base import import_model

    graph = import_model(path, outputs=outputs)
    ops = Counter(node.op.kind for node in graph.nodes)
    return {
        "kind": "model",
        "name": graph.name,
        "inputs": [f"{v.name}: {v.type}" for v in graph.inputs],
        "outputs": [f"{n}: {v.type}" for n, v in zip(graph.output_names, graph.outputs, strict=True)],
        "nodes": len(graph),
        "ops": dict(ops.most_common()),
        "constants_bytes": sum(array.nbytes for array in graph.constants.values()),
    }


def _draw_interface(facts: dict[str, Any]) -> None:
    typer.echo(f"{facts['kind']:9s}{facts['name']}" + (f", made by {facts['producer']}" if "producer" in facts else ""))
    for side in ("inputs", "outputs"):
        typer.echo(f"{side:9s}{', '.join(facts[side])}")
    typer.echo(f"weights  {bytes_text(facts['constants_bytes'])}")


def _draw_plan(facts: dict[str, Any], workloads: bool) -> None:
    _draw_interface(facts)
    for kind, native in facts["targets"].items():
        typer.echo(f"code     {kind}: {native['fingerprint']}, {bytes_text(native['code_bytes'])}")
        typer.echo(
            f"memory   weights as packed {bytes_text(native['weights_bytes'])}; a context takes "
            f"{bytes_text(native['arena_bytes'])} and {bytes_text(native['scratch_bytes'])} a thread"
        )
        columns = {"step": "left", "kernel": "left", "nodes of the model": "left"}
        rows: list[list[object]] = [[s["name"], s["kernel"], names_text(s["origin"])] for s in native["steps"]]
        if workloads:
            columns["workload"] = "left"
            rows = [[*row, step["workload"]] for row, step in zip(rows, native["steps"], strict=True)]
        typer.echo()
        table("", columns, rows)
    if facts["host_steps"]:
        typer.echo()
        columns = dict.fromkeys(("host step", "op", "nodes of the model", "why"), "left")
        rows = [[s["name"], s["op"], names_text(s["origin"]), s["reason"]] for s in facts["host_steps"]]
        table("", columns, rows)
    typer.echo()
    table(
        "",
        {"section": "left", "bytes": "right", "offset": "right"},
        [[s["name"], s["bytes"], s["offset"]] for s in facts["sections"]],
    )


def _draw_model(facts: dict[str, Any]) -> None:
    _draw_interface(facts)
    typer.echo(f"nodes    {facts['nodes']}: " + ", ".join(f"{count} {kind}" for kind, count in facts["ops"].items()))
