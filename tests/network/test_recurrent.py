# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers against a step by step computation in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.network import RNNDirection, RNNGateType, RNNInputMode, RNNOperation, Tensor
from tests.network.single import RNG, Array, compiled, network_of, random, with_properties

BATCH, STEPS, HIDDEN = 3, 5, 4
GATES = {
    RNNOperation.RELU: "INPUT",
    RNNOperation.TANH: "INPUT",
    RNNOperation.LSTM: "INPUT OUTPUT FORGET CELL",
    RNNOperation.GRU: "UPDATE RESET HIDDEN",
}
Weights = dict[tuple[int, RNNGateType, bool], tuple[Array, Array]]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def step(op: RNNOperation, w: Weights, index: int, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    def parts(name: str) -> tuple[Array, Array]:
        (a, p), (r, q) = (w[index, RNNGateType[name], is_w] for is_w in (True, False))
        return x @ a.T + p, h @ r.T + q

    if op is RNNOperation.LSTM:
        i, o, f = (sigmoid(sum(parts(name))) for name in ("INPUT", "OUTPUT", "FORGET"))
        c = f * c + i * np.tanh(sum(parts("CELL")))
        return o * np.tanh(c), c
    if op is RNNOperation.GRU:
        z, r = (sigmoid(sum(parts(name))) for name in ("UPDATE", "RESET"))
        given, kept = parts("HIDDEN")
        return (1 - z) * np.tanh(given + r * kept) + z * h, c
    total = sum(parts("INPUT"))
    return (np.tanh(total) if op is RNNOperation.TANH else np.maximum(total, 0)), c


def expected(
    op: RNNOperation, w: Weights, layers: int, ways: int, x: Array, lengths: Array, h0: Array, c0: Array
) -> list[Array]:
    h_all, c_all = h0.copy(), c0.copy()
    for layer in range(layers):
        y = np.zeros((BATCH, STEPS, ways * HIDDEN), np.float32)
        for way in range(ways):
            index = layer * ways + way
            for batch in range(BATCH):
                h, c = h0[batch, index], c0[batch, index]
                order = range(lengths[batch])
                for t in reversed(order) if way else order:
                    h, c = step(op, w, index, x[batch, t], h, c)
                    y[batch, t, way * HIDDEN : (way + 1) * HIDDEN] = h
                h_all[batch, index], c_all[batch, index] = h, c
        x = y
    return [x, h_all, c_all][: 3 if op is RNNOperation.LSTM else 2]


@pytest.mark.parametrize("op", list(RNNOperation))
@pytest.mark.parametrize("direction", list(RNNDirection))
@pytest.mark.parametrize("mode", list(RNNInputMode))
def test_layers_agree_with_steps(op: RNNOperation, direction: RNNDirection, mode: RNNInputMode) -> None:
    ways, layers = 2 if direction is RNNDirection.BIDIRECTION else 1, 2
    size = HIDDEN if mode is RNNInputMode.SKIP else 6
    x, lengths = random(BATCH, STEPS, size), np.array([5, 2, 3], np.int32)
    h0, c0 = random(BATCH, layers * ways, HIDDEN), random(BATCH, layers * ways, HIDDEN)
    w: Weights = {}
    for index in range(layers * ways):
        for name in GATES[op].split():
            for is_w in (True, False):
                wide = (size if index < ways else ways * HIDDEN) if is_w else HIDDEN
                w[index, RNNGateType[name], is_w] = random(HIDDEN, wide) / 2, random(HIDDEN) / 2
                if is_w and index < ways and mode is RNNInputMode.SKIP:
                    w[index, RNNGateType[name], is_w] = np.eye(HIDDEN, dtype=np.float32), random(HIDDEN) / 2

    def make(n: tw.Network, t: Tensor, s: Tensor, h: Tensor, *c: Tensor) -> Any:
        layer = n.add_rnn_v2(t, layers, HIDDEN, STEPS, op)
        with_properties(layer, direction=direction, input_mode=mode, seq_lengths=s, hidden_state=h)
        if c:
            layer.cell_state = c[0]
        for (index, gate, is_w), (matrix, bias) in w.items():
            if not (is_w and index < ways and mode is RNNInputMode.SKIP):
                layer.set_weights_for_gate(index, gate, is_w, matrix)
            layer.set_bias_for_gate(index, gate, is_w, bias)
        return layer

    states = [h0, c0] if op is RNNOperation.LSTM else [h0]
    found = compiled(make, x, lengths, *states)
    for given, want in zip(found, expected(op, w, layers, ways, x, lengths, h0, c0), strict=True):
        np.testing.assert_allclose(given, want, rtol=2e-4, atol=2e-5)


def test_mistakes_name_the_gate() -> None:
    def layer(op: RNNOperation = RNNOperation.GRU, steps: int = STEPS) -> Any:
        return network_of(lambda n, t: n.add_rnn_v2(t, 1, HIDDEN, steps, op), random(BATCH, STEPS, 6))[1]

    gru = layer()
    with pytest.raises(ModelError, match="input weights of UPDATE in layer 0 are not set"):
        _ = gru.get_output(0).shape
    with pytest.raises(ModelError, match="no gate RNNGateType.FORGET in layer 0 of GRU"):
        gru.set_weights_for_gate(0, RNNGateType.FORGET, True, random(HIDDEN, 6))
    with pytest.raises(ModelError, match="layer 1 of GRU"):
        gru.set_bias_for_gate(1, RNNGateType.RESET, True, random(HIDDEN))
    gru.set_weights_for_gate(0, RNNGateType.UPDATE, True, RNG.random((HIDDEN, 5)))
    with pytest.raises(ModelError, match="20 elements, 4x6 are needed"):
        _ = gru.get_output(0).shape
    with pytest.raises(ModelError, match="5 steps are more than max_seq_length 4"):
        _ = layer(steps=4).get_output(0).shape
