# SPDX-License-Identifier: Apache-2.0
"""Kernels that decide sizes, or write them as data.

Those that decide write to the engine's table of sizes before anything reads them.

A size outside of its bounds must not reach other kernels, whose memory was planned for the bounds: the nearest bound is
written instead, and the symbol's number, from 1, to the entry before the table's first, which the runtime checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.conversions import ELEMENTS
from tensorwright.backends.cpu.emitter import DIMS, Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.nest import entry, unravel
from tensorwright.backends.cpu.llvm_types import is_float
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, Symbol, SymDim, minimum
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.decided import NonZero, ReadSize
from tensorwright.ops.shape import ShapeOf


@dataclass(frozen=True, slots=True)
class DecidedConfig(Config):
    """There is one way."""


class NonZeroScan(KernelFamily[DecidedConfig, CpuTarget, CpuKernel]):
    """`NonZero` of any strides: one worker counts, then writes."""

    name, version, config = "non_zero_scan", 1, DecidedConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        x = w.inputs[0] if w.inputs else None
        if not isinstance(w.op, NonZero) or x is None:
            return Reject(f"{w.op.kind} is not non_zero")
        if x.dtype not in ELEMENTS or x.dtype in (DType.f16, DType.bf16):
            return Reject(f"the input is {x.dtype}")
        return Accept() if decided_symbol(w.op.count) else Reject(f"the count {w.op.count} is no bounded symbol")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DecidedConfig]:
        yield DecidedConfig()

    def emit(self, w: Workload, c: DecidedConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        assert isinstance(w.op, NonZero)
        m = Module()
        self._count(entry(m, f"{symbol}_count", w), w, w.op)
        self._write(entry(m, symbol, w), w)
        return CpuKernel(m.text(), (Stage(f"{symbol}_count", 1), Stage(symbol, 1)))

    def _count(self, f: Function, w: Workload, op: NonZero) -> None:
        total = f.var("i64", f.i64(0))
        self._visit(f, w, lambda at: total.set(total.get() + 1))
        decide(f, op.count, total.get())
        f.ret()

    def _write(self, f: Function, w: Workload) -> None:
        out = w.outputs[0]
        number = f.var("i64", f.i64(0))

        def write(at: list[Reg]) -> None:
            place = number.get() * out.strides[1]
            for axis, coordinate in enumerate(at):
                f.store(coordinate, f.arg("out0"), place + f.i64(out.strides[0]) * axis)
            number.set(number.get() + 1)

        self._visit(f, w, write)
        f.ret()

    def _visit(self, f: Function, w: Workload, found: Callable[[list[Reg]], None]) -> None:
        """found(position) for every element that is not zero, in row-major order."""
        x = w.inputs[0]
        assert x is not None
        element = ELEMENTS[x.dtype]
        with f.loop(f.arg("begin"), f.arg("end")), f.loop(0, math.prod(x.shape)) as item:
            at = unravel(f, item, x.shape)
            value = f.load(element, f.arg("in0"), Epilogue.offset(f, x.strides, at))
            how = "une" if is_float(element) else "ne"
            with f.when(f.compare(how, value, f.const(element, 0))):
                found(at)


class SizeReader(KernelFamily[DecidedConfig, CpuTarget, CpuKernel]):
    """`ReadSize`."""

    name, version, config = "size_reader", 1, DecidedConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, ReadSize):
            return Reject(f"{w.op.kind} is not read_size")
        return Accept() if decided_symbol(w.op.size) else Reject(f"the size {w.op.size} is no bounded symbol")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DecidedConfig]:
        yield DecidedConfig()

    def emit(self, w: Workload, c: DecidedConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        assert isinstance(w.op, ReadSize)
        m = Module()
        f = entry(m, symbol, w)
        element = ELEMENTS[w.outputs[0].dtype]
        value = f.load(element, f.arg("in0"))
        f.store(value, f.arg("out0"))
        decide(f, w.op.size, f.cast("sext", value, "i64"), w.op.most)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, 1),))


class ShapeWriter(KernelFamily[DecidedConfig, CpuTarget, CpuKernel]):
    """`ShapeOf`: sizes as data."""

    name, version, config = "shape_writer", 1, DecidedConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        return Accept() if isinstance(w.op, ShapeOf) else Reject(f"{w.op.kind} is not shape_of")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DecidedConfig]:
        yield DecidedConfig()

    def emit(self, w: Workload, c: DecidedConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        x, out = w.inputs[0], w.outputs[0]
        assert isinstance(w.op, ShapeOf) and x is not None
        m = Module()
        f = entry(m, symbol, w)
        for i, size in enumerate(x.shape[w.op.start : w.op.end]):
            f.store(f.i64(size), f.arg("out0"), f.i64(out.strides[0]) * i)
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, 1),))


def decided_symbol(dim: Dim) -> Symbol | None:
    """The bounded symbol that a dim is, when it is one alone."""
    name = dim.as_symbol if isinstance(dim, SymDim) else None
    return name if isinstance(name, Symbol) else None


def decide(f: Function, dim: Dim, value: Reg, most: Dim | None = None) -> None:
    """Write the value of a symbol (i64) to the table of sizes; within its bounds and at most `most`, with a note where
    it was not."""
    symbol = decided_symbol(dim)
    assert symbol is not None
    f.module.takes_dims = True
    table = Reg(f, "ptr", f"%{DIMS}")
    kept = f.minimum(f.maximum(value, symbol.low), symbol.high if most is None else minimum(most, symbol.high))
    f.store(kept, table, symbol.slot)
    with f.when(f.compare("ne", kept, value)):
        f.store(f.i64(symbol.slot + 1), table, -1)


__all__ = ["DecidedConfig", "NonZeroScan", "ShapeWriter", "SizeReader", "decide", "decided_symbol"]
