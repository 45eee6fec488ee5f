# SPDX-License-Identifier: Apache-2.0
"""Darknet's activation functions, those of the original and of AlexeyAB's fork."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorwright.network import ActivationType, ElementWiseOperation, Network, ScaleMode, Tensor, UnaryOperation

Function = Callable[[Network, Tensor], Tensor]


def activated(network: Network, x: Tensor, name: str) -> Tensor:
    """The function of this name, one of `ACTIVATIONS`, of x."""
    return ACTIVATIONS[name](network, x)


def _plain(type: ActivationType, alpha: float | None = None, beta: float | None = None) -> Function:
    def apply(network: Network, x: Tensor) -> Tensor:
        layer = network.add_activation(x, type)
        layer.alpha, layer.beta = alpha, beta
        return layer.get_output(0)

    return apply


def scaled(network: Network, x: Tensor, scale: float, shift: float = 0.0) -> Tensor:
    """x * scale + shift; x itself where that is the same."""
    if (scale, shift) == (1, 0):
        return x
    return network.add_scale(x, ScaleMode.UNIFORM, [shift], [scale]).get_output(0)


def product(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """x * y, elementwise."""
    return network.add_elementwise(x, y, ElementWiseOperation.PROD).get_output(0)


def sum_of(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """x + y, elementwise."""
    return network.add_elementwise(x, y, ElementWiseOperation.SUM).get_output(0)


def _floor(network: Network, x: Tensor) -> Tensor:
    return network.add_unary(x, UnaryOperation.FLOOR).get_output(0)


def _clipped(network: Network, x: Tensor, low: float, high: float) -> Tensor:
    return _plain(ActivationType.CLIP, low, high)(network, x)


def _mish(network: Network, x: Tensor) -> Tensor:
    """x * tanh(log(1 + exp(x)))"""
    softplus = _plain(ActivationType.SOFTPLUS)(network, x)
    return product(network, x, _plain(ActivationType.TANH)(network, softplus))


def _hard_mish(network: Network, x: Tensor) -> Tensor:
    """x above 0, x * x / 2 + x down to -2, then 0"""
    t = _clipped(network, x, -2.0, 0.0)
    curve = product(network, t, scaled(network, t, 0.5, 1.0))
    return sum_of(network, _plain(ActivationType.RELU)(network, x), curve)


def _swish(network: Network, x: Tensor) -> Tensor:
    return product(network, x, _plain(ActivationType.SIGMOID)(network, x))


def _loggy(network: Network, x: Tensor) -> Tensor:
    """2 / (1 + exp(-x)) - 1"""
    return scaled(network, _plain(ActivationType.SIGMOID)(network, x), 2.0, -1.0)


def _ramp(network: Network, x: Tensor) -> Tensor:
    """1.1 * x above 0, 0.1 * x below"""
    return sum_of(network, _plain(ActivationType.RELU)(network, x), scaled(network, x, 0.1))


def _bent(slope: float, low: float, high: float, steep: float, shift: float) -> Function:
    """slope * x + steep * clip(x, low, high) + shift"""

    def apply(network: Network, x: Tensor) -> Tensor:
        middle = scaled(network, _clipped(network, x, low, high), steep, shift)
        return sum_of(network, scaled(network, x, slope), middle)

    return apply


def _stair(network: Network, x: Tensor) -> Tensor:
    """floor(x / 2), plus x - floor(x) where floor(x) is odd"""
    whole, half = _floor(network, x), _floor(network, scaled(network, x, 0.5))
    odd = sum_of(network, whole, scaled(network, half, -2.0))
    return sum_of(network, half, product(network, odd, sum_of(network, x, scaled(network, whole, -1.0))))


ACTIVATIONS: Mapping[str, Function] = {
    "linear": lambda network, x: x,
    "relu": _plain(ActivationType.RELU),
    "leaky": _plain(ActivationType.LEAKY_RELU, 0.1),
    "relie": _plain(ActivationType.LEAKY_RELU, 0.01),
    "relu6": _plain(ActivationType.CLIP, 0.0, 6.0),
    "hardtan": _plain(ActivationType.CLIP, -1.0, 1.0),
    "logistic": _plain(ActivationType.SIGMOID),
    "tanh": _plain(ActivationType.TANH),
    "elu": _plain(ActivationType.ELU, 1.0),
    "selu": _plain(ActivationType.SELU, 1.6732, 1.0507),
    "gelu": _plain(ActivationType.GELU_TANH),
    "loggy": _loggy,
    "mish": _mish,
    "hard_mish": _hard_mish,
    "swish": _swish,
    "ramp": _ramp,
    "plse": _bent(0.01, -4.0, 4.0, 0.115, 0.5),
    "lhtan": _bent(0.001, 0.0, 1.0, 0.999, 0.0),
    "stair": _stair,
}
