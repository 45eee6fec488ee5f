# SPDX-License-Identifier: Apache-2.0
"""Whole networks through files: what every command writes is valid, and runs in ONNX Runtime to the same outputs."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest

from tensorwright.errors import ModelError
from tensorwright.surgeon.edit import NewNode, insert, replace
from tensorwright.surgeon.extract import extract
from tensorwright.surgeon.files import open_model, save_model, uses_external
from tensorwright.surgeon.sanitize import sanitize
from tests.importers.models import runtime_outputs
from tests.networks.nets import NETS, feed


class Bench:
    """A network in a file, its weights there or beside it; `again` writes a changed one and reads it back."""

    def __init__(self, name: str, folder: pathlib.Path, *, external: bool) -> None:
        self.folder, self.external = folder, external
        self.path = folder / "source.onnx"
        onnx.save(NETS[name](), self.path, save_as_external_data=external, location="weights.bin", size_threshold=0)
        assert uses_external(self.path) is external
        self.model = open_model(self.path)
        self.output = self.model.graph.output[0].name

    def again(self, model: onnx.ModelProto) -> onnx.ModelProto:
        target = self.folder / "out.onnx"
        save_model(model, target, external=self.external)
        onnx.checker.check_model(str(target), full_check=True)
        assert uses_external(target) is self.external
        return open_model(target)


def waist(model: onnx.ModelProto) -> tuple[str, onnx.ModelProto, onnx.ModelProto]:
    """A tensor as near the middle as can be through which all of the network goes, and the two parts."""
    nodes = model.graph.node
    for node in sorted(nodes, key=lambda n: abs(list(nodes).index(n) - len(nodes) // 2)):
        name = node.output[0]
        try:
            tail = extract(model, [name], [model.graph.output[0].name])
        except ModelError:
            continue
        return name, extract(model, [i.name for i in model.graph.input], [name]), tail
    raise AssertionError("the network has no waist")


@pytest.mark.parametrize("external", [False, True], ids=["one-file", "external"])
@pytest.mark.parametrize("name", ["residual", "detector", "vision_transformer", "recurrent"])
def test_edited_network_gives_the_same_outputs(name: str, external: bool, tmp_path: pathlib.Path) -> None:
    bench = Bench(name, tmp_path, external=external)
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    feeds = feed(bench.model, seed)
    (want,) = runtime_outputs(bench.model, feeds)

    def assert_same(got: np.ndarray, what: str) -> None:
        error = np.abs(got - want).max() / np.abs(want).max()
        assert got.shape == want.shape and error < 1e-5, f"{what}: error {error}, seed {seed}"

    clean = bench.again(sanitize(bench.model, fold=True).model)
    assert_same(runtime_outputs(clean, feeds)[0], "sanitize")

    middle, head, tail = waist(clean)
    (inner,) = runtime_outputs(bench.again(head), feeds)
    assert_same(runtime_outputs(bench.again(tail), {middle: inner})[0], f"extract at {middle}")

    once = bench.again(insert(clean, middle, NewNode("Identity", name="new")))
    assert_same(runtime_outputs(once, feeds)[0], f"insert on {middle}")
    turned = bench.again(replace(once, NewNode("Neg"), node="new"))
    (new,) = (n for n in turned.graph.node if n.name == "new")
    assert new.op_type == "Neg" and np.abs(runtime_outputs(turned, feeds)[0] - want).max() > 0
    assert_same(runtime_outputs(bench.again(insert(turned, new.output[0], NewNode("Neg"))), feeds)[0], "replace")
