# SPDX-License-Identifier: Apache-2.0
"""Times one kernel as a program would run it: on the worker pool, with a barrier after each stage.

A generated driver repeats the kernel inside one pool job, so a sample holds no interpreter time. Cache state:
activations stay where the previous repetition left them, as in a network whose layers feed each other. Weights are
different: in a network, all other layers' weights pass through the caches between two uses. Float weights of a
sizeable kernel therefore move to another place of a large arena of random numbers at each repetition; small ones,
whose reload costs little against their use, stay in place.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from tensorwright.backends.base import CpuKernel, Measurer, Operand, Packed, Trial, Workload
from tensorwright.backends.cpu.compile import compile_cached, compile_object
from tensorwright.backends.cpu.emitter import Module
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.backends.cpu.threads import Pool, emit_barrier
from tensorwright.ir.dims import evaluate
from tensorwright.ir.op import Array

_SAMPLE_S = 3e-4  # a sample repeats the kernel for about so long
_MAX_REPEATS = 300
_MAX_ARENA = 128 << 20
_MIN_MOVING = 1 << 18  # weights of fewer bytes are not moved
_MAX_OWN = 16 << 20  # packed weights of up to so many bytes have memory of their own in each trial

# The driver's argument, in 8-byte words.
_REPEATS, _STAGES, _FIRST, _COPIES, _STAGE_TABLE, _POINTER_TABLE, _SCRATCH, _SCRATCH_BYTES = range(8)
_BARRIER, _WORDS = 8, 17
_DIMS = 16  # past the barrier's line


class CpuMeasurer(Measurer[CpuKernel]):
    """Compiles kernels for `target` and times them on the shared pool."""

    def __init__(self, target: CpuTarget, pool: Pool | None = None) -> None:
        self.target = target
        self.pool = pool or Pool.shared()
        self.conditions = f"{self.pool.size} threads"

        self._shared = _Weights(0)
        self._copies: dict[int, tuple[Array, Operand, Array]] = {}  # by id of the constant

    def load(self, w: Workload, kernel: CpuKernel, inputs: Sequence[Array | None]) -> CpuTrial:
        self._copies = {id(x): self._copies[id(x)] for x in inputs if x is not None and id(x) in self._copies}
        return CpuTrial(self, w, kernel, inputs)

    def weight_memory(self, size_bytes: int) -> _Weights:
        """Memory for packed weights: all trials of large ones share the same."""
        if size_bytes <= _MAX_OWN:
            return _Weights(size_bytes)
        if self._shared.bytes.size < size_bytes:
            self._shared = _Weights(size_bytes + size_bytes // 4)  # other candidates may pad more
        return self._shared

    def placed(self, operand: Operand, values: Array | None) -> Array:
        """The values with the operand's strides on aligned memory: constants where they are, or one copy for all
        trials of a workload; a copy for each trial of others."""
        if values is None or not operand.constant:
            return _strided(operand, values)
        if _is_placed(operand, values):
            return values
        known = self._copies.get(id(values))
        if known is None or known[1] != operand:
            known = self._copies[id(values)] = values, operand, _strided(operand, values)
        return known[2]

    @functools.cached_property
    def weights(self) -> Array:
        """The arena that moving weights point into: more than the last cache holds, small random floats."""
        arena = _memory(min(max(2 * self.target.l3_bytes, 32 << 20), _MAX_ARENA))
        block = np.random.default_rng(1).standard_normal(1 << 18, dtype=np.float32).view(np.uint8)
        arena.reshape(-1, block.size)[...] = block
        return arena


class CpuTrial(Trial):
    """One compiled kernel with its operands on aligned memory."""

    def __init__(self, measurer: CpuMeasurer, w: Workload, kernel: CpuKernel, inputs: Sequence[Array | None]) -> None:
        self._pool, threads = measurer.pool, measurer.pool.size
        sizes: dict[str, int] = {s: s.opt for s in w.symbols}
        self._dims = np.zeros(2 + max((s.slot for s in w.symbols), default=0), np.int64)[1:]
        self._dims[[s.slot for s in w.symbols]] = list(sizes.values())
        w = w.at(sizes)
        self._code = LoadedCode(compile_cached(kernel.ir, measurer.target))
        self._packed = kernel.packed
        self._weights = measurer.weight_memory(sum(_room(p.size_bytes) for p in kernel.packed.values()))
        self._places = dict(self._weights.places(kernel.packed))
        self._pack()
        self._inputs = [
            measurer.placed(o, x) if o is not None and i not in self._places else self._places.get(i)
            for i, (o, x) in enumerate(zip(w.inputs, inputs, strict=True))
        ]
        self._outputs = [_strided(o) for o in w.outputs]
        self._workspace = _memory(kernel.workspace_bytes)
        stride = -(-kernel.scratch_bytes // 64) * 64 + 64  # workers never share a cache line
        self._scratch = _memory(stride * threads)
        moving = [i for i, o in enumerate(w.inputs) if o is not None and o.constant and o.dtype.is_float]
        self._pointers = self._pointer_table(moving, measurer)
        self._stages = np.array(
            [[self._code.address(s.symbol), evaluate(s.units, sizes)] for s in kernel.stages], np.int64
        )
        self._block = _aligned(np.zeros(_WORDS, np.int64))
        self._block[[_STAGES, _STAGE_TABLE]] = len(kernel.stages), self._stages.ctypes.data
        self._block[_DIMS] = self._dims.ctypes.data
        self._block[[_SCRATCH, _SCRATCH_BYTES]] = self._scratch.ctypes.data, stride
        self._entry = _driver(self._pointers.shape[1], measurer.target).address("driver")
        self._repeats = 0

    def outputs(self) -> list[Array]:
        self._pack()
        for array in self._outputs:
            _poison(array)
        self._run(1, moving=False)
        return [array.copy() for array in self._outputs]

    def sample(self) -> float:
        if not self._repeats:
            self._run(1, moving=True)  # page faults and code loading
            once = self._timed(1)
            self._repeats = int(min(max(_SAMPLE_S / once, 1), _MAX_REPEATS))
        return self._timed(self._repeats)

    def close(self) -> None:
        self._code.close()

    def _pack(self) -> None:
        """Put the packed weights in place. Another trial may have written its own there: to time a kernel any will do,
        to check it only its own."""
        if self._weights.owner is self._places:
            return
        self._weights.owner = self._places
        for i, packed in self._packed.items():
            packed.into(self._places[i].view(np.uint8))

    def _timed(self, repeats: int) -> float:
        self._run(0, moving=True)  # wakes the workers
        started = time.perf_counter_ns()
        self._run(repeats, moving=True)
        return max(time.perf_counter_ns() - started, 1) * 1e-9 / repeats

    def _run(self, repeats: int, *, moving: bool) -> None:
        """Pointer row 0 holds the true inputs, the others the moving weights."""
        rows = self._pointers.shape[0]
        moves = moving and rows > 1
        self._block[_REPEATS] = repeats
        self._block[_COPIES] = rows - 1 if moves else 1
        self._block[_POINTER_TABLE] = self._pointers[1 if moves else 0].ctypes.data
        self._pool.run(self._entry, self._block.ctypes.data, self._pool.size)
        self._block[_FIRST] += repeats if moves else 0

    def _pointer_table(self, moving: Sequence[int], measurer: CpuMeasurer) -> Array:
        """[rows][operands] addresses; more than one row when the weights move."""
        arrays = [*self._inputs, *self._outputs, self._workspace]
        row = np.array([0 if a is None else a.ctypes.data for a in arrays], np.int64)
        weights = {i: a for i in moving if (a := self._inputs[i]) is not None and a.dtype.kind == "f"}
        sizes = {i: -(-a.nbytes // 64) * 64 for i, a in weights.items()}
        total = sum(sizes.values())
        if total < _MIN_MOVING or 2 * total > measurer.weights.nbytes:  # the largest are always cold
            return row[None]
        table = np.tile(row, (1 + measurer.weights.nbytes // total, 1))
        offsets = np.cumsum([0, *sizes.values()])[:-1]
        for index, offset in zip(sizes, offsets, strict=True):
            table[1:, index] = measurer.weights.ctypes.data + offset + total * np.arange(len(table) - 1)
        return table


@dataclass(eq=False)
class _Weights:
    """Memory for packed weights, and the places of the trial that wrote them last."""

    size_bytes: InitVar[int]
    bytes: Array = field(init=False)
    owner: dict[int, Array] | None = None

    def __post_init__(self, size_bytes: int) -> None:
        self.bytes = _memory(size_bytes)

    def places(self, packed: Mapping[int, Packed]) -> Iterator[tuple[int, Array]]:
        """Room for each of the arrays, one after the other, as vectors."""
        start = 0
        for i, form in packed.items():
            yield i, self.bytes[start : start + form.size_bytes].view(form.dtype.numpy)
            start += _room(form.size_bytes)


def _is_placed(operand: Operand, values: Array) -> bool:
    """Whether an array lies in memory as the operand says."""
    size = operand.dtype.size_bytes
    pairs = zip(values.shape, values.strides, operand.strides, strict=True)
    return values.ctypes.data % 64 == 0 and all(d == 1 or a == b * size for d, a, b in pairs)


def _room(size_bytes: int) -> int:
    return -(-size_bytes // 64) * 64


def _memory(size_bytes: int) -> Array:
    """Uninitialised bytes aligned to a cache line, as in a program; arrays of NumPy are not."""
    raw = np.empty(size_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size_bytes]


def _strided(operand: Operand, values: Array | None = None) -> Array:
    """An aligned array with the operand's strides."""
    size = operand.dtype.size_bytes
    base = _memory(max(operand.span_elems, 1) * size).view(operand.dtype.numpy)
    view = operand.over(base)
    if values is not None:
        view[...] = values
    return view


def _aligned(values: Array) -> Array:
    """`values` in C order on aligned memory."""
    if values.ctypes.data % 64 == 0 and values.flags.c_contiguous:
        return values
    copy = _memory(values.nbytes).view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def _poison(array: Array) -> None:
    array[...] = np.nan if array.dtype.kind == "f" else 85 if array.dtype.kind in "iu" else True


@functools.cache
def _driver(pointers: int, target: CpuTarget) -> LoadedCode:
    """Code of `driver`, the pool entry that runs all stages `repeats` times, for kernels of so many pointers."""
    module = Module()
    f = module.function("driver", [("ptr", "argument"), ("i64", "tid"), ("i64", "nthreads")])
    argument, tid, nthreads = f.args
    stages, copies = f.load("i64", argument, _STAGES), f.load("i64", argument, _COPIES)
    table, rows = f.load("ptr", argument, _STAGE_TABLE), f.load("ptr", argument, _POINTER_TABLE)
    scratch = f.gep(f.load("ptr", argument, _SCRATCH), tid * f.load("i64", argument, _SCRATCH_BYTES), "i8")
    first, dims = f.load("i64", argument, _FIRST), f.load("ptr", argument, _DIMS)
    with f.loop(0, f.load("i64", argument, _REPEATS)) as turn:
        row = ((turn + first) % copies) * pointers
        operands = [f.load("ptr", rows, row + i) for i in range(pointers)]
        with f.loop(0, stages) as stage:
            units = f.load("i64", table, stage * 2 + 1)
            # The same shares as in a program: the caller gets the largest.
            begin, end = ((units * worker + (nthreads - 1)) // nthreads for worker in (tid, tid + 1))
            f.call_address(f.load("ptr", table, stage * 2), *operands, scratch, begin, end, dims)
            emit_barrier(f, f.gep(argument, _BARRIER, "i64"), nthreads, target)
    f.ret()
    return LoadedCode(compile_object(module.text(), target))
