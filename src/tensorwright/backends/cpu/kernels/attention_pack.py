# SPDX-License-Identifier: Apache-2.0
"""Packing of one head's keys and values into dense, vector-padded scratch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.epilogue import load_lanes
from tensorwright.backends.cpu.kernels.microkernel import if_any
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.ir.dims import Dim, SymDim, high


def pack_keys(
    f: Function,
    keys: Reg,
    out: Reg,
    shape: tuple[Dim, int],
    strides: Sequence[int],
    lanes: int,
    vectors: int,
    scale: float,
) -> None:
    """scale * keys[N, D] transposed to out[N / width][D][width] with width = vectors*lanes; what lies past key N is
    undefined."""
    n, d = shape
    width, tail = vectors * lanes, n % lanes

    def pack(group: Reg, count: Reg | int) -> None:
        source = group * (lanes * strides[0])
        target = group // vectors * (d * width) + group % vectors * lanes
        if strides[1] == 1 and d >= 4:
            _pack_squares(f, keys, out, (source, target), (count, d), strides[0], lanes, width, scale)
        else:
            with f.loop(0, d) as at:
                column = load_lanes(f, keys, source + at * strides[1], strides[0], lanes, count)
                f.store(column * scale, out, target + at * width)

    if high(n // lanes) > 0:
        with f.loop(0, n // lanes) as group:
            pack(group, lanes)
    if_any(f, tail, lambda: pack(f.i64(n // lanes), f.i64(tail) if isinstance(tail, SymDim) else tail))


def _pack_squares(
    f: Function,
    keys: Reg,
    out: Reg,
    places: tuple[Reg, Reg],
    shape: tuple[Reg | int, int],
    stride: int,
    lanes: int,
    width: int,
    scale: float,
) -> None:
    """The first keys of a group of `lanes`, dense along D, in squares of registers; `places` are offsets in both."""
    ty, (source, target), (count, d) = vector(lanes), places, shape
    for first, last, depth in ((0, d - d % lanes, lanes), (d - d % lanes, d, d % lanes)):
        if first < last:
            with f.loop(first, last, lanes) as at:
                block = []
                for key in range(lanes):
                    if isinstance(count, int) and key >= count:
                        block.append(f.const(ty, 0.0))
                        continue
                    line = key if isinstance(count, int) else f.minimum(f.i64(key), count - 1)
                    block.append(f.load_first(ty, keys, source + at + line * stride, depth) * scale)
                square = transpose(f, block)
                for line in range(depth):
                    f.store(square[line], out, target + (at + line) * width)


def transpose(f: Function, rows: Sequence[Reg]) -> list[Reg]:
    """The transpose of a square of vectors: log2(width) rounds that swap ever smaller off-diagonal blocks."""
    rows, width = list(rows), len(rows)
    size = width // 2
    while size:
        for i in (i for i in range(width) if not i & size):
            a, b = rows[i], rows[i + size]
            rows[i] = f.shuffle(a, b, [lane if not lane & size else width + lane - size for lane in range(width)])
            rows[i + size] = f.shuffle(
                a, b, [lane + size if not lane & size else width + lane for lane in range(width)]
            )
        size //= 2
    return rows


def pack_values(f: Function, values: Reg, out: Reg, shape: tuple[Dim, int], strides: Sequence[int], lanes: int) -> None:
    """values[N, E] to out[N][E rounded up to lanes]."""
    n, e = shape
    padded = math.ceil(e / lanes) * lanes
    with f.loop(0, n) as row:
        for at in range(0, e, lanes):
            line = load_lanes(f, values, row * strides[0] + at * strides[1], strides[1], lanes, min(lanes, e - at))
            f.store(line, out, row * padded + at)
