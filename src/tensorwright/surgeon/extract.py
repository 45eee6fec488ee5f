# SPDX-License-Identifier: Apache-2.0
"""Cuts the part between named tensors out of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import ModelProto, TypeProto, ValueInfoProto

from tensorwright.errors import ModelError
from tensorwright.surgeon.structure import drop_unused, keep_nodes, needed, reads, require_tensors, sort_nodes
from tensorwright.surgeon.types import infer_types


def extract(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """A model of the nodes between `inputs` and `outputs`, any tensors of the main graph.

    Types come from shape inference. Raises ModelError M120 for unknown names (with near ones), M124 when the outputs
    also depend on inputs of the model that are not listed, do not depend on a listed one, or a type is not known.
    """
    graph = model.graph
    require_tensors(graph, (*inputs, *outputs))
    types = infer_types(model)
    result = ModelProto()
    result.CopyFrom(model)
    part = result.graph
    sort_nodes(part)
    kept = needed(part, outputs, stop=inputs)
    keep_nodes(part, sorted(kept))
    used = {name for node in part.node for name in reads(node)} | set(outputs)
    stored = {tensor.name for tensor in graph.initializer}
    missing = [i.name for i in graph.input if i.name in used and i.name not in (*inputs, *stored)]
    idle = [name for name in inputs if name not in used]
    if missing or idle:
        why = [f"the outputs also depend on the input {name!r}" for name in missing]
        raise ModelError(
            "these tensors do not enclose a part of the model",
            why=why + [f"the outputs do not depend on {name!r}" for name in idle],
            do=f"give --inputs {','.join([*(name for name in inputs if name not in idle), *missing])}",
            code="M124",
        )
    del part.input[:]
    del part.output[:]
    part.input.extend(_infos(inputs, types))
    part.output.extend(_infos(outputs, types))
    for index in range(len(part.initializer) - 1, -1, -1):
        if part.initializer[index].name in inputs:
            del part.initializer[index]
    drop_unused(result)
    inside = {name for node in part.node for name in node.output} - set(outputs)
    del part.value_info[:]
    part.value_info.extend(ValueInfoProto(name=name, type=types[name]) for name in sorted(inside) if name in types)
    return result


def _infos(names: Iterable[str], types: dict[str, TypeProto]) -> list[ValueInfoProto]:
    unknown = [name for name in names if name not in types]
    if unknown:
        raise ModelError(
            f"the type of {', '.join(map(repr, unknown))} is not known",
            why="shape inference of ONNX stops before it, as it does behind operators of other domains",
            do="choose tensors near it whose type is known",
            code="M124",
        )
    return [ValueInfoProto(name=name, type=types[name]) for name in names]
