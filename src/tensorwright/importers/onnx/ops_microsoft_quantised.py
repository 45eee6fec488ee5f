# SPDX-License-Identifier: Apache-2.0
"""Operators of the domain com.microsoft on quantised tensors, which ONNX Runtime's quantiser and optimiser write.

Formulas are those of ONNX Runtime's operator texts, and the order of roundings is that of its CPU kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, normal_axes, onnx_op
from tensorwright.importers.onnx.ops_conv import average_pool_of, max_pool_of
from tensorwright.importers.onnx.ops_quantised import (
    centred,
    combined_scale,
    dequantize_linear,
    dynamically_quantised,
    integer_product,
    per_column,
    quantize_linear,
    requantised,
    requantised_convolution,
)
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.quantise import pointwise, scalar
from tensorwright.ops.activation import LeakyRelu, Sigmoid
from tensorwright.ops.elementwise import Add, Div, Mul, Sub, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.quantise import Dequantise, Quantise
from tensorwright.ops.reduce import Reduce, Softmax
from tensorwright.ops.shape import Concat, Reshape, Transpose

_F32 = DType.f32


def _microsoft(name: str) -> Callable[[Callable[[Builder, OnnxNode], Result]], OnnxOp]:
    return onnx_op(f"com.microsoft.{name}", since=1)


# -- pointwise --------------------------------------------------------------------------------------
@_microsoft("QLinearAdd")
def qlinear_add(b: Builder, n: OnnxNode) -> Result:
    """A weighted sum of the integers, plus one constant that holds all zero points, rounded once."""
    (x, x_zero), (y, y_zero), (result, dtype) = _operand(b, n, 0), _operand(b, n, 3), _result(b, n, 6, n.input(0))
    terms, offset = [], as_type(b, result, _F32)
    for value, zero, scale in ((x, x_zero, n.input(1)), (y, y_zero, n.input(4))):
        ratio = b.add(Div(), scalar(b, scale), scalar(b, n.input(6)))
        terms.append(b.add(Mul(), as_type(b, value, _F32), ratio))
        offset = b.add(Sub(), offset, b.add(Mul(), as_type(b, zero, _F32), ratio))
    total = b.add(Add(), terms[0], b.add(Add(), terms[1], offset))
    return b.add(Quantise(dtype), total, b.scalar(1, _F32))


@_microsoft("QLinearMul")
def qlinear_mul(b: Builder, n: OnnxNode) -> Result:
    """The exact product of differences from the zero points times one factor, plus the zero point, then rounded."""
    (x, x_zero), (y, y_zero), (zero_point, dtype) = _operand(b, n, 0), _operand(b, n, 3), _result(b, n, 6, n.input(0))
    product = b.add(Mul(), centred(b, x, x_zero, x.type.rank, 0), centred(b, y, y_zero, y.type.rank, 0))
    factor = combined_scale(b, scalar(b, n.input(1)), scalar(b, n.input(4)), n.input(6))
    total = b.add(Add(), b.add(Mul(), as_type(b, product, _F32), factor), as_type(b, zero_point, _F32))
    return b.add(Quantise(dtype), total, b.scalar(1, _F32))


def _operand(b: Builder, n: OnnxNode, index: int) -> tuple[Value, Value]:
    """The quantised input at `index` and its zero point, two inputs later."""
    x, zero_point = n.input(index), n.optional(index + 2)
    return x, b.scalar(0, x.type.dtype) if zero_point is None else scalar(b, zero_point)


def _result(b: Builder, n: OnnxNode, index: int, like: Value) -> tuple[Value, DType]:
    """The zero point of the result, whose scale is the input at `index`, and its type: that of `like` by default."""
    zero_point = n.optional(index + 1)
    made = b.scalar(0, like.type.dtype) if zero_point is None else scalar(b, zero_point)
    return made, made.type.dtype


def _real(b: Builder, n: OnnxNode, index: int) -> Value:
    """The input at `index` as f32; its scale and zero point are the two inputs after it."""
    x, zero_point = _operand(b, n, index)
    return pointwise(b, Dequantise(_F32), x, scalar(b, n.input(index + 1)), zero_point)


def _quantised(b: Builder, n: OnnxNode, real: Value, index: int, like: Value) -> Value:
    """f32 values quantised by the scale at `index` and the zero point after it."""
    zero_point, dtype = _result(b, n, index, like)
    return pointwise(b, Quantise(dtype), real, scalar(b, n.input(index)), zero_point)


def _through_reals(name: str, compute: Callable[[Builder, OnnxNode, Value], Value]) -> OnnxOp:
    """An op of one tensor, computed in f32: (x, scale, zero point, scale of the result, zero point of the result)."""

    def translate(b: Builder, n: OnnxNode) -> Result:
        return _quantised(b, n, compute(b, n, _real(b, n, 0)), 3, n.input(0))

    return OnnxOp(f"com.microsoft.{name}", 1, translate)


def _leaky_relu(b: Builder, n: OnnxNode, x: Value) -> Value:
    return b.add(LeakyRelu(n.attr("alpha", float, 0.01)), x)


def _sigmoid(b: Builder, n: OnnxNode, x: Value) -> Value:
    return b.add(Sigmoid(), x)


def _softmax(b: Builder, n: OnnxNode, x: Value) -> Value:
    """Along one axis; before opset 13 over all axes from there on."""
    axis, shape = n.axis("axis", -1, x.type.rank), x.type.shape
    if n.attr("opset", int) >= 13:
        return b.add(Softmax(axis), x)
    flat = b.add(Reshape((math.prod(shape[:axis]), math.prod(shape[axis:]))), x)
    return b.add(Reshape(shape), b.add(Softmax(1), flat))


def _mean(b: Builder, n: OnnxNode, x: Value) -> Value:
    axes = n.ints("axes") or tuple(range(x.type.rank))
    return b.add(Reduce("mean", normal_axes(axes, x.type.rank), n.flag("keepdims", True)), x)


def _average_pool(b: Builder, n: OnnxNode, x: Value) -> Value:
    return _in_order(b, n.flag("channels_last"), x, lambda y: b.add(average_pool_of(n, y), y))


@_microsoft("QLinearConcat")
def qlinear_concat(b: Builder, n: OnnxNode) -> Result:
    """The inputs, each with its scale and zero point, requantised to those of the result."""
    zero_point = scalar(b, n.input(1))
    parts = [_rescaled(b, n, i, scalar(b, n.input(0)), zero_point) for i in range(2, len(n.inputs), 3)]
    return b.add(Concat(n.axis("axis", None, parts[0].type.rank)), *parts)


@_microsoft("QLinearWhere")
def qlinear_where(b: Builder, n: OnnxNode) -> Result:
    """A choice between two tensors, requantised to the scale and zero point of the result."""
    scale, zero_point = scalar(b, n.input(7)), scalar(b, n.input(8))
    return b.add(Where(), n.input(0), *(_rescaled(b, n, i, scale, zero_point) for i in (1, 4)))


def _rescaled(b: Builder, n: OnnxNode, index: int, scale: Value, zero_point: Value) -> Value:
    """The quantised input at `index` in terms of another scale and zero point."""
    x, own = _operand(b, n, index)
    pairs = ((n.input(index + 1), scale), (own, zero_point))
    arrays = [(b.known(p), b.known(q)) for p, q in pairs]
    if all(p is not None and q is not None and p.dtype == q.dtype and p.reshape(()) == q for p, q in arrays):
        return x
    return pointwise(b, Quantise(zero_point.type.dtype), _real(b, n, index), scale, zero_point)


# -- images -----------------------------------------------------------------------------------------
def _in_order(b: Builder, channels_last: bool, x: Value, compute: Callable[[Value], Value]) -> Value:
    """What `compute` makes of an image with channels in the second place, on one with channels where it has them."""
    if not channels_last:
        return compute(x)
    rank = x.type.rank
    y = compute(b.add(Transpose((0, rank - 1, *range(1, rank - 1))), x))
    return b.add(Transpose((0, *range(2, rank), 1)), y)


@_microsoft("QLinearGlobalAveragePool")
def qlinear_global_average_pool(b: Builder, n: OnnxNode) -> Result:
    """The exact sum of differences from the zero point, requantised."""
    x, rank = n.input(0), n.input(0).type.rank
    axes = tuple(range(1, rank - 1)) if n.flag("channels_last") else tuple(range(2, rank))
    total = b.add(Reduce("sum", axes, True), centred(b, x, n.input(2), rank, 0))
    size = math.prod(x.type.shape[axis] for axis in axes)
    if not isinstance(size, int):
        n.refuse(f"it averages over {size} elements", "give every input a fixed shape with shapes=")
    divisor = b.add(Mul(), as_type(b, scalar(b, n.input(3)), _F32), b.scalar(size, _F32))
    return requantised(b, total, b.add(Div(), scalar(b, n.input(1)), divisor), n.input(4))


@_microsoft("QLinearConv")
def qlinear_conv(b: Builder, n: OnnxNode) -> Result:
    """ONNX's QLinearConv, also on images with channels last."""
    return _in_order(b, n.flag("channels_last"), n.input(0), lambda x: requantised_convolution(b, n, x))


@_microsoft("NhwcMaxPool")
def nhwc_max_pool(b: Builder, n: OnnxNode) -> Result:
    """The maximum of each window of an image with channels last."""
    return _in_order(b, True, n.input(0), lambda x: b.add(max_pool_of(n, x), x))


# -- products ---------------------------------------------------------------------------------------
@_microsoft("QGemm")
def qgemm(b: Builder, n: OnnxNode) -> Result:
    """alpha * (A' B' + C) for C in i32, requantised; f32 without a scale of the result."""
    left, right = (_turned(b, n.input(i), n.flag(flag)) for i, flag in ((0, "transA"), (3, "transB")))
    total, addend = integer_product(b, left, n.input(2), right, n.input(5)), n.optional(6)
    total = total if addend is None else b.add(Add(), total, addend)
    alpha = b.scalar(n.attr("alpha", float, 1.0), _F32)
    factor = combined_scale(b, b.add(Mul(), alpha, scalar(b, n.input(1))), per_column(b, n.input(4), right), None)
    y_scale, y_zero_point = n.optional(7), n.optional(8)
    if y_scale is None or y_zero_point is None:
        return b.add(Mul(), as_type(b, total, _F32), factor)
    return requantised(b, total, b.add(Div(), factor, scalar(b, y_scale)), y_zero_point)


def _turned(b: Builder, x: Value, turn: bool) -> Value:
    if x.type.rank != 2:
        raise ValueError(f"its operands must be matrices, {x.name!r} is {x.type}")
    return b.add(Transpose((1, 0)), x) if turn else x


@_microsoft("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(b: Builder, n: OnnxNode) -> Result:
    """The product of A, quantised by its range, and quantised B, in f32, plus a bias."""
    left, scale, zero_point = dynamically_quantised(b, n.input(0))
    product = integer_product(b, left, zero_point, n.input(1), n.optional(3))
    factor = combined_scale(b, scale, per_column(b, n.input(2), n.input(1)), None)
    return _with_bias(b, b.add(Mul(), as_type(b, product, _F32), factor), n.optional(4))


@_microsoft("MatMulIntegerToFloat")
def matmul_integer_to_float(b: Builder, n: OnnxNode) -> Result:
    """The product of two quantised matrices in the float type of their scales, plus a bias."""
    product = integer_product(b, n.input(0), n.optional(4), n.input(1), n.optional(5))
    factor = combined_scale(b, scalar(b, n.input(2)), per_column(b, n.input(3), n.input(1)), None)
    y = as_type(b, b.add(Mul(), as_type(b, product, _F32), factor), n.input(2).type.dtype)
    return _with_bias(b, y, n.optional(6))


def _with_bias(b: Builder, y: Value, bias: Value | None) -> Value:
    return y if bias is None else b.add(Add(), y, bias)


@_microsoft("MatMulNBits")
def matmul_nbits(b: Builder, n: OnnxNode) -> Result:
    """A product with constant weights of 2, 4 or 8 bits. They are unpacked when the engine is built, to A's type."""
    if n.attr("weight_prepacked", int, 0):
        n.refuse("its weights are packed for one kernel", "export the model without prepacking")
    n.ignore("accuracy_level")  # a lower bound of the precision
    x = n.input(0)
    weights = b.constant(_unpacked_weights(n).astype(x.type.dtype.numpy))
    return _with_bias(b, b.add(MatMul(), x, weights), n.optional(5))


def _unpacked_weights(n: OnnxNode) -> Array:
    """(quantised - zero point) * scale as f32[K, N] of bits packed in blocks along K, lowest bits first."""
    bits, block = n.attr("bits", int, 4), n.attr("block_size", int)
    depth, columns = n.attr("K", int), n.attr("N", int)
    if bits not in (2, 4, 8):
        n.refuse(f"its weights have {bits} bits")
    blocks = -(-depth // block)
    because = "MatMulNBits unpacks its weights when the engine is built"
    packed = n.constant(1, because)
    if packed.size != columns * blocks * block * bits // 8:
        raise ValueError(f"weights of {list(packed.shape)} do not hold {columns} columns of {blocks} blocks of {block}")
    codes = _unpacked(packed.reshape(columns, -1), bits)[:, :depth]
    scales = n.constant(2, because).astype(np.float32).reshape(columns, blocks)
    zero_points = np.full((columns, blocks), 1 << (bits - 1), np.float32)
    if n.optional(3) is not None:
        given = n.constant(3, because)
        given = _unpacked(given.reshape(columns, -1), bits) if given.dtype == np.uint8 else given.reshape(columns, -1)
        zero_points = given[:, :blocks].astype(np.float32)
    group = np.arange(depth) // block if n.optional(4) is None else n.constant(4, because).reshape(-1)[:depth]
    return np.ascontiguousarray(((codes - zero_points[:, group]) * scales[:, group]).T)


def _unpacked(rows: Array, bits: int) -> Array:
    """The numbers in each row of bytes as f32, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((rows[..., None] >> shifts) & ((1 << bits) - 1)).reshape(len(rows), -1).astype(np.float32)


OPS = [
    OnnxOp("com.microsoft.QuantizeLinear", 1, quantize_linear.translate),
    OnnxOp("com.microsoft.DequantizeLinear", 1, dequantize_linear.translate),
    qlinear_add,
    qlinear_mul,
    _through_reals("QLinearSigmoid", _sigmoid),
    _through_reals("QLinearLeakyRelu", _leaky_relu),
    _through_reals("QLinearSoftmax", _softmax),
    _through_reals("QLinearReduceMean", _mean),
    _through_reals("QLinearAveragePool", _average_pool),
    qlinear_concat,
    qlinear_where,
    qlinear_global_average_pool,
    qlinear_conv,
    nhwc_max_pool,
    qgemm,
    dynamic_quantize_matmul,
    matmul_integer_to_float,
    matmul_nbits,
]
