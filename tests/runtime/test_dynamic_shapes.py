# SPDX-License-Identifier: Apache-2.0
"""One engine for many shapes: ranges, profiles, errors, and what a run may not do."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper

import tensorwright as tw
from tensorwright.backends.cpu import assemble, compile
from tensorwright.errors import InputError, ModelError
from tensorwright.runtime import arena
from tests.networks.nets import Writer


def network() -> onnx.ModelProto:
    """A little of everything: convolution, pool, reshape from a computed shape, matrix product, softmax."""
    w = Writer(3)
    x = w.input("x", "batch", 3, 18, 18)
    y = w.op("Relu", w.conv(x, 3, 8, size=3, s=2))
    y = w.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    rows = w.op("Gather", w.op("Shape", y), w.const(np.array(0)))
    shape = w.op("Concat", w.op("Unsqueeze", rows, w.ints(0)), w.ints(-1), axis=0)
    y = w.op("Softmax", w.linear(w.op("Reshape", y, shape), 8 * 4 * 4, 10), axis=1)
    graph = helper.make_graph(
        w.nodes, "many", w.inputs, [helper.make_tensor_value_info(y, T.FLOAT, ["batch", 10])], w.inits
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


BATCHES = tw.Range((1, 3, 18, 18), (4, 3, 18, 18), (9, 3, 18, 18))


@pytest.fixture(scope="module")
def engine() -> tw.Engine:
    return tw.build(network(), shapes={"x": BATCHES}, tune="off", host_steps=False)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])


def images(batch: int) -> np.ndarray:
    return np.random.default_rng().standard_normal((batch, 3, 18, 18), dtype=np.float32)


def test_every_batch_of_the_range(engine: tw.Engine, session: onnxruntime.InferenceSession) -> None:
    for batch in (4, 1, 9, 2, 7, 4):
        x = images(batch)
        np.testing.assert_allclose(engine(x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-6)


def test_a_run_of_another_shape_compiles_and_allocates_nothing(
    engine: tw.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = engine.create_context()
    context.run({"x": images(4)})
    held = context.memory_bytes, context._arena.address

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a run compiled or allocated")

    for module, name in ((compile, "compile_object"), (assemble, "compile_cached"), (arena, "Arena")):
        monkeypatch.setattr(module, name, refuse)
    for batch in (1, 9, 3):
        out = np.full((batch, 10), np.nan, np.float32)
        result = context.run({"x": images(batch)}, {engine.outputs[0].name: out})
        assert result[engine.outputs[0].name] is out and np.isfinite(out).all()
        assert (context.memory_bytes, context._arena.address) == held


def test_a_run_after_a_refused_one_has_its_own_sizes(engine: tw.Engine, session: onnxruntime.InferenceSession) -> None:
    context, name = engine.create_context(), engine.outputs[0].name
    for _ in range(2):
        for x, out in ((images(4), None), (images(7), {name: np.empty((7, 9), np.float32)}), (images(4), None)):
            if out is None:
                want = session.run(None, {"x": x})[0]
                np.testing.assert_allclose(context.run({"x": x})[name], want, rtol=1e-4, atol=1e-6)
            else:
                with pytest.raises(InputError, match="I103"):
                    context.run({"x": x}, out)


def test_a_shape_out_of_range_is_an_error_that_shows_it(engine: tw.Engine) -> None:
    with pytest.raises(InputError, match=r"I130(.|\n)*1x3x18x18 .. 4x3x18x18 .. 9x3x18x18(.|\n)*10 is not in 1..9"):
        engine(images(10))
    with pytest.raises(InputError, match="I103"):
        engine(np.zeros((2, 3, 18, 17), np.float32))
    with pytest.raises(InputError, match="I103"):
        engine(np.zeros((2, 3, 18), np.float32))
    engine(images(2))


def test_output_shapes_before_a_run(engine: tw.Engine) -> None:
    assert engine.output_shapes({"x": (7, 3, 18, 18)}) == {engine.outputs[0].name: (7, 10)}
    assert engine.profiles == ({"x": BATCHES},)
    with pytest.raises(InputError, match="I130"):
        engine.output_shapes({"x": (0, 3, 18, 18)})
    with pytest.raises(InputError, match="I101"):
        engine.output_shapes({"y": (1,)})


def test_several_profiles_survive_the_plan_file(session: onnxruntime.InferenceSession, tmp_path: pathlib.Path) -> None:
    one = {"x": (1, 3, 18, 18)}
    engine = tw.build(network(), shapes=[one, {"x": BATCHES}], tune="off")
    path = tmp_path / "two.plan"
    engine.save(path)
    for loaded in (engine, tw.load(path), tw.load(path, native="ignore"), tw.load(path, target="reference")):
        assert [str(p["x"]) for p in loaded.profiles] == ["1x3x18x18", str(BATCHES)]
        for batch in (1, 5):
            x = images(batch)
            np.testing.assert_allclose(loaded(x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-6)
        with pytest.raises(InputError, match="I130(.|\n)*profile 1 x: 1x3x18x18"):
            loaded(images(10))
    context = engine.create_context(profile=1)
    assert context.run({"x": images(3)})[engine.outputs[0].name].shape == (3, 10)
    with pytest.raises(InputError, match="I132"):
        engine.create_context(profile=2)


def test_ranges_that_contradict_the_model_are_refused() -> None:
    with pytest.raises(ModelError, match="M106"):
        tw.build(network(), shapes={"x": tw.Range((1, 1, 18, 18), (4, 3, 18, 18), (9, 3, 18, 18))})


def test_sizes_that_the_data_decides() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["at"]),
        helper.make_node("Transpose", ["at"], ["rows"]),
        helper.make_node("GatherND", ["x", "rows"], ["found"]),
        helper.make_node("Mul", ["found", "found"], ["squares"]),
        helper.make_node("ReduceSum", ["squares"], ["total"], keepdims=0),
        helper.make_node("Compress", ["x", "keep"], ["kept"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info(n, T.FLOAT, None) for n in ("squares", "total", "kept")]
    inputs = [helper.make_tensor_value_info("x", T.FLOAT, ["n", 7]), helper.make_tensor_value_info("keep", T.BOOL, [7])]
    model = helper.make_model(
        helper.make_graph(nodes, "found", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    engine = tw.build(model, shapes={"x": tw.Range((1, 7), (4, 7), (9, 7))}, tune="off", host_steps=False)
    rng = np.random.default_rng()
    for n, density in ((1, 0.5), (9, 1.0), (5, 0.0), (4, 0.3)):
        x = (rng.standard_normal((n, 7)) * (rng.random((n, 7)) < density)).astype(np.float32)
        feeds = {"x": x, "keep": rng.random(7) < 0.5}
        for got, want in zip(engine.run(feeds).values(), session.run(None, feeds), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sizes_that_the_network_cannot_take_are_refused_before_they_run() -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("a", T.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("b", T.FLOAT, ["m", 2]),
    ]
    outputs = [helper.make_tensor_value_info("y", T.FLOAT, None)]
    shape = onnx.numpy_helper.from_array(np.array([2, 10]), "shape")
    graph = helper.make_graph(nodes, "sizes", inputs, outputs, [shape])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    ranges = {"a": tw.Range((1, 3), (4, 3), (9, 3)), "b": tw.Range((1, 2), (4, 2), (9, 2))}
    engine = tw.build(proto, shapes=ranges, tune="off")
    for target in (engine, tw.build(proto, shapes=ranges, target="reference")):
        assert target(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)).shape == (2, 10)
        with pytest.raises(InputError, match=r"I133(.|\n)*Concat:c(.|\n)*n must equal m"):
            target(np.ones((4, 3), np.float32), np.ones((3, 2), np.float32))
        with pytest.raises(InputError, match="I133(.|\n)*Reshape:y"):
            target(np.ones((5, 3), np.float32), np.ones((5, 2), np.float32))


def test_a_broadcast_that_only_a_run_can_tell_runs_in_numpy() -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    inputs = [helper.make_tensor_value_info(k, T.FLOAT, [d, 3]) for k, d in (("a", "n"), ("b", "m"))]
    graph = helper.make_graph(nodes, "sizes", inputs, [helper.make_tensor_value_info("y", T.FLOAT, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    rng = np.random.default_rng()
    for low, host in ((1, 1), (2, 0)):
        ranges = {"a": tw.Range((low, 3), (4, 3), (9, 3)), "b": tw.Range((low, 3), (4, 3), (9, 3))}
        engine = tw.build(proto, shapes=ranges, tune="off")
        assert len(engine.report()["host_steps"]) == host
        for n, m in ((5, 5), (low, 5), (5, low)):
            a, b = rng.standard_normal((n, 3), np.float32), rng.standard_normal((m, 3), np.float32)
            if host or n == m:
                np.testing.assert_allclose(engine(a, b), a + b, rtol=1e-6)
            else:
                with pytest.raises(InputError, match="I133"):
                    engine(a, b)


def test_a_size_that_divides_by_an_empty_one_is_refused() -> None:
    nodes = [
        helper.make_node("Shape", ["b"], ["m"]),
        helper.make_node("Concat", ["m", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(k, T.FLOAT, [d]) for k, d in (("a", "n"), ("b", "m"))]
    rest = onnx.numpy_helper.from_array(np.array([-1]), "rest")
    graph = helper.make_graph(nodes, "divided", inputs, [helper.make_tensor_value_info("y", T.FLOAT, None)], [rest])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = tw.build(proto, shapes={k: tw.Range((0,), (12,), (24,)) for k in "ab"}, tune="off")
    assert engine(np.ones(12, np.float32), np.ones(4, np.float32)).shape == (4, 3)
    for n, m in ((12, 0), (12, 5)):
        with pytest.raises(InputError, match="I133"):
            engine(np.ones(n, np.float32), np.ones(m, np.float32))
