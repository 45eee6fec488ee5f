# SPDX-License-Identifier: Apache-2.0
"""Frozen GraphDefs: what is fed and fetched, and what is said of files that are wrong."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError, TensorwrightError, UnsupportedError
from tensorwright.importers.base import import_model
from tests.importers.tensorflow.graphs import TfWriter, Type

rng = np.random.default_rng()


def chain(**options: Any) -> TfWriter:
    """x -> relu -> y (Identity), and a constant that nothing reads."""
    g = TfWriter()
    x = g.placeholder("x", np.float32, options.get("shape", (2, 3)))
    g.node("Identity", g.node("Relu", x, name="relu"), name="y")
    g.constant(np.zeros(3, np.float32), "unread")
    return g


def refused(path: pathlib.Path, **options: Any) -> TensorwrightError:
    with pytest.raises(TensorwrightError) as caught:
        import_model(path, **options)
    return caught.value


def test_only_result_is_the_output_and_its_placeholder_the_input(tmp_path: pathlib.Path) -> None:
    graph = import_model(chain().save(tmp_path / "net.pb"))
    assert [v.name for v in graph.inputs] == ["x"] and graph.output_names == ("y",)
    assert [n.name for n in graph.nodes] == ["relu"]


def test_outputs_are_called_as_they_were_asked_for(tmp_path: pathlib.Path) -> None:
    g = chain()
    g.node("Split", g.constant(np.int32(1)), g.node("Concat", g.constant(np.int32(1)), "x", "x"), name="s", num_split=2)
    path = g.save(tmp_path / "net.pb")
    assert import_model(path, outputs=["relu:0", "s:1", "s"]).output_names == ("relu:0", "s:1", "s")


def test_several_results_must_be_chosen_from(tmp_path: pathlib.Path) -> None:
    g = chain()
    g.node("Neg", "x", name="minus")
    error = refused(g.save(tmp_path / "net.pb"))
    assert error.code == "M109" and "y, minus" in str(error) and "outputs=" in error.do


def test_absent_output_shows_the_nearest_names(tmp_path: pathlib.Path) -> None:
    error = refused(chain().save(tmp_path / "net.pb"), outputs=["rleu"])
    assert error.code == "M107" and "relu" in error.do
    assert refused(tmp_path / "net.pb", outputs=[]).code == "M107"
    error = refused(tmp_path / "net.pb", outputs=["relu:3"])
    assert error.code == "M104" and "no such output" in str(error)


def test_nodes_in_any_order_and_unneeded_unknown_ops(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    g.node("Identity", "b", "^nothing_that_exists", name="y")
    g.node("Relu", "a", name="b")
    g.node("Neg", "x", name="a")
    g.node("FancyTrainingOp", "x", name="training")
    g.placeholder("x", np.float32, (3,))
    engine = tw.build(g.save(tmp_path / "net.pb"), outputs=["y"], target="reference")
    np.testing.assert_array_equal(engine(np.array([1, -2, 3], np.float32)), np.array([0, 2, 0], np.float32))


def test_all_unknown_ops_are_named_at_once(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    first, second = g.node("FancyOp", x, name="f1"), g.node("OtherOp", x, name="o1")
    g.node("Add", g.node("FancyOp", x, name="f2"), g.node("Add", first, second), name="y")
    with pytest.raises(UnsupportedError) as caught:
        import_model(g.save(tmp_path / "net.pb"))
    text = str(caught.value)
    assert caught.value.code == "M201" and "FancyOp (f1, f2), 2 times" in text and "OtherOp (o1)" in text


def test_short_lists_repeat_their_last_value(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))
    node = g.graph.node.add(name="c", op="Const")
    node.attr["dtype"].type = node.attr["value"].tensor.dtype = 1
    for size in (2, 3):
        node.attr["value"].tensor.tensor_shape.dim.add(size=size)
    node.attr["value"].tensor.float_val.extend([1.0, 5.0])
    g.node("Add", x, "c", name="y")
    got = tw.build(g.save(tmp_path / "net.pb"), target="reference")(np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(got, [[1, 5, 5], [5, 5, 5]])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "bool", "uint8"])
def test_values_of_constants_in_every_field(tmp_path: pathlib.Path, dtype: str) -> None:
    fields = {
        "float16": "half_val",
        "float64": "double_val",
        "int64": "int64_val",
        "bool": "bool_val",
        "uint8": "int_val",
    }
    values = np.array([1, 0, 1]).astype(dtype)
    g = TfWriter()
    g.constant(values, "c")
    tensor = g.graph.node[0].attr["value"].tensor
    tensor.ClearField("tensor_content")
    raw = values.view(np.uint16) if dtype == "float16" else values
    getattr(tensor, fields[dtype]).extend(raw.tolist())
    x = g.placeholder("x", dtype, (3,))
    g.node("Equal", x, "c", name="y")
    assert tw.build(g.save(tmp_path / "net.pb"), target="reference")(values).all()


def test_placeholder_with_default_is_its_default(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (3,))
    keep = g.node("PlaceholderWithDefault", g.constant(np.float32(2)), name="keep")
    g.node("Mul", x, keep, name="y")
    graph = import_model(g.save(tmp_path / "net.pb"))
    assert [v.name for v in graph.inputs] == ["x"]


def test_functions_are_inlined_under_the_name_of_the_call(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 6))
    function = g.graph.library.function.add()
    function.signature.name = "scaled"
    function.signature.input_arg.add(name="v", type=1)
    function.signature.output_arg.add(name="result", type=1)
    half = function.node_def.add(name="parts", op="TopKV2", input=["v", "k:output:0"])
    half.attr["T"].type = 1
    k = function.node_def.add(name="k", op="Const")
    k.attr["value"].tensor.dtype = k.attr["dtype"].type = 3
    k.attr["value"].tensor.int_val.append(2)
    k.attr["value"].tensor.tensor_shape.SetInParent()
    function.node_def.add(name="twice", op="AddV2", input=["parts:values:0", "parts:values:0"])
    function.ret["result"] = "twice:z:0"
    call = g.graph.node.add(name="call", op="PartitionedCall", input=[x])
    call.attr["f"].func.name = "scaled"
    g.node("Identity", "call", name="y")
    path = g.save(tmp_path / "net.pb")
    graph = import_model(path)
    assert {o for n in graph.nodes for o in n.origin} == {"call/parts", "call/twice"}
    data = rng.standard_normal((2, 6)).astype(np.float32)
    want = 2 * np.sort(data, 1)[:, :-3:-1]
    np.testing.assert_allclose(tw.build(path, target="reference")(data), want)


def test_function_that_calls_itself_is_refused(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2,))
    function = g.graph.library.function.add()
    function.signature.name = "again"
    function.signature.input_arg.add(name="v", type=1)
    function.signature.output_arg.add(name="r", type=1)
    inner = function.node_def.add(name="inner", op="PartitionedCall", input=["v"])
    inner.attr["f"].func.name = "again"
    function.ret["r"] = "inner:output:0"
    call = g.graph.node.add(name="call", op="PartitionedCall", input=[x])
    call.attr["f"].func.name = "again"
    g.node("Identity", "call", name="y")
    error = refused(g.save(tmp_path / "net.pb"))
    assert error.code == "M104" and "calls itself" in str(error)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "M102"),
        (b"\x08\x07\x12\x05onnx!garbage that is no graph", "M103"),
        (b"\xff" * 40, "M103"),
        (b"<html>not here", "M103"),
        (b"\x89HDF\r\n\x1a\n", "M103"),
    ],
)
def test_foreign_files(tmp_path: pathlib.Path, data: bytes, code: str) -> None:
    (tmp_path / "net.pb").write_bytes(data)
    assert refused(tmp_path / "net.pb").code == code


def test_every_truncation_is_a_typed_error_or_another_graph(tmp_path: pathlib.Path) -> None:
    whole = chain().graph.SerializeToString()
    for size in range(1, len(whole)):
        (tmp_path / "cut.pb").write_bytes(whole[:size])
        try:
            import_model(tmp_path / "cut.pb")
        except ModelError:
            continue


def test_damaged_bytes_give_typed_errors(tmp_path: pathlib.Path) -> None:
    whole = bytearray(chain().graph.SerializeToString())
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "bad.pb").write_bytes(damaged)
        try:
            import_model(tmp_path / "bad.pb")
        except TensorwrightError as error:
            assert not error.code.startswith("X"), error


def test_contradictions_are_told_together(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 3))
    a = g.node("MatMul", x, g.constant(np.zeros((4, 5), np.float32)), name="product")
    b = g.node("Relu", "gone", name="lost")
    c = g.node("Reshape", x, g.constant(np.array([4, -1], np.int32)), name="odd")
    g.node("Pack", a, b, c, name="y", N=3)
    error = refused(g.save(tmp_path / "net.pb"))
    assert error.code == "M104"
    for name in ("product", "gone", "odd"):
        assert name in str(error)


def test_cycle_is_refused(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2,))
    g.node("Add", x, "b", name="a")
    g.node("Relu", "a", name="b")
    g.node("Identity", "b", name="y")
    error = refused(g.save(tmp_path / "net.pb"))
    assert error.code == "M104" and "depends on its own result" in str(error)


def test_hostile_sizes_allocate_nothing(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (1,))
    huge = g.node("Fill", g.constant(np.array([1 << 20, 1 << 20], np.int32)), g.constant(np.float32(1)))
    g.node("Add", x, huge, name="y")
    assert refused(g.save(tmp_path / "fill.pb")).code in ("M104", "M201")
    g = chain()
    node = g.graph.node.add(name="c", op="Const")
    node.attr["value"].tensor.dtype = 1
    node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 40)
    node.attr["value"].tensor.float_val.append(1)
    g.node("Add", "x", "c", name="z")
    assert refused(g.save(tmp_path / "const.pb"), outputs=["z"]).code == "M104"


def test_inputs_need_shapes_and_take_them(tmp_path: pathlib.Path) -> None:
    path = chain(shape=None).save(tmp_path / "net.pb")
    error = refused(path)
    assert error.code == "M104" and "shapes=" in str(error)
    assert import_model(path, shapes={"x": (4, 5)}).inputs[0].type.static_shape == (4, 5)
    path = chain(shape=(-1, 3)).save(tmp_path / "open.pb")
    assert import_model(path, shapes={"x": (4, 3)}).inputs[0].type.static_shape == (4, 3)
    assert refused(path, shapes={"x": (4, 4)}).code == "M106"
    assert refused(path, shapes={"z": (4, 3)}).code == "M106"


def test_text_inputs_are_unsupported(tmp_path: pathlib.Path) -> None:
    g = TfWriter()
    g.placeholder("s", object, (1,))
    g.node("DecodeJpeg", "s", name="image")
    error = refused(g.save(tmp_path / "net.pb"))
    assert error.code == "M201" and "string" in str(error)


@pytest.mark.parametrize("form", ["floor", "compare"])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_dropout_that_keeps_all_is_nothing(tmp_path: pathlib.Path, form: str, keep: float) -> None:
    g = TfWriter()
    x = g.placeholder("x", np.float32, (2, 300))
    share = g.node("PlaceholderWithDefault", g.constant(np.float32(keep)), name="keep")
    drawn = g.node("RandomUniform", g.node("Shape", x), dtype=Type(1))
    drawn = g.node("Add", g.node("Mul", drawn, g.constant(np.float32(1))), g.constant(np.float32(0)))
    if form == "floor":
        mask = g.node("Floor", g.node("Add", share, drawn))
    else:
        rate = g.node("Sub", g.constant(np.float32(1)), share)
        mask = g.node("Cast", g.node("GreaterEqual", drawn, rate), DstT=Type(1))
    g.node("Mul", g.node("RealDiv", x, share), mask, name="y")
    path = g.save(tmp_path / "net.pb")
    data = rng.standard_normal((2, 300)).astype(np.float32)
    got = tw.build(path, outputs=["y"], tune="off", host_steps=False)(data)
    if keep == 1:
        np.testing.assert_array_equal(got, data)
        assert "random_bits" not in {n.op.kind for n in import_model(path, outputs=["y"]).nodes}
    else:
        kept = got != 0
        np.testing.assert_allclose(got[kept], data[kept] / keep, rtol=1e-6)
        assert 0.3 < kept.mean() < 0.7
