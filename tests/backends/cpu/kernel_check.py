# SPDX-License-Identifier: Apache-2.0
"""Runs every candidate of a family under several splits, on poisoned outputs, against the reference."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tensorwright.backends.base import Accept, CpuKernel, KernelFamily, Operand, Workload, row_major
from tensorwright.backends.cpu.invoke import LoadedKernel
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array

SEED = int(np.random.SeedSequence().entropy or 0)


def weights(*shape: int) -> Operand:
    """A dense constant operand."""
    return Operand(DType.f32, shape, row_major(shape), constant=True)


def random_inputs(w: Workload) -> list[Array | None]:
    rng = np.random.default_rng(SEED)
    return [None if o is None else rng.standard_normal(o.shape).astype(np.float32) for o in w.inputs]


def check_kernel(
    family: KernelFamily[Any, Any, Any],
    w: Workload,
    isa: str,
    inputs: list[Array | None] | None = None,
    *,
    tolerance: float = 2e-5,
    most: int = 9,
) -> None:
    """Fails unless all candidates agree with the reference, NaN for NaN, and touch only the output's elements."""
    target = CpuTarget.parse(f"cpu:{isa}")
    accepted = family.accepts(w, target)
    assert isinstance(accepted, Accept), accepted
    inputs = random_inputs(w) if inputs is None else inputs
    (want,) = w.op.reference(*inputs)
    assert want.shape == w.outputs[0].shape
    constants = {
        i: a
        for i, (o, a) in enumerate(zip(w.inputs, inputs, strict=True))
        if o is not None and a is not None and o.constant
    }
    configs = list(family.candidates(w, target))[:most]
    assert configs
    for config in configs:
        kernel = family.emit(w, config, target, "kernel", constants)
        assert family.emit(w, config, target, "kernel", constants).ir == kernel.ir, "emission is not deterministic"
        _check_splits(
            w, kernel, target, inputs, want, tolerance, f"{family.name} {config} for {isa} on {w.key} (seed {SEED})"
        )


def _check_splits(
    w: Workload,
    kernel: CpuKernel,
    target: CpuTarget,
    inputs: list[Array | None],
    want: Array,
    tolerance: float,
    what: str,
) -> None:
    loaded = LoadedKernel(w, kernel, target, inputs)
    out = loaded.outputs[0]
    whole = _memory_of(out, w.outputs[0].span_elems) if w.outputs[0].start_elems == 0 else None
    for splits in (1, 3, max(s.units for s in kernel.stages) + 1):
        out[...] = np.nan
        loaded.run(splits)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(want), err_msg=f"NaNs of {what}, {splits} splits")
        size = np.nanmax(np.abs(want), initial=0.0)
        error = np.nanmax(np.abs(out.astype(np.float64) - want), initial=0.0)
        assert error <= tolerance * max(size, 1e-6), f"{what}: error {error} of {size}, {splits} splits"
        if whole is not None:
            out[...] = np.nan
            assert np.isnan(whole).all(), f"{what}, {splits} splits: wrote between the output's elements"
    loaded.code.close()


def _memory_of(view: Array, count: int) -> Array:
    """All `count` floats from the first element of a view on, also those between its elements."""
    pointer = ctypes.cast(view.ctypes.data, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, (count,)) if count else np.zeros(0, np.float32)
