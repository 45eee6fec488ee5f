# SPDX-License-Identifier: Apache-2.0
"""SavedModels that TensorFlow wrote (see data/make_models.py), against what TensorFlow computed; and broken ones."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError, TensorwrightError, UnsupportedError
from tensorwright.importers.base import import_model
from tensorwright.importers.tensorflow.schema import SavedModel

DATA = pathlib.Path(__file__).parent / "data"
Array = np.ndarray[Any, Any]
rng = np.random.default_rng()


def arrays(name: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """What a model was fed, and what TensorFlow made of it."""
    with np.load(DATA / f"{name}.npz") as data:
        return tuple({k[n:]: data[k] for k in data if k.startswith(p)} for p, n in (("in_", 3), ("out_", 4)))  # type: ignore[return-value]


def check(results: dict[str, Array], want: dict[str, Array]) -> None:
    assert list(results) == list(want)
    for name, array in want.items():
        assert results[name].shape == array.shape and results[name].dtype == array.dtype, name
        np.testing.assert_allclose(results[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def built(path: pathlib.Path, **options: Any) -> Any:
    return tw.build(path, target="cpu", host_steps=False, tune="off", **options)


def refused(path: pathlib.Path, **options: Any) -> TensorwrightError:
    with pytest.raises(TensorwrightError) as caught:
        import_model(path, **options)
    return caught.value


def copied(folder: pathlib.Path, name: str) -> pathlib.Path:
    shutil.copytree(DATA / name, folder / name)
    return folder / name


def changed(folder: pathlib.Path, name: str, change: Callable[[Any], None]) -> pathlib.Path:
    """A copy of a model whose MetaGraphDef is another."""
    path = copied(folder, name)
    model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    change(model)
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    return path


# -- results --------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["image_net", "sequence_net", "open_net", "old"])
def test_default_signature_gives_what_tensorflow_gave(name: str, target: str) -> None:
    feeds, want = arrays(name)
    shapes = {key: x.shape for key, x in feeds.items()}
    options: dict[str, Any] = {"host_steps": False, "tune": "off"} if target == "cpu" else {}
    engine = tw.build(DATA / name, target=target, shapes=shapes, **options)
    assert [info.name for info in engine.inputs] == sorted(feeds)
    check(engine.run(feeds), dict(sorted(want.items())))


@pytest.mark.parametrize(
    ("name", "key", "least", "most"),
    [("image_net", "image", (1, 11, 9, 3), (5, 11, 9, 3)), ("open_net", "x", (1, 1, 3), (6, 30, 3))],
)
def test_open_batch_and_open_time(name: str, key: str, least: Sequence[int], most: Sequence[int]) -> None:
    feeds, want = arrays(name)
    engine = built(DATA / name, shapes={key: tw.Range(least, feeds[key].shape, most)})
    check(engine.run(feeds), dict(sorted(want.items())))
    one = {key: feeds[key][:1]}
    check(engine.run(one), {k: v[:1] for k, v in sorted(want.items())})


def test_shorter_sequences_of_an_open_model_are_those_of_a_fixed_one() -> None:
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    engine = built(DATA / "open_net", shapes={"x": tw.Range((1, 1, 3), (2, 9, 3), (2, 12, 3))})
    fixed = built(DATA / "open_net", shapes={"x": x.shape})
    np.testing.assert_allclose(engine(x), fixed(x), rtol=1e-5, atol=1e-6)


def test_path_of_the_file_is_the_path_of_the_folder() -> None:
    assert import_model(DATA / "several" / "saved_model.pb", outputs=["product"]).output_names == ("product",)


# -- signatures -----------------------------------------------------------------------------------
def test_outputs_choose_the_signature() -> None:
    feeds, want = arrays("several")
    engine = built(DATA / "several", outputs=["product"], shapes={"x": (2, 4)})
    check(engine.run({"x": feeds["x"]}), {"product": want["product"]})
    engine = built(DATA / "several", outputs=["rows", "places"])
    check(engine.run({"ids": feeds["ids"]}), {"rows": want["rows"], "places": want["places"]})


def test_only_some_outputs_of_a_signature() -> None:
    assert import_model(DATA / "several", outputs=["rows"]).output_names == ("rows",)


def test_without_a_default_the_signatures_are_listed() -> None:
    error = refused(DATA / "several")
    assert error.code == "M109" and "signature looked_up: outputs places, rows" in str(error)


def test_unknown_output_shows_near_names_and_signatures() -> None:
    error = refused(DATA / "several", outputs=["prodcut"])
    assert error.code == "M107" and "product" in error.do and "signature product" in str(error)
    assert refused(DATA / "several", outputs=["product", "product"]).code == "M107"
    assert refused(DATA / "several", outputs=[]).code == "M107"
    assert refused(DATA / "several", outputs=["product", "rows"]).code == "M107"  # of two signatures


def test_outputs_may_be_nodes(tmp_path: pathlib.Path) -> None:
    model = SavedModel.FromString((DATA / "old" / "saved_model.pb").read_bytes())
    (node,) = {n.name for n in model.meta_graphs[0].graph_def.node if n.name == "scale/read"}
    engine = built(DATA / "old", outputs=[node])
    assert engine.run({"x": np.zeros((2, 18, 3), np.float32)})[node].shape == (4,)


def test_state_that_results_depend_on_is_refused_other_state_is_not() -> None:
    error = refused(DATA / "several", outputs=["times"], shapes={"x": (2, 4)})
    assert isinstance(error, UnsupportedError) and "changes the variable 'count'" in str(error)
    x = rng.standard_normal((2, 4)).astype(np.float32)
    np.testing.assert_allclose(built(DATA / "several", outputs=["twice"], shapes={"x": (2, 4)})(x), 2 * x)


def test_table_of_texts_is_refused() -> None:
    error = refused(DATA / "several", outputs=["numbers"], shapes={"keys": (2,)})
    assert isinstance(error, UnsupportedError) and "string" in str(error)


def test_graph_for_serving_is_chosen_by_its_tag(tmp_path: pathlib.Path) -> None:
    def train(model: Any) -> None:
        model.meta_graphs[0].meta_info_def.tags[:] = ["train"]

    def two(model: Any) -> None:
        other = model.meta_graphs.add()
        other.CopyFrom(model.meta_graphs[0])
        train(model)
        other.meta_info_def.tags[:] = ["eval"]

    assert import_model(changed(tmp_path, "image_net", train)).output_names == ("features", "scores")
    error = refused(changed(tmp_path / "two", "image_net", two))
    assert error.code == "M109" and "train, eval" in str(error)


def test_no_signature_at_all(tmp_path: pathlib.Path) -> None:
    path = changed(tmp_path, "flow", lambda m: m.meta_graphs[0].signature_def.clear())
    error = refused(path)
    assert error.code == "M109" and "no signature" in str(error)


def test_signature_of_a_tensor_that_is_not_there(tmp_path: pathlib.Path) -> None:
    def change(model: Any) -> None:
        model.meta_graphs[0].signature_def["serving_default"].outputs["last"].name = "gone:0"

    error = refused(changed(tmp_path, "flow", change))
    assert error.code == "M104" and "gone:0" in str(error)


# -- variables ------------------------------------------------------------------------------------
def test_variables_are_found_by_name_without_a_saver(tmp_path: pathlib.Path) -> None:
    feeds, want = arrays("old")
    whole = SavedModel.FromString((DATA / "old" / "saved_model.pb").read_bytes()).meta_graphs[0]
    assert whole.saver_def.restore_op_name

    path = changed(tmp_path, "several", lambda m: m.meta_graphs[0].ClearField("saver_def"))
    feeds, want = arrays("several")
    engine = built(path, outputs=["product"], shapes={"x": (2, 4)})
    check(engine.run({"x": feeds["x"]}), {"product": want["product"]})


def test_missing_variables_are_named(tmp_path: pathlib.Path) -> None:
    def change(model: Any) -> None:
        meta = model.meta_graphs[0]
        meta.ClearField("saver_def")
        for node in meta.graph_def.node:
            if node.op == "VarHandleOp":
                node.attr["shared_name"].s = b"other/" + node.name.encode()
                node.name = "nowhere"
            for i, text in enumerate(node.input):
                node.input[i] = "nowhere" if text == "weight" else text

    error = refused(changed(tmp_path, "flow", change))
    assert error.code == "M108" and "nowhere" in str(error)


def test_declared_shape_of_a_variable_must_be_the_stored_one(tmp_path: pathlib.Path) -> None:
    def change(model: Any) -> None:
        for node in model.meta_graphs[0].graph_def.node:
            if node.op == "VarHandleOp":
                node.attr["shape"].shape.dim[0].size = 7

    error = refused(changed(tmp_path, "flow", change))
    assert error.code == "M104" and "[7, 3]" in str(error) and "[3, 3]" in str(error)


# -- damage ---------------------------------------------------------------------------------------
def test_absent_files(tmp_path: pathlib.Path) -> None:
    path = copied(tmp_path, "flow")
    shutil.rmtree(path / "variables")
    assert refused(path).code == "M101"
    (path / "saved_model.pb").unlink()
    assert refused(path).code == "M105"
    assert refused(path / "saved_model.pb").code == "M101"


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "M102"), (b"no protobuf at all", "M103"), (b"\x08\x01", "M103"), (b"PK\x03\x04 a zip", "M103")],
)
def test_foreign_files(tmp_path: pathlib.Path, data: bytes, code: str) -> None:
    (tmp_path / "saved_model.pb").write_bytes(data)
    assert refused(tmp_path).code == code


def test_truncation_and_changed_bytes_give_typed_errors(tmp_path: pathlib.Path) -> None:
    path = copied(tmp_path, "several")
    file = path / "saved_model.pb"
    whole = file.read_bytes()
    for size in rng.integers(1, len(whole), 40):
        file.write_bytes(whole[:size])
        assert isinstance(refused(path, outputs=["product"]), ModelError)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        file.write_bytes(damaged)
        try:
            import_model(path, outputs=["product"], shapes={"x": (2, 4)})
        except TensorwrightError as error:
            assert not error.code.startswith("X"), error
