# SPDX-License-Identifier: Apache-2.0
"""What a pass is made of: rules that propose edits, stages that group rules, and the writer of an edit.

A rule looks at one node and returns an `Edit` or None. A sweep (a rule with `on=None`) walks the whole graph and yields
edits one by one; each is applied before the walk goes on. Neither ever changes the graph itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Edit, Graph, Node, Value
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType
from tensorwright.memory import filed

Find = Callable[[Graph, Node], Edit | None]
Walk = Callable[[Graph], Iterator[Edit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named local rewrite; `find(graph, node)` is asked for nodes whose op is an instance of `on`."""

    name: str
    on: tuple[type[Op], ...]
    find: Find

    def __call__(self, graph: Graph, node: Node) -> Edit | None:
        return self.find(graph, node)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A named rewrite that needs the whole graph; `walk(graph)` yields edits, each applied before it resumes."""

    name: str
    walk: Walk

    def __call__(self, graph: Graph) -> Iterator[Edit]:
        return self.walk(graph)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pipeline. `required` stages bring the graph into the form that lowering needs, so
    stop-after-N-edits does not skip them."""

    name: str
    purpose: str
    rules: tuple[Rule | Sweep, ...]
    required: bool = False


def rule(*, on: type[Op] | tuple[type[Op], ...], name: str) -> Callable[[Find], Rule]:
    """Decorator: make a `(graph, node) -> Edit | None` function a Rule for one or several op classes (`Op`: all)."""

    def wrap(find: Find) -> Rule:
        return Rule(name, on if isinstance(on, tuple) else (on,), find)

    return wrap


def sweep(*, name: str) -> Callable[[Walk], Sweep]:
    """Decorator: make a `(graph) -> Iterator[Edit]` function a Sweep."""

    def wrap(walk: Walk) -> Sweep:
        return Sweep(name, walk)

    return wrap


class Rewrite:
    """Writes the new nodes and constants of one edit; types are inferred on the way.

    `like` is the node whose place the new nodes take, and whose name theirs begin with unless told otherwise.
    """

    def __init__(self, graph: Graph, like: Node) -> None:
        self._graph, self._like = graph, like
        self._nodes: list[Node] = []
        self._constants: dict[Value, Array] = {}

    def constant(self, array: Array, name: str) -> Value:
        """A new constant; a large one goes into a file, as the weights that it is made of lie in the model's."""
        array = filed(array)
        value = Value(self._graph.fresh_name(name), TensorType(DType.of(array.dtype), tuple(array.shape)))
        self._constants[value] = array
        return value

    def add(
        self, op: Op, *inputs: Value | None, name: str = "", heir_of: Node | None = None, origin: Sequence[str] = ()
    ) -> Value:
        """A new node with one output of its own. It has the name of the removed node `heir_of`, if any, else `name`.

        Empty `origin` means that of all nodes the edit removes.
        """
        (type_,) = op.infer(*(v.type if v is not None else None for v in inputs))
        fresh = self._graph.fresh_name(name or f"{self._like.name}/{op.kind}")
        value = Value(fresh, type_)
        node_name = heir_of.name if heir_of is not None else fresh
        self._nodes.append(Node(node_name, op, inputs, (value,), tuple(dict.fromkeys(origin))))
        return value

    def finish(
        self, op: Op, *inputs: Value | None, result: Value | None = None, name: str = "", origin: Sequence[str] = ()
    ) -> Value:
        """A new node that takes over the value `result` (default: the output of `like`) and the name of `like`.

        The node that made `result` must be among the removed ones, so that its readers need no change.
        """
        result = result if result is not None else self._like.output
        self._nodes.append(Node(name or self._like.name, op, inputs, (result,), tuple(dict.fromkeys(origin))))
        return result

    def edit(self, *remove: Node, because: str, replace: Mapping[Value, Value] | None = None) -> Edit:
        """The edit: remove these nodes, add what was written."""
        return Edit(tuple(dict.fromkeys(remove)), tuple(self._nodes), dict(replace or {}), self._constants, because)


def forward(node: Node, to: Value, because: str) -> Edit:
    """The edit that drops a node with one output whose readers can read `to` instead."""
    return Edit((node,), (), {node.output: to}, {}, because)
