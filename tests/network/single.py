# SPDX-License-Identifier: Apache-2.0
"""Networks of one layer, for the tests of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.verify import verify
from tensorwright.network import Layer

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(21)


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def run(make: Callable[..., Layer], *arrays: Array) -> Array:
    """The output of one layer on these inputs."""
    network = tw.Network()
    tensors = [network.add_input(f"in{i}", a.dtype, a.shape) for i, a in enumerate(arrays)]
    output = make(network, *tensors).get_output(0)
    network.mark_output(output)
    graph = network.to_graph()
    verify(graph)
    (result,) = interpret(graph, {f"in{i}": a for i, a in enumerate(arrays)}).values()
    assert output.shape == result.shape and output.dtype.numpy == result.dtype
    return result


def with_properties(layer: Layer, **properties: Any) -> Layer:
    for name, value in properties.items():
        setattr(layer, name, value)
    return layer
