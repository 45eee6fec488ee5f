# SPDX-License-Identifier: Apache-2.0
"""Matrix products: MatMul in all its forms, and 1x1 convolution on channels-last activations.

The right operand is packed in panels [N / (vectors*lanes)][K][vectors*lanes]: at build when it is constant,
else by a first stage into the workspace. A unit is a block of panels times a block of row tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, problem_of
from tensorwright.backends.cpu.kernels.microkernel import (
    choose,
    column_panels,
    rank1_update,
    register_tiles,
    unrolled,
    zero_tile,
)
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.conv import Convolution
from tensorwright.ops.linear import MatMul


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop over output rows: extent and the stride of each operand along it (right operand: 0 = shared)."""

    size: int
    left: int
    right: int
    output: int
    extras: tuple[int, ...]

    def then(self, inner: Axis) -> Axis | None:
        """This axis and the next inner one as a single axis, when every operand allows it."""
        if self.size == 1:
            return inner
        if inner.size == 1:
            return self
        pairs = [
            (self.left, inner.left),
            (self.right, inner.right),
            (self.output, inner.output),
            *zip(self.extras, inner.extras, strict=True),
        ]
        if any(o != inner.size * i for o, i in pairs):
            return None
        return Axis(self.size * inner.size, inner.left, inner.right, inner.output, inner.extras)


@dataclass(frozen=True, slots=True)
class GemmShape:
    """out[batch, m, n] = sum_k left[batch, m, k] * right[batch, k, n], all by strides."""

    batch: tuple[Axis, ...]
    rows: Axis
    n: int
    k: int
    left_k: int
    right_k: int
    right_n: int
    out_n: int
    extras_n: tuple[int, ...]

    @property
    def batches(self) -> int:
        return math.prod(a.size for a in self.batch)

    @property
    def right_batches(self) -> int:
        """How many different right operands there are."""
        return self.batches if any(a.right for a in self.batch) else 1

    @property
    def flops(self) -> int:
        return 2 * self.batches * self.rows.size * self.n * self.k


@dataclass(frozen=True, slots=True)
class GemmConfig(Config):
    """Register tile rows x vectors, k unroll, and row tiles / panels per unit (0: all)."""

    rows: int
    vectors: int
    unroll: int
    row_tiles: int
    panels: int


def gemm_shape(p: Problem) -> GemmShape | str:
    """The matrix product a problem is, or why it is none."""
    if isinstance(p.anchor, MatMul):
        return _matmul_shape(p)
    if isinstance(p.anchor, Convolution):
        return _pointwise_convolution_shape(p, p.anchor)
    return f"{p.anchor.kind} is not a matrix product"


def _matmul_shape(p: Problem) -> GemmShape | str:
    a, b, out = p.inputs[0], p.inputs[1], p.output
    if a is None or b is None:
        return "an operand is missing"
    rank = max(len(out.shape) + (len(a.shape) == 1) + (len(b.shape) == 1), 2)

    def widen(o: Operand, *, left: bool = False, right: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape and strides with the unit axes NumPy's matmul drops for 1-D operands put back."""
        shape, strides = list(o.shape), list(o.strides)
        if left:
            shape.insert(len(shape) - (0 if right else 1), 1)
            strides.insert(len(strides) - (0 if right else 1), 0)
        if right:
            shape.append(1)
            strides.append(0)
        return tuple(shape), tuple(strides)

    def over(strides: tuple[int, ...]) -> tuple[int, ...]:
        return (0,) * (rank - len(strides)) + strides

    one_left, one_right = len(a.shape) == 1, len(b.shape) == 1
    a_shape, a_strides = ((1, *a.shape), (0, *a.strides)) if one_left else (a.shape, a.strides)
    b_shape, b_strides = ((*b.shape, 1), (*b.strides, 0)) if one_right else (b.shape, b.strides)
    out_shape, out_strides = widen(out, left=one_left, right=one_right)
    extras = []
    for e in p.extras:
        full = Operand(
            e.dtype,
            (1,) * (len(out.shape) - len(e.shape)) + e.shape,
            (0,) * (len(out.shape) - len(e.shape)) + e.strides,
        )
        extras.append(over(widen(full, left=one_left, right=one_right)[1]))
    a_over, b_over, o_over = over(a_strides), over(b_strides), over(out_strides)
    out_shape = (1,) * (rank - len(out_shape)) + out_shape
    axes = [
        Axis(out_shape[i], a_over[i], b_over[i] if i < rank - 2 else 0, o_over[i], tuple(e[i] for e in extras))
        for i in range(rank - 1)
    ]
    return _shape(
        axes, out_shape[-1], a_shape[-1], a_over[-1], b_over[-2], b_over[-1], o_over[-1], tuple(e[-1] for e in extras)
    )


def _pointwise_convolution_shape(p: Problem, conv: Convolution) -> GemmShape | str:
    x, w, out = p.inputs[0], p.inputs[1], p.output
    if x is None or w is None or len(p.inputs) > 2 and p.inputs[2] is not None:
        return "the convolution has a separate bias"
    if math.prod(w.shape[2:]) != 1:
        return f"the kernel is {'x'.join(map(str, w.shape[2:]))}, not 1x1"
    if conv.groups != 1 or any(conv.pads):
        return f"groups={conv.groups}, pads={conv.pads}: not a plain matrix product"
    rank = len(out.shape)
    extras = [aligned_strides(e, rank) for e in p.extras]
    axes = [
        Axis(
            out.shape[i],
            x.strides[i] * (conv.strides[i - 2] if i >= 2 else 1),
            0,
            out.strides[i],
            tuple(e[i] for e in extras),
        )
        for i in (0, *range(2, rank))
    ]
    return _shape(
        axes,
        w.shape[0],
        w.shape[1],
        x.strides[1],
        w.strides[1],
        w.strides[0],
        out.strides[1],
        tuple(e[1] for e in extras),
    )


def _shape(
    axes: Sequence[Axis], n: int, k: int, left_k: int, right_k: int, right_n: int, out_n: int, extras_n: tuple[int, ...]
) -> GemmShape:
    joined = [axes[0]]
    for axis in axes[1:]:
        both = joined[-1].then(axis)
        if both is None:
            joined.append(axis)
        else:
            joined[-1] = both
    if joined[-1].right:  # the right operand changes with every row: each row is a batch of its own
        joined.append(Axis(1, 0, 0, 0, (0,) * len(extras_n)))
    return GemmShape(tuple(joined[:-1]), joined[-1], n, k, left_k, right_k, right_n, out_n, extras_n)


class Gemm(KernelFamily[GemmConfig, CpuTarget, CpuKernel]):
    """Register-tiled matrix product with packed right operand and fused epilogue."""

    name, version, config = "gemm_tiled", 1, GemmConfig

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
        for rows, vectors in register_tiles(
            g.rows.size,
            math.ceil(g.n / lanes),
            t.vector_registers,
            most_rows=14,
            most_vectors=8 if g.rows.size <= 4 else 4,
        )[:3]:
            tiles, panels = math.ceil(g.rows.size / rows), math.ceil(g.n / (vectors * lanes))
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
        return _Emitter(p, g, c, t, symbol, constants.get(1)).kernel()


def _blocks(g: GemmShape, rows: int, columns: int, tiles: int, panels: int, t: CpuTarget) -> Iterator[tuple[int, int]]:
    """(row tiles, panels) per unit. First panel by panel, rows cut in a few blocks so that workers get equal shares;
    then, for many rows, blocks of the left operand that stay in L2 while all panels pass by."""
    yield math.ceil(tiles / (4 if tiles >= 8 else 2)), 1
    left_bytes = 4 * rows * g.k
    if tiles >= 4 * t.cores and panels > 1:
        yield max(1, min(t.l2_bytes // 3 // left_bytes, math.ceil(tiles / (4 * t.cores)))), panels


class _Emitter:
    """Writes the code of one gemm."""

    def __init__(self, p: Problem, g: GemmShape, c: GemmConfig, t: CpuTarget, symbol: str, right: Array | None) -> None:
        self.p, self.g, self.c, self.t, self.symbol, self.right = p, g, c, t, symbol, right
        self.lanes = t.lanes(DType.f32)
        self.width = c.vectors * self.lanes
        self.panels = math.ceil(g.n / self.width)
        self.tiles = math.ceil(g.rows.size / c.rows)
        self.row_tiles = min(c.row_tiles or self.tiles, self.tiles)
        self.block = min(c.panels or self.panels, self.panels)
        self.panel_elems = g.k * self.width
        self.m = Module()
        self.extras = len(p.extras)
        self.epilogue = Epilogue(
            p.fused, (g.rows.output, g.out_n), [(a, b) for a, b in zip(g.rows.extras, g.extras_n, strict=True)], 1
        )

    def kernel(self) -> CpuKernel:
        g = self.g
        stages, packed, workspace = [], {}, 0
        if self.right is not None:
            packed[1] = self._packed(self.right)
        else:
            workspace = 4 * g.right_batches * self.panels * self.panel_elems
            stages.append(self._pack_stage())
        stages.append(self._main_stage())
        return CpuKernel(self.m.text(), tuple(stages), workspace_bytes=workspace, packed=packed)

    def _packed(self, right: Array) -> Array:
        """[right_batches][panels][k][width], zero-padded columns."""
        g = self.g
        if isinstance(self.p.anchor, Convolution):
            matrix = right.reshape(right.shape[0], right.shape[1]).T[None]
        else:
            matrix = right[:, None] if right.ndim == 1 else right
            if g.right_batches == 1:
                matrix = matrix.reshape(-1, *matrix.shape[-2:])[:1]
            else:
                shape = self.p.output.shape
                matrix = np.broadcast_to(matrix, (*shape[: len(shape) - 2], g.k, g.n)).reshape(-1, g.k, g.n)
        return np.ascontiguousarray(column_panels(matrix, self.width))

    def _function(self, name: str) -> tuple[Function, list[Reg], Reg, Reg]:
        """A stage function; returns it, its operand pointers (inputs, output, workspace), begin and end."""
        names = [*(f"in{i}" for i in range(2 + self.extra_slots + self.extras)), "out", "workspace", "scratch"]
        f = self.m.function(name, [*(("ptr", n) for n in names), ("i64", "begin"), ("i64", "end")])
        return f, f.args[:-2], f.arg("begin"), f.arg("end")

    @property
    def extra_slots(self) -> int:
        return len(self.p.inputs) - 2

    def _batch_offsets(self, f: Function, batch: Reg) -> tuple[Reg, Reg, Reg, list[Reg]]:
        """Offsets (elements) of left, right, output and extras for a flat batch index."""
        left = right = out = f.i64(0)
        extras = [f.i64(0)] * self.extras
        for axis in reversed(self.g.batch):
            position = batch % axis.size if axis is not self.g.batch[0] else batch
            batch = batch // axis.size if axis is not self.g.batch[0] else batch
            left, right, out = left + position * axis.left, right + position * axis.right, out + position * axis.output
            extras = [e + position * s for e, s in zip(extras, axis.extras, strict=True)]
        return left, right, out, extras

    def _pack_stage(self) -> Stage:
        """Copy one panel of the right operand per unit into the workspace, zero-padding its last columns."""
        g = self.g
        f, pointers, begin, end = self._function(f"{self.symbol}_pack")
        source, workspace = pointers[1], f.arg("workspace")
        with f.loop(begin, end) as unit:
            panel = unit % self.panels
            right = self._batch_offsets(f, unit // self.panels)[1] if g.right_batches > 1 else f.i64(0)
            target = f.gep(workspace, unit * self.panel_elems)
            first = f.gep(source, right + panel * (self.width * g.right_n))
            full = g.n // self.width

            def copy(columns: int, first: Reg = first, target: Reg = target) -> None:
                from tensorwright.backends.cpu.epilogue import load_lanes

                with f.loop(0, g.k) as k:
                    for j in range(self.c.vectors):
                        count = min(self.lanes, columns - j * self.lanes)
                        offset = k * g.right_k + j * self.lanes * g.right_n
                        value = (
                            load_lanes(f, first, offset, g.right_n, self.lanes, count)
                            if count > 0
                            else f.const(f"<{self.lanes} x float>", 0.0)
                        )
                        f.store(value, target, k * self.width + j * self.lanes)

            choose(
                f,
                f.compare("slt", panel, full),
                full > 0,
                full < self.panels,
                lambda: copy(self.width),
                lambda: copy(g.n - full * self.width),
            )
        f.ret()
        return Stage(f.name, g.right_batches * self.panels)

    def _tile(self, rows: int, columns: int) -> str:
        """A private function computing one register tile; returns its name."""
        g = self.g
        name = f"{self.symbol}_tile_{rows}x{columns}"
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
        vectors = math.ceil(columns / self.lanes)
        tile = zero_tile(f, rows, vectors, self.lanes)
        a, b = f.arg("a"), f.arg("b")

        def step(k: Reg | int) -> None:
            k = f.i64(k)
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda i: f.load("float", a, k * g.left_k + i * g.rows.left),
                lambda j: f.load(
                    f"<{self.lanes} x float>" if self.lanes > 1 else "float", b, k * self.width + j * self.lanes
                ),
            )

        unrolled(f, g.k, self.c.unroll, step)
        extras = [f.arg(f"e{i}") for i in range(self.extras)]
        for i in range(rows):
            for j in range(vectors):
                self.epilogue.finish(
                    f,
                    tile[i][j].get(),
                    f.arg("out"),
                    extras,
                    (f.arg("row") + i, f.arg("col") + j * self.lanes),
                    min(self.lanes, columns - j * self.lanes),
                )
        f.ret()
        return name

    def _main_stage(self) -> Stage:
        g, c = self.g, self.c
        full_rows, rest_rows = g.rows.size // c.rows, g.rows.size % c.rows
        full_panels, rest_columns = g.n // self.width, g.n % self.width
        row_blocks, panel_blocks = math.ceil(self.tiles / self.row_tiles), math.ceil(self.panels / self.block)
        f, pointers, begin, end = self._function(self.symbol)
        a, b, out = pointers[0], pointers[1] if self.right is not None else f.arg("workspace"), f.arg("out")
        extra_pointers = pointers[2 + self.extra_slots : 2 + self.extra_slots + self.extras]
        with f.loop(begin, end) as unit:
            row_block, rest = unit % row_blocks, unit // row_blocks
            panel_block, batch = rest % panel_blocks, rest // panel_blocks
            left, _, output, extra_offsets = self._batch_offsets(f, batch)
            base_a, base_out = f.gep(a, left), f.gep(out, output)
            bases = [f.gep(e, o) for e, o in zip(extra_pointers, extra_offsets, strict=True)]
            base_b = f.gep(b, batch * (self.panels * self.panel_elems)) if g.right_batches > 1 else b
            first_tile, first_panel = row_block * self.row_tiles, panel_block * self.block
            last_tile = f.minimum(first_tile + self.row_tiles, self.tiles)
            last_panel = f.minimum(first_panel + self.block, self.panels)
            with f.loop(first_panel, last_panel) as panel:
                panel_b, col = f.gep(base_b, panel * self.panel_elems), panel * self.width

                def tiles(columns: int, panel_b: Reg = panel_b, col: Reg = col) -> None:
                    def call(rows: int, tile: Reg) -> None:
                        row = tile * c.rows
                        f.call(
                            self._tile(rows, columns),
                            "void",
                            f.gep(base_a, row * g.rows.left),
                            panel_b,
                            base_out,
                            *bases,
                            row,
                            col,
                        )

                    with f.loop(first_tile, last_tile) as tile:
                        choose(
                            f,
                            f.compare("slt", tile, full_rows),
                            full_rows > 0,
                            rest_rows > 0,
                            lambda: call(c.rows, tile),
                            lambda: call(rest_rows, tile),
                        )

                choose(
                    f,
                    f.compare("slt", panel, full_panels),
                    full_panels > 0,
                    rest_columns > 0,
                    lambda: tiles(self.width),
                    lambda: tiles(rest_columns),
                )
        f.ret()
        return Stage(self.symbol, g.batches * row_blocks * panel_blocks)


__all__ = ["Gemm", "GemmConfig", "GemmShape", "gemm_shape"]
