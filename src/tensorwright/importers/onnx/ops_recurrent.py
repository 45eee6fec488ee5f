# SPDX-License-Identifier: Apache-2.0
"""ONNX recurrent layers. Each becomes one op with packed results; its ONNX outputs are views of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ir.op import Op
from tensorwright.network.composed.recurrent import layer_results
from tensorwright.ops.activation import Elu, HardSigmoid, LeakyRelu, Relu, Sigmoid, Softplus, Softsign, ThresholdedRelu
from tensorwright.ops.elementwise import Add, Mul, Tanh
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.ops.recurrent import C0, H0, Direction, Gru, Lstm, R, Recurrent, Rnn, W, X
from tensorwright.ops.shape import Transpose


def _scaled(inner: Op | None, before: float, after: float, offset: float) -> Op:
    """after * inner(before * x) + offset as a region."""
    body = [Instr(Literal(before), ()), Instr(Mul(), (0, 1))]
    if inner is not None:
        body.append(Instr(inner, (2,)))
    result = len(body)
    body += [Instr(Literal(after), ()), Instr(Mul(), (result, result + 1))]
    body += [Instr(Literal(offset), ()), Instr(Add(), (result + 2, result + 3))]
    return Fused(None, 0, tuple(body))


# ONNX name (in lower case) -> default parameters (alpha, then beta; None: must be given) and the function they make
_ACTIVATIONS: dict[str, tuple[tuple[float | None, ...], Callable[..., Op]]] = {
    "relu": ((), Relu),
    "tanh": ((), Tanh),
    "sigmoid": ((), Sigmoid),
    "softsign": ((), Softsign),
    "softplus": ((), Softplus),
    "leakyrelu": ((0.01,), LeakyRelu),
    "thresholdedrelu": ((1.0,), ThresholdedRelu),
    "elu": ((1.0,), Elu),
    "hardsigmoid": ((0.2, 0.5), HardSigmoid),
    "affine": ((1.0, 0.0), lambda alpha, beta: _scaled(None, alpha, 1.0, beta)),
    "scaledtanh": ((None, None), lambda alpha, beta: _scaled(Tanh(), beta, alpha, 0.0)),
}


def _activations(n: OnnxNode, directions: int, usual: int) -> tuple[Op, ...]:
    """The listed functions; those that take alpha or beta consume the lists of values in order."""
    names = n.strings("activations")
    values = [list(n.floats(f"activation_{which}") or ()) for which in ("alpha", "beta")]
    if names is None:
        return ()
    if len(names) != usual * directions:
        raise ValueError(f"it lists {len(names)} activations, expected {usual * directions}")
    made: list[Op] = []
    for name in names:
        if name.lower() not in _ACTIVATIONS:
            raise ValueError(f"there is no activation {name!r}")
        defaults, make = _ACTIVATIONS[name.lower()]
        given = [values[i].pop(0) if values[i] else default for i, default in enumerate(defaults)]
        if None in given:
            raise ValueError(f"activation {name} has no default parameters, and none are given")
        made.append(make(*given))
    return tuple(made)


def _direction(n: OnnxNode) -> Direction:
    found = n.attr("direction", str, "forward")
    if found == "reverse":
        return "reverse"
    if found not in ("forward", "bidirectional"):
        raise ValueError(f"there is no direction {found!r}")
    return "bidirectional" if found == "bidirectional" else "forward"


def _clip(n: OnnxNode) -> float | None:
    return n.attr("clip", float) if n.has("clip") else None


def _common(n: OnnxNode, usual: Sequence[Op]) -> tuple[Direction, tuple[Op, ...], float | None]:
    direction = _direction(n)
    return direction, _activations(n, 2 if direction == "bidirectional" else 1, len(usual)), _clip(n)


@onnx_op("LSTM")
def lstm(b: Builder, n: OnnxNode) -> Result:
    """Long short-term memory."""
    return _layer(b, n, Lstm(*_common(n, Lstm.usual), n.flag("input_forget")))


@onnx_op("GRU")
def gru(b: Builder, n: OnnxNode) -> Result:
    """Gated recurrent unit."""
    return _layer(b, n, Gru(*_common(n, Gru.usual), n.flag("linear_before_reset")))


@onnx_op("RNN")
def rnn(b: Builder, n: OnnxNode) -> Result:
    """Elman network."""
    return _layer(b, n, Rnn(*_common(n, Rnn.usual)))


def _layer(b: Builder, n: OnnxNode, layer: Recurrent) -> Result:
    """The op between transposes for layout 1 (batch first), and slices of its packed results."""
    batch_first = n.flag("layout")
    inputs = [n.input(X), n.input(W), n.input(R), *n.inputs[R + 1 :]]
    recurrent = n.input(R).type
    if n.has("hidden_size") and recurrent.shape[-1:] != (n.attr("hidden_size", int),):
        raise ValueError(f"its hidden_size is {n.attr('hidden_size', int)}, but R is {recurrent}")
    if batch_first:
        for i in (X, H0, C0):
            value = inputs[i] if i < len(inputs) else None
            if value is not None:
                inputs[i] = b.add(Transpose((1, 0, 2)), value)
    y, states = layer_results(b, layer, inputs)
    if batch_first:
        return [b.add(Transpose((2, 0, 1, 3)), y), *(b.add(Transpose((1, 0, 2)), state) for state in states)]
    return [y, *states]


OPS = [lstm, gru, rnn]
