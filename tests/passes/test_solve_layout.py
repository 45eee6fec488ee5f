# SPDX-License-Identifier: Apache-2.0
"""Channels-last networks, as TensorFlow writes them: the transpositions around image ops go, the answers stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.backends.reference.interpret import interpret
from tensorwright.builder import build
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Value
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType
from tensorwright.ops import (
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Convolution,
    LogSoftmax,
    MatMul,
    MaxPool,
    Mul,
    Pad,
    Reduce,
    Relu,
    Reshape,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    Tile,
    Transpose,
)
from tensorwright.passes.pipeline import PassOptions, optimise, stages
from tensorwright.passes.runner import run_stages
from tensorwright.passes.solve_layout import from_last, to_last

LAYOUT = ("solve_layout", "settle_layout")


class Nhwc:
    """A channels-last network under construction; image ops are wrapped in transpositions as importers write them."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.builder, self.rng = GraphBuilder("nhwc"), np.random.default_rng(seed)
        self.x = self.builder.input("x", TensorType(DType.f32, shape))

    def op(self, op: Op, *inputs: Value) -> Value:
        (value,) = self.builder.add(op, *inputs)
        return value

    def constant(self, *shape: int) -> Value:
        return self.builder.constant(self.rng.uniform(-1, 1, shape).astype(np.float32))

    def image_op(self, op: Op, x: Value, *inputs: Value) -> Value:
        rank = x.type.rank
        inner = self.op(op, self.op(Transpose(from_last(rank)), x), *inputs)
        return self.op(Transpose(to_last(rank)), inner)

    def conv(self, x: Value, filters: int, kernel: int = 3, stride: int = 1) -> Value:
        spatial, pad = x.type.rank - 2, kernel // 2
        w = self.constant(filters, x.type.static_shape[-1], *(kernel,) * spatial)
        op = Convolution((stride,) * spatial, (pad,) * (2 * spatial), (1,) * spatial)
        return self.op(Add(), self.image_op(op, x, w), self.constant(filters))

    def finish(self, *outputs: Value) -> Graph:
        for i, value in enumerate(outputs):
            self.builder.output(value, f"y{i}")
        return self.builder.finish()


def solved(graph: Graph) -> Graph:
    chosen = [stage for stage in stages(PassOptions()) if stage.name in LAYOUT]
    return run_stages(graph, chosen, check="edit").graph


def transposes(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if isinstance(node.op, Transpose)]


def agree(before: Graph, after: Graph, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng().standard_normal(shape).astype(np.float32)
    for name, want in interpret(before, {"x": x}).items():
        got = interpret(after, {"x": x})[name]
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def check(net: Nhwc, *outputs: Value, left: int) -> Graph:
    before = net.finish(*outputs)
    after = solved(before)
    agree(before, after, net.x.type.static_shape)
    assert len(transposes(after)) == left, transposes(after)
    return after


def squeeze_excite(net: Nhwc, x: Value) -> Value:
    channels = x.type.static_shape[-1]
    mean = net.op(Reduce("mean", (1, 2), True), x)
    gate = net.op(Sigmoid(), net.conv(net.op(Relu(), net.conv(mean, 2, 1)), channels, 1))
    return net.op(Mul(), x, gate)


def test_network_with_residuals_and_branches_keeps_the_input_transposition_only() -> None:
    net = Nhwc(2, 9, 7, 3)
    a = net.op(Relu(), net.conv(net.x, 4))
    b = squeeze_excite(net, net.op(Add(), net.op(Relu(), net.conv(a, 4)), a))
    both = net.op(Concat(3), net.conv(b, 3, 1), b, net.image_op(MaxPool((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)), b))
    mean = net.op(Reduce("mean", (1, 2), False), both)
    check(net, net.op(Softmax(1), net.op(MatMul(), mean, net.constant(11, 5))), left=1)


def test_output_in_channels_last_keeps_one_transposition() -> None:
    net = Nhwc(1, 8, 8, 3)
    after = check(net, net.op(Softmax(3), net.op(Relu(), net.conv(net.x, 4))), left=2)
    assert isinstance(after.nodes[-1].op, Transpose)  # all else stands before it


def test_three_dims_in_space_and_one() -> None:
    net = Nhwc(1, 4, 5, 6, 2)
    check(net, net.op(Reduce("max", (1, 2, 3), False), net.op(Relu(), net.conv(net.conv(net.x, 3), 3))), left=1)
    net = Nhwc(2, 12, 2)  # a conv1d, as TensorFlow writes it: as a conv2d of height 1
    wide = net.op(Reshape((2, 1, 12, 2)), net.x)
    y = net.op(Relu(), net.op(Reshape((2, 12, 4)), net.conv(wide, 4, 1)))
    y = net.op(Reshape((2, 12, 3)), net.conv(net.op(Reshape((2, 1, 12, 4)), y), 3, 1))
    check(net, net.op(Reduce("mean", (1,), False), y), left=1)


@pytest.mark.parametrize(
    ("op", "left"),
    [
        (Pad((0, 1, 2, 0, 0, 0, 1, 0), value=2.0), 1),
        (Slice((1, 0), (5, 3), (1, 3), (2, 1)), 1),
        (Tile((1, 2, 1, 1)), 1),
        (LogSoftmax(3), 1),
        (Resize("linear", (1, 12, 16, 4), (None, 2.0, 2.0, None)), 1),
        (Reduce("sum", (2,), True), 1),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_op_between_convolutions_stands_in_their_order(op: Op, left: int) -> None:
    net = Nhwc(1, 6, 8, 3)
    check(net, net.op(Reduce("mean", (1, 2), False), net.conv(net.op(op, net.conv(net.x, 4)), 2)), left=left)


def test_reduction_of_some_dims_and_argmax() -> None:
    net = Nhwc(1, 6, 8, 3)
    y = net.conv(net.x, 4)
    check(
        net,
        net.op(Reduce("max", (3,), False), y),
        net.op(Reduce("sum", (1,), False), y),
        net.op(ArgMax(3, False), y),
        net.op(ArgMax(1, True), y),
        left=1 + 2,
    )


def test_operand_that_is_no_image_is_transposed_where_all_readers_undo_it() -> None:
    net = Nhwc(1, 8, 8, 4)
    y = net.op(Add(), net.conv(net.x, 4), net.x)
    check(
        net,
        net.op(Reduce("mean", (1, 2), False), net.image_op(AveragePool((2, 2), (2, 2), (0,) * 4, (1, 1)), y)),
        left=2,
    )


def test_operand_that_is_no_image_stays_where_readers_want_the_order() -> None:
    net = Nhwc(1, 8, 8, 4)
    check(net, net.op(Add(), net.conv(net.x, 4), net.x), left=2)


def test_pad_between_dilated_convolutions_of_one_dim_comes_to_rest() -> None:
    """Of three dims, the transposition to channels-last is its own inverse, so that a pad could move to and fro."""
    net = Nhwc(1, 8, 3)
    y = net.op(Reshape((1, 8, 4)), net.conv(net.op(Reshape((1, 1, 8, 3)), net.x), 4, 1))
    padded = net.op(Pad((0, 2, 0, 0, 0, 0)), y)
    blocks = net.op(Transpose((1, 0, 2)), net.op(Reshape((5, 2, 4)), padded))  # every second step, as SpaceToBatchND
    z = net.op(Reshape((2, 5, 3)), net.conv(net.op(Reshape((2, 1, 5, 4)), blocks), 3, 1))
    check(net, net.op(Reshape((1, 10, 3)), net.op(Transpose((1, 0, 2)), z)), left=5)


def test_vectors_of_equal_dims_are_not_mixed_up() -> None:
    """Where n, h and c are all 4, a vector of rows is no vector of channels."""
    net = Nhwc(4, 4, 4, 4)
    y = net.conv(net.x, 4)
    rows, columns = net.op(Reduce("mean", (2, 3), True), net.x), net.op(Reduce("mean", (0, 3), True), net.x)
    y = net.op(Add(), net.op(Mul(), y, rows), net.op(Mul(), net.constant(4, 1, 4), columns))
    before = net.finish(net.conv(y, 2))
    agree(before, solved(before), (4, 4, 4, 4))


def test_transposition_of_a_matrix_is_left_alone() -> None:
    builder = GraphBuilder("keys")
    x = builder.input("x", TensorType(DType.f32, (2, 3, 4)))
    (t,) = builder.add(Transpose((0, 2, 1)), x)
    (y,) = builder.add(Relu(), t)
    builder.output(y, "y0")
    graph = builder.finish()
    assert [n.op for n in solved(graph).nodes] == [n.op for n in graph.nodes]


CHOICES: list[Callable[[Nhwc, list[Value], int], Value]] = [
    lambda net, found, n: net.conv(found[-1], 1 + n % 4),
    lambda net, found, n: net.op(Relu(), found[n % len(found)]),
    lambda net, found, n: net.op(Mul(), found[n % len(found)], net.constant(4)),
    lambda net, found, n: net.op(Add(), found[-1], net.op(Sigmoid(), found[-1])),
    lambda net, found, n: net.op(Concat(3), found[-1], found[n % len(found)]),
    lambda net, found, n: net.op(Concat(1 + n % 2), found[-1], found[-1]),
    lambda net, found, n: squeeze_excite(net, found[-1]),
    lambda net, found, n: net.op(Pad((0, n % 3, 1, 0, 0, 1, n % 2, 0)), found[-1]),
    lambda net, found, n: net.op(Softmax(1 + n % 3), found[-1]),
    lambda net, found, n: net.image_op(MaxPool((2, 2), (1, 1), (0, 0, 1, 1), (1, 1)), found[-1]),
    lambda net, found, n: net.op(Add(), found[-1], found[n % len(found)]),
    lambda net, found, n: net.op(Slice((0,), (1 + n % 2,), (1 + n % 2,), (1,)), found[-1]),
    lambda net, found, n: net.op(Reduce("mean", (1 + n % 3,), True), found[-1]),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(CHOICES) - 1), st.integers(0, 11)), min_size=1, max_size=9),
    st.integers(0, 99),
)
def test_random_channels_last_network_keeps_its_answers(steps: list[tuple[int, int]], seed: int) -> None:
    net = Nhwc(2, 4, 4, 4, seed=seed)
    found = [net.x]
    for choice, n in steps:
        try:
            found.append(CHOICES[choice](net, found, n))
        except ValueError:  # the shapes do not fit: another step
            continue
    before = net.finish(found[-1], found[len(found) // 2])
    after = solved(before)
    agree(before, after, (2, 4, 4, 4))
    assert len(transposes(after)) <= len(transposes(before)) + 1  # each of two outputs may want one of its own


def test_engine_of_a_channels_last_network_copies_nothing() -> None:
    net = Nhwc(1, 16, 16, 3)
    a = net.op(Relu(), net.conv(net.x, 8))
    b = net.op(Relu(), net.op(Add(), net.conv(a, 8), a))
    graph = net.finish(net.op(Reshape((1, 16 * 16 * 8)), b))
    engine = build(graph, tune="off")
    kernels = [step["kernel"] for step in engine.report()["steps"]]  # type: ignore[attr-defined, index]
    assert len(kernels) == 2 and all("conv" in kernel for kernel in kernels), kernels  # with all that follows them
    x = np.random.default_rng().standard_normal((1, 16, 16, 3)).astype(np.float32)
    want = interpret(graph, {"x": x})["y0"]
    np.testing.assert_allclose(engine(x), want, atol=1e-4 * float(np.abs(want).max()))
    assert len(transposes(optimise(graph).graph)) == 2  # at the input, and in the flatten: views
