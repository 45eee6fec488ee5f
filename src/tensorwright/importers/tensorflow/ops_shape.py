# SPDX-License-Identifier: Apache-2.0
"""TensorFlow ops on shapes, and those that move, cut and join elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode, Result, TfOp, tf_op
from tensorwright.importers.tensorflow.strided_slice import strided_slice
from tensorwright.ir.dims import Dim, SymDim, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import limit_constant, normal_axis
from tensorwright.ops.elementwise import Add, Cast, Mul
from tensorwright.ops.order import CumSum
from tensorwright.ops.shape import Concat, Expand, Pad, PadMode, Reshape, ShapeOf, Slice, Tile, Transpose


def reshaped(b: Builder, x: Value, shape: Sequence[Dim]) -> Value:
    """x under another shape of as many elements."""
    return x if x.type.shape == tuple(shape) else b.add(Reshape(tuple(shape)), x)


def as_type(b: Builder, x: Value, dtype: DType) -> Value:
    """x as another element type."""
    return x if x.type.dtype is dtype else b.add(Cast(dtype), x)


# -- about shapes -----------------------------------------------------------------------------------
@tf_op("Shape")
def shape(b: Builder, n: OpNode) -> Result:
    """The dims as a vector."""
    return as_type(b, b.add(ShapeOf(0, n.input().type.rank), n.input()), n.dtype("out_type", DType.i32))


@tf_op("ShapeN")
def shape_n(b: Builder, n: OpNode) -> Result:
    """The dims of each input."""
    dtype = n.dtype("out_type", DType.i32)
    return [as_type(b, b.add(ShapeOf(0, x.type.rank), x), dtype) for x in n.inputs]


@tf_op("Rank")
def rank(b: Builder, n: OpNode) -> Result:
    """The number of dims."""
    return b.scalar(n.input().type.rank, DType.i32)


@tf_op("Size")
def size(b: Builder, n: OpNode) -> Result:
    """The number of elements."""
    x, dtype = n.input(), n.dtype("out_type", DType.i32)
    result = b.scalar(1, DType.i64)
    for axis in range(x.type.rank):
        dim = b.add(Reshape(()), b.add(ShapeOf(axis, axis + 1), x))
        result = b.add(Mul(), result, dim)
    return as_type(b, result, dtype)


@tf_op("Reshape")
def reshape(b: Builder, n: OpNode) -> Result:
    """A -1 takes the elements that are left."""
    x, wanted = n.input(0), list(n.dims(1, "it is the shape of the result"))
    if wanted.count(-1) > 1:
        raise ValueError(f"the shape {[str(d) for d in wanted]} is none: one dim may be -1")
    if -1 in wanted:
        rest, whole = product([d for d in wanted if d != -1]), product(x.type.shape)
        if isinstance(rest, int) and isinstance(whole, int) and (not rest or whole % rest):
            raise ValueError(f"{x.type} has no whole number of {rest} elements for the -1")
        wanted[wanted.index(-1)] = whole // rest
    return reshaped(b, x, wanted)


@tf_op("Squeeze")
def squeeze(b: Builder, n: OpNode) -> Result:
    """Without the dims of 1: all, or those named."""
    x = n.input()
    given = n.ints("squeeze_dims") or n.ints("axis") or ()
    axes = {normal_axis(axis, x.type.rank) for axis in given} or {i for i, d in enumerate(x.type.shape) if d == 1}
    if any(isinstance(x.type.shape[axis], int) and x.type.shape[axis] != 1 for axis in axes):
        raise ValueError(f"dims {sorted(axes)} of {x.type} are not 1")
    return reshaped(b, x, [d for i, d in enumerate(x.type.shape) if i not in axes])


@tf_op("ExpandDims")
def expand_dims(b: Builder, n: OpNode) -> Result:
    """A dim of 1 more."""
    x = n.input(0)
    axis = normal_axis(n.number(1, "it is the place of the new dim"), x.type.rank + 1)
    return reshaped(b, x, (*x.type.shape[:axis], 1, *x.type.shape[axis:]))


def counted(b: Builder, count: Dim) -> Value:
    """0, 1, ... below count, i64."""
    if isinstance(count, int):
        limit_constant(count)
        return b.constant(np.arange(count, dtype=np.int64))
    return b.add(CumSum(0, exclusive=True), b.add(Expand((count,)), b.scalar(1, DType.i64)))


@tf_op("BroadcastArgs")
def broadcast_args(b: Builder, n: OpNode) -> Result:
    """The shape that values of two known shapes have together."""
    shapes = [n.integers(i, "it is a shape") for i in (0, 1)]
    return b.constant(np.array(np.broadcast_shapes(*shapes)).astype(n.input(0).type.dtype.numpy))


# -- moves ------------------------------------------------------------------------------------------
@tf_op("Transpose")
def transpose(b: Builder, n: OpNode) -> Result:
    """Dims in another order."""
    x = n.input(0)
    perm = tuple(normal_axis(axis, x.type.rank) for axis in n.integers(1, "it is the order of dims"))
    return x if perm == tuple(range(x.type.rank)) else b.add(Transpose(perm), x)


@tf_op("Tile")
def tile(b: Builder, n: OpNode) -> Result:
    """Each dim repeated; by a size that only a run knows where the dim is 1."""
    x, repeats = n.input(0), n.dims(1, "it is how often dims repeat")
    if len(repeats) != x.type.rank:
        raise ValueError(f"{len(repeats)} numbers of repeats do not fit {x.type}")
    if any(isinstance(r, SymDim) for r in repeats):
        if any(isinstance(r, SymDim) and d != 1 for r, d in zip(repeats, x.type.shape, strict=True)):
            n.refuse(f"it repeats {x.type} {[str(r) for r in repeats]} times", "give every input a fixed shape")
        times = [1 if isinstance(r, SymDim) else r for r in repeats]
        y = b.add(Tile(tuple(times)), x)
        wide = [r if isinstance(r, SymDim) else d for r, d in zip(repeats, y.type.shape, strict=True)]
        return b.add(Expand(tuple(wide)), y)
    return b.add(Tile(tuple(r for r in repeats if isinstance(r, int))), x)


@tf_op("BroadcastTo")
def broadcast_to(b: Builder, n: OpNode) -> Result:
    """x broadcast to a shape."""
    return b.add(Expand(n.dims(1, "it is the shape of the result")), n.input(0))


@tf_op("Fill")
def fill(b: Builder, n: OpNode) -> Result:
    """A tensor of one number."""
    dims, number = n.dims(0, "it is the shape of the result"), n.input(1)
    if all(isinstance(d, int) for d in dims) and b.known(number) is not None:
        limit_constant(int(np.prod([d for d in dims if isinstance(d, int)], dtype=object)))
    return b.add(Expand(dims), number) if dims else number


@tf_op("Range")
def range_(b: Builder, n: OpNode) -> Result:
    """start, start + delta, ... below limit."""
    known = [b.known(n.input(i)) for i in range(3)]
    if all(a is not None for a in known):
        start, limit, delta = (a.reshape(-1)[0] for a in known if a is not None)
        if delta == 0:
            raise ValueError("its step is 0")
        limit_constant(max(0, int((limit - start) / delta) + 1))
        return b.constant(np.arange(start, limit, delta).astype(n.input(0).type.dtype.numpy))
    start_dims, limit_dims, delta_dims = (n.dims(i, "it is a bound of the range") for i in range(3))
    count = limit_dims[0] - start_dims[0]
    if not isinstance(delta_dims[0], int) or delta_dims[0] != 1:
        n.refuse(f"it counts to {limit_dims[0]} in steps of {delta_dims[0]}", "give every input a fixed shape")
    y = counted(b, count)
    if start_dims[0] != 0:
        y = b.add(Add(), y, as_type(b, n.input(0), DType.i64))
    return as_type(b, y, n.input(0).type.dtype)


@tf_op("Reverse", "ReverseV2")
def reverse(b: Builder, n: OpNode) -> Result:
    """Dims from their ends; the first form takes a flag for each dim."""
    x = n.input(0)
    if n.op == "Reverse":
        axes = tuple(int(i) for i in np.flatnonzero(n.constant(1, "it says which dims turn round")))
    else:
        axes = n.axes(1, x.type.rank)
    if not axes:
        return x
    starts = tuple(x.type.shape[axis] - 1 for axis in axes)
    return b.add(Slice(starts, (-1,) * len(axes), axes, (-1,) * len(axes)), x)


@tf_op("Pad", "PadV2", "MirrorPad")
def pad(b: Builder, n: OpNode) -> Result:
    """Zeros, a number, or the mirror image around x."""
    x, amounts = n.input(0), n.constant(1, "it is how much is padded")
    if amounts.shape != (x.type.rank, 2) or amounts.min(initial=0) < 0:
        raise ValueError(f"paddings {amounts.tolist()} do not fit {x.type}")
    pads = tuple(int(p) for p in amounts.T.reshape(-1))
    mode, number = "constant", 0.0
    if n.op == "MirrorPad":
        kind = n.text("mode", "REFLECT")
        if kind == "SYMMETRIC":
            return _symmetric(b, x, amounts)
        mode = "reflect"
    elif n.op == "PadV2":
        number = float(n.constant(2, "it is what is padded with").reshape(-1)[0])
    chosen: PadMode = "reflect" if mode == "reflect" else "constant"
    return b.add(Pad(pads, chosen, number), x) if any(pads) else x


def _symmetric(b: Builder, x: Value, amounts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Value:
    """The mirror image with the border element, dim by dim."""
    for axis, (before, after) in enumerate(amounts.tolist()):
        size = x.type.shape[axis]
        parts = [x]
        if before:
            parts.insert(0, b.add(Slice((before - 1,), (-1,), (axis,), (-1,)), x))
        if after:
            parts.append(b.add(Slice((size - 1,), (size - after - 1,), (axis,), (-1,)), x))
        x = b.add(Concat(axis), *parts) if len(parts) > 1 else x
    return x


# -- parts ------------------------------------------------------------------------------------------
@tf_op("Slice")
def slice_(b: Builder, n: OpNode) -> Result:
    """`size` elements from `begin` on; -1 takes all that are left."""
    x, begins, sizes = n.input(0), n.dims(1, "it is where it begins"), n.dims(2, "it is how much it takes")
    dims = x.type.shape
    if not len(begins) == len(sizes) == len(dims):
        raise ValueError(f"{len(begins)} begins and {len(sizes)} sizes do not fit {x.type}")
    ends = tuple(d if s == -1 else a + s for a, s, d in zip(begins, sizes, dims, strict=True))
    return b.add(Slice(tuple(begins), ends, tuple(range(len(dims))), (1,) * len(dims)), x)


@tf_op("Concat", "ConcatV2")
def concat(b: Builder, n: OpNode) -> Result:
    """Values one after the other; the axis is the first input, or the last."""
    at, parts = (0, n.inputs[1:]) if n.op == "Concat" else (len(n.inputs) - 1, n.inputs[:-1])
    if not parts:
        raise ValueError("it joins nothing")
    axis = n.axis(at, parts[0].type.rank)
    return parts[0] if len(parts) == 1 else b.add(Concat(axis), *parts)


@tf_op("Split")
def split(b: Builder, n: OpNode) -> Result:
    """Equal parts; the axis comes first."""
    x, count = n.input(1), n.integer("num_split", 1)
    axis = n.axis(0, x.type.rank)
    dim = x.type.shape[axis]
    if count < 1 or (isinstance(dim, int) and dim % count):
        raise ValueError(f"dim {axis} of {x.type} cannot be split into {count}")
    return _cut(b, x, axis, [dim // count] * count)


@tf_op("SplitV")
def split_v(b: Builder, n: OpNode) -> Result:
    """Parts of given sizes; a -1 takes what is left."""
    x = n.input(0)
    axis, sizes = n.axis(2, x.type.rank), list(n.dims(1, "it is how much each part has"))
    if sizes.count(-1) == 1:
        taken: Dim = 0
        for part in sizes:
            taken = taken + (0 if part == -1 else part)
        sizes[sizes.index(-1)] = x.type.shape[axis] - taken
    return _cut(b, x, axis, sizes)


def _cut(b: Builder, x: Value, axis: int, sizes: Sequence[Dim]) -> list[Value]:
    parts, begin = [], 0 * x.type.shape[axis]
    for part in sizes:
        parts.append(b.add(Slice((begin,), (begin + part,), (axis,), (1,)), x) if len(sizes) > 1 else x)
        begin = begin + part
    return parts


@tf_op("Pack")
def pack(b: Builder, n: OpNode) -> Result:
    """Values of one shape along a new dim."""
    first = n.input(0)
    axis = normal_axis(n.integer("axis", 0), first.type.rank + 1)
    rows = [reshaped(b, x, (*x.type.shape[:axis], 1, *x.type.shape[axis:])) for x in n.inputs]
    return rows[0] if len(rows) == 1 else b.add(Concat(axis), *rows)


@tf_op("Unpack")
def unpack(b: Builder, n: OpNode) -> Result:
    """The slices of a dim, without it."""
    x, count = n.input(), n.integer("num", 0)
    axis = normal_axis(n.integer("axis", 0), x.type.rank)
    if isinstance(x.type.shape[axis], int) and x.type.shape[axis] != count:
        raise ValueError(f"dim {axis} of {x.type} is not {count}")
    rest = [d for i, d in enumerate(x.type.shape) if i != axis]
    return [reshaped(b, part, rest) for part in _cut(b, x, axis, [1] * count)]


# -- blocks -----------------------------------------------------------------------------------------
@tf_op("SpaceToDepth", "DepthToSpace")
def space_and_depth(b: Builder, n: OpNode) -> Result:
    """Blocks of pixels as channels, and back: channel (y * block + x) * depth + c."""
    if n.text("data_format", "NHWC") not in ("NHWC", "NCHW"):
        n.refuse(f"its data_format is {n.text('data_format', 'NHWC')!r}")
    first = n.text("data_format", "NHWC") == "NCHW"
    x, block = n.input(), n.integer("block_size", 2)
    if x.type.rank != 4 or block < 2:
        raise ValueError(f"it moves blocks of {block} of images of rank 4, not of {x.type}")
    x = b.add(Transpose((0, 2, 3, 1)), x) if first else x
    m, h, w, c = x.type.shape
    if n.op == "SpaceToDepth":
        y = b.add(Transpose((0, 1, 3, 2, 4, 5)), b.add(Reshape((m, h // block, block, w // block, block, c)), x))
        y = b.add(Reshape((m, h // block, w // block, c * (block * block))), y)
    else:
        depth = c // (block * block)
        y = b.add(Transpose((0, 1, 3, 2, 4, 5)), b.add(Reshape((m, h, w, block, block, depth)), x))
        y = b.add(Reshape((m, h * block, w * block, depth)), y)
    return b.add(Transpose((0, 3, 1, 2)), y) if first else y


@tf_op("SpaceToBatchND")
def space_to_batch(b: Builder, n: OpNode) -> Result:
    """Pads, then deals the pixels of each block out over the batch."""
    x, blocks, amounts = n.input(0), n.integers(1, "it is the block"), n.constant(2, "it is the padding")
    count = len(blocks)
    ends = [int(p) for p in amounts.reshape(count, 2).T.reshape(-1)]
    rest = x.type.rank - 1 - count
    if rest < 0 or min(blocks, default=1) < 1:
        raise ValueError(f"blocks {blocks} do not fit {x.type}")
    pads = (0, *ends[:count], *[0] * rest, 0, *ends[count:], *[0] * rest)
    x = b.add(Pad(pads), x) if any(pads) else x
    m, *sizes = x.type.shape
    split_dims: list[Dim] = [m]
    for d, block in zip(sizes, blocks, strict=False):
        split_dims += [d // block, block]
    tail = sizes[count:]
    inner, outer = [2 + 2 * i for i in range(count)], [1 + 2 * i for i in range(count)]
    tail_axes = [1 + 2 * count + i for i in range(len(tail))]
    y = b.add(Transpose((*inner, 0, *outer, *tail_axes)), b.add(Reshape((*split_dims, *tail)), x))
    shrunk = [d // block for d, block in zip(sizes, blocks, strict=False)]
    return b.add(Reshape((product(blocks) * m, *shrunk, *tail)), y)


@tf_op("BatchToSpaceND")
def batch_to_space(b: Builder, n: OpNode) -> Result:
    """The inverse: pixels of blocks from the batch, then crops."""
    x, blocks, amounts = n.input(0), n.integers(1, "it is the block"), n.constant(2, "it is the crop")
    count = len(blocks)
    crops = amounts.reshape(count, 2).tolist()
    m, *sizes = x.type.shape
    if x.type.rank - 1 < count or min(blocks, default=1) < 1:
        raise ValueError(f"blocks {blocks} do not fit {x.type}")
    batch, tail = m // product(blocks), sizes[count:]
    perm = [count]
    for i in range(count):
        perm += [count + 1 + i, i]
    perm += [2 * count + 1 + i for i in range(len(tail))]
    y = b.add(Transpose(tuple(perm)), b.add(Reshape((*blocks, batch, *sizes)), x))
    wide = [d * block for d, block in zip(sizes, blocks, strict=False)]
    y = b.add(Reshape((batch, *wide, *tail)), y)
    if not any(map(any, crops)):
        return y
    axes = tuple(range(1, count + 1))
    ends = tuple(d - c[1] for d, c in zip(wide, crops, strict=True))
    return b.add(Slice(tuple(c[0] for c in crops), ends, axes, (1,) * count), y)


OPS: list[TfOp] = [
    *shape,
    *shape_n,
    *rank,
    *size,
    *reshape,
    *squeeze,
    *expand_dims,
    *transpose,
    *tile,
    *broadcast_args,
    *broadcast_to,
    *fill,
    *range_,
    *reverse,
    *pad,
    *slice_,
    *strided_slice,
    *concat,
    *split,
    *split_v,
    *pack,
    *unpack,
    *space_and_depth,
    *space_to_batch,
    *batch_to_space,
]
