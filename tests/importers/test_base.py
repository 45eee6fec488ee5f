# SPDX-License-Identifier: Apache-2.0
"""One entry for every kind of model."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import onnx
import pytest

import tensorwright as tw
from tensorwright.errors import ModelError
from tensorwright.importers.base import import_model
from tensorwright.network import ActivationType
from tests.importers.models import model, node

RELU = model([node("Relu", ["x"])], {"x": ["n", 3]})


def network() -> tw.Network:
    made = tw.Network()
    layer = made.add_activation(made.add_input("x", shape=(2, 3)), ActivationType.RELU)
    made.mark_output(layer.get_output(0))
    return made


def test_every_supported_kind_is_imported(tmp_path: pathlib.Path) -> None:
    onnx.save(RELU, tmp_path / "m.ONNX")
    graph = import_model(RELU)
    for source in (tmp_path / "m.ONNX", str(tmp_path / "m.ONNX"), RELU, RELU.SerializeToString(), network(), graph):
        assert [n.op.kind for n in import_model(source)] == ["relu"]
    assert import_model(graph) is graph


def test_shapes_and_outputs_reach_the_onnx_importer() -> None:
    assert import_model(RELU, shapes={"x": (4, 3)}, outputs=["x"]).outputs[0].type.shape == (4, 3)


@pytest.mark.parametrize("name", ["model", "net.h5", "net.tflite", "notes.txt"])
def test_other_formats_give_m105_with_what_is_supported(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ModelError, match=r"supported: \.onnx") as caught:
        import_model(tmp_path / name)
    assert caught.value.code == "M105"


@pytest.mark.parametrize(("name", "first"), [("net.caffemodel", "prototxt"), ("net.weights", "cfg")])
def test_weights_in_place_of_the_model_say_which_file_is_meant(tmp_path: pathlib.Path, name: str, first: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ModelError, match=f"give the .{first} file") as caught:
        import_model(tmp_path / name)
    assert caught.value.code == "M105"


@pytest.mark.parametrize("name", ["net.onnx", "net.prototxt", "net.pb", "net.cfg"])
def test_bytes_of_no_format_are_refused_as_unreadable(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\xffsomething")
    with pytest.raises(ModelError) as caught:
        import_model(tmp_path / name)
    assert caught.value.code == "M103"


def test_folder_object_and_foreign_arguments_give_m105(tmp_path: pathlib.Path) -> None:
    for call in (
        lambda: import_model(tmp_path),
        lambda: import_model(42),
        lambda: import_model(RELU, weights="w.bin"),  # type: ignore[arg-type]
        lambda: import_model(network(), outputs=["x"]),
    ):
        with pytest.raises(ModelError) as caught:
            call()
        assert caught.value.code == "M105"


def test_missing_file_of_any_format_gives_m101(tmp_path: pathlib.Path) -> None:
    for name in ("none.onnx", "none.pb", "none.prototxt", "none.cfg", "none", "none.h5"):
        with pytest.raises(ModelError) as caught:
            import_model(tmp_path / name)
        assert caught.value.code == "M101"


def test_network_and_base_do_not_import_onnx() -> None:
    code = "import sys, tensorwright.network, tensorwright.importers.base; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
