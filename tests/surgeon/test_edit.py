# SPDX-License-Identifier: Apache-2.0
"""Parts cut out of a model and nodes put into it run in ONNX Runtime as they should."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensorwright.errors import ModelError
from tensorwright.surgeon.edit import NewNode, insert, replace
from tensorwright.surgeon.extract import extract
from tensorwright.surgeon.files import open_model, save_model, uses_external
from tests.importers.models import model, node, runtime_outputs
from tests.networks.nets import NETS, feed

RNG = np.random.default_rng(8)
SHAPE = (2, 3)


def chain() -> onnx.ModelProto:
    """y = |-(relu x + a)|"""
    nodes = [
        node("Relu", ["x"], ["r"], name="first"),
        node("Add", ["r", "a"], ["s"], name="second"),
        node("Neg", ["s"], ["n"], name="third"),
        node("Abs", ["n"], ["y"], name="last"),
    ]
    return model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"a": np.arange(3, dtype=np.float32)})


def outputs(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(proto, full_check=True)
    return runtime_outputs(proto, feeds)


def random() -> np.ndarray:
    return RNG.standard_normal(SHAPE).astype(np.float32)


# -- extract --------------------------------------------------------------------------------------------------
def test_extract_between_tensors_computes_that_part_only() -> None:
    part = extract(chain(), ["r"], ["n"])
    assert [n.name for n in part.graph.node] == ["second", "third"]
    r = random()
    (got,) = outputs(part, r=r)
    np.testing.assert_array_equal(got, -(r + np.arange(3, dtype=np.float32)))
    assert [d.dim_value for d in part.graph.input[0].type.tensor_type.shape.dim] == list(SHAPE)


def test_extract_of_a_network_gives_its_inner_values() -> None:
    whole = NETS["residual"]()
    feeds = feed(whole, 3)
    inner = next(n.output[0] for n in whole.graph.node if n.op_type == "Add")
    head = extract(whole, ["data"], [inner])
    tail = extract(whole, [inner], [whole.graph.output[0].name])
    assert len(head.graph.node) + len(tail.graph.node) == len(whole.graph.node)
    (value,) = outputs(head, **feeds)
    (got,), (want,) = outputs(tail, **{inner: value}), outputs(whole, **feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_extract_of_unknown_names_lists_near_ones() -> None:
    with pytest.raises(ModelError, match="input_idz") as caught:
        extract(NETS["encoder"](), ["input_idz"], ["add_2"])
    assert caught.value.code == "M120" and "near names are input_ids" in str(caught.value)


def test_extract_that_misses_an_input_names_it() -> None:
    whole = model([node("Add", ["x", "z"], ["s"]), node("Abs", ["s"])], {"x": SHAPE, "z": SHAPE})
    with pytest.raises(ModelError, match="depend on the input 'z'") as caught:
        extract(whole, ["x"], ["y"])
    assert caught.value.code == "M124" and "--inputs x,z" in str(caught.value)


def test_extract_with_an_input_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ModelError, match="do not depend on 'y'"):
        extract(chain(), ["x", "y"], ["r"])


def test_extract_behind_an_unknown_operator_needs_a_type() -> None:
    whole = model([node("Odd", ["x"], ["t"], domain="somewhere"), node("Abs", ["t"])], {"x": SHAPE})
    whole.opset_import.append(helper.make_opsetid("somewhere", 1))
    with pytest.raises(ModelError, match="type of 't' is not known"):
        extract(whole, ["t"], ["y"])


# -- insert and replace ---------------------------------------------------------------------------------------
def test_insert_on_inner_tensor_changes_all_its_readers() -> None:
    result = insert(chain(), "s", NewNode("Clip", name="clip"), more_inputs=[])
    x = random()
    assert [n.name for n in result.graph.node] == ["first", "second", "clip", "third", "last"]
    np.testing.assert_array_equal(outputs(result, x=x)[0], outputs(chain(), x=x)[0])
    result = insert(chain(), "s", NewNode("LeakyRelu", {"alpha": 0.5}))
    np.testing.assert_array_equal(outputs(result, x=x)[0], outputs(chain(), x=x)[0])  # s is positive
    result = insert(chain(), "n", NewNode("Relu"))
    np.testing.assert_array_equal(outputs(result, x=x)[0], np.zeros(SHAPE))


def test_insert_on_an_output_keeps_its_name() -> None:
    result = insert(chain(), "y", NewNode("Mul"), more_inputs=["a"])
    x = random()
    assert [o.name for o in result.graph.output] == ["y"]
    np.testing.assert_array_equal(outputs(result, x=x)[0], outputs(chain(), x=x)[0] * np.arange(3, dtype=np.float32))


def test_insert_on_an_input_is_read_by_all() -> None:
    result = insert(chain(), "x", NewNode("Neg"))
    x = random()
    np.testing.assert_array_equal(outputs(result, x=x)[0], outputs(chain(), x=-x)[0])


def test_insert_that_changes_the_type_declares_the_new_one() -> None:
    result = insert(chain(), "y", NewNode("Cast", {"to": TensorProto.DOUBLE}))
    assert result.graph.output[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    assert outputs(result, x=random())[0].dtype == np.float64


def test_insert_reaches_readers_inside_of_branches() -> None:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    bodies = {
        f"{name}_branch": helper.make_graph([node(op, ["x"], ["o"])], name, [], [out])
        for name, op in (("then", "Identity"), ("else", "Neg"))
    }
    whole = model([node("If", ["yes"], ["y"], **bodies)], {"x": SHAPE}, constants={"yes": np.array(True)})
    x = random()
    np.testing.assert_array_equal(outputs(insert(whole, "x", NewNode("Abs")), x=x)[0], np.abs(x))


def test_replace_of_a_node_keeps_inputs_outputs_and_name() -> None:
    result = replace(chain(), NewNode("Sub"), node="second")
    x = random()
    assert [n.name for n in result.graph.node] == ["first", "second", "third", "last"]
    np.testing.assert_array_equal(outputs(result, x=x)[0], np.abs(np.maximum(x, 0) - np.arange(3, dtype=np.float32)))


def test_replace_of_a_region_drops_what_only_served_it() -> None:
    result = replace(chain(), NewNode("HardSigmoid", {"alpha": 0.5}), inputs=["x"], outputs=["n"])
    x = random()
    assert [n.op_type for n in result.graph.node] == ["HardSigmoid", "Abs"] and not result.graph.initializer
    np.testing.assert_allclose(outputs(result, x=x)[0], np.clip(0.5 * x + 0.5, 0, 1), rtol=1e-6)


def test_replace_of_an_unknown_node_lists_near_ones() -> None:
    with pytest.raises(ModelError, match="near names are second") as caught:
        replace(chain(), NewNode("Sub"), node="secnd")
    assert caught.value.code == "M120"


@pytest.mark.parametrize("words", [{}, {"inputs": ["x"]}, {"inputs": ["r"], "outputs": ["x"]}])
def test_replace_without_a_place_is_refused(words: dict[str, list[str]]) -> None:
    with pytest.raises(ModelError) as caught:
        replace(chain(), NewNode("Neg"), **words)
    assert caught.value.code == "M125"


def test_replace_that_makes_a_cycle_is_refused() -> None:
    with pytest.raises(ModelError, match="depend on themselves"):
        replace(chain(), NewNode("Neg"), inputs=["n"], outputs=["r"])


# -- files ----------------------------------------------------------------------------------------------------
def test_external_data_is_read_and_written_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    source, target = tmp_path / "old" / "m.onnx", tmp_path / "new" / "m.onnx"
    whole = model([node("Add", ["x", "a"])], {"x": (700,)}, constants={"a": np.arange(700, dtype=np.float32)})
    onnx.save(whole, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert uses_external(source) and (source.parent / "weights.bin").exists()
    opened = open_model(source)
    for _ in range(2):  # the second time over files that exist
        written = save_model(insert(opened, "y", NewNode("Neg")), target, external=True)
    assert written == [str(target), f"{target}.data"] and uses_external(target)
    assert pathlib.Path(f"{target}.data").stat().st_size == 2800
    x = np.ones(700, np.float32)
    np.testing.assert_array_equal(outputs(open_model(target), x=x)[0], -(x + np.arange(700)))


def test_invalid_result_is_not_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelError) as caught:
        save_model(insert(chain(), "s", NewNode("Relu", {"slope": 1})), tmp_path / "bad.onnx")
    assert caught.value.code == "M121" and "slope" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_model_that_cannot_be_written_says_where(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelError) as caught:
        save_model(chain(), tmp_path / "no" / "such" / "folder.onnx")
    assert caught.value.code == "M122"
