# SPDX-License-Identifier: Apache-2.0
"""Winograd convolution F(m x m, 3 x 3) for stride 1: fewer multiplications by transforming input and weights.

An output tile of m x m pixels needs an input tile of (m+2) x (m+2); after the transforms the convolution is
(m+2)^2 independent matrix products. Stage 1 (or the head of each unit, `inline`) writes transformed input
V[point][tile][C]; a unit then multiplies a block of tiles by one panel of transformed weights
U[panel][point][C][width] and applies the output transform and the epilogue while the products are in cache.
An infinity or NaN in the input would spread over the whole tile (inf - inf), as would an overflow; tiles with a
non-finite result are therefore computed again directly, with the weights taken back out of U.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Packed, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, body_problem, problem_of
from tensorwright.backends.cpu.kernels.conv_direct import ConvShape, conv_shape
from tensorwright.backends.cpu.kernels.microkernel import choose, column_panels, may, rank1_update, unrolled, zero_tile
from tensorwright.backends.cpu.kernels.winograd_transforms import INVERSE, TRANSFORMS
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, ceil_div, high, opt
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array


@dataclass(frozen=True, slots=True)
class WinogradConfig(Config):
    """Output tile size m, tiles per block, register tile rows x vectors, and whether a unit transforms its
    own input (`inline`, all panels per unit) or a first stage does it for all units."""

    m: int
    block: int
    rows: int
    vectors: int
    inline: bool


class ConvWinograd(KernelFamily[WinogradConfig, CpuTarget, CpuKernel]):
    """Winograd convolution with fused transforms and epilogue, for 3x3 stride-1 f32 convolution."""

    name, version, config = "conv_winograd", 1, WinogradConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        s = conv_shape(p)
        if isinstance(s, str):
            return Reject(s)
        if s.kernel != (3, 3) or s.stride != (1, 1) or s.dilation != (1, 1):
            return Reject(
                f"kernel {s.kernel}, stride {s.stride}, dilation {s.dilation}: needs 3x3 with stride and dilation 1"
            )
        if any(o is not None and o.dtype is not DType.f32 for o in p.inputs):
            return Reject("an operand is not f32")
        if s.x[1] != 1 or s.c < t.lanes(DType.f32) // 2 or s.k < t.lanes(DType.f32) // 2:
            return Reject(f"{s.c} -> {s.k} channels with channel stride {s.x[1]}: too few to pay for the transforms")
        reason = body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[WinogradConfig]:
        s = conv_shape(problem_of(w))
        if isinstance(s, str):
            return
        lanes = t.lanes(DType.f32)
        vectors = math.ceil(s.k / lanes)
        shapes = (
            [(14, 2), (6, 4), (9, 3), (12, 2), (7, 2), (8, 2)] if t.vector_registers == 32 else [(6, 2), (4, 3), (3, 3)]
        )
        for m in (4, 2) if s.out_h * s.out_w <= 256 else (4,):
            tiles = s.n * math.ceil(s.out_h / m) * math.ceil(s.out_w / m)
            fits = [
                (
                    math.ceil(tiles / r)
                    * r
                    / tiles
                    * math.ceil(vectors / v)
                    * v
                    / vectors
                    * (1 + 0.4 * (r + v) / (r * v)),
                    r,
                    v,
                )
                for r, v in shapes
                if v <= vectors and r <= max(tiles, 4)
            ] or [(1.0, min(4, tiles), 1)]
            fits.sort()
            for _, rows, v in fits[:2]:
                per_tile = 4 * (m + 2) ** 2 * (s.c + v * lanes)
                most = max(1, t.l2_bytes * 3 // 4 // (per_tile * rows))
                if tiles >= 2 * t.cores * rows or tiles > 64:
                    yield WinogradConfig(m, rows * _block_tiles(tiles, rows, most, t.cores), rows, v, True)
                yield WinogradConfig(m, rows * min(most, math.ceil(tiles / rows)), rows, v, False)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        s = conv_shape(problem_of(w))
        return 0.0 if isinstance(s, str) else s.flops / 4 / (t.gflops * 1e9 * t.cores)

    def emit(self, w: Workload, c: WinogradConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        p = problem_of(w)
        s = conv_shape(p)
        if isinstance(s, str):
            raise ValueError(s)
        return _Emitter(p, w, s, c, t, symbol).kernel(constants[1])


def _block_tiles(tiles: int, rows: int, most: int, cores: int) -> int:
    """Row tiles per block, at most `most`, that share the tiles out most evenly; larger blocks on a tie."""

    def longest(size: int) -> int:
        return math.ceil(math.ceil(tiles / (rows * size)) / cores) * size

    return min(range(max(1, most), 0, -1), key=longest)


class _Emitter:
    """Writes the code of one Winograd convolution."""

    def __init__(self, p: Problem, w: Workload, s: ConvShape, c: WinogradConfig, t: CpuTarget, symbol: str) -> None:
        self.p, self.s, self.c, self.symbol = p, s, c, symbol
        self.lanes = t.lanes(DType.f32)
        self.ty = vector(self.lanes)
        self.input, self.output, self.g = TRANSFORMS[c.m]
        self.size = c.m + 2
        self.points = self.size**2
        self.width = c.vectors * self.lanes
        self.panels = math.ceil(s.k / self.width)
        self.tiles_h, self.tiles_w = cast(int, ceil_div(s.out_h, c.m)), cast(int, ceil_div(s.out_w, c.m))
        self.tiles = s.n * self.tiles_h * self.tiles_w
        self.blocks = cast(int, ceil_div(self.tiles, c.block))
        self.rest = opt(self.tiles) % c.block % c.rows  # the rows of the last product
        self.padded_c = math.ceil(s.c / self.lanes) * self.lanes
        self.m = Module()
        self.m.takes_dims = w.is_symbolic
        self.epilogue = Epilogue(p.fused, s.out, s.extras, 1)

    def kernel(self, weights: Array) -> CpuKernel:
        c, stages = self.c, []
        v_tiles = c.block if c.inline else self.tiles
        products = 4 * self.points * c.block * self.width
        # a product of more rows than there are tiles reads past the end, and nobody reads its result
        spare = self.c.rows if self.is_loose and not c.inline else 0
        v_bytes = 4 * (self.points * high(v_tiles) + spare) * self.padded_c
        self._product_tiles()
        if not c.inline:
            stages.append(self._input_stage())
        stages.append(self._main_stage())
        return CpuKernel(
            self.m.text(),
            tuple(stages),
            workspace_bytes=0 if c.inline else v_bytes,
            scratch_bytes=products + (v_bytes if c.inline else 0),
            packed={1: self._packed(weights)},
        )

    @property
    def is_loose(self) -> bool:
        """Whether only a run knows the number of tiles."""
        return isinstance(cast(Dim, self.tiles), SymDim)

    def _packed(self, weights: Array) -> Packed:
        """U = G w G^T as [panels][points][c][width], zero-padded output channels; computed in f64."""
        shape = (self.panels, self.points, self.s.c, self.width)
        return Packed(shape, lambda out: column_panels(self._transformed(weights), out.transpose(1, 0, 2, 3)))

    def _transformed(self, weights: Array) -> Array:
        """[points][c][k]"""
        s = self.s
        taps = weights.reshape(s.k, s.c, 9).transpose(2, 1, 0).astype(np.float64)
        return (np.kron(self.g, self.g) @ taps.reshape(9, -1)).astype(np.float32).reshape(self.points, s.c, s.k)

    # -- input transform --------------------------------------------------------------------------
    def _transform(self, *, border: bool) -> str:
        """Private function: V of one tile, all channels. x points at the image, v at V[0][tile]."""
        s = self.s
        name = f"{self.symbol}_input_{'border' if border else 'inner'}"
        if any(fn.name == name for fn in self.m.functions):
            return name
        f = self.m.function(
            name,
            [("ptr", "x"), ("ptr", "v"), ("i64", "from"), ("i64", "top"), ("i64", "left"), ("i64", "step")],
            private=True,
        )
        x, v, top, left = f.arg("x"), f.arg("v"), f.arg("top"), f.arg("left")
        rows_ok = [f.compare("ult", top + i, s.in_h) for i in range(self.size)] if border else []
        cols_ok = [f.compare("ult", left + j, s.in_w) for j in range(self.size)] if border else []
        full = s.c // self.lanes * self.lanes

        def channels(c: Reg | int, count: int) -> None:
            def load(i: int, j: int) -> Reg:
                offset = f.arg("from") + f.i64(c) + (i * s.x[2] + j * s.x[3])
                if not border:
                    return f.load_first(self.ty, x, offset, count)
                inside = f.binary("and", rows_ok[i], cols_ok[j])
                value = f.load_first(self.ty, x, f.select(inside, offset, f.i64(c)), count)
                return f.select(inside, value, f.const(self.ty, 0.0))

            columns = [self.input(f, [load(i, j) for i in range(self.size)]) for j in range(self.size)]
            for a in range(self.size):
                for b, value in enumerate(self.input(f, [columns[j][a] for j in range(self.size)])):
                    f.store(value, v, f.arg("step") * (a * self.size + b) + c)

        if full:
            with f.loop(0, full, self.lanes) as c:
                channels(c, self.lanes)
        if full < s.c:
            channels(full, s.c - full)
        f.ret()
        return name

    def _emit_input(self, f: Function, tile: Reg, v: Reg, step: Reg | int) -> None:
        """Transform one tile (global number) into V at `v`, points `step` elements apart."""
        s, m = self.s, self.c.m
        n, row, col = self._position(tile)
        top, left = row * m - s.pad[0], col * m - s.pad[1]
        start = n * s.x[0] + top * s.x[2] + left * s.x[3]
        inner = f.binary(
            "and",
            f.binary("and", f.compare("sge", top, 0), f.compare("sle", top, s.in_h - self.size)),
            f.binary("and", f.compare("sge", left, 0), f.compare("sle", left, s.in_w - self.size)),
        )
        args = (f.arg("in0"), v, start, top, left, f.i64(step))
        f.branch(
            inner,
            lambda: self._void(f, self._transform(border=False), args),
            lambda: self._void(f, self._transform(border=True), args),
        )

    @staticmethod
    def _void(f: Function, name: str, args: Sequence[Reg]) -> None:
        f.call(name, "void", *args)

    def _position(self, tile: Reg) -> tuple[Reg, Reg, Reg]:
        """(image, tile row, tile column) of a tile number."""
        col, rest = tile % self.tiles_w, tile // self.tiles_w
        if self.s.n == 1:
            return tile.fn.i64(0), rest, col
        return rest // self.tiles_h, rest % self.tiles_h, col

    def _function(self, name: str) -> Function:
        names = [*(f"in{i}" for i in range(len(self.p.inputs) + len(self.s.extras))), "out", "workspace", "scratch"]
        return self.m.function(name, [*(("ptr", n) for n in names), ("i64", "begin"), ("i64", "end")])

    def _input_stage(self) -> Stage:
        f = self._function(f"{self.symbol}_input")
        with f.loop(f.arg("begin"), f.arg("end")) as tile:
            self._emit_input(f, tile, f.gep(f.arg("workspace"), tile * self.padded_c), self.tiles * self.padded_c)
        f.ret()
        return Stage(f.name, self.tiles)

    # -- products and output ----------------------------------------------------------------------
    def _product_tiles(self) -> None:
        for rows in {self.c.rows, self.rest} - {0}:
            self._product(rows)

    def _product(self, rows: int) -> str:
        """Private function: products of `rows` tiles with one point's weights, all `width` channels."""
        name = f"{self.symbol}_product_{rows}"
        if any(fn.name == name for fn in self.m.functions):
            return name
        f = self.m.function(name, [("ptr", "v"), ("ptr", "u"), ("ptr", "product")], private=True)
        tile = zero_tile(f, rows, self.c.vectors, self.lanes)
        v, u = f.arg("v"), f.arg("u")

        def step(k: Reg | int) -> None:
            k = f.i64(k)
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda i: f.load("float", v, k + i * self.padded_c),
                lambda j: f.load(self.ty, u, k * self.width + j * self.lanes),
            )

        unrolled(f, self.s.c, 4, step)
        for i in range(rows):
            for j in range(self.c.vectors):
                f.store(tile[i][j].get(), f.arg("product"), i * self.width + j * self.lanes)
        f.ret()
        return name

    def _output(self, count_last: int, *, border: bool) -> str:
        """Private function: output transform, epilogue and store of one tile, one vector of channels."""
        s, m = self.s, self.c.m
        name = f"{self.symbol}_output_{'border' if border else 'inner'}_{count_last}"
        if any(fn.name == name for fn in self.m.functions):
            return name
        extras = [f"e{i}" for i in range(len(s.extras))]
        positions = ("n", "row", "col", "channel")
        f = self.m.function(
            name,
            [*(("ptr", a) for a in ("product", "x", "u", "out", *extras)), *(("i64", a) for a in positions)],
            private=True,
        )
        step = self.c.block * self.width
        columns = [
            self.output(f, [f.load(self.ty, f.arg("product"), (a * self.size + b) * step) for a in range(self.size)])
            for b in range(self.size)
        ]
        tile = [self.output(f, [columns[b][y] for b in range(self.size)]) for y in range(m)]
        total = functools.reduce(operator.add, [value for row in tile for value in row])

        def store_all() -> None:
            for y, x in itertools.product(range(m), range(m)):
                with f.when(self._inside(f, y, x)) if border and (y or x) else contextlib.nullcontext():
                    index = (f.arg("n"), f.arg("channel"), f.arg("row") + y, f.arg("col") + x)
                    self.epilogue.finish(f, tile[y][x], f.arg("out"), [f.arg(e) for e in extras], index, count_last)

        def again() -> None:
            f.call(self._direct(count_last), "void", *(f.arg(a) for a in ("x", "u", "out", *extras, *positions)))

        finite = f.compare("oeq", total * 0.0, 0.0)
        bits = f.cast("bitcast", finite, f"i{self.lanes}") if self.lanes > 1 else finite
        f.branch(f.compare("eq", bits, -1), store_all, again)
        f.ret()
        return name

    def _inside(self, f: Function, y: Reg | int, x: Reg | int) -> Reg:
        return f.binary(
            "and", f.compare("slt", f.arg("row") + y, self.s.out_h), f.compare("slt", f.arg("col") + x, self.s.out_w)
        )

    def _direct(self, count: int) -> str:
        """Private function: one output tile, one vector of channels, without transforms; rare, so small, not fast."""
        s, m = self.s, self.c.m
        name = f"{self.symbol}_direct_{count}"
        if any(fn.name == name for fn in self.m.functions):
            return name
        extras = [f"e{i}" for i in range(len(s.extras))]
        f = self.m.function(
            name,
            [*(("ptr", a) for a in ("x", "u", "out", *extras)), *(("i64", a) for a in ("n", "row", "col", "channel"))],
            private=True,
        )
        with f.loop(0, m) as y, f.loop(0, m) as x, f.when(self._inside(f, y, x)):
            row, col = f.arg("row") + y, f.arg("col") + x
            acc = f.var(self.ty, f.const(self.ty, 0.0))
            for i, j in itertools.product(range(3), range(3)):
                at_y, at_x = row + (i - s.pad[0]), col + (j - s.pad[1])
                with (
                    f.when(f.binary("and", f.compare("ult", at_y, s.in_h), f.compare("ult", at_x, s.in_w))),
                    f.loop(0, s.c) as c,
                ):
                    value = f.load("float", f.arg("x"), f.arg("n") * s.x[0] + at_y * s.x[2] + at_x * s.x[3] + c)
                    acc.set(f.fma(f.splat(value, self.lanes), self._weight(f, i, j, c), acc.get()))
            self.epilogue.finish(
                f, acc.get(), f.arg("out"), [f.arg(e) for e in extras], (f.arg("n"), f.arg("channel"), row, col), count
            )
        f.ret()
        return name

    def _weight(self, f: Function, i: int, j: int, c: Reg) -> Reg:
        """Kernel element (i, j) of input channel c, taken back out of the transformed weights."""
        point_elems = self.s.c * self.width
        terms = [
            f.load(self.ty, f.arg("u"), c * self.width + (a * self.size + b) * point_elems) * (fa * fb)
            for a, fa in INVERSE[self.c.m][i]
            for b, fb in INVERSE[self.c.m][j]
        ]
        return functools.reduce(operator.add, terms)

    def _main_stage(self) -> Stage:
        c = self.c
        f = self._function(self.symbol)
        scratch = f.arg("scratch")
        products = f.gep(scratch, self.points * c.block * self.padded_c) if c.inline else scratch
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            block = unit if c.inline else unit % self.blocks
            first = block * c.block
            last = f.minimum(first + c.block, self.tiles)
            if c.inline:
                with f.loop(first, last) as tile:
                    self._emit_input(f, tile, f.gep(scratch, (tile - first) * self.padded_c), c.block * self.padded_c)
                with f.loop(0, self.panels) as panel:
                    self._block(f, scratch, c.block * self.padded_c, products, panel, first, last)
            else:
                v = f.gep(f.arg("workspace"), first * self.padded_c)
                self._block(f, v, self.tiles * self.padded_c, products, unit // self.blocks, first, last)
        f.ret()
        return Stage(self.symbol, self.blocks * (1 if c.inline else self.panels))

    def _block(self, f: Function, v: Reg, v_step: int, products: Reg, panel: Reg, first: Reg, last: Reg) -> None:
        """Products and outputs of tiles [first, last) for one panel; v is V[0][first]."""
        s, c = self.s, self.c
        point_elems = s.c * self.width
        u = f.gep(f.arg("in1"), panel * (self.points * point_elems))
        with f.loop(0, self.points) as point:
            at_v, at_u = f.gep(v, point * v_step), f.gep(u, point * point_elems)
            at_p = f.gep(products, point * (c.block * self.width))
            with f.loop(0, last - first, c.rows) as row:
                args = (f.gep(at_v, row * self.padded_c), at_u, f.gep(at_p, row * self.width))
                full = functools.partial(self._void, f, self._product(c.rows), args)
                part = functools.partial(self._void, f, self._product(self.rest), args) if self.rest else full
                if self.is_loose:
                    f.branch(f.compare("eq", last - first - row, self.rest), part, full)
                else:
                    is_whole = f.compare("sle", row + c.rows, last - first)
                    choose(f, is_whole, self.tiles >= c.rows, self.rest > 0, full, part)
        with f.loop(first, last) as tile:
            n, tile_row, tile_col = self._position(tile)
            row, col = tile_row * c.m, tile_col * c.m
            inner = f.binary("and", f.compare("sle", row, s.out_h - c.m), f.compare("sle", col, s.out_w - c.m))
            for j in range(c.vectors):
                channel = panel * self.width + j * self.lanes
                at = f.gep(products, (tile - first) * self.width + j * self.lanes)
                extras = [f.arg(f"in{len(self.p.inputs) + i}") for i in range(len(s.extras))]
                output_args: tuple[Reg, ...] = (
                    at,
                    f.arg("in0"),
                    f.gep(u, j * self.lanes),
                    f.arg("out"),
                    *extras,
                    n,
                    row,
                    col,
                    channel,
                )

                def emit(count: int, args: tuple[Reg, ...] = output_args) -> None:
                    choose(
                        f,
                        inner,
                        high(s.out_h) >= c.m and high(s.out_w) >= c.m,
                        may(s.out_h % c.m) or may(s.out_w % c.m),
                        lambda: self._void(f, self._output(count, border=False), args),
                        lambda: self._void(f, self._output(count, border=True), args),
                    )

                with f.when(f.compare("slt", channel, s.k)):
                    choose(
                        f,
                        f.compare("sle", channel + self.lanes, s.k),
                        s.k >= self.lanes,
                        s.k % self.lanes > 0,
                        lambda: emit(self.lanes),
                        lambda: emit(s.k % self.lanes),
                    )


__all__ = ["ConvWinograd", "WinogradConfig"]
