# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN give what ONNX Runtime gives, in every form that it has; layout 1 what its transposes say."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import tensorwright as tw
from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import ModelError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ops.recurrent import Recurrent
from tests.importers.models import assert_agrees, model, node

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, SIZE, HIDDEN = 5, 3, 4, 6
ALL = ("b", "lengths", "h", "c", "p")
SEED = int(np.random.SeedSequence().generate_state(1)[0])


def layer(
    op: str, given: tuple[str, ...] = ("b",), opset: int = 14, outputs: tuple[str, ...] = (), **attributes: Any
) -> onnx.ModelProto:
    """A model of one layer with random weights and the optional inputs that `given` names."""
    rng = np.random.default_rng(SEED)
    d, rows, first = 1 + (attributes.get("direction") == "bidirectional"), GATES[op] * HIDDEN, attributes.get("layout")
    state = (d, BATCH, HIDDEN)
    shapes = {"b": (d, 2 * rows), "h": state, "c": state, "p": (d, 3 * HIDDEN)}
    optional = ["b", "lengths", "h", *(["c", "p"] if op == "LSTM" else [])]
    constants = {
        name: rng.integers(1, STEPS + 1, BATCH).astype(np.int32)
        if name == "lengths"
        else rng.standard_normal(shapes[name]).astype(np.float32)
        for name in optional
        if name in given
    }
    if first:
        constants.update({name: constants[name].swapaxes(0, 1) for name in ("h", "c") if name in constants})
    constants["w"], constants["r"] = (rng.standard_normal((d, rows, k)).astype(np.float32) for k in (SIZE, HIDDEN))
    names = ["x", "w", "r", *(name if name in given else "" for name in optional)]
    outputs = outputs or ("y", "y_h", "y_c")[: 3 if op == "LSTM" else 2]
    return model(
        [node(op, names, outputs, name="layer", hidden_size=HIDDEN, **attributes)],
        {"x": [BATCH, STEPS, SIZE] if first else [STEPS, BATCH, SIZE]},
        [name for name in outputs if name],
        constants,
        opset=opset,
    )


CASES: list[tuple[str, dict[str, Any]]] = [
    *(
        (op, {"direction": d, "given": g})
        for op in GATES
        for d in ("forward", "reverse", "bidirectional")
        for g in (("b",), ALL)
    ),
    *((op, {"given": ()}) for op in GATES),
    *((op, {"given": ALL, "clip": 0.6, "direction": "bidirectional"}) for op in GATES),
    *((op, {"opset": opset}) for op in GATES for opset in (7, 13, 14)),
    *((op, {"outputs": ("", "y_h")}) for op in GATES),
    ("LSTM", {"outputs": ("", "", "y_c")}),
    ("LSTM", {"given": ("b", "p"), "input_forget": 1}),
    ("GRU", {"given": ALL, "linear_before_reset": 1, "direction": "bidirectional"}),
    ("GRU", {"given": (), "linear_before_reset": 1}),
    ("GRU", {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.4], "activation_beta": [0.6]}),
    (
        "LSTM",
        {
            "direction": "bidirectional",
            "activations": ["HardSigmoid", "Tanh", "LeakyRelu", "Sigmoid", "Elu", "Affine"],
            "activation_alpha": [0.3, 0.4, 0.5, 0.6],
            "activation_beta": [0.6, 0.1],
        },
    ),
    # not Softplus: ONNX Runtime's overflows to infinity for sums above 88
    *(("RNN", {"activations": [name]}) for name in ("Relu", "Sigmoid", "Softsign", "HardSigmoid", "Elu")),
    *(
        ("RNN", {"activations": [name], "activation_alpha": [0.3], "activation_beta": [0.6]})
        for name in ("Affine", "ScaledTanh", "ThresholdedRelu")
    ),
]


@pytest.mark.parametrize("op,options", CASES, ids=lambda v: str(v).replace(" ", "")[:70])
def test_layer_agrees_with_onnx_runtime(op: str, options: dict[str, Any]) -> None:
    graph = assert_agrees(layer(op, **options), seed=SEED)
    assert sum(isinstance(n.op, Recurrent) for n in graph.nodes) == 1


@pytest.mark.parametrize("op", GATES)
def test_batch_first_layout_transposes_inputs_and_results(op: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((STEPS, BATCH, SIZE)).astype(np.float32)
    got, want = (
        interpret(
            import_onnx(layer(op, ALL, direction="bidirectional", layout=layout)),
            {"x": x.swapaxes(0, 1) if layout else x},
        )
        for layout in (1, 0)
    )
    np.testing.assert_array_equal(got["y"], want["y"].transpose(2, 0, 1, 3), err_msg=f"seed {SEED}")
    for name in list(want)[1:]:
        np.testing.assert_array_equal(got[name], want[name].swapaxes(0, 1), err_msg=f"{name}, seed {SEED}")


def test_symbolic_steps_and_batch_stay_symbolic() -> None:
    proto = layer("LSTM", ())
    for axis, name in enumerate(("steps", "batch")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    y, y_h, _ = import_onnx(proto).outputs
    assert [str(d) for d in y.type.shape] == ["steps", "1", "batch", "6"]
    assert [str(d) for d in y_h.type.shape] == ["1", "batch", "6"]


@pytest.mark.parametrize(
    "attributes,reason",
    [
        ({"activations": ["Cosine"]}, "no activation 'Cosine'"),
        ({"activations": ["Tanh", "Tanh"]}, "2 activations, expected 1"),
        ({"activations": ["ScaledTanh"], "activation_alpha": [1.0]}, "no default parameters"),
        ({"direction": "sideways"}, "no direction 'sideways'"),
    ],
)
def test_wrong_attributes_are_named(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        import_onnx(layer("RNN", **attributes))


def test_weights_that_do_not_fit_are_named() -> None:
    proto = layer("GRU", direction="bidirectional")
    next(a for a in proto.graph.node[0].attribute if a.name == "direction").s = b"forward"
    with pytest.raises(ModelError, match=r"needs w \[1,18,4\]"):
        import_onnx(proto)
    proto = layer("GRU")
    next(a for a in proto.graph.node[0].attribute if a.name == "hidden_size").i = 7
    with pytest.raises(ModelError, match="hidden_size is 7"):
        import_onnx(proto)


def test_softplus_layer_stays_finite_where_onnx_runtime_overflows() -> None:
    """log(1 + e^x) is x to the last bit for large x; ONNX Runtime gives infinity from 89 on."""
    one = np.ones((1, 1, 1), np.float32)
    names = ["x", "w", "r"]
    node = onnx.helper.make_node("RNN", names, ["y"], hidden_size=1, activations=["Softplus"])
    infos = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 1])]
    results = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 1, 1])]
    weights = [onnx.numpy_helper.from_array(one, name) for name in names[1:]]
    graph = onnx.helper.make_graph([node], "g", infos, results, weights)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    for target in ("cpu", "reference"):
        with tw.build(proto, target=target, tune="off") as engine:
            for value in (-3.0, 1.0, 50.0, 89.0, 120.0):
                (got,) = engine.run({"x": one * np.float32(value)}).values()
                np.testing.assert_allclose(got.item(), np.logaddexp(0, value), rtol=1e-5)
