# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's ops on lists of tensors: TensorList, and TensorArray of TensorFlow 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.graph_def import TfNode
from tensorwright.importers.tensorflow.list_values import Shape, TensorList
from tensorwright.importers.tensorflow.tensors import dtype_of
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import RefusalError
from tensorwright.ops.elementwise import Cast
from tensorwright.ops.index import Gather
from tensorwright.ops.select import ScatterNd
from tensorwright.ops.shape import Reshape, ShapeOf, Slice

Anything = Value | TensorList
ListOp = Callable[[Builder, TfNode, Sequence[Anything]], Sequence[Anything]]


def _list(inputs: Sequence[Anything], index: int = 0) -> TensorList:
    value = inputs[index] if -len(inputs) <= index < len(inputs) else None
    if not isinstance(value, TensorList):
        raise RefusalError("it reads a list that is no list of tensors")
    return value


def _value(inputs: Sequence[Anything], index: int) -> Value:
    value = inputs[index] if index < len(inputs) else None
    if not isinstance(value, Value):
        raise ValueError(f"input {index} is no tensor")
    return value


def _dim(b: Builder, value: Value, what: str) -> Dim:
    contents = b.contents(value)
    if contents is None or contents.size != 1:
        raise RefusalError(f"{what} is only known at run", "give every input a fixed shape with shapes=")
    found: Dim = contents.reshape(-1)[0]
    return found


def _element_dtype(node: TfNode) -> DType:
    name = "element_dtype" if "element_dtype" in node.attrs else "dtype"
    if name not in node.attrs:
        raise ValueError(f"attribute {name!r} is missing")
    return dtype_of(node.attrs[name].type)


def _declared_shape(b: Builder, value: Value) -> Shape | None:
    """The shape that an op is given as data, where it is a whole one."""
    contents = b.contents(value)
    if contents is None or contents.ndim != 1 or any(isinstance(d, int) and d < 0 for d in contents):
        return None
    return tuple(contents)


def _reserve(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    count: Dim = 0
    if node.op == "TensorListReserve":
        count = _dim(b, _value(inputs, 1), "the length of the list")
    return [TensorList(_element_dtype(node), count, _declared_shape(b, _value(inputs, 0)))]


def _from_tensor(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [TensorList.of(_value(inputs, 0))]


def _get(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [_list(inputs).get(b, _value(inputs, 1))]


def _set(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    grow = "resize_if_index_out_of_bounds" in node.attrs and node.attrs["resize_if_index_out_of_bounds"].b
    return [_list(inputs).set(b, _value(inputs, 1), _value(inputs, 2), grow)]


def _stack(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [_list(inputs).stacked(b)]


def _length(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given = _list(inputs, -1)
    given.note_read()
    if isinstance(given.count, int):
        return [b.constant(np.asarray(given.count, np.int32))]
    sizes = b.add(ShapeOf(0, 1), given.stacked(b))
    return [b.add(Cast(DType.i32), b.add(Reshape(()), sizes))]


def _push(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given = _list(inputs)
    if not isinstance(given.count, int):
        raise RefusalError("it grows a list whose length is only known at run")
    place = b.constant(np.asarray(given.count, np.int32))
    return [given.set(b, place, _value(inputs, 1), grow=True)]


def _pop(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given = _list(inputs)
    if not isinstance(given.count, int) or not given.count:
        raise RefusalError(f"it takes the last element of a list of {given.count}")
    item = given.get(b, b.constant(np.asarray(given.count - 1, np.int32)))
    if given.last is not None:
        given = given.settled(b)
    written = {i: v for i, v in given.written.items() if i < given.count - 1}
    base = given.base
    if base is not None and base.type.shape[0] == given.count:
        base = b.add(Slice((0,), (given.count - 1,), (0,), (1,)), base)
    return [dataclasses.replace(given, count=given.count - 1, written=written, base=base), item]


def _gather(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given = _list(inputs, 2 if node.op == "TensorArrayGatherV3" else 0)
    whole, indices = given.stacked(b), _value(inputs, 1)
    known = b.known(indices)
    if known is not None and known.ndim == 1 and whole.type.shape[0] == known.size:
        if np.array_equal(known, np.arange(known.size)):
            return [whole]
    return [b.add(Gather(0), whole, indices)]


def _scatter(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    """Rows of a tensor at indices: of a new list, or of one that is there."""
    if node.op == "TensorArrayScatterV3":
        given, value, indices = _list(inputs, 3), _value(inputs, 2), _value(inputs, 1)
    elif node.op == "TensorListScatterIntoExistingList":
        given, value, indices = _list(inputs), _value(inputs, 1), _value(inputs, 2)
    else:
        value, indices = _value(inputs, 0), _value(inputs, 1)
        given = TensorList(value.type.dtype, _scatter_count(b, inputs, indices), value.type.shape[1:])
    if given.dtype is not value.type.dtype:
        raise ValueError(f"{value.type} is put into a list of {given.dtype}")
    known = b.known(indices)
    if known is not None and given.count == known.size and np.array_equal(known, np.arange(known.size)):
        return [dataclasses.replace(TensorList.of(value), watch=given.watch)]
    shaped = dataclasses.replace(given, shape=value.type.shape[1:] if given.shape is None else given.shape)
    places = b.add(Reshape((*indices.type.shape, 1)), indices)
    return [dataclasses.replace(TensorList.of(b.add(ScatterNd("none"), shaped.stacked(b), places, value)))]


def _scatter_count(b: Builder, inputs: Sequence[Anything], indices: Value) -> Dim:
    """How many elements a list has that is made of rows at indices."""
    count = _dim(b, _value(inputs, 3), "the length of the list") if len(inputs) > 3 else -1
    if not isinstance(count, int) or count >= 0:
        return count
    known = b.known(indices)
    if known is None:
        raise RefusalError("the length of the list is only known at run")
    return int(known.max(initial=-1)) + 1


def _concat(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given = _list(inputs, 1 if node.op == "TensorArrayConcatV3" else 0)
    whole = given.stacked(b)
    count, first, *rest = whole.type.shape
    joined = b.add(Reshape((count * first, *rest)), whole)
    if not isinstance(count, int) or not isinstance(first, int):
        return [joined]
    return [joined, b.constant(np.full(count, first, np.int64))]


def _split(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    at = 1 if node.op == "TensorArraySplitV3" else 0
    value, lengths = _value(inputs, at), b.known(_value(inputs, 2))
    if lengths is None or not lengths.size or len(set(lengths.reshape(-1).tolist())) != 1:
        raise RefusalError("it splits a tensor into parts that are not known to be equal")
    rows = int(lengths.reshape(-1)[0])
    return [TensorList.of(b.add(Reshape((lengths.size, rows, *value.type.shape[1:])), value))]


def _shape(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    given, dtype = _list(inputs), dtype_of(node.attrs["shape_type"].type) if "shape_type" in node.attrs else DType.i32
    given.note_read()
    shape = given.element_shape()
    if not all(isinstance(d, int) for d in shape):
        raise RefusalError("it asks for a shape that is only known at run", "give every input a fixed shape")
    return [b.constant(np.array(shape, dtype.numpy))]


def _resize(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [_list(inputs).resized(b, _dim(b, _value(inputs, 1), "the length of the list"))]


def _array(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    """TensorArrayV3: its handle, which knows whether it grows, and the flow that stands for its contents."""
    proto = node.attrs["element_shape"].shape if "element_shape" in node.attrs else None
    shape = None
    if proto is not None and not proto.unknown_rank and all(d.size >= 0 for d in proto.dim):
        shape = tuple(d.size for d in proto.dim)
    is_open = "dynamic_size" in node.attrs and bool(node.attrs["dynamic_size"].b)
    made = TensorList(_element_dtype(node), _dim(b, _value(inputs, 0), "the length of the array"), shape)
    return [dataclasses.replace(made, may_grow=is_open), made]


def _array_read(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [_list(inputs, 2).get(b, _value(inputs, 1))]


def _array_write(b: Builder, node: TfNode, inputs: Sequence[Anything]) -> Sequence[Anything]:
    return [_list(inputs, 3).set(b, _value(inputs, 1), _value(inputs, 2), grow=_list(inputs).may_grow)]


LIST_OPS: Mapping[str, ListOp] = {
    "TensorListReserve": _reserve,
    "EmptyTensorList": _reserve,
    "TensorListFromTensor": _from_tensor,
    "TensorListGetItem": _get,
    "TensorListSetItem": _set,
    "TensorListStack": _stack,
    "TensorListLength": _length,
    "TensorListPushBack": _push,
    "TensorListPopBack": _pop,
    "TensorListGather": _gather,
    "TensorListScatter": _scatter,
    "TensorListScatterV2": _scatter,
    "TensorListScatterIntoExistingList": _scatter,
    "TensorListConcat": _concat,
    "TensorListConcatV2": _concat,
    "TensorListSplit": _split,
    "TensorListElementShape": _shape,
    "TensorListResize": _resize,
    "TensorArrayV3": _array,
    "TensorArrayReadV3": _array_read,
    "TensorArrayWriteV3": _array_write,
    "TensorArrayGatherV3": _gather,
    "TensorArrayScatterV3": _scatter,
    "TensorArraySizeV3": _length,
    "TensorArrayConcatV3": _concat,
    "TensorArraySplitV3": _split,
}
"""By op: gives its results. Raises RefusalError and ValueError."""
