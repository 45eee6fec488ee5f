# SPDX-License-Identifier: Apache-2.0
"""ONNX ops that count along dims which only a run knows: built once for a range, run at many sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw
from tensorwright.errors import UnsupportedError
from tensorwright.importers.onnx.reader import import_onnx
from tests.networks.nets import Writer

ort = pytest.importorskip("onnxruntime", reason="the oracle")

MICROSOFT = "com.microsoft"
SIZES = [(1, 1), (3, 7), (2, 8), (5, 20)]
LEAST, USUAL, MOST = SIZES[0], (3, 8), SIZES[-1]


def _model(w: Writer, *outputs: str) -> bytes:
    infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(w.nodes, "net", w.inputs, infos, w.inits)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    for node in model.graph.node:
        node.domain = MICROSOFT if node.op_type in ("MultiHeadAttention", "RotaryEmbedding") else node.domain
    return bytes(model.SerializeToString())


def check(w: Writer, *outputs: str, lengths: bool = False, least: tuple[int, int] = LEAST) -> None:
    """Inputs are normal f32 or i64 in 0..3, dims "b" and "s" in the ranges above. `outputs` must have no host steps."""
    rng = np.random.default_rng()
    model = _model(w, *outputs)

    def sized(info: onnx.ValueInfoProto, b: int, s: int) -> tuple[int, ...]:
        return tuple({"b": b, "s": s}.get(d.dim_param, d.dim_value) for d in info.type.tensor_type.shape.dim)

    def feed(info: onnx.ValueInfoProto, b: int, s: int) -> np.ndarray:
        shape = sized(info, b, s)
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            return rng.standard_normal(shape, dtype=np.float32)
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        return rng.integers(1, s + 1, shape).astype(dtype) if lengths else rng.integers(0, 4, shape).astype(dtype)

    shapes = {i.name: tw.Range(*(sized(i, *p) for p in (least, USUAL, MOST))) for i in w.inputs}
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with tw.build(model, shapes=shapes, tune="off") as engine:
        assert not engine.notes, engine.notes
        for b, s in [p for p in SIZES if p[0] >= least[0] and p[1] >= least[1]]:
            feeds = {i.name: feed(i, b, s) for i in w.inputs}
            got = engine.run(feeds)
            for name, want in zip(outputs, session.run(None, feeds), strict=True):
                np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-5, err_msg=f"{name} at {b}, {s}")


def _length(w: Writer, x: str, axis: int) -> str:
    return w.op("Gather", w.op("Shape", x), w.const(np.int64(axis)))


def test_ranges_between_dims() -> None:
    w = Writer()
    x = w.input("x", "b", "s")
    b, s, one = _length(w, x, 0), _length(w, x, 1), w.const(np.int64(1))
    places = w.op("Cast", w.op("Range", w.const(np.int64(0)), s, one), to=TensorProto.FLOAT)
    behind = w.op("Cast", w.op("Range", b, w.op("Add", b, s), one), to=TensorProto.FLOAT)
    check(w, w.op("Add", x, places), w.op("Mul", x, behind))


@pytest.mark.parametrize("upper,k", [(1, 0), (0, 0), (1, 2), (0, -3)])
def test_triangles_of_symbolic_matrices(upper: int, k: int) -> None:
    w = Writer()
    check(w, w.op("Trilu", w.input("x", 2, "b", "s"), w.const(np.int64(k)), upper=upper))


def test_diagonals_of_symbolic_matrices() -> None:
    w = Writer()
    x = w.input("x", "b", "s")
    check(w, w.op("Add", x, w.op("EyeLike", x, k=1)))


def test_equal_parts_of_a_symbolic_dim() -> None:
    w = Writer()
    x = w.input("x", "b", "s", 6)
    doubled = w.op("Concat", x, x, axis=1)
    parts = [w.op("Split", doubled, n=2, axis=1, num_outputs=2)]
    uneven = [w.op("Split", x, n=3, axis=1, num_outputs=3)]
    check(w, parts[0], parts[0][:-1] + "1", uneven[0], uneven[0][:-1] + "2", least=(2, 8))


@pytest.mark.parametrize("start,step", [(-1, -1), (-1, -2), (2**62, -3)])
def test_slices_walk_a_symbolic_dim_backwards(start: int, step: int) -> None:
    w = Writer()
    x = w.input("x", "b", "s", 6)
    check(w, w.op("Slice", x, w.ints(start), w.ints(-(2**62)), w.ints(1), w.ints(step)))


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("how", [{}, {"softcap": 2.0}])
def test_causal_attention_of_symbolic_lengths(past: bool, how: dict[str, float]) -> None:
    w = Writer()
    q, k, v = (w.input(name, "b", 2, "s", 8) for name in "qkv")
    caches = ["", w.input("pk", "b", 2, 5, 8), w.input("pv", "b", 2, 5, 8)] if past else []
    y = w.op("Attention", q, k, v, *caches, n=3 if past else 1, is_causal=1, **how)
    check(w, y)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_by_heads_with_lengths_of_keys(causal: int) -> None:
    w = Writer()
    q, k, v = (w.input(name, "b", "s", 16) for name in "qkv")
    lengths = w.input("lengths", "b", dtype=TensorProto.INT32)
    check(w, w.op("MultiHeadAttention", q, k, v, "", lengths, num_heads=2, unidirectional=causal), lengths=True)


def test_rotary_embedding_of_a_symbolic_sequence() -> None:
    w = Writer()
    start = w.const(np.array([3], np.int64))
    table = w.weight(40, 4), w.weight(40, 4)
    check(w, w.op("RotaryEmbedding", w.input("x", "b", 2, "s", 8), start, *table))


@pytest.mark.parametrize("pads", [(0, 1, 2, 0, 3, 0), (0, 0, -2, 0, 4, 1)])
def test_pads_of_symbolic_dims(pads: tuple[int, ...]) -> None:
    w = Writer()
    check(w, w.op("Pad", w.input("x", "b", "s", 6), w.ints(*pads), w.const(np.float32(2.5))))


def test_reflected_pads_beside_symbolic_dims() -> None:
    w = Writer()
    check(w, w.op("Pad", w.input("x", "b", "s", 6), w.ints(0, 0, 2, 0, 0, 3), mode="reflect"))


def test_repetitions_of_symbolic_dims() -> None:
    w = Writer()
    check(w, w.op("Tile", w.input("x", "b", "s", 6), w.ints(2, 3, 1)))


def test_rows_of_f64_with_symbolic_sizes() -> None:
    w = Writer()
    x = w.op("Cast", w.input("x", "b", "s", 6), to=TensorProto.DOUBLE)
    scale = w.const(np.linspace(0.5, 1.5, 6))
    y = w.op("Softmax", w.op("LayerNormalization", x, scale, axis=-1), axis=1)
    check(w, w.op("Cast", y, to=TensorProto.FLOAT))


@pytest.mark.parametrize("kind,gates", [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_of_symbolic_batches_and_lengths(kind: str, gates: int) -> None:
    w = Writer()
    x = w.input("x", "s", "b", 6)
    given = w.weight(2, gates * 10, 6), w.weight(2, gates * 10, 10)
    y = w.op(kind, x, *given, n=2, direction="bidirectional", hidden_size=10)
    joined = w.op("Reshape", w.op("Transpose", y, perm=[0, 2, 1, 3]), w.ints(0, 0, -1))
    check(w, w.linear(joined, 20, 7), y[:-1] + "1")


def test_dims_without_bounds_are_refused() -> None:
    w = Writer()
    y = w.op("Trilu", w.input("x", "b", "s"))
    with pytest.raises(UnsupportedError, match=r"has no bounds(.|\n)*shapes="):
        import_onnx(_model(w, y), host_ops=False)
