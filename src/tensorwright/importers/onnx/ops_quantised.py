# SPDX-License-Identifier: Apache-2.0
"""ONNX quantisation, and the operators on quantised tensors as integer arithmetic and one requantisation.

Products of quantised tensors are sums in i32, exactly. Where the operator texts leave the rounding open, the code does
what ONNX Runtime does: scales are combined to one f32 factor, and the zero point is added after rounding.
"""

from __future__ import annotations

import math

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.importers.onnx.ops_conv import convolution_of
from tensorwright.importers.onnx.tensors import dtype_name, dtype_of
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.quantise import along, by_granularity, is_zero, pointwise, scalar
from tensorwright.ops.elementwise import Div, Equal, Maximum, Minimum, Mul, Neg, Sub, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.quantise import Dequantise, Quantise
from tensorwright.ops.reduce import Reduce

_GIVE_SHAPES = "give every input a fixed shape with shapes="


# -- to and from quantised tensors ------------------------------------------------------------------
@onnx_op("QuantizeLinear", since=10)
def quantize_linear(b: Builder, n: OnnxNode) -> Result:
    """saturate(round(x / scale) + zero point), per tensor, axis or block."""
    x, scale, zero_point = n.input(0), n.input(1), n.optional(2)
    division = _dtype_attr(n, "precision") or (scale if scale.type.dtype in _FLOATS else x).type.dtype
    division = division if division in _FLOATS else DType.f32
    asked = _dtype_attr(n, "output_dtype")
    dtype = zero_point.type.dtype if zero_point is not None else asked or DType.u8
    if asked is not None and asked is not dtype:
        raise ValueError(f"output_dtype says {asked}, the zero point {dtype}")
    op = Quantise(dtype, saturate=n.flag("saturate", True))
    return by_granularity(b, op, as_type(b, x, division), as_type(b, scale, division), zero_point, *_granularity(n))


@onnx_op("DequantizeLinear", since=10)
def dequantize_linear(b: Builder, n: OnnxNode) -> Result:
    """(x - zero point) * scale, per tensor, axis or block."""
    x, scale = n.input(0), n.input(1)
    dtype = _dtype_attr(n, "output_dtype") or scale.type.dtype
    if scale.type.dtype is DType.f8e8m0fnu:
        dtype, scale = (DType.f32 if dtype is scale.type.dtype else dtype), as_type(b, scale, DType.f32)
    return by_granularity(b, Dequantise(dtype), x, scale, n.optional(2), *_granularity(n))


def _granularity(n: OnnxNode) -> tuple[int, int]:
    """The axis, and the size of blocks along it or 0."""
    return n.attr("axis", int, 1), n.attr("block_size", int, 0)


_FLOATS = (DType.f32, DType.f16, DType.bf16, DType.f64)


def _dtype_attr(n: OnnxNode, name: str) -> DType | None:
    number = n.dtype_attr(name, 0)
    dtype = dtype_of(number) if number else None
    if number and dtype is None:
        raise ValueError(f"attribute {name!r} is {dtype_name(number)}")
    return dtype


@onnx_op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(b: Builder, n: OnnxNode) -> Result:
    """u8 by the range of x and 0; a range of nothing has scale 1, as in ONNX Runtime."""
    return dynamically_quantised(b, n.input(0))


def dynamically_quantised(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """x as u8, its scale and its zero point."""
    axes, dtype = tuple(range(x.type.rank)), x.type.dtype
    zero = b.scalar(0, dtype)
    highest = b.add(Maximum(), b.add(Reduce("max", axes, False), x), zero)
    lowest = b.add(Minimum(), b.add(Reduce("min", axes, False), x), zero)
    span = b.add(Sub(), highest, lowest)
    # in f64 even the product with a rounded 1/255 gives the quotient of f32: none lies near enough to a tie
    scale = as_type(b, b.add(Div(), as_type(b, span, DType.f64), b.scalar(255, DType.f64)), dtype)
    scale = b.add(Where(), b.add(Equal(), span, zero), b.scalar(1, dtype), scale)
    zero_point = b.add(Quantise(DType.u8), b.add(Neg(), lowest), scale)
    return b.add(Quantise(DType.u8), x, scale, zero_point), scale, zero_point


# -- products ---------------------------------------------------------------------------------------
@onnx_op("MatMulInteger", since=10)
def matmul_integer(b: Builder, n: OnnxNode) -> Result:
    """The exact product of differences from the zero points, as i32."""
    return integer_product(b, n.input(0), n.optional(2), n.input(1), n.optional(3))


@onnx_op("QLinearMatMul", since=10)
def qlinear_matmul(b: Builder, n: OnnxNode) -> Result:
    """MatMulInteger, requantised."""
    left, right, y_zero_point = n.input(0), n.input(3), n.input(7)
    total = integer_product(b, left, n.input(2), right, n.input(5))
    factor = combined_scale(b, per_row(b, n.input(1), left), per_column(b, n.input(4), right), n.input(6))
    return requantised(b, total, factor, y_zero_point)


@onnx_op("ConvInteger", since=10)
def conv_integer(b: Builder, n: OnnxNode) -> Result:
    """The exact convolution of differences from the zero points, as i32."""
    x, w = n.input(0), n.input(1)
    rank = x.type.rank
    return b.add(convolution_of(n, x, w), centred(b, x, n.optional(2), rank, 1), centred(b, w, n.optional(3), rank, 0))


@onnx_op("QLinearConv", since=10)
def qlinear_conv(b: Builder, n: OnnxNode) -> Result:
    """ConvInteger plus a bias of i32, requantised."""
    return requantised_convolution(b, n, n.input(0))


def requantised_convolution(b: Builder, n: OnnxNode, x: Value) -> Value:
    """What QLinearConv computes, of x in place of its first input."""
    w, bias = n.input(3), n.optional(8)
    rank = x.type.rank
    operands = (centred(b, x, n.input(2), rank, 1), centred(b, w, n.input(5), rank, 0))
    total = b.add(convolution_of(n, x, w), *operands, *(() if bias is None else (bias,)))
    factor = combined_scale(b, scalar(b, n.input(1)), along(b, n.input(4), rank, 1), scalar(b, n.input(6)))
    return requantised(b, total, factor, n.input(7))


# -- shared -----------------------------------------------------------------------------------------
def centred(b: Builder, x: Value, zero_point: Value | None, rank: int, axis: int) -> Value:
    """x - zero point as i32; a vector of zero points lies along `axis`."""
    return _difference(b, x, None if zero_point is None else along(b, zero_point, rank, axis))


def _difference(b: Builder, x: Value, zero_point: Value | None) -> Value:
    """In i32; in f32 for 8-bit floats, which hardly ever have a zero point."""
    dtype = DType.i32 if x.type.dtype.is_integer else DType.f32
    if zero_point is None or is_zero(b, zero_point):
        return as_type(b, x, dtype)
    return b.add(Sub(), as_type(b, x, dtype), as_type(b, zero_point, dtype))


def per_row(b: Builder, parameter: Value, x: Value) -> Value:
    """A parameter of the left operand of a product: of all, or of each row."""
    if math.prod(parameter.type.shape) == 1:
        return scalar(b, parameter)
    return along(b, parameter, x.type.rank, -2) if parameter.type.rank == 1 and x.type.rank > 1 else parameter


def per_column(b: Builder, parameter: Value, x: Value) -> Value:
    """A parameter of the right operand of a product: of all, or of each column."""
    return scalar(b, parameter) if math.prod(parameter.type.shape) == 1 else parameter


def integer_product(b: Builder, left: Value, left_zero: Value | None, right: Value, right_zero: Value | None) -> Value:
    """The matrix product of differences from the zero points, as i32."""
    rows = None if left_zero is None else per_row(b, left_zero, left)
    columns = None if right_zero is None else per_column(b, right_zero, right)
    return b.add(MatMul(), _difference(b, left, rows), _difference(b, right, columns))


def combined_scale(b: Builder, left: Value, right: Value, result: Value | None) -> Value:
    """left * right / result in f32; None: left * right."""
    factor = b.add(Mul(), as_type(b, left, DType.f32), as_type(b, right, DType.f32))
    if result is None:
        return factor
    result = scalar(b, result) if math.prod(result.type.shape) == 1 else result
    return b.add(Div(), factor, as_type(b, result, DType.f32))


def requantised(b: Builder, total: Value, factor: Value, zero_point: Value) -> Value:
    """saturate(round(total * factor) + zero point) in the type of the zero point, for a total of i32 or f32."""
    offset = scalar(b, zero_point) if math.prod(zero_point.type.shape) == 1 else zero_point
    real = b.add(Mul(), as_type(b, total, DType.f32), factor)
    return pointwise(b, Quantise(zero_point.type.dtype), real, b.scalar(1, DType.f32), offset)


OPS = [
    quantize_linear,
    dequantize_linear,
    dynamic_quantize_linear,
    matmul_integer,
    qlinear_matmul,
    conv_integer,
    qlinear_conv,
]
