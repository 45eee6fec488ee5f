# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan become ops with bodies, where every value that crosses the border of a body is an array that keeps
its type. They refuse anything else: such a node runs on the host as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, ValueInfoProto

from tensorwright.importers.onnx.check import source_name
from tensorwright.importers.onnx.node import RefusalError, normal_axis
from tensorwright.importers.onnx.tensors import declared_type
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.ops.control_flow import If, Loop, Scan, without

if TYPE_CHECKING:
    from tensorwright.importers.onnx.reader import BodyReader, GraphReader

Import = Callable[["GraphReader", NodeProto, Mapping[str, Value]], dict[str, Value]]

_BATCHED_SCAN = 8  # the last opset in which Scan has a batch axis


def read_if(reader: GraphReader, node: NodeProto, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """If: both branches, with the union of what they read from around them."""
    branches = {which: _body(reader, node, f"{which}_branch", which) for which in ("then", "else")}
    for which, branch in branches.items():
        branch.read_nodes()
        if len(branch.outputs) != len(node.output):
            raise ValueError(f"its {which}_branch does not have {len(node.output)} outputs")
    read = [i for i, name in enumerate(node.output) if name in reader.read_names]
    results = {which: _results(branch, [branch.outputs[i] for i in read]) for which, branch in branches.items()}
    captured = list(dict.fromkeys(name for branch in branches.values() for name in branch.captured))
    types = tuple(_joined(node.output[i], *(result[k].type for result in results.values())) for k, i in enumerate(read))
    bodies = [_graph(branch, [], results[which], captured) for which, branch in branches.items()]
    op = If(bodies[0], bodies[1], types)
    condition = inputs[node.input[0]]
    return _added(reader, op, [condition, *(reader.value(name) for name in captured)], _names(node, read))


def read_loop(reader: GraphReader, node: NodeProto, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Loop. The body runs only while the condition holds, so that it sees it as a constant: where it hands it on, and
    nothing else stops the loop, only the number of iterations counts."""
    trips, condition, *initial = (*(inputs.get(name) for name in node.input), None, None)[: max(len(node.input), 2)]
    body = _body(reader, node, "body", "body")
    counter, going, *carried = [*body.proto.input, *[ValueInfoProto()] * 2][: max(len(body.proto.input), 2)]
    if len(carried) != len(initial) or None in initial or not body.outputs:
        raise RefusalError(f"the body carries {len(carried)} values, and {len(initial)} are given")
    first = body.give(counter.name, TensorType(DType.i64, _declared_shape(counter)))
    body.values[going.name] = body.builder.constant(np.ones(_declared_shape(going), np.bool_), going.name)
    known = reader.builder.known(condition)
    condition = None if known is not None and known.all() else condition
    states = [body.give(info.name, v.type) for info, v in zip(carried, initial, strict=True) if v is not None]
    body.read_nodes()
    count = len(states)
    wanted = _wanted(reader, node, count, len(body.outputs) - 1)
    goes_on, *results = _results(body, [body.outputs[0], *(body.outputs[1 + i] for i in wanted)])
    _keep_their_types(states, results)
    always = body.builder.known(goes_on)
    conditional = always is None or not always.all()
    op = Loop(
        _graph(body, [first, *states], [goes_on, *results] if conditional else results),
        count,
        _length(reader, node, trips, known=condition is None and not conditional),
        conditional,
    )
    given = [trips, condition, *initial, *(reader.value(name) for name in body.captured)]
    return _added(reader, op, given, _names(node, wanted))


def read_scan(reader: GraphReader, node: NodeProto, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Scan since opset 9."""
    if reader.opsets.get("", 0) <= _BATCHED_SCAN:
        raise RefusalError("Scan of opset 8 has a batch axis, which this version leaves to the host")
    given = [inputs[name] for name in node.input]
    body = _body(reader, node, "body", "body")
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    count = len(given) - scanned
    if count < 0 or len(body.proto.input) != len(given) or scanned < 1:
        raise ValueError(f"its body takes {len(body.proto.input)} inputs, {len(given)} are given")
    axes = [
        normal_axis(axis, v.type.rank)
        for axis, v in zip(_listed(node, "scan_input_axes", scanned), given[count:], strict=True)
    ]
    types = [*(v.type for v in given[:count]), *(without(v.type, a) for v, a in zip(given[count:], axes, strict=True))]
    own = [body.give(info.name, t) for info, t in zip(body.proto.input, types, strict=True)]
    body.read_nodes()
    wanted = _wanted(reader, node, count, len(body.outputs))
    results = _results(body, [body.outputs[i] for i in wanted])
    _keep_their_types(own[:count], results)
    made = len(body.outputs) - count
    out_axes, out_ways = (_listed(node, f"scan_output_{what}", made) for what in ("axes", "directions"))
    stacked = [i - count for i in wanted[count:]]
    op = Scan(
        _graph(body, own, results),
        count,
        tuple(axes),
        tuple(way != 0 for way in _listed(node, "scan_input_directions", scanned)),
        tuple(normal_axis(out_axes[i], results[count + k].type.rank + 1) for k, i in enumerate(stacked)),
        tuple(out_ways[i] != 0 for i in stacked),
    )
    captured = [reader.value(name) for name in body.captured]
    return _added(reader, op, [*given, *captured], _names(node, wanted))


WITH_BODIES: Mapping[str, Import] = {"If": read_if, "Loop": read_loop, "Scan": read_scan}
"""By ONNX operator: adds the node and gives the values of its outputs. Raises RefusalError with the reason why not, and
ValueError for what contradicts ONNX."""


def _body(reader: GraphReader, node: NodeProto, attribute: str, name: str) -> BodyReader:
    graph = next((a.g for a in node.attribute if a.name == attribute), None)
    if graph is None:
        raise ValueError(f"attribute {attribute!r} is missing")
    return reader.body(graph, f"{source_name(node)}/{name}")


def _wanted(reader: GraphReader, node: NodeProto, carried: int, made: int) -> list[int]:
    """The outputs of the node that are needed: all carried values, and the stacks that something reads."""
    if not carried <= made >= len(node.output):
        raise ValueError(f"its body gives {made} values, the node {len(node.output)}, of which {carried} are carried")
    read = [i for i, name in enumerate(node.output) if i >= carried and name in reader.read_names]
    return [*range(carried), *read]


def _names(node: NodeProto, outputs: Sequence[int]) -> list[str]:
    return [node.output[i] if i < len(node.output) else "" for i in outputs]


def _results(body: BodyReader, names: Sequence[str]) -> list[Value]:
    """The values of these outputs of a body that was read. Raises RefusalError for what is no body of ours."""
    values = [body.value(name) for name in names]
    problem = body.problems.first
    found = [v for v in values if v is not None]
    if problem or len(found) != len(values):
        raise RefusalError(f"its body {body.prefix!r} cannot be compiled: {problem or 'an output is missing'}")
    loose = next((v for v in found if isinstance(v.type, ObjectType)), None)
    if loose is not None:
        raise RefusalError(f"its body gives {loose.type}, which is no array of numbers")
    return found


def _graph(body: BodyReader, first: Sequence[Value], results: Sequence[Value], captured: Sequence[str] = ()) -> Graph:
    """The body as a graph: its own inputs, then what it captures (of which `captured` may list more, in order)."""
    inside = [body.value(name) for name in captured or body.captured]
    names = [f"{body.prefix}/output_{i}" for i in range(len(results))]
    inputs = [*first, *(v for v in inside if v is not None)]
    return body.builder.finish(list(zip(names, results, strict=True)), inputs)


def _added(
    reader: GraphReader, op: If | Loop | Scan, given: Sequence[Value | None], names: Sequence[str]
) -> dict[str, Value]:
    values = reader.builder.add_all(op, *given)
    known = {s for v in given if v is not None for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    found = {s for v in values for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
    reader.builder.data_symbols |= found - known - reader.builder.input_symbols
    return {name: value for name, value in zip(names, values, strict=True) if name}


def _keep_their_types(states: Sequence[Value], results: Sequence[Value]) -> None:
    for state, result in zip(states, results, strict=False):
        if state.type != result.type:
            raise RefusalError(f"the carried shape changes: {state.name} is {state.type}, then {result.type}")


def _joined(name: str, one: TensorType, other: TensorType) -> TensorType:
    """The type of an output of If: a dim in which the branches differ is a symbol."""
    if one.dtype is not other.dtype or one.rank != other.rank:
        raise RefusalError(f"its branches give {one} and {other}")
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return one.with_shape(a if a == b else SymDim.symbol(f"{name}_{axis}") for axis, (a, b) in pairs)


def _length(reader: GraphReader, node: NodeProto, trips: Value | None, *, known: bool) -> Dim:
    """The number of iterations, where it is certain."""
    array = reader.builder.known(trips) if known else None
    if array is not None and array.size == 1:
        return max(int(array.reshape(-1)[0]), 0)
    return SymDim.symbol(f"{source_name(node)}_iterations")


def _declared_shape(info: ValueInfoProto) -> tuple[int, ...]:
    """() or (1,): how a body takes one number."""
    _, shape = declared_type(info.type, lambda axis, name: 1)
    return (1,) * len(shape or ())


def _listed(node: NodeProto, name: str, count: int) -> list[int]:
    values = next((list(a.ints) for a in node.attribute if a.name == name), [0] * count)
    if len(values) != count:
        raise ValueError(f"attribute {name!r} lists {len(values)} numbers, expected {count}")
    return values
