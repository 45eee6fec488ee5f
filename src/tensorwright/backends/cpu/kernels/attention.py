# SPDX-License-Identifier: Apache-2.0
"""Attention without a full score matrix: per tile of query rows, scores, softmax and weighted sum in cache.

A worker packs the keys and values of a head into its scratch when it first meets the head, keys transposed to
[N / width][D][width]. A unit is a tile of query rows of one head; it walks the keys in blocks: scores into
scratch by a register tile, exponentials in place, then the product with the values. With more than one block
the softmax is online (Milakov and Gimelshein 2018): running row maximum and sum, partial outputs rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue, Problem, aligned_strides, body_problem, load_lanes, problem_of
from tensorwright.backends.cpu.kernels.attention_pack import pack_keys, pack_values
from tensorwright.backends.cpu.kernels.microkernel import (
    choose,
    if_any,
    may,
    rank1_update,
    rest_rows,
    unrolled,
    zero_tile,
)
from tensorwright.backends.cpu.kernels.rows import first_lanes
from tensorwright.backends.cpu.llvm_types import vector
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.vector_math import exp
from tensorwright.ir.dims import Dim, SymDim, ceil_div, high, low
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.attention import Attention

_ONE_BLOCK = 1024  # keys up to which a tile's scores stay in L1 or L2 in one piece
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class AttentionConfig(Config):
    """Register tile query rows x key vectors, and how many keys a softmax block has (0: all)."""

    rows: int
    vectors: int
    block: int


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Sizes, and element strides of each operand over (*batch, row, column) of its own matrix."""

    batch: tuple[int, ...]
    m: int
    n: int
    d: int
    e: int
    scale: float
    q: tuple[int, ...]
    k: tuple[int, ...]
    v: tuple[int, ...]
    mask: tuple[int, ...] | None
    out: tuple[int, ...]
    extras: tuple[tuple[int, ...], ...]

    @property
    def flops(self) -> int:
        """Multiply-adds of both products, counted as two."""
        return 2 * math.prod(self.batch) * self.m * self.n * (self.d + self.e)


def attention_shape(p: Problem) -> AttentionShape | str:
    """The attention a problem is, or why it is none."""
    if not isinstance(p.anchor, Attention):
        return f"{p.anchor.kind} is not attention"
    q, k, v = p.inputs[:3]
    mask = p.inputs[3] if len(p.inputs) > 3 else None
    if q is None or k is None or v is None:
        return "an operand is missing"
    for o in (q, k, v, mask):
        if o is not None and o.dtype is not DType.f32:
            return f"an operand is {o.dtype}, needs f32"
    rank = len(p.output.shape)

    def strides(o: Operand) -> tuple[int, ...]:
        return aligned_strides(o, rank)

    if low(k.shape[-2]) == 0:
        return "there are no keys"
    return AttentionShape(
        p.output.shape[:-2],
        q.shape[-2],
        k.shape[-2],
        q.shape[-1],
        v.shape[-1],
        p.anchor.scale,
        strides(q),
        strides(k),
        strides(v),
        strides(mask) if mask is not None else None,
        p.output.strides,
        tuple(strides(e) for e in p.extras),
    )


def _shape_of(w: Workload) -> AttentionShape:
    s = attention_shape(problem_of(w))
    if isinstance(s, str):
        raise ValueError(s)
    return s


class AttentionTiled(KernelFamily[AttentionConfig, CpuTarget, CpuKernel]):
    """Attention of f32 over any batch dims and strides, with optional additive mask and fused epilogue."""

    name, version, config = "attention_tiled", 2, AttentionConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        p = problem_of(w)
        s = attention_shape(p)
        reason = s if isinstance(s, str) else body_problem(p)
        return Reject(reason) if reason else Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[AttentionConfig]:
        s = _shape_of(w)
        block = 0 if s.n <= _ONE_BLOCK else _BLOCK
        vectors_needed = math.ceil(s.n / t.lanes(DType.f32))
        for vectors in [v for v in (2, 3) if v <= vectors_needed] or [1]:
            most = min((t.vector_registers - 1 - vectors) // vectors, 14)
            tiles = max(1, math.ceil(s.m / most))
            yield AttentionConfig(max(1, math.ceil(s.m / tiles)), vectors, block)

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return _shape_of(w).flops / (t.gflops * 1e9 * t.cores)

    def emit(
        self, w: Workload, c: AttentionConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]
    ) -> CpuKernel:
        return _Emitter(w, problem_of(w), _shape_of(w), c, t, symbol).kernel()


class _Emitter:
    """Writes the code of one attention. Scratch, in floats: packed keys, packed values, scores, then per row the
    reciprocal or running sum, running maximum and correction, then partial outputs."""

    def __init__(
        self, w: Workload, p: Problem, s: AttentionShape, c: AttentionConfig, t: CpuTarget, symbol: str
    ) -> None:
        self.p, self.s, self.c, self.symbol = p, s, c, symbol
        self.lanes = t.lanes(DType.f32)
        self.ty = vector(self.lanes)
        self.width = c.vectors * self.lanes
        self.panels = high(ceil_div(s.n, self.width))
        self.block_panels = min(self.panels, math.ceil(c.block / self.width)) if c.block else self.panels
        self.is_online = self.panels > self.block_panels
        self.e_padded = math.ceil(s.e / self.lanes) * self.lanes
        self.row_tiles = cast(int, ceil_div(s.m, c.rows))
        self.score_stride = self.block_panels * self.width
        self.epilogue = Epilogue(p.fused, s.out, s.extras, len(s.out) - 1)
        self.m, inputs = Module(), len(w.inputs)
        self.m.takes_dims = w.is_symbolic
        pointers = [*(f"in{i}" for i in range(inputs)), "out", "workspace", "scratch"]
        self.f = self.m.function(symbol, [*(("ptr", name) for name in pointers), ("i64", "begin"), ("i64", "end")])
        self.extras = [self.f.arg(f"in{i}") for i in range(len(p.inputs), inputs)]
        self._lay_out_scratch()

    def _lay_out_scratch(self) -> None:
        sizes = {
            "keys": self.panels * self.s.d * self.width,
            "values": high(self.s.n) * self.e_padded,
            "scores": self.c.rows * self.score_stride,
            "sums": self.c.rows,
            "peaks": self.c.rows,
            "corrections": self.c.rows,
            "partial": self.c.rows * self.e_padded if self.is_online else 0,
        }
        self.part: dict[str, Reg] = {}
        offset = 0
        for name, size in sizes.items():
            self.part[name] = self.f.gep(self.f.arg("scratch"), offset)
            offset += math.ceil(size / 16) * 16  # every part on a cache line
        self.scratch_bytes = 4 * offset

    def kernel(self) -> CpuKernel:
        f, s, rows = self.f, self.s, self.c.rows
        full, rest = s.m // rows, s.m % rows
        packed = f.var("i64", f.i64(-1))
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            head, tile = unit // self.row_tiles, unit % self.row_tiles
            batch = self._batch_index(head)
            with f.when(f.compare("ne", head, packed.get())):
                packed.set(head)
                self._pack(batch)
            first = tile * rows
            choose(
                f,
                f.compare("slt", tile, full),
                may(full),
                may(rest),
                lambda: self._rows(batch, first, rows),
                lambda: rest_rows(f, rest, rows, lambda count, at: self._rows(batch, first + at, count)),
            )
        f.ret()
        units = math.prod(s.batch) * self.row_tiles
        return CpuKernel(self.m.text(), (Stage(self.symbol, units),), scratch_bytes=self.scratch_bytes)

    def _batch_index(self, head: Reg) -> list[Reg]:
        index = []
        for size in reversed(self.s.batch):
            index.append(head % size)
            head = head // size
        return index[::-1]

    def _offset(self, batch: list[Reg], strides: tuple[int, ...]) -> Reg:
        return Epilogue.offset(self.f, strides[:-2], batch)

    def _pack(self, batch: list[Reg]) -> None:
        f, s = self.f, self.s
        keys = f.gep(f.arg("in1"), self._offset(batch, s.k))
        values = f.gep(f.arg("in2"), self._offset(batch, s.v))
        pack_keys(f, keys, self.part["keys"], (s.n, s.d), s.k[-2:], self.lanes, self.c.vectors, s.scale)
        pack_values(f, values, self.part["values"], (s.n, s.e), s.v[-2:], self.lanes)

    # -- one tile of query rows -------------------------------------------------------------------
    def _rows(self, batch: list[Reg], first: Reg, rows: int) -> None:
        f, n, stride = self.f, self.s.n, self.score_stride
        if not self.is_online:
            self._block(batch, first, rows, f.i64(0), n)
            return
        self._start_online(rows)
        with f.loop(0, n // stride) as block:
            self._block(batch, first, rows, block, stride)
        if_any(f, n % stride, lambda: self._block(batch, first, rows, f.i64(n // stride), n % stride))
        with f.loop(0, rows) as i:
            share = f.splat(f.const("float", 1.0) / f.load("float", self.part["sums"], i), self.lanes)
            for at in range(0, self.e_padded, self.lanes):
                partial = f.load(self.ty, self.part["partial"], i * self.e_padded + at)
                self._store(batch, first + i, at, partial * share)

    def _start_online(self, rows: int) -> None:
        f = self.f
        with f.loop(0, rows) as i:
            f.store(f.const("float", -math.inf), self.part["peaks"], i)
            f.store(f.const("float", 0.0), self.part["sums"], i)
            for at in range(0, self.e_padded, self.lanes):
                f.store(f.const(self.ty, 0.0), self.part["partial"], i * self.e_padded + at)

    def _block(self, batch: list[Reg], first: Reg, rows: int, block: Reg, keys: Dim) -> None:
        """Scores, softmax and weighted sum of the `keys` keys of key block number `block`."""
        f, panels, rest, lanes = self.f, keys // self.width, keys % self.width, self.lanes
        if high(panels) > 0:
            with f.loop(0, panels) as panel:
                self._scores(batch, first, rows, block, panel, self.c.vectors, lanes)
        if isinstance(rest, SymDim):
            for vectors in range(1, self.c.vectors + 1):
                last = f.i64(rest - (vectors - 1) * lanes)  # one of these is in 1..lanes
                with f.when(f.compare("ult", last - 1, lanes)):
                    self._scores(batch, first, rows, block, f.i64(panels), vectors, last)
        elif rest:
            vectors = math.ceil(rest / lanes)
            self._scores(batch, first, rows, block, f.i64(panels), vectors, rest - (vectors - 1) * lanes)
        with f.loop(0, rows) as i:
            self._softmax_row(i, ceil_div(keys, lanes))
        for at in range(0, self.e_padded, self.width):
            self._weigh(batch, first, rows, block, keys, at)

    def _scores(
        self, batch: list[Reg], first: Reg, rows: int, block: Reg, panel: Reg, vectors: int, last: Reg | int
    ) -> None:
        """Scores of the first `vectors` registers of keys of one panel, of which the last one has `last` keys; lanes
        past the last key get -inf."""
        f, s, lanes = self.f, self.s, self.lanes
        tile = zero_tile(f, rows, vectors, lanes)
        q = f.gep(f.arg("in0"), self._offset(batch, s.q) + first * s.q[-2])
        k = f.gep(self.part["keys"], (block * self.block_panels + panel) * (s.d * self.width))

        def step(d: Reg | int) -> None:
            rank1_update(
                f,
                tile,
                lanes,
                lambda i: f.load("float", q, f.i64(d) * s.q[-1] + i * s.q[-2]),
                lambda j: f.load(self.ty, k, f.i64(d) * self.width + j * lanes),
            )

        unrolled(f, s.d, 4, step)
        for j in range(vectors):
            count = last if j == vectors - 1 else lanes
            for i in range(rows):
                score = tile[i][j].get()
                if s.mask is not None:
                    key = block * self.score_stride + panel * self.width + j * lanes
                    at = self._offset(batch, s.mask) + (first + i) * s.mask[-2] + key * s.mask[-1]
                    score = score + load_lanes(f, f.arg("in3"), at, s.mask[-1], lanes, count)
                score = first_lanes(f, score, count, f.const(self.ty, -math.inf))
                f.store(score, self.part["scores"], i * self.score_stride + panel * self.width + j * lanes)

    def _softmax_row(self, i: Reg, vectors: Dim) -> None:
        """Scores of row i become exponentials; `sums` gets their sum (its reciprocal when there is one block)."""
        f, lanes = self.f, self.lanes
        scores = f.gep(self.part["scores"], i * self.score_stride)
        ways = min(high(vectors), 4)
        peaks = [f.var(self.ty, f.const(self.ty, -math.inf)) for _ in range(ways)]

        def raise_peak(v: Reg | int, way: int) -> None:
            peaks[way].set(f.maximum(f.load(self.ty, scores, f.i64(v) * lanes), peaks[way].get()))

        _striped(f, vectors, ways, raise_peak)
        peak = f.reduce("max", _tree([p.get() for p in peaks], f.maximum))
        base = peak
        if self.is_online:
            old = f.load("float", self.part["peaks"], i)
            peak = f.maximum(peak, old)
            # while all scores so far are -inf, exponents must be 0 and not NaN: finite keys may follow
            base = f.select(f.compare("oeq", peak, -math.inf), f.const("float", 0.0), peak)
            correction = f.extract(exp(f, f.splat(old - base, lanes)), 0)
            f.store(peak, self.part["peaks"], i)
            f.store(correction, self.part["corrections"], i)
        sums = [f.var(self.ty, f.const(self.ty, 0.0)) for _ in range(ways)]
        origin = f.splat(base, lanes)

        def step(v: Reg | int, way: int) -> None:
            power = exp(f, f.load(self.ty, scores, f.i64(v) * lanes) - origin)
            f.store(power, scores, f.i64(v) * lanes)
            sums[way].set(sums[way].get() + power)

        _striped(f, vectors, ways, step)
        total = f.reduce("add", _tree([p.get() for p in sums], lambda a, b: a + b))
        if self.is_online:
            total = f.load("float", self.part["sums"], i) * correction + total
        else:
            total = f.const("float", 1.0) / total
        f.store(total, self.part["sums"], i)

    def _weigh(self, batch: list[Reg], first: Reg, rows: int, block: Reg, keys: Dim, at: int) -> None:
        """Exponentials times values for the output columns from `at`, one register tile."""
        f, lanes = self.f, self.lanes
        vectors = min(self.c.vectors, (self.e_padded - at) // lanes)
        tile = zero_tile(f, rows, vectors, lanes)
        values = f.gep(self.part["values"], block * (self.score_stride * self.e_padded) + at)
        scores = self.part["scores"]

        def step(n: Reg | int) -> None:
            rank1_update(
                f,
                tile,
                lanes,
                lambda i: f.load("float", scores, f.i64(n) + i * self.score_stride),
                lambda j: f.load(self.ty, values, f.i64(n) * self.e_padded + j * lanes),
            )

        unrolled(f, cast(int, keys), 4, step)
        for i in range(rows):
            name = "corrections" if self.is_online else "sums"
            factor = f.splat(f.load("float", self.part[name], i), lanes)
            for j in range(vectors):
                if self.is_online:
                    slot = i * self.e_padded + at + j * lanes
                    partial = f.load(self.ty, self.part["partial"], slot)
                    f.store(f.fma(partial, factor, tile[i][j].get()), self.part["partial"], slot)
                else:
                    self._store(batch, first + i, at + j * lanes, tile[i][j].get() * factor)

    def _store(self, batch: list[Reg], row: Reg, at: int, value: Reg) -> None:
        count = min(self.lanes, self.s.e - at)
        self.epilogue.finish(self.f, value, self.f.arg("out"), self.extras, (*batch, row, at), count)


def _striped(f: Function, count: Dim, ways: int, body: Callable[[Reg | int, int], None]) -> None:
    """body(i, i mod ways) for i in range(count): `ways` independent chains."""
    main = count - count % ways
    with f.loop(0, main, ways) as i:
        for way in range(ways):
            body(i + way, way)
    if isinstance(main, SymDim) or isinstance(count, SymDim):
        with f.loop(main, count) as i:
            body(i, 0)
        return
    for way in range(count - main):
        body(main + way, way)


def _tree(values: list[Reg], join: Callable[[Reg, Reg], Reg]) -> Reg:
    """All values joined pairwise."""
    while len(values) > 1:
        values = [join(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]
