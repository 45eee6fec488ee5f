# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX model into a Graph, collecting every problem before it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto, TypeProto

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.check import described, needed_nodes, node_problem, source_name
from tensorwright.importers.onnx.inputs import bind_shapes, substituted
from tensorwright.importers.onnx.load import LoadedModel, load_model
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, RefusalError
from tensorwright.importers.onnx.prepare import DEFAULT_DOMAINS, schema_of
from tensorwright.importers.onnx.problems import Problems
from tensorwright.importers.onnx.registry import NEWEST_OPSET, OLDEST_OPSET, find_op
from tensorwright.importers.onnx.tensors import UnsupportedTypeError, array_of, declared_type
from tensorwright.ir.dims import SymDim
from tensorwright.ir.graph import Graph, Value


def import_onnx(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
) -> Graph:
    """The Graph of an ONNX model, for the opsets 7 to 28.

    `shapes` fixes the symbolic dims of inputs (input name to shape; one input also binds the others that share its
    symbols), `outputs` chooses other tensors than the model's outputs. Values carry the tensor names of the model;
    origins are node names, or `OpType:output` for nameless nodes. Only what the outputs need is read.

    Raises UnsupportedError M201 with all nodes that cannot be imported, or ModelError: M101 missing, M102 empty, M103
    unreadable, M104 inconsistent, M106 shapes= does not fit, M107 outputs= names an unknown tensor, M108 external data.
    """
    return _Reader(load_model(model), dict(shapes or {}), outputs).read()


class _Reader:
    def __init__(self, model: LoadedModel, shapes: Mapping[str, Sequence[int]], outputs: Sequence[str] | None) -> None:
        self.model, self.proto = model, model.proto.graph
        self.nodes = needed_nodes(model, outputs)
        self.outputs = list(outputs) if outputs is not None else [o.name for o in self.proto.output]
        self.builder = Builder(self.proto.name or "network", model.folder)
        self.initializers = {t.name: t for t in self.proto.initializer}
        self.read_names = {name for node in self.nodes for name in node.input} | set(self.outputs)
        self.values: dict[str, Value | None] = {}  # None: could not be imported, and was reported
        self.problems = Problems()
        types, self.bindings = bind_shapes(model, self.initializers, shapes, self.problems)
        for name, input_type in types.items():
            self.values[name] = None if input_type is None else self.builder.input(name, input_type)

    def read(self) -> Graph:
        for node in self.nodes:
            self._read_node(node)
        outputs = [(name, self._value(name)) for name in self.outputs]
        self._check_declared_types()
        self.problems.raise_any(f"{self.model.where}, opset {self.model.opset}")
        return self.builder.finish([(name, value) for name, value in outputs if value is not None])

    def _value(self, name: str) -> Value | None:
        """The value of a tensor name; initializers are converted when first read."""
        if name not in self.values:
            self.values[name] = None
            try:
                self.values[name] = self.builder.constant(array_of(self.initializers[name], self.model.folder), name)
            except UnsupportedTypeError as error:
                self.problems.refuse("initializer", name, str(error))
            except ValueError as error:
                self.problems.mistake(f"initializer {name!r}: {error}")
        return self.values[name]

    def _read_node(self, node: NodeProto) -> None:
        self.values.update(dict.fromkeys(filter(None, node.output)))
        entry = self._entry(node)
        inputs = [self._value(name) if name else None for name in node.input]
        if entry is None or any(value is None and name for value, name in zip(inputs, node.input, strict=True)):
            return
        mistake = node_problem(node, self.model.opset, self.model.proto.ir_version)
        if mistake is None:
            try:
                self._translate(entry, node, inputs)
            except RefusalError as refusal:
                self._refuse(node, refusal.reason, refusal.do)
            except UnsupportedTypeError as error:
                self._refuse(node, str(error))
            except (ValueError, ArithmeticError, IndexError) as error:
                mistake = str(error)
        if mistake is not None:
            self.problems.mistake(f"{described(node)}: {mistake}")

    def _entry(self, node: NodeProto) -> OnnxOp | None:
        """The importer function for a node, or None after reporting that there is none."""
        opset = self.model.opset
        if node.domain not in DEFAULT_DOMAINS:
            self._refuse(node, f"the domain {node.domain!r} is not known", "export with standard ONNX operators only")
        elif not OLDEST_OPSET <= opset <= NEWEST_OPSET:
            self._refuse(
                node,
                f"this version reads the opsets {OLDEST_OPSET} to {NEWEST_OPSET}, not {opset}",
                "convert the model with onnx.version_converter.convert_version(model, 17)",
            )
        elif (entry := find_op(node.op_type, opset)) is not None:
            return entry
        elif schema_of(node.op_type, opset) is None:
            self._refuse(
                node, f"opset {opset} of ONNX has no such operator", "export the model again with standard operators"
            )
        else:
            self._refuse(
                node,
                "this version has no importer for the operator",
                "replace the operator where the model is exported, or ask for it in the issue tracker",
            )
        return None

    def _translate(self, entry: OnnxOp, node: NodeProto, inputs: Sequence[Value | None]) -> None:
        onnx_node = OnnxNode(
            node, self.model.opset, inputs, [name in self.read_names for name in node.output], self.builder
        )
        self.builder.source = source_name(node)
        result = entry.translate(self.builder, onnx_node)
        results = [result] if isinstance(result, Value) else list(result)
        unread = onnx_node.unread_attributes()
        if unread:
            raise RefusalError(f"its attribute {', '.join(map(repr, unread))} is not supported")
        for index, name in enumerate(node.output):
            if index < len(results) and name:
                self.values[name] = results[index]
                self.builder.bind(results[index], name)
            elif onnx_node.output_used(index):
                raise RefusalError(
                    f"its output {name!r} is not computed by this version", "remove the readers of that output"
                )

    def _refuse(self, node: NodeProto, reason: str, do: str = "") -> None:
        kind = node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}"
        self.problems.refuse(kind, source_name(node), reason, do)

    def _check_declared_types(self) -> None:
        """What the model says of its outputs, and of the dtypes inside it, must be what its nodes compute."""
        makers = {name: described(node) for node in self.nodes for name in node.output}
        for info in (*self.proto.value_info, *self.proto.output):
            value = self.values.get(info.name)
            declared = "" if value is None else self._contradiction(value, info.type, whole=info.name in self.outputs)
            if value is not None and declared:
                maker = makers.get(info.name, "the model")
                self.problems.mistake(f"{maker} makes {info.name!r} as {value.type}, but it is declared as {declared}")

    def _contradiction(self, value: Value, declared: TypeProto, *, whole: bool) -> str:
        """The declaration when it contradicts the value's type: dtype always, shape when `whole`."""
        try:
            dtype, shape = declared_type(declared, lambda axis, name: SymDim.symbol(name or f"?{axis}"))
        except UnsupportedTypeError as error:
            return f"something that {error}"
        if dtype is not None and dtype is not value.type.dtype:
            return str(dtype)
        if not whole or shape is None:
            return ""
        shape = tuple(substituted(d, self.bindings) for d in shape)
        pairs = zip(shape, value.type.shape, strict=False)
        fits = len(shape) == value.type.rank and not any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
        )
        return "" if fits else f"[{','.join(map(str, shape))}]"
