# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that give the same elements another shape, and those that make shapes and constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.counting import column, positions
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axes, onnx_op
from tensorwright.importers.onnx.tensors import dtype_of
from tensorwright.ir.dims import Dim, maximum, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ir.source_builder import FOLD_LIMIT_ELEMS
from tensorwright.network.composed import index
from tensorwright.ops.check import broadcast_shapes
from tensorwright.ops.elementwise import Add, Cast, Equal, LessEqual, Where
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Expand, Reshape, ShapeOf, Transpose

_DROPOUT_BOOL_MASK_SINCE = 10


@onnx_op("Identity")
def identity(b: Builder, n: OnnxNode) -> Result:
    """The input itself."""
    return n.input(0)


@onnx_op("Dropout")
def dropout_by_attributes(b: Builder, n: OnnxNode) -> Result:
    """Until opset 11: inference passes the input through."""
    n.ignore("ratio", "seed")
    return _kept(b, n)


@onnx_op("Dropout", since=12)
def dropout(b: Builder, n: OnnxNode) -> Result:
    """Passes the input through, unless its training flag is set."""
    n.ignore("seed")
    if n.optional(2) is not None and n.constant(2, "Dropout must not be in training mode").any():
        n.refuse("it is in training mode", "export the model in evaluation mode")
    return _kept(b, n)


def _kept(b: Builder, n: OnnxNode) -> list[Value]:
    """The input, and the mask of what was kept: everything."""
    x = n.input(0)
    mask_dtype = DType.bool if n.opset >= _DROPOUT_BOOL_MASK_SINCE else x.type.dtype
    return [x, filled(b, np.ones((), mask_dtype.numpy), x.type.shape)] if n.output_used(1) else [x]


@onnx_op("Reshape")
def reshape(b: Builder, n: OnnxNode) -> Result:
    """0 copies the input's dim (unless allowzero), one -1 takes what is left."""
    x = n.input(0)
    wanted = n.dims(1, "Reshape needs a known target")
    keep_zero = n.flag("allowzero")
    shape: list[Dim] = []
    for axis, dim in enumerate(wanted):
        if dim == 0 and not keep_zero:
            if axis >= x.type.rank:
                raise ValueError(f"target {list(wanted)} copies dim {axis}, which {x.type} does not have")
            dim = x.type.shape[axis]
        shape.append(dim)
    return reshaped(b, x, _with_rest(x, shape))


def _with_rest(x: Value, shape: list[Dim]) -> list[Dim]:
    """The shape with its -1 computed. Raises ValueError when that is not possible."""
    open_axes = [i for i, d in enumerate(shape) if d == -1]
    if len(open_axes) > 1 or any(isinstance(d, int) and d < -1 for d in shape):
        raise ValueError(f"target {shape} must have at most one -1 and no other negative dim")
    if open_axes:
        known = product(d for d in shape if d != -1)
        if known == 0:
            raise ValueError(f"target {shape} has a -1 beside a dim of 0")
        shape[open_axes[0]] = product(x.type.shape) // known
    return shape


def reshaped(b: Builder, x: Value, shape: Sequence[Dim]) -> Value:
    """x itself when it has that shape already."""
    return x if x.type.shape == tuple(shape) else b.add(Reshape(tuple(shape)), x)


@onnx_op("Flatten")
def flatten(b: Builder, n: OnnxNode) -> Result:
    """A matrix: the dims before `axis` by those from it on."""
    x = n.input(0)
    axis = n.cut("axis", 1, x.type.rank)
    return reshaped(b, x, (product(x.type.shape[:axis]), product(x.type.shape[axis:])))


@onnx_op("Squeeze")
def squeeze_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 12 the axes are an attribute."""
    return _squeezed(b, n, n.ints("axes"))


@onnx_op("Squeeze", since=13)
def squeeze(b: Builder, n: OnnxNode) -> Result:
    """Drops dims of 1: those of `axes`, or all."""
    return _squeezed(b, n, None if n.optional(1) is None else n.integers(1, "Squeeze needs to know which axes to drop"))


def _squeezed(b: Builder, n: OnnxNode, axes: tuple[int, ...] | None) -> Value:
    x = n.input(0)
    if axes is None:
        if not x.type.is_static:
            n.refuse(
                f"it drops all dims of 1 of {x.type}, whose symbolic dims may be 1",
                "give every input a fixed shape with shapes=",
            )
        axes = tuple(i for i, d in enumerate(x.type.shape) if d == 1)
    dropped = normal_axes(axes, x.type.rank)
    if any(isinstance(x.type.shape[a], int) and x.type.shape[a] != 1 for a in dropped):
        raise ValueError(f"axes {list(axes)} of {x.type} are not all 1")
    return reshaped(b, x, [d for i, d in enumerate(x.type.shape) if i not in dropped])


@onnx_op("Unsqueeze")
def unsqueeze_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 12 the axes are an attribute."""
    return _unsqueezed(b, n, n.ints("axes") or ())


@onnx_op("Unsqueeze", since=13)
def unsqueeze(b: Builder, n: OnnxNode) -> Result:
    """Inserts dims of 1."""
    return _unsqueezed(b, n, n.integers(1, "Unsqueeze needs to know where to add dims"))


def _unsqueezed(b: Builder, n: OnnxNode, axes: tuple[int, ...]) -> Value:
    x = n.input(0)
    shape = list(x.type.shape)
    for axis in normal_axes(axes, x.type.rank + len(axes)):
        shape.insert(axis, 1)
    return reshaped(b, x, shape)


@onnx_op("Transpose")
def transpose(b: Builder, n: OnnxNode) -> Result:
    """Permutes the axes; without `perm` their order is reversed."""
    x = n.input(0)
    perm = n.ints("perm")
    perm = tuple(reversed(range(x.type.rank))) if perm is None else perm
    if sorted(perm) != list(range(x.type.rank)):
        raise ValueError(f"perm {list(perm)} is no permutation of the axes of {x.type}")
    return x if perm == tuple(range(x.type.rank)) else b.add(Transpose(perm), x)


@onnx_op("DepthToSpace")
def depth_to_space(b: Builder, n: OnnxNode) -> Result:
    """Moves blocks of channels to pixels."""
    x, size, mode = n.input(0), n.attr("blocksize", int), n.attr("mode", str, "DCR")
    batch, c, h, w = _image(x)
    if mode not in ("DCR", "CRD") or size < 1 or (isinstance(c, int) and c % size**2):
        raise ValueError(f"{x.type} has no blocks of size {size} in mode {mode!r}")
    deep = c // (size * size)
    block_first = mode == "DCR"
    split: tuple[Dim, ...] = (batch, size, size, deep, h, w) if block_first else (batch, deep, size, size, h, w)
    perm = (0, 3, 4, 1, 5, 2) if block_first else (0, 1, 4, 2, 5, 3)
    return b.add(Reshape((batch, deep, h * size, w * size)), b.add(Transpose(perm), b.add(Reshape(split), x)))


@onnx_op("SpaceToDepth")
def space_to_depth(b: Builder, n: OnnxNode) -> Result:
    """Moves blocks of pixels to channels."""
    x, size, mode = n.input(0), n.attr("blocksize", int), n.attr("mode", str, "DCR")
    batch, c, h, w = _image(x)
    if mode not in ("DCR", "CRD") or size < 1 or any(isinstance(d, int) and d % size for d in (h, w)):
        raise ValueError(f"{x.type} has no blocks of size {size} in mode {mode!r}")
    y = b.add(
        Transpose((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)),
        b.add(Reshape((batch, c, h // size, size, w // size, size)), x),
    )
    return b.add(Reshape((batch, c * size * size, h // size, w // size)), y)


def _image(x: Value) -> tuple[Dim, Dim, Dim, Dim]:
    if x.type.rank != 4:
        raise ValueError(f"the input must have rank 4, it is {x.type}")
    batch, c, h, w = x.type.shape
    return batch, c, h, w


@onnx_op("Expand")
def expand(b: Builder, n: OnnxNode) -> Result:
    """Broadcasting in both directions: a target dim of 1 leaves the input's dim."""
    return expanded(b, n.input(0), n.dims(1, "Expand needs a known target"))


def expanded(b: Builder, x: Value, target: tuple[Dim, ...]) -> Value:
    """x broadcast together with the shape `target`; x itself when that changes nothing."""
    shape = broadcast_shapes(Expand(target), x.type.shape, target)
    return x if shape == x.type.shape else b.add(Expand(shape), x)


@onnx_op("Shape")
def shape(b: Builder, n: OnnxNode) -> Result:
    """The dims from `start` to `end`; known ones become constants."""
    x = n.input(0)
    rank = x.type.rank
    start, end = (_clamped(n.attr(name, int, default), rank) for name, default in (("start", 0), ("end", rank)))
    return b.add(ShapeOf(start, max(start, end)), x)


def _clamped(index: int, rank: int) -> int:
    return min(max(index + rank if index < 0 else index, 0), rank)


@onnx_op("Size")
def size(b: Builder, n: OnnxNode) -> Result:
    """The number of elements."""
    x = n.input(0)
    return b.add(Reduce("prod", (0,), False), b.add(ShapeOf(0, x.type.rank), x))


@onnx_op("Constant")
def constant(b: Builder, n: OnnxNode) -> Result:
    """A tensor, number or list of numbers as an attribute."""
    for text in ("value_string", "value_strings", "sparse_value"):
        if n.has(text):
            n.refuse(f"it holds a {text}")
    array = n.tensor("value")
    if array is not None:
        return b.constant(array)
    if n.has("value_float"):
        return b.constant(np.asarray(n.attr("value_float", float), np.float32))
    if n.has("value_int"):
        return b.constant(np.asarray(n.attr("value_int", int), np.int64))
    floats, ints = n.floats("value_floats"), n.ints("value_ints")
    if floats is not None:
        return b.constant(np.asarray(floats, np.float32))
    if ints is not None:
        return b.constant(np.asarray(ints, np.int64))
    raise ValueError("it has no value")


@onnx_op("ConstantOfShape", since=9)
def constant_of_shape(b: Builder, n: OnnxNode) -> Result:
    """A tensor of one repeated element."""
    value = n.tensor("value")
    value = np.zeros(1, np.float32) if value is None else value
    if value.size != 1:
        raise ValueError(f"its value must have one element, it has {value.size}")
    dims = n.dims(0, "ConstantOfShape needs a known shape")
    if any(isinstance(d, int) and d < 0 for d in dims):
        raise ValueError(f"shape {list(dims)} has a negative dim")
    return filled(b, value.reshape(()), dims)


def filled(b: Builder, value: Array, shape: tuple[Dim, ...]) -> Value:
    """A tensor of one repeated element: small ones as constants, others as a broadcast."""
    known = product(shape)
    if isinstance(known, int) and known <= FOLD_LIMIT_ELEMS:
        return b.constant(np.full([d for d in shape if isinstance(d, int)], value))
    return b.add(Expand(shape), b.constant(value))


@onnx_op("Range", since=11)
def range_(b: Builder, n: OnnxNode) -> Result:
    """Numbers from start to limit in steps of delta, all known or steps of 1 between dims."""
    if any(b.known(n.input(i)) is None for i in (0, 1)) and b.known(n.input(2)) == 1:
        first, end = (n.dims(i, "Range needs known bounds") for i in (0, 1))
        if len(first) != 1 or len(end) != 1:
            raise ValueError("start and limit must be scalars")
        return positions(b, n, first[0], maximum(*first, *end), n.input(0).type.dtype)
    start, limit, delta = (n.constant(i, "Range needs known bounds").reshape(-1) for i in range(3))
    if not (start.size == limit.size == delta.size == 1) or delta[0] == 0:
        raise ValueError("start, limit and delta must be scalars, and delta not 0")
    count = max(0, int(np.ceil((limit[0].astype(np.float64) - start[0]) / delta[0])))
    n.limit_constant(count)
    return b.constant((start[0] + np.arange(count) * delta[0]).astype(start.dtype))


@onnx_op("EyeLike", since=9)
def eye_like(b: Builder, n: OnnxNode) -> Result:
    """Ones on a diagonal of a matrix of known size."""
    x = n.input(0)
    dtype = dtype_of(n.dtype_attr("dtype")) if n.has("dtype") else x.type.dtype
    if dtype is None or x.type.rank != 2:
        n.refuse(f"it needs a matrix and a supported dtype, not {x.type}")
    (rows, columns), k = x.type.shape, n.attr("k", int, 0)
    if isinstance(rows, int) and isinstance(columns, int):
        n.limit_constant(rows * columns)
        return b.constant(np.eye(rows, columns, k, dtype.numpy))
    diagonal = b.add(Add(), column(b, n, 0, rows), b.scalar(k, DType.i64))
    is_one = b.add(Equal(), positions(b, n, 0, columns), diagonal)
    return is_one if dtype is DType.bool else b.add(Cast(dtype), is_one)


@onnx_op("Trilu", since=14)
def trilu(b: Builder, n: OnnxNode) -> Result:
    """The upper or lower triangle of matrices; the rest becomes 0."""
    x, upper = n.input(0), n.flag("upper", True)
    k = int(n.constant(1, "Trilu needs a known diagonal").reshape(())) if n.optional(1) is not None else 0
    rows, columns = x.type.shape[-2:] if x.type.rank > 1 else (0, 0)
    if isinstance(rows, int) and isinstance(columns, int):
        n.limit_constant(rows * columns)
        index = np.arange(columns)[None, :] - np.arange(rows)[:, None]
        mask = b.constant(index >= k if upper else index <= k)
    else:
        diagonal = b.add(Add(), column(b, n, 0, rows), b.scalar(k, DType.i64))
        places = positions(b, n, 0, columns)
        mask = b.add(LessEqual(), *((diagonal, places) if upper else (places, diagonal)))
    return b.add(Where(), mask, x, b.scalar(0, x.type.dtype))


@onnx_op("OneHot", since=9)
def one_hot(b: Builder, n: OnnxNode) -> Result:
    """Equality with 0..depth-1 along a new axis, then a selection of the on or off value."""
    indices, depth = n.input(0), int(n.constant(1, "OneHot needs a known depth").reshape(()))
    return index.one_hot(b, indices, n.input(2), depth, n.axis("axis", -1, indices.type.rank + 1))


OPS = [
    identity,
    dropout_by_attributes,
    dropout,
    reshape,
    flatten,
    squeeze_by_attribute,
    squeeze,
    unsqueeze_by_attribute,
    unsqueeze,
    transpose,
    depth_to_space,
    space_to_depth,
    expand,
    shape,
    size,
    constant,
    constant_of_shape,
    range_,
    eye_like,
    trilu,
    one_hot,
]
