# SPDX-License-Identifier: Apache-2.0
"""The results of a recurrent layer, which its op gives packed in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.recurrent import Recurrent
from tensorwright.ops.shape import Reshape, Slice


def layer_results(b: NetworkBuilder, layer: Recurrent, inputs: Sequence[Value | None]) -> tuple[Value, list[Value]]:
    """The hidden states [steps, directions, batch, hidden], and the final states [directions, batch, hidden] each."""
    packed = b.add(layer, *inputs)
    rows, directions, batch, hidden = packed.type.shape
    steps = rows - layer.states
    final = (b.add(Slice((steps + i,), (steps + i + 1,), (0,), (1,)), packed) for i in range(layer.states))
    states = [b.add(Reshape((directions, batch, hidden)), row) for row in final]
    return b.add(Slice((0,), (steps,), (0,), (1,)), packed), states
