# SPDX-License-Identifier: Apache-2.0
"""Any family on narrow types: operands are converted in the workspace, computed as wider ones, and rounded once.

f16 and bf16 become f32; integers of up to 32 bits become i64 where sums need it (means). The conversions are pointwise
kernels of their own, stages before and after the family's.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tensorwright.backends.base import (
    Accept,
    Config,
    CpuKernel,
    KernelFamily,
    Operand,
    Packed,
    Reject,
    Stage,
    Workload,
    accepted,
)
from tensorwright.backends.cpu.conversions import HALVES
from tensorwright.backends.cpu.emitter import DIMS, Function, Module, Reg
from tensorwright.backends.cpu.kernels.nest import empty_kernel, entry, traffic_seconds
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Undecided, high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.copy import Copy
from tensorwright.ops.elementwise import Cast, Pointwise
from tensorwright.ops.fused import Fused
from tensorwright.ops.reduce import Reduce

_ALIGNMENT = 64
_CASTS = PointwiseNd()


def _wide(op: Op, dtype: DType) -> DType:
    """The type in which `op` on `dtype` is computed: the same when it needs no other."""
    if dtype in HALVES:
        return DType.f32
    if isinstance(op, Reduce) and op.how == "mean" and dtype.is_integer and dtype.size_bytes < 8:
        return DType.i64
    return dtype


@dataclass(frozen=True, slots=True)
class WidenedConfig(Config):
    """The family that computes, and its configuration as JSON."""

    family: str
    settings: str


class Widened(KernelFamily[WidenedConfig, CpuTarget, CpuKernel]):
    """What `families` do, on types that they lack."""

    name, config = "widened", WidenedConfig

    def __init__(self, families: Sequence[KernelFamily[Any, CpuTarget, CpuKernel]]) -> None:
        self.families = tuple(families)
        self.version = sum(family.version for family in families)  # of each part of its code

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if isinstance(w.op, Fused | Pointwise | Copy):
            return Reject("pointwise work rounds after every op")
        wide = widened(w)
        if wide == w:
            return Reject("no operand has a wider type")
        if any(isinstance(accepted(family, wide, t), Accept) for family in self.families):
            return Accept()
        return Reject(f"no family takes {w.op.kind} of {', '.join(str(o) for o in wide.inputs if o is not None)}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[WidenedConfig]:
        wide = widened(w)
        for family in self.families:
            if isinstance(family.accepts(wide, t), Accept):
                for c in family.candidates(wide, t):
                    yield WidenedConfig(family.name, json.dumps(c.as_dict(), sort_keys=True))

    def emit(self, w: Workload, c: WidenedConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        family = next(family for family in self.families if family.name == c.family)
        answer = family.accepts(widened(w), t)
        if isinstance(answer, Reject):  # it takes the workload at the opt sizes only
            raise Undecided(answer.reason)
        return _Parts(family, w, family.config(**json.loads(c.settings)), t, symbol).kernel(constants)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


def widened(w: Workload) -> Workload:
    """The workload on the types in which it is computed: converted operands are dense."""

    def wide(o: Operand) -> Operand:
        dtype = _wide(w.op, o.dtype)
        return o if dtype is o.dtype else dataclasses.replace(o, dtype=dtype, strides=_dense(o))

    inputs = tuple(None if o is None else wide(o) for o in w.inputs)
    return Workload(w.op, inputs, tuple(wide(o) for o in w.outputs))


def _dense(o: Operand) -> tuple[int, ...]:
    """The strides of a copy without gaps: dims in the operand's order; what is broadcast in memory stays so."""
    strides, step = [0] * len(o.shape), 1
    for dim in sorted(range(len(o.shape)), key=lambda d: (high(abs(o.strides[d])), -d)):
        if o.strides[dim] != 0 and o.shape[dim] != 0:
            strides[dim] = step
            step *= o.shape[dim]
    return tuple(strides)


@dataclass(frozen=True)
class _Part:
    """One kernel of the chain; `pointers` are its operands in the whole: an argument, or an offset in the workspace."""

    kernel: CpuKernel
    workload: Workload
    pointers: tuple[str | int, ...]


class _Parts:
    """The chain of kernels as one."""

    def __init__(
        self, inner: KernelFamily[Any, Any, CpuKernel], w: Workload, c: Any, t: CpuTarget, symbol: str
    ) -> None:
        self.inner, self.w, self.wide, self.c, self.t, self.symbol = inner, w, widened(w), c, t, symbol
        self.end = 0
        self.packed: dict[int, Packed] = {}

    def kernel(self, constants: dict[int, Array]) -> CpuKernel:
        """Conversions of the inputs, the family's kernel, conversion of the output."""
        w, wide = self.w, self.wide
        middle = self.inner.emit(wide, self.c, self.t, f"{self.symbol}_wide", constants)  # packing converts them
        self.packed = dict(middle.packed)
        self.end = _aligned(middle.workspace_bytes)
        before: list[_Part] = []
        pointers: list[str | int] = []
        for i, (narrow, o) in enumerate(zip(w.inputs, wide.inputs, strict=True)):
            pointers.append(f"in{i}")
            if narrow is None or o is None or narrow == o or i in middle.packed:
                continue
            if i in constants:
                self.packed[i] = _laid_out(constants[i], o)
                continue
            pointers[i] = self._room(o)
            before.append(self._cast(narrow, o, f"in{i}", pointers[i], f"in{i}"))
        after: list[_Part] = []
        out, target = wide.outputs[0], w.outputs[0]
        pointers.append("out0" if out == target else self._room(out))
        if out != target:
            after.append(self._cast(out, target, pointers[-1], "out0", "out"))
        return self._joined([*before, _Part(middle, wide, tuple(pointers)), *after])

    def _room(self, o: Operand) -> int:
        """A place for an operand in the workspace."""
        start = self.end
        self.end += _aligned(high(o.span_elems) * o.dtype.size_bytes)
        return start

    def _cast(self, source: Operand, to: Operand, read: str | int, write: str | int, name: str) -> _Part:
        op = Cast(to.dtype)
        # a dim that is broadcast in memory is written once
        shape = tuple(1 if s == 0 else d for d, s in zip(to.shape, to.strides, strict=True))
        w = Workload(op, (Operand(source.dtype, shape, source.strides),), (Operand(to.dtype, shape, to.strides),))
        config = next(iter(_CASTS.candidates(w.at_opt(), self.t)))
        return _Part(_CASTS.emit(w, config, self.t, f"{self.symbol}_cast_{name}", {}), w, (read, write))

    def _joined(self, parts: Sequence[_Part]) -> CpuKernel:
        """One module: every part's functions, and stages that call them with the right pointers."""
        m = Module()
        stages: list[Stage] = []
        for part in parts:
            for stage in part.kernel.stages:
                name = f"{self.symbol}_{len(stages)}"
                f = entry(m, name, self.w)
                pointers = [self._pointer(f, p) for p in part.pointers]
                rest = [f.arg(a) for a in ("workspace", "scratch", "begin", "end")]
                dims = [Reg(f, "ptr", f"%{DIMS}")] if part.workload.is_symbolic else []
                f.call(stage.symbol, "void", *pointers, *rest, *dims)
                f.ret()
                stages.append(Stage(name, stage.units))
        texts = [*(part.kernel.ir for part in parts), m.text()]
        scratch = max(part.kernel.scratch_bytes for part in parts)
        return CpuKernel(_merged(texts), tuple(stages), self.end, scratch, self.packed)

    def _pointer(self, f: Function, place: str | int) -> Reg:
        return f.arg(place) if isinstance(place, str) else f.gep(f.arg("workspace"), place, "i8")


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _laid_out(values: Array, o: Operand) -> Packed:
    """The memory of a constant in the operand's type and strides."""

    def write(memory: Array) -> None:
        memory[...] = 0
        if math.prod(o.shape):
            o.over(memory)[...] = values

    return Packed((max(o.span_elems, 1),), write, o.dtype)


def _merged(texts: Sequence[str]) -> str:
    """Modules as one: what a module declares and another one defines or declares, too, is said once."""
    lines = [line for text in texts for line in text.splitlines()]
    defined = {_name(line) for line in lines if line.startswith("define ")}
    out: list[str] = []
    for line in lines:
        if line.startswith("declare "):
            if _name(line) in defined:
                continue
            defined.add(_name(line))
        out.append(line)
    return "\n".join(out) + "\n"


def _name(line: str) -> str:
    """The function that a line declares or defines."""
    return line[line.index("@") + 1 : line.index("(")]
