# SPDX-License-Identifier: Apache-2.0
"""Caffe's recurrent layers (recurrent_layer.cpp): sequences [steps, streams, ...] with a mark `cont` [steps, streams],
which multiplies what a step reads of the step before: 0 where a sequence begins.

An engine keeps nothing from one run to the next: a first step always follows zeros, or the states that `expose_hidden`
makes bottoms. Where `cont` is known to be 1 from the second step on, the layer is one native op, else a loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.importers.caffe.layer import Layer, Result, layer_type
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ir.types import TensorType
from tensorwright.ops.activation import Sigmoid
from tensorwright.ops.control_flow import Scan
from tensorwright.ops.elementwise import Add, Mul, Tanh
from tensorwright.ops.linear import MatMul
from tensorwright.ops.recurrent import Lstm, Rnn
from tensorwright.ops.shape import Concat, Expand, Reshape, Slice, Transpose

Cell = Callable[[Builder, Value, Value, Sequence[Value]], tuple[Value, ...]]
"""From the projected input [streams, gates * hidden], the mark [streams, 1] and the states before to those after."""

_TO_ONNX_ORDER = [0, 2, 1, 3]  # Caffe's gates are input, forget, output, cell


@dataclass(frozen=True, slots=True)
class _Sequences:
    """What a recurrent layer reads: x[steps,streams,input], cont, x_static[streams,input] and the states
    [streams,hidden] before the first step."""

    x: Value
    cont: Value
    static: Value | None
    states: tuple[Value, ...]
    hidden: int
    exposed: bool

    @property
    def lead(self) -> tuple[Dim, Dim]:
        """Steps and streams."""
        steps, streams, _ = self.x.type.shape
        return steps, streams


@dataclass(frozen=True, slots=True)
class _Weights:
    """Of x, of x_static (if there is any) and of the hidden state: [gates * hidden, columns]; and the bias."""

    x: Array
    bias: Array
    static: Array | None
    hidden: Array


@layer_type("LSTM")
def lstm(b: Builder, layer: Layer) -> Result:
    """c' = cont * f * c + i * g, h' = o * tanh(c'), the gates of W_xc x + b_c + W_xc_static x_static + W_hc (cont * h).

    With `expose_hidden` the last hidden and cell states follow as tops.
    """
    s = _sequences(b, layer, 2)
    w = _weights(layer, s, 4)
    if _is_whole(b, s):
        order = [gate * s.hidden + i for gate in _TO_ONNX_ORDER for i in range(s.hidden)]
        x, w_x = _with_static(b, s, w)
        no_bias = np.zeros(len(order), np.float32)
        arrays = [w_x[order], w.hidden[order], np.concatenate([w.bias[order], no_bias])]
        return _packed_tops(b, s, b.add(Lstm(), x, *_constants(b, layer, arrays), None, *_first_states(b, s)))
    return _loop_tops(b, s, _scanned(b, layer, s, w, _lstm_cell(w.hidden, s.hidden)))


@layer_type("RNN")
def rnn(b: Builder, layer: Layer) -> Result:
    """h' = tanh(W_xh x + b_h + W_xh_static x_static + W_hh (cont * h)), o = tanh(W_ho h' + b_o).

    With `expose_hidden` the last hidden state follows as a top.
    """
    s = _sequences(b, layer, 1)
    w = _weights(layer, s, 1)
    if _is_whole(b, s):
        x, w_x = _with_static(b, s, w)
        arrays = [w_x, w.hidden, np.concatenate([w.bias, np.zeros(s.hidden, np.float32)])]
        h, *last = _packed_tops(b, s, b.add(Rnn(), x, *_constants(b, layer, arrays), None, *_first_states(b, s)))
    else:
        h, *last = _loop_tops(b, s, _scanned(b, layer, s, w, _rnn_cell(w.hidden)))
    first, p = 3 + (s.static is not None), layer.proto.recurrent_param
    w_out = layer.parameter(first, (s.hidden, s.hidden), "weight", p.weight_filler, s.hidden)
    bias = layer.parameter(first + 1, (s.hidden,), "bias", p.bias_filler)
    projected = b.add(MatMul(), h, b.add(Transpose((1, 0)), w_out))
    return [b.add(Tanh(), b.add(Add(), projected, bias)), *last]


@layer_type("LSTMUnit")
def lstm_unit(b: Builder, layer: Layer) -> Result:
    """One step of an LSTM: bottoms are the cell state [1,N,H], the gates' arguments [1,N,4H] and cont [1,N]."""
    layer.take(3, 3)
    c, gates, cont = layer.bottoms
    _, streams, hidden = c.type.shape if c.type.rank == 3 else (0, 0, 0)
    if gates.type.shape != (1, streams, hidden * 4) or cont.type.shape != (1, streams) or c.type.shape[0] != 1:
        raise ValueError(f"it takes a state [1,N,H], gates [1,N,4H] and marks [1,N], not {c.type}, {gates.type}, ...")
    (width,) = layer.known_dims((hidden,), "the gates stand side by side")
    mark = b.add(Reshape((1, streams, 1)), cont)
    h, cell = _lstm_step(b, gates, mark, c, width)
    return [cell, h]


LAYERS = [lstm, rnn, lstm_unit]


# -- what the layers read -----------------------------------------------------------------------------
def _sequences(b: Builder, layer: Layer, states: int) -> _Sequences:
    p = layer.proto.recurrent_param
    hidden, exposed = p.num_output, states if p.expose_hidden else 0
    if hidden < 1:
        raise ValueError("it has no num_output")
    layer.take(2 + exposed, 3 + exposed)
    if len(layer.tops) != 1 + exposed:
        raise ValueError(f"it makes {1 + exposed} tops, {len(layer.tops)} are named")
    x, cont = layer.bottom(0), layer.bottom(1)
    if x.type.rank < 3 or cont.type.shape != x.type.shape[:2]:
        raise ValueError(f"it takes x [steps,streams,...] and cont [steps,streams], not {x.type} and {cont.type}")
    x = b.add(Reshape((*x.type.shape[:2], _size(layer, x, 2))), x)
    streams, static = x.type.shape[1], None
    if len(layer.bottoms) > 2 + exposed:
        static = layer.bottom(2)
        if static.type.rank < 2 or static.type.shape[0] != streams:
            raise ValueError(f"its x_static is {static.type}, not [{streams},...] for the streams of {x.type}")
        static = b.add(Reshape((streams, _size(layer, static, 1))), static)
    given = layer.bottoms[len(layer.bottoms) - exposed :]
    if any(v.type.shape != (1, streams, hidden) for v in given):
        raise ValueError(f"its states are {', '.join(str(v.type) for v in given)}, not [1,{streams},{hidden}]")
    initial = [b.add(Reshape((streams, hidden)), v) for v in given]
    initial = initial or [b.add(Expand((streams, hidden)), b.scalar(0.0, DType.f32))] * states
    return _Sequences(x, cont, static, tuple(initial), hidden, bool(exposed))


def _size(layer: Layer, x: Value, axis: int) -> int:
    return math.prod(layer.known_dims(x.type.shape[axis:], "the weights have a column for each of its elements"))


def _weights(layer: Layer, s: _Sequences, gates: int) -> _Weights:
    """The first blobs, in the order in which Caffe's unrolled network has them."""
    p, rows, size = layer.proto.recurrent_param, gates * s.hidden, s.x.type.shape[2]
    assert isinstance(size, int)
    own: Any = None if s.static is None else s.static.type.shape[1]
    fan_in = size + s.hidden + (own or 0)
    return _Weights(
        layer.array(0, (rows, size), "weight", p.weight_filler, fan_in),
        layer.array(1, (rows,), "bias", p.bias_filler),
        None if own is None else layer.array(2, (rows, own), "weight", p.weight_filler, fan_in),
        layer.array(2 if own is None else 3, (rows, s.hidden), "weight", p.weight_filler, fan_in),
    )


# -- whole sequences: one op --------------------------------------------------------------------------
def _is_whole(b: Builder, s: _Sequences) -> bool:
    """Whether no sequence begins after the first step."""
    cont = b.known(s.cont)
    return cont is not None and bool((cont[1:] == 1).all())


def _with_static(b: Builder, s: _Sequences, w: _Weights) -> tuple[Value, Array]:
    """x with the static input beside it in every step, and the weights of both."""
    if s.static is None or w.static is None:
        return s.x, w.x
    steps, streams = s.lead
    size = s.static.type.shape[1]
    each = b.add(Expand((steps, streams, size)), b.add(Reshape((1, streams, size)), s.static))
    return b.add(Concat(2), s.x, each), np.concatenate([w.x, w.static], 1)


def _first_states(b: Builder, s: _Sequences) -> list[Value | None]:
    """[1,streams,hidden] each; None for zeros."""
    cont = b.known(s.cont)
    if not s.exposed or cont is None:
        return [None] * len(s.states)
    mark = b.constant(np.asarray(cont[0], np.float32).reshape(-1, 1))
    return [b.add(Reshape((1, *v.type.shape)), b.add(Mul(), v, mark)) for v in s.states]


def _constants(b: Builder, layer: Layer, arrays: Sequence[Array]) -> list[Value]:
    """For the only direction of the op."""
    return [b.constant(array[None], f"{layer.name}/{name}") for array, name in zip(arrays, "wrb", strict=True)]


def _packed_tops(b: Builder, s: _Sequences, ys: Value) -> list[Value]:
    """The hidden states of all steps [steps,streams,hidden], then the last states [1,streams,hidden] if exposed: from
    the op's [steps + states,1,streams,hidden]."""
    steps, streams = s.lead
    rows = [b.add(Slice((0,), (steps,), (0,), (1,)), ys)]
    if s.exposed:
        rows += [b.add(Slice((steps + i,), (steps + i + 1,), (0,), (1,)), ys) for i in range(len(s.states))]
    return [b.add(Reshape((row.type.shape[0], streams, s.hidden)), row) for row in rows]


# -- marked sequences: a loop -------------------------------------------------------------------------
def _scanned(b: Builder, layer: Layer, s: _Sequences, w: _Weights, cell: Cell) -> tuple[Value, ...]:
    """The last states [streams,hidden], then the hidden states of all steps."""
    projected = _projected(b, s.x, w.x, b.constant(w.bias, f"{layer.name}/bias"))
    if s.static is not None and w.static is not None:
        projected = b.add(Add(), projected, _projected(b, s.static, w.static, None))
    streams, name = s.lead[1], f"{layer.name}/step"
    body = Builder(name, around=b)
    body.source = layer.name
    states = [body.input(f"{name}/state_{i}", v.type) for i, v in enumerate(s.states)]
    z = body.input(f"{name}/x", TensorType(DType.f32, projected.type.shape[1:]))
    cont = body.input(f"{name}/cont", TensorType(DType.f32, (streams,)))
    after = cell(body, z, body.add(Reshape((streams, 1)), cont), states)
    results = [(f"{name}/output_{i}", v) for i, v in enumerate((*after, after[0]))]
    graph = body.finish(results, [*states, z, cont])
    op = Scan(graph, len(states), (0, 0), (False, False), (0,), (False,))
    return b.add_all(op, *s.states, projected, s.cont)


def _loop_tops(b: Builder, s: _Sequences, ys: Sequence[Value]) -> list[Value]:
    """As `_packed_tops`, from what `_scanned` gives."""
    *last, h = ys
    return [h, *(b.add(Reshape((1, s.lead[1], s.hidden)), v) for v in last if s.exposed)]


def _projected(b: Builder, x: Value, weights: Array, bias: Value | None) -> Value:
    y = b.add(MatMul(), x, b.add(Transpose((1, 0)), b.constant(weights)))
    return y if bias is None else b.add(Add(), y, bias)


def _recurred(b: Builder, h: Value, mark: Value, z: Value, weights: Array) -> Value:
    """z plus what the state before adds. The constant has a name of the body: a plan keeps all of them by name."""
    w = b.constant(np.ascontiguousarray(weights.T), f"{b.name}/w")
    return b.add(Add(), z, b.add(MatMul(), b.add(Mul(), h, mark), w))


def _lstm_cell(recurrent: Array, hidden: int) -> Cell:
    def cell(b: Builder, z: Value, mark: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        h, c = states
        return _lstm_step(b, _recurred(b, h, mark, z, recurrent), mark, c, hidden)

    return cell


def _lstm_step(b: Builder, gates: Value, mark: Value, c: Value, hidden: int) -> tuple[Value, Value]:
    """The hidden and the cell state after a step; the gates stand side by side in the last axis."""
    axis = gates.type.rank - 1
    i, f, o, g = (b.add(Slice((n * hidden,), ((n + 1) * hidden,), (axis,), (1,)), gates) for n in range(4))
    i, f, o, g = (b.add(function, v) for function, v in zip((*[Sigmoid()] * 3, Tanh()), (i, f, o, g), strict=True))
    kept = b.add(Mul(), b.add(Mul(), mark, f), c)
    new = b.add(Add(), kept, b.add(Mul(), i, g))
    return b.add(Mul(), o, b.add(Tanh(), new)), new


def _rnn_cell(recurrent: Array) -> Cell:
    def cell(b: Builder, z: Value, mark: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        (h,) = states
        return (b.add(Tanh(), _recurred(b, h, mark, z, recurrent)),)

    return cell
