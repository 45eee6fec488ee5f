# SPDX-License-Identifier: Apache-2.0
"""Caffe layers that move, choose or combine elements."""

from __future__ import annotations

import itertools

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.data import dummy_number, dummy_shapes
from tensorwright.importers.caffe.layer import Layer, Result, layer_type
from tensorwright.ir.dims import Dim, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ops.elementwise import Abs, Cast, Mul, Sub
from tensorwright.ops.index import ArgMax, Gather
from tensorwright.ops.order import TopKIndices, TopKValues
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.select import ScatterElements
from tensorwright.ops.shape import Concat, Expand, Reshape, Resize, Slice, Tile, Transpose


@layer_type("Split")
def split(b: Builder, layer: Layer) -> Result:
    """The same blob under several names."""
    return [layer.only()] * len(layer.tops)


@layer_type("Dropout")
def dropout(b: Builder, layer: Layer) -> Result:
    """Nothing is dropped in phase TEST."""
    return layer.only()


@layer_type("Silence")
def silence(b: Builder, layer: Layer) -> Result:
    """Reads blobs so that they are no outputs."""
    return []


@layer_type("Concat")
def concat(b: Builder, layer: Layer) -> Result:
    """The bottoms one after the other along an axis."""
    p, first = layer.proto.concat_param, layer.bottom()
    axis = layer.axis(p.concat_dim if p.HasField("concat_dim") else p.axis, first.type.rank)
    return first if len(layer.bottoms) == 1 else b.add(Concat(axis), *layer.bottoms)


@layer_type("Slice")
def slice_(b: Builder, layer: Layer) -> Result:
    """Parts along an axis, at the given points or of equal size."""
    x, p = layer.only(), layer.proto.slice_param
    axis, count = layer.axis(p.slice_dim if p.HasField("slice_dim") else p.axis, x.type.rank), len(layer.tops)
    (size,) = layer.known_dims(x.type.shape[axis : axis + 1], "it is cut there")
    points = [0, *p.slice_point, size]
    if not p.slice_point:
        if size % count:
            raise ValueError(f"{size} cannot be cut into {count} equal parts")
        points = [size // count * i for i in range(count + 1)]
    if len(points) != count + 1 or any(a >= z for a, z in itertools.pairwise(points)):
        raise ValueError(f"the points {list(p.slice_point)} do not cut {size} into {count} parts")
    return [b.add(Slice((a,), (z,), (axis,), (1,)), x) for a, z in itertools.pairwise(points)]


@layer_type("Crop")
def crop(b: Builder, layer: Layer) -> Result:
    """The first bottom cut to the size of the second from `axis` on, from the offsets on."""
    layer.take(2, 2)
    x, like, p = layer.bottom(0), layer.bottom(1), layer.proto.crop_param
    axis, rank = layer.axis(p.axis, x.type.rank), x.type.rank
    if like.type.rank != rank or len(p.offset) not in (0, 1, rank - axis):
        raise ValueError(f"it crops {x.type} to {like.type} from axis {axis} on with {len(p.offset)} offsets")
    offsets = list(p.offset) if len(p.offset) == rank - axis else [p.offset[0] if p.offset else 0] * (rank - axis)
    ends: list[Dim] = [o + d for o, d in zip(offsets, like.type.shape[axis:], strict=True)]
    axes = tuple(range(axis, rank))
    return b.add(Slice(tuple(offsets), tuple(ends), axes, (1,) * len(axes)), x)


@layer_type("Flatten")
def flatten(b: Builder, layer: Layer) -> Result:
    """The axes from `axis` to `end_axis` as one."""
    x, p = layer.only(), layer.proto.flatten_param
    start, end = layer.axis(p.axis, x.type.rank), layer.axis(p.end_axis, x.type.rank)
    shape = x.type.shape
    if start > end + 1:  # one more than the end makes a new axis of 1
        raise ValueError(f"axes {start} to {end} of {x.type} are in the wrong order")
    return b.add(Reshape((*shape[:start], product(shape[start : end + 1]), *shape[end + 1 :])), x)


@layer_type("Reshape")
def reshape(b: Builder, layer: Layer) -> Result:
    """Other dims for `num_axes` axes from `axis` on: 0 keeps the dim at that place, -1 takes the rest."""
    x, p = layer.only(), layer.proto.reshape_param
    shape, rank = x.type.shape, x.type.rank
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    end = rank if p.num_axes == -1 else start + p.num_axes
    wanted = list(p.shape.dim)
    if not 0 <= start <= rank or not start <= end <= rank or p.num_axes < -1:
        raise ValueError(f"axis {p.axis} and num_axes {p.num_axes} are not within {x.type}")
    if wanted.count(-1) > 1 or any(d < -1 for d in wanted):
        raise ValueError(f"the shape {wanted} is none: one dim may be -1")
    if any(d == 0 and start + i >= rank for i, d in enumerate(wanted)):
        raise ValueError(f"the shape {wanted} copies an axis that {x.type} does not have")
    dims: list[Dim] = [shape[start + i] if d == 0 else d for i, d in enumerate(wanted)]
    if -1 in wanted:
        rest, at = product([d for d in dims if d != -1]), wanted.index(-1)
        whole = product(shape[start:end])
        if isinstance(whole, int) and isinstance(rest, int) and (not rest or whole % rest):
            raise ValueError(f"{x.type} has no whole number of {rest} elements for the -1 of {wanted}")
        dims[at] = whole // rest
    return b.add(Reshape((*shape[:start], *dims, *shape[end:])), x)


@layer_type("Permute")
def permute(b: Builder, layer: Layer) -> Result:
    """The axes in another order; those not listed follow in theirs."""
    x, order = layer.only(), list(layer.proto.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= x.type.rank for axis in order):
        raise ValueError(f"the order {order} is none of the axes of {x.type}")
    return b.add(Transpose((*order, *(axis for axis in range(x.type.rank) if axis not in order))), x)


@layer_type("Tile")
def tile(b: Builder, layer: Layer) -> Result:
    """Repeats along an axis."""
    x, p = layer.only(), layer.proto.tile_param
    axis = layer.axis(p.axis, x.type.rank)
    if p.tiles < 1:
        raise ValueError(f"it repeats {p.tiles} times")
    return b.add(Tile(tuple(p.tiles if i == axis else 1 for i in range(x.type.rank))), x)


@layer_type("BatchReindex")
def batch_reindex(b: Builder, layer: Layer) -> Result:
    """Entries of the batch at the indices of the second bottom."""
    layer.take(2, 2)
    return b.add(Gather(0), layer.bottom(0), b.add(Cast(DType.i64), layer.bottom(1)))


@layer_type("ShuffleChannel")
def shuffle_channel(b: Builder, layer: Layer) -> Result:
    """ShuffleNet: the channels of each group are dealt out over all groups."""
    x, group = layer.only(), layer.proto.shuffle_channel_param.group
    n, c, *space = x.type.shape if x.type.rank >= 2 else (0, 0)
    if group < 1 or x.type.rank < 2 or (isinstance(c, int) and c % group):
        raise ValueError(f"the channels of {x.type} cannot be shuffled in {group} groups")
    grouped = b.add(Reshape((n, group, c // group, *space)), x)
    return b.add(Reshape(x.type.shape), b.add(Transpose((0, 2, 1, *range(3, 3 + len(space)))), grouped))


@layer_type("Reduction")
def reduction(b: Builder, layer: Layer) -> Result:
    """Sum, sum of absolute values or squares, or mean of all axes from `axis` on, times a coefficient."""
    x, p = layer.only(), layer.proto.reduction_param
    axis = layer.axis(p.axis, x.type.rank) if x.type.rank else 0
    asum, sumsq, mean = 2, 3, 4
    if p.operation == asum:
        x = b.add(Abs(), x)
    elif p.operation == sumsq:
        x = b.add(Mul(), x, x)
    y = b.add(Reduce("mean" if p.operation == mean else "sum", tuple(range(axis, x.type.rank)), False), x)
    return y if p.coeff == 1 else b.add(Mul(), y, b.scalar(p.coeff, DType.f32))


@layer_type("ArgMax")
def arg_max(b: Builder, layer: Layer) -> Result:
    """Positions (or values) of the largest elements of an axis, or of each image with its channels as one vector.

    Of equal elements the later comes first, as caffe sorts pairs of value and position from large to small.
    """
    x, p = layer.only(), layer.proto.argmax_param
    rank = x.type.rank
    if p.HasField("axis"):
        axis, rows = layer.axis(p.axis, rank), x
    else:
        axis, rows = 1, b.add(Reshape((x.type.shape[0], product(x.type.shape[1:]))), x)
    (size,) = layer.known_dims(rows.type.shape[axis : axis + 1], "its last elements come first")
    if not 1 <= p.top_k <= size:
        raise ValueError(f"it takes the first {p.top_k} of {size} elements")
    positions, values = _largest(b, rows, axis, size, p.top_k, with_values=p.out_max_val)
    if p.HasField("axis"):
        return values if p.out_max_val else positions
    shape = (x.type.shape[0], 1, p.top_k, *[1] * (rank - 3))
    y = b.add(Reshape(shape), positions)
    return b.add(Concat(1), y, b.add(Reshape(shape), values)) if p.out_max_val else y


def _largest(b: Builder, x: Value, axis: int, size: int, k: int, *, with_values: bool) -> tuple[Value, Value]:
    """f32 positions and values of the k largest, of equal ones the last first."""
    if k == 1 and not with_values:
        return b.add(Cast(DType.f32), b.add(ArgMax(axis, True, True), x)), x
    back = b.add(Slice((size - 1,), (-1,), (axis,), (-1,)), x)
    found = b.add(Cast(DType.f32), b.add(TopKIndices(k, axis), back))
    return b.add(Sub(), b.scalar(size - 1, DType.f32), found), b.add(TopKValues(k, axis), back)


@layer_type("Upsample")
def upsample(b: Builder, layer: Layer) -> Result:
    """One bottom: each pixel becomes a block. Two: each pixel goes to the position that a max pool took it from, and
    all others are 0 (SegNet)."""
    layer.take(1, 2)
    x, p = layer.bottom(), layer.proto.upsample_param
    scales = (p.scale_h or p.scale, p.scale_w or p.scale)
    if x.type.rank != 4 or min(scales) < 1:
        raise ValueError(f"it enlarges images, not {x.type} by {scales}")
    sizes = [d * s for d, s in zip(x.type.shape[2:], scales, strict=True)]
    if len(layer.bottoms) == 1:
        ratios = (1.0, 1.0, float(scales[0]), float(scales[1]))
        return b.add(Resize("nearest", (*x.type.shape[:2], *sizes), ratios, "asymmetric", "floor"), x)
    sizes = [p.upsample_h or sizes[0] - p.pad_out_h, p.upsample_w or sizes[1] - p.pad_out_w]
    (n, c), (height, width) = x.type.shape[:2], sizes
    mask = b.add(Cast(DType.i64), layer.bottom(1))
    if mask.type.shape != x.type.shape:
        raise ValueError(f"the mask {mask.type} has not the shape of {x.type}")
    plane, flat = height * width, product(x.type.shape[2:])
    empty = b.add(Expand((n, c, plane)), b.scalar(0.0, DType.f32))
    rows = [b.add(Reshape((n, c, flat)), v) for v in (mask, x)]
    return b.add(Reshape((n, c, height, width)), b.add(ScatterElements(2), empty, *rows))


@layer_type("Interp")
def interp(b: Builder, layer: Layer) -> Result:
    """Bilinear resampling with aligned corners, of DeepLab and PSPNet: to `height` and `width`, by factors, or to the
    size of a second bottom."""
    layer.take(1, 2)
    x, p = layer.bottom(), layer.proto.interp_param
    if p.pad_beg > 0 or p.pad_end > 0:
        raise ValueError("pad_beg and pad_end crop: they are not positive")
    height, width = layer.known_dims(x.type.shape[2:], "its size follows from it")
    if p.pad_beg or p.pad_end:
        x = b.add(Slice((-p.pad_beg,) * 2, (height + p.pad_end, width + p.pad_end), (2, 3), (1, 1)), x)
        height, width = height + p.pad_beg + p.pad_end, width + p.pad_beg + p.pad_end
    shrinks, zooms = p.HasField("shrink_factor"), p.HasField("zoom_factor")
    if len(layer.bottoms) == 2 and (p.use_blob_size or not (shrinks or zooms or p.HasField("height"))):
        sizes = layer.known_dims(layer.bottom(1).type.shape[2:], "its size is taken from there")
    elif p.HasField("height") and p.HasField("width") and shrinks == zooms:
        sizes = (p.height, p.width)
    elif shrinks or zooms:
        sizes = tuple(_interpolated(d, p.shrink_factor, p.zoom_factor) for d in (height, width))
    else:
        raise ValueError("it needs shrink_factor, zoom_factor, or height and width")
    if min(sizes) < 1:
        raise ValueError(f"its size {list(sizes)} must be positive")
    return b.add(Resize("linear", (*x.type.shape[:2], *sizes), (1.0, 1.0, None, None), "align_corners"), x)


def _interpolated(size: int, shrink: int, zoom: int) -> int:
    if shrink < 1 or zoom < 1:
        raise ValueError(f"shrink_factor {shrink} and zoom_factor {zoom} must be positive")
    size = (size - 1) // shrink + 1
    return size + (size - 1) * (zoom - 1)


@layer_type("DummyData")
def dummy_data(b: Builder, layer: Layer) -> Result:
    """Blobs of one number each; what is random is an input."""
    layer.take(0, 0)
    names, shapes, results = list(layer.proto.top), dummy_shapes(layer.proto), []
    for top in layer.tops:
        i = names.index(top)
        number = b.scalar(dummy_number(layer.proto, i) or 0.0, DType.f32)
        results.append(b.add(Expand(shapes[i]), number))
    return results


LAYERS = [
    split,
    dropout,
    silence,
    concat,
    slice_,
    crop,
    flatten,
    reshape,
    permute,
    tile,
    batch_reindex,
    shuffle_channel,
    reduction,
    arg_max,
    upsample,
    interp,
    dummy_data,
]
