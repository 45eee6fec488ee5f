# SPDX-License-Identifier: Apache-2.0
"""Matrix products: MatMul in all its forms, and 1x1 convolution on channels-last activations.

The right operand is packed in panels [N / (vectors*lanes)][K][vectors*lanes]: at build when it is constant,
else by a first stage into the workspace. A unit is a block of panels times a block of row tiles.

Where only a run knows the number of rows, whole tiles are as ever and the rows after them are tiles of 8, 4, 2 and 1;
where it is the number of columns, the last panel is computed whole and stored in part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Packed, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, body_problem, load_lanes, problem_of
from tensorwright.backends.cpu.kernels.gemm_shape import GemmShape, gemm_shape
from tensorwright.backends.cpu.kernels.microkernel import (
    choose,
    column_panels,
    may,
    rank1_update,
    register_tiles,
    rest_rows,
    unrolled,
    zero_tile,
)
from tensorwright.backends.cpu.kernels.nest import unravel
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, SymDim, ceil_div, high, maximum, minimum, opt
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution
from tensorwright.ops.linear import MatMul


@dataclass(frozen=True, slots=True)
class GemmConfig(Config):
    """Register tile rows x vectors, k unroll, and row tiles / panels per unit (0: all)."""

    rows: int
    vectors: int
    unroll: int
    row_tiles: int
    panels: int


class Gemm(KernelFamily[GemmConfig, CpuTarget, CpuKernel]):
    """Register-tiled matrix product with packed right operand and fused epilogue."""

    name, version, config = "gemm_tiled", 2, GemmConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        if not isinstance(p.anchor, MatMul | Convolution):
            return Reject(f"{p.anchor.kind} is not a matrix product")
        shape = gemm_shape(p)
        if isinstance(shape, str):
            return Reject(shape)
        if any(o is not None and o.dtype is not DType.f32 for o in p.inputs):
            return Reject("an operand is not f32")
        reason = body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[GemmConfig]:
        g = gemm_shape(problem_of(w))
        if isinstance(g, str):
            return
        lanes, seen = t.lanes(DType.f32), set()
        m, n = max(g.rows.size, 1), max(g.n, 1)
        for rows, vectors in register_tiles(
            m, math.ceil(n / lanes), t.vector_registers, most_rows=14, most_vectors=8 if m <= 4 else 4
        )[:3]:
            tiles, panels = math.ceil(m / rows), math.ceil(n / (vectors * lanes))
            for row_tiles, block in _blocks(g, rows, vectors * lanes, tiles, panels, t):
                c = GemmConfig(rows, vectors, 4 if g.k >= 16 else 1, row_tiles, block)
                if c not in seen:
                    seen.add(c)
                    yield c

    def bound(self, w: Workload, t: CpuTarget) -> float:
        g = gemm_shape(problem_of(w))
        if isinstance(g, str):
            return 0.0
        bytes_ = 4 * g.right_batches * g.n * g.k
        resident = bytes_ <= t.l3_bytes
        return max(g.flops / (t.gflops * 1e9 * t.cores), 0.0 if resident else bytes_ / (t.gbytes * 1e9 * t.cores))

    def emit(self, w: Workload, c: GemmConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        p = problem_of(w)
        g = gemm_shape(p)
        if isinstance(g, str):
            raise ValueError(g)
        return _Emitter(w, p, g, c, t, symbol, constants.get(1)).kernel()


def _blocks(g: GemmShape, rows: int, columns: int, tiles: int, panels: int, t: CpuTarget) -> Iterator[tuple[int, int]]:
    """(row tiles, panels) per unit. First panel by panel, rows cut in a few blocks so that workers get equal shares;
    then, for many rows, blocks of the left operand that stay in L2 while all panels pass by."""
    yield math.ceil(tiles / (4 if tiles >= 8 else 2)), 1
    left_bytes = 4 * rows * max(g.k, 1)
    if tiles >= 4 * t.cores and panels > 1:
        yield max(1, min(t.l2_bytes // 3 // left_bytes, math.ceil(tiles / (4 * t.cores)))), panels


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How the work is divided: row tiles and panels in all and per unit, and how many blocks of them there are.

    At the opt sizes the blocks are those of the configuration. Fewer row tiles are cut in as many blocks, then the
    panels in more of them, so that few rows still give every worker something.
    """

    tiles: int
    row_tiles: int
    row_blocks: int
    panels: int
    block: int
    panel_blocks: int

    @staticmethod
    def of(g: GemmShape, c: GemmConfig, width: int, t: CpuTarget) -> _Blocks:
        tiles, panels = ceil_div(g.rows.size, c.rows), ceil_div(g.n, width)
        tiles_at_opt, panels_at_opt = max(opt(tiles), 1), max(opt(panels), 1)
        most_tiles = min(c.row_tiles or tiles_at_opt, tiles_at_opt)
        most_panels = min(c.panels or panels_at_opt, panels_at_opt)
        row_tiles = minimum(most_tiles, maximum(1, ceil_div(tiles, tiles_at_opt // most_tiles)))
        row_blocks = ceil_div(tiles, row_tiles)
        shares = row_blocks * g.batches
        cuts = ceil_div(max(1, min(4 * t.cores, opt(shares))), maximum(1, shares))
        block = minimum(most_panels, maximum(1, ceil_div(panels, cuts)))
        found = (tiles, row_tiles, row_blocks, panels, block, ceil_div(panels, block))
        return _Blocks(*(cast(int, size) for size in found))


class _Emitter:
    """Writes the code of one gemm."""

    def __init__(
        self, w: Workload, p: Problem, g: GemmShape, c: GemmConfig, t: CpuTarget, symbol: str, right: Array | None
    ) -> None:
        self.p, self.g, self.c, self.t, self.symbol, self.right = p, g, c, t, symbol, right
        self.lanes = t.lanes(DType.f32)
        self.width = c.vectors * self.lanes
        self.blocks = _Blocks.of(g, c, self.width, t)
        self.panel_elems = g.k * self.width
        self.full_panels, self.rest_columns = g.n // self.width, g.n % self.width
        self.m = Module()
        self.m.takes_dims = w.is_symbolic
        self.extras = len(p.extras)
        self.epilogue = Epilogue(
            p.fused, (g.rows.output, g.out_n), [(a, b) for a, b in zip(g.rows.extras, g.extras_n, strict=True)], 1
        )

    def kernel(self) -> CpuKernel:
        stages, packed, workspace = [], {}, 0
        if self.right is not None:
            packed[1] = self._packed(self.right)
        else:
            workspace = high(4 * self.g.right_batches * self.blocks.panels * self.panel_elems)
            stages.append(self._pack_stage())
        stages.append(self._main_stage())
        return CpuKernel(self.m.text(), tuple(stages), workspace_bytes=workspace, packed=packed)

    def _packed(self, right: Array) -> Packed:
        """[right_batches][panels][k][width], zero-padded columns."""
        matrices = self._matrices(right)
        batches, k, n = matrices.shape
        return Packed((batches, -(-n // self.width), k, self.width), lambda out: column_panels(matrices, out))

    def _matrices(self, right: Array) -> Array:
        """[right_batches][k][n]"""
        if isinstance(self.p.anchor, Convolution):
            return right.reshape(right.shape[0], right.shape[1]).T[None]
        operand = self.p.inputs[1]
        assert operand is not None
        once = tuple(slice(1) if stride == 0 else slice(None) for stride in operand.strides[:-2])
        return (right[:, None] if right.ndim == 1 else right[once]).reshape(-1, self.g.k, self.g.n)

    def _function(self, name: str) -> tuple[Function, list[Reg], Reg, Reg]:
        """A stage function; returns it, its operand pointers (inputs, output, workspace), begin and end."""
        names = [*(f"in{i}" for i in range(2 + self.extra_slots + self.extras)), "out", "workspace", "scratch"]
        f = self.m.function(name, [*(("ptr", n) for n in names), ("i64", "begin"), ("i64", "end")])
        return f, f.args[:-2], f.arg("begin"), f.arg("end")

    @property
    def extra_slots(self) -> int:
        return len(self.p.inputs) - 2

    def _choose_panel(self, f: Function, panel: Reg, emit: Callable[[Dim], None]) -> None:
        """emit(columns) for a whole panel, or for the last one when it is not."""
        choose(
            f,
            f.compare("slt", panel, self.full_panels),
            may(self.full_panels),
            may(self.rest_columns),
            lambda: emit(self.width),
            lambda: emit(self.rest_columns),
        )

    def _pack_stage(self) -> Stage:
        """Copy one panel of the right operand per unit into the workspace, zero-padding its last columns."""
        g, panels, axes = self.g, self.blocks.panels, self.g.right_batch
        f, pointers, begin, end = self._function(f"{self.symbol}_pack")
        source, workspace = pointers[1], f.arg("workspace")
        with f.loop(begin, end) as unit:
            panel = unit % panels
            batch = unravel(f, unit // panels, [a.size for a in axes])
            right = Epilogue.offset(f, [a.right for a in axes], batch)
            target = f.gep(workspace, unit * self.panel_elems)
            first = f.gep(source, right + panel * (self.width * g.right_n))

            def copy(columns: Dim, first: Reg = first, target: Reg = target) -> None:
                for j in range(self.c.vectors):
                    self._pack_column(f, first, target, j, columns)

            self._choose_panel(f, panel, copy)
        f.ret()
        return Stage(f.name, g.right_batches * panels)

    def _pack_column(self, f: Function, first: Reg, target: Reg, j: int, columns: Dim) -> None:
        """Register j of each row of a panel that has `columns` columns; zero where it has none."""
        g, ty = self.g, vector(self.lanes)

        def rows(count: Reg | int) -> None:
            with f.loop(0, g.k) as k:
                offset = k * g.right_k + j * self.lanes * g.right_n
                value = f.const(ty, 0.0)
                if count != 0:
                    value = load_lanes(f, first, offset, g.right_n, self.lanes, count)
                f.store(value, target, k * self.width + j * self.lanes)

        count = columns - j * self.lanes
        if isinstance(count, SymDim):
            some = f.minimum(f.i64(count), self.lanes)
            f.branch(f.compare("sgt", some, 0), lambda: rows(some), lambda: rows(0))
        else:
            rows(max(0, min(self.lanes, count)))

    def _tile(self, rows: int, columns: Dim) -> str:
        """A private function computing one register tile; returns its name."""
        g = self.g
        name = f"{self.symbol}_tile_{rows}x{'rest' if isinstance(columns, SymDim) else columns}"
        if any(fn.name == name for fn in self.m.functions):
            return name
        args = [
            ("ptr", "a"),
            ("ptr", "b"),
            ("ptr", "out"),
            *(("ptr", f"e{i}") for i in range(self.extras)),
            ("i64", "row"),
            ("i64", "col"),
        ]
        f = self.m.function(name, args, private=True)
        vectors = self.c.vectors if isinstance(columns, SymDim) else math.ceil(columns / self.lanes)
        tile = zero_tile(f, rows, vectors, self.lanes)
        a, b = f.arg("a"), f.arg("b")

        def step(k: Reg | int) -> None:
            k = f.i64(k)
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda i: f.load("float", a, k * g.left_k + i * g.rows.left),
                lambda j: f.load(vector(self.lanes), b, k * self.width + j * self.lanes),
            )

        unrolled(f, g.k, self.c.unroll, step)

        def finish(i: int, j: int, count: Reg | int) -> None:
            extras = [f.arg(f"e{e}") for e in range(self.extras)]
            index = (f.arg("row") + i, f.arg("col") + j * self.lanes)
            self.epilogue.finish(f, tile[i][j].get(), f.arg("out"), extras, index, count)

        if isinstance(columns, SymDim):
            for j in range(vectors):
                count = f.minimum(f.i64(columns - j * self.lanes), self.lanes)
                with f.when(f.compare("sgt", count, 0)):
                    for i in range(rows):
                        finish(i, j, count)
        else:
            for i in range(rows):
                for j in range(vectors):
                    finish(i, j, min(self.lanes, columns - j * self.lanes))
        f.ret()
        return name

    def _main_stage(self) -> Stage:
        g, blocks, axes = self.g, self.blocks, self.g.batch
        f, pointers, begin, end = self._function(self.symbol)
        a, b, out = pointers[0], pointers[1] if self.right is not None else f.arg("workspace"), f.arg("out")
        extra_pointers = pointers[2 + self.extra_slots : 2 + self.extra_slots + self.extras]
        with f.loop(begin, end) as unit:
            row_block, rest = unit % blocks.row_blocks, unit // blocks.row_blocks
            panel_block, batch = rest % blocks.panel_blocks, rest // blocks.panel_blocks
            index = unravel(f, batch, [axis.size for axis in axes])
            base_a = f.gep(a, Epilogue.offset(f, [axis.left for axis in axes], index))
            base_out = f.gep(out, Epilogue.offset(f, [axis.output for axis in axes], index))
            bases = [
                f.gep(e, Epilogue.offset(f, [axis.extras[i] for axis in axes], index))
                for i, e in enumerate(extra_pointers)
            ]
            base_b = f.gep(b, self._right_number(f, index) * (blocks.panels * self.panel_elems))
            first_panel = panel_block * blocks.block
            with f.loop(first_panel, f.minimum(first_panel + blocks.block, blocks.panels)) as panel:
                operands = base_a, f.gep(base_b, panel * self.panel_elems), base_out, *bases
                self._choose_panel(
                    f, panel, lambda columns: self._row_tiles(f, operands, row_block, panel * self.width, columns)
                )
        f.ret()
        return Stage(self.symbol, g.batches * blocks.row_blocks * blocks.panel_blocks)

    def _right_number(self, f: Function, index: list[Reg]) -> Reg:
        """Which right operand the batch at `index` has."""
        number = f.i64(0)
        for axis, position in zip(self.g.batch, index, strict=True):
            if axis.right != 0:
                number = number * axis.size + position
        return number

    def _row_tiles(self, f: Function, operands: tuple[Reg, ...], row_block: Reg, col: Reg, columns: Dim) -> None:
        """All tiles of a block of rows and one panel."""
        rows, size, left = self.c.rows, self.g.rows.size, self.g.rows.left
        full, rest = size // rows, size % rows
        first = row_block * self.blocks.row_tiles

        def call(count: int, row: Reg) -> None:
            a, *others = operands
            f.call(self._tile(count, columns), "void", f.gep(a, row * left), *others, row, col)

        with f.loop(first, f.minimum(first + self.blocks.row_tiles, self.blocks.tiles)) as tile:
            choose(
                f,
                f.compare("slt", tile, full),
                may(full),
                may(rest),
                lambda: call(rows, tile * rows),
                lambda: rest_rows(f, rest, rows, lambda count, at: call(count, tile * rows + at)),
            )


__all__ = ["Gemm", "GemmConfig"]
