# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops on every element type, and casts between all of them, against NumPy and ml_dtypes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tensorwright.backends.cpu.conversions import REGISTERS
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.pointwise_ops import _RULES, supports
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Op
from tensorwright.ops import activation as act
from tensorwright.ops import bitwise
from tensorwright.ops import elementwise as ew
from tensorwright.ops.quantise import Dequantise, Quantise
from tests.backends.cpu.oracle_check import ISAS, SEED, compiles_for_neon, dense, region, verify, view, workload

F16, BF16, F64 = DType.f16, DType.bf16, DType.f64
FLOATS = [F16, BF16, F64]
INTEGERS = [d for d in REGISTERS if d.is_integer]
ATTRIBUTES: dict[type[Op], list[Op]] = {
    act.Clip: [act.Clip(-1.5, 2.7), act.Clip(None, 1e30), act.Clip(-1e30, None)],
    act.Gelu: [act.Gelu(), act.Gelu(True)],
    act.Softplus: [act.Softplus(), act.Softplus(2.0)],
    ew.Mod: [ew.Mod(True), ew.Mod(False)],
    bitwise.BitShift: [bitwise.BitShift(True), bitwise.BitShift(False)],
}
MIXED = (ew.Cast, ew.Where, ew.Pow, Quantise, Dequantise, bitwise.BitCast)  # of several types at once
OPS = [op for cls in _RULES if cls not in MIXED for op in (ATTRIBUTES[cls] if cls in ATTRIBUTES else [cls()])]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 2.5, -2.5, 6e-8, -6e-8, 65504, -65504, 11.0, 1 / 3]


def _floats(dtype: DType, rng: np.random.Generator) -> Array:
    with np.errstate(all="ignore"):
        return np.concatenate([SPECIAL, rng.standard_normal(33), rng.uniform(-20, 20, 20)]).astype(dtype.numpy)


def _integers(dtype: DType, rng: np.random.Generator) -> Array:
    info = np.iinfo(dtype.numpy)
    edges = [info.min, info.max, 0, 1, 2, 3, 7, info.max // 2, info.max - 1]
    edges += [-1, -2, -3, info.min + 1] if dtype.is_signed else []
    spread = rng.integers(info.min, info.max, 41, dtype.numpy, endpoint=True)
    return np.concatenate([np.array(edges, dtype.numpy), spread])


def _pairs(values: Array) -> tuple[Array, Array]:
    a, b = (np.array(v, values.dtype) for v in zip(*itertools.product(values, values[:23]), strict=True))
    return a, b


def _check(op: Op, isa: str, *arrays: Array) -> None:
    operands = [dense(*a.shape, dtype=DType.of(a.dtype)) for a in arrays]
    verify(PointwiseNd(), workload(op, *operands), isa, list(arrays), most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", [op for op in OPS if not supports(op, [DType.f16])], ids=repr)
def test_op_on_floats_equals_reference(op: Op, dtype: DType, isa: str) -> None:
    values = _floats(dtype, np.random.default_rng(SEED))
    _check(op, isa, *(_pairs(values) if isinstance(op, ew.Binary) else (values,)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("op", [op for op in OPS if not supports(op, [DType.i8])], ids=repr)
def test_op_on_integers_wraps_as_numpy(op: Op, dtype: DType, isa: str) -> None:
    values = _integers(dtype, np.random.default_rng(SEED))
    arrays = _pairs(values) if isinstance(op, ew.Binary) else (values,)
    if isinstance(op, ew.Div):  # the quotient by zero is undefined, but must not trap
        nonzero = arrays[1] != 0
        _check(op, isa, np.zeros(5, dtype.numpy), np.zeros(5, dtype.numpy))
        arrays = tuple(a[nonzero] for a in arrays)
    _check(op, isa, *arrays)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("to", REGISTERS, ids=str)
@pytest.mark.parametrize("source", REGISTERS, ids=str)
def test_cast_equals_numpy(source: DType, to: DType, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    if source.is_float:
        x = _floats(source, rng)
        if not to.is_float and to is not DType.bool:  # what NumPy leaves undefined is not compared
            limits = np.iinfo(to.numpy)
            with np.errstate(invalid="ignore"):
                wide = x.astype(np.float64)
            x = x[(wide >= limits.min) & (wide <= limits.max)]
    else:
        x = rng.integers(0, 2, 35).astype(bool) if source is DType.bool else _integers(source, rng)
    _check(ew.Cast(to), isa, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("to", [F16, BF16], ids=str)
@pytest.mark.parametrize("source", [DType.f32, F64], ids=str)
def test_cast_to_halves_rounds_once_to_even(source: DType, to: DType, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    ties = 1 + np.arange(64) * 2.0 ** (-11 if to is F16 else -8)
    nearly = np.concatenate([ties * (1 + s * 2.0**-e) for s in (-1, 1) for e in (22, 40)])
    tiny = rng.uniform(-1, 1, 200) * 2.0 ** rng.integers(-27, -13, 200)
    huge = np.array([65519.99, 65520.0, 65520.01, -65519.99, 3.39e38, 3.4e38, 1e300, -1e300, np.nan, np.inf])
    with np.errstate(all="ignore"):
        x = np.concatenate([ties, nearly, tiny, huge]).astype(source.numpy)
    _check(ew.Cast(to), isa, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("exponent", [DType.f32, DType.i64, None], ids=str)
def test_power_of_floats_equals_reference(exponent: DType | None, dtype: DType, isa: str) -> None:
    x = np.array([0.5, 1.25, 2, 3, -2, 0, 1], dtype.numpy)
    a, b = np.repeat(x, 5), np.tile(np.array([0, 1, 2, -1, 5]), 7).astype((exponent or dtype).numpy)
    _check(ew.Pow(), isa, a, b)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_power_of_integers_wraps(dtype: DType, isa: str) -> None:
    a = np.repeat(np.array([0, 1, 2, 3, 5, 7], dtype.numpy), 6)
    b = np.tile(np.array([0, 1, 2, 5, 13, 71], dtype.numpy), 6)
    _check(ew.Pow(), isa, a, b)
    if dtype.is_signed:
        _check(ew.Pow(), isa, np.array([1, -1, -1, 2, -3], dtype.numpy), np.array([-2, -3, -4, -1, -2], dtype.numpy))
    _check(ew.Pow(), isa, np.array([4, 9, 16], dtype.numpy), np.array([0.5, 1.5, 0.25], np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [d for d in REGISTERS if d is not DType.bool], ids=str)
def test_strided_and_broadcast_operands_equal_reference(dtype: DType, isa: str) -> None:
    turned = view((6, 35), (1, 7), dtype)
    op = region(None, 3, (ew.Add(), (0, 1)), (ew.Where(), (2, 3, 0)))
    w = workload(op, turned, dense(35, dtype=dtype), dense(6, 1, dtype=DType.bool))
    verify(PointwiseNd(), w, isa, most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_region_of_halves_rounds_after_every_op(dtype: DType, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    a, b, c = (rng.standard_normal((5, 301)).astype(dtype.numpy) for _ in range(3))
    op = region(None, 3, (ew.Mul(), (0, 1)), (ew.Add(), (3, 2)), (ew.Sub(), (4, 2)))
    operands = [dense(5, 301, dtype=dtype)] * 3
    w = workload(op, *operands)
    (want,) = op.reference(a, b, c)
    verify(PointwiseNd(), w, isa, [a, b, c], want=want, most=1)
    once = ((a.astype(np.float32) * b + c) - c).astype(dtype.numpy)
    assert (once != want).any(), "the test would not notice a single rounding"


@pytest.mark.parametrize("isa", ISAS)
def test_region_through_casts_equals_reference(isa: str) -> None:
    cast, back = ew.Cast(DType.f32), ew.Cast(DType.u8)
    op = region(
        None, 2, (cast, (0,)), (ew.Mul(), (2, 1)), (ew.Round(), (3,)), (act.Clip(0.0, 255.0), (4,)), (back, (5,))
    )
    verify(PointwiseNd(), workload(op, dense(3, 67, dtype=DType.i8), dense(67)), isa)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_types_compile_for_neon(dtype: DType) -> None:
    compiles_for_neon(PointwiseNd(), workload(ew.Exp(), dense(67, dtype=dtype)))
    compiles_for_neon(PointwiseNd(), workload(ew.Cast(DType.u64), dense(67, dtype=dtype)))
    compiles_for_neon(PointwiseNd(), workload(ew.Cast(dtype), dense(67, dtype=F64)))
