# SPDX-License-Identifier: Apache-2.0
"""LSTM and RNN against a loop over steps."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.importers.caffe.reader import import_caffe
from tests.importers.caffe.writer import Array, Fields, check, engines, inputs, layer, write

RNG = np.random.default_rng()
STEPS, STREAMS, HIDDEN, STATIC = 6, 3, 5, 4


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def run_lstm(
    x: Array, cont: Array, static: Array | None, states: Sequence[Array], blobs: Sequence[Array]
) -> list[Array]:
    """The hidden states, the last of them, the last cell state."""
    blobs = [blob.astype(np.float64) for blob in blobs]
    h, c = (state[0].astype(np.float64) for state in states)
    ys = []
    for t in range(len(x)):
        mark = cont[t][:, None]
        z = x[t].reshape(x.shape[1], -1) @ blobs[0].T + blobs[1] + (mark * h) @ blobs[-1].T
        if static is not None:
            z = z + static.reshape(len(static), -1) @ blobs[2].T
        i, f, o, g = np.split(z, 4, 1)
        c = mark * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return [np.stack(ys), h[None], c[None]]


def run_rnn(
    x: Array, cont: Array, static: Array | None, states: Sequence[Array], blobs: Sequence[Array]
) -> list[Array]:
    """The outputs, and the last hidden state."""
    blobs = [blob.astype(np.float64) for blob in blobs]
    h, ys = states[0][0].astype(np.float64), []
    for t in range(len(x)):
        z = x[t].reshape(x.shape[1], -1) @ blobs[0].T + blobs[1] + (cont[t][:, None] * h) @ blobs[-3].T
        if static is not None:
            z = z + static.reshape(len(static), -1) @ blobs[2].T
        h = np.tanh(z)
        ys.append(np.tanh(h @ blobs[-2].T + blobs[-1]))
    return [np.stack(ys), h[None]]


def marks(kind: str) -> Array:
    if kind == "random":
        return RNG.integers(0, 2, (STEPS, STREAMS)).astype(np.float32)
    cont = np.ones((STEPS, STREAMS), np.float32)
    if kind == "first":
        cont[0] = 0
    return cont


def blobs_of(kind: str, size: int, static: bool) -> list[Array]:
    gates = 4 if kind == "LSTM" else 1
    shapes = [(gates * HIDDEN, size), (gates * HIDDEN,)]
    shapes += [(gates * HIDDEN, 2 * STATIC)] if static else []
    shapes += [(gates * HIDDEN, HIDDEN), *([(HIDDEN, HIDDEN), (HIDDEN,)] if kind == "RNN" else [])]
    return [RNG.standard_normal(shape).astype(np.float32) * np.float32(0.5) for shape in shapes]


def network(kind: str, static: bool, exposed: bool, cont: list[Fields]) -> list[Fields]:
    states = (["h0", "c0"] if kind == "LSTM" else ["h0"]) if exposed else []
    tops = ["y", *(["h", "c"] if kind == "LSTM" else ["h"])][: 1 + len(states)]
    bottoms = ["x", "cont", *(["s"] if static else []), *states]
    p = {"num_output": HIDDEN, "expose_hidden": exposed}
    return [*cont, layer(kind, bottoms, tops, "net", recurrent_param=p)]


def constant_marks(cont: Array) -> list[Fields]:
    """Two DummyData layers, one above the other."""
    tops, shapes = [], []
    for number in range(2):
        rows = cont[:1] if number == 0 else cont[1:]
        tops.append(layer("DummyData", (), (f"cont{number}",), dummy_data_param={
            "data_filler": {"value": float(rows[0, 0])}, "shape": {"dim": list(rows.shape)},
        }))  # fmt: skip
        shapes.append(rows.shape)
    return [*tops, layer("Concat", ("cont0", "cont1"), ("cont",), concat_param={"axis": 0})]


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("static", [False, True], ids=["", "static"])
@pytest.mark.parametrize("exposed", [False, True], ids=["", "exposed"])
@pytest.mark.parametrize("cont", ["random", "first", "constant_first", "constant"])
def test_recurrent_layer_is_a_loop(kind: str, static: bool, exposed: bool, cont: str, tmp_path: pathlib.Path) -> None:
    known = cont.startswith("constant")
    mark = marks("first" if cont.endswith("first") else cont)
    feeds: dict[str, Array] = {"x": RNG.standard_normal((STEPS, STREAMS, 2, 3)).astype(np.float32)}
    if not known:
        feeds["cont"] = mark
    if static:
        feeds["s"] = RNG.standard_normal((STREAMS, STATIC, 2)).astype(np.float32)
    initial = [np.zeros((1, STREAMS, HIDDEN), np.float32)] * 2
    if exposed:
        initial = [RNG.standard_normal((1, STREAMS, HIDDEN)).astype(np.float32) for _ in range(2)]
        feeds.update(zip(["h0", "c0"] if kind == "LSTM" else ["h0"], initial, strict=False))
    blobs = blobs_of(kind, 6, static)
    run = run_lstm if kind == "LSTM" else run_rnn
    results = run(feeds["x"], mark, feeds.get("s"), initial, blobs)
    names = [*(["c"] if kind == "LSTM" and exposed else []), *(["h"] if exposed else []), "y"]
    by_name = dict(zip(["y", "h", "c"], results, strict=False))
    layers = network(kind, static, exposed, constant_marks(mark) if known else [])
    check(tmp_path, layers, feeds, {name: by_name[name] for name in names}, {"net": blobs})
    prototxt = write(tmp_path, [*inputs({n: a.shape for n, a in feeds.items()}), *layers])[0]
    kinds = {node.op.kind for node in import_caffe(prototxt).nodes}
    assert (kind.lower() in kinds) == known and ("scan" in kinds) == (not known)


def test_steps_and_streams_may_be_symbolic(tmp_path: pathlib.Path) -> None:
    blobs = blobs_of("LSTM", 7, static=False)
    layers = [*inputs({"x": (2, 1, 7), "cont": (2, 1)}), *network("LSTM", False, False, [])]
    shapes = {"x": tw.Range((1, 1, 7), (6, 2, 7), (9, 4, 7)), "cont": tw.Range((1, 1), (6, 2), (9, 4))}
    for engine in engines(tmp_path, layers, {"net": blobs}, shapes=shapes):
        for steps, streams in ((1, 1), (6, 3), (9, 4)):
            x = RNG.standard_normal((steps, streams, 7)).astype(np.float32)
            cont = RNG.integers(0, 2, (steps, streams)).astype(np.float32)
            zeros = [np.zeros((1, streams, HIDDEN), np.float32)] * 2
            expected = run_lstm(x, cont, None, zeros, blobs)[0]
            np.testing.assert_allclose(engine.run({"x": x, "cont": cont})["y"], expected, rtol=1e-4, atol=1e-5)


def test_two_layers_read_each_other(tmp_path: pathlib.Path) -> None:
    x, cont = RNG.standard_normal((STEPS, STREAMS, 6)).astype(np.float32), marks("random")
    first, second = blobs_of("LSTM", 6, static=False), blobs_of("LSTM", HIDDEN, static=False)
    p = {"recurrent_param": {"num_output": HIDDEN}}
    layers = [layer("LSTM", ("x", "cont"), ("a",), "one", **p), layer("LSTM", ("a", "cont"), ("y",), "two", **p)]
    zeros = [np.zeros((1, STREAMS, HIDDEN), np.float32)] * 2
    expected = run_lstm(run_lstm(x, cont, None, zeros, first)[0], cont, None, zeros, second)[0]
    check(tmp_path, layers, {"x": x, "cont": cont}, {"y": expected}, {"one": first, "two": second})


def test_lstm_unit_is_one_step(tmp_path: pathlib.Path) -> None:
    feeds = {
        "c": RNG.standard_normal((1, STREAMS, HIDDEN)).astype(np.float32),
        "z": RNG.standard_normal((1, STREAMS, 4 * HIDDEN)).astype(np.float32),
        "cont": marks("random")[:1],
    }
    i, f, o, g = np.split(feeds["z"], 4, 2)
    c = feeds["cont"][..., None] * sigmoid(f) * feeds["c"] + sigmoid(i) * np.tanh(g)
    layers = [layer("LSTMUnit", ("c", "z", "cont"), ("c1", "h1"))]
    check(tmp_path, layers, feeds, {"c1": c, "h1": sigmoid(o) * np.tanh(c)})


BAD: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]], str]] = {
    "no_output": ({}, {"x": (4, 2, 3), "cont": (4, 2)}, "it has no num_output"),
    "marks": ({"num_output": 3}, {"x": (4, 2, 3), "cont": (4, 3)}, r"it takes x \[steps,streams,...\] and cont"),
    "rank": ({"num_output": 3}, {"x": (4, 2), "cont": (4, 2)}, r"it takes x \[steps,streams,...\] and cont"),
    "static": ({"num_output": 3}, {"x": (4, 2, 3), "cont": (4, 2), "s": (3, 5)}, "its x_static is"),
    "bottoms": ({"num_output": 3}, {"x": (4, 2, 3)}, "it takes 2 to 3 bottoms, it has 1"),
    "states": (
        {"num_output": 3, "expose_hidden": True},
        {"x": (4, 2, 3), "cont": (4, 2), "h": (1, 2, 4), "c": (1, 2, 3)},
        r"its states are f32\[1,2,4\], f32\[1,2,3\], not \[1,2,3\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_recurrent_layer_that_contradicts_itself_is_a_mistake(name: str, tmp_path: pathlib.Path) -> None:
    p, shapes, why = BAD[name]
    tops = ("y", "h_t", "c_t") if p.get("expose_hidden") else ("y",)
    layers = [*inputs(shapes), layer("LSTM", list(shapes), tops, recurrent_param=p)]
    with pytest.raises(ModelError, match=why) as caught:
        tw.build(write(tmp_path, layers)[0], target="reference")
    assert caught.value.code == "M104"
