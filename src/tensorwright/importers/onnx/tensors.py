# SPDX-License-Identifier: Apache-2.0
"""ONNX tensors and types in terms of the IR."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, TypeProto, helper, numpy_helper

from tensorwright.importers.onnx.external import TensorData
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array

NO_NUMBERS = (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
"""Element types that ONNX has and the IR does not."""


_BELOW_A_BYTE = frozenset(
    number
    for name, number in TensorProto.DataType.items()
    if name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2", "FLOAT6E2M3", "FLOAT6E3M2")
)
"""Element types of which a byte of raw data holds more than one, or a part."""


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


def array_of(tensor: TensorProto, data: TensorData) -> Array:
    """The elements of a tensor: a read-only view of its raw data where its elements fill whole bytes.

    Raises UnsupportedTypeError for a dtype the IR lacks, ValueError for damage, ModelError for external data.
    """
    dtype = dtype_of(tensor.data_type)
    if dtype is None:
        raise UnsupportedTypeError(
            f"tensor {tensor.name!r} has data type {dtype_name(tensor.data_type)}, which is not supported"
        )
    if any(d < 0 for d in tensor.dims):
        raise ValueError(f"tensor {tensor.name!r} has a negative dimension in {list(tensor.dims)}")
    raw = data.bytes_of(tensor)
    try:
        if raw is None or tensor.data_type in _BELOW_A_BYTE or sys.byteorder == "big":
            array = numpy_helper.to_array(tensor if raw is None else _inside(tensor, raw))
        else:
            array = raw.view(dtype.numpy).reshape(tuple(tensor.dims))
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"tensor {tensor.name!r} of shape {list(tensor.dims)} is damaged: {error}") from error
    if array.shape != tuple(tensor.dims):
        raise ValueError(
            f"tensor {tensor.name!r} holds {array.size} elements, "
            f"its shape {list(tensor.dims)} needs {math.prod(tensor.dims)}"
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _inside(tensor: TensorProto, raw: Array) -> TensorProto:
    """The tensor with its data inside."""
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())


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
