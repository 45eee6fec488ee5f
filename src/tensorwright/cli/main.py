# SPDX-License-Identifier: Apache-2.0
"""Entry point of the `tensorwright` command: lists the subcommands, nothing else.

Exit codes: 0 done; 1 `compare` found a mismatch; 2 a wrong command line, a TensorwrightError, or `check` found what
cannot be imported; 3 `check --strict` found host steps; 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

import tensorwright
from tensorwright.cli import bench, build, check, compare, doctor, explain, inspect, knobs, profile, run, surgeon

app = typer.Typer(
    name="tensorwright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build a trained network into an engine for this machine, look inside it, and run it.",
)
for module in (build, run, bench, inspect, explain, check, compare, profile, doctor, knobs):
    name = module.__name__.rpartition(".")[2]
    app.command(name)(getattr(module, name))
app.add_typer(surgeon.app, name="surgeon")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tensorwright {tensorwright.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _root(version: Version = False) -> None:
    """Build a trained network into an engine for this machine, look inside it, and run it."""


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="tensorwright")


if __name__ == "__main__":
    main()
