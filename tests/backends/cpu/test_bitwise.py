# SPDX-License-Identifier: Apache-2.0
"""Bits of every number of the narrow types, and shifts by every count."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.ir.dtype import DType
from tensorwright.ops.bitwise import BitCast, BitShift
from tests.backends.cpu.oracle_check import ISAS, compiles_for_neon, dense, verify, workload

EVERY = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("half", [DType.f16, DType.bf16])
def test_bits_of_every_half_survive_but_for_signalling_nans(half: DType, isa: str) -> None:
    quiet = np.uint16(1 << (9 if half is DType.f16 else 6))
    bits = np.where(np.isnan(EVERY.view(half.numpy).astype(np.float32)), EVERY | quiet, EVERY)
    numbers = bits.view(half.numpy)
    to = workload(BitCast(DType.u16), dense(bits.size, dtype=half))
    verify(PointwiseNd(), to, isa, [numbers], want=bits)
    back = workload(BitCast(half), dense(bits.size, dtype=DType.u16))
    verify(PointwiseNd(), back, isa, [bits], want=numbers)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("dtype", [DType.i8, DType.u8, DType.i32, DType.u64])
def test_shifts_by_every_count_equal_reference(dtype: DType, left: bool, isa: str) -> None:
    x = EVERY[:512].astype(dtype.numpy)[:, None]
    counts = np.arange(0 if dtype.value[0] == "u" else -3, 70).astype(dtype.numpy)
    w = workload(BitShift(left), dense(512, 1, dtype=dtype), dense(counts.size, dtype=dtype))
    verify(PointwiseNd(), w, isa, [x, counts])


def test_shifts_beyond_the_width_keep_the_sign_only() -> None:
    x, counts = np.array([-5, -5, 5, -5], np.int32), np.array([32, -1, 40, 31], np.int32)
    assert BitShift(False).reference(x, counts)[0].tolist() == [-1, -1, 0, -1]
    assert BitShift(True).reference(x, counts)[0].tolist() == [0, 0, 0, -(1 << 31)]


def test_bit_cast_refuses_other_widths_and_bools() -> None:
    for source, to in ((DType.f32, DType.i64), (DType.u8, DType.bool), (DType.i4, DType.i8)):
        with pytest.raises(ValueError, match="bit_cast cannot read"):
            BitCast(to).infer(dense(3, dtype=source).type)


def test_bit_ops_compile_for_neon() -> None:
    compiles_for_neon(PointwiseNd(), workload(BitCast(DType.u16), dense(67, dtype=DType.bf16)))
    compiles_for_neon(PointwiseNd(), workload(BitShift(False), *(dense(67, dtype=DType.i32),) * 2))
