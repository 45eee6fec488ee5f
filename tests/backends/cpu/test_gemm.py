# SPDX-License-Identifier: Apache-2.0
"""Matrix products against NumPy: shapes, strides, batches, epilogues, both instruction sets."""

from __future__ import annotations

import pytest

from tensorwright.backends.base import Operand, Reject, Workload
from tensorwright.backends.cpu.kernels.gemm import Gemm
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ops.linear import MatMul
from tests.backends.cpu.dense_check import BODIES, F32, check, compiles_for_neon, conv_workload, image, plain, with_body

ISAS = ("avx512", "avx2")


def matmul(a: Operand, b: Operand, out: Operand, body: str = "none") -> Workload:
    return with_body(MatMul(), [a, b], out, body, len(out.shape) - 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (1, 70, 10), (3, 5, 33), (17, 64, 50), (40, 129, 96), (2, 300, 257)])
def test_gemm_of_constant_weights_matches(isa: str, m: int, k: int, n: int) -> None:
    assert check(Gemm(), matmul(plain(m, k), plain(k, n, constant=True), plain(m, n)), isa, most=3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("body", BODIES)
def test_gemm_epilogue_matches(isa: str, body: str) -> None:
    assert check(Gemm(), matmul(plain(2, 9, 20), plain(20, 37, constant=True), plain(2, 9, 37), body), isa, most=2)


def strided(shape: tuple[int, ...], strides: tuple[int, ...], constant: bool = False) -> Operand:
    return Operand(F32, shape, strides, constant)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "a,b,out",
    [
        (plain(3, 6, 11), plain(3, 11, 18), plain(3, 6, 18)),
        (plain(2, 1, 6, 11), plain(3, 11, 18), plain(2, 3, 6, 18)),
        (plain(6, 11), plain(4, 11, 5), plain(4, 6, 5)),
        (plain(7), plain(7, 9), plain(9)),
        (plain(5, 7), plain(7), plain(5)),
        (plain(7), plain(7), plain()),
        (plain(3, 4, 7), plain(3, 7, 5, constant=True), plain(3, 4, 5)),
        (strided((2, 5, 6), (30, 1, 5)), strided((2, 6, 19), (114, 1, 6)), strided((2, 5, 19), (1, 38, 2))),
        (strided((9, 6), (1, 9)), strided((6, 17), (40, 2)), strided((9, 17), (1, 9))),
    ],
)
def test_gemm_of_any_strides_and_batches_matches(isa: str, a: Operand, b: Operand, out: Operand) -> None:
    assert check(Gemm(), matmul(a, b, out), isa, most=2)


@pytest.mark.parametrize("isa", ISAS)
def test_gemm_runs_pointwise_convolution_inside_concats(isa: str) -> None:
    assert check(Gemm(), conv_workload(image(2, 18, 5, 7, pad=6), 35, (1, 1), body="residual", pad=13), isa, most=3)
    assert check(Gemm(), conv_workload(image(1, 18, 9, 7), 20, (1, 1), (2, 2), body="bias_relu"), isa, most=2)


def test_gemm_compiles_for_neon() -> None:
    compiles_for_neon(Gemm(), matmul(plain(9, 20), plain(20, 37, constant=True), plain(9, 37), "bias_relu"))


def test_gemm_rejects_what_it_cannot_run() -> None:
    target = CpuTarget.parse("cpu:avx2")
    assert isinstance(Gemm().accepts(conv_workload(image(1, 8, 5, 5), 8, (3, 3)), target), Reject)
    halves = Operand(DType.f16, (4, 4), (4, 1))
    assert isinstance(Gemm().accepts(Workload(MatMul(), (halves, halves), (halves,)), target), Reject)
