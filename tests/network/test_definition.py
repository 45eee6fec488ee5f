# SPDX-License-Identifier: Apache-2.0
"""Networks as a whole: equality with an imported model, names, properties set late, and errors that name the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import ModelError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.dims import SymDim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph
from tensorwright.network import (
    ActivationType,
    ElementWiseOperation,
    PoolingType,
    ReduceOperation,
    Tensor,
    UnaryOperation,
)
from tests.importers.models import runtime_outputs
from tests.importers.test_onnx_graphs import lenet
from tests.network.single import Array, random, with_properties


def written_lenet(weights: dict[str, Array]) -> tw.Network:
    n = tw.Network("lenet")
    x = n.add_input("data", DType.f32, (1, 1, 28, 28))
    for i, maps in (("1", 6), ("2", 8)):
        conv = n.add_convolution_nd(x, maps, 5, weights[f"w{i}"], weights[f"b{i}"])
        pool = n.add_pooling_nd(conv.get_output(0), PoolingType.MAX, (2, 2))
        pool.stride_nd = 2
        x = pool.get_output(0)
    flat = n.add_shuffle(x)
    flat.reshape_dims = (0, -1)
    fc1 = n.add_fully_connected(flat.get_output(0), 50, weights["w3"], weights["b3"])
    relu = n.add_activation(fc1.get_output(0), ActivationType.RELU)
    fc2 = n.add_fully_connected(relu.get_output(0), 10, weights["w4"], weights["b4"])
    softmax = n.add_softmax(fc2.get_output(0))
    softmax.axes = 1 << 1
    softmax.get_output(0).name = "prob"
    n.mark_output(softmax.get_output(0))
    return n


def test_lenet_written_equals_the_imported_one() -> None:
    proto = lenet()
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    written, imported = written_lenet(weights).to_graph(), import_onnx(proto)
    assert [n.op for n in written] == [n.op for n in imported]
    assert written.output_names == imported.output_names == ("prob",)
    x = random(1, 1, 28, 28)
    found = interpret(written, {"data": x})["prob"]
    np.testing.assert_array_equal(found, interpret(imported, {"data": x})["prob"])
    np.testing.assert_allclose(found, runtime_outputs(proto, {"data": x})[0], rtol=1e-4, atol=1e-6)


def test_names_of_layers_and_tensors_reach_the_graph() -> None:
    n = tw.Network("named")
    x = n.add_input("x", "f32", (1, 4))
    fc = n.add_fully_connected(x, 3, random(3, 4), random(3))
    fc.name = "classifier"
    relu = n.add_activation(fc.get_output(0), ActivationType.RELU)
    n.mark_output(relu.get_output(0))
    graph = n.to_graph()
    assert graph.name == "named" and graph.output_names == ("activation_1",)
    assert {o for node in graph for o in node.origin} == {"classifier", "activation_1"}
    assert {v.name for v in graph.constants} >= {"classifier.bias"}
    assert n.get_layer(0) is fc and list(n) == [fc, relu] and n[-1] is relu and len(n) == n.num_layers == 2
    assert n.get_input(0) is x and n.get_output(0) is relu.get_output(0) and (n.num_inputs, n.num_outputs) == (1, 1)
    assert x.is_network_input and relu.get_output(0).is_network_output and not fc.get_output(0).is_network_output


def test_properties_set_late_change_shapes_and_graph() -> None:
    n = tw.Network()
    conv = n.add_convolution_nd(n.add_input("x", shape=(1, 3, 8, 8)), 4, 3, random(4, 3, 3, 3))
    pool = n.add_pooling_nd(conv.get_output(0), PoolingType.AVERAGE, 2)
    n.mark_output(pool.get_output(0))
    assert pool.get_output(0).shape == (1, 4, 5, 5)
    conv.padding_nd, conv.stride_nd = 1, (2, 1)
    assert (conv.padding_nd, conv.stride_nd, conv.kernel_size_nd) == ((1, 1), (2, 1), (3, 3))
    assert pool.get_output(0).shape == (1, 4, 3, 7)
    pool.stride_nd = 2
    assert n.to_graph().outputs[0].type.shape == (1, 4, 2, 4)
    n.get_input(0).shape = (2, 3, 6, 6)
    assert n.to_graph().outputs[0].type.shape == (2, 4, 1, 3)


def test_open_dims_become_symbols() -> None:
    n = tw.Network()
    x = n.add_input("x", np.float32, (-1, "width", 3))
    assert x.shape == (SymDim.symbol("x_0"), SymDim.symbol("width"), 3)
    n.mark_output(n.add_unary(x, UnaryOperation.EXP).get_output(0))
    assert n.to_graph().outputs[0].type.shape == x.shape


def test_unmarked_output_and_unused_layers_are_left_out() -> None:
    n = tw.Network()
    x = n.add_input("x", shape=(3,))
    a, b = (n.add_unary(x, op).get_output(0) for op in (UnaryOperation.EXP, UnaryOperation.NEG))
    n.mark_output(a)
    n.mark_output(b)
    n.mark_output(b)
    n.unmark_output(a)
    assert [node.op.kind for node in n.to_graph()] == ["neg"]


def test_long_chain_with_shapes_read_on_the_way_is_written_once_per_layer() -> None:
    n = tw.Network()
    x = n.add_input("x", shape=(2, 3))
    for _ in range(3000):
        x = n.add_activation(x, ActivationType.RELU).get_output(0)
        assert x.shape == (2, 3)
    n.mark_output(x)
    assert len(n.to_graph()) == 3000


# -- mistakes ---------------------------------------------------------------------------------------
def other_tensor() -> Tensor:
    return tw.Network().add_input("foreign", shape=(1,))


def settable(change: Callable[[Any], Any]) -> Callable[[tw.Network, Tensor], Any]:
    return lambda n, x: change(n.add_convolution_nd(x, 4, 3, random(4, 3, 3, 3)))


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (
            lambda n, x: n.add_convolution_nd(x, 4, 3, random(4, 3, 3, 2)).get_output(0).shape,
            r"convolution_1.*kernel has 72 elements, 4x3x3x3 are needed",
        ),
        (
            lambda n, x: n.add_convolution_nd(x, 4, 3, random(4, 3, 3, 3), random(3)).get_output(0).shape,
            "bias has 3 elements",
        ),
        (lambda n, x: n.add_convolution_nd(x, 4, 3).get_output(0).shape, "has no kernel"),
        (lambda n, x: n.add_convolution_nd(x, 4, 9, random(4, 3, 9, 9)).get_output(0).shape, "window of 9"),
        (
            lambda n, x: (
                with_properties(n.add_convolution_nd(x, 4, 3, random(4, 3, 3, 3)), num_groups=2).get_output(0).shape
            ),
            "2 groups",
        ),
        (
            lambda n, x: n.add_convolution_nd(x, 4, (3, 3, 3), random(4, 3, 3, 3, 3)).get_output(0).shape,
            "2 spatial dims",
        ),
        (
            lambda n, x: n.add_convolution_nd(x, 4, 3, np.zeros((4, 3, 3, 3), np.int32)).get_output(0).shape,
            "kernel is int32",
        ),
        (lambda n, x: n.add_convolution_nd(x, 4, 3, ["a"] * 108), "kernel cannot be"),
        (settable(lambda c: setattr(c, "stride_nd", "wide")), "stride_nd cannot be 'wide'"),
        (settable(lambda c: setattr(c, "padding_mode", "SAME")), "must be a member of PaddingMode"),
        (settable(lambda c: c.get_output(1)), "no output 1"),
        (settable(lambda c: c.set_input(5, c.get_output(0))), "no input 5"),
        (lambda n, x: n.add_activation(x, "relu"), "ActivationType"),
        (lambda n, x: n.add_unary(other_tensor(), UnaryOperation.EXP), "another network"),
        (lambda n, x: n.add_unary(n.add_identity(x), UnaryOperation.EXP), r"pass layer\.get_output"),
        (lambda n, x: n.add_concatenation([]), "at least one"),
        (
            lambda n, x: (
                n.add_elementwise(x, n.add_constant((5,), [0.0] * 5).get_output(0), ElementWiseOperation.SUM)
                .get_output(0)
                .shape
            ),
            "elementwise_1.*broadcast",
        ),
        (
            lambda n, x: n.add_reduce(x, ReduceOperation.SUM, 1 << 7).get_output(0).shape,
            "do not fit a tensor of rank 4",
        ),
        (lambda n, x: with_properties(n.add_softmax(x), axes=3).get_output(0).shape, "must choose one axis"),
        (
            lambda n, x: with_properties(n.add_shuffle(x), reshape_dims=(7, -1)).get_output(0).shape,
            "shuffle_1.*reshape",
        ),
        (lambda n, x: n.add_slice(x, (0,) * 4, (9,) * 4).get_output(0).shape, "not all inside"),
        (lambda n, x: n.add_resize(x).get_output(0).shape, "either shape or scales"),
        (lambda n, x: n.add_constant((3,), [1.0]).get_output(0).shape, "1 elements, 3 are needed"),
        (lambda n, x: n.add_cast(x, "f33"), "no element type"),
        (lambda n, x: n.add_input("x", shape=(1,)), "name of its own"),
        (lambda n, x: n.add_input("z", "text", (1,)), "no element type"),
        (lambda n, x: n.add_input("z", shape=(-2,)), "cannot have the shape"),
        (lambda n, x: n.mark_output(other_tensor()), "no tensor of this network"),
        (lambda n, x: n.to_graph(), "no outputs"),
        (lambda n, x: setattr(n.add_identity(x).get_output(0), "shape", (1,)), "follows from its layer"),
    ],
)
def test_mistake_gives_m110_that_names_the_layer(mistake: Callable[[tw.Network, Tensor], Any], text: str) -> None:
    n = tw.Network()
    with pytest.raises(ModelError, match=text) as caught:
        mistake(n, n.add_input("x", shape=(1, 3, 8, 8)))
    assert caught.value.code == "M110"


def test_layer_that_reads_its_own_output_is_refused() -> None:
    n = tw.Network()
    a = n.add_unary(n.add_input("x", shape=(1,)), UnaryOperation.EXP)
    b = n.add_unary(a.get_output(0), UnaryOperation.EXP)
    a.set_input(0, b.get_output(0))
    n.mark_output(b.get_output(0))
    with pytest.raises(ModelError, match="depends on its own output"):
        n.to_graph()


def test_clashing_output_names_are_refused() -> None:
    n = tw.Network()
    x = n.add_input("x", shape=(1,))
    for _ in range(2):
        tensor = n.add_unary(x, UnaryOperation.EXP).get_output(0)
        tensor.name = "same"
        n.mark_output(tensor)
    with pytest.raises(ModelError, match="not all different"):
        n.to_graph()


def test_graph_is_a_graph_of_its_own_each_time() -> None:
    n = tw.Network()
    n.mark_output(n.add_unary(n.add_input("x", shape=(1,)), UnaryOperation.EXP).get_output(0))
    first, second = n.to_graph(), n.to_graph()
    assert isinstance(first, Graph) and first is not second and first.nodes[0] is not second.nodes[0]
