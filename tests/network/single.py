# SPDX-License-Identifier: Apache-2.0
"""Networks of one layer, for the tests of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.verify import verify
from tensorwright.network import Layer, Tensor

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(21)


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def run(make: Callable[..., Layer], *arrays: Array) -> Array:
    """The output of one layer on these inputs."""
    network, _ = network_of(make, *arrays)
    graph = network.to_graph()
    verify(graph)
    (result,) = interpret(graph, {f"in{i}": a for i, a in enumerate(arrays)}).values()
    output = network.get_output(0)
    assert output.shape == result.shape and output.dtype.numpy == result.dtype
    return result


def compiled(make: Callable[..., Layer], *arrays: Array) -> list[Array]:
    """All outputs of one layer on these inputs, from an engine without host steps, which agrees with the reference."""
    network, _ = network_of(make, *arrays)
    graph = network.to_graph()
    verify(graph)
    inputs = {f"in{i}": a for i, a in enumerate(arrays)}
    engine = tw.build(network, tune="off", host_steps=False, threads=1)
    expected, found = interpret(graph, inputs), engine.run(inputs)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=2e-4, atol=2e-5)
    return [np.array(found[name]) for name in graph.output_names]


def network_of(make: Callable[..., Layer], *arrays: Array) -> tuple[tw.Network, Layer]:
    """A network of one layer, whose outputs are all marked."""
    network = tw.Network()
    tensors = [network.add_input(f"in{i}", a.dtype, a.shape) for i, a in enumerate(arrays)]
    layer = make(network, *tensors)
    for i in range(layer.num_outputs):
        network.mark_output(layer.get_output(i))
    return network, layer


def constant(network: tw.Network, value: Any, dtype: str = "int32") -> Tensor:
    """A constant tensor."""
    array = np.asarray(value, dtype)
    return network.add_constant(array.shape, array).get_output(0)


def with_properties(layer: Layer, **properties: Any) -> Layer:
    for name, value in properties.items():
        setattr(layer, name, value)
    return layer
