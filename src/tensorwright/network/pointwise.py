# SPDX-License-Identifier: Apache-2.0
"""Layers that work element by element, and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.enums import ActivationType, ElementWiseOperation, ScaleMode, UnaryOperation
from tensorwright.network.layer import (
    Ints,
    Layer,
    Setting,
    as_dtype,
    member,
    optional_integer,
    optional_number,
    present,
    shaped,
    weights,
)
from tensorwright.ops import activation as act
from tensorwright.ops import elementwise as ew

_PLAIN_ACTIVATIONS: Mapping[ActivationType, Callable[[], Op]] = {
    ActivationType.RELU: act.Relu,
    ActivationType.SIGMOID: act.Sigmoid,
    ActivationType.TANH: ew.Tanh,
    ActivationType.SOFTSIGN: act.Softsign,
    ActivationType.GELU_ERF: act.Gelu,
    ActivationType.GELU_TANH: lambda: act.Gelu(approximate=True),
}
_PARAMETERS: Mapping[ActivationType, tuple[float, float]] = {
    ActivationType.LEAKY_RELU: (0.01, 0.0),
    ActivationType.ELU: (1.0, 0.0),
    ActivationType.SELU: (act.Selu().alpha, act.Selu().gamma),
    ActivationType.SOFTPLUS: (1.0, 1.0),
    ActivationType.CLIP: (0.0, 6.0),
    ActivationType.HARD_SIGMOID: (0.2, 0.5),
    ActivationType.SCALED_TANH: (1.0, 1.0),
    ActivationType.THRESHOLDED_RELU: (1.0, 0.0),
}
_UNARY: Mapping[UnaryOperation, Callable[[], Op]] = {
    UnaryOperation.EXP: ew.Exp,
    UnaryOperation.LOG: ew.Log,
    UnaryOperation.SQRT: ew.Sqrt,
    UnaryOperation.RECIP: ew.Reciprocal,
    UnaryOperation.ABS: ew.Abs,
    UnaryOperation.NEG: ew.Neg,
    UnaryOperation.SIN: ew.Sin,
    UnaryOperation.COS: ew.Cos,
    UnaryOperation.TAN: ew.Tan,
    UnaryOperation.SINH: ew.Sinh,
    UnaryOperation.COSH: ew.Cosh,
    UnaryOperation.ASIN: ew.Asin,
    UnaryOperation.ACOS: ew.Acos,
    UnaryOperation.ATAN: ew.Atan,
    UnaryOperation.ASINH: ew.Asinh,
    UnaryOperation.ACOSH: ew.Acosh,
    UnaryOperation.ATANH: ew.Atanh,
    UnaryOperation.CEIL: ew.Ceil,
    UnaryOperation.FLOOR: ew.Floor,
    UnaryOperation.ERF: ew.Erf,
    UnaryOperation.NOT: ew.Not,
    UnaryOperation.SIGN: ew.Sign,
    UnaryOperation.ROUND: ew.Round,
    UnaryOperation.ISNAN: ew.IsNan,
}
_BINARY: Mapping[ElementWiseOperation, Callable[[], Op]] = {
    ElementWiseOperation.SUM: ew.Add,
    ElementWiseOperation.PROD: ew.Mul,
    ElementWiseOperation.MAX: ew.Maximum,
    ElementWiseOperation.MIN: ew.Minimum,
    ElementWiseOperation.SUB: ew.Sub,
    ElementWiseOperation.DIV: ew.Div,
    ElementWiseOperation.POW: ew.Pow,
    ElementWiseOperation.AND: ew.And,
    ElementWiseOperation.OR: ew.Or,
    ElementWiseOperation.XOR: ew.Xor,
    ElementWiseOperation.EQUAL: ew.Equal,
    ElementWiseOperation.GREATER: ew.Greater,
    ElementWiseOperation.LESS: ew.Less,
}


class ActivationLayer(Layer):
    """An activation function. `alpha` and `beta` are its parameters; None means the customary value."""

    kind = "activation"
    type = Setting[ActivationType, ActivationType](member(ActivationType))
    alpha = Setting[float | None, float | None](optional_number)
    beta = Setting[float | None, float | None](optional_number)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if self.type in _PLAIN_ACTIVATIONS:
            return b.add(_PLAIN_ACTIVATIONS[self.type](), x)
        usual_alpha, usual_beta = _PARAMETERS[self.type]
        alpha = usual_alpha if self.alpha is None else self.alpha
        beta = usual_beta if self.beta is None else self.beta
        if self.type is ActivationType.SCALED_TANH:
            return _times(b, b.add(ew.Tanh(), _times(b, x, beta)), alpha)
        if self.type is ActivationType.SOFTPLUS:  # the op divides by beta, the layer multiplies by alpha
            return _times(b, b.add(act.Softplus(beta), x), alpha * beta)
        return b.add(_with_parameters(self.type, alpha, beta), x)


def _with_parameters(type: ActivationType, alpha: float, beta: float) -> Op:
    ops: dict[ActivationType, Callable[[], Op]] = {
        ActivationType.LEAKY_RELU: lambda: act.LeakyRelu(alpha),
        ActivationType.ELU: lambda: act.Elu(alpha),
        ActivationType.SELU: lambda: act.Selu(alpha, beta),
        ActivationType.CLIP: lambda: act.Clip(alpha, beta),
        ActivationType.HARD_SIGMOID: lambda: act.HardSigmoid(alpha, beta),
        ActivationType.THRESHOLDED_RELU: lambda: act.ThresholdedRelu(alpha),
    }
    return ops[type]()


def _times(b: NetworkBuilder, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else b.add(ew.Mul(), x, b.scalar(factor, x.type.dtype))


class ParametricReLULayer(Layer):
    """x where x >= 0, slopes * x below; the slopes (input 1) broadcast to x."""

    kind = "parametric_relu"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return b.add(act.PRelu(), present(inputs), present(inputs, 1))


class ElementWiseLayer(Layer):
    """A binary operation with NumPy broadcasting."""

    kind = "elementwise"
    op = Setting[ElementWiseOperation, ElementWiseOperation](member(ElementWiseOperation))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, y = present(inputs), present(inputs, 1)
        if self.op is not ElementWiseOperation.FLOOR_DIV:
            return b.add(_BINARY[self.op](), x, y)
        if x.type.dtype.is_float:
            return b.add(ew.Floor(), b.add(ew.Div(), x, y))
        whole = b.add(ew.Sub(), x, b.add(ew.Mod(), x, y))  # a multiple of y, which Div does not round
        return b.add(ew.Div(), whole, y)


class UnaryLayer(Layer):
    """An elementwise function."""

    kind = "unary"
    op = Setting[UnaryOperation, UnaryOperation](member(UnaryOperation))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if self.op is UnaryOperation.ISINF:
            return b.add(ew.Equal(), b.add(ew.Abs(), x), b.scalar(np.inf, x.type.dtype))
        return b.add(_UNARY[self.op](), x)


class ScaleLayer(Layer):
    """(x * scale + shift) ** power; what is absent is left out. The mode says how many elements the weights have."""

    kind = "scale"
    mode = Setting[ScaleMode, ScaleMode](member(ScaleMode))
    shift = Setting[Any, Any](weights)
    scale = Setting[Any, Any](weights)
    power = Setting[Any, Any](weights)
    channel_axis = Setting[int | None, int | None](optional_integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        shape = self._parameter_shape(x)
        y = x
        for what, op, array in (
            ("scale", ew.Mul(), self.scale),
            ("shift", ew.Add(), self.shift),
            ("power", ew.Pow(), self.power),
        ):
            if array is not None:
                y = b.add(op, y, b.constant(shaped(array, shape, what, x.type.dtype), f"{self.name}.{what}"))
        return y

    def _parameter_shape(self, x: Value) -> Ints:
        if self.mode is ScaleMode.UNIFORM:
            return ()
        axis = max(x.type.rank - 3, 0) if self.channel_axis is None else self.channel_axis
        if not 0 <= axis < x.type.rank:
            raise ValueError(f"channel_axis {axis} does not fit {x.type}")
        sizes = x.type.shape[axis:] if self.mode is ScaleMode.ELEMENTWISE else x.type.shape[axis : axis + 1]
        known = tuple(d for d in sizes if isinstance(d, int))
        if len(known) != len(sizes):
            raise ValueError(f"mode {self.mode.name} needs known sizes, not {x.type}")
        return (*known, *(1,) * (x.type.rank - axis - len(known)))


class SelectLayer(Layer):
    """then_input where condition is true, else else_input."""

    kind = "select"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return b.add(ew.Where(), present(inputs), present(inputs, 1), present(inputs, 2))


class IdentityLayer(Layer):
    """The input itself, under the name of the layer's output."""

    kind = "identity"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return present(inputs)


class CastLayer(Layer):
    """Conversion to another element type."""

    kind = "cast"
    to_type = Setting[DType, Any](lambda layer, value: as_dtype(value))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        return x if x.type.dtype is self.to_type else b.add(ew.Cast(self.to_type), x)


class ConstantLayer(Layer):
    """An array; `shape` reads its elements in another shape."""

    kind = "constant"
    most_inputs = 0
    weights = Setting[Any, Any](weights)
    shape = Setting[Ints, Sequence[int]](lambda layer, value: tuple(int(v) for v in value))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        array = np.zeros(0, np.float32) if self.weights is None else self.weights
        return b.constant(shaped(array, self.shape, "weights", DType.of(array.dtype)))
