# SPDX-License-Identifier: Apache-2.0
"""Constant folding: nodes whose inputs are all stored tensors are evaluated, their results stored instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import TensorwrightError
from tensorwright.importers.onnx.check import described
from tensorwright.importers.onnx.prepare import DEFAULT_DOMAINS, node_problem, opset_of, schema_of
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.op import Array
from tensorwright.surgeon.shapes import KnownShapes
from tensorwright.surgeon.structure import keep_nodes, reads, subgraphs
from tensorwright.surgeon.types import infer_types, static_shape

_RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
# Their results may be far larger than their inputs: evaluated only when the size is known before.
_GROWING: Final = frozenset(
    {"CenterCropPad", "ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
_STORABLE: Final = "fiub"


@dataclass(slots=True)
class FoldReport:
    """Folded nodes, nodes of constant inputs that stay with the reason, and shape inputs that were simplified."""

    folded: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    reshapes: list[str] = field(default_factory=list)


def fold_constants(model: ModelProto, *, limit_bytes: int) -> FoldReport:
    """Evaluate what does not depend on an input, in place; results larger than `limit_bytes` are left to run time.

    Values are computed by Tensorwright's own importer and references, and by onnx.reference for operators they lack.
    Shapes of static dims count as constants. Never folded: random operators, control flow, operators of other domains,
    and quantise and dequantise nodes (a backend reads from them which precision is wanted). Inputs with a stored
    default are not constant: a caller may give others. The nodes must be sorted; unused ones are left behind.
    """
    return _Folder(model, limit_bytes).run()


class _Folder:
    def __init__(self, model: ModelProto, limit_bytes: int) -> None:
        self.model, self.graph, self.limit = model, model.graph, limit_bytes
        inputs = {i.name for i in self.graph.input}
        self.stored = {t.name: t for t in self.graph.initializer if t.name not in inputs}
        self.opsets = {"" if o.domain in DEFAULT_DOMAINS else o.domain: o.version for o in model.opset_import}
        self.report = FoldReport()
        self.shapes = KnownShapes(infer_types(model), self.stored)

    def run(self) -> FoldReport:
        remaining = []
        for position, node in enumerate(self.graph.node):
            results = self._results(node)
            if results is None:
                self._simplify_reshape(node)
                remaining.append(position)
                continue
            self.report.folded.append(described(node))
            for tensor in results:
                self.graph.initializer.append(tensor)
                self.stored[tensor.name] = self.graph.initializer[-1]
        keep_nodes(self.graph, remaining)
        return self.report

    def _results(self, node: NodeProto) -> list[TensorProto] | None:
        """The node's results as stored tensors; None when it stays."""
        if node_problem(node, self.opsets, self.model.ir_version) is not None:
            return None  # the checker of the result will say so
        self.shapes.follow(node)
        known = self.shapes.complete(node)
        if known is not None:
            return [numpy_helper.from_array(known, node.output[0])]
        if any(name not in self.stored for name in reads(node)):
            return None
        reason = self._obstacle(node)
        if not reason:
            try:
                return self._stored_results(node)
            except _NotFoldableError as error:
                reason = str(error)
        self.report.kept[described(node)] = reason
        return None

    def _obstacle(self, node: NodeProto) -> str:
        if node.domain not in DEFAULT_DOMAINS:
            return f"the domain {node.domain!r} is not standard"
        if any(True for _ in subgraphs(node)):
            return "control flow is not folded"
        if node.op_type in _RANDOM:
            return "its result is random"
        if node.op_type in _QUANTISED:
            return "it says which precision is wanted"
        size = self._known_bytes(node)
        if size is None and node.op_type in _GROWING:
            return "the size of its result is not known before"
        if size is not None and size > self.limit:
            return f"its result of {size} bytes is above the limit of {self.limit}"
        return ""

    def _known_bytes(self, node: NodeProto) -> int | None:
        """Bytes of all results, from shape inference with the values at hand; None when not known."""
        schema = schema_of(node.op_type, opset_of(self.model))
        if schema is None:
            return None
        data = {name: self.stored[name] for name in reads(node)}
        types = {n: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for n, t in data.items()}
        try:
            inferred: Mapping[str, TypeProto] = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                types,
                {n: t for n, t in data.items() if math.prod(t.dims) <= 1024},
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return None
        total = 0
        for name in filter(None, node.output):
            shape = static_shape(inferred.get(name))
            if shape is None or any(dim is None for dim in shape):
                return None
            item = helper.tensor_dtype_to_np_dtype(inferred[name].tensor_type.elem_type).itemsize
            total += math.prod(dim for dim in shape if dim is not None) * item
        return total

    def _stored_results(self, node: NodeProto) -> list[TensorProto]:
        alone = self._alone(node)
        names = [name for name in node.output if name]
        with np.errstate(all="ignore"):
            arrays = _by_own_reference(alone, names) or _by_onnx_reference(alone, names)
        tensors = []
        for name, value in zip(names, arrays, strict=True):
            array = np.asarray(value)
            if isinstance(value, list | dict) or array.dtype.kind not in _STORABLE and array.dtype.kind != "V":
                raise _NotFoldableError("its result is not a tensor of numbers")
            if array.nbytes > self.limit:
                raise _NotFoldableError(f"its result of {array.nbytes} bytes is above the limit of {self.limit}")
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return tensors

    def _alone(self, node: NodeProto) -> ModelProto:
        """A model of this node only."""
        graph = helper.make_graph([node], "folded", [], [], [self.stored[name] for name in reads(node)])
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
        result = ModelProto(ir_version=self.model.ir_version)
        result.graph.CopyFrom(graph)
        result.opset_import.extend(self.model.opset_import)
        return result

    def _simplify_reshape(self, node: NodeProto) -> None:
        """A computed shape with one open dim is stored as one with -1, when it says the same."""
        if node.op_type != "Reshape" or node.domain not in DEFAULT_DOMAINS or len(node.input) < 2:
            return
        dims = self.shapes.elements(node.input[1])
        if node.input[1] in self.stored or dims is None or dims.count(None) != 1 or 0 in dims:
            return
        name = f"{node.input[1]}/static"
        if name not in self.stored:
            shape = np.array([-1 if dim is None else dim for dim in dims], np.int64)
            self.graph.initializer.append(numpy_helper.from_array(shape, name))
            self.stored[name] = self.graph.initializer[-1]
        node.input[1] = name
        self.report.reshapes.append(described(node))


class _NotFoldableError(Exception):
    """A result that cannot be stored."""


def _by_own_reference(model: ModelProto, names: list[str]) -> list[Array] | None:
    """None where this version cannot import the node."""
    try:
        found = interpret(import_onnx(model), {})
    except (TensorwrightError, ValueError, ArithmeticError, IndexError):
        return None
    return [found[name] for name in names]


def _by_onnx_reference(model: ModelProto, names: list[str]) -> list[Array]:
    try:
        found = ReferenceEvaluator(model).run(names, {})
    except Exception as error:  # onnx.reference raises whatever its operators do
        raise _NotFoldableError(f"onnx.reference cannot evaluate it: {error}") from error
    return list(found)
