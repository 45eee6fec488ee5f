# SPDX-License-Identifier: Apache-2.0
"""Results whose size only the data decides, as generated code, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper

import tensorwright as tw
from tensorwright.errors import InputError
from tensorwright.ir.op import Array

Ends = Mapping[str, tuple[int, Sequence[int | str]]]


def model(nodes: Sequence[onnx.NodeProto], inputs: Ends, outputs: Mapping[str, int]) -> onnx.ModelProto:
    ins = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outs = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(list(nodes), "decided", ins, outs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def check(proto: onnx.ModelProto, engine: tw.Engine, feeds: Mapping[str, Array]) -> None:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(None, dict(feeds))
    for (name, got), expected in zip(engine.run(feeds).items(), want, strict=True):
        assert got.shape == expected.shape, name
        np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", [T.FLOAT, T.INT64, T.UINT8, T.BOOL])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_non_zero_of_fixed_shapes(dtype: int, shape: tuple[int, ...]) -> None:
    proto = model([helper.make_node("NonZero", ["x"], ["y"])], {"x": (dtype, shape)}, {"y": T.INT64})
    engine = tw.build(proto, host_steps=False)
    for density in (0.0, 0.4, 1.0):
        x = np.random.default_rng().random(shape) < density
        check(proto, engine, {"x": x.astype(helper.tensor_dtype_to_np_dtype(dtype))})


def test_shapes_that_follow_from_a_decided_size() -> None:
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["values", "places"], axis=1),
        helper.make_node("Shape", ["values"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Softmax", ["values"], ["shares"], axis=1),
    ]
    kinds = {"values": T.FLOAT, "places": T.INT64, "shape": T.INT64, "zeros": T.FLOAT, "shares": T.FLOAT}
    proto = model(nodes, {"x": (T.FLOAT, ("n", "m")), "k": (T.INT64, (1,))}, kinds)
    engine = tw.build(proto, shapes={"x": tw.Range((1, 4), (4, 9), (6, 33))}, host_steps=False, tune="off")
    rng = np.random.default_rng()
    for n, m, k in ((1, 4, 4), (6, 33, 17), (2, 9, 0), (4, 9, 1)):
        check(proto, engine, {"x": rng.standard_normal((n, m), dtype=np.float32), "k": np.array([k])})
    for k in (10, -1):  # beyond the axis of this run, and none at all
        with pytest.raises(InputError, match="I131"):
            engine.run({"x": np.zeros((2, 9), np.float32), "k": np.array([k])})
    check(proto, engine, {"x": rng.standard_normal((2, 9), dtype=np.float32), "k": np.array([9])})


def test_only_the_count_is_asked() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Shape", ["at"], ["y"])]
    proto = model(nodes, {"x": (T.FLOAT, (3, 5))}, {"y": T.INT64})
    engine = tw.build(proto, host_steps=False)
    check(proto, engine, {"x": np.eye(3, 5, dtype=np.float32)})


@pytest.mark.parametrize("centers", [0, 1])
@pytest.mark.parametrize("limits", [(0, 0, 0), (3, 0.5, 0.2), (20, 0.3, -1.0), (2, 0.0, 0.5)])
def test_non_max_suppression(centers: int, limits: tuple[float, ...]) -> None:
    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores", "k", "iou", "least"], ["y"], center_point_box=centers
    )
    proto = model(
        [node],
        {
            "boxes": (T.FLOAT, ("n", "b", 4)),
            "scores": (T.FLOAT, ("n", 3, "b")),
            "k": (T.INT64, (1,)),
            "iou": (T.FLOAT, (1,)),
            "least": (T.FLOAT, (1,)),
        },
        {"y": T.INT64},
    )
    shapes = {
        "boxes": tw.Range((1, 1, 4), (2, 20, 4), (3, 60, 4)),
        "scores": tw.Range((1, 3, 1), (2, 3, 20), (3, 3, 60)),
    }
    engine = tw.build(proto, shapes=shapes, host_steps=False, tune="off")
    rng = np.random.default_rng()
    for n, b in ((1, 1), (3, 60), (2, 31)):
        boxes = rng.random((n, b, 4), dtype=np.float32)
        feeds = {
            "boxes": boxes,
            "scores": rng.random((n, 3, b), dtype=np.float32),
            "k": np.array([limits[0]], np.int64),
            "iou": np.array([limits[1]], np.float32),
            "least": np.array([limits[2]], np.float32),
        }
        check(proto, engine, feeds)


def test_a_decided_size_passes_through_host_steps() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["at"]),
        helper.make_node("Unique", ["x"], ["kinds"], sorted=1),
        helper.make_node("Gather", ["x", "rows"], ["found"], axis=0),
        helper.make_node("Squeeze", ["first"], ["rows"]),
        helper.make_node("Slice", ["at", "zero", "one", "zero"], ["first"]),
        helper.make_node("Relu", ["kinds"], ["y"]),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
    ]
    order = [6, 7, 0, 1, 4, 3, 2, 5]
    proto = model([nodes[i] for i in order], {"x": (T.FLOAT, ("n", 3))}, {"found": T.FLOAT, "y": T.FLOAT})
    engine = tw.build(proto, shapes={"x": tw.Range((2, 3), (4, 3), (9, 3))}, tune="off")
    rng = np.random.default_rng()
    for n in (2, 9, 5):
        check(proto, engine, {"x": rng.integers(-1, 3, (n, 3)).astype(np.float32) + np.eye(n, 3, dtype=np.float32)})
