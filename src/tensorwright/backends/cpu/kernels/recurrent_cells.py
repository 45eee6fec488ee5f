# SPDX-License-Identifier: Apache-2.0
"""The gates of recurrent cells on registers: what happens to the sums of a step, for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.pointwise_ops import emit_body
from tensorwright.ops.fused import Fused, Instr
from tensorwright.ops.recurrent import Gru, Lstm, Recurrent


class States(Protocol):
    """The states of some hidden units of one sequence."""

    def peephole(self, which: int) -> Reg | None:
        """Peephole weights (0 input, 1 output, 2 forget), if there are any."""

    def read(self, name: str) -> Reg:
        """State "h" or "c" before the step, or a value that an earlier part kept."""

    def keep(self, name: str, value: Reg) -> None:
        """Leave a value for the next part of the step."""

    def leave(self, values: Sequence[Reg]) -> None:
        """Write the states after the step, h first, and the outputs."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One register of hidden units: `sums` by gate, `projected(gate)` from the input alone, and the states."""

    f: Function
    layer: Recurrent
    direction: int
    sums: Mapping[int, Reg]
    projected: Callable[[int], Reg]
    states: States

    def activate(self, index: int, x: Reg, *, clipped: bool = True) -> Reg:
        """Activation function `index` of x, which is bounded before."""
        clip, fn = self.layer.clip, self.layer.functions(self.direction)[index]
        if clip is not None and clipped:
            x = self.f.minimum(self.f.maximum(x, -clip), clip)
        region = fn if isinstance(fn, Fused) else Fused(None, 0, (Instr(fn, (0,)),))
        return emit_body(self.f, region, [x], None)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a step that needs no other worker's results of the same part.

    It multiplies the values `left` (the state "h", or what an earlier part kept) by the weights of `gates`. The sums
    begin with the projected input, those of the gates `apart` with the recurrent bias. `kept` names what it leaves.
    """

    gates: tuple[int, ...]
    finish: Callable[[Cell], None]
    left: str = "h"
    apart: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()


def cell_parts(layer: Recurrent) -> tuple[Part, ...]:
    """The parts of one step, in order."""
    if isinstance(layer, Lstm):
        return (Part((0, 1, 2, 3), _lstm),)
    if not isinstance(layer, Gru):
        return (Part((0,), lambda cell: cell.states.leave([cell.activate(0, cell.sums[0])])),)
    if layer.linear_before_reset:
        return (Part((0, 1, 2), _gru_linear, apart=(2,)),)
    return Part((0, 1), _gru_gates, kept=("reset", "update")), Part((2,), _gru_hidden, left="reset")


def _lstm(cell: Cell) -> None:
    layer, f, s = cell.layer, cell.f, cell.states
    assert isinstance(layer, Lstm)
    before = s.read("c")

    def seen(gate: int, which: int, state: Reg) -> Reg:
        weights = s.peephole(which)
        return cell.sums[gate] if weights is None else f.fma(weights, state, cell.sums[gate])

    i = cell.activate(0, seen(0, 0, before))
    forget = 1.0 - i if layer.input_forget else cell.activate(0, seen(2, 2, before))
    after = f.fma(forget, before, i * cell.activate(1, cell.sums[3]))
    o = cell.activate(0, seen(1, 1, after))
    s.leave([o * cell.activate(2, after, clipped=False), after])


def _mixed(cell: Cell, update: Reg, new: Reg) -> None:
    """h' = (1 - update)*new + update*h."""
    cell.states.leave([cell.f.fma(update, cell.states.read("h"), (1.0 - update) * new)])


def _gru_linear(cell: Cell) -> None:
    update, reset = cell.activate(0, cell.sums[0]), cell.activate(0, cell.sums[1])
    _mixed(cell, update, cell.activate(1, cell.f.fma(reset, cell.sums[2], cell.projected(2))))


def _gru_gates(cell: Cell) -> None:
    cell.states.keep("update", cell.activate(0, cell.sums[0]))
    cell.states.keep("reset", cell.activate(0, cell.sums[1]) * cell.states.read("h"))


def _gru_hidden(cell: Cell) -> None:
    _mixed(cell, cell.states.read("update"), cell.activate(1, cell.sums[2]))
