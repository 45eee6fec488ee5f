# SPDX-License-Identifier: Apache-2.0
"""Reading models whole and writing them as valid ONNX, with weights in a second file where one file is too small."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Final

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.load import parse_model
from tensorwright.importers.onnx.tensors import array_of

_LARGEST_FILE: Final = (2 << 30) - (64 << 20)  # protobuf ends at 2 GiB; the rest is room for what is not weights


def open_model(path: str | os.PathLike[str]) -> ModelProto:
    """The model of a file with its external data loaded. Raises ModelError M101 to M103 and M108, as an import does."""
    loaded = parse_model(path)
    for tensor in _tensors(loaded.proto.graph):
        if uses_external_data(tensor):
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor, loaded.data), tensor.name))
    return loaded.proto


def save_model(model: ModelProto, path: str | os.PathLike[str], *, external: bool = False) -> list[str]:
    """Check the model and write it; returns the files written.

    With `external`, or when one file cannot hold it, weights go to `<name>.data` beside it. Raises ModelError M121
    when ONNX's checker refuses the model (then nothing is written, unless it is too large to be checked in memory),
    M122 when a file cannot be written.
    """
    target = pathlib.Path(path)
    large = _weight_bytes(model) > _LARGEST_FILE
    if not large:
        check_model(model)
    written = [str(target)]
    try:
        if not (external or large):
            onnx.save(model, target)
        else:
            data = target.with_name(f"{target.name}.data")
            data.unlink(missing_ok=True)  # onnx appends to a file that exists
            copy = ModelProto()
            copy.CopyFrom(model)
            onnx.save(copy, target, save_as_external_data=True, location=data.name)
            if large:
                check_model(target)
            written += [str(data)] if data.exists() else []
    except (OSError, EncodeError) as error:
        raise ModelError(
            "the model cannot be written",
            where=str(target),
            why=str(error),
            do="check free space and permissions of the folder",
            code="M122",
        ) from error
    return written


def check_model(model: ModelProto | pathlib.Path) -> None:
    """ONNX's own checker. Raises ModelError M121 with its words."""
    try:
        onnx.checker.check_model(str(model) if isinstance(model, pathlib.Path) else model)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            "the result is not a valid ONNX model",
            why=[line for line in str(error).splitlines() if line.strip()],
            do="check the operator, its inputs and its attributes; the model may have been invalid before",
            code="M121",
        ) from error


def uses_external(path: str | os.PathLike[str]) -> bool:
    """Whether the model of this file keeps weights in other files."""
    return any(uses_external_data(tensor) for tensor in _tensors(parse_model(path).proto.graph))


def _weight_bytes(model: ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in _tensors(model.graph))


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All stored tensors: initializers and attributes, of subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
