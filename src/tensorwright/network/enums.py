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


class TopKOperation(enum.Enum):
    """Whether a top-k layer takes the largest or the smallest elements."""

    MAX = 0
    MIN = 1


class ScatterMode(enum.Enum):
    """Whether a scatter layer writes single elements along an axis, or blocks at coordinates."""

    ELEMENT = 0
    ND = 1


class FillOperation(enum.Enum):
    """What a fill layer makes: start and step, or random numbers."""

    LINSPACE = 0
    RANDOM_UNIFORM = 1
    RANDOM_NORMAL = 2


class BoundingBoxFormat(enum.Enum):
    """Boxes as two opposite corners, or as center x, y, width and height."""

    CORNER_PAIRS = 0
    CENTER_SIZES = 1


class SampleMode(enum.Enum):
    """What there is outside of an image: nothing allowed, the image again, its border, zeros, its mirror image."""

    STRICT_BOUNDS = 0
    WRAP = 1
    CLAMP = 2
    FILL = 3
    REFLECT = 4


class CumulativeOperation(enum.Enum):
    """How a cumulative layer combines elements."""

    SUM = 0


class AttentionNormalizationOp(enum.Enum):
    """What becomes of the scores of an attention layer."""

    NONE = 0
    SOFTMAX = 1


class RNNOperation(enum.Enum):
    """The cell of a recurrent layer."""

    RELU = 0
    TANH = 1
    LSTM = 2
    GRU = 3


class RNNDirection(enum.Enum):
    """Whether a recurrent layer reads sequences from the start only, or from both ends."""

    UNIDIRECTION = 0
    BIDIRECTION = 1


class RNNInputMode(enum.Enum):
    """Whether the first recurrent layer multiplies its input by weights, or takes it as it is."""

    LINEAR = 0
    SKIP = 1


class RNNGateType(enum.Enum):
    """The gates of recurrent cells: i, o, f, c of LSTM; z, r, h of GRU; i of the plain cells."""

    INPUT = 0
    OUTPUT = 1
    FORGET = 2
    UPDATE = 3
    RESET = 4
    CELL = 5
    HIDDEN = 6


class TripLimit(enum.Enum):
    """What ends a loop: a number of iterations, or a condition that no longer holds."""

    COUNT = 0
    WHILE = 1


class LoopOutput(enum.Enum):
    """What leaves a loop: the last value, or those of all iterations in order or reversed."""

    LAST_VALUE = 0
    CONCATENATE = 1
    REVERSE = 2
