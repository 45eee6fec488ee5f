# SPDX-License-Identifier: Apache-2.0
"""Calls of functions: their bodies in the place of calls, whatever names, attributes and outputs they use."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import TensorwrightError
from tensorwright.importers.base import import_model
from tests.importers.tensorflow.functions import FunctionWriter, call, i32
from tests.importers.tensorflow.graphs import TfWriter

Array = np.ndarray[Any, Any]
rng = np.random.default_rng()


def run(g: TfWriter, folder: pathlib.Path, outputs: list[str], **feeds: Array) -> list[Array]:
    engine = tw.build(g.save(folder / "net.pb"), outputs=outputs, target="reference")
    results = engine.run(feeds)
    return [results[name] for name in outputs]


def refused(g: TfWriter, folder: pathlib.Path, *outputs: str) -> TensorwrightError:
    with pytest.raises(TensorwrightError) as caught:
        import_model(g.save(folder / "net.pb"), outputs=list(outputs))
    return caught.value


def test_outputs_may_be_those_of_a_call(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 6))
    f = FunctionWriter(g, "parts", {"v": 1})
    f.node("Split", f.constant(i32(1)), "v", name="s", num_split=3)
    f.result(last="s:output:2", first="s:output:0", given="v")
    call(g, "StatefulPartitionedCall", x, name="c", f="parts")
    data = rng.standard_normal((2, 6)).astype(np.float32)
    last, first, given = run(g, tmp_path, ["c", "c:1", "c:2"], x=data)
    np.testing.assert_array_equal(last, data[:, 4:])
    np.testing.assert_array_equal(first, data[:, :2])
    np.testing.assert_array_equal(given, data)


def test_calls_within_calls_and_twice(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    inner = FunctionWriter(g, "inner", {"v": 1})
    inner.result(r=inner.node("AddV2", "v", "v", name="twice"))
    outer = FunctionWriter(g, "outer", {"v": 1, "w": 1})
    call(outer, "PartitionedCall", "w", name="first", f="inner")
    call(outer, "PartitionedCall", "first:output:0", name="second", f="inner")
    outer.result(r=outer.node("Sub", "second:output:0", "v", name="minus"))
    call(g, "PartitionedCall", x, x, name="c", f="outer")
    data = rng.standard_normal(3).astype(np.float32)
    np.testing.assert_allclose(run(g, tmp_path, ["c"], x=data)[0], 3 * data, rtol=1e-6)


def test_function_as_the_op_of_a_node_with_attributes_of_the_call(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))
    f = FunctionWriter(g, "Summed", {"v": 1})
    f.node("Sum", "v", f.constant(i32(1)), name="s")
    f.graph.node[-1].attr["keep_dims"].placeholder = "keep"
    f.result(r="s:output:0")
    g.node("Summed", x, name="kept", keep=True)
    g.node("Summed", x, name="dropped", keep=False)
    data = rng.standard_normal((2, 3)).astype(np.float32)
    kept, dropped = run(g, tmp_path, ["kept", "dropped"], x=data)
    np.testing.assert_allclose(kept, data.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)
    assert dropped.shape == (2,)


def test_function_without_results_is_nothing_to_compute(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    f = FunctionWriter(g, "checks", {"v": 1})
    f.node("Assert", "v", name="a")
    f.result()
    call(g, "PartitionedCall", x, name="c", f="checks")
    g.node("Relu", x, "^c", name="y")
    assert import_model(g.save(tmp_path / "net.pb")).output_names == ("y",)


def test_unknown_function_wrong_arguments_and_lost_results(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    f = FunctionWriter(g, "two", {"v": 1, "w": 1})
    f.result(r="nobody:output:0")
    call(g, "PartitionedCall", x, name="short", f="two")
    call(g, "PartitionedCall", x, name="lost", f="gone")
    error = refused(g, tmp_path, "short", "lost")
    assert error.code == "M104"
    for text in ("1 of 2 arguments", "'gone', which is not there", "nothing makes 'nobody:output:0'"):
        assert text in str(error)


def test_functions_that_double_again_and_again_are_stopped(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorwright.importers.tensorflow.graph_def._MOST_NODES", 2000)
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    for level in range(40):
        f = FunctionWriter(g, f"f{level}", {"v": 1})
        for name in ("a", "b"):
            call(f, "PartitionedCall", "v", name=name, f=f"f{level + 1}")
        f.result(r=f.node("Add", "a:output:0", "b:output:0", name="sum"))
    last = FunctionWriter(g, "f40", {"v": 1})
    last.result(r="v")
    call(g, "PartitionedCall", x, name="c", f="f0")
    error = refused(g, tmp_path, "c")
    assert error.code == "M104" and "nodes" in str(error)
