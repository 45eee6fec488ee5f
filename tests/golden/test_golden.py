# SPDX-License-Identifier: Apache-2.0
"""Small graphs in text form before and after a pass.

A case is a file: the graph before, a line `--- <stage>` (a stage name of the pipeline, or `pipeline`), the graph after.
Constants too large for the text get random values from a generator seeded with the case name, and every case is also
computed before and after.
"""

from __future__ import annotations

import pathlib
import re
import zlib

import numpy as np
import pytest

import tensorwright.ops  # noqa: F401  # registers the ops that the text names
from tensorwright.backends.reference.interpret import interpret
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph
from tensorwright.ir.op import Array
from tensorwright.ir.parse import parse_graph
from tensorwright.ir.text import graph_text
from tensorwright.ir.types import TensorType
from tensorwright.passes.pipeline import PassOptions, stages
from tensorwright.passes.runner import run_stages

CASES = sorted(pathlib.Path(__file__).parent.glob("*.txt"))
LARGE_CONSTANT = re.compile(r"^const %(\S+): (\w+)\[([0-9,]*)\]$", re.MULTILINE)


def random_array(rng: np.random.Generator, type: TensorType) -> Array:
    if type.dtype is DType.bool:
        return rng.random(type.static_shape) < 0.5
    if type.dtype.is_integer:
        return rng.integers(0, 4, type.static_shape).astype(type.dtype.numpy)
    return rng.uniform(0.25, 1.5, type.static_shape).astype(type.dtype.numpy)


def read_graph(text: str, seed: int) -> Graph:
    """The graph of a text with large constants made up."""
    rng = np.random.default_rng(seed)
    constants = {}
    for name, dtype, dims in LARGE_CONSTANT.findall(text):
        type = TensorType(DType(dtype), tuple(int(d) for d in dims.split(",") if d))
        constants[name.strip('"')] = random_array(rng, type)
    return parse_graph(text, constants)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_pass_on_golden_graph_gives_the_recorded_graph(path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    before_text, stage, after_text = split_case(path.read_text())
    seed = zlib.crc32(path.stem.encode())
    before = read_graph(before_text, seed)
    chosen = [s for s in stages(PassOptions()) if stage in ("pipeline", s.name)]
    assert chosen, f"{path.name}: the pipeline has no stage {stage!r}"
    report = run_stages(before, chosen, check="edit")
    found = graph_text(report.graph)
    if request.config.getoption("--update-golden", default=False):
        path.write_text(f"{before_text}--- {stage}\n{found}")
    else:
        assert found == after_text, f"{path.name}: the graph after {stage} changed (--update-golden accepts it)"
    rng = np.random.default_rng(seed + 1)
    feeds = {value.name: random_array(rng, value.type) for value in before.inputs}
    expected, got = interpret(before, feeds), interpret(report.graph, feeds)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=2e-5, atol=2e-5, err_msg=f"{path.name} seed {seed}: {name}")


def test_golden_constants_too_large_for_text_are_found() -> None:
    assert LARGE_CONSTANT.findall("const %w/1: f32[8,5]\nconst %s: f32[] = (1.0)\n") == [("w/1", "f32", "8,5")]


def split_case(text: str) -> tuple[str, str, str]:
    match = re.search(r"^--- (\w+)\n", text, re.MULTILINE)
    if match is None:
        raise ValueError("a golden case needs a line '--- <stage>'")
    return text[: match.start()], match.group(1), text[match.end() :]
