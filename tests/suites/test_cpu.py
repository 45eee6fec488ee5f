# SPDX-License-Identifier: Apache-2.0
"""Every row of the op table through the whole road on the CPU: built, run, and compared with `reference`.

Modes: plain; fused (pointwise work and a residual follow, weights are constants); reloaded (saved and loaded again).
All rows run plain for AVX-512; the other combinations take every third row, or all with TENSORWRIGHT_CASES=all.
No row may become a host step.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder
from tensorwright.ir.op import Array
from tensorwright.ops.activation import Relu
from tensorwright.ops.elementwise import Add, Mul
from tensorwright.ops.fused import Fused
from tensorwright.plan.plan import plan_bytes
from tensorwright.tune.verify import mismatch
from tests.suites.op_case import OpCase
from tests.suites.op_table import CASES

ALL = os.environ.get("TENSORWRIGHT_CASES") == "all"
HOST = CpuTarget.probe().isa


def graph_of(case: OpCase, arrays: list[Array | None], *, fused: bool) -> Graph:
    """One node; when `fused`, later operands are constants and relu(y * y + residual) follows."""
    b = GraphBuilder()
    values = []
    for i, array in enumerate(arrays):
        if array is None:
            values.append(None)
        elif fused and i:
            values.append(b.constant(array, f"c{i}"))
        else:
            spec = case.types[i]
            assert spec is not None
            values.append(b.input(f"x{i}", spec))
    (y,) = b.add(case.op, *values)
    if fused:
        residual = b.input("residual", y.type)
        y = b.add(Relu(), b.add(Add(), b.add(Mul(), y, y)[0], residual)[0])[0]
    b.output(y, "y")
    return b.finish()


def modes() -> list[object]:
    rows: list[object] = []
    for number, case in enumerate(CASES):
        for turn, (isa, mode) in enumerate(
            (("avx512", "plain"), ("avx2", "plain"), ("avx512", "fused"), ("avx2", "reloaded"))
        ):
            if isa == "avx512" != HOST or (turn and not ALL and number % 3 != turn % 3):
                continue
            rows.append(pytest.param(case, isa, mode, number, id=f"{mode}-{isa}-{case.id}"))
    return rows


@pytest.mark.parametrize("case,isa,mode,number", modes())
def test_op_matches_reference(case: OpCase, isa: str, mode: str, number: int) -> None:
    rng = np.random.default_rng(number)
    arrays = case.make(rng)
    dtypes = {t.dtype for t in case.types if t is not None} | {t.dtype for t in case.op.infer(*case.types)}
    fused = mode == "fused" and dtypes == {DType.f32} and not isinstance(case.op, Fused)
    graph = graph_of(case, arrays, fused=fused)
    with tw.build(graph, target=f"cpu:{isa}", tune="off", host_steps=False) as engine:
        feeds = {v.name: arrays[int(v.name[1:])] for v in graph.inputs if v.name != "residual"}
        with np.errstate(all="ignore"):
            (want,) = case.op.reference(*arrays)
            if fused:
                feeds["residual"] = rng.standard_normal(want.shape).astype(np.float32)
                want = np.maximum(want * want + feeds["residual"], 0)
        if mode == "reloaded":
            with tw.load(plan_bytes(engine.plan), target=f"cpu:{isa}") as again:
                got = again.run(feeds)["y"]
        else:
            got = engine.run(feeds)["y"]
    reason = mismatch(case.op, [got], [want]) if not fused else _loosely(got, want)
    assert not reason, f"{case.id} {isa} {mode} seed {number}: {reason}"


def _loosely(got: Array, want: Array) -> str:
    """Squaring doubles relative errors; the row's own tolerance is checked by the plain mode."""
    finite = np.abs(want[np.isfinite(want)]).max(initial=1.0)
    same = np.isclose(got, want, rtol=1e-3, atol=1e-4 * finite, equal_nan=True)
    return "" if same.all() else f"{(~same).sum()} of {same.size} elements differ"
