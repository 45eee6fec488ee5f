# SPDX-License-Identifier: Apache-2.0
"""Transformers whose batch and sequence are known only in a run, built once and run at many sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import tensorwright as tw
from tests.networks.nets import Writer

ort = pytest.importorskip("onnxruntime", reason="the oracle of whole networks")

Feeds = dict[str, np.ndarray]
FeedsOf = Callable[[int, int, np.random.Generator], Feeds]
BATCHES, LENGTHS = (1, 4, 9), (1, 24, 70)
SIZES = [(1, 1), (1, 24), (4, 24), (3, 17), (9, 70), (2, 33), (5, 16)]


def _block(w: Writer, x: str, d: int, heads: int, mask: str | None, split: Callable[[str], str], join: str) -> str:
    """A post-norm block; `split` reshapes [b, s, d] to [b, s, heads, d / heads], `join` is the shape after."""
    q, k, v = (split(w.linear(x, d, d)) for _ in range(3))
    q, v = (w.op("Transpose", y, perm=[0, 2, 1, 3]) for y in (q, v))
    s = w.op("MatMul", q, w.op("Transpose", k, perm=[0, 2, 3, 1]))
    s = w.op("Mul", s, w.const(np.float32((d // heads) ** -0.5)))
    s = w.op("Softmax", w.op("Add", s, mask) if mask else s, axis=-1)
    y = w.op("Reshape", w.op("Transpose", w.op("MatMul", s, v), perm=[0, 2, 1, 3]), join)
    x = w.norm(w.op("Add", x, w.linear(y, d, d)), d)
    y = w.linear(x, d, 2 * d)
    y = w.op("Mul", y, w.op("Sigmoid", w.op("Mul", y, w.const(np.float32(1.702)))))
    return w.norm(w.op("Add", x, w.linear(y, 2 * d, d)), d)


def _sizes(w: Writer, x: str) -> tuple[str, str]:
    """The first two dims of x as exporters write them."""
    shape = w.op("Shape", x)
    first, second = (w.op("Gather", shape, w.const(np.int64(i)), axis=0) for i in (0, 1))
    return w.op("Unsqueeze", first, w.ints(0)), w.op("Unsqueeze", second, w.ints(0))


def bert(mask_kind: str) -> onnx.ModelProto:
    """Tokens with positions sliced to their number, a mask by addition or by Where, pooled first token."""
    w, d, heads = Writer(11), 24, 3
    ids, att = (w.input(n, "batch", "seq", dtype=TensorProto.INT64) for n in ("input_ids", "attention_mask"))
    b, s = _sizes(w, ids)
    positions = w.op("Slice", w.const(np.arange(80)[None]), w.ints(0), s, w.ints(1))
    x = w.op("Add", w.op("Gather", w.weight(50, d), ids), w.op("Gather", w.weight(80, d), positions))
    x = w.norm(x, d)
    mask = w.op("Unsqueeze", att, w.ints(1, 2))
    if mask_kind == "where":
        mask = w.op("Expand", mask, w.op("Concat", b, w.ints(1), s, s, axis=0))
        mask = w.op("Cast", mask, to=TensorProto.FLOAT)
        off = w.op("Cast", w.op("Sub", w.const(np.float32(1)), mask), to=TensorProto.BOOL)
        mask = w.op("Where", off, w.const(np.float32(-3e38)), mask)
    else:
        mask = w.op("Cast", mask, to=TensorProto.FLOAT)
        mask = w.op("Mul", w.op("Sub", w.const(np.float32(1)), mask), w.const(np.float32(-1e4)))
    shape = w.op("Concat", b, s, w.ints(heads, d // heads), axis=0)
    join = w.op("Concat", b, s, w.ints(d), axis=0)
    for _ in range(2):
        x = _block(w, x, d, heads, mask, lambda y: w.op("Reshape", y, shape), join)
    first = w.op("Gather", x, w.const(np.int64(0)), axis=1)
    return w.model(x, w.op("Tanh", w.op("Gemm", first, w.weight(d, d), w.vector(d), transB=1)))


def vit() -> onnx.ModelProto:
    """Patches of images of any size, a class token for each image."""
    w, d = Writer(12), 20
    x = w.op("Conv", w.input("data", "batch", 3, 16, "seq8"), w.weight(d, 3, 8, 8), w.vector(d), strides=[8, 8])
    x = w.op("Transpose", w.op("Reshape", x, w.ints(0, d, -1)), perm=[0, 2, 1])
    shape = w.op("Concat", w.op("Shape", x, start=0, end=1), w.ints(1, d), axis=0)
    x = w.op("Concat", w.op("Expand", w.weight(1, 1, d), shape), x, axis=1)
    x = _block(w, x, d, 2, None, lambda y: w.op("Reshape", y, w.ints(0, 0, 2, d // 2)), w.ints(0, 0, d))
    return w.model(w.linear(w.op("Gather", x, w.const(np.int64(0)), axis=1), d, 9))


def attention_map() -> onnx.ModelProto:
    """Attention whose probabilities are an output: the score matrix must be in memory."""
    w, d = Writer(13), 24
    x = w.input("data", "batch", "seq", d)
    shape = w.ints(0, 0, 3, d // 3)
    q, k, v = (w.op("Reshape", w.linear(x, d, d), shape) for _ in range(3))
    q, k, v = (w.op("Transpose", y, perm=p) for y, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    p = w.op("Softmax", w.op("Mul", w.op("MatMul", q, k), w.const(np.float32(0.3))), axis=-1)
    return w.model(p, w.op("Transpose", w.op("MatMul", p, v), perm=[0, 2, 1, 3]))


def rows(b: int, s: int, rng: np.random.Generator) -> Feeds:
    return {"data": rng.standard_normal((b, s, 24), dtype=np.float32)}


def tokens(b: int, s: int, rng: np.random.Generator) -> Feeds:
    mask = np.arange(s) < np.maximum(1, s - rng.integers(0, 4, (b, 1)))
    return {"input_ids": rng.integers(0, 50, (b, s)), "attention_mask": mask.astype(np.int64)}


def images(b: int, s: int, rng: np.random.Generator) -> Feeds:
    return {"data": rng.standard_normal((b, 3, 16, 8 * s), dtype=np.float32)}


def check(
    model: onnx.ModelProto, feeds_of: Callable[[int, int, np.random.Generator], Feeds], **options: object
) -> None:
    rng = np.random.default_rng()
    ends = [feeds_of(b, s, rng) for b, s in zip(BATCHES, LENGTHS, strict=True)]
    shapes: Mapping[str, tw.Range] = {n: tw.Range(*(e[n].shape for e in ends)) for n in ends[0]}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with tw.build(model, shapes=shapes, **options) as engine:  # type: ignore[arg-type]
        assert not engine.notes, engine.notes
        for b, s in SIZES:
            feeds = feeds_of(b, s, rng)
            got = engine.run(feeds)
            for info, want in zip(session.get_outputs(), session.run(None, feeds), strict=True):
                error = np.abs(got[info.name] - want).max() / np.abs(want).max()
                assert got[info.name].shape == want.shape and error < 1e-4, f"{info.name} at {b}, {s}: error {error}"


@pytest.mark.parametrize("mask_kind", ["add", "where"])
def test_bert_of_symbolic_batch_and_sequence(mask_kind: str) -> None:
    check(bert(mask_kind), tokens, tune="off")


def test_vit_of_symbolic_batch_and_image() -> None:
    check(vit(), images, tune="off")


def test_attention_map_of_symbolic_batch_and_sequence() -> None:
    check(attention_map(), rows, tune="off")


def test_tuned_bert_of_symbolic_batch_and_sequence(tmp_path: Path) -> None:
    check(bert("add"), tokens, timing_cache=tmp_path / "tune.json")
