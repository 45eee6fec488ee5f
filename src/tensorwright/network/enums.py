# SPDX-License-Identifier: Apache-2.0
"""The choices that layers of `tw.Network` take, with the names and numbers that TensorRT's users know."""

from __future__ import annotations

import enum


class ActivationType(enum.Enum):
    """The function of an activation layer; `alpha` and `beta` are properties of the layer."""

    RELU = 0
    SIGMOID = 1
    TANH = 2
    LEAKY_RELU = 3  # alpha * x below 0
    ELU = 4  # alpha * (exp(x) - 1) below 0
    SELU = 5  # beta * x, or beta * alpha * (exp(x) - 1) up to 0
    SOFTSIGN = 6
    SOFTPLUS = 7  # alpha * log(exp(beta * x) + 1)
    CLIP = 8  # between alpha and beta
    HARD_SIGMOID = 9  # alpha * x + beta between 0 and 1
    SCALED_TANH = 10  # alpha * tanh(beta * x)
    THRESHOLDED_RELU = 11  # x above alpha, else 0
    GELU_ERF = 12
    GELU_TANH = 13


class PoolingType(enum.Enum):
    """What a pooling layer makes of a window."""

    MAX = 0
    AVERAGE = 1
    MAX_AVERAGE_BLEND = 2  # (1 - blend_factor) * max + blend_factor * average


class PaddingMode(enum.Enum):
    """Whether the given padding is used, and how an output size that does not divide is rounded."""

    EXPLICIT_ROUND_DOWN = 0
    EXPLICIT_ROUND_UP = 1
    SAME_UPPER = 2
    SAME_LOWER = 3


class ScaleMode(enum.Enum):
    """The shape of the parameters of a scale layer: one element, one per channel, or one per element."""

    UNIFORM = 0
    CHANNEL = 1
    ELEMENTWISE = 2


class ElementWiseOperation(enum.Enum):
    """Binary operations, with NumPy broadcasting."""

    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    SUB = 4
    DIV = 5
    POW = 6
    FLOOR_DIV = 7
    AND = 8
    OR = 9
    XOR = 10
    EQUAL = 11
    GREATER = 12
    LESS = 13


class UnaryOperation(enum.Enum):
    """Elementwise functions."""

    EXP = 0
    LOG = 1
    SQRT = 2
    RECIP = 3
    ABS = 4
    NEG = 5
    SIN = 6
    COS = 7
    TAN = 8
    SINH = 9
    COSH = 10
    ASIN = 11
    ACOS = 12
    ATAN = 13
    ASINH = 14
    ACOSH = 15
    ATANH = 16
    CEIL = 17
    FLOOR = 18
    ERF = 19
    NOT = 20
    SIGN = 21
    ROUND = 22
    ISINF = 23
    ISNAN = 24


class ReduceOperation(enum.Enum):
    """How a reduce layer combines elements."""

    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    AVG = 4


class MatrixOperation(enum.Enum):
    """How a matrix product reads an operand: as matrices, transposed, or as vectors in its last dim."""

    NONE = 0
    TRANSPOSE = 1
    VECTOR = 2


class InterpolationMode(enum.Enum):
    """How a resize layer samples."""

    NEAREST = 0
    LINEAR = 1
    CUBIC = 2


class ResizeCoordinateTransformation(enum.Enum):
    """How a resize layer maps output positions to input positions."""

    ALIGN_CORNERS = 0
    ASYMMETRIC = 1
    HALF_PIXEL = 2


class ResizeSelector(enum.Enum):
    """What a resize to a single element reads: the position of the formula, or the first element."""

    FORMULA = 0
    UPPER = 1


class ResizeRoundMode(enum.Enum):
    """How a nearest resize rounds a position."""

    HALF_UP = 0
    HALF_DOWN = 1
    FLOOR = 2
    CEIL = 3
