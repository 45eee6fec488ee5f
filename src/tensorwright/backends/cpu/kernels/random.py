# SPDX-License-Identifier: Apache-2.0
"""Random numbers: a key from the operating system, and Philox blocks side by side in the lanes of registers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.microkernel import may
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, traffic_seconds, unravel
from tensorwright.backends.cpu.kernels.shuffles import interleave
from tensorwright.backends.cpu.llvm_types import vector, width_of
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Dim, ceil_div, high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.random import KEY_STEPS, KEY_WORDS, MULTIPLIERS, ROUNDS, RandomBits, RandomKey

_LOW = 0xFFFFFFFF
_BLOCK_WORDS = 4


@dataclass(frozen=True, slots=True)
class RandomConfig(Config):
    """There is one way to draw."""


class RandomKeys(KernelFamily[RandomConfig, CpuTarget, CpuKernel]):
    """`RandomKey`: the C library's `getentropy`, which cannot fail for so few bytes."""

    name, version, config = "random_keys", 1, RandomConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, RandomKey):
            return Reject(f"{w.op.kind} is not a random key")
        return Accept() if w.outputs[0].is_row_major else Reject(f"a key with gaps: {w.outputs[0]}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[RandomConfig]:
        yield RandomConfig()

    def emit(self, w: Workload, c: RandomConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        m = Module()
        f = entry(m, symbol, w)
        f.call("getentropy", "i32", f.arg("out0"), f.i64(KEY_WORDS * DType.u32.size_bytes))
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, 1),))


class RandomBlocks(KernelFamily[RandomConfig, CpuTarget, CpuKernel]):
    """`RandomBits` of any strides."""

    name, version, config = "random_blocks", 1, RandomConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        return Accept() if isinstance(w.op, RandomBits) else Reject(f"{w.op.kind} does not draw random bits")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[RandomConfig]:
        yield RandomConfig()

    def emit(self, w: Workload, c: RandomConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        f = entry(m, symbol, w)
        units = _Blocks(f, w, t.lanes(DType.f32) // 2).emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return traffic_seconds(w, t)


class _Blocks:
    """Writes the code: an item is as many blocks as a register has 64-bit lanes."""

    def __init__(self, f: Function, w: Workload, lanes: int) -> None:
        key = w.inputs[0]
        assert isinstance(w.op, RandomBits) and key is not None
        self.f, self.op, self.key, self.out, self.lanes = f, w.op, key, w.outputs[0], lanes
        self.ty = vector(lanes, "i64")
        self.total = math.prod(self.out.shape)
        self.per_item = lanes * _BLOCK_WORDS // (2 if self.op.double else 1)

    def emit(self) -> int:
        f = self.f
        keys = [f.cast("zext", f.load("i32", f.arg("in0"), i * self.key.strides[0]), "i64") for i in range(KEY_WORDS)]
        share = Share.of(cast(int, ceil_div(self.total, self.per_item)), self.per_item)
        whole, rest = self.total // self.per_item, self.total % self.per_item
        with share.items(f) as item:
            drawn = self._elements(self._philox(item * self.lanes, keys))
            if may(whole):
                with f.when(f.compare("slt", item, whole)):
                    self._store(drawn, item, self.per_item)
            if may(rest):
                with f.when(f.compare("eq", item, whole)):
                    self._store(drawn, item, rest)
        return share.units

    def _philox(self, first: Reg, keys: Sequence[Reg]) -> list[Reg]:
        """The four words of the blocks from `first` on, in the lower halves of 64-bit lanes."""
        f = self.f
        lanes = Reg(f, self.ty, "<" + ", ".join(f"i64 {i}" for i in range(self.lanes)) + ">")
        block = f.splat(first, self.lanes) + lanes
        a, b = self._low(block), self._high(block)
        c = d = f.const(self.ty, 0)
        for turn in range(ROUNDS):
            first_key, second_key = (
                f.splat(f.binary("and", k + (turn * step & _LOW), _LOW), self.lanes)
                for k, step in zip(keys, KEY_STEPS, strict=True)
            )
            one, two = (self._product(x, m) for x, m in zip((a, c), MULTIPLIERS, strict=True))
            a = f.binary("xor", f.binary("xor", self._high(two), b), first_key)
            c = f.binary("xor", f.binary("xor", self._high(one), d), second_key)
            b, d = self._low(two), self._low(one)
        return [a, b, c, d]

    def _product(self, x: Reg, factor: int) -> Reg:
        """All 64 bits of the product of 32-bit values."""
        return self.f.op(self.ty, f"mul {self.ty} {x.ref}, {self.f.const(self.ty, factor).ref}")

    def _low(self, x: Reg) -> Reg:
        return self.f.binary("and", x, _LOW)

    def _high(self, x: Reg) -> Reg:
        return self.f.binary("lshr", x, 32)

    def _elements(self, words: Sequence[Reg]) -> list[Reg]:
        """Registers of consecutive elements."""
        f = self.f
        if self.op.double:
            pairs = [f.binary("or", words[i], f.binary("shl", words[i + 1], 32)) for i in (0, 2)]
            return interleave(f, pairs)
        return interleave(f, [f.cast("trunc", word, vector(self.lanes, "i32")) for word in words])

    def _store(self, drawn: Sequence[Reg], item: Reg, count: int) -> None:
        """The first `count` elements of the item."""
        f, first = self.f, item * self.per_item
        for i, value in enumerate(drawn):
            width = width_of(value.ty)
            left: Dim = count - i * width
            if high(left) <= 0:
                return
            at = first + i * width
            if isinstance(left, int):
                self._store_first(value, at, min(left, width))
            else:
                with f.when(f.compare("sgt", f.i64(left), 0)):
                    self._store_first(value, at, f.minimum(f.i64(left), width))

    def _store_first(self, value: Reg, at: Reg, count: Reg | int) -> None:
        """The first `count` lanes, as the elements from `at` on."""
        f = self.f
        if self.out.is_row_major:
            f.store_first(value, f.arg("out0"), at, count)
            return
        for lane in range(width_of(value.ty) if isinstance(count, Reg) else count):
            with f.when(f.compare("sgt", count, lane)) if isinstance(count, Reg) else nullcontext():
                place = unravel(f, at + lane, self.out.shape)
                f.store(f.extract(value, lane), f.arg("out0"), Epilogue.offset(f, self.out.strides, place))
