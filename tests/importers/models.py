# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the importer's tests, and their check against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tensorwright.backends.reference.interpret import interpret
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph

Array = np.ndarray[Any, Any]
Shape = Sequence[int | str | None]
RTOL = 1e-4


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), name: str = "", **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None] | Sequence[str] = ("y",),
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    kinds: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Inputs and outputs are f32 unless `kinds` says otherwise; an output without a shape declares none."""
    kinds = kinds or {}
    shapes = dict(outputs) if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result.ir_version = 8 if opset < 20 else 10
    return result


def feeds_for(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Random arrays for all inputs: floats N(0, 1), small non-negative integers, bools."""
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        shape, dtype = value.type.static_shape, value.type.dtype
        if dtype.is_float:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype.numpy)
        else:
            feeds[value.name] = rng.integers(0, 2 if dtype is DType.bool else 3, shape).astype(dtype.numpy)
    return feeds


def runtime_outputs(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(a) for a in session.run(None, dict(feeds))]


def assert_agrees(proto: onnx.ModelProto, *, seed: int, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The imported graph gives what ONNX Runtime gives, under the model's output names."""
    graph = import_onnx(proto, shapes=shapes)
    feeds = feeds_for(graph, np.random.default_rng(seed))
    found = interpret(graph, feeds)
    assert list(found) == [o.name for o in proto.graph.output]
    for (name, got), want in zip(found.items(), runtime_outputs(proto, feeds), strict=True):
        where = f"output {name!r}, seed {seed}"
        assert (got.dtype, got.shape) == (want.dtype, want.shape), where
        finite = np.abs(want[np.isfinite(want)]) if want.dtype.kind == "f" else np.zeros(0)
        np.testing.assert_allclose(
            got, want, rtol=RTOL if finite.size else 0, atol=RTOL * finite.max(initial=0), err_msg=where
        )
    return graph
