# SPDX-License-Identifier: Apache-2.0
"""Pads and tiles become concatenations, gathers and expansions, and mean the same after lowering."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import GraphBuilder, Value
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.ops.conv import Convolution
from tensorwright.ops.shape import Concat, Pad, Slice, Tile
from tensorwright.passes.pipeline import optimise
from tests.lower.run_program import run_program


@pytest.mark.parametrize(
    "op",
    [
        Pad((1, 0, 2, 0, 3, -1), "constant", 2.5),
        Pad((1, 0, 2, 0, 3, 1), "reflect"),
        Pad((0, 2, 0, 0, 0, 1), "edge"),
        Pad((0, 2, 0, -1, 0, 1), "wrap"),
        Pad((-1, -1, -1, -1, 0, 0)),
        Tile((2, 3, 1)),
        Tile((1, 1, 4)),
    ],
    ids=str,
)
def test_pad_and_tile_mean_the_same_without_kernels_of_their_own(op: Op) -> None:
    b = GraphBuilder()
    b.output(b.add(op, b.input("x", TensorType(DType.f32, (3, 4, 5))))[0], "y")
    graph = b.finish()
    x = np.random.default_rng(3).standard_normal((3, 4, 5)).astype(np.float32)
    program = lower(optimise(graph).graph)
    assert {step.workload.op.kind for step in program.steps} <= {"copy", "gather"}
    np.testing.assert_array_equal(run_program(program, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_split_halves_put_side_by_side_again_are_produced_in_place() -> None:
    """The block of a CSP network: split, work on one half, concatenate everything: no copies."""
    b, rng = GraphBuilder(), np.random.default_rng(4)

    def conv(x: Value, k: int) -> Value:
        w = b.constant(rng.standard_normal((k, x.type.static_shape[1], 1, 1)).astype(np.float32))
        return b.add(Convolution((1, 1), (0,) * 4, (1, 1), 1), x, w)[0]

    y = conv(b.input("x", TensorType(DType.f32, (1, 4, 3, 3))), 8)
    low, high = (b.add(Slice((at,), (at + 4,), (1,), (1,)), y)[0] for at in (0, 4))
    b.output(conv(b.add(Concat(1), low, high, conv(high, 4))[0], 1), "y")
    graph = b.finish()
    x = rng.standard_normal((1, 4, 3, 3)).astype(np.float32)
    program = lower(optimise(graph).graph)
    assert [step.workload.op.kind for step in program.steps] == ["convolution"] * 3
    np.testing.assert_allclose(run_program(program, {"x": x})["y"], interpret(graph, {"x": x})["y"], rtol=1e-5)
