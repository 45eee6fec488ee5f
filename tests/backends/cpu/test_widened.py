# SPDX-License-Identifier: Apache-2.0
"""Families on narrow types: equal to the reference, which computes wide and rounds once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorwright.backends.base import KernelFamily, Operand, Workload
from tensorwright.backends.cpu.invoke import run_kernel
from tensorwright.backends.cpu.kernels.attention import AttentionTiled
from tensorwright.backends.cpu.kernels.conv_depthwise import ConvDepthwise
from tensorwright.backends.cpu.kernels.conv_direct import ConvDirect
from tensorwright.backends.cpu.kernels.deconv import Deconv
from tensorwright.backends.cpu.kernels.gemm import Gemm
from tensorwright.backends.cpu.kernels.lrn import LrnChannels
from tensorwright.backends.cpu.kernels.norm import NormRows
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.kernels.pool import PoolNd
from tensorwright.backends.cpu.kernels.reduce import ReduceNd
from tensorwright.backends.cpu.kernels.softmax import SoftmaxRows
from tensorwright.backends.cpu.kernels.widened import Widened
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Relu
from tensorwright.ops.attention import Attention
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import BatchNorm, LayerNorm, Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.tune.verify import mismatch
from tests.backends.cpu.oracle_check import (
    ISAS,
    SEED,
    compiles_for_neon,
    dense,
    ordered,
    rejected,
    verify,
    view,
    workload,
)

F16, BF16, F32, I8, U8, I16, I32 = DType.f16, DType.bf16, DType.f32, DType.i8, DType.u8, DType.i16, DType.i32
NHWC = (0, 2, 3, 1)
WINDOW = ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1))


def _cases(d: DType) -> dict[str, tuple[KernelFamily[Any, Any, Any], Workload]]:
    """By family, for one of the halves."""

    def n(*shape: int) -> Operand:
        return dense(*shape, dtype=d)

    def image(*shape: int) -> Operand:
        return ordered(NHWC, *shape, dtype=d)

    conv = Convolution((1, 1), (1, 1, 1, 1), (1, 1), 1)
    return {
        "matmul": (Gemm(), workload(MatMul(), n(7, 33), n(33, 21))),
        "matmul_broadcast": (Gemm(), workload(MatMul(), n(2, 3, 5, 8), n(8, 9))),
        "conv": (ConvDirect(), workload(conv, image(1, 5, 9, 8), n(20, 5, 3, 3), out=image(1, 20, 9, 8))),
        "depthwise": (
            ConvDepthwise(),
            workload(
                Convolution((1, 1), (1, 1, 1, 1), (1, 1), 20),
                image(1, 20, 7, 6),
                n(20, 1, 3, 3),
                out=image(1, 20, 7, 6),
            ),
        ),
        "deconv": (
            Deconv(),
            workload(
                Deconvolution((2, 2), (0, 0, 0, 0), (1, 1), 1, (0, 0)),
                image(1, 6, 4, 5),
                n(6, 8, 2, 2),
                out=image(1, 8, 8, 10),
            ),
        ),
        "attention": (AttentionTiled(), workload(Attention(0.3), n(2, 9, 16), n(2, 11, 16), n(2, 11, 16))),
        "softmax": (SoftmaxRows(), workload(Softmax(1), view((5, 37), (50, 1), d))),
        "log_softmax": (SoftmaxRows(), workload(LogSoftmax(0), n(9, 21))),
        "layer_norm": (NormRows(), workload(LayerNorm(1), n(5, 41), n(41), n(41))),
        "layer_norm_no_bias": (NormRows(), workload(LayerNorm(1), n(5, 41), n(41), None)),
        "mean": (ReduceNd(), workload(Reduce("mean", (2, 3)), image(2, 9, 7, 5))),
        "max": (ReduceNd(), workload(Reduce("max", (0,), False), view((5, 20), (100, 3), d))),
        "large_sum": (ReduceNd(), workload(Reduce("sum", (0, 1), False), n(260, 301))),
        "max_pool": (PoolNd(), workload(MaxPool(*WINDOW), image(1, 5, 9, 8))),
        "average_pool": (PoolNd(), workload(AveragePool(*WINDOW), n(2, 3, 9, 8))),
        "lrn": (LrnChannels(), workload(Lrn(3, 1e-2, 0.75, 1.0), image(1, 9, 5, 4))),
        "batch_norm": (PointwiseNd(), workload(BatchNorm(1e-5), n(2, 5, 7), n(5), n(5), n(5), n(5))),
        "broadcast_in_memory": (SoftmaxRows(), workload(Softmax(1), view((4, 9), (0, 1), d))),
        "empty": (SoftmaxRows(), workload(Softmax(1), n(0, 5))),
    }


CONSTANT = ("conv", "depthwise")  # families that want constant weights
CASES = {f"{name}-{d}": c for d in (F16, BF16) for name, c in _cases(d).items() if name not in CONSTANT}
CASES |= {f"mean-{d}": (ReduceNd(), workload(Reduce("mean", (1,)), dense(3, 300, dtype=d))) for d in (I8, U8, I16, I32)}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_widened_kernel_equals_reference(name: str, isa: str) -> None:
    family, w = CASES[name]
    arrays = None
    if isinstance(w.op, BatchNorm):  # variances are positive
        rng = np.random.default_rng(SEED)
        arrays = [rng.uniform(0.5, 1.5, o.shape).astype(o.dtype.numpy) for o in w.inputs if o is not None]
    verify(Widened([family]), w, isa, arrays, most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["matmul", "layer_norm", *CONSTANT])
def test_constants_are_converted_at_build(name: str, isa: str) -> None:
    family, w = _cases(F16)[name]
    operands = [
        o if o is None or i == 0 else Operand(o.dtype, o.shape, o.strides, True) for i, o in enumerate(w.inputs)
    ]
    w = Workload(w.op, tuple(operands), w.outputs)
    rng = np.random.default_rng(SEED)
    arrays = [None if o is None else rng.standard_normal(o.shape).astype(np.float16) for o in operands]
    target = CpuTarget.parse(f"cpu:{isa}")
    wide = Widened([family])
    constants = {i: a for i, a in enumerate(arrays) if i and a is not None}
    kernel = wide.emit(w, next(iter(wide.candidates(w, target))), target, "kernel", constants)
    assert set(kernel.packed) == set(constants)
    assert all(a.dtype is DType.f32 for a in kernel.packed.values())
    reason = mismatch(w.op, run_kernel(w, kernel, target, arrays, 3), list(w.op.reference(*arrays)))
    assert not reason, f"{reason} (seed {SEED})"


def test_widened_leaves_the_rest_to_others() -> None:
    assert "no operand" in rejected(Widened([SoftmaxRows()]), workload(Softmax(1), dense(3, 4)))
    assert "rounds after every op" in rejected(Widened([PointwiseNd()]), workload(Relu(), dense(3, dtype=F16)))
    assert "no family takes softmax of f32" in rejected(
        Widened([PoolNd()]), workload(Softmax(1), dense(3, 4, dtype=F16))
    )


def test_widened_kernels_compile_for_neon() -> None:
    for name in ("softmax-f16", "max_pool-bf16", "mean-i8"):
        family, w = CASES[name]
        compiles_for_neon(Widened([family]), w)
