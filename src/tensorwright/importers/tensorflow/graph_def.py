# SPDX-License-Identifier: Apache-2.0
"""A TensorFlow graph as importing sees it: nodes that name the outputs of other nodes, with all calls inlined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorwright.importers.problems import Problems
from tensorwright.ir.op import Array

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Ops that call the function in their attribute `f`."""

PASSING = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "RefIdentity")
"""Ops that hand on their inputs."""

_DEEPEST = 64  # calls within calls
_MOST_NODES = 1 << 18

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
    "GRUBlockCell": ("r", "u", "c", "h"),
    "LSTMBlockCell": ("i", "cs", "f", "o", "ci", "co", "h"),
    "CombinedNonMaxSuppression": ("nmsed_boxes", "nmsed_scores", "nmsed_classes", "valid_detections"),
    **dict.fromkeys(("TensorListConcat", "TensorListConcatV2"), ("tensor", "lengths")),
    "TensorArrayV3": ("handle", "flow"),
    "TensorArrayConcatV3": ("value", "lengths"),
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
    """A node; `attrs` are AttrValue messages by name."""

    name: str
    op: str
    inputs: list[Ref]
    attrs: Mapping[str, Any]
    array: Array | None = None
    """The value, where it is known from elsewhere: a variable's, read from a checkpoint."""
    controls: tuple[str, ...] = ()
    """The nodes that must have run before. They have no effect on results, but tell sides of conditions apart."""


@dataclass(slots=True)
class TfGraph:
    """Nodes by name, functions, and what is fed and fetched, under public names."""

    where: str
    nodes: dict[str, TfNode]
    library: Mapping[str, Any] = field(default_factory=dict)
    inputs: dict[str, Ref] = field(default_factory=dict)
    outputs: dict[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model that is a function: its nodes, what stands for its arguments, and its results."""

    nodes: dict[str, TfNode]
    arguments: Sequence[Ref]
    results: Sequence[Ref]

    def through(self, ref: Ref) -> Ref:
        """What makes an output, through nodes that hand on their inputs."""
        for _ in range(len(self.nodes)):
            node = self.nodes.get(ref.node)
            if ref in self.arguments or node is None or node.op not in PASSING or ref.index >= len(node.inputs):
                break
            ref = node.inputs[ref.index]
        return ref

    def read_by(self, results: Sequence[Ref]) -> set[int]:
        """The numbers of the arguments that some results depend on."""
        places = {ref: i for i, ref in enumerate(self.arguments)}
        found, seen, waiting = set[int](), set[str](), list(results)
        while waiting:
            ref = waiting.pop()
            if ref in places:
                found.add(places[ref])
            elif ref.node not in seen and ref.node in self.nodes:
                seen.add(ref.node)
                waiting += self.nodes[ref.node].inputs
        return found


@dataclass(frozen=True, slots=True)
class LoopParts:
    """The condition and the body of a loop, functions of all its variables."""

    condition: Part
    body: Part


def parse_ref(text: str) -> Ref:
    """`name` or `name:index` of a graph. Raises ValueError."""
    name, colon, index = text.rpartition(":")
    if not colon:
        return Ref(text, 0)
    if not index.isdecimal():
        raise ValueError(f"{text!r} names no output of a node")
    return Ref(name, int(index))


def texts(graph: Any) -> Iterator[str | bytes]:
    """All names in a GraphDef; protobuf gives bytes for what is no text."""
    for function in graph.library.function:
        signature = function.signature
        yield from (signature.name, *(a.name for a in (*signature.input_arg, *signature.output_arg)))
        yield from function.ret  # all keys before any value, which cannot be read where a key is no text
        yield from function.ret.values()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            yield from (node.name, node.op, *node.input, *node.attr)


def needed(nodes: Iterable[Any], roots: Iterable[str]) -> list[Any]:
    """The NodeDefs that the nodes of these names need, through inputs of all kinds; what is missing is left out."""
    by_name = {proto.name: proto for proto in nodes}
    found, waiting = dict[str, Any](), list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and name in by_name:
            found[name] = by_name[name]
            waiting += [text.removeprefix("^").partition(":")[0] for text in by_name[name].input]
    return [proto for name, proto in by_name.items() if name in found]


def origin(nodes: Mapping[str, TfNode], ref: Ref) -> tuple[TfNode | None, int]:
    """The node that makes what an output is, through nodes that hand on their inputs; and which of its outputs."""
    for _ in range(len(nodes)):
        node = nodes.get(ref.node)
        if node is None or node.op not in PASSING or ref.index >= len(node.inputs):
            break
        ref = node.inputs[ref.index]
    return nodes.get(ref.node), ref.index


def flattened(nodes: Iterable[Any], library: Mapping[str, Any], problems: Problems) -> dict[str, TfNode]:
    """The NodeDefs of a graph as nodes by name, and the bodies of called functions: a call becomes an IdentityN of its
    function's results. What is wrong is put into `problems`.
    """
    flat = _Flattener(library, problems)
    for proto in nodes:
        if proto.name in flat.nodes:
            problems.mistake(f"node {proto.name!r} is there twice")
            continue
        controls = tuple(i[1:] for i in proto.input if i.startswith("^"))
        flat.nodes[proto.name] = TfNode(proto.name, proto.op, [], proto.attr, controls=controls)
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
    results = flat.add_body(function, arguments, prefix, {}, [])
    flat.inline_all()
    return flat.nodes, results


class _Flattener:
    def __init__(self, library: Mapping[str, Any], problems: Problems) -> None:
        self.library, self.problems = library, problems
        self.nodes: dict[str, TfNode] = {}
        self._depth: dict[str, int] = {}

    def inline_all(self) -> None:
        """Put functions in place of calls until there are none."""
        waiting = list(self.nodes.values())
        while waiting:
            node = waiting.pop()
            function = self._called(node)
            if function is None:
                continue
            depth, before = self._depth.get(node.name, 0) + 1, len(self.nodes)
            if depth > _DEEPEST or before > _MOST_NODES:
                self.problems.mistake(
                    f"node {node.name!r} calls {function.signature.name!r}, "
                    + ("which calls itself" if depth > _DEEPEST else f"which makes more than {_MOST_NODES} nodes")
                )
                return
            new: list[TfNode] = []
            node.inputs = self.add_body(function, node.inputs, node.name, node.attrs, new)
            node.op = "IdentityN" if node.inputs else "NoOp"
            self._depth |= {n.name: depth for n in new}
            waiting += new

    def _called(self, node: TfNode) -> Any:
        if node.op in CALLS:
            name = node.attrs["f"].func.name if "f" in node.attrs else ""
            if name not in self.library:
                self.problems.mistake(f"node {node.name!r} ({node.op}) calls the function {name!r}, which is not there")
                return None
            return self.library[name]
        return self.library.get(node.op)

    def add_body(
        self, function: Any, arguments: Sequence[Ref], prefix: str, given_attrs: Mapping[str, Any], new: list[TfNode]
    ) -> list[Ref]:
        """Add the nodes of a function, to `new` as well; the refs of its results."""
        names = [arg.name for arg in function.signature.input_arg]
        if len(names) != len(arguments):
            self.problems.mistake(f"{prefix!r} gives {len(arguments)} of {len(names)} arguments")
        makers = {proto.name: proto for proto in function.node_def}
        scope = _Scope(prefix, dict(zip(names, arguments, strict=False)), makers, self.library)
        for proto in function.node_def:
            node = TfNode(f"{prefix}/{proto.name}", proto.op, [], _filled(proto.attr, given_attrs))
            if node.name in self.nodes:
                self.problems.mistake(f"node {node.name!r} is there twice")
            self.nodes[node.name] = node
            new.append(node)
            node.controls = tuple(f"{prefix}/{i[1:]}" for i in proto.input if i.startswith("^"))
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


def _filled(attrs: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes, with what a call gives for those that a function leaves open."""
    open_ = {name: value.placeholder for name, value in attrs.items() if value.placeholder}
    if not open_:
        return attrs
    return {**attrs, **{name: given[source] for name, source in open_.items() if source in given}}


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
