# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that read or write elements at indices, and those that are made of them."""

from __future__ import annotations

from typing import cast

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axis, onnx_op
from tensorwright.importers.onnx.ops_shape import expanded, filled
from tensorwright.ir.dims import Dim, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.decided import read_size
from tensorwright.network.composed.index import reversed_sequences
from tensorwright.ops.elementwise import Add, Cast, Equal, Less, Sub, Where
from tensorwright.ops.index import ArgMax, Gather
from tensorwright.ops.order import CumProd, CumSum, TopKIndices, TopKValues
from tensorwright.ops.select import GatherElements, GatherNd, Reduction, ScatterElements, ScatterNd
from tensorwright.ops.shape import Reshape

_REDUCTIONS = ("none", "add", "mul", "max", "min")
_GIVE_SHAPES = "give every input a fixed shape with shapes="


@onnx_op("GatherElements", since=11)
def gather_elements(b: Builder, n: OnnxNode) -> Result:
    """One element per index; negative ones count from the end."""
    x = n.input(0)
    return b.add(GatherElements(n.axis("axis", 0, x.type.rank)), x, n.input(1))


@onnx_op("GatherND", since=11)
def gather_nd(b: Builder, n: OnnxNode) -> Result:
    """Blocks at coordinates; `batch_dims` came with opset 12."""
    return b.add(GatherNd(n.attr("batch_dims", int, 0)), n.input(0), n.input(1))


@onnx_op("Scatter", since=9)
def scatter(b: Builder, n: OnnxNode) -> Result:
    """The former name of ScatterElements, without reductions."""
    x = n.input(0)
    return b.add(ScatterElements(n.axis("axis", 0, x.type.rank)), x, n.input(1), n.input(2))


@onnx_op("ScatterElements", since=11)
def scatter_elements(b: Builder, n: OnnxNode) -> Result:
    """Elements written, or from opset 16 on combined, at indices."""
    x = n.input(0)
    op = ScatterElements(n.axis("axis", 0, x.type.rank), _reduction(n))
    return b.add(op, x, n.input(1), n.input(2))


@onnx_op("ScatterND", since=11)
def scatter_nd(b: Builder, n: OnnxNode) -> Result:
    """Blocks written, or from opset 16 on combined, at coordinates."""
    return b.add(ScatterNd(_reduction(n)), n.input(0), n.input(1), n.input(2))


def _reduction(n: OnnxNode) -> Reduction:
    how = n.attr("reduction", str, "none")
    if how not in _REDUCTIONS:
        raise ValueError(f"reduction is {how!r}, expected one of {', '.join(_REDUCTIONS)}")
    return cast(Reduction, how)


@onnx_op("TensorScatter", since=24)
def tensor_scatter(b: Builder, n: OnnxNode) -> Result:
    """Steps of a cache written from a position on, one for each batch entry; `circular` goes on at the start."""
    cache, update, start = n.input(0), n.input(1), n.optional(2)
    axis, mode = n.axis("axis", -2, cache.type.rank), n.attr("mode", str, "linear")
    room, count, rank = cache.type.shape[axis], update.type.shape[axis], update.type.rank
    if mode not in ("linear", "circular") or axis == 0:
        raise ValueError(f"mode {mode!r} along axis {axis} is not defined")
    if not isinstance(room, int) or not isinstance(count, int):
        n.refuse(f"it needs known lengths along axis {axis}, not {room} and {count}", _GIVE_SHAPES)
    steps = b.constant(np.arange(count).reshape([-1 if d == axis else 1 for d in range(rank)]))
    if start is not None:
        first = b.add(Reshape((update.type.shape[0], *(1,) * (rank - 1))), as_type(b, start, DType.i64))
        steps = b.add(Add(), steps, first)
        if mode == "circular":
            size = b.scalar(room, DType.i64)
            steps = b.add(Where(), b.add(Less(), steps, size), steps, b.add(Sub(), steps, size))
    return b.add(ScatterElements(axis), cache, expanded(b, steps, update.type.shape), update)


@onnx_op("TopK")
def top_k_by_attribute(b: Builder, n: OnnxNode) -> Result:
    """Until opset 9 k is an attribute."""
    return _top_k(b, n, n.attr("k", int))


@onnx_op("TopK", since=10)
def top_k(b: Builder, n: OnnxNode) -> Result:
    """The k best elements in order (`sorted=0` allows any order) and their positions; `largest` came with opset 11."""
    contents = b.contents(n.input(1))
    if contents is None:
        return _top_k(b, n, None)
    if contents.size != 1:
        raise ValueError(f"k must be one number, not {contents.size}")
    return _top_k(b, n, contents.reshape(-1)[0])


def _top_k(b: Builder, n: OnnxNode, k: Dim | None) -> list[Value]:
    """A k of None is read in a run."""
    n.ignore("sorted")
    x, largest = n.input(0), n.flag("largest", True)
    axis = n.axis("axis", -1, x.type.rank)
    if k is None:
        name = f"{n.proto.output[0] or n.proto.output[1]}_k"
        k = read_size(b, name, n.input(1), x.type.shape[axis])
    return [b.add(TopKValues(k, axis, largest), x), b.add(TopKIndices(k, axis, largest), x)]


@onnx_op("CumSum", since=11)
def cum_sum(b: Builder, n: OnnxNode) -> Result:
    """Running sums along a known axis."""
    return b.add(CumSum(_running_axis(n), n.flag("exclusive"), n.flag("reverse")), n.input(0))


@onnx_op("CumProd", since=26)
def cum_prod(b: Builder, n: OnnxNode) -> Result:
    """Running products along a known axis."""
    return b.add(CumProd(_running_axis(n), n.flag("exclusive"), n.flag("reverse")), n.input(0))


def _running_axis(n: OnnxNode) -> int:
    axis = n.integers(1, f"{n.proto.op_type} needs a known axis")
    if len(axis) != 1:
        raise ValueError(f"the axis must be one number, not {list(axis)}")
    return normal_axis(axis[0], n.input(0).type.rank)


@onnx_op("ReverseSequence", since=10)
def reverse_sequence(b: Builder, n: OnnxNode) -> Result:
    """Of each batch entry the first `sequence_lens` steps backwards, the others as they are."""
    x = n.input(0)
    batch, time = n.axis("batch_axis", 1, x.type.rank), n.axis("time_axis", 0, x.type.rank)
    return reversed_sequences(b, x, n.input(1), batch, time)


@onnx_op("MaxUnpool", since=9)
def max_unpool(b: Builder, n: OnnxNode) -> Result:
    """Every element back at its flat position in the output; zeros elsewhere."""
    x, indices = n.input(0), n.input(1)
    spatial = x.type.shape[2:]
    kernel, rank = n.ints("kernel_shape") or (), len(spatial)
    strides, pads = n.ints("strides") or (1,) * rank, n.ints("pads") or (0,) * (2 * rank)
    if not rank or len(kernel) != rank or len(strides) != rank or len(pads) != 2 * rank:
        raise ValueError(f"kernel {list(kernel)}, strides {list(strides)} and pads {list(pads)} do not fit {x.type}")
    sizes = tuple(
        (d - 1) * s - pads[i] - pads[rank + i] + k
        for i, (d, s, k) in enumerate(zip(spatial, strides, kernel, strict=True))
    )
    small = (*x.type.shape[:2], *sizes)
    shape = n.dims(2, "MaxUnpool needs a known output shape") if n.optional(2) is not None else small
    if not x.type.is_static or len(shape) != rank + 2 or not all(isinstance(d, int) for d in shape):
        n.refuse(f"it needs known shapes, not {x.type} to {list(shape)}", _GIVE_SHAPES)
    places = _in_larger(b, indices, small, shape) if shape != small else indices
    flat = (b.add(Reshape((product(x.type.shape),)), v) for v in (places, x))
    zeros = filled(b, np.zeros((), x.type.dtype.numpy), (product(shape),))
    return b.add(Reshape(shape), b.add(ScatterElements(0), zeros, *flat))


def _in_larger(b: Builder, indices: Value, small: tuple[object, ...], large: tuple[object, ...]) -> Value:
    """Flat positions in a tensor of shape `small`, as positions of the same elements at the start of a larger one."""
    sizes, rooms = ([int(str(d)) for d in shape] for shape in (small, large))
    table = np.ravel_multi_index(list(np.indices(sizes)), rooms).reshape(-1)
    return b.add(Gather(0), b.constant(table), indices)


@onnx_op("Hardmax", since=13)
def hardmax(b: Builder, n: OnnxNode) -> Result:
    """1 at the first largest element along the axis, 0 elsewhere."""
    x = n.input(0)
    return _one_at_largest(b, n, x, n.axis("axis", -1, x.type.rank))


@onnx_op("Hardmax")
def hardmax_flattened(b: Builder, n: OnnxNode) -> Result:
    """Until opset 12: over all dims from `axis` on together."""
    x = n.input(0)
    axis = n.cut("axis", 1, x.type.rank)
    flat = b.add(Reshape((product(x.type.shape[:axis]), product(x.type.shape[axis:]))), x)
    return b.add(Reshape(x.type.shape), _one_at_largest(b, n, flat, 1))


def _one_at_largest(b: Builder, n: OnnxNode, x: Value, axis: int) -> Value:
    length, axis = x.type.shape[axis], normal_axis(axis, x.type.rank)
    if not isinstance(length, int):
        n.refuse(f"it needs a known axis, not {length}", _GIVE_SHAPES)
    columns = np.arange(length).reshape([length if d == axis else 1 for d in range(x.type.rank)])
    return b.add(Cast(x.type.dtype), b.add(Equal(), b.add(ArgMax(axis), x), b.constant(columns)))


OPS = [
    gather_elements,
    gather_nd,
    scatter,
    scatter_elements,
    scatter_nd,
    tensor_scatter,
    top_k_by_attribute,
    top_k,
    cum_sum,
    cum_prod,
    reverse_sequence,
    max_unpool,
    hardmax,
    hardmax_flattened,
]
