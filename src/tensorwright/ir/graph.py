# SPDX-License-Identifier: Apache-2.0
"""The graph: typed SSA values, nodes with readable names and origins.

Only `Graph.apply(edit)` changes a finished graph; rules return an `Edit` and never mutate. `GraphBuilder`
is the one way to write a new graph: importers and the network API use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tensorwright.errors import InternalError
from tensorwright.ir.dims import Symbol, SymDim
from tensorwright.ir.op import Array, Op, dims_of
from tensorwright.ir.types import TensorType


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """One SSA value. Identity is the object; `name` is unique in its graph and readable."""

    name: str
    type: TensorType

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One application of an op. `origin` are the names of the source-model nodes it came from."""

    name: str
    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    origin: tuple[str, ...] = ()

    @property
    def output(self) -> Value:
        """The only output. Raises ValueError when there are several."""
        (value,) = self.outputs
        return value

    def __repr__(self) -> str:
        return f"{self.name}({self.op.kind})"


@dataclass(frozen=True, eq=False, slots=True)
class Edit:
    """A proposed change: `remove` nodes, `add` nodes and constants, and read `replace[old]` instead of old.

    Output names of the graph stay: a replaced graph output keeps its name. `because` is one phrase for the user.
    """

    remove: tuple[Node, ...]
    add: tuple[Node, ...] = ()
    replace: Mapping[Value, Value] = field(default_factory=dict)
    constants: Mapping[Value, Array] = field(default_factory=dict)
    because: str = ""


class Graph:
    """inputs, outputs (with their user-visible names), nodes and constants, with producer and user indexes."""

    def __init__(
        self,
        name: str,
        inputs: Sequence[Value],
        outputs: Sequence[tuple[str, Value]],
        nodes: Iterable[Node],
        constants: Mapping[Value, Array],
    ) -> None:
        self.name = name
        self.inputs: tuple[Value, ...] = tuple(inputs)
        self.output_names: tuple[str, ...] = tuple(n for n, _ in outputs)
        self.outputs: tuple[Value, ...] = tuple(v for _, v in outputs)
        self.constants: dict[Value, Array] = dict(constants)
        self._nodes: dict[Node, None] = {}
        self._producer: dict[Value, Node] = {}
        self._users: dict[Value, dict[Node, None]] = {}
        self._names: dict[str, int] = {}
        for value in (*self.inputs, *self.constants):
            self._names.setdefault(value.name, 1)
        for node in nodes:
            self._insert(node)

    # -- reading --------------------------------------------------------------------------------
    @property
    def nodes(self) -> Sequence[Node]:
        """All nodes in a topological order (producers first); stable between calls on an unchanged graph."""
        if self._order is None:
            self._order = self._sorted()
        return self._order

    _order: list[Node] | None = None

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The bounded symbols of all dims, by slot."""
        values = (*self.inputs, *(v for node in self._nodes for v in node.outputs))
        dims = {dim for v in values for dim in v.type.shape if isinstance(dim, SymDim)}
        found = {s for dim in dims for s in dim.symbols if isinstance(s, Symbol)}
        return tuple(sorted(found, key=lambda s: (s.slot, s)))

    def __contains__(self, node: Node) -> bool:
        return node in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def producer(self, value: Value | None) -> Node | None:
        """The node that makes the value; None for inputs, constants and None."""
        return self._producer.get(value) if value is not None else None

    def users(self, value: Value) -> tuple[Node, ...]:
        """The nodes that read the value, each once, in insertion order."""
        return tuple(self._users.get(value, ()))

    def is_output(self, value: Value) -> bool:
        return value in self.outputs

    def only_user(self, value: Value, of: type[Op] | tuple[type[Op], ...] | None = None) -> Node | None:
        """The single reader of `value` (of op class `of`), or None; a graph output has a reader outside."""
        users = self._users.get(value, {})
        if len(users) != 1 or value in self.outputs:
            return None
        (user,) = users
        return user if of is None or isinstance(user.op, of) else None

    def constant(self, value: Value | None) -> Array | None:
        """The array of a constant value, else None."""
        return self.constants.get(value) if value is not None else None

    def fresh_name(self, wish: str) -> str:
        """`wish`, or `wish_2`, `wish_3`, ...: a name that no value or node of this graph has had."""
        if wish not in self._names:
            self._names[wish] = 1
            return wish
        while True:
            self._names[wish] += 1
            name = f"{wish}_{self._names[wish]}"
            if name not in self._names:
                self._names[name] = 1
                return name

    # -- changing -------------------------------------------------------------------------------
    def apply(self, edit: Edit) -> None:
        """Carry the edit out. Raises InternalError when it would leave a dangling value or change a type."""
        for old, new in edit.replace.items():
            if old.type != new.type:
                raise InternalError(f"an edit replaces {old} by {new}: types differ", why=edit.because)
        for node in edit.remove:
            if node not in self._nodes:
                raise InternalError(f"an edit removes {node}, which is not in the graph", why=edit.because)
            self._remove(node)
        self.constants.update(edit.constants)
        for value in edit.constants:
            self._names.setdefault(value.name, 1)
        for old, new in edit.replace.items():
            self._replace(old, new)  # before adding: an added node may read the old value
        for node in edit.add:
            self._insert(node)
        for node in edit.remove:
            for value in node.outputs:
                if value not in self._producer and (self._users.get(value) or value in self.outputs):
                    raise InternalError(f"an edit removes {node} but {value} is still read", why=edit.because)
        self._order = None

    def rename_outputs(self, names: Sequence[str]) -> None:
        self.output_names = tuple(names)

    def drop_unused_constants(self) -> None:
        """Forget constants that nothing reads."""
        for value in [v for v in self.constants if not self._users.get(v) and v not in self.outputs]:
            del self.constants[value]

    def copy(self) -> Graph:
        """A graph of its own over the same (immutable) values, nodes and arrays."""
        outputs = list(zip(self.output_names, self.outputs, strict=True))
        return Graph(self.name, self.inputs, outputs, self.nodes, self.constants)

    def _insert(self, node: Node) -> None:
        self._nodes[node] = None
        self._names.setdefault(node.name, 1)
        for value in node.outputs:
            self._names.setdefault(value.name, 1)
            self._producer[value] = node
        for operand in node.inputs:
            if operand is not None:
                self._users.setdefault(operand, {})[node] = None

    def _remove(self, node: Node) -> None:
        del self._nodes[node]
        for value in node.outputs:
            self._producer.pop(value, None)
        for operand in node.inputs:
            if operand is not None:
                self._users.get(operand, {}).pop(node, None)

    def _replace(self, old: Value, new: Value) -> None:
        for user in self.users(old):
            self._remove(user)
            inputs = tuple(new if v is old else v for v in user.inputs)
            self._insert(Node(user.name, user.op, inputs, user.outputs, user.origin))
        self.outputs = tuple(new if v is old else v for v in self.outputs)

    def decides_for_others(self, node: Node) -> bool:
        """Whether other nodes have a size that `node` decides."""
        own = {s for dim in node.op.decides if isinstance(dim, SymDim) for s in dim.symbols}
        return bool(own) and any(not own.isdisjoint(symbols_of(other)) for other in self._nodes if other is not node)

    def needs(self, node: Node) -> tuple[Node, ...]:
        """The nodes that must run before `node`: those that make its inputs, and those that decide its sizes."""
        made = (self._producer.get(v) for v in node.inputs if v is not None)
        decided = self._deciding()
        deciding = (decided.get(s) for s in symbols_of(node)) if decided else ()
        return tuple(dict.fromkeys(n for n in (*made, *deciding) if n is not None and n is not node))

    def _deciding(self) -> dict[str, Node]:
        """Symbol to the node that decides it."""
        decided = ((node, d) for node in self._nodes for d in node.op.decides if isinstance(d, SymDim))
        return {s: node for node, dim in decided for s in dim.symbols}

    def _sorted(self) -> list[Node]:
        if self._deciding():
            return self._sorted_by_needs()
        waiting = {node: len({v for v in node.inputs if v in self._producer}) for node in self._nodes}
        ready = [node for node in reversed(self._nodes) if not waiting[node]]
        order: list[Node] = []
        while ready:
            node = ready.pop()
            order.append(node)
            for value in node.outputs:
                for user in reversed(self._users.get(value, {})):
                    waiting[user] -= 1
                    if not waiting[user]:
                        ready.append(user)
        if len(order) != len(self._nodes):
            stuck = ", ".join(node.name for node in self._nodes if waiting[node])
            raise InternalError("the graph has a cycle", where=stuck[:200])
        return order

    def _sorted_by_needs(self) -> list[Node]:
        needs = {node: set(self.needs(node)) for node in self._nodes}
        users: dict[Node, list[Node]] = {}
        for node, before in needs.items():
            for other in before:
                users.setdefault(other, []).append(node)
        ready = [node for node in reversed(self._nodes) if not needs[node]]
        order: list[Node] = []
        while ready:
            order.append(ready.pop())
            for user in reversed(users.get(order[-1], [])):
                needs[user].discard(order[-1])
                if not needs[user]:
                    ready.append(user)
        if len(order) != len(self._nodes):
            raise InternalError("the graph has a cycle", where=", ".join(n.name for n in needs if needs[n])[:200])
        return order

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def symbols_of(node: Node) -> frozenset[str]:
    """The symbols in the shapes of a node's operands and results and in its attributes."""
    shapes = (d for v in (*node.inputs, *node.outputs) if v is not None for d in v.type.shape)
    dims = [d for d in (*shapes, *dims_of(node.op)) if isinstance(d, SymDim)]
    return frozenset(s for d in dims for s in d.symbols)


class GraphBuilder:
    """Writes a graph node by node; types are inferred on the way."""

    def __init__(self, name: str = "network") -> None:
        self._graph = Graph(name, (), (), (), {})
        self._inputs: list[Value] = []
        self._outputs: list[tuple[str, Value]] = []

    def input(self, name: str, type: TensorType) -> Value:
        value = Value(self._graph.fresh_name(name), type)
        self._inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "const") -> Value:
        from tensorwright.ir.dtype import DType

        value = Value(self._graph.fresh_name(name), TensorType(DType.of(array.dtype), tuple(array.shape)))
        self._graph.constants[value] = array
        return value

    def known(self, value: Value | None) -> Array | None:
        """The array of a constant value, else None."""
        return self._graph.constant(value)

    def add(
        self, op: Op, *inputs: Value | None, name: str = "", outputs: Sequence[str] = (), origin: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        """Append a node. Raises ValueError (from `op.infer`) when the input types do not fit the op."""
        types = op.infer(*(v.type if v is not None else None for v in inputs))
        name = self._graph.fresh_name(name or op.kind)
        wishes = list(outputs) or ([name] if len(types) == 1 else [f"{name}_{i}" for i in range(len(types))])
        names = [wish if wish == name else self._graph.fresh_name(wish) for wish in wishes]
        values = tuple(Value(n, t) for n, t in zip(names, types, strict=True))
        self._graph.apply(Edit((), (Node(name, op, tuple(inputs), values, tuple(origin) or (name,)),)))
        return values

    def output(self, value: Value, name: str = "") -> None:
        self._outputs.append((name or value.name, value))

    def finish(self) -> Graph:
        g = self._graph
        return Graph(g.name, self._inputs, self._outputs, g.nodes, g.constants)


def constant_like(graph: Graph, wish: str, array: Array) -> Value:
    """A new constant value for an Edit's `constants` (the edit must still list it)."""
    from tensorwright.ir.dtype import DType

    return Value(graph.fresh_name(wish), TensorType(DType.of(array.dtype), tuple(array.shape)))


def bodies_of(op: Op) -> dict[str, Graph]:
    """The graphs among an op's attributes, by attribute name: bodies of control flow."""
    fields = getattr(op, "__dataclass_fields__", {})
    return {name: body for name in fields if isinstance(body := getattr(op, name), Graph)}


def union_origins(nodes: Iterable[Node]) -> tuple[str, ...]:
    """All origins of the nodes, each once, in order."""
    return tuple(dict.fromkeys(name for node in nodes for name in node.origin))
