# SPDX-License-Identifier: Apache-2.0
"""The op set. Importing this package registers every op by kind (`tensorwright.ir.op.OPS`)."""

from __future__ import annotations

from tensorwright.ops.activation import (
    Clip,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    PRelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from tensorwright.ops.attention import Attention
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import (
    Abs,
    Acos,
    Acosh,
    Add,
    And,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Binary,
    Cast,
    Ceil,
    Cos,
    Cosh,
    Div,
    Equal,
    Erf,
    Exp,
    Floor,
    Greater,
    GreaterEqual,
    IsNan,
    Less,
    LessEqual,
    Log,
    Maximum,
    Minimum,
    Mod,
    Mul,
    Neg,
    Not,
    Or,
    Pointwise,
    Pow,
    Reciprocal,
    Round,
    Sign,
    Sin,
    Sinh,
    Sqrt,
    Sub,
    Tan,
    Tanh,
    Unary,
    Where,
    Xor,
)
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.ops.index import ArgMax, ArgMin, Gather
from tensorwright.ops.linear import MatMul
from tensorwright.ops.norm import BatchNorm, InstanceNorm, LayerNorm, Lrn
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.reduce import LogSoftmax, Reduce, Softmax
from tensorwright.ops.shape import Concat, Expand, Pad, Reshape, Resize, ShapeOf, Slice, Tile, Transpose

__all__ = [
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNorm", "Binary", "Cast", "Ceil", "Clip", "Concat", "Convolution", "Cos", "Cosh",
    "Deconvolution", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Fused", "Gather", "Gelu", "Greater",
    "GreaterEqual", "HardSigmoid", "HardSwish", "InstanceNorm", "Instr", "IsNan", "LayerNorm", "LeakyRelu", "Less",
    "LessEqual", "Literal", "Log", "LogSoftmax", "Lrn", "MatMul", "MaxPool", "Maximum", "Minimum", "Mish", "Mod",
    "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pointwise", "Pow", "Reciprocal", "Reduce", "Relu", "Reshape",
    "Resize", "Round", "Selu", "ShapeOf", "Sigmoid", "Sign", "Silu", "Sin", "Sinh", "Slice", "Softmax", "Softplus",
    "Softsign", "Sqrt", "Sub", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose", "Unary", "Where", "Xor",
]
