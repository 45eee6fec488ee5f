# SPDX-License-Identifier: Apache-2.0
"""f64 rows and attention as arithmetic: the same numbers, without a host step."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import GraphBuilder
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType
from tensorwright.passes.pipeline import optimise

SEED = 20263
CASES: dict[str, tuple[Op, tuple[tuple[int, ...] | None, ...]]] = {
    "softmax": (o.Softmax(1), ((3, 5, 4),)),
    "log_softmax": (o.LogSoftmax(2), ((3, 5, 4),)),
    "layer_norm": (o.LayerNorm(1), ((3, 5, 4), (5, 4), (4,))),
    "layer_norm_without_bias": (o.LayerNorm(2, 1e-3), ((3, 5, 4), (4,))),
    "layer_norm_absent_bias": (o.LayerNorm(2), ((3, 5, 4), (4,), None)),
    "instance_norm": (o.InstanceNorm(), ((2, 3, 5, 4), (3,), (3,))),
    "attention": (o.Attention(0.3), ((2, 5, 4), (2, 7, 4), (2, 7, 3))),
    "attention_mask": (o.Attention(0.3), ((2, 5, 4), (2, 7, 4), (2, 7, 3), (5, 7))),
}


@pytest.mark.parametrize("name", CASES)
def test_double_op_is_compiled_and_equals_its_reference(name: str) -> None:
    op, shapes = CASES[name]
    rng, b = np.random.default_rng(SEED), GraphBuilder()
    arrays = [None if s is None else rng.standard_normal(s) for s in shapes]
    values = [None if s is None else b.input(f"x{i}", TensorType(DType.f64, s)) for i, s in enumerate(shapes)]
    b.output(b.add(op, *values)[0], "y")
    feeds = {f"x{i}": a for i, a in enumerate(arrays) if a is not None}
    with tw.build(b.finish(), tune="off", host_steps=False) as engine:
        got = engine.run(feeds)["y"]
    (want,) = op.reference(*arrays)
    assert got.dtype == np.float64
    assert np.allclose(got, want, rtol=1e-12, atol=1e-12), f"seed {SEED}"


def test_single_precision_softmax_stays_one_op() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(DType.f32, (3, 4)))
    b.output(b.add(o.Softmax(1), x)[0], "y")
    assert [type(node.op) for node in optimise(b.finish()).graph.nodes] == [o.Softmax]
