# SPDX-License-Identifier: Apache-2.0
"""Takes the large initializers out of a model before protobuf copies them.

What is left is a small model in which they are external data at the location `LIFTED`; the bytes stay where they
are, in the mapped file or the caller's memory. The field numbers are those of onnx.proto.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto

from tensorwright.importers.onnx.external import LIFTED
from tensorwright.importers.wire import BYTES, MalformedError, fields, varint
from tensorwright.ir.op import Array
from tensorwright.memory import filed

SMALLEST: Final = 64 << 10
"""Tensors of fewer bytes stay in the model: ONNX's own inference may ask for their elements."""

_GRAPH, _INITIALIZER = 7, 5  # fields of ModelProto and GraphProto
_DATA_TYPE, _RAW_DATA = 2, 9  # fields of TensorProto
_TEXT_OR_COMPLEX: Final = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def lift(data: Array) -> tuple[bytes, list[Array]]:
    """The encoded model u8[size] without its large initializers, and their bytes as views of `data`.

    Raises MalformedError; protobuf's own parser then says what is wrong.
    """
    lifted: list[Array] = []
    model = bytearray()
    for field, _, start, body, end in fields(data, 0, data.size):
        if field == _GRAPH and end - body >= SMALLEST:
            graph = _graph(data, body, end, lifted)
            model += varint(_GRAPH << 3 | BYTES) + varint(len(graph)) + graph
        else:
            model += data[start:end].data
    return bytes(model), lifted


def _graph(data: Array, start: int, end: int, lifted: list[Array]) -> bytearray:
    graph = bytearray()
    for field, _, first, body, last in fields(data, start, end):
        if field == _INITIALIZER and last - body >= SMALLEST:
            tensor = _tensor(data, body, last, lifted)
            graph += varint(_INITIALIZER << 3 | BYTES) + varint(len(tensor)) + tensor
        else:
            graph += data[first:last].data
    return graph


def _tensor(data: Array, start: int, end: int, lifted: list[Array]) -> bytes:
    found = list(fields(data, start, end))
    raw = [(body, last) for field, _, _, body, last in found if field == _RAW_DATA]
    kept = b"".join(data[first:last].tobytes() for field, _, first, _, last in found if field != _RAW_DATA)
    if len(raw) != 1 or raw[0][1] - raw[0][0] < SMALLEST:
        return data[start:end].tobytes()
    try:
        tensor = TensorProto.FromString(kept)
    except DecodeError as error:
        raise MalformedError(str(error)) from error
    if not _is_liftable(tensor):
        return data[start:end].tobytes()
    _refer(tensor, len(lifted))
    lifted.append(data[raw[0][0] : raw[0][1]])
    return bytes(tensor.SerializeToString())


def lift_proto(model: ModelProto) -> tuple[ModelProto, list[Array]]:
    """As `lift`, for a model in memory, whose size protobuf may be unable to encode.

    Protobuf gives its bytes away as copies only, so large ones are put into files without names (`memory.filed`).
    """
    if not any(len(tensor.raw_data) >= SMALLEST for tensor in model.graph.initializer):
        return model, []
    lifted: list[Array] = []
    result = ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(result, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(result.graph, field.name, value)
    for tensor in model.graph.initializer:
        _copy_tensor(tensor, result.graph, lifted)
    return result, lifted


def _copy_tensor(tensor: TensorProto, graph: GraphProto, lifted: list[Array]) -> None:
    fields = {field.name: value for field, value in tensor.ListFields()}
    copy = graph.initializer.add()
    if len(fields.get("raw_data", b"")) < SMALLEST or not _is_liftable(tensor):
        copy.CopyFrom(tensor)
        return
    raw = fields.pop("raw_data")
    for name, value in fields.items():
        _copy(copy, name, value)
    _refer(copy, len(lifted))
    lifted.append(filed(np.frombuffer(raw, np.uint8)))


def _copy(target: Message, name: str, value: object) -> None:
    """Set a field of any kind."""
    if isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    elif isinstance(value, str | bytes | int | float):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)


def _is_liftable(tensor: TensorProto) -> bool:
    """Whether its data is raw bytes of numbers that nobody but the importer reads."""
    return tensor.data_location == TensorProto.DEFAULT and tensor.data_type not in _TEXT_OR_COMPLEX


def _refer(tensor: TensorProto, index: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=LIFTED)
    tensor.external_data.add(key="offset", value=str(index))
