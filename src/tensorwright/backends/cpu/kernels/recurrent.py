# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN layers: one product projects the inputs of all steps, then the steps follow one another.

A panel is a block of hidden units with all their gates side by side, so whoever multiplies a panel of weights also
applies the gates and writes the block's new states. Either every step is a stage, and the workers share its panels; or
each worker takes some sequences of the batch through all steps on its own, which needs no barrier in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.epilogue import store_lanes
from tensorwright.backends.cpu.kernels.microkernel import choose, may, rank1_update, rest_rows, unrolled, zero_tile
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry
from tensorwright.backends.cpu.kernels.recurrent_cells import Cell, cell_parts
from tensorwright.backends.cpu.kernels.recurrent_input import Projection, even_rows
from tensorwright.backends.cpu.pointwise_ops import supports
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import ceil_div, high, maximum, minimum
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.fused import Fused
from tensorwright.ops.recurrent import BIAS, LENGTHS, PEEPHOLES, R, Recurrent, W, X

_MOST_STAGES = 256  # each is a function and a barrier in the code
_SHARED_FLOPS = 300_000  # a step with more of them is worth a barrier


@dataclass(frozen=True, slots=True)
class RecurrentConfig(Config):
    """Batch rows of a register tile, registers of hidden units in a panel, and whether workers share each step."""

    rows: int
    blocks: int
    shared: bool


class RecurrentFused(KernelFamily[RecurrentConfig, CpuTarget, CpuKernel]):
    """f32 recurrent layers with any activations that the pointwise table has, any strides and sizes."""

    name, version, config = "recurrent_fused", 1, RecurrentConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, Recurrent):
            return Reject(f"{w.op.kind} is not a recurrent layer")
        for i, operand in enumerate(w.inputs):
            if operand is not None and operand.dtype is not (DType.i32 if i == LENGTHS else DType.f32):
                return Reject(f"operand {i} is {operand.dtype}")
        reasons = [_function_problem(fn) for d in range(w.op.directions) for fn in w.op.functions(d)]
        return Reject(next(filter(None, reasons))) if any(reasons) else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[RecurrentConfig]:
        assert isinstance(w.op, Recurrent)
        steps, _, batch, hidden = w.outputs[0].shape
        steps -= w.op.states
        gates, lanes = w.op.gates, t.lanes(DType.f32)
        many = w.op.directions * batch >= 8 * t.cores  # sequences for everybody without barriers
        shared = t.cores > 1 and not many and 2 * gates * hidden * hidden * batch > _SHARED_FLOPS
        stages = steps * len(cell_parts(w.op))
        most = max(1, math.ceil(hidden / lanes))
        for share in (shared, not shared):
            if share and stages > _MOST_STAGES:
                continue
            for blocks in dict.fromkeys(min(b, most) for b in ((4, 8) if gates == 1 else (1, 2))):
                vectors = gates * blocks
                yield RecurrentConfig(
                    even_rows(batch, max(1, (t.vector_registers - 1 - vectors) // vectors)), blocks, share
                )

    def bound(self, w: Workload, t: CpuTarget) -> float:
        x, r = w.inputs[X], w.inputs[R]
        if x is None or r is None:
            return 0.0
        flops = 2 * math.prod(r.shape[:2]) * (x.shape[2] + r.shape[2]) * x.shape[0] * x.shape[1]
        return flops / (t.gflops * 1e9 * t.cores)

    def emit(
        self, w: Workload, c: RecurrentConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        return _Emitter(w, c, t, symbol, constants).kernel()


def _function_problem(fn: Op) -> str | None:
    ops = [instr.op for instr in fn.body] if isinstance(fn, Fused) else [fn]
    return next((reason for op in ops if (reason := supports(op, [DType.f32]))), None)


class _Emitter(Projection):
    """Writes the code of one layer."""

    def __init__(self, w: Workload, c: RecurrentConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> None:
        super().__init__(w, c.blocks, t, symbol, constants)
        self.c = c

    def kernel(self) -> CpuKernel:
        packed = {i: self.packed(self.constants[i]) for i in (W, R) if i in self.constants}
        stages = [] if len(packed) == 2 else [self.pack_stage()]
        stages.append(self.project_stage())
        can_share = high(self.steps) * len(self.parts) <= _MOST_STAGES
        stages += self._step_stages() if self.c.shared and can_share else [self._run_stage()]
        return CpuKernel(self.m.text(), tuple(stages), workspace_bytes=4 * self.workspace_elems, packed=packed)

    def _step_stages(self) -> list[Stage]:
        """A stage for each step and part of the cell; a unit is a panel."""
        units, names = self.directions * self.panels, []
        for number in range(len(self.parts)):
            f = self.function(f"{self.symbol}_step{number}", "t", "begin", "end")
            with f.loop(f.arg("begin"), f.arg("end")) as unit:
                panel = unit % self.panels

                def all_rows(d: int, number: int = number, f: Function = f, panel: Reg = panel) -> None:
                    with f.loop(0, ceil_div(self.batch, self.c.rows)) as tile:
                        self._advance(f, number, d, panel, tile * self.c.rows, f.arg("t"))

                self._by_direction(f, f.compare("ult", unit, self.panels), all_rows)
            f.ret()
            names.append(f.name)
        stages = []
        for t in range(high(self.steps)):
            is_step = minimum(1, maximum(0, self.steps - t))
            for number, name in enumerate(names):
                f = entry(self.m, f"{self.symbol}_t{t}_{number}", self.w)
                self.call(f, name, f.i64(t), f.arg("begin"), f.arg("end"))
                f.ret()
                stages.append(Stage(f.name, cast(int, units * is_step)))
        return stages

    def _run_stage(self) -> Stage:
        """All steps in one stage; a unit is a direction and a tile of the batch."""
        tiles = cast(int, ceil_div(self.batch, self.c.rows))
        f = entry(self.m, f"{self.symbol}_run", self.w)
        with f.loop(f.arg("begin"), f.arg("end")) as unit:

            def all_steps(d: int) -> None:
                with f.loop(0, self.steps) as t:
                    for number in range(len(self.parts)):
                        with f.loop(0, self.panels) as panel:
                            self._advance(f, number, d, panel, unit % tiles * self.c.rows, t)

            self._by_direction(f, f.compare("ult", unit, tiles), all_steps)
        f.ret()
        return Stage(f.name, self.directions * tiles)

    def _by_direction(self, f: Function, is_first: Reg, emit: Callable[[int], None]) -> None:
        choose(f, is_first, True, self.directions == 2, lambda: emit(0), lambda: emit(1))

    def _advance(self, f: Function, number: int, d: int, panel: Reg, row: Reg, t: Reg) -> None:
        """Call one part of the cell for a panel and the tile of the batch that begins at `row`."""
        rows, rest = self.c.rows, self.batch % self.c.rows

        def call(is_last: bool) -> None:
            def cell(count: int, first: Reg | int = 0) -> None:
                self.call(f, self._cell(number, d, count, is_last), panel, row + first, t)

            choose(
                f,
                f.compare("slt", row, self.batch - rest),
                may(self.batch - rest),
                may(rest),
                lambda: cell(rows),
                lambda: rest_rows(f, rest, rows, cell),
            )

        self.by_panel(f, panel, call)

    def _cell(self, number: int, d: int, rows: int, is_last: bool) -> str:
        """The function of one part of the cell in direction d for `rows` sequences and one panel; its name."""
        name = f"{self.symbol}_cell{number}_{d}_{rows}{'_last' if is_last else ''}"
        if not self.is_new(name):
            return name
        part = self.parts[number]
        f = self.function(name, "panel", "row", "t")
        panel, row, t = f.arg("panel"), f.arg("row"), f.arg("t")
        states = self.directions * self.batch * self.padded
        before, after = t % 2 * states, (t + 1) % 2 * states
        left = self.place(f, part.left, self.state_row(f, d, row) + (before if part.left == "h" else 0))
        weights = self.panel_weights(f, R, panel + d * self.panels)
        positions = [self._position(f, d, row + i, t) for i in range(rows)]
        first = panel * self.units
        z = [
            self.place(
                f,
                "z",
                ((panel + d * self.panels) * (self.steps * self.batch) + at * self.batch + row + i) * self.width,
            )
            for i, (at, _) in enumerate(positions)
        ]
        columns = [q * self.gates + g for q in range(self.blocks) for g in part.gates]
        tile = zero_tile(f, rows, len(columns), self.lanes)
        counts = self.counts(is_last)
        for i, accumulators in enumerate(tile):
            for j, accumulator in zip(columns, accumulators, strict=True):
                q, g = divmod(j, self.gates)
                if g not in part.apart:
                    accumulator.set(f.load(self.ty, z[i], j * self.lanes))
                elif counts[q]:
                    at = first + q * self.lanes + (self.gates + g) * self.hidden
                    bias = self.vector_of(f, BIAS, d, at, counts[q])
                    if bias is not None:
                        accumulator.set(bias)

        def step(k: Reg | int) -> None:
            rank1_update(
                f,
                tile,
                self.lanes,
                lambda i: f.load("float", left, f.i64(k) + i * self.padded),
                lambda j: f.load(self.ty, weights, f.i64(k) * self.width + columns[j] * self.lanes),
            )

        unrolled(f, self.hidden, 4 if self.hidden >= 16 else 1, step)
        for i, accumulators in enumerate(tile):
            for q, count in enumerate(counts):
                if count:
                    at, active = positions[i]
                    sums = accumulators[q * len(part.gates) : (q + 1) * len(part.gates)]
                    part.finish(
                        Cell(
                            f,
                            self.op,
                            d,
                            {g: s.get() for g, s in zip(part.gates, sums, strict=True)},
                            lambda g, i=i, q=q: f.load(self.ty, z[i], (q * self.gates + g) * self.lanes),  # type: ignore[misc]
                            _Places(self, f, d, row + i, first + q * self.lanes, count, at, active, t, before, after),
                        )
                    )
        f.ret()
        return name

    def _position(self, f: Function, d: int, row: Reg, t: Reg) -> tuple[Reg, Reg | None]:
        """Which input a sequence reads at step t, and whether it has one (None: surely)."""
        lengths, reverse = self.inputs[LENGTHS], self.op.is_reverse(d)
        if lengths is None:
            return (self.steps - 1) - t if reverse else t, None
        stored = f.load("i32", f.arg(f"in{LENGTHS}"), row * lengths.strides[0])
        length = f.minimum(f.cast("sext", stored, "i64"), self.steps)
        active = f.compare("slt", t, length)
        return f.select(active, length - 1 - t, t) if reverse else t, active


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a register of hidden units of one sequence finds and leaves its states; see `recurrent_cells.States`."""

    e: _Emitter
    f: Function
    d: int
    row: Reg
    col: Reg
    count: int
    at: Reg
    active: Reg | None
    t: Reg
    before: Reg
    after: Reg

    def peephole(self, which: int) -> Reg | None:
        return self.e.vector_of(self.f, PEEPHOLES, self.d, self.col + which * self.e.hidden, self.count)

    def read(self, name: str) -> Reg:
        return self.f.load(self.e.ty, self._address(name, self.before))

    def keep(self, name: str, value: Reg) -> None:
        self.f.store(value, self._address(name, self.before))

    def leave(self, values: Sequence[Reg]) -> None:
        f = self.f
        zero = f.const(self.e.ty, 0.0)
        self._store(values[0] if self.active is None else f.select(self.active, values[0], zero), self.at)
        is_final = f.compare("eq", self.t, self.e.steps - 1)
        for i, (name, new) in enumerate(zip(("h", "c"), values, strict=False)):
            value = new if self.active is None else f.select(self.active, new, self.read(name))
            f.store(value, self._address(name, self.after))
            with f.when(is_final):
                self._store(value, f.i64(self.e.steps + i))

    def _address(self, name: str, turn: Reg) -> Reg:
        offset = self.e.state_row(self.f, self.d, self.row) + self.col
        return self.e.place(self.f, name, offset + turn if name == "h" else offset)

    def _store(self, value: Reg, position: Reg) -> None:
        s = self.e.w.outputs[0].strides
        offset = position * s[0] + self.d * s[1] + self.row * s[2] + self.col * s[3]
        store_lanes(self.f, value, self.f.arg("out0"), offset, s[3], self.count)
