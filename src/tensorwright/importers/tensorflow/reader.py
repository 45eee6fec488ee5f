# SPDX-License-Identifier: Apache-2.0
"""Reads a TensorFlow model into a Graph, collecting every problem before it fails."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from tensorwright.errors import ModelError
from tensorwright.importers.builder import Builder, DataDependentError
from tensorwright.importers.problems import Problems
from tensorwright.importers.sizes import symbol_bindings
from tensorwright.importers.tensorflow.control_flow import CONTROL_FLOW
from tensorwright.importers.tensorflow.frames import structured
from tensorwright.importers.tensorflow.graph_def import Ref, TfGraph, TfNode
from tensorwright.importers.tensorflow.list_values import TensorList
from tensorwright.importers.tensorflow.load import load_frozen
from tensorwright.importers.tensorflow.node import OpNode
from tensorwright.importers.tensorflow.ops_random import Ranges, decided
from tensorwright.importers.tensorflow.registry import find_op
from tensorwright.importers.tensorflow.saved_model import load_saved_model
from tensorwright.importers.tensorflow.tensor_lists import LIST_OPS
from tensorwright.importers.tensorflow.tensors import UnsupportedTypeError, array_of, dtype_of, shape_of
from tensorwright.ir.dims import Dim, SymDim, Undecided, substitute
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import RefusalError
from tensorwright.shapes import Range

_REMEDY = "correct the model where it is exported"

_IDENTITIES = ("Identity", "IdentityN", "StopGradient", "PreventGradient")

Anything = Value | TensorList
Shapes = Mapping[str, Sequence[int] | Range]


def import_tensorflow(
    path: str | os.PathLike[str], *, shapes: Shapes | None = None, outputs: Sequence[str] | None = None
) -> Graph:
    """The Graph of a frozen GraphDef (.pb), or of a SavedModel (its folder, or the saved_model.pb in it).

    A frozen graph's inputs are its placeholders; its outputs are those named ("prob", "prob:0", "split:1"), or its only
    result. A SavedModel's are those of its signature `serving_default` (or the only one); `outputs` chooses some of
    them, names of another signature's outputs, or tensors by the names of their nodes. Unknown dims are symbols, which
    `shapes` fixes or bounds. Origins are node names; bodies of functions are inlined under the names of their calls.

    Raises UnsupportedError M201 with all nodes that cannot be imported, or ModelError: M101 missing, M102 empty, M103
    unreadable, M104 inconsistent, M106 shapes= does not fit, M107 outputs= names an unknown tensor, M108 variables.
    """
    problems = Problems("node", _REMEDY)
    location = pathlib.Path(path)
    if location.is_dir() or location.name == "saved_model.pb":
        graph = load_saved_model(location if location.is_dir() else location.parent, outputs, problems)
    else:
        graph = load_frozen(location, outputs, problems)
    problems.raise_any(graph.where)
    structured(graph.nodes)
    return _ModelReader(graph, shapes or {}, problems).read()


class GraphReader:
    """Reads the nodes of one graph: of a whole model, or of a function's body."""

    def __init__(self, graph: TfGraph, builder: Builder, problems: Problems) -> None:
        self.graph, self.builder, self.problems = graph, builder, problems
        self.values: dict[Ref, Anything | None] = {}  # None: could not be imported, and was reported
        self.depth, self.applications = 0, [0]  # of functions: within each other, and how many in all
        self.ranges: Ranges = {}  # of random numbers
        self._done: set[str] = set()

    def value(self, ref: Ref) -> Anything | None:
        """What an output of a node is, with all nodes that it needs read before; None where that was reported."""
        waiting, opened = [ref.node], set[str]()
        while waiting:
            name = waiting[-1]
            node = self.graph.nodes.get(name)
            if name in self._done or node is None:
                waiting.pop()
                continue
            needed = [r.node for r in self.needs(node) if r not in self.values and r.node not in self._done]
            missing = [n for n in needed if n in self.graph.nodes]
            if missing and name not in opened:
                opened.add(name)
                waiting += missing
                continue
            waiting.pop()
            self._done.add(name)
            if missing:
                self.problems.mistake(f"node {name!r} ({node.op}) depends on its own result")
                continue
            self._read(node)
        if ref not in self.values:
            self.values[ref] = None
            known = self.graph.nodes.get(ref.node)
            why = "nothing makes it" if known is None else f"its node ({known.op}) has no such output"
            if known is None or (known.name in self._done and self.values.get(Ref(ref.node, 0), ref) is not None):
                self.problems.mistake(f"tensor {str(ref)!r}: {why}")
        return self.values[ref]

    def needs(self, node: TfNode) -> list[Ref]:
        """The inputs that must be read before a node."""
        return [] if node.array is not None else node.inputs

    def give(self, ref: Ref, value: Anything | None) -> None:
        """Make known what an output is; None: a problem of it was reported."""
        self.values[ref] = value
        if isinstance(value, Value):
            self.builder.bind(value, str(ref))

    def _read(self, node: TfNode) -> None:
        if Ref(node.name, 0) in self.values:
            return
        inputs = [self.values.get(ref) for ref in self.needs(node)]
        for ref, value in zip(self.needs(node), inputs, strict=True):
            if value is None and ref not in self.values:
                self.value(ref)  # which reports it
        known = [value for value in inputs if value is not None]
        if len(known) != len(inputs) and is_known(node):  # what is wrong there was reported
            self.values.setdefault(Ref(node.name, 0), None)
            return
        self.builder.source = node.name
        try:
            results = self._translated(node, known)
        except RefusalError as refusal:
            self.problems.refuse(node.op, node.name, refusal.reason, refusal.do)
        except UnsupportedTypeError as error:
            self.problems.refuse(node.op, node.name, str(error))
        except (DataDependentError, Undecided) as error:
            self.problems.refuse(node.op, node.name, str(error), "give every input a fixed shape with shapes=")
        except (ValueError, ArithmeticError, IndexError) as error:
            self.problems.mistake(f"node {node.name!r} ({node.op}): {error}")
        else:
            for index, value in enumerate(results):
                self.give(Ref(node.name, index), value)
            return
        self.values.setdefault(Ref(node.name, 0), None)

    def _translated(self, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything | None]:
        if node.array is not None:
            return [self.builder.constant(node.array, node.name)]
        if node.op == "Const":
            return [self.builder.constant(array_of(node.attrs["value"].tensor), node.name)]
        if node.op in CONTROL_FLOW:
            return CONTROL_FLOW[node.op](self, node, inputs)
        if node.op in LIST_OPS:
            return LIST_OPS[node.op](self.builder, node, inputs)
        if node.op in _IDENTITIES:
            return inputs
        entry = find_op(node.op)
        if entry is None:
            raise RefusalError(
                "this version has no importer for the op", "replace the op, or ask for it in the issue tracker"
            )
        plain = [value for value in inputs if isinstance(value, Value)]
        if len(plain) != len(inputs):
            raise RefusalError("it reads a list of tensors")
        result = entry.translate(self.builder, OpNode(node, plain, self.builder))
        if isinstance(result, Value):
            return [decided(self.builder, node.op, tuple(plain), result, self.ranges)]
        return list(result)


def is_known(node: TfNode) -> bool:
    """Whether this version reads the node's op."""
    tables = (CONTROL_FLOW, LIST_OPS, _IDENTITIES)
    return node.array is not None or any(node.op in table for table in tables) or find_op(node.op) is not None


class _ModelReader(GraphReader):
    """Reads a whole model."""

    def __init__(self, graph: TfGraph, shapes: Shapes, problems: Problems) -> None:
        super().__init__(graph, Builder(pathlib.PurePath(graph.where).stem or "network"), problems)
        self.shapes = shapes
        self._symbols: dict[object, str] = {}  # of dims that shapes= gives alike

    def read(self) -> Graph:
        """The graph. Raises what `import_tensorflow` says."""
        self._check_inputs()
        types = {name: self._declared(name, ref) for name, ref in self.graph.inputs.items()}
        bindings = symbol_bindings(self.graph.where, types, self.shapes)
        for name, ref in self.graph.inputs.items():
            declared = types[name]
            self.values[ref] = None
            if declared is not None:
                shape = (substitute(d, bindings) for d in declared.shape)
                self.values[ref] = self.builder.input(name, declared.with_shape(shape))
        found = {name: self.value(ref) for name, ref in self.graph.outputs.items()}
        for name, value in found.items():
            if isinstance(value, TensorList):
                self.problems.refuse("output", name, "it is a list of tensors", "stack it")
        self.problems.raise_any(self.graph.where)
        return self.builder.finish([(name, value) for name, value in found.items() if isinstance(value, Value)])

    def _check_inputs(self) -> None:
        """Refuse `shapes` that name what is no input."""
        unknown = [name for name in self.shapes if name not in self.graph.inputs]
        if unknown:
            raise ModelError(
                "shapes= does not fit the model",
                where=self.graph.where,
                why=f"there is no input {', '.join(map(repr, unknown))}; the inputs are {', '.join(self.graph.inputs)}",
                code="M106",
                do="give shapes to the inputs of the model",
            )

    def _declared(self, name: str, ref: Ref) -> TensorType | None:
        """The type of an input with symbols for open dims; None when it has none, which is reported."""
        node = self.graph.nodes[ref.node]
        ranges = Range.of(self.shapes[name]) if name in self.shapes else None
        try:
            dtype = dtype_of(node.attrs["dtype"].type)
        except UnsupportedTypeError as error:
            self.problems.refuse("input", name, str(error))
            return None
        shape = (
            shape_of(node.attrs["shape"].shape, lambda axis: self._symbol(name, axis, ranges))
            if "shape" in node.attrs
            else None
        )
        if shape is None or (not shape and ranges is not None and ranges.opt):  # an old graph may leave a shape out
            if ranges is None:
                self.problems.mistake(f"input {name!r} has no shape: give it one with shapes={{{name!r}: ...}}")
                return None
            shape = tuple(self._symbol(name, axis, ranges) for axis in range(len(ranges.opt)))
        return TensorType(dtype, shape)

    def _symbol(self, name: str, axis: int, ranges: Range | None) -> Dim:
        if ranges is None or axis >= len(ranges.opt):
            return SymDim.symbol(f"{name}_{axis}")
        alike = (axis, ranges.min[axis], ranges.opt[axis], ranges.max[axis])
        return SymDim.symbol(self._symbols.setdefault(alike, f"{name}_{axis}"))
