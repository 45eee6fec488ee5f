# SPDX-License-Identifier: Apache-2.0
"""A TensorFlow graph as importing sees it: nodes that name the outputs of other nodes, with all calls inlined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorwright.importers.problems import Problems
from tensorwright.ir.op import Array

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Ops that call the function in their attribute `f`."""

_DEEPEST = 64  # calls within calls

# Output arguments of ops with several: in a function, inputs name outputs as node:argument:index.
_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("TopK", "TopKV2"), ("values", "indices")),
    **dict.fromkeys(
        ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
        ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3"),
    ),
    "Switch": ("output_false", "output_true"),
    "RefSwitch": ("output_false", "output_true"),
    "Merge": ("output", "value_index"),
    "Unique": ("y", "idx"),
    "UniqueV2": ("y", "idx"),
    "UniqueWithCounts": ("y", "idx", "count"),
    "MaxPoolWithArgmax": ("output", "argmax"),
    "TensorListPopBack": ("output_handle", "tensor"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
    "SoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
    "Qr": ("q", "r"),
    "Svd": ("s", "u", "v"),
    "Lu": ("lu", "p"),
    "ListDiff": ("out", "idx"),
    "BlockLSTM": ("i", "cs", "f", "o", "ci", "co", "h"),
    "BlockLSTMV2": ("i", "cs", "f", "o", "ci", "co", "h"),
    "CudnnRNN": ("output", "output_h", "output_c", "reserve_space"),
    "CudnnRNNV3": ("output", "output_h", "output_c", "reserve_space", "host_reserved"),
}


@dataclass(frozen=True, slots=True)
class Ref:
    """An output of a node."""

    node: str
    index: int

    def __str__(self) -> str:
        return self.node if not self.index else f"{self.node}:{self.index}"


@dataclass(slots=True)
class TfNode:
    """A node; inputs without control inputs. `attrs` are AttrValue messages by name."""

    name: str
    op: str
    inputs: list[Ref]
    attrs: Mapping[str, Any]
    array: Array | None = None
    """The value, where it is known from elsewhere: a variable's, read from a checkpoint."""


@dataclass(slots=True)
class TfGraph:
    """Nodes by name, functions, and what is fed and fetched, under public names."""

    where: str
    nodes: dict[str, TfNode]
    library: Mapping[str, Any] = field(default_factory=dict)
    inputs: dict[str, Ref] = field(default_factory=dict)
    outputs: dict[str, Ref] = field(default_factory=dict)


def parse_ref(text: str) -> Ref:
    """`name` or `name:index` of a graph. Raises ValueError."""
    name, colon, index = text.rpartition(":")
    if not colon:
        return Ref(text, 0)
    if not index.isdecimal():
        raise ValueError(f"{text!r} names no output of a node")
    return Ref(name, int(index))


def flattened(nodes: Iterable[Any], library: Mapping[str, Any], problems: Problems) -> dict[str, TfNode]:
    """The NodeDefs of a graph as nodes by name, with the bodies of called functions in place of calls.

    Control inputs are dropped: what they order has no effect on results. What is wrong is put into `problems`.
    """
    flat = _Flattener(library, problems)
    for proto in nodes:
        if proto.name in flat.nodes:
            problems.mistake(f"node {proto.name!r} is there twice")
            continue
        flat.nodes[proto.name] = TfNode(proto.name, proto.op, [], proto.attr)
        try:
            flat.nodes[proto.name].inputs = [parse_ref(i) for i in proto.input if not i.startswith("^")]
        except ValueError as error:
            problems.mistake(f"node {proto.name!r} ({proto.op}): {error}")
    flat.inline_all()
    return flat.nodes


def body_of(
    function: Any, arguments: Sequence[Ref], prefix: str, library: Mapping[str, Any], problems: Problems
) -> tuple[dict[str, TfNode], list[Ref]]:
    """The nodes of a function whose names begin with the prefix, applied to `arguments`, and its results in order."""
    flat = _Flattener(library, problems)
    results = flat.add_body(function, arguments, prefix)
    flat.inline_all()
    return flat.nodes, [flat.resolved(ref) for ref in results]


class _Flattener:
    def __init__(self, library: Mapping[str, Any], problems: Problems) -> None:
        self.library, self.problems = library, problems
        self.nodes: dict[str, TfNode] = {}
        self._replaced: dict[Ref, Ref] = {}  # outputs of calls -> what the bodies give
        self._depth: dict[str, int] = {}

    def inline_all(self) -> None:
        """Replace calls until there are none."""
        waiting = list(self.nodes.values())
        while waiting:
            node = waiting.pop()
            function = self._called(node)
            if function is None:
                continue
            depth = self._depth.get(node.name, 0) + 1
            if depth > _DEEPEST:
                self.problems.mistake(f"node {node.name!r} calls {function.signature.name!r}, which calls itself")
                continue
            before = set(self.nodes)
            del self.nodes[node.name]
            results = self.add_body(function, node.inputs, node.name)
            self._replaced |= {Ref(node.name, i): ref for i, ref in enumerate(results)}
            new = [n for name, n in self.nodes.items() if name not in before]
            self._depth |= {n.name: depth for n in new}
            waiting += new
        for node in self.nodes.values():
            node.inputs = [self.resolved(ref) for ref in node.inputs]

    def resolved(self, ref: Ref) -> Ref:
        """The output that a name stands for, through the calls that were inlined."""
        seen = 0
        while ref in self._replaced and seen <= len(self._replaced):
            ref, seen = self._replaced[ref], seen + 1
        return ref

    def _called(self, node: TfNode) -> Any:
        if node.op in CALLS:
            name = node.attrs["f"].func.name if "f" in node.attrs else ""
            if name not in self.library:
                self.problems.mistake(f"node {node.name!r} ({node.op}) calls the function {name!r}, which is not there")
                return None
            return self.library[name]
        return self.library.get(node.op)

    def add_body(self, function: Any, arguments: Sequence[Ref], prefix: str) -> list[Ref]:
        """Add the nodes of a function; the refs of its results."""
        names = _argument_names(function)
        if len(names) != len(arguments):
            self.problems.mistake(f"{prefix!r} gives {len(arguments)} of {len(names)} arguments")
        given = dict(zip(names, arguments, strict=False))
        makers = {proto.name: proto for proto in function.node_def}
        scope = _Scope(prefix, given, makers, self.library)
        for proto in function.node_def:
            node = TfNode(f"{prefix}/{proto.name}", proto.op, [], proto.attr)
            if node.name in self.nodes:
                self.problems.mistake(f"node {node.name!r} is there twice")
            self.nodes[node.name] = node
            try:
                node.inputs = [scope.ref(i) for i in proto.input if not i.startswith("^")]
            except ValueError as error:
                self.problems.mistake(f"node {node.name!r} ({node.op}): {error}")
        results = []
        for arg in function.signature.output_arg:
            try:
                results.append(scope.ref(function.ret[arg.name] if arg.name in function.ret else arg.name))
            except ValueError as error:
                self.problems.mistake(f"function {function.signature.name!r}: {error}")
        return results


def _argument_names(function: Any) -> list[str]:
    return [arg.name for arg in function.signature.input_arg]


@dataclass(frozen=True, slots=True)
class _Scope:
    """What names mean inside of a function."""

    prefix: str
    given: Mapping[str, Ref]
    makers: Mapping[str, Any]
    library: Mapping[str, Any]

    def ref(self, text: str) -> Ref:
        """`argument`, or `node:argument:index`. Raises ValueError."""
        node, *rest = text.split(":")
        if node in self.given and node not in self.makers:
            return self.given[node]
        maker = self.makers.get(node)
        if maker is None:
            raise ValueError(f"nothing makes {text!r}")
        if len(rest) < 2:
            return Ref(f"{self.prefix}/{node}", int(rest[0]) if rest and rest[0].isdecimal() else 0)
        if not rest[1].isdecimal():
            raise ValueError(f"{text!r} names no output of a node")
        return Ref(f"{self.prefix}/{node}", self._offset(maker, rest[0]) + int(rest[1]))

    def _offset(self, maker: Any, argument: str) -> int:
        """The index of the first output of an output argument."""
        function = self.library.get(maker.op)
        names = [a.name for a in function.signature.output_arg] if function is not None else _OUTPUTS.get(maker.op, ())
        return list(names).index(argument) if argument in names else 0
