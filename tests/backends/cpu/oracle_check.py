# SPDX-License-Identifier: Apache-2.0
"""Runs a family on inputs of any dtype beside unreadable memory, on poisoned outputs, against the op's reference."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.backends.base import Accept, KernelFamily, Operand, Reject, Workload, row_major
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.invoke import LoadedKernel
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops.fused import Fused, Instr
from tensorwright.tune.verify import mismatch

ISAS = ("avx512", "avx2")
SEED = int(np.random.SeedSequence().entropy or 0)
_PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)


def dense(*shape: int, dtype: DType = DType.f32) -> Operand:
    """Row-major."""
    return Operand(dtype, shape, row_major(shape))


def view(shape: Sequence[int], strides: Sequence[int], dtype: DType = DType.f32) -> Operand:
    return Operand(dtype, tuple(shape), tuple(strides))


def ordered(order: Sequence[int], *shape: int, gap: int = 0, dtype: DType = DType.f32) -> Operand:
    """Axes lie in `order` in memory, slowest first, with `gap` extra elements after each run of the fastest one."""
    strides, step = [0] * len(shape), 1
    for i, axis in enumerate(reversed(order)):
        strides[axis] = step
        step *= shape[axis] + (gap if i == 0 else 0)
    return Operand(dtype, shape, tuple(strides))


def workload(op: Op, *inputs: Operand | None, out: Operand | None = None) -> Workload:
    """The op on operands; the output is row-major unless given."""
    (result,) = op.infer(*(None if o is None else o.type for o in inputs))
    return Workload(op, inputs, (out or dense(*result.static_shape, dtype=result.dtype),))


def region(anchor: Op | None, count: int, *body: tuple[Op, tuple[int, ...]]) -> Fused:
    return Fused(anchor, count, tuple(Instr(op, args) for op, args in body))


def random_values(operand: Operand, rng: np.random.Generator) -> Array:
    """Equal along broadcast axes, which share their memory."""
    shape = [1 if s == 0 else d for d, s in zip(operand.shape, operand.strides, strict=True)]
    if operand.dtype.is_float:
        values = np.asarray(rng.standard_normal(shape) + 0.25)  # so that long sums do not cancel to nothing
    else:
        low, high = (0, 2) if operand.dtype is DType.bool else (-9 if operand.dtype.is_signed else 0, 10)
        values = rng.integers(low, high, shape)
    return np.broadcast_to(values.astype(operand.dtype.numpy), operand.shape)


def verify(
    family: KernelFamily[Any, Any, Any],
    w: Workload,
    isa: str,
    inputs: Sequence[Array | None] | None = None,
    *,
    want: Array | None = None,
    most: int = 3,
) -> None:
    """Fails unless the first `most` candidates agree with the reference (or `want`) for several unit splits, write
    nothing but the output's elements and read nothing behind the inputs (that would crash)."""
    target = CpuTarget.parse(f"cpu:{isa}")
    accepted = family.accepts(w, target)
    assert isinstance(accepted, Accept), accepted
    rng = np.random.default_rng(SEED)
    if inputs is None:
        inputs = [None if o is None else random_values(o, rng) for o in w.inputs]
    if want is None:
        (want,) = w.op.reference(*inputs)
    configs = list(family.candidates(w, target))[:most]
    assert configs
    constants = {
        i: a
        for i, (o, a) in enumerate(zip(w.inputs, inputs, strict=True))
        if o is not None and a is not None and o.constant
    }
    for config in configs:
        kernel = family.emit(w, config, target, "kernel", constants)
        loaded = LoadedKernel(w, kernel, target, inputs)
        guarded = [
            None if o is None or a is None else _before_guard(o, a) for o, a in zip(w.inputs, inputs, strict=True)
        ]
        out, whole = _before_guard_poisoned(w.outputs[0])
        for i, array in enumerate([*guarded, out]):
            if i not in kernel.packed:
                loaded.pointers[i] = ctypes.c_void_p(0 if array is None else array.ctypes.data)
        what = f"{family.name} {config} for {isa} on {w} (seed {SEED})"
        for splits in (1, 3, max(s.units for s in kernel.stages) + 1):
            poison(whole)
            loaded.run(splits)
            got = out.copy()
            reason = mismatch(w.op, [got], [want])
            assert not reason, f"{what}, {splits} splits: {reason}"
            out[...] = np.zeros((), out.dtype)
            clean = whole.copy()
            poison(whole)
            out[...] = np.zeros((), out.dtype)
            assert clean.tobytes() == whole.tobytes(), f"{what}, {splits} splits: wrote between the output's elements"
        loaded.code.close()


def verify_in_place(family: KernelFamily[Any, Any, Any], w: Workload, isa: str) -> None:
    """Fails unless the output is right when it lies in the memory of input 0, which has the same strides."""
    target, rng = CpuTarget.parse(f"cpu:{isa}"), np.random.default_rng(SEED)
    assert w.inputs[0] is not None and w.inputs[0].strides == w.outputs[0].strides
    inputs = [None if o is None else random_values(o, rng) for o in w.inputs]
    kernel = family.emit(w, next(iter(family.candidates(w, target))), target, "kernel", {})
    loaded = LoadedKernel(w, kernel, target, inputs)
    loaded.outputs[0][...] = inputs[0]
    loaded.pointers[0] = loaded.pointers[len(inputs)]
    loaded.run(3)
    reason = mismatch(w.op, [loaded.outputs[0]], list(w.op.reference(*inputs)))
    assert not reason, f"{family.name} in place for {isa} on {w} (seed {SEED}): {reason}"
    loaded.code.close()


def rejected(family: KernelFamily[Any, Any, Any], w: Workload) -> str:
    """The reason for the reject."""
    accepted = family.accepts(w, CpuTarget.parse("cpu:avx2"))
    assert isinstance(accepted, Reject), accepted
    return accepted.reason


def compiles_for_neon(family: KernelFamily[Any, Any, Any], w: Workload) -> None:
    """The first candidate becomes aarch64 object code."""
    target = CpuTarget.parse("cpu:neon")
    config = next(iter(family.candidates(w, target)))
    assert compile_object(family.emit(w, config, target, "kernel", {}).ir, target)[:4] == b"\x7fELF"


def poison(memory: Array) -> None:
    is_float = memory.dtype.kind == "f"
    memory[...] = np.nan if is_float else np.asarray(85).astype(memory.dtype)


def _before_guard(operand: Operand, values: Array) -> Array:
    array, _ = _before_guard_poisoned(operand)
    array[...] = values
    return array


def _before_guard_poisoned(operand: Operand) -> tuple[Array, Array]:
    """(the operand's view, all its memory): poisoned, and ending where an unreadable page begins."""
    size = operand.span_elems * operand.dtype.size_bytes
    pages = -(-size // _PAGE) + 1
    memory = mmap.mmap(-1, pages * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _LIBC.mprotect(ctypes.c_void_p(start + (pages - 1) * _PAGE), ctypes.c_size_t(_PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect failed")
    whole = np.frombuffer(memory, operand.dtype.numpy, operand.span_elems, (pages - 1) * _PAGE - size)
    poison(whole)
    return operand.over(whole[operand.start_elems :]), whole
