# SPDX-License-Identifier: Apache-2.0
"""Run one CPU kernel on NumPy arrays, outside any program: for verification, tuning and tests."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from tensorwright.backends.base import CpuKernel, Operand, Workload
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.jit import LoadedCode
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.op import Array


def strided(operand: Operand, values: Array | None = None) -> Array:
    """An array with exactly the operand's strides, holding `values` (poison when None: NaN, or a large integer)."""
    base = np.full(max(operand.span_elems, 1), np.nan if operand.dtype.is_float else 85, operand.dtype.numpy)
    view = operand.over(base[operand.start_elems :])
    if values is not None:
        view[...] = values
    return view


def aligned_bytes(count: int) -> Array:
    """`count` uninitialised bytes (poisoned with 0xFF = NaN) on a 64-byte boundary."""
    raw = np.full(count + 64, 0xFF, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count]


class LoadedKernel:
    """A compiled kernel bound to arrays; `run` executes all stages, each split in the given number of ranges."""

    def __init__(self, w: Workload, kernel: CpuKernel, target: CpuTarget, inputs: Sequence[Array | None]) -> None:
        self.code = LoadedCode(compile_object(kernel.ir, target))
        self.kernel = kernel
        self.outputs = [strided(o) for o in w.outputs]
        self._keep = [
            packed.into(aligned_bytes(packed.size_bytes))
            if (packed := kernel.packed.get(i)) is not None
            else strided(o, x)
            if o is not None and x is not None
            else x
            for i, (o, x) in enumerate(zip(w.inputs, inputs, strict=True))
        ]
        memory = [aligned_bytes(kernel.workspace_bytes), aligned_bytes(kernel.scratch_bytes)]
        arrays = [*self._keep, *self.outputs, *memory]
        self._memory = memory
        self.pointers = [ctypes.c_void_p(0 if a is None else a.ctypes.data) for a in arrays]
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), ctypes.c_int64, ctypes.c_int64)
        self.functions = [kind(self.code.address(s.symbol)) for s in kernel.stages]

    def run(self, splits: int = 1) -> None:
        """Execute on this thread; `splits` > 1 exercises unit ranges as several workers would get them."""
        for stage, function in zip(self.kernel.stages, self.functions, strict=True):
            for part in range(splits):
                function(*self.pointers, stage.units * part // splits, stage.units * (part + 1) // splits)


def run_kernel(
    w: Workload, kernel: CpuKernel, target: CpuTarget, inputs: Sequence[Array | None], splits: int = 1
) -> list[Array]:
    """Compile and run once; outputs as strided arrays (poisoned before the run)."""
    loaded = LoadedKernel(w, kernel, target, inputs)
    loaded.run(splits)
    outputs = [o.copy() for o in loaded.outputs]
    loaded.code.close()
    return outputs
