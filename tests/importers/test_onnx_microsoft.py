# SPDX-License-Identifier: Apache-2.0
"""The operators of com.microsoft give what ONNX Runtime gives, and become ops that have kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensorwright.errors import UnsupportedError
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ops.host import OnnxHost
from tests.importers.models import Shape, assert_agrees, model

I32, I64 = TensorProto.INT32, TensorProto.INT64
Constants = Mapping[str, Any]


def fused(
    op: str,
    reads: Sequence[str],
    inputs: Mapping[str, Shape],
    constants: Constants | None = None,
    outputs: Sequence[str] = ("y",),
    kinds: Mapping[str, int] | None = None,
    domain: str = "com.microsoft",
    **attributes: Any,
) -> onnx.ModelProto:
    """One node; outputs named "" or "_" are not read."""
    node = helper.make_node(
        op, list(reads), [o.removeprefix("_") for o in outputs], "node", domain=domain, **attributes
    )
    proto = model([node], inputs, [o for o in outputs if o.strip("_")], constants, kinds=kinds)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


X = {"x": [2, 5, 12]}
PAIR = {"x": [2, 5, 12], "s": [2, 5, 12]}
QKV = {"q": [2, 5, 12], "k": [2, 5, 12], "v": [2, 5, 12]}
WORDS = {"x": [2, 5, 12]}
PROJECTION = {"w": weights(12, 36), "b": weights(36)}
FLAGS = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
NORM = {"g": weights(12), "b": weights(12) * 2, "c": weights(12) * 3}
IDS = {"ids": [2, 5], "seg": [2, 5]}
TABLES = {"word": weights(7, 12), "pos": weights(9, 12), "segment": weights(3, 12), "g": weights(12), "b": weights(12)}
TABLE_NAMES = ("word", "pos", "segment", "g", "b")
ROTARY = {"cos": np.cos(weights(9, 3)), "sin": np.sin(weights(9, 3))}
WIDE = {"cos": np.cos(weights(9, 6)), "sin": np.sin(weights(9, 6))}
IMAGE = {"x": [2, 3, 7, 7]}
KERNEL = {"w": weights(4, 3, 3, 3), "b": weights(4)}

CASES = {
    "FusedMatMul": fused("FusedMatMul", ["x", "s"], {"x": [2, 5, 4], "s": [2, 4, 3]}, alpha=0.5),
    "FusedMatMul-transposed": fused("FusedMatMul", ["x", "s"], {"x": [2, 4, 5], "s": [2, 3, 4]}, transA=1, transB=1),
    "FusedMatMul-batch": fused("FusedMatMul", ["x", "s"], {"x": [5, 2, 4], "s": [2, 4, 3]}, transBatchA=1),
    "FusedMatMul-both": fused("FusedMatMul", ["x", "s"], {"x": [4, 2, 5], "s": [2, 4, 3]}, transBatchA=1, transA=1),
    "Gelu": fused("Gelu", ["x"], X),
    "BiasGelu": fused("BiasGelu", ["x", "g"], X, {"g": weights(12)}),
    "FastGelu": fused("FastGelu", ["x"], X),
    "FastGelu-bias": fused("FastGelu", ["x", "g"], X, {"g": weights(12)}),
    "QuickGelu": fused("QuickGelu", ["x"], X, alpha=1.5),
    "SkipLayerNorm": fused("SkipLayerNormalization", ["x", "s", "g"], PAIR, NORM, epsilon=1e-3),
    "SkipLayerNorm-all": fused("SkipLayerNormalization", ["x", "s", "g", "b", "c"], PAIR, NORM, ("y", "", "", "sum")),
    "SkipRms": fused("SkipSimplifiedLayerNormalization", ["x", "s", "g", "c"], PAIR, NORM, ("y", "", "", "sum")),
    "Rms": fused("SimplifiedLayerNormalization", ["x", "g"], X, NORM, domain="", epsilon=1e-3),
    "Embed": fused(
        "EmbedLayerNormalization",
        ["ids", "seg", *TABLE_NAMES],
        IDS,
        TABLES,
        ("y", "m"),
        {"ids": I32, "seg": I32, "m": I32},
    ),
    "Embed-mask": fused(
        "EmbedLayerNormalization",
        ["ids", "seg", *TABLE_NAMES, "mask"],
        IDS,
        TABLES | {"mask": FLAGS},
        ("y", "m", "sum"),
        {"ids": I32, "seg": I32, "m": I32},
    ),
    "Embed-positions": fused(
        "EmbedLayerNormalization",
        ["ids", "", "word", "pos", "", "g", "b", "", "p"],
        {"ids": [2, 5]},
        TABLES | {"p": np.array([[4, 3, 2, 1, 0], [0, 2, 4, 6, 8]], np.int32)},
        ("y", "m"),
        {"ids": I32, "m": I32},
    ),
    "Attention": fused("Attention", ["x", "w", "b"], WORDS, PROJECTION, num_heads=3),
    "Attention-flags": fused("Attention", ["x", "w", "b", "m"], WORDS, PROJECTION | {"m": FLAGS}, num_heads=3),
    "Attention-lengths": fused(
        "Attention", ["x", "w", "b", "m"], WORDS, PROJECTION | {"m": np.array([3, 5], np.int32)}, num_heads=3
    ),
    "Attention-causal": fused("Attention", ["x", "w", "b"], WORDS, PROJECTION, num_heads=2, unidirectional=1),
    "Attention-added": fused(
        "Attention",
        ["x", "w", "b", "", "", "a"],
        WORDS,
        PROJECTION | {"a": weights(2, 3, 5, 5)},
        num_heads=3,
        scale=0.3,
    ),
    "Attention-3d": fused(
        "Attention",
        ["x", "w", "b", "m"],
        WORDS,
        PROJECTION | {"m": np.tril(np.ones((2, 5, 5), np.int32))},
        num_heads=3,
    ),
    "MultiHead": fused("MultiHeadAttention", ["q", "k", "v"], QKV, num_heads=3),
    "MultiHead-bias": fused("MultiHeadAttention", ["q", "k", "v", "b"], QKV, {"b": weights(36)}, num_heads=3),
    "MultiHead-flags": fused(
        "MultiHeadAttention", ["q", "k", "v", "", "m"], QKV, {"m": FLAGS}, num_heads=3, mask_filter_value=-100.0
    ),
    "MultiHead-cross": fused(
        "MultiHeadAttention",
        ["q", "k", "v", "", "", "a"],
        {"q": [2, 5, 12], "k": [2, 4, 12], "v": [2, 4, 6]},
        {"a": weights(1, 3, 5, 4)},
        num_heads=3,
        scale=0.4,
    ),
    "Rotary": fused("RotaryEmbedding", ["x", "p", "cos", "sin"], {"x": [2, 5, 24]}, WIDE | {"p": np.array([2])}),
    "Rotary-heads": fused(
        "RotaryEmbedding", ["x", "p", "cos", "sin"], {"x": [2, 3, 5, 6], "p": [2, 5]}, ROTARY, kinds={"p": I64}
    ),
    "Rotary-interleaved": fused(
        "RotaryEmbedding",
        ["x", "p", "cos", "sin"],
        {"x": [2, 3, 5, 6], "p": [2, 5]},
        ROTARY,
        kinds={"p": I64},
        interleaved=1,
    ),
    "FusedConv-relu": fused("FusedConv", ["x", "w", "b"], IMAGE, KERNEL, activation="Relu", pads=[1, 1, 1, 1]),
    "FusedConv-clip": fused("FusedConv", ["x", "w"], IMAGE, KERNEL, activation="Clip", activation_params=[-0.5, 0.5]),
    "FusedConv-sum": fused(
        "FusedConv",
        ["x", "w", "b", "z"],
        IMAGE | {"z": [2, 4, 5, 5]},
        KERNEL,
        activation="LeakyRelu",
        activation_params=[0.2],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fused_op_agrees_with_onnx_runtime(name: str) -> None:
    graph = assert_agrees(CASES[name], seed=sum(map(ord, name)))
    assert not any(isinstance(node.op, OnnxHost) for node in graph.nodes)


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (fused("NhwcThing", ["x"], X), "has no such operator"),
        (
            fused("MultiHeadAttention", ["q", "k", "v", "", "", "", "p", "p"], QKV | {"p": [2, 3, 1, 4]}, num_heads=3),
            "past keys and values",
        ),
        (fused("FusedConv", ["x", "w"], IMAGE, KERNEL, activation="Magic"), "activation 'Magic'"),
        (
            fused("Attention", ["x", "w", "b", "m"], WORDS, PROJECTION | {"m": np.ones(6, np.int32)}, num_heads=3),
            "mask of the form",
        ),
    ],
)
def test_form_that_is_not_supported_is_refused(proto: onnx.ModelProto, text: str) -> None:
    with pytest.raises(UnsupportedError, match="com.microsoft") as caught:
        import_onnx(proto)
    assert text in str(caught.value)
