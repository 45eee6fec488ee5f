# SPDX-License-Identifier: Apache-2.0
"""`LinearAttention`: columns of the state are independent of each other, so a unit of work is a register's width of
them for one head, through all steps. The state lives in the output's last rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, load_lanes, store_lanes
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.linear_attention import DECAY, KEY, QUERY, RATE, STATE, VALUE, LinearAttention


@dataclass(frozen=True, slots=True)
class LinearAttentionConfig(Config):
    """There is one way to go through the steps."""


class LinearAttentionColumns(KernelFamily[LinearAttentionConfig, CpuTarget, CpuKernel]):
    """f32 `LinearAttention` of any strides."""

    name, version, config = "linear_attention_columns", 1, LinearAttentionConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, LinearAttention):
            return Reject(f"{w.op.kind} is not a linear attention")
        dtype = w.outputs[0].dtype
        return Accept() if dtype is DType.f32 else Reject(f"linear attention of {dtype}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[LinearAttentionConfig]:
        yield LinearAttentionConfig()

    def emit(
        self, w: Workload, c: LinearAttentionConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        units = _Columns(f, w, t.lanes(DType.f32)).emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _Columns:
    """Writes the code: items are registers of columns of each head and batch entry."""

    def __init__(self, f: Function, w: Workload, lanes: int) -> None:
        q, k, v = w.inputs[:3]
        assert isinstance(w.op, LinearAttention) and q is not None and k is not None and v is not None
        self.f, self.op, self.q, self.k, self.v, self.out = f, w.op, q, k, v, w.outputs[0]
        self.state, self.decay, self.rate = (w.inputs[i] if i < len(w.inputs) else None for i in (STATE, DECAY, RATE))
        self.batch, self.steps, self.heads, self.group, self.depth = q.shape
        self.width = v.shape[3]
        self.lanes = min(lanes, 1 << (self.width - 1).bit_length())
        self.ty = vector(self.lanes)

    def emit(self) -> int:
        f = self.f
        blocks = math.ceil(self.width / self.lanes)
        share = Share.of(self.batch * self.heads * blocks, self.steps * self.depth * self.lanes)
        with share.items(f) as item:
            b, h, block = unravel(f, item, (self.batch, self.heads, blocks))
            rest = self.width % self.lanes
            if not rest:
                self._head(b, h, block * self.lanes, self.lanes)
            elif blocks == 1:
                self._head(b, h, f.i64(0), rest)
            else:
                f.branch(
                    f.compare("slt", block, blocks - 1),
                    lambda: self._head(b, h, block * self.lanes, self.lanes),
                    lambda: self._head(b, h, block * self.lanes, rest),
                )
        return share.units

    def _head(self, b: Reg, h: Reg, first: Reg, count: int) -> None:
        """All steps of `count` columns from `first` on."""
        f = self.f
        with f.loop(0, self.depth) as i:
            start = f.const(self.ty, 0)
            if self.state is not None:
                start = self._columns(self.state, STATE, (b, h, i, first), count)
            self._put(start, (b, h, self.steps * self.group + i, first), count)
        with f.loop(0, self.steps) as t:
            self._step(b, h, t, first, count)

    def _step(self, b: Reg, h: Reg, t: Reg, first: Reg, count: int) -> None:
        f = self.f
        new = self._columns(self.v, VALUE, (b, t, h, first), count)
        if self.decay is not None or self.rate is not None:
            known = f.var(self.ty, f.const(self.ty, 0))
            with f.loop(0, self.depth) as i:
                row = self._row(b, h, i, first, count)
                if self.decay is not None:
                    row = row * self._number(self.decay, DECAY, (b, t, h, i))
                    self._put(row, (b, h, self.steps * self.group + i, first), count)
                if self.rate is not None:
                    known.set(f.fma(row, self._number(self.k, KEY, (b, t, h, i)), known.get()))
            if self.rate is not None:
                new = (new - known.get()) * self._number(self.rate, RATE, (b, t, h, f.i64(0)))
        with f.loop(0, self.depth) as i:
            row = f.fma(new, self._number(self.k, KEY, (b, t, h, i)), self._row(b, h, i, first, count))
            self._put(row, (b, h, self.steps * self.group + i, first), count)
        with f.loop(0, self.group) as g:
            total = f.var(self.ty, f.const(self.ty, 0))
            with f.loop(0, self.depth) as i:
                row = self._row(b, h, i, first, count)
                total.set(f.fma(row, self._number(self.q, QUERY, (b, t, h, g, i)), total.get()))
            self._put(total.get() * self.op.scale, (b, h, t * self.group + g, first), count)

    def _row(self, b: Reg, h: Reg, i: Reg, first: Reg, count: int) -> Reg:
        """Row i of the state."""
        at = Epilogue.offset(self.f, self.out.strides, (b, h, self.steps * self.group + i, first))
        return load_lanes(self.f, self.f.arg("out0"), at, self.out.strides[-1], self.lanes, count)

    def _put(self, value: Reg, place: Sequence[Reg], count: int) -> None:
        at = Epilogue.offset(self.f, self.out.strides, place)
        store_lanes(self.f, value, self.f.arg("out0"), at, self.out.strides[-1], count)

    def _columns(self, o: Operand, index: int, place: Sequence[Reg], count: int) -> Reg:
        at = Epilogue.offset(self.f, o.strides, place)
        return load_lanes(self.f, self.f.arg(f"in{index}"), at, o.strides[-1], self.lanes, count)

    def _number(self, o: Operand, index: int, place: Sequence[Reg]) -> Reg:
        """One element in all lanes; dims of size 1 have stride 0."""
        value = self.f.load("float", self.f.arg(f"in{index}"), Epilogue.offset(self.f, o.strides, place))
        return self.f.splat(value, self.lanes)
