# SPDX-License-Identifier: Apache-2.0
"""`Op.infer` and `Op.reference` of every row of the table, against ONNX Runtime."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import OPS
from tensorwright.tune.verify import mismatch
from tests.suites.onnx_oracle import oracle
from tests.suites.op_case import OpCase
from tests.suites.op_table import CASES

_IDS = [case.id for case in CASES]

# Rows that onnx's own evaluator answers instead, and why.
NOT_ON_RUNTIME = {
    "relu(i64[5,7]:integers)": "ONNX Runtime has no i64 kernel",
    "reduce[how=max;axes=(1);keepdims=true](f32[40,3]:special)": "ONNX Runtime drops a NaN after the first element",
    "clip[low=0.0;high=none](f32[67]:special)": "ONNX Runtime takes a missing bound for the largest finite value",
    "clip[low=none;high=6.0](f32[67]:special)": "ONNX Runtime takes a missing bound for the largest finite value",
    "lrn[size=4;alpha=0.02;beta=0.75;bias=1.5](f32[5,5,2,3])": "ONNX Runtime takes odd sizes only",
}

# Ops without a row, and why.
NO_ROW = {
    "copy": "lowering makes it",
    "onnx_host": "it has no kernel",
    **dict.fromkeys(("if", "loop", "scan"), "no kernel runs it; tests/runtime/test_control_flow.py"),
    **dict.fromkeys(
        ("non_zero", "read_size", "non_max_suppression"), "its types hold a symbol; tests/runtime/test_decided_sizes.py"
    ),
    "random_key": "no two runs agree; tests of its own",
    "random_bits": "ONNX has no such operator; tests of its own",
}

# Element types for which ONNX Runtime has kernels of few ops only: onnx's own evaluator answers.
RARE = {DType.f64, DType.i16, DType.i8, DType.u64, DType.u32, DType.u16, DType.u8}


def arrays_of(case: OpCase) -> tuple[int, list[np.ndarray | None]]:
    """A seed of the case's own (shown when it fails) and its arrays, which nothing may write to."""
    seed = zlib.crc32(case.id.encode())
    arrays = case.make(np.random.default_rng(seed))
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
    return seed, arrays


def test_table_covers_every_op_once_by_id() -> None:
    assert len(set(_IDS)) == len(_IDS)
    bodies = {instr.op.kind for case in CASES if isinstance(case.op, o.Fused) for instr in case.op.body}
    assert set(NOT_ON_RUNTIME) <= set(_IDS)
    assert set(OPS) - {case.op.kind for case in CASES} - bodies <= set(NO_ROW), "an op has no row"


def expected_of(case: OpCase, arrays: list[np.ndarray | None]) -> np.ndarray:
    """The oracle's answer. The halves are computed as f32 and rounded once: the oracles may round after every step."""
    halves = (DType.f16, DType.bf16)
    types = [t.with_dtype(DType.f32) if t is not None and t.dtype in halves else t for t in case.types]
    wide = [None if a is None or t is None else a.astype(t.dtype.numpy) for a, t in zip(arrays, types, strict=True)]
    is_rare = any(t is not None and t.dtype in RARE for t in types)
    answer = oracle(case.op, types, wide, runtime=case.id not in NOT_ON_RUNTIME and not is_rare)
    return answer.astype(case.op.infer(*case.types)[0].dtype.numpy)


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_reference_of_case_has_the_inferred_types(case: OpCase) -> None:
    seed, arrays = arrays_of(case)
    types = case.op.infer(*case.types)
    results = case.op.reference(*arrays)
    assert [(DType.of(y.dtype), y.shape) for y in results] == [(t.dtype, t.shape) for t in types], f"seed {seed}"


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_reference_of_case_agrees_with_onnx_runtime(case: OpCase) -> None:
    seed, arrays = arrays_of(case)
    expected = expected_of(case, arrays)
    got = case.op.reference(*arrays)
    assert mismatch(case.op, got, [expected]) == "", f"seed {seed}"
