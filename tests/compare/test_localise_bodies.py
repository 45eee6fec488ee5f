# SPDX-License-Identifier: Apache-2.0
"""A broken kernel inside a body is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import tensorwright as tw
from tensorwright.compare.difference import Tolerance
from tensorwright.compare.localise import Localised, localise
from tests.compare.test_localise import spoil
from tests.runtime.test_control_flow import Feeds, arrays, if_with_outer_values, loop_with_rows, scan_of


def walked(proto: onnx.ModelProto, feeds: Feeds) -> Localised:
    with tw.build(proto, target="reference") as engine:
        expected = engine.run(feeds)
    with tw.build(proto, tune="off") as engine:
        return localise(engine.plan, feeds, engine.run(feeds), expected, Tolerance(), threads=engine.threads)


MODELS = {
    "loop/body/mm": (loop_with_rows(), {"m": np.int64(2)}),
    "scan/body/mm": (scan_of(3, 1, 1, 0, 0), {}),
    "choose/then/MatMul:p": (if_with_outer_values(), {"c": True}),
}


@pytest.mark.parametrize("step", MODELS)
def test_broken_kernel_inside_a_body_is_named(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, given = MODELS[step]
    feeds = arrays(proto, **given)
    right = walked(proto, feeds)
    assert right.agrees and step in {s.step for s in right.steps}
    spoil(monkeypatch, lambda w: "mat_mul" in w.key)
    wrong = walked(proto, feeds)
    assert wrong.faulty is not None and wrong.faulty.step == step


def test_branches_and_bodies_that_are_not_entered_are_not_walked() -> None:
    proto = if_with_outer_values()
    assert not any("then" in s.step for s in walked(proto, arrays(proto, c=False)).steps)
    proto = loop_with_rows()
    assert not any("body" in s.step for s in walked(proto, arrays(proto, m=np.int64(0))).steps)
