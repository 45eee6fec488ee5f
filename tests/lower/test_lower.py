# SPDX-License-Identifier: Apache-2.0
"""Lowering: what becomes a view, what a copy, where concat operands are produced, and that nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Value
from tensorwright.ir.types import TensorType
from tensorwright.lower.lower import lower
from tensorwright.lower.program import Place, Program
from tensorwright.ops.attention import Attention
from tensorwright.ops.conv import Convolution
from tensorwright.ops.elementwise import Add
from tensorwright.ops.fused import Fused, Instr
from tensorwright.ops.linear import MatMul
from tensorwright.ops.pool import MaxPool
from tensorwright.ops.shape import Concat, Expand, Reshape, Slice, Transpose
from tests.lower.run_program import run_program

RNG = np.random.default_rng(7)
ADD = Fused(None, 0, (Instr(Add(), (0, 1)),))


def f32(*shape: int) -> TensorType:
    return TensorType(DType.f32, shape)


def weights(b: GraphBuilder, *shape: int) -> Value:
    return b.constant(RNG.standard_normal(shape).astype(np.float32), "w")


def conv(b: GraphBuilder, x: Value, k: int, size: int = 3, name: str = "conv") -> Value:
    c = x.type.static_shape[1]
    return b.add(Convolution((1, 1), (size // 2,) * 4, (1, 1), 1), x, weights(b, k, c, size, size), name=name)[0]


def check(graph: Graph) -> Program:
    """Lower, run, compare with node-by-node evaluation; returns the program."""
    feeds = {v.name: RNG.standard_normal(v.type.static_shape).astype(np.float32) for v in graph.inputs}
    values = {**{v: feeds[v.name] for v in graph.inputs}, **graph.constants}
    for node in graph.nodes:
        values[node.outputs[0]] = node.op.reference(*(values[v] if v is not None else None for v in node.inputs))[0]
    program = lower(graph)
    outs = run_program(program, feeds)
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        np.testing.assert_allclose(outs[name], values[value], rtol=1e-5, atol=1e-5)
    return program


def build(body: Callable[[GraphBuilder, Value], Value | list[Value]], *shape: int) -> Graph:
    b = GraphBuilder()
    result = body(b, b.input("x", f32(*shape)))
    for i, value in enumerate(result if isinstance(result, list) else [result]):
        b.output(value, f"y{i}")
    return b.finish()


def kinds(program: Program) -> list[str]:
    return [s.workload.op.kind for s in program.steps]


def test_concat_of_convolutions_is_produced_in_place() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        y = b.add(Concat(1), conv(b, x, 16), conv(b, x, 32, 1), conv(b, x, 8))[0]
        return conv(b, y, 8)

    program = check(build(net, 1, 4, 6, 5))
    assert kinds(program) == ["convolution"] * 4 + ["copy"]
    assert len({s.outputs[0].buffer for s in program.steps[:3]}) == 1
    assert program.phases[0] == (0, 1, 2)


def test_concat_of_one_value_twice_copies_the_second() -> None:
    program = check(build(lambda b, x: conv(b, b.add(Concat(1), *[conv(b, x, 8)] * 2)[0], 4), 1, 3, 5, 5))
    assert kinds(program).count("copy") == 2  # the repeated operand and the channels-last engine output


def test_nested_concats_share_one_buffer() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        inner = b.add(Concat(1), conv(b, x, 4), conv(b, x, 4))[0]
        outer = b.add(Concat(1), inner, conv(b, inner, 8))[0]
        return b.add(MaxPool((2, 2), (2, 2), (0,) * 4, (1, 1), False), outer)[0]

    program = check(build(net, 1, 3, 8, 8))
    assert kinds(program) == ["convolution"] * 3 + ["max_pool", "copy"]


def test_split_halves_are_views() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        y = conv(b, x, 8)
        first = b.add(Slice((0,), (4,), (1,), (1,)), y)[0]
        second = b.add(Slice((4,), (8,), (1,), (1,)), y)[0]
        return b.add(ADD, first, conv(b, second, 4))[0]

    assert kinds(check(build(net, 1, 3, 5, 7))) == ["convolution", "convolution", "fused", "copy"]


def test_attention_heads_are_views_of_one_projection() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        qkv = b.add(MatMul(), x, weights(b, 12, 36))[0]
        heads = []
        for i in range(3):
            part = b.add(Slice((12 * i,), (12 * i + 12,), (2,), (1,)), qkv)[0]
            split = b.add(Reshape((1, 5, 3, 4)), part)[0]
            heads.append(b.add(Transpose((0, 2, 1, 3)), split)[0])
        y = b.add(Attention(0.5), *heads)[0]
        back = b.add(Reshape((1, 5, 12)), b.add(Transpose((0, 2, 1, 3)), y)[0])[0]
        return b.add(MatMul(), back, weights(b, 12, 12))[0]

    program = check(build(net, 1, 5, 12))
    assert kinds(program) == ["mat_mul", "attention", "mat_mul"]
    assert program.steps[2].outputs[0].buffer.place is Place.output


def test_spatial_flatten_into_tokens_is_a_view() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        y = b.add(Reshape((1, 8, 20)), conv(b, x, 8))[0]
        return b.add(MatMul(), b.add(Transpose((0, 2, 1)), y)[0], weights(b, 8, 6))[0]

    assert kinds(check(build(net, 1, 3, 4, 5))) == ["convolution", "mat_mul"]


def test_flatten_of_channels_last_is_one_copy() -> None:
    program = check(
        build(lambda b, x: b.add(MatMul(), b.add(Reshape((1, 96)), conv(b, x, 8))[0], weights(b, 96, 5))[0], 1, 3, 3, 4)
    )
    assert kinds(program) == ["convolution", "copy", "mat_mul"]


def test_attention_with_strided_keys_copies_them() -> None:
    def net(b: GraphBuilder, x: Value) -> Value:
        keys = b.add(Transpose((0, 2, 1)), x)[0]
        return b.add(Attention(1.0), b.add(Reshape((1, 4, 4)), b.add(MatMul(), x, weights(b, 4, 4))[0])[0], keys, x)[0]

    assert "copy" in kinds(check(build(net, 1, 4, 4)))


def test_input_as_output_and_repeated_output_are_copied() -> None:
    program = check(build(lambda b, x: [x, (y := conv(b, x, 4)), y], 1, 2, 3, 3))
    assert kinds(program).count("copy") == 3


def test_expanded_constant_and_reversed_slice_reach_the_output() -> None:
    def net(b: GraphBuilder, x: Value) -> list[Value]:
        wide = b.add(Expand((3, 4)), b.constant(np.arange(4, dtype=np.float32)))[0]
        return [b.add(ADD, x, wide)[0], b.add(Slice((3,), (-1,), (1,), (-1,)), x)[0]]

    check(build(net, 3, 4))


def test_zero_size_values_need_no_steps() -> None:
    program = check(build(lambda b, x: b.add(ADD, x, x)[0], 0, 4))
    assert program.steps == ()


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_give_the_reference_result(seed: int) -> None:
    """Random mixes of convolution, concat, slice, transpose, reshape and add, checked in strided memory."""
    rng = np.random.default_rng(seed)

    def net(b: GraphBuilder, x: Value) -> list[Value]:
        values = [x]
        for _ in range(10):
            v = values[rng.integers(len(values))]
            n, c, h, w = v.type.static_shape
            match rng.integers(6):
                case 0:
                    out = conv(b, v, int(rng.integers(1, 7)), int(rng.choice([1, 3])))
                case 1:
                    out = b.add(Concat(1), *(u for u in values if u.type.static_shape[2:] == (h, w)), v)[0]
                case 2:
                    out = b.add(Slice((c // 2,), (c,), (1,), (1,)), v)[0]
                case 3:
                    out = b.add(Transpose((0, 1, 3, 2)), v)[0]
                case 4:
                    out = b.add(Reshape((n, c, w, h)), v)[0]
                case _:
                    out = b.add(ADD, v, v)[0]
            values.append(out)
        return values[-3:]

    check(build(net, 1, 3, 4, 6))
