# SPDX-License-Identifier: Apache-2.0
"""One row per op case: the op, its input types and the kind of values. Every runner works through `CASES`.

A runner that cannot do a row lists it with a reason; rows never know their runners.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tests.suites.op_case import OpCase, Shape, Spec, case
from tests.suites.op_rows_index import order_cases, sample_cases, select_cases
from tests.suites.op_rows_quantise import quantise_cases
from tests.suites.op_rows_rare import attention_cases, bit_cases, matrix_cases, pooled_cases, running_cases

# -- elementwise --------------------------------------------------------------------------------
_ANY = (
    o.Abs,
    o.Neg,
    o.Exp,
    o.Relu,
    o.Sigmoid,
    o.Tanh,
    o.Erf,
    o.Silu,
    o.HardSwish,
    o.Mish,
    o.Softsign,
    o.Floor,
    o.Ceil,
    o.Round,
    o.Sign,
    o.Sin,
    o.Cos,
    o.Atan,
    o.Asinh,
    o.IsNan,
)
_DOMAIN: dict[type[Op], str] = {
    o.Log: "positive",
    o.Sqrt: "positive",
    o.Reciprocal: "nonzero",
    o.Asin: "unit",
    o.Acos: "unit",
    o.Atanh: "unit",
    o.Sinh: "unit",
    o.Cosh: "unit",
    o.Tan: "unit",
}
_WITH_ATTRIBUTES = (
    o.LeakyRelu(),
    o.LeakyRelu(0.3),
    o.Elu(),
    o.Elu(0.7),
    o.Selu(),
    o.Softplus(),
    o.HardSigmoid(),
    o.HardSigmoid(0.3, 0.4),
    o.ThresholdedRelu(),
    o.Gelu(),
    o.Gelu(approximate=True),
    o.Clip(-0.5, 0.75),
    o.Clip(0.0, None),
    o.Clip(None, 6.0),
    o.Clip(1.0, -1.0),
)
_SHAPES: tuple[Shape, ...] = ((), (1,), (3, 5), (2, 3, 17, 9), (0, 4), (1025,))
_BROADCASTS: tuple[tuple[Shape, Shape], ...] = (
    ((3, 5), (3, 5)),
    ((2, 3, 7, 5), (3, 1, 1)),
    ((4, 1), (1, 17)),
    ((), (2, 3)),
    ((1, 5, 1), (3, 1, 33)),
    ((0, 3), (1, 3)),
)


def unary_cases() -> Iterator[OpCase]:
    """Unary ops on every shape, and on NaN, infinities and extremes."""
    for kind in _ANY:
        for shape in _SHAPES:
            yield case(kind(), shape)
        yield case(kind(), Spec((67,), "special"))
    for kind, domain in _DOMAIN.items():
        yield case(kind(), Spec((3, 35), domain))
        yield case(kind(), Spec((67,), "special"))
    yield case(o.Acosh(), Spec((3, 35), "large"))
    for op in _WITH_ATTRIBUTES:
        yield case(op, (3, 35))
        yield case(op, (2, 1, 5, 3))
        yield case(op, Spec((67,), "special"))
    yield case(o.Softplus(2.5), (3, 35))
    yield case(o.Not(), Spec((3, 7), "bool", DType.bool))
    for dtype in (DType.i32, DType.i64):
        for op in (o.Abs(), o.Neg(), o.Sign(), o.Relu(), o.Clip(-2.0, 3.0)):
            yield case(op, Spec((5, 7), "integers", dtype))


def cast_cases() -> Iterator[OpCase]:
    """Casts between the types that models use."""
    yield case(o.Cast(DType.f32), Spec((5, 7), "integers", DType.i64))
    yield case(o.Cast(DType.i64), Spec((5, 7), "large"))
    yield case(o.Cast(DType.i32), Spec((33,), "integers", DType.i64))
    yield case(o.Cast(DType.bool), Spec((5, 7), "integers"))
    yield case(o.Cast(DType.f32), Spec((5, 7), "bool", DType.bool))
    yield case(o.Cast(DType.f16), Spec((5, 7), "normal"))
    yield case(o.Cast(DType.f32), Spec((), "normal", DType.f64))


def binary_cases() -> Iterator[OpCase]:
    """Binary ops under each broadcast, and Where."""
    for kind in (o.Add, o.Sub, o.Mul, o.Maximum, o.Minimum, o.Less, o.LessEqual, o.Greater, o.GreaterEqual, o.Equal):
        for a, b in _BROADCASTS:
            yield case(kind(), a, b)
        yield case(kind(), Spec((97,), "special"), Spec((97,), "special"))
        yield case(kind(), Spec((5, 7), "integers", DType.i64), Spec((7,), "integers", DType.i64))
        yield case(kind(), Spec((5, 7), "integers", DType.i32), Spec((1,), "integers", DType.i32))
    for a, b in _BROADCASTS:
        yield case(o.Div(), a, Spec(b, "nonzero"))
        yield case(o.Pow(), Spec(a, "positive"), b)
        yield case(o.Mod(fmod=True), a, Spec(b, "nonzero"))
        yield case(o.Where(), Spec(a, "bool", DType.bool), b, (1, 1))
    yield case(o.Div(), Spec((97,), "special"), Spec((97,), "special"))
    yield case(o.Pow(), Spec((5, 7), "normal"), Spec((), "integers"))
    yield case(
        o.Where(),
        Spec((3, 1), "bool", DType.bool),
        Spec((3, 5), "integers", DType.i64),
        Spec((5,), "integers", DType.i64),
    )
    for shape in ((3, 1, 1), (1,), (2, 3, 7, 5)):
        yield case(o.PRelu(), (2, 3, 7, 5), shape)
    for kind in (o.And, o.Or, o.Xor, o.Equal):
        yield case(kind(), Spec((5, 7), "bool", DType.bool), Spec((7,), "bool", DType.bool))


# -- linear, convolution, pooling ---------------------------------------------------------------
def linear_cases() -> Iterator[OpCase]:
    """Matrix products: odd, tiny, batched, broadcast, with vectors, empty."""
    for a, b in (
        ((3, 5), (5, 7)),
        ((1, 1), (1, 1)),
        ((17, 33), (33, 65)),
        ((2, 3, 5), (5, 7)),
        ((2, 3, 4, 5), (2, 3, 5, 6)),
        ((4, 5), (3, 5, 2)),
        ((2, 1, 3, 5), (4, 5, 6)),
        ((5,), (5, 7)),
        ((3, 5), (5,)),
        ((5,), (5,)),
        ((2, 3, 5), (5,)),
        ((1, 300), (300, 129)),
        ((0, 5), (5, 3)),
        ((3, 0), (0, 2)),
    ):
        yield case(o.MatMul(), a, b)
    yield case(o.Attention(0.35), (2, 3, 7, 8), (2, 3, 9, 8), (2, 3, 9, 5))
    yield case(o.Attention(0.125), (2, 3, 17, 64), (2, 3, 33, 64), (2, 3, 33, 64), (2, 1, 1, 33))
    yield case(o.Attention(1.0), (1, 4, 1, 3), (1, 4, 1, 3), (1, 4, 1, 1), (1, 1))
    yield case(o.Attention(0.5), (7, 8), (9, 8), (9, 5))


@dataclass(frozen=True)
class _Conv:
    x: Shape
    w: Shape
    stride: Shape = (1, 1)
    pads: Shape = (0, 0, 0, 0)
    dilation: Shape = (1, 1)
    groups: int = 1


_CONVOLUTIONS = (
    _Conv((1, 3, 8, 8), (4, 3, 3, 3)),
    _Conv((2, 3, 9, 7), (5, 3, 3, 3), (2, 2), (1, 1, 1, 1)),
    _Conv((1, 1, 1, 1), (1, 1, 1, 1)),
    _Conv((1, 16, 7, 7), (32, 16, 1, 1)),
    _Conv((2, 17, 5, 6), (9, 17, 1, 1), (2, 1)),
    _Conv((1, 3, 33, 35), (16, 3, 7, 7), (2, 2), (3, 3, 3, 3)),
    _Conv((1, 4, 11, 13), (6, 4, 3, 5), (1, 2), (2, 0, 1, 3), (2, 1)),
    _Conv((1, 6, 9, 9), (8, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    _Conv((1, 32, 14, 14), (32, 32, 3, 3), (1, 1), (1, 1, 1, 1)),
    _Conv((1, 8, 10, 10), (8, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 8),
    _Conv((2, 5, 9, 8), (5, 1, 5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 5),
    _Conv((1, 3, 7, 7), (6, 1, 3, 3), (1, 1), (0, 1, 2, 1), (2, 2), 3),
    _Conv((1, 3, 4, 4), (2, 3, 4, 4)),
    _Conv((0, 3, 5, 5), (2, 3, 3, 3)),
    _Conv((2, 3, 17), (4, 3, 5), (2,), (2, 1), (2,)),
    _Conv((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), (1, 2, 1), (1, 0, 1, 1, 1, 0), (1, 1, 2)),
)
_DECONVOLUTIONS = (
    (_Conv((1, 3, 5, 5), (3, 4, 3, 3)), ()),
    (_Conv((2, 4, 5, 6), (4, 3, 4, 4), (2, 2), (1, 1, 1, 1)), ()),
    (_Conv((1, 5, 4, 3), (5, 2, 3, 3), (2, 3), (1, 0, 1, 2), (1, 2)), (1, 2)),
    (_Conv((1, 3, 4, 4), (3, 2, 2, 2), (2, 2)), ()),
    (_Conv((1, 4, 5, 5), (4, 3, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2), (1, 1)),
    (_Conv((2, 3, 7), (3, 2, 4), (2,), (1, 1), (1,)), ()),
    (_Conv((1, 6, 5, 5), (6, 1, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 6), ()),
    (_Conv((1, 2, 3, 3), (2, 3, 1, 1), (3, 3)), (2, 2)),
)


def convolution_cases() -> Iterator[OpCase]:
    """Convolutions and deconvolutions, with and without bias."""
    for i, c in enumerate(_CONVOLUTIONS):
        bias = (Spec((c.w[0],)),) if i % 2 else ()
        yield case(o.Convolution(c.stride, c.pads, c.dilation, c.groups), c.x, c.w, *bias)
    for i, (c, extra) in enumerate(_DECONVOLUTIONS):
        bias = (Spec((c.w[1] * c.groups,)),) if i % 2 else ()
        yield case(o.Deconvolution(c.stride, c.pads, c.dilation, c.groups, extra), c.x, c.w, *bias)


_POOLS: tuple[tuple[Shape, Shape, Shape, Shape, Shape], ...] = (  # x, kernel, strides, pads, dilations
    ((1, 3, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((2, 3, 9, 7), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 17, 7, 7), (7, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 5, 10, 11), (3, 2), (3, 3), (0, 1, 1, 0), (1, 1)),
    ((1, 3, 11, 11), (3, 3), (2, 2), (1, 1, 1, 1), (2, 2)),
    ((1, 2, 4, 4), (3, 3), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((1, 2, 2, 2), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((2, 3, 13), (4,), (3,), (1, 2), (1,)),
    ((1, 2, 5, 6, 7), (2, 3, 2), (2, 2, 1), (0, 1, 0, 1, 1, 0), (1, 1, 1)),
)


def pool_cases() -> Iterator[OpCase]:
    """Pools in floor and ceil mode; averages with and without padding counted."""
    for x, kernel, strides, pads, dilations in _POOLS:
        for ceil in (False, True):
            yield case(o.MaxPool(kernel, strides, pads, dilations, ceil), x)
            yield case(o.MaxPoolIndices(kernel, strides, pads, dilations, ceil), x)
            for count in (False, True):
                yield case(o.AveragePool(kernel, strides, pads, dilations, ceil, count), x)
    yield case(o.MaxPoolIndices((2, 3), (2, 1), (1, 1, 0, 1), (1, 1), False, True), (2, 3, 5, 6))
    yield case(o.MaxPool((2, 2), (2, 2), (1, 1, 1, 1), (1, 1)), Spec((1, 2, 6, 6), "integers", DType.i8))


# -- reductions and normalisations --------------------------------------------------------------
def reduce_cases() -> Iterator[OpCase]:
    """Reductions over leading, trailing, middle, all and no axes; softmax rows short, long and extreme."""
    for shape, axes in (
        ((3, 5), (1,)),
        ((3, 5), (0,)),
        ((2, 3, 7, 9), (2, 3)),
        ((2, 3, 7, 9), (1,)),
        ((2, 3, 5), (0, 2)),
        ((2, 3, 5), (0, 1, 2)),
        ((4,), (0,)),
        ((5, 1), (1,)),
        ((2, 1500), (1,)),
        ((0, 3), (1,)),
    ):
        for keepdims in (True, False):
            for how in ("sum", "mean", "max", "min", "prod"):
                yield case(o.Reduce(how, axes, keepdims), shape)
    yield case(o.Reduce("sum", (1,), True), Spec((3, 5), "integers", DType.i64))
    yield case(o.Reduce("max", (0,), False), Spec((3, 5), "integers", DType.i32))
    yield case(o.Reduce("max", (1,), True), Spec((40, 3), "special"))
    yield case(o.Reduce("sum", (0,), False), (0, 3))
    for shape, axis in (
        ((3, 5), 1),
        ((3, 5), 0),
        ((2, 3, 7, 9), 1),
        ((2, 1000), 1),
        ((1, 1), 1),
        ((4, 33, 17), 2),
        ((0, 3), 1),
    ):
        yield case(o.Softmax(axis), shape)
        yield case(o.LogSoftmax(axis), shape)
    yield case(o.Softmax(1), Spec((5, 17), "large"))
    yield case(o.Softmax(1), Spec((9, 3), "special"))
    for kind in (o.ArgMax, o.ArgMin):
        for axis, keepdims, last in ((0, True, False), (1, False, False), (1, True, True)):
            yield case(kind(axis, keepdims, last), Spec((5, 9, 3), "integers"))
            yield case(kind(axis, keepdims, last), (4, 17))


def norm_cases() -> Iterator[OpCase]:
    """Normalisations on odd sizes and ranks."""
    for shape in ((2, 3, 7, 5), (1, 17, 4, 4), (5, 3), (2, 4, 9)):
        channels = (shape[1],)
        yield case(o.BatchNorm(), shape, channels, channels, channels, Spec(channels, "positive"))
        if len(shape) > 2:
            yield case(o.InstanceNorm(1e-3), shape, channels, channels)
    for shape, axis in (((2, 7, 384), 2), ((3, 5), 1), ((2, 3, 4, 5), 2), ((1, 1), 1), ((4, 33), 1)):
        inner = shape[axis:]
        yield case(o.LayerNorm(axis), shape, inner, inner)
        yield case(o.LayerNorm(axis, 1e-3), shape, inner)
    for size in (1, 3, 5):
        yield case(o.Lrn(size, 0.02, 0.75, 1.5), (2, 7, 5, 3))
    yield case(o.Lrn(4, 0.02, 0.75, 1.5), (5, 5, 2, 3))
    yield case(o.Lrn(5), (1, 2, 3, 3))


# -- moving elements ----------------------------------------------------------------------------
def shape_cases() -> Iterator[OpCase]:
    """Views and copies."""
    yield case(o.Reshape((3, 20)), (3, 4, 5))
    yield case(o.Reshape(()), (1, 1))
    yield case(o.Reshape((0, 7)), (0, 3))
    for shape, perm in (
        ((3, 5), (1, 0)),
        ((2, 3, 4, 5), (0, 2, 3, 1)),
        ((2, 3, 4, 5), (3, 1, 0, 2)),
        ((17, 33), (1, 0)),
        ((), ()),
    ):
        yield case(o.Transpose(perm), shape)
    yield case(o.Concat(1), (2, 3, 5), (2, 1, 5), (2, 4, 5))
    yield case(o.Concat(0), (1,), (3,))
    yield case(o.Concat(2), (2, 3, 5))
    yield case(o.Concat(0), (0, 3), (2, 3))
    yield case(o.Slice((1,), (3,), (0,), (1,)), (5, 7))
    yield case(o.Slice((4, 1), (-1, 6), (0, 2), (-2, 3)), (5, 2, 7))
    yield case(o.Slice((2,), (2,), (1,), (1,)), (3, 5))
    yield case(o.Slice((6,), (0,), (0,), (-1,)), Spec((7,), "integers", DType.i64))
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield case(o.Pad((0, 1, 2, 0, 2, 1), mode), (2, 3, 5))
        yield case(o.Pad((1, -1, 0, -1), mode), (3, 4))
    yield case(o.Pad((1, 0), "constant", -2.5), (4,))
    yield case(o.Pad((2, 1), "constant", 7.0), Spec((3,), "integers", DType.i64))
    yield case(o.Expand((2, 3, 5)), (3, 1))
    yield case(o.Expand((4,)), ())
    yield case(o.Expand((2, 3)), Spec((1, 3), "integers", DType.i64))
    yield case(o.Tile((2, 1, 3)), (2, 3, 1))
    yield case(o.Tile((3,)), (17,))
    yield case(o.ShapeOf(0, 3), (2, 3, 5))
    yield case(o.ShapeOf(1, 2), (2, 0, 5))
    for data, indices, axis in (((7, 5), (3,), 0), ((3, 9), (2, 4), 1), ((11,), (), 0), ((5, 4, 3), (6,), 2)):
        for dtype in (DType.i64, DType.i32):
            yield case(o.Gather(axis), data, Spec(indices, f"index {data[axis]}", dtype))
    yield case(o.Gather(0), Spec((5,), "integers", DType.i64), Spec((2, 2), "index 5", DType.i64))


# -- recurrent layers ---------------------------------------------------------------------------
def recurrent_cases() -> Iterator[OpCase]:
    """Each kind of layer in every direction, plain and with all options; inputs of odd and tiny sizes."""
    functions = (o.HardSigmoid(0.3, 0.4), o.Softsign(), o.LeakyRelu(0.2))
    for op, size in (
        (o.Lstm(), (5, 2, 7, 20)),
        (o.Lstm("reverse", (), 0.8, True), (4, 3, 5, 9)),
        (o.Lstm("bidirectional", functions * 2), (3, 1, 1, 17)),
        (o.Gru(), (5, 2, 7, 20)),
        (o.Gru("reverse", functions[:2], 0.8), (4, 3, 5, 9)),
        (o.Gru("bidirectional", linear_before_reset=True), (3, 5, 2, 17)),
        (o.Rnn(), (1, 1, 1, 1)),
        (o.Rnn("reverse", (o.Relu(),), 1.5), (6, 2, 3, 11)),
        (o.Rnn("bidirectional"), (4, 5, 6, 35)),
    ):
        steps, batch, inputs, hidden = size
        d, rows = op.directions, op.gates * hidden
        state = (d, batch, hidden)
        given = ((steps, batch, inputs), Spec((d, rows, inputs), "unit"), Spec((d, rows, hidden), "unit"))
        lengths = Spec((batch,), f"lengths {steps}", DType.i32)
        cell = (state, (d, 3 * hidden)) if op.states == 2 else ()
        yield case(op, *given)
        yield case(op, *given, (d, 2 * rows), lengths, state, *cell)
        yield case(op, *given, (d, 2 * rows), None, state)


def resize_cases() -> Iterator[OpCase]:
    """Resampling up and down in every mode, coordinate map and rounding."""
    up, down = (
        ((1, 2, 4, 5), (1, 2, 8, 15), (1.0, 1.0, 2.0, 3.0)),
        ((2, 1, 9, 7), (2, 1, 5, 3), (1.0, 1.0, 5 / 9, 3 / 7)),
    )
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"):
        for shape, sizes, scales in (up, down):
            yield case(o.Resize("linear", sizes, scales, coordinates), shape)
            yield case(o.Resize("cubic", sizes, scales, coordinates), shape)
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        yield case(o.Resize("nearest", up[1], up[2], "asymmetric", rounding), up[0])
        yield case(o.Resize("nearest", down[1], down[2], "half_pixel", rounding), down[0])
    yield case(o.Resize("cubic", up[1], up[2], "half_pixel", cubic_coeff=-0.5, exclude_outside=True), up[0])
    yield case(o.Resize("linear", (1, 1, 1, 1), (1.0, 1.0, 0.25, 0.2), "pytorch_half_pixel"), (1, 1, 4, 5))
    yield case(o.Resize("nearest", (2, 6), (2.0, 2.0), "asymmetric", "floor"), Spec((1, 3), "integers", DType.i32))


def type_cases() -> Iterator[OpCase]:
    """Ops of every family on the element types other than f32."""
    for d in (DType.f16, DType.bf16, DType.f64):
        x = Spec((3, 35), "normal", d)
        for op in (o.Exp(), o.Sigmoid(), o.Gelu(), o.Abs(), o.Floor(), o.Clip(-0.5, 0.75), o.IsNan(), o.Elu()):
            yield case(op, x)
        for op in (o.Add(), o.Sub(), o.Mul(), o.Maximum(), o.Less(), o.Mod(True)):
            yield case(op, x, Spec((35,), "nonzero", d))
        yield case(o.Where(), Spec((3, 1), "bool", DType.bool), x, Spec((35,), "normal", d))
        for how in ("sum", "mean", "max", "min"):
            yield case(o.Reduce(how, (1,)), Spec((3, 35), "positive", d))
        yield case(o.Softmax(1), x)
        yield case(o.LogSoftmax(0), x)
        yield case(o.LayerNorm(1), x, Spec((35,), "positive", d), Spec((35,), "normal", d))
        yield case(o.ArgMax(1), x)
        yield case(o.Gather(1), x, Spec((4,), "index 35", DType.i64))
        yield case(o.MatMul(), Spec((5, 9), "normal", d), Spec((9, 20), "normal", d))
        conv = o.Convolution((1, 1), (1, 1, 1, 1), (1, 1), 1)
        yield case(conv, Spec((1, 3, 7, 5), "normal", d), Spec((6, 3, 3, 3), "normal", d))
        for pool in (o.MaxPool, o.AveragePool):
            yield case(pool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), Spec((1, 5, 8, 6), "normal", d))
        for to in (DType.f32, DType.i64, DType.i8, DType.bool):
            yield case(o.Cast(to), x)
    for d in (DType.i8, DType.i16, DType.u8, DType.u16, DType.u32, DType.u64, DType.i32, DType.i64):
        kind = "integers" if d.is_signed else "bool"
        x, y = Spec((5, 7), kind, d), Spec((7,), "integers" if d.is_signed else "positive", d)
        for op in (o.Add(), o.Sub(), o.Mul(), o.Maximum(), o.Minimum(), o.Less(), o.GreaterEqual(), o.Equal()):
            yield case(op, x, y, note="type")
        for how in ("sum", "mean", "max", "min"):
            yield case(o.Reduce(how, (1,)), x, note="type")
        yield case(o.MatMul(), x, Spec((7, 9), kind, d))
        yield case(o.ArgMin(1), x)
        for to in (DType.f32, DType.f16, DType.i64, DType.u8, DType.bool):
            yield case(o.Cast(to), x, note="type")


def fused_cases() -> Iterator[OpCase]:
    """Regions: with an anchor, per-channel and full operands, literals; and purely pointwise."""
    instr, conv = o.Instr, o.Convolution((1, 1), (1, 1, 1, 1), (1, 1))
    yield case(o.Fused(conv, 2, (instr(o.Add(), (3, 2)), instr(o.Relu(), (4,)))), (1, 3, 7, 9), (5, 3, 3, 3), (5, 1, 1))
    yield case(
        o.Fused(conv, 2, (instr(o.Add(), (4, 2)), instr(o.Add(), (5, 3)), instr(o.Silu(), (6,)))),
        (1, 16, 8, 8),
        (17, 16, 3, 3),
        (17, 1, 1),
        (1, 17, 8, 8),
    )
    yield case(o.Fused(o.MatMul(), 2, (instr(o.Add(), (3, 2)), instr(o.Gelu(), (4,)))), (7, 33), (33, 65), (65,))
    yield case(
        o.Fused(
            None, 0, (instr(o.Mul(), (0, 1)), instr(o.Literal(0.5), ()), instr(o.Sub(), (2, 3)), instr(o.Tanh(), (4,)))
        ),
        (3, 17),
        (17,),
    )


CASES: tuple[OpCase, ...] = (
    *unary_cases(),
    *cast_cases(),
    *binary_cases(),
    *linear_cases(),
    *convolution_cases(),
    *pool_cases(),
    *reduce_cases(),
    *norm_cases(),
    *shape_cases(),
    *select_cases(),
    *order_cases(),
    *sample_cases(),
    *quantise_cases(),
    *bit_cases(),
    *matrix_cases(),
    *running_cases(),
    *pooled_cases(),
    *attention_cases(),
    *resize_cases(),
    *recurrent_cases(),
    *type_cases(),
    *fused_cases(),
)
