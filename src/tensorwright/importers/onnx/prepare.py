# SPDX-License-Identifier: Apache-2.0
"""What is done to a model before it is read: function calls are expanded and very old opsets converted."""

from __future__ import annotations

from collections.abc import Callable

import onnx.inliner
import onnx.version_converter
from onnx import ModelProto, NodeProto

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.registry import NEWEST_OPSET, OLDEST_OPSET, find_op

DEFAULT_DOMAINS = ("", "ai.onnx")
_NOT_CONVERTED = ("PRelu",)  # its slopes were per channel before opset 7; ONNX's converter leaves them as they are
_ONNX_ERRORS = (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


def opset_of(proto: ModelProto) -> int:
    """The version of the standard operators; 0 when the model does not say."""
    return max((o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS), default=0)


def schema_of(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """ONNX's own description of a standard operator; None when it has none in that opset."""
    if not 0 < opset <= NEWEST_OPSET:
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, "")
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
        proto = _if_possible(lambda: onnx.version_converter.convert_version(proto, OLDEST_OPSET), proto)
    opset = opset_of(proto)
    calls = {node.op_type for node in proto.graph.node if _only_as_function(node, opset)}
    return _if_possible(lambda: _expanded(proto, calls, opset), proto) if calls else proto


def _if_possible(change: Callable[[], ModelProto], proto: ModelProto) -> ModelProto:
    """The changed model, or as it is where ONNX cannot change it: the reader then names what it cannot read."""
    try:
        return change()
    except _ONNX_ERRORS:
        return proto


def _only_as_function(node: NodeProto, opset: int) -> bool:
    if node.domain not in DEFAULT_DOMAINS or find_op(node.op_type, opset) is not None:
        return False
    schema = schema_of(node.op_type, opset)
    kinds = ("has_function", "has_context_dependent_function")
    return schema is not None and any(getattr(schema, kind, False) for kind in kinds)


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
