# SPDX-License-Identifier: Apache-2.0
"""From a file, bytes or a ModelProto to a parsed ONNX model without functions, or a ModelError that says why not."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, mapped
from tensorwright.importers.onnx.external import TensorData
from tensorwright.importers.onnx.lift import lift, lift_proto
from tensorwright.importers.onnx.prepare import opset_of, prepared
from tensorwright.importers.wire import MalformedError
from tensorwright.ir.op import Array

_IN_MEMORY = "ONNX model in memory"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A parsed model; `where` names it in messages, `data` has the bytes of its tensors."""

    proto: ModelProto
    where: str
    data: TensorData

    @property
    def opset(self) -> int:
        """The version of the standard operators; 0 when the model does not say."""
        return opset_of(self.proto)


def load_model(model: str | os.PathLike[str] | bytes | ModelProto) -> LoadedModel:
    """Parse and inline; large initializers stay where they are, and `data` has views of them.

    Raises ModelError M101 (missing), M102 (empty), M103 (not a readable ONNX model).
    """
    if isinstance(model, ModelProto):
        proto, lifted = lift_proto(model)
        where, folder = _IN_MEMORY, None
    else:
        data, where, folder = _bytes(model)
        try:
            rest, lifted = lift(data)
        except MalformedError:
            rest, lifted = data.tobytes(), []
        proto = _parse(rest, where)
    _check(proto, where)
    return LoadedModel(prepared(proto, where), where, TensorData(folder, lifted))


def parse_model(model: str | os.PathLike[str] | bytes | ModelProto) -> LoadedModel:
    """Parse only: the model as it is in the file. Raises ModelError as `load_model` does."""
    if isinstance(model, ModelProto):
        proto, where, folder = model, _IN_MEMORY, None
    else:
        data, where, folder = _bytes(model)
        proto = _parse(data.tobytes(), where)
    _check(proto, where)
    return LoadedModel(proto, where, TensorData(folder))


def _bytes(model: str | os.PathLike[str] | bytes) -> tuple[Array, str, pathlib.Path | None]:
    """The bytes of an encoded model, what to call it, and its folder."""
    if isinstance(model, bytes):
        return np.frombuffer(model, np.uint8), _IN_MEMORY, None
    path = pathlib.Path(model)
    return mapped(path), str(path), path.parent


def _check(proto: ModelProto, where: str) -> None:
    if not proto.HasField("graph"):
        raise ModelError(
            "the file holds no ONNX graph",
            where=where,
            code="M103",
            do="check that it is an ONNX model and was copied completely",
        )
    if not all(isinstance(text, str) for text in _texts(proto)):  # protobuf leaves damaged text as bytes
        raise ModelError(
            "the model holds names that are not text",
            where=where,
            code="M103",
            do="copy or export the model again: the file is damaged",
        )


def _texts(proto: ModelProto) -> Iterator[str]:
    """All names of the model."""
    graph = proto.graph
    yield graph.name
    yield from (opset.domain for opset in proto.opset_import)
    yield from (tensor.name for tensor in graph.initializer)
    for tensor in graph.initializer:
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for info in (*graph.input, *graph.output, *graph.value_info):
        yield info.name
        yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    for node in (*graph.node, *(node for function in proto.functions for node in function.node)):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name, attribute.t.name)


def _parse(data: bytes, where: str) -> ModelProto:
    check_format(data, where, "an ONNX model")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            "the file is not an ONNX model, or is truncated",
            where=where,
            code="M103",
            why=(f"{len(data)} bytes read", f"protobuf: {error}"),
            do="copy or export the model again",
        ) from error
    return proto
