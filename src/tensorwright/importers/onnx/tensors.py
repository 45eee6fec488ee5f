# SPDX-License-Identifier: Apache-2.0
"""ONNX tensors and types in terms of the IR."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, TypeProto, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from tensorwright.errors import ModelError
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array

NO_NUMBERS = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
"""Element types that ONNX has and the IR does not."""


class UnsupportedTypeError(ValueError):
    """A type that ONNX has and the IR does not."""


def dtype_of(number: int) -> DType | None:
    """The DType of a TensorProto data type number; None when the IR has none (strings, complex numbers)."""
    try:
        dtype = DType.of(helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError):
        return None
    return None if dtype is DType.object else dtype


def dtype_name(number: int) -> str:
    """The name that ONNX has for a data type number."""
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"type {number}"


def kind_of(type_proto: TypeProto) -> str:
    """A type in ONNX's notation: "tensor(string)", "seq(tensor(float))", "optional(...)", "map(int64,...)".

    Raises UnsupportedTypeError for an element type that ONNX does not have.
    """
    which = type_proto.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        return f"{which.removesuffix('_type')}({_element(getattr(type_proto, which).elem_type)})"
    if which == "sequence_type":
        return f"seq({kind_of(type_proto.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({kind_of(type_proto.optional_type.elem_type)})"
    if which == "map_type":
        return f"map({_element(type_proto.map_type.key_type)},{kind_of(type_proto.map_type.value_type)})"
    return "unknown"


def _element(number: int) -> str:
    if number not in TensorProto.DataType.values():
        raise UnsupportedTypeError(f"has data type {number}, which ONNX does not have")
    return dtype_name(number).lower()


def type_of_kind(kind: str) -> TypeProto:
    """The type that `kind_of` describes; "unknown" gives an empty one."""
    result = TypeProto()
    outer, _, inner = kind.removesuffix(")").partition("(")
    if outer in ("tensor", "sparse_tensor"):
        getattr(result, f"{outer}_type").elem_type = TensorProto.DataType.Value(inner.upper())
    elif outer == "seq":
        result.sequence_type.elem_type.CopyFrom(type_of_kind(inner))
    elif outer == "optional":
        result.optional_type.elem_type.CopyFrom(type_of_kind(inner))
    elif outer == "map":
        key, _, value = inner.partition(",")
        result.map_type.key_type = TensorProto.DataType.Value(key.upper())
        result.map_type.value_type.CopyFrom(type_of_kind(value))
    return result


def array_of(tensor: TensorProto, folder: pathlib.Path | None) -> Array:
    """The elements of a tensor. External data is read from inside `folder` only.

    Raises UnsupportedTypeError for a dtype the IR lacks, ValueError for damage, ModelError for external data.
    """
    if dtype_of(tensor.data_type) is None:
        raise UnsupportedTypeError(
            f"tensor {tensor.name!r} has data type {dtype_name(tensor.data_type)}, which is not supported"
        )
    if any(d < 0 for d in tensor.dims):
        raise ValueError(f"tensor {tensor.name!r} has a negative dimension in {list(tensor.dims)}")
    if uses_external_data(tensor):
        _load_external(tensor, folder)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"tensor {tensor.name!r} of shape {list(tensor.dims)} is damaged: {error}") from error
    if array.shape != tuple(tensor.dims):
        raise ValueError(
            f"tensor {tensor.name!r} holds {array.size} elements, "
            f"its shape {list(tensor.dims)} needs {math.prod(tensor.dims)}"
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def declared_type(
    type_proto: TypeProto, symbol: Callable[[int, str], Dim]
) -> tuple[DType | None, tuple[Dim, ...] | None]:
    """dtype and shape of a tensor type, None for what it does not say; `symbol(axis, name)` makes an open dim.

    Raises UnsupportedTypeError when it is not a tensor type the IR has.
    """
    which = type_proto.WhichOneof("value")
    if which is None:
        return None, None
    if which != "tensor_type":
        raise UnsupportedTypeError(f"is a {which.removesuffix('_type')}; only tensors are supported")
    tensor = type_proto.tensor_type
    dtype = dtype_of(tensor.elem_type) if tensor.elem_type else None
    if tensor.elem_type and dtype is None:
        raise UnsupportedTypeError(f"has data type {dtype_name(tensor.elem_type)}, which is not supported")
    if not tensor.HasField("shape"):
        return dtype, None
    shape: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        fixed = dim.HasField("dim_value") and dim.dim_value >= 0
        shape.append(dim.dim_value if fixed else symbol(axis, dim.dim_param))
    return dtype, tuple(shape)


def _load_external(tensor: TensorProto, folder: pathlib.Path | None) -> None:
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    if folder is None:
        raise ModelError(
            f"the data of tensor {tensor.name!r} lies in another file, {location!r}",
            where="a model in memory",
            code="M108",
            do="give the path of the .onnx file, or load the external data into the model first",
        )
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or not path.is_relative_to(root):
        raise ModelError(
            f"the data of tensor {tensor.name!r} lies outside the model's folder",
            where=str(folder),
            code="M108",
            why=f"location {location!r}",
            do="move the data file beside the .onnx file",
        )
    if not path.is_file():
        raise ModelError(
            f"the data file {location!r} of tensor {tensor.name!r} does not exist",
            where=str(folder),
            code="M108",
            do="copy the data file beside the .onnx file",
        )
    try:
        load_external_data_for_tensor(tensor, str(root))
    except (OSError, ValueError, RuntimeError, ValidationError) as error:
        raise ModelError(
            f"the data of tensor {tensor.name!r} cannot be read",
            where=str(path),
            why=str(error),
            code="M108",
            do="export the model again: the data file is shorter or older than the model",
        ) from error
