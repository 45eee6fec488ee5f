# SPDX-License-Identifier: Apache-2.0
"""`tensorwright run`: one inference on given or random inputs."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorwright.cli.common import (
    Debug,
    Json,
    Model,
    Outputs,
    Shapes,
    Target,
    Weights,
    answer,
    command,
    open_engine,
    parse_shapes,
    random_inputs,
    save_npz,
    source,
    summary,
    table,
)
from tensorwright.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from tensorwright.runtime.engine import Engine

    Arrays = dict[str, np.ndarray[Any, Any]]


@command
def run(
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", help="name=file.npy, or an .npz of named arrays; inputs not given are random."),
    ] = [],  # noqa: B006  typer copies it
    output: Annotated[str, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of random inputs.")] = 0,
    target: Target = "cpu",
    weights: Weights = "",
    outputs: Outputs = [],  # noqa: B006
    shapes: Shapes = [],  # noqa: B006
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a plan (or a model, built on the fly) once and show its outputs."""
    engine = open_engine(model, target=target, **source(weights, outputs), shapes=parse_shapes(shapes))
    given = read_arrays(inputs, engine)
    results = engine.run(random_inputs(engine, seed) | given)
    if output:
        save_npz(output, results)
    facts = {name: summary(array) for name, array in results.items()}
    random_names = [item.name for item in engine.inputs if item.name not in given]
    data = {"outputs": facts, "random_inputs": random_names, "seed": seed, "written": output or None}

    def draw() -> None:
        if random_names:
            typer.echo(f"random values (seed {seed}) for {', '.join(random_names)}")
        sides = {"output": "left", "type": "left"} | dict.fromkeys(("min", "max", "mean", "not finite"), "right")
        table(
            "",
            sides,
            [
                [
                    name,
                    f"{row['dtype']} {row['shape']}",
                    *map(_figure, map(row.get, ("min", "max", "mean"))),
                    row.get("not_finite", "-"),
                ]
                for name, row in facts.items()
            ],
        )
        if output:
            typer.echo(f"written to {output}")

    answer(data, draw, as_json=as_json)


def read_arrays(texts: list[str], engine: Engine) -> Arrays:
    """Arrays from `name=file.npy` and `file.npz` arguments. A bare `file.npy` is the only input.

    Raises InputError (I111) when a file cannot be read as such.
    """
    import numpy as np

    arrays: Arrays = {}
    for text in texts:
        name, equals, path = text.rpartition("=")
        try:
            loaded = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"cannot read arrays from {path!r}",
                why=str(error),
                code="I111",
                do="write it with numpy.save or numpy.savez",
            ) from None
        if isinstance(loaded, np.ndarray):
            arrays[name if equals else _only_input(engine, path)] = loaded
        else:
            with loaded:
                arrays |= {key: loaded[key] for key in loaded.files}
    unknown = [name for name in arrays if name not in {item.name for item in engine.inputs}]
    if unknown:
        raise InputError(
            f"the network has no input {', '.join(map(repr, unknown))}",
            code="I112",
            why=f"its inputs are {', '.join(item.name for item in engine.inputs)}",
            do="name the arrays as the inputs are named",
        )
    return arrays


def _only_input(engine: Engine, path: str) -> str:
    names = [item.name for item in engine.inputs]
    if len(names) != 1:
        raise InputError(
            f"which input is {pathlib.Path(path).name}?",
            why=f"the network has {len(names)}: {', '.join(names)}",
            do=f"write {names[0] if names else 'name'}={path}",
            code="I113",
        )
    return names[0]


def _figure(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-"
