# SPDX-License-Identifier: Apache-2.0
"""The lowered network: buffers, views and steps in execution order, grouped into phases."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tensorwright.backends.base import Operand, Workload
from tensorwright.ir.dims import Symbol, SymDim
from tensorwright.ir.op import Array
from tensorwright.ir.types import TensorType


class Place(enum.Enum):
    """Where a buffer lives."""

    input = "input"  # the caller's array
    output = "output"  # the caller's (or a fresh) array
    constant = "constant"  # the plan's weights
    arena = "arena"  # the context's arena, offset assigned by the memory plan


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of memory. `index` is its position among buffers of the same place (inputs, outputs, constants)."""

    name: str
    place: Place
    index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class View:
    """An operand inside a buffer: `offset` in elements of the operand's dtype."""

    buffer: Buffer
    offset: int
    operand: Operand


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call. `origin` are source-model node names; `name` is unique and readable. `node` is the name of the
    graph node that the step works for ("" for the copy of an input or constant that is also an output)."""

    name: str
    workload: Workload
    inputs: tuple[View | None, ...]
    outputs: tuple[View, ...]
    origin: tuple[str, ...]
    node: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """One input or output of the engine as the user sees it."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Program:
    """Steps in a valid order; `phases` lists indexes of steps that may run side by side, a barrier between phases."""

    name: str
    inputs: tuple[Interface, ...]
    outputs: tuple[Interface, ...]
    steps: tuple[Step, ...]
    phases: tuple[tuple[int, ...], ...]
    buffers: tuple[Buffer, ...]
    constants: tuple[Array, ...]  # by Buffer.index of place constant

    @property
    def decided(self) -> tuple[str, ...]:
        """The symbols whose values the program itself decides, in order of name."""
        dims = (d for step in self.steps for d in step.workload.op.decides if isinstance(d, SymDim))
        return tuple(sorted({str(s) for d in dims for s in d.symbols}))

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The sizes that a run decides, by slot."""
        dims = {d for part in (*self.inputs, *self.outputs) for d in part.type.shape if isinstance(d, SymDim)}
        found = {s for dim in dims for s in dim.symbols if isinstance(s, Symbol)}
        found |= {s for step in self.steps for s in step.workload.symbols}
        return tuple(sorted(found, key=lambda s: s.slot))
