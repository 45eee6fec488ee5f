# SPDX-License-Identifier: Apache-2.0
"""Weights of ONNX models stay where they are: in the file, beside it or in the caller's memory."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tensorwright.errors import ModelError
from tensorwright.importers.onnx import lift as lifting
from tensorwright.importers.onnx.external import LIFTED
from tensorwright.importers.onnx.lift import lift, lift_proto
from tensorwright.importers.onnx.reader import import_onnx
from tensorwright.importers.wire import MalformedError
from tensorwright.ir.op import Array
from tensorwright.memory import has_changed
from tests.importers.models import model, node


def linear(shape: tuple[int, int] = (300, 250), dtype: type = np.float32) -> tuple[ModelProto, Array]:
    """x @ w + b with weights that are worth lifting, and w."""
    rng = np.random.default_rng()
    w = rng.standard_normal(shape).astype(dtype)
    b = rng.standard_normal(shape[1]).astype(dtype)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])]
    kinds = {"x": helper.np_dtype_to_tensor_dtype(w.dtype), "y": helper.np_dtype_to_tensor_dtype(w.dtype)}
    return model(nodes, {"x": (3, shape[0])}, ["y"], {"w": w, "b": b}, kinds=kinds), w


def constant(graph: object, name: str) -> Array:
    """The imported array of an initializer."""
    arrays = {value.name: array for value, array in graph.constants.items()}  # type: ignore[attr-defined]
    array: Array = arrays[name]
    return array


def is_mapped(array: Array) -> bool:
    """Whether the array is a view of a mapped file."""
    from tensorwright.memory import _mapping_of

    return _mapping_of(array) is not None


def restored(proto: ModelProto, lifted: list[Array]) -> ModelProto:
    """The lifted model with its bytes put back."""
    result = ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        if tensor.external_data and tensor.external_data[0].value == LIFTED:
            tensor.raw_data = lifted[int(tensor.external_data[1].value)].tobytes()
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return result


@pytest.mark.parametrize("smallest", [1, 100, 1 << 16])
def test_lifted_models_hold_all_the_rest(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting, "SMALLEST", smallest)
    proto, _ = linear()
    proto.graph.initializer.append(helper.make_tensor("unread", TensorProto.FLOAT, [40], np.ones(40)))  # typed field
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(90, np.complex64), "complex"))
    proto.graph.initializer[0].doc_string = "kept"
    proto.doc_string = "outside the graph " * 20
    data = np.frombuffer(proto.SerializeToString(), np.uint8)
    rest, lifted = lift(data)
    assert len(lifted) == (1 if smallest > 1000 else 2) and all(np.shares_memory(a, data) for a in lifted)
    assert restored(ModelProto.FromString(rest), lifted) == proto
    stripped, arrays = lift_proto(proto)
    assert restored(stripped, arrays) == proto and len(arrays) == len(lifted)


def test_a_model_without_large_weights_is_left_as_it_is() -> None:
    proto, _ = linear((3, 4))
    assert lift_proto(proto) == (proto, [])
    data = proto.SerializeToString()
    assert lift(np.frombuffer(data, np.uint8)) == (data, [])


def test_damaged_bytes_are_refused_by_protobuf_and_never_crash(tmp_path: pathlib.Path) -> None:
    proto, _ = linear()
    data = bytearray(proto.SerializeToString())
    rng = np.random.default_rng()
    for _ in range(2000):
        broken = data[: int(rng.integers(1, len(data)))] if rng.random() < 0.5 else bytearray(data)
        for at in rng.integers(0, min(len(broken), 400), 3):
            broken[at] = int(rng.integers(0, 256))
        try:
            lift(np.frombuffer(bytes(broken), np.uint8))
        except MalformedError:
            continue
    with pytest.raises(ModelError) as caught:
        import_onnx(bytes(data[:-100]))
    assert caught.value.code == "M103"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_inline_weights_are_views_of_the_mapped_file(tmp_path: pathlib.Path, dtype: type) -> None:
    proto, w = linear(dtype=dtype)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    array = constant(import_onnx(path), "w")
    np.testing.assert_array_equal(array, w)
    assert is_mapped(array) and not array.flags.writeable


def test_weights_in_bytes_are_views_of_the_bytes() -> None:
    proto, w = linear()
    data = proto.SerializeToString()
    array = constant(import_onnx(data), "w")
    np.testing.assert_array_equal(array, w)
    assert np.shares_memory(array, np.frombuffer(data, np.uint8))


def test_a_model_in_memory_is_never_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, w = linear()
    before = ModelProto.FromString(proto.SerializeToString())
    sizes: list[int] = []
    original = onnx.checker.check_node
    monkeypatch.setattr(onnx.checker, "check_node", lambda n, c: (sizes.append(n.ByteSize()), original(n, c)))
    array = constant(import_onnx(proto), "w")
    np.testing.assert_array_equal(array, w)
    assert proto == before and sizes and max(sizes) < 1000
    assert lift_proto(proto)[0].ByteSize() < 2000


def test_functions_are_inlined_around_lifted_weights() -> None:
    proto, w = linear()
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("here", "Product", ["a", "b"], ["c"], body, opsets))
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Product", "here"
    proto.opset_import.append(helper.make_opsetid("here", 1))
    np.testing.assert_array_equal(constant(import_onnx(proto), "w"), w)
    np.testing.assert_array_equal(constant(import_onnx(proto.SerializeToString()), "w"), w)


# -- external data ----------------------------------------------------------------------------------
def save_external(folder: pathlib.Path) -> tuple[pathlib.Path, Array]:
    proto, w = linear()
    path = folder / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path, w


def test_external_weights_are_views_of_one_mapped_file(tmp_path: pathlib.Path) -> None:
    path, w = save_external(tmp_path)
    graph = import_onnx(path)
    array = constant(graph, "w")
    np.testing.assert_array_equal(array, w)
    assert is_mapped(array) and is_mapped(constant(graph, "b"))
    with (tmp_path / "m.data").open("r+b") as file:
        file.write(b"\0")
    assert has_changed(array)


@pytest.mark.parametrize("kind", ["link", "folder link", "second name"])
def test_external_data_behind_links_is_refused(tmp_path: pathlib.Path, kind: str) -> None:
    path, _ = save_external(tmp_path)
    data, inner = tmp_path / "m.data", tmp_path / "inner"
    inner.mkdir()
    real = inner / "real"
    data.rename(real)
    location = "m.data"
    if kind == "link":
        data.symlink_to(real)
    elif kind == "second name":
        os.link(real, data)
    else:
        (tmp_path / "other").symlink_to(inner)
        location = "other/real"
    relocate(path, location=location)
    with pytest.raises(ModelError) as caught:
        import_onnx(path)
    assert caught.value.code == "M108" and location in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        {"length": "999999999"},
        {"offset": "999999999"},
        {"offset": "-4"},
        {"length": "-4"},
        {"offset": "four"},
        {"location": LIFTED},
        {"location": ""},
    ],
)
def test_damaged_references_are_refused(tmp_path: pathlib.Path, entries: dict[str, str]) -> None:
    path, _ = save_external(tmp_path)
    relocate(path, **entries)
    with pytest.raises(ModelError) as caught:
        import_onnx(path)
    assert caught.value.code == "M108"


@pytest.mark.parametrize("offset", ["1", "-1", "", "one"])
def test_a_model_cannot_name_lifted_data_itself(tmp_path: pathlib.Path, offset: str) -> None:
    proto, _ = linear()
    bias = proto.graph.initializer[1]
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    bias.external_data.add(key="location", value=LIFTED)
    bias.external_data.add(key="offset", value=offset)
    onnx_file = tmp_path / "m.onnx"
    onnx_file.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError) as caught:
        import_onnx(onnx_file)
    assert caught.value.code == "M108"


def relocate(path: pathlib.Path, **entries: str) -> None:
    """Change what the model says of where its first tensor's data is."""
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    known = {entry.key: entry.value for entry in tensor.external_data} | entries
    tensor.ClearField("external_data")
    for key, value in known.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
