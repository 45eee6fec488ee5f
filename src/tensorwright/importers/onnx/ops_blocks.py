# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that cut tensors to size or put them together from blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, normal_axis, onnx_op
from tensorwright.ir.op import Array
from tensorwright.ops.index import Gather
from tensorwright.ops.reduce import Reduce
from tensorwright.ops.shape import Pad, Reshape

_GIVE_SHAPES = "give every input a fixed shape with shapes="


@onnx_op("CenterCropPad", since=18)
def center_crop_pad(b: Builder, n: OnnxNode) -> Result:
    """Cropped or padded with zeros to a known shape; an odd difference is one less at the start."""
    x, axes = n.input(0), n.ints("axes")
    wanted = n.integers(1, "CenterCropPad needs a known shape")
    axes = tuple(range(x.type.rank)) if axes is None else tuple(normal_axis(a, x.type.rank) for a in axes)
    if len(axes) != len(wanted) or len(set(axes)) != len(axes) or min(wanted, default=0) < 0:
        raise ValueError(f"the shape {list(wanted)} does not fit the axes {list(axes)} of {x.type}")
    pads = [0] * (2 * x.type.rank)
    for axis, size in zip(axes, wanted, strict=True):
        given = x.type.shape[axis]
        if not isinstance(given, int):
            n.refuse(f"it crops or pads the symbolic dim {given}", _GIVE_SHAPES)
        start = abs(size - given) // 2
        start = start if size > given else -start
        pads[axis], pads[x.type.rank + axis] = start, size - given - start
    return b.add(Pad(tuple(pads)), x) if any(pads) else x


@onnx_op("Col2Im", since=18)
def col_to_im(b: Builder, n: OnnxNode) -> Result:
    """The sum of blocks x[N, C * block elements, blocks] at their places in images of known shape: for each pixel, the
    elements that lie on it are gathered and added."""
    x = n.input(0)
    image, block = n.integers(1, "Col2Im needs a known image_shape"), n.integers(2, "Col2Im needs a known block_shape")
    rank = len(image)
    strides, dilations = n.ints("strides") or (1,) * rank, n.ints("dilations") or (1,) * rank
    pads = n.ints("pads") or (0,) * (2 * rank)
    if not (len(block) == len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
        raise ValueError(f"image {list(image)}, block {list(block)} and its attributes have different ranks")
    if min((*image, *block, *strides, *dilations), default=1) < 1:
        raise ValueError(f"image {list(image)}, block {list(block)}, strides and dilations must be positive")
    counts = tuple(
        (image[d] + pads[d] + pads[rank + d] - dilations[d] * (block[d] - 1) - 1) // strides[d] + 1 for d in range(rank)
    )
    elems, blocks = math.prod(block), math.prod(counts)
    if x.type.rank != 3 or not x.type.is_static:
        n.refuse(f"it needs blocks [N, C * {elems}, {blocks}] of known size, not {x.type}", _GIVE_SHAPES)
    batch, rows, columns = x.type.static_shape
    if rows % elems or columns != blocks or min(counts) < 1:
        raise ValueError(f"{x.type} does not hold the {list(counts)} blocks of {list(block)} of an image {list(image)}")
    reads = [_reads(image[d], counts[d], block[d], strides[d], dilations[d], pads[d]) for d in range(rank)]
    places = _combined(reads, counts, block, elems * blocks)
    n.limit_constant(places.size)
    flat = b.add(Reshape((batch, rows // elems, elems * blocks)), x)
    if (places == elems * blocks).any():  # a zero to read where no element lies
        flat = b.add(Pad((0, 0, 0, 0, 0, 1)), flat)
    y = b.add(Gather(2), flat, b.constant(places if places.shape[1] > 1 else places[:, 0]))
    y = y if places.shape[1] == 1 else b.add(Reduce("sum", (3,), False), y)
    return b.add(Reshape((batch, rows // elems, *image)), y)


def _reads(size: int, count: int, block: int, stride: int, dilation: int, pad: int) -> list[list[tuple[int, int]]]:
    """For each pixel along one axis: the (element of the block, block) pairs that lie on it."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for element, number in itertools.product(range(block), range(count)):
        pixel = number * stride - pad + element * dilation
        if 0 <= pixel < size:
            found[pixel].append((element, number))
    return found


def _combined(
    reads: Sequence[list[list[tuple[int, int]]]], counts: Sequence[int], block: Sequence[int], nothing: int
) -> Array:
    """[pixels, most reads of one] flat positions among (elements of the block, blocks); `nothing` where there is none.

    A pixel reads all combinations of what it reads along each axis.
    """
    places = np.zeros((1, 1, 2), np.int64)  # [pixels, reads, (element, block)], -1: nothing
    for axis, of_pixel in enumerate(reads):
        most = max(map(len, of_pixel), default=0) or 1
        table = np.full((len(of_pixel), most, 2), -1, np.int64)
        for pixel, pairs in enumerate(of_pixel):
            table[pixel, : len(pairs)] = np.reshape(pairs, (-1, 2))
        joined = places[:, None, :, None] * (block[axis], counts[axis]) + table[None, :, None]
        joined[np.broadcast_to((places[:, None, :, None] < 0) | (table[None, :, None] < 0), joined.shape)] = -1
        places = joined.reshape(places.shape[0] * len(of_pixel), -1, 2)
    flat = places[..., 0] * math.prod(counts) + places[..., 1]
    return np.where(places[..., 0] < 0, nothing, flat)


OPS = [center_crop_pad, col_to_im]
