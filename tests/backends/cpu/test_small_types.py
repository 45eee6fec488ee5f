# SPDX-License-Identifier: Apache-2.0
"""Types of less than a byte and 8-bit floats: every code and every rounding against ml_dtypes, and quantisation."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.cpu.conversions import REGISTERS, SMALL
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.small_types import FORMATS, INTEGER_BITS
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops import elementwise as ew
from tensorwright.ops.quantise import Dequantise, Quantise, integer_range
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, rejected, verify, view, workload

SMALLS = sorted(SMALL, key=str)
QUANTISED = [DType.i8, DType.u8, DType.i16, DType.u16, *SMALLS]


def codes(dtype: DType) -> Array:
    """Every number of a small type, or of f8e8m0fnu."""
    bits = INTEGER_BITS.get(dtype, 8)
    if dtype in FORMATS:
        bits = FORMATS[dtype].exponent + FORMATS[dtype].mantissa + 1
    return np.arange(1 << bits, dtype=np.uint8).view(dtype.numpy)


def numbers(dtype: DType, low: float, high: float, count: int = 4000) -> Array:
    """Random floats with ties among them, and special ones."""
    rng = np.random.default_rng(SEED)
    spread = rng.uniform(-1, 1, count) * 2.0 ** rng.integers(-20, 20, count)
    ties = rng.integers(2 * int(low) - 3, 2 * int(high) + 4, count) / 2
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-40, 448, 464, 465, 57344, 61440, 240, 248, 7, 0.25]
    with np.errstate(all="ignore"):
        return np.concatenate([special, spread, ties]).astype(dtype.numpy)


def check(op: Op, isa: str, *arrays: Array) -> None:
    w = workload(op, *(dense(*a.shape, dtype=DType.of(a.dtype)) for a in arrays))
    verify(PointwiseNd(), w, isa, list(arrays), most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("to", [DType.f32, DType.f16, DType.f64, DType.bool], ids=str)
@pytest.mark.parametrize("source", [*SMALLS, DType.f8e8m0fnu], ids=str)
def test_every_code_of_a_small_type_is_read(source: DType, to: DType, isa: str) -> None:
    check(ew.Cast(to), isa, codes(source))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source", [DType.f32, DType.f64, DType.f16, DType.bf16], ids=str)
@pytest.mark.parametrize("to", FORMATS, ids=str)
def test_cast_to_a_small_float_rounds_once_to_even(to: DType, source: DType, isa: str) -> None:
    values = codes(to).astype(np.float64)
    values = np.sort(values[np.isfinite(values)])
    middles = (values[1:] + values[:-1]) / 2
    nearly = np.concatenate([middles * (1 + s * 2.0**-e) for s in (-1, 1) for e in (9, 20, 40)])
    x = np.concatenate([numbers(source, -500, 500).astype(np.float64), values, middles, nearly])
    with np.errstate(all="ignore"):
        check(ew.Cast(to), isa, x.astype(source.numpy))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("to", SMALLS, ids=str)
@pytest.mark.parametrize("source", [DType.i8, DType.u8, DType.i32, DType.i64, DType.bool, *INTEGER_BITS], ids=str)
def test_cast_of_integers_to_small_types_equals_ml_dtypes(source: DType, to: DType, isa: str) -> None:
    x = np.arange(-128, 128) if source.is_signed else np.arange(256)
    if source in INTEGER_BITS:
        x = codes(source)
    check(ew.Cast(to), isa, x.astype(source.numpy))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [DType.f32, DType.f16, DType.bf16, DType.f64], ids=str)
@pytest.mark.parametrize("to", QUANTISED, ids=str)
def test_quantise_equals_reference(to: DType, dtype: DType, isa: str) -> None:
    low, high = integer_range(to) if to.is_integer else (-448, 448)
    x = numbers(dtype, low, high)
    for scale in (1.0, 0.037, -3.0):
        check(Quantise(to), isa, x, np.full(1, scale, dtype.numpy))
    offsets = np.array([low, low + 1, 0, 1, high - 1, high] if to.is_integer else [0, 1, -1.5], to.numpy)[:, None]
    check(Quantise(to), isa, x[None], np.array(1, dtype.numpy), offsets)
    if not to.is_integer:
        check(Quantise(to, saturate=False), isa, x, np.full(1, 0.5, dtype.numpy))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("to", [DType.f32, DType.f16, DType.bf16], ids=str)
@pytest.mark.parametrize("source", [*QUANTISED, DType.i32], ids=str)
def test_dequantise_equals_reference(source: DType, to: DType, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    if source in SMALL:
        x = codes(source)
    else:
        info = np.iinfo(source.numpy)
        x = np.concatenate([[info.min, info.max], rng.integers(info.min, info.max, 999, endpoint=True)])
    x = x.astype(source.numpy)
    for scale in (DType.f32, DType.f16, DType.bf16):
        check(Dequantise(to), isa, x, np.array([0.037], scale.numpy))
    check(Dequantise(to), isa, x[None], np.array([[1.0], [3.1], [-0.2]], np.float32), x[:3, None])


@pytest.mark.parametrize("isa", ISAS)
def test_quantise_of_strided_and_broadcast_operands_equals_reference(isa: str) -> None:
    x, scale = view((6, 35), (1, 7)), dense(35)
    for to in (DType.u8, DType.i4, DType.f8e4m3fn):
        w = workload(Quantise(to), x, scale, dense(6, 1, dtype=to))
        rng = np.random.default_rng(SEED)
        arrays = [rng.normal(0, 9, (6, 35)), rng.uniform(0.1, 2, 35), rng.integers(0, 3, (6, 1))]
        types = [np.float32, np.float32, to.numpy]
        verify(PointwiseNd(), w, isa, [a.astype(t) for a, t in zip(arrays, types, strict=True)], most=1)


def test_a_quotient_of_halves_is_rounded_to_a_half() -> None:
    x, scale = np.array([1.0], np.float16), np.array([3.0], np.float16)
    (y,) = Quantise(DType.f8e4m3fn).reference(x, scale)
    assert y == (x / scale).astype(y.dtype)
    rng = np.random.default_rng(SEED)
    x, scale = (rng.uniform(1, 99, 5000).astype(np.float16) for _ in range(2))
    rounded, exact = (Quantise(DType.i16).reference(x.astype(t), scale.astype(t))[0] for t in (np.float16, np.float32))
    assert (rounded != exact).any(), "the test would not notice a quotient of f32"


def test_types_and_zero_points_that_do_not_fit_are_refused() -> None:
    f32, u8, i8 = (dense(3, dtype=d).type for d in (DType.f32, DType.u8, DType.i8))
    with pytest.raises(ValueError, match="cannot make i32"):
        Quantise(DType.i32).infer(f32, f32)
    with pytest.raises(ValueError, match="cannot add a zero point of i8"):
        Quantise(DType.u8).infer(f32, f32, i8)
    with pytest.raises(ValueError, match="cannot make f32 of bool"):
        Dequantise().infer(dense(3, dtype=DType.bool).type, f32)
    with pytest.raises(ValueError, match="cannot take a zero point of i8 from u8"):
        Dequantise().infer(u8, f32, i8)


def test_arithmetic_on_small_types_and_powers_of_two_as_results_are_left_to_others() -> None:
    assert "add of i4" in rejected(PointwiseNd(), workload(ew.Add(), *[dense(3, dtype=DType.i4)] * 2))
    assert "cast to f8e8m0fnu" in rejected(PointwiseNd(), workload(ew.Cast(DType.f8e8m0fnu), dense(3)))


@pytest.mark.parametrize("dtype", SMALLS, ids=str)
def test_small_types_compile_for_neon(dtype: DType) -> None:
    assert dtype not in REGISTERS
    compiles_for_neon(PointwiseNd(), workload(ew.Cast(DType.f32), dense(67, dtype=dtype)))
    compiles_for_neon(PointwiseNd(), workload(Quantise(dtype), dense(67), dense(1), dense(1, dtype=dtype)))
