# SPDX-License-Identifier: Apache-2.0
"""Every kernel family writes code that LLVM turns into AArch64 objects. (Results are checked on x86-64 only.)"""

from __future__ import annotations

from typing import Any

import pytest

from tensorwright.backends.base import KernelFamily, Operand, Reject, Workload, row_major
from tensorwright.backends.cpu.compile import compile_object
from tensorwright.backends.cpu.kernels import FAMILIES
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ops.activation import Gelu, Relu
from tensorwright.ops.attention import Attention
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.copy import Copy
from tensorwright.ops.elementwise import Add, Exp
from tensorwright.ops.fused import Fused, Instr
from tensorwright.ops.index import ArgMax, Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import LayerNorm, Lrn
from tensorwright.ops.order import CumSum, TopKValues
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import Reduce, Softmax
from tensorwright.ops.shape import Resize
from tensorwright.tune.samples import sample_inputs

_AARCH64 = 183  # e_machine of an ELF file


def matrix(*shape: int, constant: bool = False, dtype: DType = DType.f32) -> Operand:
    return Operand(dtype, shape, row_major(shape), constant)


def image(channels: int, height: int, width: int) -> Operand:
    """Channels last, as lowering stores activations."""
    return Operand(DType.f32, (1, channels, height, width), (channels * height * width, 1, width * channels, channels))


def weights(*shape: int) -> Operand:
    return matrix(*shape, constant=True)


ONE, TWO = (1, 1), (2, 2)
X = image(19, 9, 11)
BIAS_RELU = (Instr(Add(), (3, 2)), Instr(Relu(), (4,)))
WORKLOADS = {
    "mat_mul": Workload(MatMul(), (matrix(13, 21), weights(21, 37)), (matrix(13, 37),)),
    "mat_mul_fused": Workload(
        Fused(MatMul(), 2, BIAS_RELU), (matrix(13, 21), weights(21, 37), weights(37)), (matrix(13, 37),)
    ),
    "mat_mul_batched": Workload(MatMul(), (matrix(3, 5, 8), matrix(3, 8, 6)), (matrix(3, 5, 6),)),
    "mat_mul_f64": Workload(
        MatMul(), (matrix(5, 8, dtype=DType.f64), matrix(8, 6, dtype=DType.f64)), (matrix(5, 6, dtype=DType.f64),)
    ),
    "mat_mul_f16": Workload(
        MatMul(), (matrix(5, 8, dtype=DType.f16), matrix(8, 6, dtype=DType.f16)), (matrix(5, 6, dtype=DType.f16),)
    ),
    "conv_3x3": Workload(Convolution(ONE, (1, 1, 1, 1), ONE), (X, weights(24, 19, 3, 3)), (image(24, 9, 11),)),
    "conv_1x1": Workload(Convolution(ONE, (0, 0, 0, 0), ONE), (X, weights(24, 19, 1, 1)), (image(24, 9, 11),)),
    "conv_grouped": Workload(
        Convolution(ONE, (1, 1, 1, 1), ONE, 3), (image(12, 9, 9), weights(24, 4, 3, 3)), (image(24, 9, 9),)
    ),
    "conv_depthwise": Workload(Convolution(ONE, (1, 1, 1, 1), ONE, 19), (X, weights(19, 1, 3, 3)), (X,)),
    "deconv": Workload(Deconvolution(TWO, (0, 0, 0, 0), ONE), (X, weights(19, 8, 2, 2)), (image(8, 18, 22),)),
    "attention": Workload(
        Attention(0.125), (matrix(2, 9, 16), matrix(2, 11, 16), matrix(2, 11, 8)), (matrix(2, 9, 8),)
    ),
    "pointwise": Workload(
        Fused(None, 0, (Instr(Add(), (0, 1)), Instr(Gelu(), (2,)))), (matrix(7, 33), matrix(33)), (matrix(7, 33),)
    ),
    "exp": Workload(Exp(), (matrix(77),), (matrix(77),)),
    "copy": Workload(Copy(), (X,), (matrix(1, 19, 9, 11),)),
    "softmax": Workload(Softmax(1), (matrix(7, 45),), (matrix(7, 45),)),
    "layer_norm": Workload(LayerNorm(1, 1e-5), (matrix(7, 45), weights(45), weights(45)), (matrix(7, 45),)),
    "reduce": Workload(Reduce("mean", (2, 3), True), (X,), (image(19, 1, 1),)),
    "arg_max": Workload(ArgMax(1), (matrix(7, 45),), (matrix(7, 1, dtype=DType.i64),)),
    "top_k": Workload(TopKValues(3, 1), (matrix(7, 45),), (matrix(7, 3),)),
    "cum_sum": Workload(CumSum(1), (matrix(7, 45),), (matrix(7, 45),)),
    "lrn": Workload(Lrn(5, 1e-4, 0.75, 1.0), (X,), (X,)),
    "max_pool": Workload(MaxPool((3, 3), TWO, (1, 1, 1, 1), ONE, False), (X,), (image(19, 5, 6),)),
    "average_pool": Workload(AveragePool((3, 3), TWO, (1, 1, 1, 1), ONE, False, False), (X,), (image(19, 5, 6),)),
    "gather": Workload(Gather(0), (matrix(50, 24), matrix(9, dtype=DType.i64)), (matrix(9, 24),)),
    "resize": Workload(
        Resize("linear", (1, 19, 18, 22), (1.0, 1.0, 2.0, 2.0), "half_pixel", "round_prefer_floor"),
        (X,),
        (image(19, 18, 22),),
    ),
}


def accepting(w: Workload, target: CpuTarget) -> list[KernelFamily[Any, Any, Any]]:
    return [family for family in FAMILIES if not isinstance(family.accepts(w, target), Reject)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_families_emit_code_for_neon_that_compiles(name: str) -> None:
    target, w = CpuTarget.parse("cpu:neon"), WORKLOADS[name]
    families = accepting(w, target)
    assert families, [family.accepts(w, target) for family in FAMILIES]
    operands = enumerate(zip(w.inputs, sample_inputs(w, {}), strict=True))
    constants = {i: x for i, (o, x) in operands if o is not None and o.constant and x is not None}
    for family in families:
        config = next(iter(family.candidates(w, target)))
        code = compile_object(family.emit(w, config, target, "kernel", constants).ir, target)
        assert code[:4] == b"\x7fELF", family.name
        assert int.from_bytes(code[18:20], "little") == _AARCH64, family.name


# Compiled for NEON in the test files of their own.
ELSEWHERE = {
    "recurrent_fused",
    "roi_align_cells",
    "pool_indices",
    "grid_sample_nd",
    "index_elements",
    "random_keys",
    "random_blocks",
    "determinant_lu",
    "linear_attention_columns",
    "max_roi_pool_cells",
    "non_zero_scan",
    "size_reader",
    "shape_writer",
    "nms_greedy",
}


def test_every_family_takes_part() -> None:
    target = CpuTarget.parse("cpu:neon")
    used = {family.name for w in WORKLOADS.values() for family in accepting(w, target)}
    assert {family.name for family in FAMILIES} == used | ELSEWHERE
