# SPDX-License-Identifier: Apache-2.0
"""Sample inputs, and the comparison that a winner must pass."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.base import Operand, Workload, row_major
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Op
from tensorwright.lower.program import Buffer, Place, Program, Step, View
from tensorwright.ops.activation import Relu
from tensorwright.ops.elementwise import Add, Exp, Floor, Mul
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.ops.index import Gather
from tensorwright.ops.linear import MatMul
from tensorwright.tune.samples import sample_inputs
from tensorwright.tune.verify import mismatch, tolerance
from tensorwright.tune.workload import short, tasks_of


def operand(*shape: int, dtype: DType = DType.f32, constant: bool = False) -> Operand:
    return Operand(dtype, shape, row_major(shape), constant)


LINEAR = Fused(MatMul(), 2, (Instr(Add(), (2, 3)), Instr(Relu(), (4,))))
ROUNDED_DOWN = Fused(None, 0, (Instr(Mul(), (0, 1)), Instr(Floor(), (2,))))


@pytest.mark.parametrize(
    "op, scaled, rtol",
    [
        (Relu(), EXACT.scaled, EXACT.rtol),
        (MatMul(), True, SUMMED.rtol),
        (LINEAR, True, SUMMED.rtol),
        (ROUNDED_DOWN, True, 2e-6),
    ],
)
def test_tolerance_is_that_of_the_loosest_part(op: Op, scaled: bool, rtol: float) -> None:
    assert (tolerance(op).scaled, tolerance(op).rtol) == (scaled, rtol)


@pytest.mark.parametrize(
    "op, got, want, agrees",
    [
        (Relu(), [1.0, np.nan, np.inf], [1.0, np.nan, np.inf], True),
        (Relu(), [1.0], [1.0 + 2e-7], False),
        (Relu(), [np.nan], [1.0], False),
        (Relu(), [1.0], [np.nan], False),
        (Relu(), [np.inf], [-np.inf], False),
        (MatMul(), [100.0, 1e-3], [100.0, 0.0], True),  # one part in 1e5 of the largest
        (MatMul(), [100.0, 1e-2], [100.0, 0.0], False),
        (MatMul(), [np.inf, 1.0], [np.inf, 2.0], False),  # an infinity does not widen the tolerance
        (MatMul(), [], [], True),
    ],
)
def test_mismatch_of_floats_follows_the_tolerance(op: Op, got: list[float], want: list[float], agrees: bool) -> None:
    reason = mismatch(op, [np.array(got, np.float32)], [np.array(want, np.float32)])
    assert (reason == "") == agrees, reason


def test_mismatch_names_count_place_and_values() -> None:
    got, want = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    got[1, 2] = 5
    assert mismatch(Relu(), [got], [want]) == "1 of 6 elements differ, the first at [1, 2]: 5.0 instead of 0.0"


@pytest.mark.parametrize("op, agrees", [(ROUNDED_DOWN, True), (LINEAR, False)])
def test_mismatch_of_few_elements_is_allowed_after_a_jump_only(op: Op, agrees: bool) -> None:
    want = np.arange(2000, dtype=np.float32)
    got = want.copy()
    got[7] += 1
    assert (mismatch(op, [got], [want]) == "") == agrees


@pytest.mark.parametrize("dtype, step", [(DType.f16, 2.0**-10), (DType.bf16, 2.0**-7)])
def test_mismatch_of_halves_allows_one_step_unless_the_op_is_exact(dtype: DType, step: float) -> None:
    want = np.array([1.0, 2.0], dtype.numpy)
    near, far = (np.array([1.0 + k * step, 2.0], dtype.numpy) for k in (1, 5))
    assert not mismatch(Exp(), [near], [want])
    assert "1 of 2 elements differ" in mismatch(Exp(), [far], [want])
    assert "1 of 2 elements differ" in mismatch(Relu(), [near], [want])
    assert not mismatch(Relu(), [np.array([np.nan, 1], dtype.numpy)], [np.array([np.nan, 1], dtype.numpy)])


def test_mismatch_of_dtype_or_shape_is_a_mismatch() -> None:
    assert "float64" in mismatch(Relu(), [np.zeros(3)], [np.zeros(3, np.float32)])
    assert mismatch(Relu(), [np.zeros(3, np.float32)], [np.zeros(4, np.float32)])


def test_sample_inputs_are_the_constants_or_seeded_random_values() -> None:
    w = Workload(LINEAR, (operand(5, 7), operand(7, 3, constant=True), operand(3, constant=True)), (operand(5, 3),))
    bias = np.ones(3, np.float32)
    x, weights, given = sample_inputs(w, {2: bias})
    assert x is not None
    assert weights is not None
    assert given is bias
    assert x.shape == (5, 7)
    assert 0.05 < np.abs(weights).max() < 3 / np.sqrt(7) + 1
    assert all(np.array_equal(a, b) for a, b in zip(sample_inputs(w, {2: bias}), (x, weights, given), strict=True))  # type: ignore[arg-type]


def test_sample_inputs_are_equal_along_axes_that_share_memory() -> None:
    w = Workload(Relu(), (Operand(DType.f32, (3, 4), (0, 1)),), (Operand(DType.f32, (3, 4), (4, 1)),))
    (x,) = sample_inputs(w, {})
    assert x is not None and x.shape == (3, 4)
    assert (x == x[0]).all() and len(set(x[0].tolist())) == 4


def test_sample_inputs_of_gather_are_valid_indices_from_both_ends() -> None:
    w = Workload(Gather(axis=1), (operand(3, 5, 2), operand(64, dtype=DType.i64)), (operand(3, 64, 2),))
    data, indices = sample_inputs(w, {})
    assert indices is not None
    assert indices.dtype == np.int64
    assert set(indices.tolist()) <= set(range(-5, 5))
    assert indices.min() < 0 <= indices.max()
    assert w.op.reference(data, indices)[0].shape == (3, 64, 2)


def test_sample_inputs_of_other_integers_and_masks_are_harmless() -> None:
    ints = operand(50, dtype=DType.i64)
    values, mask, absent = sample_inputs(Workload(Add(), (ints, operand(50, dtype=DType.bool), None), (ints,)), {})
    assert values is not None
    assert mask is not None
    assert absent is None
    assert set(values.tolist()) == {1, 2, 3}
    assert set(mask.tolist()) == {False, True}


def program() -> Program:
    """Two steps of one workload with different weights (the second's is a transposed view), and one of another."""
    base = np.arange(24, dtype=np.float32)
    w = Operand(DType.f32, (3, 4), (1, 3), constant=True)
    buffers = tuple(Buffer(f"b{i}", Place.arena, i, 48) for i in range(4))
    weights = Buffer("weights", Place.constant, 0, base.nbytes)
    x, y = operand(2, 3), operand(2, 4)
    work = Workload(MatMul(), (x, w), (y,))
    steps = [
        Step(
            f"fc{i}",
            work,
            (View(buffers[0], 0, x), View(weights, 12 * i, w)),
            (View(buffers[i + 1], 0, y),),
            (f"Gemm_{i}",),
        )
        for i in range(2)
    ]
    relu = Step("relu", Workload(Relu(), (y,), (y,)), (View(buffers[1], 0, y),), (View(buffers[3], 0, y),), ("Relu_0",))
    return Program("p", (), (), (*steps, relu), ((0, 1), (2,)), (*buffers, weights), (base,))


def test_tasks_of_program_are_unique_workloads_with_counts_and_constants() -> None:
    tasks = list(tasks_of(program()).values())
    assert [(t.count, t.steps) for t in tasks] == [(2, ("fc0", "fc1")), (1, ("relu",))]
    assert tasks[0].where == "step 'fc0' and 1 more, from Gemm_0"
    assert np.array_equal(tasks[0].constants[1], np.arange(12, dtype=np.float32).reshape(4, 3).T)
    assert tasks[1].constants == {}


def test_short_names_the_operations_and_shapes() -> None:
    w = Workload(LINEAR, (operand(5, 7), operand(7, 3), operand()), (operand(5, 3),))
    assert short(w) == "mat_mul+add+relu 5x7 x 7x3 x scalar"
    body = Fused(None, 0, (Instr(Literal(2.0), ()), Instr(Mul(), (0, 1))))
    assert short(Workload(body, (operand(4),), (operand(4),))) == "mul 4"
