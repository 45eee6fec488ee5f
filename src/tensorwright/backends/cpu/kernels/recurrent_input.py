# SPDX-License-Identifier: Apache-2.0
"""What recurrent layers compute before their first step: packed weights, projected inputs, initial states.

The weights of W and R lie in panels [directions][panels][k][blocks][gates][lanes]: a panel holds all gates of some
registers (`blocks`) of hidden units. The projected inputs lie likewise, with steps*batch for k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tensorwright.backends.base import Operand, Packed, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import load_lanes, store_lanes
from tensorwright.backends.cpu.kernels.microkernel import choose, may, rank1_update, rest_rows, unrolled, zero_tile
from tensorwright.backends.cpu.kernels.nest import entry
from tensorwright.backends.cpu.kernels.recurrent_cells import cell_parts
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div, high, opt
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.recurrent import BIAS, C0, H0, PEEPHOLES, R, Recurrent, W, X

_TILES_PER_UNIT = 8


@dataclass(frozen=True, slots=True)
class _Walk:
    """A loop over rows of x: extent, stride in x (elements) and stride in the projected rows (rows)."""

    size: int
    x: int
    row: int


class Projection:
    """Writes the stages before the first step; `blocks` is how many registers of hidden units a panel has."""

    def __init__(self, w: Workload, blocks: int, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> None:
        assert isinstance(w.op, Recurrent)
        self.w, self.op, self.blocks, self.symbol = w, w.op, blocks, symbol
        self.registers = t.vector_registers
        self.lanes = t.lanes(DType.f32)
        self.ty = vector(self.lanes)
        self.inputs = [*w.inputs, *[None] * (PEEPHOLES + 1 - len(w.inputs))]
        x = self.given(X)
        self.steps, self.batch, self.size = x.shape
        self.directions, self.hidden, self.gates = self.op.directions, w.outputs[0].shape[3], self.op.gates
        self.units = blocks * self.lanes  # hidden units of a panel
        self.width = self.gates * self.units
        self.panels = math.ceil(self.hidden / self.units)
        self.padded = self.panels * self.units
        self.constants = constants
        self.parts = cell_parts(self.op)
        self.m = Module()
        self.places: dict[str, int] = {}
        self.workspace_elems = 0
        panels, state = self.directions * self.panels, self.directions * self.batch * self.padded
        for name, elems in (
            ("w", 0 if W in constants else panels * self.size * self.width),
            ("r", 0 if R in constants else panels * self.hidden * self.width),
            ("z", panels * self.steps * self.batch * self.width),
            ("h", 2 * state),  # before and after a step, in turn
            ("c", state if self.op.states > 1 else 0),
            *((name, state) for name in sorted({name for part in self.parts for name in part.kept})),
        ):
            self.places[name] = self.workspace_elems
            self.workspace_elems += -(-high(elems) // 16) * 16

    # -- operands and places --------------------------------------------------------------------
    def given(self, index: int) -> Operand:
        operand = self.inputs[index]
        assert operand is not None
        return operand

    def place(self, f: Function, name: str, offset: Reg | int = 0) -> Reg:
        """A part of the workspace, `offset` elements into it."""
        return f.gep(f.arg("workspace"), f.i64(offset) + self.places[name])

    def state_row(self, f: Function, d: int, row: Reg) -> Reg:
        """Offset of a sequence's hidden units in a buffer of states."""
        return (row + d * self.batch) * self.padded

    def panel_weights(self, f: Function, index: int, unit: Reg) -> Reg:
        """The packed weights (`index` W or R) of panel `unit`, which counts through the directions."""
        rows = self.size if index == W else self.hidden
        offset = unit * (rows * self.width)
        return f.gep(f.arg(f"in{index}"), offset) if index in self.constants else self.place(f, "wr"[index - W], offset)

    def vector_of(self, f: Function, index: int, d: Reg | int, at: Reg, count: int) -> Reg | None:
        """`count` elements of an optional [directions, n] operand from element `at` on; None when it is absent."""
        operand = self.inputs[index]
        if operand is None:
            return None
        offset = f.i64(d) * operand.strides[0] + at * operand.strides[1]
        return load_lanes(f, f.arg(f"in{index}"), offset, operand.strides[1], self.lanes, count)

    def counts(self, is_last: bool) -> list[int]:
        """How many hidden units there are in each register of a panel."""
        left = self.hidden - (self.panels - 1) * self.units if is_last else self.units
        return [max(0, min(self.lanes, left - q * self.lanes)) for q in range(self.blocks)]

    @property
    def _full_panels(self) -> int:
        return self.hidden // self.units

    def by_panel(self, f: Function, panel: Reg, emit: Callable[[bool], None]) -> None:
        """emit(False) for a full panel, emit(True) for the last one when it is not full."""
        full = self._full_panels
        choose(
            f,
            f.compare("slt", panel, full),
            full > 0,
            full < self.panels,
            lambda: emit(False),
            lambda: emit(True),
        )

    def function(self, name: str, *extra: str) -> Function:
        """A private function of the stage's pointers and of some i64."""
        pointers = [*(f"in{i}" for i in range(len(self.w.inputs))), "out0", "workspace"]
        return self.m.function(name, [*(("ptr", p) for p in pointers), *(("i64", e) for e in extra)], private=True)

    def call(self, f: Function, name: str, *extra: Reg) -> None:
        pointers = [*(f.arg(f"in{i}") for i in range(len(self.w.inputs))), f.arg("out0"), f.arg("workspace")]
        f.call(name, "void", *pointers, *extra)

    def is_new(self, name: str) -> bool:
        return all(fn.name != name for fn in self.m.functions)

    # -- weights --------------------------------------------------------------------------------
    def packed(self, weights: Array) -> Packed:
        """Panels of weights [directions, gates*hidden, k], zero past the hidden units."""
        d, _, k = weights.shape
        shape = (d, self.panels, k, self.blocks, self.gates, self.lanes)
        return Packed.of(shape, lambda: self._panels(weights))

    def _panels(self, weights: Array) -> Array:
        d, _, k = weights.shape
        wide = np.zeros((d, self.gates, self.padded, k), np.float32)
        wide[:, :, : self.hidden] = weights.reshape(d, self.gates, self.hidden, k)
        split = wide.reshape(d, self.gates, self.panels, self.blocks, self.lanes, k)
        return split.transpose(0, 2, 5, 3, 1, 4)

    def pack_stage(self) -> Stage:
        """Does the same for weights that are only known at run, one panel per unit."""
        f = entry(self.m, f"{self.symbol}_pack", self.w)
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            d, panel = unit // self.panels, unit % self.panels

            def copy(is_last: bool) -> None:
                for index in (i for i in (W, R) if i not in self.constants):
                    self._pack_panel(f, index, d, panel, unit, self.counts(is_last))

            self.by_panel(f, panel, copy)
        f.ret()
        return Stage(f.name, self.directions * self.panels)

    def _pack_panel(self, f: Function, index: int, d: Reg, panel: Reg, unit: Reg, counts: Sequence[int]) -> None:
        source, target = self.given(index), self.panel_weights(f, index, unit)
        first = f.gep(f.arg(f"in{index}"), d * source.strides[0] + panel * (self.units * source.strides[1]))
        with f.loop(0, source.shape[2]) as k:
            for q, count in enumerate(counts):
                for g in range(self.gates):
                    offset = k * source.strides[2] + (g * self.hidden + q * self.lanes) * source.strides[1]
                    value = f.const(self.ty, 0.0)
                    if count:
                        value = load_lanes(f, first, offset, source.strides[1], self.lanes, count)
                    f.store(value, target, k * self.width + (q * self.gates + g) * self.lanes)

    # -- projection of the inputs ---------------------------------------------------------------
    def _walks(self) -> tuple[_Walk, _Walk]:
        """The rows of x as an outer and an inner loop; a single one where the strides allow it."""
        along_steps, along_batch, _ = self.given(X).strides
        if self.batch == 1:
            return _Walk(1, 0, 0), _Walk(self.steps, along_steps, 1)
        if self.steps == 1 or along_steps == self.batch * along_batch:
            return _Walk(1, 0, 0), _Walk(self.steps * self.batch, along_batch, 1)
        return _Walk(self.batch, along_batch, 1), _Walk(self.steps, along_steps, self.batch)

    def project_stage(self) -> Stage:
        """z = x W' + biases, in units of a panel and some tiles of rows; then a unit per direction for its states."""
        outer, inner = self._walks()
        rows = even_rows(inner.size, self._most_rows())
        inner_tiles = cast(int, ceil_div(inner.size, rows))
        tiles = outer.size * inner_tiles
        blocks = ceil_div(tiles, _TILES_PER_UNIT)
        products = self.directions * self.panels * blocks
        f = entry(self.m, f"{self.symbol}_project", self.w)
        with f.loop(f.arg("begin"), f.minimum(f.arg("end"), products)) as unit:
            whole, first = unit // blocks, unit % blocks * _TILES_PER_UNIT
            with f.loop(first, f.minimum(first + _TILES_PER_UNIT, tiles)) as tile:
                at, row = tile // inner_tiles, tile % inner_tiles * rows
                x = at * outer.x + row * inner.x
                z = at * outer.row + row * inner.row
                full, rest = inner.size // rows, inner.size % rows

                def multiply(is_last: bool, x: Reg = x, z: Reg = z, whole: Reg = whole, row: Reg = row) -> None:
                    def call(count: int, first: Reg | int = 0) -> None:
                        places = x + f.i64(first) * inner.x, z + f.i64(first) * inner.row
                        self.call(f, self._project(count, inner, is_last), whole, *places)

                    choose(
                        f,
                        f.compare("slt", row, full * rows),
                        may(full),
                        may(rest),
                        lambda: call(rows),
                        lambda: rest_rows(f, rest, rows, call),
                    )

                self.by_panel(f, whole % self.panels, multiply)
        with f.loop(f.maximum(f.arg("begin"), products), f.arg("end")) as unit:
            self._start(f, unit - products)
        f.ret()
        return Stage(f.name, cast(int, products + self.directions))

    def _most_rows(self) -> int:
        vectors = self.gates * self.blocks
        return max(1, (self.registers - 1 - vectors) // vectors)

    def _project(self, rows: int, inner: _Walk, is_last: bool) -> str:
        """The function that projects `rows` rows for one panel; its name."""
        name = f"{self.symbol}_project_{rows}{'_last' if is_last else ''}"
        if not self.is_new(name):
            return name
        f = self.function(name, "panel", "x", "z")
        unit, along = f.arg("panel"), self.given(X).strides[2]
        d, first = unit // self.panels, unit % self.panels * self.units
        x, weights = f.gep(f.arg("in0"), f.arg("x")), self.panel_weights(f, W, unit)
        vectors = self.gates * self.blocks
        tile = zero_tile(f, rows, vectors, self.lanes)
        for q, count in enumerate(self.counts(is_last)):
            for g in range(self.gates):
                bias = self._input_bias(f, d, g, first + q * self.lanes, count)
                for row in tile:
                    row[q * self.gates + g].set(bias)

        def step(k: Reg | int) -> None:
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda i: f.load("float", x, f.i64(k) * along + i * inner.x),
                lambda j: f.load(self.ty, weights, f.i64(k) * self.width + j * self.lanes),
            )

        unrolled(f, self.size, 4 if self.size >= 16 else 1, step)
        z = self.place(f, "z", (unit * (self.steps * self.batch) + f.arg("z")) * self.width)
        for i, row in enumerate(tile):
            for j, value in enumerate(row):
                f.store(value.get(), z, i * inner.row * self.width + j * self.lanes)
        f.ret()
        return name

    def _input_bias(self, f: Function, d: Reg, gate: int, first: Reg, count: int) -> Reg:
        """The bias of W, with that of R unless the cell adds it itself."""
        if not count:
            return f.const(self.ty, 0.0)
        bias = self.vector_of(f, BIAS, d, first + gate * self.hidden, count)
        if bias is None:
            return f.const(self.ty, 0.0)
        if any(gate in part.apart for part in self.parts):
            return bias
        recurrent = self.vector_of(f, BIAS, d, first + (self.gates + gate) * self.hidden, count)
        return bias if recurrent is None else bias + recurrent

    def _start(self, f: Function, d: Reg) -> None:
        """Initial states of a direction; they are also the final ones until a step overwrites them."""
        full = self.hidden - self.hidden % self.lanes
        for index, name in ((H0, "h"), (C0, "c"))[: self.op.states]:
            with f.loop(0, self.batch) as row:
                if full:
                    with f.loop(0, full, self.lanes) as col:
                        self._start_register(f, index, name, d, row, col, self.lanes)
                for col_static in range(full, self.padded, self.lanes):
                    count = max(0, min(self.lanes, self.hidden - col_static))
                    self._start_register(f, index, name, d, row, f.i64(col_static), count)

    def _start_register(self, f: Function, index: int, name: str, d: Reg, row: Reg, col: Reg, count: int) -> None:
        given, out = self.inputs[index], self.w.outputs[0].strides
        value = f.const(self.ty, 0.0)
        if given is not None and count:
            offset = d * given.strides[0] + row * given.strides[1] + col * given.strides[2]
            value = load_lanes(f, f.arg(f"in{index}"), offset, given.strides[2], self.lanes, count)
        f.store(value, self.place(f, name, (d * self.batch + row) * self.padded + col))
        if count:
            at = f.i64(self.steps + (index == C0)) * out[0] + d * out[1] + row * out[2] + col * out[3]
            store_lanes(f, value, f.arg("out0"), at, out[3], count)


def even_rows(size: int, most: int) -> int:
    """Rows of a tile, up to `most`, so that tiles of `size` rows (at its opt value) are about equal."""
    rows = opt(size)
    return math.ceil(rows / math.ceil(rows / most)) if rows else 1
