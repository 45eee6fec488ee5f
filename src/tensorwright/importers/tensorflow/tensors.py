# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's element types, shapes and constant tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array

_DTYPES = {
    1: DType.f32,
    2: DType.f64,
    3: DType.i32,
    4: DType.u8,
    5: DType.i16,
    6: DType.i8,
    9: DType.i64,
    10: DType.bool,
    14: DType.bf16,
    17: DType.u16,
    19: DType.f16,
    22: DType.u32,
    23: DType.u64,
}
_OTHERS = {7: "string", 8: "complex64", 18: "complex128", 20: "resource", 21: "variant", 11: "qint8", 12: "quint8"}
STRING, RESOURCE, VARIANT = 7, 20, 21
"""Numbers of types that are no numbers."""

_REFERENCE = 100  # added to the number of a type for a reference to a variable of it
_FIELDS = {
    DType.f32: "float_val",
    DType.f64: "double_val",
    DType.i64: "int64_val",
    DType.bool: "bool_val",
    DType.u32: "uint32_val",
    DType.u64: "uint64_val",
    DType.f16: "half_val",
    DType.bf16: "half_val",
}  # all others are in int_val

MOST_ELEMS = 1 << 29
"""A short list of values is not repeated to more elements."""


class UnsupportedTypeError(ValueError):
    """An element type that the IR does not have."""


def dtype_of(number: int) -> DType:
    """The element type. Raises UnsupportedTypeError for text, resources and unknown numbers."""
    number %= _REFERENCE
    if number not in _DTYPES:
        raise UnsupportedTypeError(f"the element type {_OTHERS.get(number, number)} is not supported")
    return _DTYPES[number]


def shape_of(proto: Any, symbol: Callable[[int], Dim]) -> tuple[Dim, ...] | None:
    """The dims of a TensorShapeProto, `symbol(axis)` in place of unknown ones; None for an unknown rank."""
    if proto.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else symbol(axis) for axis, dim in enumerate(proto.dim))


def array_of(proto: Any) -> Array:
    """The array of a TensorProto; a short list of values repeats its last.

    Raises UnsupportedTypeError, and ValueError where size and shape contradict.
    """
    dtype = dtype_of(proto.dtype)
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    count = math.prod(sizes)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise ValueError(f"a constant has the open shape {sizes}")
    if proto.tensor_content:
        content = np.frombuffer(proto.tensor_content, np.uint8)
        if content.size != count * dtype.numpy.itemsize:
            raise ValueError(f"a constant of {dtype}{sizes} has {content.size} bytes")
        return content.view(dtype.numpy).reshape(sizes)
    given = getattr(proto, _FIELDS.get(dtype, "int_val"))
    if len(given) > count or count > MOST_ELEMS:
        raise ValueError(f"a constant of {dtype}{sizes} has {len(given)} values")
    if dtype in (DType.f16, DType.bf16):
        values = np.array(given, np.uint16).view(dtype.numpy)
    else:
        values = np.array(given).astype(dtype.numpy)
    if not len(given):
        return np.zeros(sizes, dtype.numpy)
    if len(given) == 1:
        return np.broadcast_to(values, sizes) if count > 1 else values.reshape(sizes)
    return np.concatenate([values, np.repeat(values[-1:], count - len(given))]).reshape(sizes)
