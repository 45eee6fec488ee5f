# SPDX-License-Identifier: Apache-2.0
"""Rare ops give what ONNX Runtime, or where it lacks them onnx's own evaluator, gives, and none is a host step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tensorwright.backends.reference.interpret import interpret
from tensorwright.errors import ModelError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.graph import Graph
from tests.importers.models import runtime_outputs
from tests.importers.test_onnx_ops import ints

Array = np.ndarray[Any, Any]
F, I64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Rare:
    """One node of `op`: inputs by shape (f32 from a normal distribution) or as arrays; `fixed` ones are initializers.

    A name that starts with "-" is an absent input. `evaluator`: ONNX Runtime has no kernel for it.
    """

    op: str
    inputs: Mapping[str, Sequence[int] | Array]
    fixed: Mapping[str, Array] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    evaluator: bool = False

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}-{'-'.join(f'{k}={v}' for k, v in self.attributes.items())}".replace(" ", "")[
            :70
        ]

    def arrays(self, rng: np.random.Generator) -> dict[str, Array]:
        return {
            name: given if isinstance(given, np.ndarray) else rng.standard_normal(given).astype(np.float32)
            for name, given in self.inputs.items()
        }

    def model(self, arrays: Mapping[str, Array]) -> ModelProto:
        names = [*self.inputs, *self.fixed]
        reads = ["" if name.startswith("-") else name for name in names]
        outputs = [f"y{i}" for i in range(self.outputs)]
        graph = helper.make_graph(
            [helper.make_node(self.op, reads, outputs, **self.attributes)],
            "rare",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for name, a in arrays.items()
                if not name.startswith("-")
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(a, name) for name, a in self.fixed.items() if not name.startswith("-")],
        )
        version = 8 if self.opset < 20 else 10 if self.opset < 24 else 13
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=version)


def numbers(dtype: Any, *shape: int, low: int = 0, high: int = 100) -> Array:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(dtype)


def scalar(value: int) -> Array:
    return np.array(value, np.int64)


BITS = [
    *(
        Rare(f"Bitwise{name}", {"a": numbers(np.int32, 3, 4), "b": numbers(np.int32, 4)})
        for name in ("And", "Or", "Xor")
    ),
    Rare("BitwiseNot", {"a": numbers(np.int16, 3, 4)}),
    *(
        Rare("BitShift", {"a": numbers(np.uint32, 3, 4), "b": numbers(np.uint32, 4, high=9)}, {}, {"direction": d}, 11)
        for d in ("LEFT", "RIGHT")
    ),
    Rare(
        "BitShift",
        {"a": numbers(np.int8, 3, 40, low=-128), "b": numbers(np.int8, 40, low=-3, high=12)},
        {},
        {"direction": "RIGHT"},
        28,
        evaluator=True,
    ),
    Rare("BitCast", {"a": [3, 4]}, {}, {"to": TensorProto.UINT32}, 26, evaluator=True),
    Rare("BitCast", {"a": numbers(np.uint16, 9, high=30000)}, {}, {"to": TensorProto.FLOAT16}, 26, evaluator=True),
]
IMAGES = {"x": [2, 3, 9, 8]}
BLOCKS = [
    *(
        Rare("CenterCropPad", IMAGES, {"s": ints(*shape)}, {"axes": axes} if axes else {})
        for shape, axes in (((2, 3, 4, 13), ()), ((12, 5), (2, 3)), ((3, 4), (-1, 1)), ((9,), (2,)))
    ),
    Rare("Col2Im", {"x": [1, 30, 16]}, {"i": ints(5, 6), "b": ints(2, 3)}),
    Rare("Col2Im", {"x": [2, 27, 15]}, {"i": ints(7, 6), "b": ints(3, 3)}, {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
    Rare("Col2Im", {"x": [1, 8, 9]}, {"i": ints(5, 5), "b": ints(2, 2)}, {"dilations": [2, 3], "pads": [0, 0, 0, 1]}),
    Rare("Col2Im", {"x": [1, 4, 6]}, {"i": ints(4, 6), "b": ints(2, 2)}, {"strides": [2, 2]}),
    Rare("Col2Im", {"x": [1, 8, 12]}, {"i": ints(3, 4, 3), "b": ints(2, 2, 2)}),
]
FRAMES = [
    Rare("STFT", {"x": [2, 64, 1]}, {"s": scalar(8), "w": np.hanning(16).astype(np.float32)}, {}, 17),
    Rare("STFT", {"x": [1, 50, 1]}, {"s": scalar(7), "-": np.ones(9, np.float32), "l": scalar(9)}, {"onesided": 0}, 17),
    Rare("STFT", {"x": [1, 40, 2]}, {"s": scalar(5), "w": np.ones(10, np.float32)}, {"onesided": 0}, 17),
]
LABELS = numbers(np.int64, 3, 5, high=4)
LOSSES = [
    Rare(
        name,
        {"x": [3, 4, 5], "l": LABELS, **({"w": [4]} if weighted else {})},
        {},
        {"reduction": reduction, **({"ignore_index": 2} if ignoring else {})},
        13,
        2 if name.startswith("Softmax") else 1,
    )
    for name in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    for reduction in ("none", "sum", "mean")
    for weighted in (False, True)
    for ignoring in (False, True)
] + [
    Rare("SoftmaxCrossEntropyLoss", {"x": [3, 4], "l": np.array([0, -100, 3])}, {}, {"ignore_index": -100}, 13),
    Rare("NegativeLogLikelihoodLoss", {"x": [2, 4, 3, 5], "l": numbers(np.int32, 2, 3, 5, high=4)}, {}, {}, 13),
]
ROIS = np.array([[0, 1, 1, 6, 7], [1, 0, 0, 3, 2], [1, 5, 5, 9, 12], [0, 3, 3, 1, 1]], np.float32)


def deform(
    *,
    groups: int = 1,
    offset_groups: int = 1,
    bias: bool = False,
    mask: bool = False,
    evaluator: bool = False,
    **window: Any,
) -> Rare:
    strides, pads = window.get("strides", [1, 1]), window.get("pads", [0, 0, 0, 0])
    dilations = window.get("dilations", [1, 1])
    out = [(s + pads[d] + pads[2 + d] - 2 * dilations[d] - 1) // strides[d] + 1 for d, s in enumerate((7, 8))]
    inputs: dict[str, Any] = {"x": [2, 4, 7, 8], "w": [8, 4 // groups, 3, 3], "o": [2, offset_groups * 18, *out]}
    if bias or mask:
        inputs["b" if bias else "-b"] = [8]
    if mask:
        inputs["m"] = [2, offset_groups * 9, *out]
    attributes = {"group": groups, "offset_group": offset_groups, "kernel_shape": [3, 3], **window}
    return Rare("DeformConv", inputs, {}, attributes, 19, evaluator=True)


SAMPLES = [
    *(
        Rare("MaxRoiPool", {"x": [2, 3, 9, 8], "r": ROIS}, {}, {"pooled_shape": [3, 2], "spatial_scale": s})
        for s in (1.0, 0.4)
    ),
    *(
        Rare("AffineGrid", {"t": [2, r, r + 1]}, {"s": ints(2, 3, *(5, 4, 3)[:r])}, {"align_corners": align}, 20)
        for r in (2, 3)
        for align in (0, 1)
    ),
    deform(),
    deform(bias=True, mask=True, strides=[2, 1], pads=[1, 2, 1, 2], dilations=[1, 2]),
    deform(groups=2, offset_groups=4, mask=True, pads=[2, 0, 2, 0]),
    deform(groups=4, offset_groups=2, bias=True, pads=[1, 1, 0, 0]),
]
HEADS = {"q_num_heads": 4, "kv_num_heads": 2}
LINEAR = {**HEADS, "update_rule": "linear"}
QKV = {"q": [2, 3, 20], "k": [2, 3, 10], "v": [2, 3, 14]}
STATES = [
    Rare("CumProd", {"x": [3, 4, 5]}, {"a": scalar(-2)}, {"exclusive": 1, "reverse": 1}, 26, evaluator=True),
    Rare("Det", {"x": [2, 3, 4, 4]}),
    Rare("LinearAttention", QKV, {}, LINEAR, 27, 2, True),
    Rare(
        "LinearAttention", {**QKV, "s": [2, 2, 5, 7]}, {}, {**HEADS, "update_rule": "linear", "scale": 0.3}, 27, 2, True
    ),
    *(
        Rare("LinearAttention", {**QKV, "-": [1], "d": [2, 3, n]}, {}, {**HEADS, "update_rule": "gated"}, 27, 2, True)
        for n in (2, 10)
    ),
    *(
        Rare(
            "LinearAttention",
            {**QKV, "s": [2, 2, 5, 7], "d": [2, 3, 10], "r": [2, 3, n]},
            {},
            HEADS,
            27,
            2,
            True,
        )
        for n in (1, 2)
    ),
    Rare("CausalConvWithState", {"x": [2, 3, 7], "w": [3, 1, 4]}, {}, {}, 27, 2, True),
    Rare(
        "CausalConvWithState",
        {"x": [2, 3, 7], "w": [3, 1, 4], "b": [3], "p": [2, 3, 3]},
        {},
        {"activation": "silu"},
        27,
        2,
        True,
    ),
]


HEADED = {"q": [2, 4, 3, 8], "k": [2, 2, 5, 8], "v": [2, 2, 5, 6]}
CACHE = {"pk": [2, 2, 7, 8], "pv": [2, 2, 7, 6]}
PACKED = {"q": [2, 3, 32], "k": [2, 5, 16], "v": [2, 5, 12]}
VALID = {"-pk": scalar(0), "-pv": scalar(0), "n": ints(5, 3)}
ATTENTION = [
    Rare("Attention", {**HEADED, "-m": scalar(0), **CACHE}, {}, {"is_causal": 1}, 23, 3, True),
    Rare("Attention", {**HEADED, "m": [3, 12], **CACHE}, {}, {"scale": 0.7}, 23, 3, True),
    Rare("Attention", {**PACKED, "-m": scalar(0), **CACHE}, {}, HEADS, 23, 3, True),
    Rare("Attention", {**HEADED, "m": [2, 1, 3, 4]}, {}, {"softcap": 1.5}, 24, 1, True),
    Rare("Attention", {**HEADED, "m": numbers(bool, 3, 5, high=2)}, {}, {"softcap": 1.5, "is_causal": 1}, 24, 1, True),
    *(
        Rare(
            "Attention",
            {**HEADED, "m": [3, 12], **CACHE},
            {},
            {"qk_matmul_output_mode": mode, "softcap": 2.0 * (mode > 0)},
            24,
            4,
            True,
        )
        for mode in range(4)  # the evaluator caps the scores of mode 0 as well, against ONNX's text
    ),
    Rare("Attention", {**HEADED, "-m": scalar(0), **VALID}, {}, {"is_causal": 1}, 24, 1, True),
    Rare(
        "Attention",
        {**HEADED, "-m": scalar(0), **VALID},
        {},
        {"left_window_size": 1, "right_window_size": 1},
        25,
        1,
        True,
    ),
    Rare("Attention", {**HEADED, "-m": scalar(0), **CACHE}, {}, {"left_window_size": 2, "is_causal": 1}, 25, 3, True),
    Rare("Attention", HEADED, {}, {"softcap": 2.0, "softmax_precision": TensorProto.DOUBLE}, 24, 1, True),
]


def check(case: Rare, seed: int) -> Graph:
    arrays = case.arrays(np.random.default_rng(seed))
    proto = case.model(arrays)
    feeds = {name: a for name, a in arrays.items() if not name.startswith("-")}
    graph = import_onnx(proto)
    assert not [node.name for node in graph.nodes if node.op.kind == "onnx_host"]
    wanted = ReferenceEvaluator(proto).run(None, feeds) if case.evaluator else runtime_outputs(proto, feeds)
    for (name, got), want in zip(interpret(graph, feeds).items(), wanted, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{name}, seed {seed}"
        scale = np.abs(want).max(initial=0) if want.dtype.kind == "f" else 0
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * scale, err_msg=f"{name}, seed {seed}")
    return graph


@pytest.mark.parametrize("case", [*BITS, *BLOCKS, *FRAMES, *LOSSES, *SAMPLES, *STATES, *ATTENTION], ids=str)
def test_op_agrees_and_is_no_host_step(case: Rare) -> None:
    for seed in (1, 2):
        check(case, seed)


CHANNELS = np.array([1, -2, 3]).reshape(3, 1, 1)
LEGACY = [
    (
        "ImageScaler",
        {"scale": 0.5, "bias": [1.0, -2.0, 3.0]},
        lambda x: x * 0.5 + np.array([1, -2, 3]).reshape(3, 1, 1),
    ),
    ("ImageScaler", {}, lambda x: x),
    ("ParametricSoftplus", {"alpha": 2.0, "beta": 0.5}, lambda x: 2 * np.log1p(np.exp(0.5 * x))),
    ("ScaledTanh", {"alpha": 1.5, "beta": 3.0}, lambda x: 1.5 * np.tanh(3 * x)),
]


@pytest.mark.parametrize("name,attributes,want", LEGACY)
def test_legacy_op_computes_its_formula(name: str, attributes: Mapping[str, Any], want: Any) -> None:
    case = Rare(name, {"x": [2, 3, 4, 5]}, {}, attributes, 11)
    x = case.arrays(np.random.default_rng(4))
    (got,) = interpret(import_onnx(case.model(x)), x).values()
    np.testing.assert_allclose(got, want(x["x"].astype(np.float64)), rtol=1e-5, atol=1e-6)


WRONG = [
    (Rare("BitShift", {"a": numbers(np.uint8, 3), "b": numbers(np.uint8, 3)}, {}, {"direction": "UP"}, 11), "'UP'"),
    (Rare("CenterCropPad", IMAGES, {"s": ints(3, 3)}), "does not fit the axes"),
    (Rare("Col2Im", {"x": [1, 12, 5]}, {"i": ints(5, 5), "b": ints(2, 2)}), "does not hold"),
    (Rare("ImageScaler", {"x": [2, 3, 4, 4]}, {}, {"bias": [1.0]}, 11), "1 biases"),
]


@pytest.mark.parametrize("case,why", WRONG, ids=lambda x: str(x))
def test_wrong_model_is_named(case: Rare, why: str) -> None:
    with pytest.raises(ModelError, match="M104") as caught:
        import_onnx(case.model(case.arrays(np.random.default_rng(5))))
    assert why in str(caught.value)
