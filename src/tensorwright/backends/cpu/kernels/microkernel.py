# SPDX-License-Identifier: Apache-2.0
"""The register tile every dense kernel is built on: rows x vectors of accumulators, one rank-1 update per k.

`rows` scalars of the left operand are broadcast against `vectors` registers of the right operand; both are
re-read once per k, so a tile does rows*vectors fused multiply-adds for rows+vectors loads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tensorwright.backends.cpu.emitter import Function, Reg, Var
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.ir.dims import Dim, SymDim, high, low, opt
from tensorwright.ir.op import Array
from tensorwright.memory import PIECE, release

Tile = list[list[Var]]


def zero_tile(f: Function, rows: int, vectors: int, width: int) -> Tile:
    """rows x vectors accumulators, all zero."""
    zero = f.const(vector(width), 0.0)
    return [[f.var(vector(width), zero) for _ in range(vectors)] for _ in range(rows)]


def rank1_update(
    f: Function, tile: Tile, width: int, left: Callable[[int], Reg | None], right: Callable[[int], Reg]
) -> None:
    """tile[i][j] += left(i) * right(j); left gives scalars (None: that row takes no part), right vectors."""
    columns = [right(j) for j in range(len(tile[0]))]
    for i, row in enumerate(tile):
        scalar = left(i)
        if scalar is None:
            continue
        value = f.splat(scalar, width)
        for accumulator, column in zip(row, columns, strict=True):
            accumulator.set(f.fma(value, column, accumulator.get()))


def unrolled(f: Function, count: int, unroll: int, body: Callable[[Reg | int], None]) -> None:
    """body(k) for k in range(count), `unroll` copies per loop iteration, the rest emitted after it (as a loop where
    only a run knows `count`)."""
    main: Dim = count - count % unroll
    if isinstance(main, SymDim):
        with f.loop(0, main, unroll) as k:
            for step in range(unroll):
                body(k + step)
        with f.loop(main, count) as k:
            body(k)
        return
    if main:
        with f.loop(0, main, unroll) as k:
            for step in range(unroll):
                body(k + step)
    for k_static in range(main, count):
        body(k_static)


def rest_rows(f: Function, rest: int, most: int, emit: Callable[[int, Reg | int], None]) -> None:
    """emit(rows, first) for the `rest` < `most` rows after whole tiles, `first` counting from there: all at once where
    they are known, else powers of two, or what is left at the opt sizes in one go."""
    size: Dim = rest
    if not isinstance(size, SymDim):
        if size:
            emit(size, 0)
        return
    left, usual = f.i64(size), opt(size)
    piece = 1 << (min(high(size), most - 1).bit_length() - 1)

    def powers() -> None:
        at = piece
        while at:
            first = left - left % (2 * at)
            with f.when(f.compare("ne", f.binary("and", left, at), 0)):
                emit(at, first)
            at //= 2

    if usual & (usual - 1):
        f.branch(f.compare("eq", left, usual), lambda: emit(usual, 0), powers)
    else:
        powers()


def register_tiles(
    rows: int, vectors: int, registers: int, *, most_rows: int, most_vectors: int
) -> list[tuple[int, int]]:
    """Tiles (rows, vectors) whose accumulators fit beside one row of the right operand and a broadcast, for a
    product of `rows` by `vectors` registers of columns; least waste and fewest loads per multiply first."""
    scored = []
    for v in range(1, min(vectors, most_vectors) + 1):
        most = min((registers - 1 - v) // v, rows, most_rows)
        for r in {most, math.ceil(rows / math.ceil(rows / most)) if most else 0} - {0}:
            waste = math.ceil(rows / r) * r / rows * math.ceil(vectors / v) * v / vectors
            loads_per_multiply = (r + v) / (r * v)
            latency = max(1.0, 8 / (r * v))  # two multiply units of latency 4 want eight independent sums
            scored.append((waste * (1 + 0.45 * loads_per_multiply) * latency, (r, v)))
    return list(dict.fromkeys(tile for _, tile in sorted(scored)))


def column_panels(matrices: Array, out: Array) -> None:
    """Write [b][k][n] as [b][ceil(n / width)][k][width], columns past n zero."""
    b, k, n = matrices.shape
    width = out.shape[-1]
    full = n // width
    by_rows = b == 1 and matrices.strides[1] >= matrices.strides[2]  # then a mapped file is read part by part
    step = max(1, PIECE // max(matrices[:, :1].nbytes, 1)) if by_rows else max(k, 1)
    for start in range(0, k, step):
        rows, part = slice(start, start + step), matrices[:, start : start + step]
        out[:, :full, rows] = part[:, :, : full * width].reshape(b, part.shape[1], full, width).transpose(0, 2, 1, 3)
        if full * width < n:
            out[:, full, rows, : n - full * width] = part[:, :, full * width :]
            out[:, full, rows, n - full * width :] = 0
        release(part)


def may(size: int) -> bool:
    """Whether a size can be more than 0."""
    return high(size) > 0


def if_any(f: Function, count: Dim, emit: Callable[[], None]) -> None:
    """if count > 0: emit(), decided here where it can be."""
    if low(count) > 0:
        emit()
    elif high(count) > 0:
        with f.when(f.compare("sgt", f.i64(count), 0)):
            emit()


def choose(
    f: Function, cond: Reg, may_yes: bool, may_no: bool, yes: Callable[[], None], no: Callable[[], None]
) -> None:
    """if cond: yes() else: no(), leaving out the side that cannot happen."""
    if may_yes and may_no:
        f.branch(cond, yes, no)
    elif may_yes:
        yes()
    elif may_no:
        no()
