# SPDX-License-Identifier: Apache-2.0
"""What an import has to say goes with the engine, and with the plan; sizes that nothing can hold are refused early."""

from __future__ import annotations

import pathlib

import pytest

import tensorwright as tw
from tensorwright.errors import BuildError
from tensorwright.network import ActivationType

NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
"""


@pytest.mark.parametrize("target", ["cpu", "reference"])
def test_plan_remembers_that_its_weights_are_random(tmp_path: pathlib.Path, target: str) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    engine = tw.build(tmp_path / "net.prototxt", target=target, tune="off")
    (note,) = engine.notes
    assert "random" in note and engine.report()["notes"] == [note]
    if target == "cpu":
        engine.save(tmp_path / "net.plan")
        assert note in tw.load(tmp_path / "net.plan").notes
        assert note in tw.load(tmp_path / "net.plan", target="reference").notes


def test_input_that_no_machine_can_hold_is_refused_before_anything_is_tried() -> None:
    network = tw.Network("huge")
    x = network.add_input("x", "f32", (-1, -1))
    network.mark_output(network.add_activation(x, ActivationType.RELU).get_output(0))
    with pytest.raises(BuildError) as caught:
        tw.build(network, shapes={"x": (10**9, 10**6)}, tune="off")
    assert caught.value.code == "B125" and "shapes=" in caught.value.do
