# SPDX-License-Identifier: Apache-2.0
"""`tensorwright compare`: an engine against another runtime on the same inputs, down to the node where they part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    command,
    parse_shapes,
    random_inputs,
    source,
    table,
)
from tensorwright.cli.run import read_arrays
from tensorwright.errors import BuildError, InputError

if TYPE_CHECKING:
    from tensorwright.compare.compare import Comparison
    from tensorwright.compare.difference import Difference, Tolerance
    from tensorwright.compare.localise import Localised, StepDifference

EXIT_MISMATCH = 1


@command
def compare(
    model: ModelOnly,
    runtime: Annotated[str, typer.Option("--with", help="onnxruntime, or reference (the model in NumPy).")],
    tolerance: Annotated[str, typer.Option("--tolerance", metavar="RTOL,ATOL", help="Allowed error.")] = "1e-3,1e-4",
    localise: Annotated[bool, typer.Option("--localise", help="Find the first bad node, step by step.")] = False,
    inputs: Annotated[
        list[str], typer.Option("--input", "-i", help="name=file.npy, or an .npz; inputs not given are random.")
    ] = [],  # noqa: B006  typer copies it
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of random inputs.")] = 0,
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006
    shapes: Shapes = [],  # noqa: B006
    target: Target = "cpu",
    tune: Tune = "quick",
    timing_cache: TimingCache = "",
    threads: Threads = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build the model, run it and another runtime on the same inputs, and compare all outputs (exit code 1: differ)."""
    import tensorwright as tw
    from tensorwright.compare.compare import compare, reference_outputs
    from tensorwright.compare.localise import localise as walk

    allowed = parse_tolerance(tolerance)
    if localise and target == "reference":
        raise BuildError("target reference has no kernels to localise", do="give a cpu target", code="B113")
    asked = source(weights, outputs)
    engine = tw.build(
        model,
        **asked,
        target=target,
        shapes=parse_shapes(shapes),
        tune=tune,
        timing_cache=timing_cache or None,
        threads=threads or None,
    )
    given = read_arrays(inputs, engine)
    feeds = random_inputs(engine, seed) | given
    result = compare(engine, model, feeds, runtime, allowed, **asked)
    steps = None
    if localise:
        imported = reference_outputs(model, feeds, **asked)
        steps = walk(engine.plan, feeds, result.found, imported, allowed, target=target, threads=engine.threads)
    data = {"model": model, "seed": seed, "random_inputs": [i.name for i in engine.inputs if i.name not in given]}
    data |= result.as_dict() | ({"localised": steps.as_dict()} if steps is not None else {})
    answer(data, lambda: _draw(result, steps), as_json=as_json)
    if not result.passed or (steps is not None and steps.faulty is not None):
        raise typer.Exit(EXIT_MISMATCH)


def parse_tolerance(text: str) -> Tolerance:
    """ "1e-3,1e-4" as a Tolerance; one number is for both. Raises InputError I115 for anything else."""
    from tensorwright.compare.difference import Tolerance

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2 or not all(0 <= number < float("inf") for number in numbers):
        raise InputError(
            f"cannot read the tolerance {text!r}",
            why="expected rtol,atol",
            do="write --tolerance 1e-3,1e-4",
            code="I115",
        )
    return Tolerance(numbers[0], numbers[-1])


def _draw(result: Comparison, steps: Localised | None) -> None:
    from tensorwright.compare.difference import histogram_lines

    columns = {"output": "left", "type": "left"}
    columns |= dict.fromkeys(("max abs", "mean abs", "max rel", "mean rel", "max abs / max", ""), "right")
    table("", columns, [_row(output) for output in result.outputs])
    for output in result.outputs:
        if output.passed:
            continue
        typer.echo(f"\n{output.name}: {output.reason}")
        if output.first is not None:
            typer.echo(f"first at {list(output.first)}: {output.first_got} instead of {output.first_want}")
        for needed, name, other in (
            (output.needed_rtol, "rtol", f"atol {result.tolerance.atol:g}"),
            (output.needed_atol, "atol", f"rtol {result.tolerance.rtol:g}"),
        ):
            amount = "no tolerance" if needed is None else f"{name} {needed:.3g}"
            typer.echo(f"with {other} it would pass with {amount}")
        if output.histogram:
            typer.echo("\n".join(["absolute errors:", *histogram_lines(output.histogram)]))
    if steps is not None:
        _draw_steps(steps)
        if steps.agrees and not result.passed:
            typer.echo(f"the engine computes what was imported: {result.runtime} reads the model in another way")
    typer.echo(
        f"\n{'all outputs agree' if result.passed else 'MISMATCH'} with {result.runtime} "
        f"at rtol {result.tolerance.rtol:g}, atol {result.tolerance.atol:g}"
    )


def _row(output: Difference) -> list[object]:
    figures = (output.max_abs, output.mean_abs, output.max_rel, output.mean_rel, output.scaled)
    return [output.name, output.type, *(f"{x:.3g}" for x in figures), "agrees" if output.passed else "differs"]


def _draw_steps(steps: Localised) -> None:
    columns = {"nodes of the model": "left", "kernel": "left", "own error": "right", "gathered": "right", "": "left"}
    typer.echo()
    table("", columns, [_step_row(step) for step in steps.steps])
    typer.echo(f"\n{steps.verdict}")


def _step_row(step: StepDifference) -> list[object]:
    names = ", ".join(step.origin[:3]) + (" ..." if len(step.origin) > 3 else "")
    remark = "BAD" if step.fault else "" if step.gathered.passed else "beyond the tolerance"
    return [names or step.step, step.kernel, f"{step.local.max_abs:.3g}", f"{step.gathered.max_abs:.3g}", remark]
