# SPDX-License-Identifier: Apache-2.0
"""Kernels of sizes as data compile for every target; what they compute is tested in tests/runtime."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tensorwright import ops as o
from tensorwright.backends.base import Operand, Workload, row_major
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import Symbol, SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.tune.search import unsupported

COUNT = SymDim.symbol(Symbol("count", 0, 3, 15, 0))


def operand(dtype: DType, *shape: object) -> Operand:
    dims: Sequence[int] = shape  # type: ignore[assignment]
    return Operand(dtype, tuple(dims), row_major(dims))


def workload(op: Op, *inputs: Operand) -> Workload:
    (result,) = op.infer(*(o.type for o in inputs))
    return Workload(op, inputs, (operand(result.dtype, *result.shape),))


WORKLOADS = {
    "non_zero_scan": workload(o.NonZero(COUNT), operand(DType.f32, 3, 5)),
    "size_reader": workload(o.ReadSize(COUNT, 15), operand(DType.i64, 1)),
    "shape_writer": workload(o.ShapeOf(0, 2), operand(DType.f32, COUNT, 5)),
    "nms_greedy": workload(
        o.NonMaxSuppression(COUNT), operand(DType.f32, 1, 5, 4), operand(DType.f32, 1, 3, 5), operand(DType.i64, 1)
    ),
}


@pytest.mark.parametrize("isa", ["neon", "avx2", "avx512"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_family_compiles(name: str, isa: str) -> None:
    target, w = CpuTarget.parse(f"cpu:{isa}"), WORKLOADS[name]
    assert not unsupported([w], target, FAMILIES)
    family = next(f for f in FAMILIES if f.name == name)
    config = next(iter(family.candidates(w.at_opt(), target)))
    assert compile_object(family.emit(w, config, target, "kernel", {}).ir, target)[:4] == b"\x7fELF"


@pytest.mark.parametrize("dtype", [DType.f16, DType.bf16])
def test_a_type_without_kernel_is_refused(dtype: DType) -> None:
    w = workload(o.NonZero(COUNT), operand(dtype, 3, 5))
    assert unsupported([w], CpuTarget.probe(), FAMILIES)
