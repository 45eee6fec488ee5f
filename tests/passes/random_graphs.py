# SPDX-License-Identifier: Apache-2.0
"""Random small networks for property tests: convolutions, matrix products, pointwise work and moves of elements, and
now and then the arithmetic that exporters write for one op."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, GraphBuilder, Value
from tensorwright.ir.op import Array, Op
from tensorwright.ir.types import TensorType
from tensorwright.ops import (
    Abs,
    Add,
    AveragePool,
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Div,
    Erf,
    Expand,
    LayerNorm,
    MatMul,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Neg,
    Pow,
    Reduce,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sqrt,
    Sub,
    Tanh,
    Transpose,
    Where,
)

MOST_ELEMS = 4096


class Net:
    """A graph under construction and the choices that hypothesis makes for it."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int], seed: int) -> None:
        self.draw, self.rng = draw, np.random.default_rng(seed)
        self.builder = GraphBuilder("random")
        self.values: list[Value] = []

    def choose(self, count: int) -> int:
        """A number below `count`; 0 is the simplest choice."""
        return self.draw(st.integers(0, count - 1))

    def constant(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Value:
        return self.builder.constant(self.rng.uniform(low, high, shape).astype(np.float32))

    def number(self, value: float) -> Value:
        return self.builder.constant(np.asarray(value, np.float32))

    def op(self, op: Op, *inputs: Value | None) -> Value:
        (value,) = self.builder.add(op, *inputs)
        return value

    def same_shape(self, x: Value) -> Value:
        found = [v for v in self.values if v.type == x.type]
        return found[self.choose(len(found))]

    # -- layers ---------------------------------------------------------------------------------
    def convolution(self, x: Value) -> Value:
        c, k = x.type.static_shape[1], 1 + self.choose(3)
        kernel, stride = 1 + 2 * self.choose(2), 1 + self.choose(2)
        groups = c if self.choose(3) == 2 else 1
        outputs = k * groups if groups > 1 else k
        w = self.constant(outputs, c // groups, kernel, kernel)
        bias = [self.constant(outputs)] if self.choose(2) else []
        return self.op(Convolution((stride, stride), (kernel // 2,) * 4, (1, 1), groups), x, w, *bias)

    def deconvolution(self, x: Value) -> Value:
        w = self.constant(x.type.static_shape[1], 2, 2, 2)
        bias = [self.constant(2)] if self.choose(2) else []
        return self.op(Deconvolution((2, 2), (0, 0, 0, 0), (1, 1), 1, ()), x, w, *bias)

    def batch_norm(self, x: Value) -> Value:
        c = x.type.static_shape[1]
        return self.op(
            BatchNorm(1e-5),
            x,
            self.constant(c),
            self.constant(c),
            self.constant(c),
            self.constant(c, low=0.5, high=2.0),
        )

    def pool(self, x: Value) -> Value:
        if self.choose(2):
            return self.op(Reduce("mean", (2, 3), True), x)
        op = MaxPool if self.choose(2) else AveragePool
        extra = () if op is MaxPool else (False,)
        return self.op(op((2, 2), (1, 1), (1, 1, 0, 0), (1, 1), False, *extra), x)

    def siblings(self, x: Value) -> Value:
        """Products with one input, with and without bias, whose results go different ways."""
        last = x.type.static_shape[-1]
        parts = [self.op(MatMul(), x, self.constant(last, 3)) for _ in range(3)]
        biased = [self.op(Add(), part, self.constant(3)) if self.choose(2) else part for part in parts]
        self.values.append(biased[2])
        return self.op(Concat(x.type.rank - 1), *(self.op(Softmax(x.type.rank - 1), part) for part in biased[:2]))

    def branches(self, x: Value) -> Value:
        """1x1 convolutions with one input and the same activation, then different work."""
        conv, c = Convolution((1, 1), (0, 0, 0, 0), (1, 1), 1), x.type.static_shape[1]
        a, b = (self.op(Relu(), self.op(conv, x, self.constant(2, c, 1, 1), self.constant(2))) for _ in range(2))
        wide = Convolution((1, 1), (1, 1, 1, 1), (1, 1), 1)
        return self.op(Concat(1), self.op(wide, a, self.constant(3, 2, 3, 3)), self.op(Softmax(1), b))

    def matmul(self, x: Value) -> Value:
        y = self.op(MatMul(), x, self.constant(x.type.static_shape[-1], 1 + self.choose(4)))
        return self.op(Add(), y, self.constant(y.type.static_shape[-1])) if self.choose(2) else y

    # -- pointwise ------------------------------------------------------------------------------
    def unary(self, x: Value) -> Value:
        return self.op((Relu(), Sigmoid(), Tanh(), Neg(), Abs(), Clip(-0.5, 0.5), Clip(0.0, None))[self.choose(7)], x)

    def with_constant(self, x: Value) -> Value:
        rank, shape = x.type.rank, x.type.static_shape
        axis = self.choose(rank)
        operand = (
            self.number((1.0, 0.0, 0.5, -2.0)[self.choose(4)]),
            self.constant(*(d if i == axis else 1 for i, d in enumerate(shape))),
        )[self.choose(2)]
        op = (Add(), Mul(), Sub(), Maximum(), Minimum())[self.choose(5)]
        return self.op(op, *((x, operand) if self.choose(2) else (operand, x)))

    def divided(self, x: Value) -> Value:
        return self.op(Div(), x, self.number((1.0, 2.0, 3.0)[self.choose(3)]))

    def binary(self, x: Value) -> Value:
        return self.op((Add(), Sub(), Mul(), Maximum())[self.choose(4)], x, self.same_shape(x))

    def choice(self, x: Value) -> Value:
        keep = self.builder.constant(self.rng.random(x.type.static_shape[-1:]) < 0.5)
        return self.op(Where(), keep, x, self.same_shape(x))

    # -- moves ----------------------------------------------------------------------------------
    def reshape(self, x: Value) -> Value:
        shape = x.type.static_shape
        cut = self.choose(len(shape)) + 1
        return self.op(Reshape((*shape[: cut - 1], math.prod(shape[cut - 1 :]))), x)

    def transpose(self, x: Value) -> Value:
        rank = x.type.rank
        return self.op(Transpose(tuple(int(i) for i in np.roll(np.arange(rank), self.choose(rank)))), x)

    def slice(self, x: Value) -> Value:
        axis = self.choose(x.type.rank)
        size = x.type.static_shape[axis]
        start = self.choose(size)
        return self.op(Slice((start,), (size,), (axis,), (1 + self.choose(2),)), x)

    def concat(self, x: Value) -> Value:
        return self.op(Concat(self.choose(x.type.rank)), x, self.same_shape(x))

    def expanded(self, x: Value) -> Value:
        return self.op(Add(), x, self.op(Expand(x.type.shape), self.constant(x.type.static_shape[-1])))

    # -- arithmetic of one op -------------------------------------------------------------------
    def silu(self, x: Value) -> Value:
        return self.op(Mul(), x, self.op(Sigmoid(), x))

    def gelu(self, x: Value) -> Value:
        bell = self.op(Add(), self.op(Erf(), self.op(Div(), x, self.number(math.sqrt(2)))), self.number(1.0))
        return self.op(Mul(), self.op(Mul(), x, bell), self.number(0.5))

    def layer_norm(self, x: Value) -> Value:
        last = x.type.static_shape[-1]
        if self.choose(2):
            return self.op(LayerNorm(x.type.rank - 1, 1e-2), x, self.constant(last), self.constant(last))
        axes = (x.type.rank - 1,)
        centred = self.op(Sub(), x, self.op(Reduce("mean", axes, True), x))
        variance = self.op(Reduce("mean", axes, True), self.op(Pow(), centred, self.number(2.0)))
        normal = self.op(Div(), centred, self.op(Sqrt(), self.op(Add(), variance, self.number(1e-2))))
        return self.op(Add(), self.op(Mul(), normal, self.constant(last)), self.constant(last))

    def softmax(self, x: Value) -> Value:
        return self.op(Softmax(self.choose(x.type.rank)), x)

    def attention(self, x: Value) -> Value:
        rank = x.type.rank
        swapped = Transpose((*range(rank - 2), rank - 1, rank - 2))
        scores = self.op(MatMul(), x, self.op(swapped, self.same_shape(x)))
        scaled = self.op(Mul(), scores, self.number(0.5)) if self.choose(2) else scores
        masked = self.op(Add(), scaled, self.constant(scores.type.static_shape[-1])) if self.choose(2) else scaled
        return self.op(MatMul(), self.op(Softmax(rank - 1), masked), self.same_shape(x))

    def grow(self) -> None:
        """One more layer on a value chosen from the last few."""
        x = self.values[-1 - min((0, 0, 0, 1, 2)[self.choose(5)], len(self.values) - 1)]
        layers = [
            self.unary,
            self.with_constant,
            self.binary,
            self.divided,
            self.silu,
            self.gelu,
            self.reshape,
            self.transpose,
            self.slice,
            self.concat,
            self.expanded,
            self.choice,
            self.softmax,
        ]
        if x.type.rank >= 2:
            layers += [self.matmul, self.layer_norm, self.siblings]
        if x.type.rank == 2 or x.type.rank == 3:
            layers += [self.attention]
        if x.type.rank == 4:
            layers += 2 * [self.convolution, self.batch_norm] + [self.pool, self.deconvolution, self.branches]
        y = layers[self.choose(len(layers))](x)
        if y.type.elems <= MOST_ELEMS:
            self.values.append(y)


@st.composite
def networks(draw: Callable[[st.SearchStrategy[int]], int], layers: int = 12) -> tuple[Graph, int]:
    """A random network with one or several outputs, and the seed of its constants."""
    seed = draw(st.integers(0, 1 << 16))
    net = Net(draw, seed)
    shape = ((1, 3, 5, 4), (2, 3, 4), (3, 4), (2, 2, 3, 3))[net.choose(4)]
    net.values.append(net.builder.input("x", TensorType(DType.f32, shape)))
    for _ in range(draw(st.integers(1, layers))):
        net.grow()
    net.builder.output(net.values[-1], "last")
    if len(net.values) > 2 and net.choose(2):
        net.builder.output(net.values[1 + net.choose(len(net.values) - 2)], "other")
    return net.builder.finish(), seed


def random_feeds(graph: Graph, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed + 1)
    return {v.name: rng.standard_normal(v.type.static_shape).astype(v.type.dtype.numpy) for v in graph.inputs}
