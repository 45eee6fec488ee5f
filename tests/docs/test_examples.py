# SPDX-License-Identifier: Apache-2.0
"""Every example runs as its README says and shows what it claims; the files it brings are those its programs make."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

import tensorwright as tw

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DIGITS, LENET, GOOGLENET = EXAMPLES / "digits", EXAMPLES / "lenet", EXAMPLES / "googlenet"


def run(example: str, *arguments: str, code: int = 0) -> str:
    """What an example prints in a process of its own, and on stderr after it; it must end with `code`."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_digits_engine_reads_as_many_as_accuracy_json_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    told = json.loads((DIGITS / "accuracy.json").read_text(encoding="utf-8"))
    engine = tw.build(DIGITS / "lenet_digits.onnx", tune="off")
    with np.load(DIGITS / "held_out.npz") as data:
        inputs, labels = to_input(data["images"]), data["labels"]
    answers = [int(np.argmax(engine(image[None]))) for image in inputs]
    assert len(labels) == told["held_out_digits"]
    assert int(np.sum(answers == labels)) == told["held_out_right"]


def test_digit_npy_is_the_first_held_out_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    with np.load(DIGITS / "held_out.npz") as data:
        np.testing.assert_allclose(np.load(DIGITS / "digit.npy"), to_input(data["images"][:1]), rtol=1e-6)


def test_to_input_of_full_ink_fills_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DIGITS))
    from digits import to_input

    image = to_input(np.full((2, 8, 8), 16, np.uint8))
    assert image.shape == (2, 1, 28, 28) and image.dtype == np.float32
    np.testing.assert_allclose(image[:, 0, 4:24, 4:24], 1, rtol=1e-6)
    assert image.sum() == pytest.approx(2 * 400, rel=1e-6)


@pytest.mark.slow
def test_demo_in_a_fresh_process_succeeds(tmp_path: pathlib.Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "digits" / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("accuracy", "latency", "what was fused", "lenet_digits.plan"))


@pytest.mark.slow
def test_demo_with_a_network_that_guesses_fails(tmp_path: pathlib.Path) -> None:
    import onnx
    from onnx import numpy_helper

    shutil.copytree(DIGITS, tmp_path / "digits")
    model = onnx.load(tmp_path / "digits" / "lenet_digits.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "fc2.weight":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, tmp_path / "digits" / "lenet_digits.onnx")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "digits" / "demo.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 1
    assert "below the required 97%" in done.stderr


# -- lenet ------------------------------------------------------------------------------------------
def test_lenet_reads_the_same_digits_four_ways() -> None:
    printed = run("lenet/run.py", "--quick")
    assert printed.count("442 of 450 right, 7 steps") == 4
    assert all(word in printed for word in ("Caffe", "ONNX", "TensorFlow", "tw.Network", "all four read the same"))


def test_caffemodel_is_the_one_that_formats_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LENET))
    from formats import CAFFEMODEL, caffemodel, trained

    assert caffemodel(trained()) == CAFFEMODEL.read_bytes()


def test_network_layer_by_layer_has_the_ops_of_the_onnx_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LENET))
    from formats import ONNX, network, trained
    from tensorwright.importers.base import import_model

    assert [n.op for n in network(trained()).to_graph()] == [n.op for n in import_model(ONNX)]


# -- googlenet --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_googlenet_profile_and_the_picture_of_its_readme(tmp_path: pathlib.Path) -> None:
    printed = run("googlenet/run.py", "--quick", "--repeat", "1", "--svg", str(tmp_path / "block.svg"))
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if "steps" in line}
    assert {"conv1", "inception_3a", "inception_5b", "prob", "all"} <= set(rows)
    plain, fused = (int(rows["inception_3a"][i]) for i in (2, 6))
    assert fused == 6 < plain
    assert (tmp_path / "block.svg").read_text(encoding="utf-8") == (GOOGLENET / "inception.svg").read_text(
        encoding="utf-8"
    )


def test_googlenet_of_any_size_has_its_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.syspath_prepend(str(GOOGLENET))
    from googlenet import googlenet
    from tensorwright.importers.base import import_model

    (tmp_path / "net.prototxt").write_text(googlenet(64, classes=7))
    graph = import_model(tmp_path / "net.prototxt")
    assert graph.output_names == ("prob",) and graph.outputs[0].type.shape == (1, 7)
    assert sum(node.op.kind == "convolution" for node in graph) == 57
    printed = {tuple(map(str, node.outputs[0].type.shape)) for node in graph if node.op.kind == "concat"}
    assert ("1", "256", "8", "8") in printed and ("1", "1024", "2", "2") in printed
    with pytest.raises(ValueError, match="multiple of 32"):
        googlenet(100)


@pytest.mark.parametrize("seed", range(5))
def test_pictures_have_boxes_apart_and_edges_downwards(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.syspath_prepend(str(GOOGLENET))
    from draw import BOX_HEIGHT, BOX_WIDTH, Box, lay_out, svg

    rng = np.random.default_rng(seed)
    boxes: dict[str, Box] = {}
    for i in range(int(rng.integers(1, 25))):
        reads = tuple(f"n{j}" for j in {int(rng.integers(0, i)) for _ in range(int(rng.integers(0, 3)))}) if i else ()
        boxes[f"n{i}"] = Box(f"op <{i}>", "a & b", "other", reads)
    layout = lay_out(boxes)
    centres = list(layout.centres.values())
    for i, (x, y) in enumerate(centres):
        assert BOX_WIDTH / 2 <= x <= layout.width - BOX_WIDTH / 2 + 1e-6 and y <= layout.height - BOX_HEIGHT / 2
        assert all(abs(x - u) > BOX_WIDTH or abs(y - v) > BOX_HEIGHT for u, v in centres[:i])
    assert len(layout.edges) == sum(len(box.reads) for box in boxes.values())
    assert all(below > above for points in layout.edges for (_, above), (_, below) in itertools.pairwise(points))
    root = xml.etree.ElementTree.fromstring(svg([("one", boxes), ("two", boxes)]))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("op <0>") == 2 and "one" in texts


# -- two engines, devices ---------------------------------------------------------------------------
def test_two_engines_with_numpy_between_equal_the_whole() -> None:
    printed = run("two_engines/run.py", "--quick")
    assert "442 of 450 right" in printed and float(printed.split()[-1]) < 1e-5


def test_devices_default_to_the_cpu_and_are_chosen_by_name() -> None:
    printed = run("devices/run.py")
    assert "cpu:avx2" in printed and "reference" in printed and "\ncpu: " in printed and "the digit is a 3" in printed
    assert "\nreference: 1 threads, the digit is a 3" in run("devices/run.py", "--target", "reference")


def test_device_that_is_not_there_is_a_typed_error() -> None:
    printed = run("devices/run.py", "--target", "cuda:1", code=2)
    assert "D101" in printed and "do " in printed


# -- all --------------------------------------------------------------------------------------------
def test_every_example_is_listed() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    folders = [path for path in EXAMPLES.iterdir() if path.is_dir() and (path / "README.md").exists()]
    assert len(folders) >= 5 and all(f"({path.name}/README.md)" in text for path in folders)
    programs = list(EXAMPLES.glob("*/run.py"))
    assert all(f"python examples/{path.parent.name}/run.py" in text for path in programs)
