# SPDX-License-Identifier: Apache-2.0
"""The variables of a SavedModel: which tensor of the checkpoint each one is, and what reading them means.

The saver's own restore op knows it: it assigns outputs of RestoreV2, which lists keys of the checkpoint, to variables.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.importers.problems import Problems
from tensorwright.importers.tensorflow.bundle import Bundle, Part, parse_part
from tensorwright.importers.tensorflow.graph_def import (
    CALLS,
    Ref,
    TfGraph,
    TfNode,
    flattened,
    needed,
    origin,
    parse_ref,
)
from tensorwright.importers.tensorflow.load import parse
from tensorwright.importers.tensorflow.node import OpNode
from tensorwright.importers.tensorflow.registry import find_op
from tensorwright.importers.tensorflow.schema import TrackableObjectGraph
from tensorwright.importers.tensorflow.tensors import UnsupportedTypeError, dtype_of
from tensorwright.ir.graph import Value
from tensorwright.network.builder import RefusalError

if TYPE_CHECKING:
    from tensorwright.importers.tensorflow.reader import Anything, GraphReader

_VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_CHANGES = (
    *("Assign", "AssignAdd", "AssignSub", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"),
    *(f"Scatter{how}" for how in ("Update", "Add", "Sub", "Mul", "Div", "Min", "Max", "NdUpdate", "NdAdd", "NdSub")),
)
_CHANGES_PREFIX = ("ResourceScatter", "ResourceApply", "ResourceStridedSliceAssign", "ResourceCountUpTo")
_BRANCHES = ("then_branch", "else_branch", "branches", "cond", "body", "f")
"""Attributes that name functions."""

Source = tuple[str, Part | None]
"""A key of the checkpoint, and the part of that tensor."""


# -- values ---------------------------------------------------------------------------------------
def give_values(graph: TfGraph, meta: Any, folder: pathlib.Path, problems: Problems) -> None:
    """Give the variables that the outputs need the arrays of the checkpoint.

    Raises ModelError M101, M103 and M108; what contradicts is put into `problems`.
    """
    wanted = [node for node in _reached(graph) if node.op in _VARIABLES]
    if not wanted:
        return
    _check_unchanged(graph, wanted, problems)
    bundle = Bundle(folder / "variables" / "variables")
    sources = _restored(meta, graph.library)
    by_name = _object_keys(bundle)
    missing = []
    for node in wanted:
        source = sources.get(node.name) or _by_name(node, bundle, by_name)
        if source is None or source[0] not in bundle:
            missing.append(node.name)
            continue
        try:
            node.array = bundle.array(*source)
        except UnsupportedTypeError as error:
            problems.refuse(node.op, node.name, str(error))
            continue
        _check_declared(node, problems)
    if missing:
        raise ModelError(
            f"the checkpoint has no values for {len(missing)} variable{'s' * (len(missing) > 1)}",
            where=bundle.where,
            why=", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else ""),
            do="export the model again",
            code="M108",
        )


def _reached(graph: TfGraph) -> list[TfNode]:
    """The nodes that the outputs need."""
    found, waiting = set[str](), [ref.node for ref in graph.outputs.values()]
    while waiting:
        name = waiting.pop()
        if name not in found and name in graph.nodes:
            found.add(name)
            waiting += [ref.node for ref in graph.nodes[name].inputs]
    return [node for name, node in graph.nodes.items() if name in found]


def _restored(meta: Any, library: Mapping[str, Any]) -> dict[str, Source]:
    """By the name of a variable's node: what the saver's restore op puts there."""
    name = meta.saver_def.restore_op_name
    if not name:
        return {}
    aside = Problems("node", "")  # the restore op is no part of the network: what is wrong there shows as a missing key
    try:
        nodes = flattened(needed(meta.graph_def.node, [parse_ref(name).node]), library, aside)
    except ValueError:
        return {}
    found: dict[str, Source] = {}
    for node in nodes.values():
        if node.op not in ("Assign", "AssignVariableOp") or len(node.inputs) < 2:
            continue
        variable, _ = origin(nodes, node.inputs[0])
        restore, index = origin(nodes, node.inputs[1])
        if variable is None or variable.op not in _VARIABLES or restore is None or restore.op != "RestoreV2":
            continue
        keys, parts = (_texts(nodes, ref) for ref in (*restore.inputs, *[Ref("", 0)] * 3)[1:3])
        if index < len(keys):
            found[variable.name] = keys[index], _part_of(parts, index)
    return found


def _part_of(parts: Sequence[str], index: int) -> Part | None:
    try:
        return parse_part(parts[index]) if index < len(parts) else None
    except ValueError as error:
        raise ModelError(
            "the saver reads a part of a variable that cannot be understood", why=str(error), code="M108"
        ) from error


def _texts(nodes: Mapping[str, TfNode], ref: Ref) -> list[str]:
    """A constant list of texts."""
    node, _ = origin(nodes, ref)
    if node is None or node.op != "Const" or "value" not in node.attrs:
        return []
    tensor = node.attrs["value"].tensor
    texts = [text.decode("utf-8", "replace") for text in tensor.string_val]
    count = tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 1
    return texts + texts[-1:] * max(0, min(count - len(texts), 1 << 20))


def _object_keys(bundle: Bundle) -> dict[str, str]:
    """By the name of a variable: its key, as the checkpoint's graph of objects says."""
    if _OBJECTS not in bundle:
        return {}
    graph = parse(bundle.text(_OBJECTS), TrackableObjectGraph(), bundle.where, "a graph of objects")
    return {a.full_name: a.checkpoint_key for node in graph.nodes for a in node.attributes if a.full_name}


def _by_name(node: TfNode, bundle: Bundle, keys: Mapping[str, str]) -> Source | None:
    shared = node.attrs["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attrs else ""
    names = [name for name in (shared, node.name) if name]
    key = next((keys[name] for name in names if name in keys), None) or next((n for n in names if n in bundle), None)
    return None if key is None else (key, None)


def _check_declared(node: TfNode, problems: Problems) -> None:
    """The graph's word on dtype and shape must be what is stored."""
    array, attrs = node.array, node.attrs
    if array is None or "dtype" not in attrs:
        return
    shape = attrs["shape"].shape if "shape" in attrs else None
    sizes = [d.size for d in shape.dim] if shape is not None and not shape.unknown_rank else None
    fits = sizes is None or (
        len(sizes) == array.ndim and all(s in (d, -1) for s, d in zip(sizes, array.shape, strict=True))
    )
    if not fits or dtype_of(attrs["dtype"].type).numpy != array.dtype:
        problems.mistake(
            f"variable {node.name!r} is declared as {dtype_of(attrs['dtype'].type)}{sizes}, "
            f"but the checkpoint has {array.dtype}{list(array.shape)}"
        )


# -- changes --------------------------------------------------------------------------------------
def _check_unchanged(graph: TfGraph, variables: Sequence[TfNode], problems: Problems) -> None:
    """Refuse variables that a run changes: results would depend on the runs before."""
    names, memo = {node.name for node in variables}, dict[str, frozenset[int]]()
    for node in graph.nodes.values():
        for index in _changed_inputs(node, graph, memo):
            variable, _ = origin(graph.nodes, node.inputs[index]) if index < len(node.inputs) else (None, 0)
            if variable is not None and variable.name in names:
                problems.refuse(
                    node.op,
                    node.name,
                    f"each run changes the variable {variable.name!r}, on which results depend",
                    "export a signature without state: take it as an input and give it as an output",
                )


def _changes(op: str) -> bool:
    return op in _CHANGES or op.startswith(_CHANGES_PREFIX)


def _changed_inputs(node: TfNode, graph: TfGraph, memo: dict[str, frozenset[int]]) -> set[int]:
    """The inputs of a node that it changes, itself or in a body."""
    if _changes(node.op):
        return {0}
    first = int(node.op in ("If", "StatelessIf", "Case", "StatelessCase"))
    functions = list(_functions(node.attrs))
    condition = origin(graph.nodes, node.inputs[0])[0] if first and node.inputs else None
    if condition is not None and condition.op == "Const" and node.op.endswith("If") and "value" in condition.attrs:
        holds = any(condition.attrs["value"].tensor.bool_val) or any(condition.attrs["value"].tensor.tensor_content)
        functions = [node.attrs["then_branch" if holds else "else_branch"].func.name]
    return {first + i for name in functions for i in _changed_arguments(name, graph.library, memo)}


def _functions(attrs: Mapping[str, Any]) -> Iterator[str]:
    for name in _BRANCHES:
        if name in attrs:
            yield from (f.name for f in (attrs[name].func, *attrs[name].list.func) if f.name)


def _changed_arguments(name: str, library: Mapping[str, Any], memo: dict[str, frozenset[int]]) -> frozenset[int]:
    """The arguments of a function that its body changes."""
    if name in memo or name not in library:
        return memo.get(name, frozenset())
    memo[name] = frozenset()  # while it is looked at: it may call itself
    function = library[name]
    places = {arg.name: i for i, arg in enumerate(function.signature.input_arg)}
    changed = set[int]()
    for proto in function.node_def:
        inputs = [text.partition(":")[0] for text in proto.input if not text.startswith("^")]
        if _changes(proto.op):
            changed |= {places[text] for text in inputs[:1] if text in places}
            continue
        inner = [*_functions(proto.attr), *([proto.op] if proto.op in library else [])]
        first = 0 if proto.op in (*CALLS, "While", "StatelessWhile") or proto.op in library else 1
        for index in {i + first for f in inner for i in _changed_arguments(f, library, memo)}:
            if index < len(inputs) and inputs[index] in places:
                changed.add(places[inputs[index]])
    memo[name] = frozenset(changed)
    return memo[name]


# -- ops ------------------------------------------------------------------------------------------
Read = Callable[["GraphReader", TfNode, Sequence["Anything"]], Sequence["Anything"]]


def _same(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    """What a handle stands for is the variable's value already."""
    return inputs[:1]


def _as(op: str) -> Read:
    """An op that does to a variable what another one does to a tensor."""

    def read(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
        entry, plain = find_op(op), [value for value in inputs if isinstance(value, Value)]
        if entry is None or len(plain) != len(inputs):
            raise RefusalError("this version has no importer for the op")
        like = TfNode(node.name, op, node.inputs, node.attrs)
        result = entry.translate(reader.builder, OpNode(like, plain, reader.builder))
        return [result] if isinstance(result, Value) else result

    return read


def _true(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [reader.builder.constant(np.asarray(True))]


def _refused(reason: str, do: str) -> Read:
    def read(reader: GraphReader, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
        raise RefusalError(reason, do)

    return read


_UNFROZEN = _refused(
    "it is a variable, and nothing says its value", "freeze the graph, or give the SavedModel's folder"
)
_CHANGE = _refused("it changes a variable, which is no part of inference", "export a signature for inference only")
_TABLE = _refused(
    "it looks texts or numbers up in a table, which this version does not do",
    "do the look-up before the model, and name the tensor after it with outputs= or as a signature's input",
)

VARIABLE_OPS: Mapping[str, Read] = {
    "ReadVariableOp": _same,
    "ResourceGather": _as("Gather"),
    "ResourceGatherNd": _as("GatherNd"),
    "VariableShape": _as("Shape"),
    "VarIsInitializedOp": _true,
    "IsVariableInitialized": _true,
    **dict.fromkeys(_VARIABLES, _UNFROZEN),
    **dict.fromkeys(_CHANGES, _CHANGE),
    **dict.fromkeys(
        (
            *("HashTable", "HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2", "AnonymousHashTable"),
            *("LookupTableFind", "LookupTableFindV2", "LookupTableSizeV2"),
        ),
        _TABLE,
    ),
}
"""By op: gives its results. Raises RefusalError and ValueError."""
