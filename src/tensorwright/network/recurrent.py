# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers, several on top of each other, with a matrix for each gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.composed.recurrent import layer_results
from tensorwright.network.enums import RNNDirection, RNNGateType, RNNInputMode, RNNOperation
from tensorwright.network.layer import Layer, Setting, integer, member, present, shaped, weights
from tensorwright.ops.activation import Relu
from tensorwright.ops.recurrent import Direction, Gru, Lstm, Recurrent, Rnn
from tensorwright.ops.shape import Concat, Reshape, Slice, Transpose

_GATES: dict[RNNOperation, tuple[RNNGateType, ...]] = {  # in the order of the ops
    RNNOperation.RELU: (RNNGateType.INPUT,),
    RNNOperation.TANH: (RNNGateType.INPUT,),
    RNNOperation.LSTM: (RNNGateType.INPUT, RNNGateType.OUTPUT, RNNGateType.FORGET, RNNGateType.CELL),
    RNNOperation.GRU: (RNNGateType.UPDATE, RNNGateType.RESET, RNNGateType.HIDDEN),
}
_LENGTHS, _HIDDEN, _CELL = 1, 2, 3  # inputs
_Key = tuple[int, RNNGateType, bool]


class RNNv2Layer(Layer):
    """Recurrent layers on x[batch, steps, size]: each reads what the one below gives.

    Outputs: the hidden states of the uppermost layer [batch, steps, hidden], with BIDIRECTION those of both directions
    side by side; the final hidden states [batch, layers, hidden], with BIDIRECTION two of each layer, the forward one
    first; and for LSTM the final cell states. `seq_lengths` i32[batch], `hidden_state` and `cell_state` (as the final
    ones) are optional tensors. Weights of gates are hidden x size for the input, hidden x hidden for the recurrence;
    layer 2 * i is the forward and 2 * i + 1 the backward one of BIDIRECTION. A bias that is not set is 0. The reset
    gate of GRU multiplies the recurrent product, with its bias.
    """

    kind = "rnn"
    most_inputs = 4
    op = Setting[RNNOperation, RNNOperation](member(RNNOperation))
    direction = Setting[RNNDirection, RNNDirection](member(RNNDirection))
    input_mode = Setting[RNNInputMode, RNNInputMode](member(RNNInputMode))
    num_layers = Setting[int, int](integer)
    hidden_size = Setting[int, int](integer)
    max_seq_length = Setting[int, int](integer)

    @property
    def num_outputs(self) -> int:  # type: ignore[override]  # it follows from a setting
        """3 for LSTM, 2 for the others."""
        return 3 if self.settings.get("op") is RNNOperation.LSTM else 2

    seq_lengths = property(lambda self: self.get_input(_LENGTHS), lambda self, t: self.set_input(_LENGTHS, t))
    hidden_state = property(lambda self: self.get_input(_HIDDEN), lambda self, t: self.set_input(_HIDDEN, t))
    cell_state = property(lambda self: self.get_input(_CELL), lambda self, t: self.set_input(_CELL, t))

    def set_weights_for_gate(self, layer_index: int, gate: RNNGateType, is_w: bool, weights: Any) -> None:
        """The matrix of a gate: of the input when `is_w`, else of the recurrence. Raises ModelError."""
        self._set("weights", layer_index, gate, is_w, weights)

    def get_weights_for_gate(self, layer_index: int, gate: RNNGateType, is_w: bool) -> Array | None:
        """What `set_weights_for_gate` set; None before."""
        return self._store("weights").get((layer_index, gate, bool(is_w)))

    def set_bias_for_gate(self, layer_index: int, gate: RNNGateType, is_w: bool, bias: Any) -> None:
        """The bias of a gate, of the input's product when `is_w`, else of the recurrent one. Raises ModelError."""
        self._set("bias", layer_index, gate, is_w, bias)

    def get_bias_for_gate(self, layer_index: int, gate: RNNGateType, is_w: bool) -> Array | None:
        """What `set_bias_for_gate` set; None before."""
        return self._store("bias").get((layer_index, gate, bool(is_w)))

    def _store(self, what: str) -> dict[_Key, Array]:
        store: dict[_Key, Array] = self.settings.setdefault(what, {})
        return store

    def _set(self, what: str, index: int, gate: RNNGateType, is_w: bool, value: Any) -> None:
        if gate not in _GATES[self.op] or not 0 <= index < self.num_layers * self._directions:
            raise self.error(f"there is no gate {gate} in layer {index} of {self.op.name}")
        try:
            array = weights(self, value)
        except (ValueError, TypeError) as error:
            raise self.error(f"the {what} of {gate.name} in layer {index}: {error}") from error
        if array is None:
            raise self.error(f"the {what} of {gate.name} in layer {index} are empty")
        self._store(what)[index, gate, bool(is_w)] = array
        self.network.changed(self)

    @property
    def _directions(self) -> int:
        return 2 if self.direction is RNNDirection.BIDIRECTION else 1

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Sequence[Value]:
        x, lengths, *initial = (*inputs, None, None, None)[:4]
        if x is None or x.type.rank != 3:
            raise ValueError(f"it needs an input [batch, steps, size], not {x and x.type}")
        steps = x.type.shape[1]
        if isinstance(steps, int) and steps > self.max_seq_length:
            raise ValueError(f"{steps} steps are more than max_seq_length {self.max_seq_length}")
        if self.op is not RNNOperation.LSTM and initial[1] is not None:
            raise ValueError("only LSTM has a cell state")
        x = b.add(Transpose((1, 0, 2)), present(inputs))
        first = [None if v is None else b.add(Transpose((1, 0, 2)), v) for v in initial[: 1 + self._has_cell]]
        finals: list[list[Value]] = [[] for _ in first]
        for index in range(self.num_layers):
            states = [None if v is None else self._rows(b, v, index) for v in first]
            parameters = self._parameters(b, x, index)
            y, last = layer_results(b, self._layer(), [x, *parameters, lengths, *states])
            shape = (*x.type.shape[:2], self._directions * self.hidden_size)
            x = b.add(Reshape(shape), b.add(Transpose((0, 2, 1, 3)), y))
            for found, state in zip(finals, last, strict=True):
                found.append(state)
        joined = (parts[0] if len(parts) == 1 else b.add(Concat(0), *parts) for parts in finals)
        return [b.add(Transpose((1, 0, 2)), v) for v in (x, *joined)]

    @property
    def _has_cell(self) -> bool:
        return self.op is RNNOperation.LSTM

    def _layer(self) -> Recurrent:
        direction: Direction = "bidirectional" if self._directions == 2 else "forward"
        if self.op is RNNOperation.LSTM:
            return Lstm(direction)
        if self.op is RNNOperation.GRU:
            return Gru(direction, linear_before_reset=True)
        return Rnn(direction, (Relu(),) * self._directions if self.op is RNNOperation.RELU else ())

    def _rows(self, b: NetworkBuilder, states: Value, index: int) -> Value:
        count = self._directions
        if states.type.rank != 3 or states.type.shape[0] != self.num_layers * count:
            raise ValueError(f"initial states must be [batch, {self.num_layers * count}, {self.hidden_size}]")
        return b.add(Slice((count * index,), (count * (index + 1),), (0,), (1,)), states)

    def _parameters(self, b: NetworkBuilder, x: Value, index: int) -> list[Value]:
        """w, r and bias of one layer."""
        size = x.type.shape[2]
        if not isinstance(size, int):
            raise ValueError(f"the size of {x.type} is not known")
        kinds = [self._count(index, d) for d in range(self._directions)]
        w = [self._matrix(i, True, size, x) for i in kinds]
        r = [self._matrix(i, False, self.hidden_size, x) for i in kinds]
        bias = [np.concatenate([self._bias(i, is_w, x) for is_w in (True, False)]) for i in kinds]
        named = zip(("w", "r", "bias"), (w, r, bias), strict=True)
        return [b.constant(np.stack(array), f"{self.name}.{what}{index}") for what, array in named]

    def _count(self, index: int, direction: int) -> int:
        return index * self._directions + direction

    def _matrix(self, index: int, is_w: bool, size: int, x: Value) -> Array:
        hidden, dtype = self.hidden_size, x.type.dtype
        if is_w and index < self._directions and self.input_mode is RNNInputMode.SKIP:
            if size != hidden:
                raise ValueError(f"input mode SKIP needs an input of {hidden} elements, not {size}")
            return np.concatenate([np.eye(hidden, dtype=dtype.numpy)] * len(_GATES[self.op]))
        parts = []
        for gate in _GATES[self.op]:
            array = self.get_weights_for_gate(index, gate, is_w)
            what = f"the {'input' if is_w else 'recurrent'} weights of {gate.name} in layer {index}"
            if array is None:
                raise ValueError(f"{what} are not set")
            parts.append(shaped(array, (hidden, size), what, dtype))
        return np.concatenate(parts)

    def _bias(self, index: int, is_w: bool, x: Value) -> Array:
        parts = []
        for gate in _GATES[self.op]:
            array = self.get_bias_for_gate(index, gate, is_w)
            given = np.zeros(self.hidden_size, x.type.dtype.numpy) if array is None else array
            parts.append(shaped(given, (self.hidden_size,), f"the bias of {gate.name}", x.type.dtype))
        return np.concatenate(parts)
