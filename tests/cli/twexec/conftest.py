# SPDX-License-Identifier: Apache-2.0
"""Plans and models that the tests of twexec share."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensorwright as tw
from tests.cli.twexec.running import LENET


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The bundled LeNet, f32[1,1,28,28] -> f32[1,10], as a plan."""
    path = tmp_path_factory.mktemp("twexec") / "lenet.plan"
    tw.build(LENET, tune="off").save(path)
    return path


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """ "in:0" f32[n,3,h,8] -> conv, relu, mean over the image -> "mean" f32[n,4,1,1]."""
    weights = numpy_helper.from_array(np.linspace(-1, 1, 108, dtype=np.float32).reshape(4, 3, 3, 3), "w")
    nodes = [
        helper.make_node("Conv", ["in:0", "w"], ["c"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="stem_relu"),
        helper.make_node("ReduceMean", ["r"], ["mean"], name="average", axes=[2, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "dynamic",
        [helper.make_tensor_value_info("in:0", TensorProto.FLOAT, ["n", 3, "h", 8])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)],
        [weights],
    )
    return _saved(graph, tmp_path_factory.mktemp("twexec") / "dynamic.onnx")


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """ "x" i64[6] -> "where" i64[1,?], a size that the data decides, and "twice" i64[6]."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="non_zero"),
        helper.make_node("Add", ["x", "x"], ["twice"], name="add"),
    ]
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [6])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("where", "twice")],
    )
    return _saved(graph, tmp_path_factory.mktemp("twexec") / "counting.onnx")


def _saved(graph: onnx.GraphProto, path: pathlib.Path) -> pathlib.Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
