# SPDX-License-Identifier: Apache-2.0
"""What is done to a model before it is read: function calls are expanded and very old opsets converted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import onnx.checker
import onnx.helper
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.registry import NEWEST_OPSET, OLDEST_OPSET, find_op
from tensorwright.importers.onnx.scope import bodies

DEFAULT_DOMAINS = ("", "ai.onnx")
_ONNX_DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")
_NOT_CONVERTED = ("PRelu",)  # its slopes were per channel before opset 7; ONNX's converter leaves them as they are
_ONNX_ERRORS = (
    RuntimeError,
    ValueError,
    EncodeError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
)


def opset_of(proto: ModelProto) -> int:
    """The version of the standard operators; 0 when the model does not say."""
    return max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=0)


def domain_of(node: NodeProto) -> str:
    """The domain of the node's operator; "" for standard operators."""
    return "" if node.domain in DEFAULT_DOMAINS else str(node.domain)


def op_key(node: NodeProto) -> str:
    """The operator as the registry and messages call it: "Relu", "com.microsoft.Gelu"."""
    return f"{node.domain}.{node.op_type}" if domain_of(node) else str(node.op_type)


def is_onnx_domain(domain: str) -> bool:
    """Whether ONNX itself defines operators of the domain."""
    return domain in _ONNX_DOMAINS


def schema_of(op_type: str, opset: int, domain: str = "") -> onnx.defs.OpSchema | None:
    """ONNX's own description of one of its operators; None when it has none in that opset."""
    if not 0 < opset <= NEWEST_OPSET:
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def prepared(proto: ModelProto, where: str) -> ModelProto:
    """The model without model-local functions, with the bodies of standard operators that ONNX defines by others and
    that have no importer, and in an opset of at least 7. Raises ModelError M104 when its functions cannot be expanded.
    """
    if proto.functions:
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except _ONNX_ERRORS as error:
            raise ModelError(
                "the functions of the model cannot be expanded",
                where=where,
                why=str(error),
                code="M104",
                do="export the model again without functions",
            ) from error
    if 0 < opset_of(proto) < OLDEST_OPSET and all(node.op_type not in _NOT_CONVERTED for node in proto.graph.node):
        proto = _if_possible(functools.partial(_converted, proto), proto)
    opset = opset_of(proto)
    for call in sorted({node.op_type for node in proto.graph.node if _only_as_function(node, opset)}):
        if _damaged(proto, call, opset):
            continue  # the reader says what is wrong
        expanded = _if_possible(functools.partial(_expanded, proto, {call}, opset), proto)
        if _without_importer(expanded, opset) < _without_importer(proto, opset):
            proto = expanded  # the body is made of ops that are read, perhaps through bodies of their own
    return proto


def _without_importer(proto: ModelProto, opset: int) -> set[str]:
    nodes = [node for node in proto.graph.node if node.domain in DEFAULT_DOMAINS]
    return {node.op_type for node in nodes if find_op(node.op_type, opset) is None}


def _if_possible(change: Callable[[], ModelProto], proto: ModelProto) -> ModelProto:
    """The changed model, or as it is where ONNX cannot change it: the reader then names what it cannot read."""
    try:
        return change()
    except _ONNX_ERRORS:
        return proto


def _converted(proto: ModelProto) -> ModelProto:
    """In the oldest opset that is read. The converter trusts what it is given, and crashes, so the model is checked
    before: without its stored tensors, which the checker would look for in files."""
    bare = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    graph, given = proto.graph, {info.name for info in proto.graph.input}
    stored = [t for t in graph.initializer if t.name not in given]
    infos = [onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in stored]
    bare.graph.CopyFrom(onnx.helper.make_graph(graph.node, graph.name, [*graph.input, *infos], graph.output))
    onnx.checker.check_model(bare)
    return onnx.version_converter.convert_version(proto, OLDEST_OPSET)


def _only_as_function(node: NodeProto, opset: int) -> bool:
    if node.domain not in DEFAULT_DOMAINS or find_op(node.op_type, opset) is not None:
        return False
    schema = schema_of(node.op_type, opset)
    kinds = ("has_function", "has_context_dependent_function")
    return schema is not None and any(getattr(schema, kind, False) for kind in kinds)


def _damaged(proto: ModelProto, op_type: str, opset: int) -> bool:
    """Whether a node of that type is malformed, or misses the types that make its body: ONNX's inliner trusts what it
    is given, and crashes."""
    nodes = [node for node in proto.graph.node if node.op_type == op_type]
    if any(node_problem(node, {"": opset}, proto.ir_version) is not None for node in nodes):
        return True
    if not getattr(schema_of(op_type, opset), "has_context_dependent_function", False):
        return False
    try:
        graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    except _ONNX_ERRORS:
        return True
    infos = (*graph.input, *graph.value_info, *graph.output)
    typed = {info.name for info in infos if info.type.WhichOneof("value")} | {t.name for t in graph.initializer}
    return any(name and name not in typed for node in nodes for name in node.input)


def _expanded(proto: ModelProto, calls: set[str], opset: int) -> ModelProto:
    """The bodies of standard operators refer to attributes by name, so the defaults are written out first."""
    result = ModelProto()
    result.CopyFrom(proto)
    for node in result.graph.node:
        schema = schema_of(node.op_type, opset) if node.op_type in calls and node.domain in DEFAULT_DOMAINS else None
        given = {attribute.name for attribute in node.attribute}
        for name, attribute in schema.attributes.items() if schema is not None else ():
            if name not in given and attribute.default_value.name:
                node.attribute.append(attribute.default_value)
    names = [("", name) for name in sorted(calls)]
    return onnx.inliner.inline_selected_functions(result, names, inline_schema_functions=True)


def node_problem(node: NodeProto, opsets: Mapping[str, int], ir_version: int) -> str | None:
    """What ONNX's checker finds wrong with the node's inputs, outputs and attributes; None when it is well formed.

    Nodes with subgraphs are not checked: the checker does not know the names around them.
    """
    if any(True for _ in bodies(node)):
        return None
    context = onnx.checker.C.CheckerContext()
    try:
        context.ir_version, context.opset_imports = max(ir_version, 3), dict(opsets)
        onnx.checker.check_node(node, context)
    except TypeError:  # of the assignments: the checker holds versions as 32-bit integers
        return f"there is no IR version {ir_version} with the opsets {dict(opsets)}"
    except onnx.checker.ValidationError as error:
        return str(error).partition("\n")[0]
    except UnicodeDecodeError:  # a message of the checker that quotes damaged text
        return "an attribute is damaged"
    return None
