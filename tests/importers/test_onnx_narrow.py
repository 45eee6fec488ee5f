# SPDX-License-Identifier: Apache-2.0
"""Softmax and attention of half-width floats: short rows equal ONNX's reference, long rows are close to the truth."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tensorwright.builder import build
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.op import Array
from tensorwright.ops.reduce import Softmax
from tensorwright.passes.pipeline import optimise

BF16, F16, F32 = TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT
NUMPY = {BF16: np.dtype(ml_dtypes.bfloat16), F16: np.dtype(np.float16), F32: np.dtype(np.float32)}


def model(kind: str, dtype: int, shapes: dict[str, list[int]], shape: list[int], **attributes: object) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, dtype, dims) for name, dims in shapes.items()]
    outputs = [helper.make_tensor_value_info("y", dtype, shape)]
    graph = helper.make_graph([helper.make_node(kind, list(shapes), ["y"], **attributes)], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def random(shape: list[int], dtype: int, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng().standard_normal(shape)).astype(NUMPY[dtype])


def same(got: Array, want: Array) -> bool:
    """Equal but for a few elements that fall on the other side of a rounding: exp has its own last place."""
    step = 2.0**-7 if want.dtype == NUMPY[BF16] else 2.0**-10
    wide = [x.astype(np.float64) for x in (got, want)]
    return bool((got != want).mean() <= 0.02 and np.allclose(*wide, rtol=2 * step, atol=1e-7))


@pytest.mark.parametrize(
    ("dtype", "shape", "axis"),
    [
        *((dtype, shape, -1) for dtype in (BF16, F16) for shape in ([40, 1], [40, 2, 6], [300, 8])),
        (BF16, [3, 8, 40], 1),  # NumPy rounds the partial sums of f16 only where elements are apart in memory
    ],
)
def test_softmax_of_short_narrow_rows_equals_the_reference(dtype: int, shape: list[int], axis: int) -> None:
    proto, x = model("Softmax", dtype, {"x": shape}, shape, axis=axis), random(shape, dtype, 2.0)
    (want,) = ReferenceEvaluator(proto).run(None, {"x": x})
    with build(proto, tune="off") as engine:
        assert same(engine.run({"x": x})["y"], want)
        assert engine.report()["host_steps"] == []


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("heads", [3, 1])
def test_attention_over_few_narrow_keys_equals_the_reference(dtype: int, heads: int) -> None:
    shapes = {"q": [2, 3, 40, 8], "k": [2, heads, 6, 8], "v": [2, heads, 6, 10], "mask": [40, 6]}
    proto = model("Attention", dtype, shapes, [2, 3, 40, 10], scale=0.3)
    feeds = {name: random(shape, dtype) for name, shape in shapes.items()}
    (want,) = ReferenceEvaluator(proto).run(None, feeds)
    with build(proto, tune="off") as engine:
        assert same(engine.run(feeds)["y"], want)


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_softmax_of_long_narrow_rows_rounds_once(dtype: int) -> None:
    """All probabilities are 1/n: a chain of rounded sums would stop growing and make them several times too large."""
    proto, x = model("Softmax", dtype, {"x": [2, 5000]}, [2, 5000]), np.zeros((2, 5000), NUMPY[dtype])
    with build(proto, tune="off") as engine:
        assert np.allclose(engine.run({"x": x})["y"].astype(np.float64), 1 / 5000, rtol=2.0**-7)


@pytest.mark.parametrize(
    ("dtype", "length", "merged"), [(F16, 6, False), (BF16, 6, False), (F16, 60, True), (F32, 6, True)]
)
def test_arithmetic_of_softmax_is_merged_unless_its_roundings_count(dtype: int, length: int, merged: bool) -> None:
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceMax", ["x", "axes"], ["m"]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Exp", ["d"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["s"]),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, dtype, [3, length]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [axes])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    made = optimise(import_onnx(proto)).graph
    assert any(isinstance(node.op, Softmax) for node in made.nodes) is merged
