# SPDX-License-Identifier: Apache-2.0
"""Ops with bodies: what is known around a body goes into it, what it does not read stays out; passes run inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tensorwright.ir.graph import Edit, Graph, Node, Value, constant_like
from tensorwright.ir.op import Array, Op
from tensorwright.ops.control_flow import ControlFlow, If, Loop, nested, number
from tensorwright.ops.shape import Concat, Reshape
from tensorwright.passes.base import Rule, rule
from tensorwright.passes.report import Report

_UNROLLED_ITERATIONS, _UNROLLED_NODES = 16, 128


@rule(on=ControlFlow, name="captured_constant_into_body")
def captured_constant_into_body(graph: Graph, node: Node) -> Edit | None:
    """A constant that bodies read from around them becomes theirs: kernels re-format weights that they know."""
    op = node.op
    if not isinstance(op, ControlFlow):
        return None
    known = {i for i in range(op.first_captured, len(node.inputs)) if node.inputs[i] in graph.constants}
    if not known:
        return None
    arrays = {i - op.first_captured + op.first_captured_inside: graph.constant(node.inputs[i]) for i in known}
    bodies = {name: _with_constants(body, arrays) for name, body in op.bodies.items()}
    inputs = tuple(v for i, v in enumerate(node.inputs) if i not in known)
    new = Node(node.name, op.with_bodies(bodies), inputs, node.outputs, node.origin)
    return Edit((node,), (new,), because="its bodies read constants from around them")


@rule(on=ControlFlow, name="unread_captured_into_nothing")
def unread_captured_into_nothing(graph: Graph, node: Node) -> Edit | None:
    """What no body reads is not handed to them."""
    op = node.op
    if not isinstance(op, ControlFlow):
        return None
    first = op.first_captured_inside
    count = len(node.inputs) - op.first_captured
    read = [any(_needs(body, body.inputs[first + i]) for body in op.bodies.values()) for i in range(count)]
    if all(read):
        return None
    kept = [first + i for i in range(count) if read[i]]
    bodies = {name: _with_inputs(body, [*range(first), *kept]) for name, body in op.bodies.items()}
    inputs = (*node.inputs[: op.first_captured], *(node.inputs[i - first + op.first_captured] for i in kept))
    new = Node(node.name, op.with_bodies(bodies), inputs, node.outputs, node.origin)
    return Edit((node,), (new,), because="its bodies do not read all that they are given")


@rule(on=If, name="if_into_branch")
def if_into_branch(graph: Graph, node: Node) -> Edit | None:
    """An If whose condition is known becomes the nodes of that branch."""
    op, condition = node.op, graph.constant(node.inputs[0])
    if not isinstance(op, If) or condition is None:
        return None
    holds = bool(number(condition))
    body = op.then_body if holds else op.else_body
    if [v.type for v in body.outputs] != [v.type for v in node.outputs]:
        return None  # the type of a value does not change
    copy = _Copy(graph)
    results = copy.body(body, node.inputs[1:])
    return copy.edit(node, results, f"its condition is always {holds}")


@rule(on=Loop, name="loop_into_iterations")
def loop_into_iterations(graph: Graph, node: Node) -> Edit | None:
    """A short loop whose number of iterations is known, and all that may stop it, becomes the nodes of all iterations:
    one program instead of three, and fusion across iterations."""
    op, trips = node.op, graph.constant(node.inputs[0])
    if not isinstance(op, Loop) or trips is None or node.inputs[1] is not None or op.conditional:
        return None
    count, rows = max(int(number(trips)), 0), [v.type for v in node.outputs[op.carried :]]
    if count > _UNROLLED_ITERATIONS or count * len(op.body) > _UNROLLED_NODES or not all(t.is_static for t in rows):
        return None
    if any(isinstance(inner.op, ControlFlow) or inner.op.decides for inner in op.body.nodes):
        return None  # its copies would store different constants, or sizes that they decide, under one name
    copy = _Copy(graph)
    carried, captured = list(node.inputs[2 : 2 + op.carried]), node.inputs[2 + op.carried :]
    stacks: list[list[Value]] = [[] for _ in rows]
    for iteration in range(count):
        counter = np.full(op.body.inputs[0].type.static_shape, iteration, np.int64)
        results = copy.body(op.body, [copy.constant(counter, f"{node.name}/iteration"), *carried, *captured])
        carried = list(results[: op.carried])
        for stack, value in zip(stacks, results[op.carried :], strict=True):
            stack.append(copy.add(Reshape((1, *value.type.shape)), value, name=f"{node.name}/row", origin=node.origin))
    for stack, type_ in zip(stacks, rows, strict=True):
        if stack:
            carried.append(copy.add(Concat(0), *stack, name=f"{node.name}/rows", origin=node.origin))
        else:
            carried.append(copy.constant(np.empty(type_.static_shape, type_.dtype.numpy), f"{node.name}/rows"))
    return copy.edit(node, carried, f"it runs {count} times")


def bodies_rule(optimise: Callable[[Graph], Report]) -> Rule:
    """The rule that runs passes inside bodies, innermost ones included."""
    final: set[Graph] = set()  # what the passes made, in which they find nothing more

    @rule(on=ControlFlow, name="body_into_optimised_body")
    def body_into_optimised_body(graph: Graph, node: Node) -> Edit | None:
        op = node.op
        if not isinstance(op, ControlFlow) or final.issuperset(op.bodies.values()):
            return None
        reports = {name: optimise(body) for name, body in op.bodies.items()}
        final.update(report.graph for report in reports.values())
        count = sum(len(report.edits) for report in reports.values())
        if not count:
            final.update(op.bodies.values())
            return None
        optimised = op.with_bodies({name: report.graph for name, report in reports.items()})
        new = Node(node.name, optimised, node.inputs, node.outputs, node.origin)
        before = sum(len(g) for body in op.bodies.values() for g in nested(body))
        after = sum(len(g) for body in optimised.bodies.values() for g in nested(body))
        return Edit((node,), (new,), because=f"{count} edits inside: {before} -> {after} nodes")

    return body_into_optimised_body


class _Copy:
    """Copies bodies into the graph around them, under names that are new there; constants once."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._nodes = graph, list[Node]()
        self._constants: dict[Value, Array] = {}
        self._shared: dict[Value, Value] = {}  # constants of bodies

    def body(self, body: Graph, inputs: Sequence[Value | None]) -> list[Value]:
        """The values that the body's outputs are for these inputs."""
        given = zip(body.inputs, inputs, strict=True)
        values = {inside: around for inside, around in given if around is not None}
        for value, array in body.constants.items():
            if value not in self._shared:
                self._shared[value] = self.constant(array, value.name)
        values |= {value: self._shared[value] for value in body.constants}
        for node in body.nodes:
            made = [Value(self._graph.fresh_name(v.name), v.type) for v in node.outputs]
            values.update(zip(node.outputs, made, strict=True))
            own = node.outputs[0].name == node.name
            name = made[0].name if own else self._graph.fresh_name(node.name)
            read = tuple(None if v is None else values[v] for v in node.inputs)
            self._nodes.append(Node(name, node.op, read, tuple(made), node.origin))
        return [values[v] for v in body.outputs]

    def constant(self, array: Array, name: str) -> Value:
        value = constant_like(self._graph, name, array)
        self._constants[value] = array
        return value

    def add(self, op: Op, *inputs: Value, name: str, origin: tuple[str, ...]) -> Value:
        (type_,) = op.infer(*(v.type for v in inputs))
        value = Value(self._graph.fresh_name(name), type_)
        self._nodes.append(Node(value.name, op, inputs, (value,), origin))
        return value

    def edit(self, node: Node, results: Sequence[Value | None], because: str) -> Edit:
        """The edit that puts the copies in place of the node, whose outputs are these values."""
        pairs = zip(node.outputs, results, strict=True)
        replace = {old: new for old, new in pairs if new is not None}
        return Edit((node,), tuple(self._nodes), replace, self._constants, because)


def _needs(body: Graph, value: Value) -> bool:
    """Whether a body reads an input, or may take sizes from its shape."""
    return bool(body.users(value)) or body.is_output(value) or not value.type.is_static


def _with_constants(body: Graph, arrays: Mapping[int, Array | None]) -> Graph:
    """The body with constants in place of the inputs of these numbers."""
    known = {body.inputs[i]: array for i, array in arrays.items() if array is not None}
    return _rewritten(body, (v for v in body.inputs if v not in known), known)


def _with_inputs(body: Graph, kept: Iterable[int]) -> Graph:
    return _rewritten(body, (body.inputs[i] for i in kept), {})


def _rewritten(body: Graph, inputs: Iterable[Value], constants: Mapping[Value, Array]) -> Graph:
    outputs = list(zip(body.output_names, body.outputs, strict=True))
    return Graph(body.name, tuple(inputs), outputs, body.nodes, {**body.constants, **constants})


RULES = (captured_constant_into_body, unread_captured_into_nothing)
INLINED = (if_into_branch, loop_into_iterations)
