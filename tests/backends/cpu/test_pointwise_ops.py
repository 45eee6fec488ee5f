# SPDX-License-Identifier: Apache-2.0
"""Every pointwise op as the CPU emits it: against NumPy on random and special values, and its accuracy in ulps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tensorwright.backends.base import Workload
from tensorwright.backends.cpu.emitter import Module, Reg
from tensorwright.backends.cpu.invoke import run_kernel
from tensorwright.backends.cpu.kernels.pointwise import PointwiseNd
from tensorwright.backends.cpu.pointwise_ops import _RULES, constant_of, supports
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import OPS, Array, Op
from tensorwright.ops import activation as act
from tensorwright.ops import bitwise
from tensorwright.ops import elementwise as ew
from tensorwright.ops.fused import Literal
from tests.backends.cpu.oracle_check import ISAS, SEED, dense, region, verify, workload

F32 = np.float32
SPECIAL = np.array(
    [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1,
        -1,
        0.5,
        -0.5,
        2,
        -2,
        3,
        -3,
        2.5,
        -2.5,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        200,
        -200,
        88.7,
        -88.7,
        1e-30,
    ],
    F32,
)
ATTRIBUTES = {
    act.LeakyRelu: [act.LeakyRelu(0.2)],
    act.Elu: [act.Elu(1.5)],
    act.Softplus: [act.Softplus(), act.Softplus(2.0)],
    act.Gelu: [act.Gelu(), act.Gelu(True)],
    act.Clip: [act.Clip(-0.5, 1.5), act.Clip(None, 1.0), act.Clip(0.0, None)],
    ew.Cast: [ew.Cast(DType.bool), ew.Cast(DType.f64), ew.Cast(DType.f32)],
    ew.Mod: [ew.Mod(True), ew.Mod(False)],
    **dict.fromkeys((bitwise.BitShift, bitwise.BitCast), []),  # tests/suites
}
ALL = [op for cls in _RULES for op in (ATTRIBUTES[cls] if cls in ATTRIBUTES else [cls()])]
FLOAT = [op for op in ALL if not supports(op, [DType.f32])]
UNARY = [op for op in FLOAT if isinstance(op, ew.Unary)]
BINARY = [op for op in FLOAT if isinstance(op, ew.Binary)]
# name: (op, intervals, largest error in ulps, absolute error that is small enough anyway)
ACCURACY = {
    "exp": (ew.Exp(), [(-86, 88), (-1, 1)], 1.5, 0.0),
    "log": (ew.Log(), [(0, 1e3), (0.5, 2)], 1.5, 0.0),
    "tanh": (ew.Tanh(), [(-12, 12), (-1e-2, 1e-2)], 4.0, 0.0),
    "sigmoid": (act.Sigmoid(), [(-80, 80), (-4, 4)], 3.0, 0.0),
    "silu": (act.Silu(), [(-80, 80), (-4, 4)], 4.0, 0.0),
    "erf": (ew.Erf(), [(-6, 6), (-1e-2, 1e-2)], 2.0, 0.0),
    "gelu": (act.Gelu(), [(-8, 8), (-1e-2, 1e-2)], 6.0, 2e-8),
    "softplus": (act.Softplus(), [(-80, 80), (-2, 2)], 3.0, 0.0),
    "mish": (act.Mish(), [(-80, 80), (-2, 2)], 6.0, 0.0),
    "sin": (ew.Sin(), [(-1e5, 1e5), (-4, 4)], 2.0, 0.0),
    "cos": (ew.Cos(), [(-1e5, 1e5), (-4, 4)], 2.0, 0.0),
}


def _name(op: Op) -> str:
    return repr(op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", UNARY, ids=_name)
def test_unary_op_equals_numpy_on_random_and_special_values(op: Op, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    special = SPECIAL[np.abs(SPECIAL) < 1e30] if isinstance(op, ew.Sin | ew.Cos | ew.Tan) else SPECIAL
    x = np.concatenate([special, rng.standard_normal(300).astype(F32), rng.uniform(-60, 60, 101).astype(F32)])
    verify(PointwiseNd(), workload(op, dense(*x.shape)), isa, [x], most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", BINARY, ids=_name)
def test_binary_op_equals_numpy_on_random_and_special_values(op: Op, isa: str) -> None:
    rng = np.random.default_rng(SEED)
    pairs = np.array([*itertools.product(SPECIAL, SPECIAL)], F32)
    a = np.concatenate([pairs[:, 0], rng.standard_normal(300).astype(F32), rng.uniform(0, 9, 100).astype(F32)])
    b = np.concatenate([pairs[:, 1], rng.standard_normal(300).astype(F32), rng.uniform(-9, 9, 100).astype(F32)])
    verify(PointwiseNd(), workload(op, dense(*a.shape), dense(*b.shape)), isa, [a, b], most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [*ACCURACY])
def test_function_is_accurate_to_a_few_ulps(name: str, isa: str) -> None:
    op, intervals, ulps, slack = ACCURACY[name]
    rng = np.random.default_rng(SEED)
    for low, high in intervals:
        x = rng.uniform(low, high, 20000).astype(F32)
        got = _run(workload(op, dense(*x.shape)), isa, x)
        (want,) = op.reference(x.astype(np.float64))
        unit = np.spacing(np.maximum(np.abs(want).astype(F32), F32(2.0**-126))).astype(np.float64)
        error = np.maximum(np.abs(got - want) - slack, 0) / unit
        worst = int(error.argmax())
        assert error[worst] <= ulps, f"{name}({x[worst]!r}) = {got[worst]!r}, {error[worst]} ulps off (seed {SEED})"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("exponent", [0.5, -1.0, 1.0, 2.0, 3.0, 4.0, 2.5])
def test_power_of_constant_exponent_equals_numpy(exponent: float, isa: str) -> None:
    x = np.concatenate([SPECIAL, np.random.default_rng(SEED).uniform(-4, 4, 50).astype(F32)])
    op = region(None, 1, (Literal(exponent), ()), (ew.Pow(), (0, 1)))
    with np.errstate(all="ignore"):
        verify(PointwiseNd(), workload(op, dense(*x.shape)), isa, [x], most=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [DType.i32, DType.i64, DType.u8])
@pytest.mark.parametrize(
    "op",
    [
        ew.Add(),
        ew.Mul(),
        ew.Sub(),
        ew.Div(),
        ew.Mod(),
        ew.Mod(True),
        ew.Maximum(),
        ew.Minimum(),
        ew.Less(),
        ew.GreaterEqual(),
        ew.Equal(),
    ],
    ids=_name,
)
def test_integer_op_equals_numpy_at_the_limits(op: Op, dtype: DType, isa: str) -> None:
    info = np.iinfo(dtype.numpy)
    some = [info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max] + ([-1, -2, -7] if dtype.is_signed else [])
    pairs = np.array([*itertools.product(some, some)], dtype.numpy)
    a, b = pairs[:, 0].copy(), pairs[:, 1].copy()
    keep = b != 0 if isinstance(op, ew.Div | ew.Mod) else b == b
    keep &= ~((a == info.min) & (b == -1)) if dtype.is_signed and isinstance(op, ew.Div) else True
    want = np.where(keep, op.reference(a, np.where(keep, b, 1).astype(b.dtype))[0], 0)
    if isinstance(op, ew.Div):
        want = np.where((a == info.min) & (b == -1) & dtype.is_signed, info.min, want)  # wraps, does not trap
    verify(
        PointwiseNd(),
        workload(op, dense(len(a), dtype=dtype), dense(len(a), dtype=dtype)),
        isa,
        [a, b],
        want=want.astype(op.infer(dense(1, dtype=dtype).type, dense(1, dtype=dtype).type)[0].dtype.numpy),
        most=1,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "op",
    [
        act.Relu(),
        ew.Abs(),
        ew.Neg(),
        ew.Sign(),
        act.Clip(-3.0, 4.0),
        ew.Cast(DType.bool),
        ew.Cast(DType.u8),
        ew.Cast(DType.i32),
        ew.Cast(DType.f64),
    ],
    ids=_name,
)
@pytest.mark.parametrize("dtype", [DType.i32, DType.i64, DType.u8])
def test_integer_unary_op_equals_numpy(op: Op, dtype: DType, isa: str) -> None:
    x = np.random.default_rng(SEED).integers(0 if dtype is DType.u8 else -100, 100, 75).astype(dtype.numpy)
    verify(PointwiseNd(), workload(op, dense(75, dtype=dtype)), isa, [x], most=1)


def test_every_pointwise_op_is_emitted_for_f32_bool_or_integers() -> None:
    pointwise = [cls for cls in OPS.values() if issubclass(cls, ew.Pointwise)]
    assert set(pointwise) == set(_RULES)
    types = (DType.f32, DType.bool, DType.i32)
    assert not [op.kind for op in ALL if all(supports(op, [t]) for t in types)]


def test_supports_names_op_and_type() -> None:
    assert supports(ew.Exp(), [DType.i64]) == "exp of i64"
    assert supports(ew.Add(), [DType.f32, DType.f8e5m2]) == "add of f8e5m2"
    assert supports(ew.Cast(DType.f8e8m0fnu), [DType.f32]) == "cast to f8e8m0fnu"
    assert supports(ew.Pow(), [DType.f32, DType.i64]) is None


def test_constant_of_reads_literals_only() -> None:
    f = Module().function("f", [("float", "x")])
    assert constant_of(f.const("float", -2.5)) == -2.5
    assert constant_of(f.const("<4 x float>", 0.5)) == 0.5
    assert constant_of(f.const("<8 x i64>", -3)) == -3
    assert constant_of(f.arg("x")) is None
    assert constant_of(Reg(f, "i64", "%t1")) is None


def _run(w: Workload, isa: str, x: Array) -> Array:
    target, family = CpuTarget.parse(f"cpu:{isa}"), PointwiseNd()
    kernel = family.emit(w, next(family.candidates(w, target)), target, "kernel", {})
    return run_kernel(w, kernel, target, [x])[0]
