# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: a whole sequence as one op, as ONNX defines LSTM, GRU and RNN.

All results of a layer come packed in one tensor [steps + states, directions, batch, hidden]: a row for the hidden state
after each step (zero past a sequence's length), then the final hidden state, then for LSTM the final cell state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array, Compare, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.activation import Sigmoid
from tensorwright.ops.check import float_dtype, optional, required, same_dim
from tensorwright.ops.elementwise import Tanh

Direction = Literal["forward", "reverse", "bidirectional"]
RECURRED = Compare(rtol=5e-5, atol=5e-5, scaled=True)  # sums whose roundings pass through all later steps

X, W, R, BIAS, LENGTHS, H0, C0, PEEPHOLES = range(8)
"""Positions of the inputs; see `Recurrent`."""


class Recurrent(Op):
    """What the recurrent layers share.

    Inputs, the later ones optional: x[steps,batch,input], w[directions,gates*hidden,input],
    r[directions,gates*hidden,hidden], bias[directions,2*gates*hidden] (of w, then of r), lengths i32[batch] of the
    sequences (cut to 0..steps), initial hidden state[directions,batch,hidden]; for LSTM also the initial cell state
    and peepholes[directions,3*hidden].
    `activations` lists the functions of each direction, none for the usual ones: ops of one input, or regions of such.
    `clip` bounds their arguments to -clip..clip. A reverse direction reads each sequence from its end.
    """

    gates: ClassVar[int]
    states: ClassVar[int] = 1
    usual: ClassVar[tuple[Op, ...]]
    direction: Direction
    activations: tuple[Op, ...]
    clip: float | None

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1

    def is_reverse(self, direction: int) -> bool:
        """Whether direction 0 or 1 runs from the end of a sequence."""
        return self.direction == "reverse" or direction == 1

    def functions(self, direction: int) -> tuple[Op, ...]:
        """The activation functions of one direction."""
        count = len(self.usual)
        return self.activations[direction * count : (direction + 1) * count] or self.usual

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        x, w, r = required(self, inputs, 3, 3 if self.states == 1 else 5)
        lengths = optional(inputs, LENGTHS)
        dtype = float_dtype(self, [t for i, t in enumerate(inputs) if i != LENGTHS])
        if self.activations and len(self.activations) != len(self.usual) * self.directions:
            raise ValueError(f"{self.kind} needs {len(self.usual)} activations for each direction")
        if x.rank != 3 or r.rank != 3:
            raise ValueError(f"{self.kind} needs x and r of rank 3, not {x} and {r}")
        (steps, batch, size), hidden = x.shape, r.shape[2]
        d, rows = self.directions, hidden * self.gates
        state = (d, batch, hidden)
        expected: list[tuple[str, TensorType | None, tuple[Dim, ...]]] = [
            ("w", w, (d, rows, size)),
            ("r", r, (d, rows, hidden)),
            ("the bias", optional(inputs, BIAS), (d, 2 * rows)),
            ("the lengths", lengths, (batch,)),
            ("the initial hidden state", optional(inputs, H0), state),
            ("the initial cell state", optional(inputs, C0), state),
            ("the peepholes", optional(inputs, PEEPHOLES), (d, hidden * 3)),
        ]
        for name, given, shape in expected:
            if given is not None and not _fits(given.shape, shape):
                raise ValueError(f"{self.kind} of {x} needs {name} [{','.join(map(str, shape))}], not {given}")
        if lengths is not None and lengths.dtype is not DType.i32:
            raise ValueError(f"{self.kind} needs lengths of i32, not {lengths}")
        return (TensorType(dtype, (steps + self.states, *state)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        x, w, r = required(self, inputs, 3, 5)
        wide = [None if a is None else a.astype(np.float64) for a in inputs]
        bias, given = optional(wide, BIAS), optional(inputs, LENGTHS)
        (steps, batch, _), hidden = x.shape, r.shape[2]
        lengths = np.full(batch, steps) if given is None else np.clip(given.astype(np.int64), 0, steps)
        out = np.zeros((steps + self.states, self.directions, batch, hidden))
        for d in range(self.directions):
            weights = _Weights(
                self,
                d,
                r[d].astype(np.float64),
                np.zeros(2 * len(r[d])) if bias is None else bias[d],
                optional(wide, PEEPHOLES),
            )
            states = [
                np.zeros((batch, hidden)) if a is None else a[d] for a in (optional(wide, H0), optional(wide, C0))
            ]
            for t in range(steps):
                active = t < lengths
                at = np.where(active & self.is_reverse(d), lengths - 1 - t, t)
                with np.errstate(all="ignore"):
                    z = x[at, np.arange(batch)].astype(np.float64) @ w[d].T.astype(np.float64)
                    new = self._cell(weights, z + weights.input_bias, *states)
                states = [np.where(active[:, None], n, s) for n, s in zip(new, states, strict=True)]
                out[at, d, np.arange(batch)] = np.where(active[:, None], states[0], 0)
            for i in range(self.states):
                out[steps + i, d] = states[i]
        return (out.astype(x.dtype),)

    def _cell(self, k: _Weights, z: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """The states after a step, from the projected inputs and the states before it (c is only LSTM's)."""
        raise NotImplementedError


class _Weights:
    """One direction's recurrent parameters in f64, and its activations with the clipping in front."""

    def __init__(self, layer: Recurrent, direction: int, r: Array, bias: Array, peepholes: Array | None) -> None:
        hidden = r.shape[1]
        self.r = r.reshape(-1, hidden, hidden)
        self.input_bias, self.bias = np.split(bias, 2)
        self.gate_bias = self.bias.reshape(-1, hidden)
        self.peepholes = np.zeros((3, hidden)) if peepholes is None else peepholes[direction].reshape(3, hidden)
        self.layer, self.functions = layer, layer.functions(direction)

    def activate(self, index: int, value: Array) -> Array:
        clip = self.layer.clip
        bounded = value if clip is None else np.clip(value, -clip, clip)
        (result,) = self.functions[index].reference(bounded)
        return result


@op("lstm", compare=RECURRED)
class Lstm(Recurrent):
    """Long short-term memory; gates in the order input, output, forget, cell; functions f, g (cell) and h (hidden).

    i = f(zi + pi*c), o = f(zo + po*c'), forget = f(zf + pf*c) or 1 - i with `input_forget`;
    c' = forget*c + i*g(zc); h' = o*h(c').
    """

    direction: Direction = "forward"
    activations: tuple[Op, ...] = ()
    clip: float | None = None
    input_forget: bool = False
    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2
    usual: ClassVar[tuple[Op, ...]] = (Sigmoid(), Tanh(), Tanh())

    def _cell(self, k: _Weights, z: Array, h: Array, c: Array) -> tuple[Array, Array]:
        zi, zo, zf, zc = np.split(z + h @ k.r.reshape(-1, h.shape[1]).T + k.bias, 4, axis=1)
        i = k.activate(0, zi + k.peepholes[0] * c)
        forget = 1 - i if self.input_forget else k.activate(0, zf + k.peepholes[2] * c)
        new = forget * c + i * k.activate(1, zc)
        return k.activate(0, zo + k.peepholes[1] * new) * k.functions[2].reference(new)[0], new


@op("gru", compare=RECURRED)
class Gru(Recurrent):
    """Gated recurrent unit; gates in the order update, reset, hidden; functions f (gates) and g (hidden).

    u = f(zu), s = f(zs), n = g(xW + s*(hR + b)) with `linear_before_reset`, else g(xW + (s*h)R + b);
    h' = (1 - u)*n + u*h.
    """

    direction: Direction = "forward"
    activations: tuple[Op, ...] = ()
    clip: float | None = None
    linear_before_reset: bool = False
    gates: ClassVar[int] = 3
    usual: ClassVar[tuple[Op, ...]] = (Sigmoid(), Tanh())

    def _cell(self, k: _Weights, z: Array, h: Array, c: Array) -> tuple[Array, Array]:
        zu, zs, zn = np.split(z, 3, axis=1)
        update = k.activate(0, zu + h @ k.r[0].T + k.gate_bias[0])
        reset = k.activate(0, zs + h @ k.r[1].T + k.gate_bias[1])
        if self.linear_before_reset:
            new = k.activate(1, zn + reset * (h @ k.r[2].T + k.gate_bias[2]))
        else:
            new = k.activate(1, zn + (reset * h) @ k.r[2].T + k.gate_bias[2])
        return (1 - update) * new + update * h, c


@op("rnn", compare=RECURRED)
class Rnn(Recurrent):
    """Elman network: h' = f(xW + hR + b)."""

    direction: Direction = "forward"
    activations: tuple[Op, ...] = ()
    clip: float | None = None
    gates: ClassVar[int] = 1
    usual: ClassVar[tuple[Op, ...]] = (Tanh(),)

    def _cell(self, k: _Weights, z: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return k.activate(0, z + h @ k.r[0].T + k.bias), c


def _fits(given: Sequence[Dim], wanted: Sequence[Dim]) -> bool:
    return len(given) == len(wanted) and all(same_dim(a, b) for a, b in zip(given, wanted, strict=True))
