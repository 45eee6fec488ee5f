# SPDX-License-Identifier: Apache-2.0
"""`tensorwright surgeon`: cleans, cuts and mends ONNX models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tensorwright.cli.common import Debug, Json, answer, command
from tensorwright.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

app = typer.Typer(no_args_is_help=True, help="Clean, cut and mend ONNX models; every result is checked before written.")

Source = Annotated[str, typer.Argument(help="An ONNX file.", show_default=False)]
Output = Annotated[str, typer.Option("--output", "-o", help="ONNX file to write.", show_default=False)]
Operator = Annotated[str, typer.Option("--op", help="Operator of the new node, as Relu.", show_default=False)]
Attributes = Annotated[
    list[str], typer.Option("--attr", metavar="NAME=VALUE", help="Attribute of the new node, as axis=1 or pads=[0,1].")
]
NodeName = Annotated[str, typer.Option("--name", help="Name of the new node.")]
Domain = Annotated[str, typer.Option("--domain", help="Domain of the operator; empty for standard ones.")]


@app.command()
@command
def sanitize(
    model: Source,
    output: Output,
    fold_constants: Annotated[
        bool, typer.Option("--fold-constants", help="Evaluate and store what depends on no input.")
    ] = False,
    limit: Annotated[str, typer.Option("--size-limit", help="Largest result to store.")] = "64MiB",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Sort the nodes and drop what no output needs; with --fold-constants also evaluate constants and static shapes."""
    from tensorwright.builder import parse_bytes
    from tensorwright.surgeon.files import open_model
    from tensorwright.surgeon.sanitize import sanitize

    done = sanitize(open_model(model), fold=fold_constants, limit_bytes=parse_bytes(limit) or 0)
    facts = done.as_dict()
    folds = done.folds
    lines = [
        f"{facts['nodes_before']} nodes before, {facts['nodes_after']} after: {len(folds.folded)} folded, "
        f"{len(done.dropped)} unused nodes and tensors dropped{', sorted' if done.sorted else ''}"
    ]
    lines += [f"not folded: {node}: {reason}" for node, reason in folds.kept.items()]
    _write(done.model, model, output, facts, lines, as_json=as_json)


@app.command()
@command
def extract(
    model: Source,
    inputs: Annotated[str, typer.Option("--inputs", help="Tensors where the part begins, as a,b.", show_default=False)],
    outputs: Annotated[str, typer.Option("--outputs", help="Tensors where it ends.", show_default=False)],
    output: Output,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the part of a model between named tensors as a model of its own."""
    from tensorwright.surgeon.extract import extract
    from tensorwright.surgeon.files import open_model

    part = extract(open_model(model), _names(inputs), _names(outputs))
    _write(part, model, output, {}, [f"{len(part.graph.node)} nodes"], as_json=as_json)


@app.command()
@command
def insert(
    model: Source,
    on: Annotated[str, typer.Option("--on", help="Tensor whose readers read the new result.", show_default=False)],
    op: Operator,
    output: Output,
    attr: Attributes = [],  # noqa: B006  typer copies it
    more_inputs: Annotated[str, typer.Option("--more-inputs", help="Further input tensors of the node.")] = "",
    name: NodeName = "",
    domain: Domain = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Insert one node on a tensor: it reads the tensor, and all that had read the tensor read its result."""
    from tensorwright.surgeon.edit import NewNode, insert
    from tensorwright.surgeon.files import open_model

    new = NewNode(op, _attributes(attr), name, domain)
    result = insert(open_model(model), on, new, more_inputs=_names(more_inputs))
    _write(result, model, output, {}, [f"{op} inserted on {on}"], as_json=as_json)


@app.command()
@command
def replace(
    model: Source,
    op: Operator,
    output: Output,
    node: Annotated[str, typer.Option("--node", help="Node to replace, by name.")] = "",
    inputs: Annotated[str | None, typer.Option("--inputs", help="Inputs of the new node [default: the node's]")] = None,
    outputs: Annotated[str, typer.Option("--outputs", help="Tensors it makes [default: the node's]")] = "",
    attr: Attributes = [],  # noqa: B006
    name: NodeName = "",
    domain: Domain = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Put one node in place of a node, or of the region between --inputs and --outputs."""
    from tensorwright.surgeon.edit import NewNode, replace
    from tensorwright.surgeon.files import open_model

    new = NewNode(op, _attributes(attr), name, domain)
    given = None if inputs is None else _names(inputs)
    result = replace(open_model(model), new, node=node, inputs=given, outputs=_names(outputs) or None)
    _write(result, model, output, {}, [f"{op} in place of {node or 'the region before ' + outputs}"], as_json=as_json)


def _write(
    result: ModelProto, source: str, output: str, facts: dict[str, Any], lines: list[str], *, as_json: bool
) -> None:
    from tensorwright.surgeon.files import save_model, uses_external

    written = save_model(result, output, external=uses_external(source))
    data = {**facts, "nodes": len(result.graph.node), "written": written}
    answer(data, "\n".join([*lines, f"written to {' and '.join(written)}"]), as_json=as_json)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _attributes(texts: list[str]) -> dict[str, Any]:
    """`axis=1` and the like; what is not JSON is text. Raises InputError I114 for anything without a name."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(
                f"cannot read the attribute {text!r}", why="expected name=value", do="write --attr axis=1", code="I114"
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
