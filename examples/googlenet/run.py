# SPDX-License-Identifier: Apache-2.0
"""GoogLeNet's time step by step, with and without fusion, and a picture of an Inception block before and after.

Without fusion means that the optimiser stops before its first edit (TENSORWRIGHT_STOP_AFTER_EDITS=0), so that each
layer of the model is a step of its own.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

import tensorwright as tw
from draw import Box, svg
from googlenet import googlenet
from tensorwright.importers.base import import_model
from tensorwright.ir.graph import Graph, Node
from tensorwright.ops.label import label
from tensorwright.passes.pipeline import optimise
from tensorwright.runtime.profile import StepTime

HERE = pathlib.Path(__file__).resolve().parent
BLOCK = "inception_3a"


@contextmanager
def no_fusion() -> Iterator[None]:
    """Builds inside of the block leave the graph as it is."""
    name = "TENSORWRIGHT_STOP_AFTER_EDITS"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Build both engines, compare, print and draw. Returns 1 when they compute different things."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="height and width of the image")
    parser.add_argument("--repeat", type=int, default=20, help="runs to take the median of")
    parser.add_argument("--quick", action="store_true", help="take the first guess of every kernel")
    parser.add_argument("--all", action="store_true", help="show every step, not only sums by part of the network")
    parser.add_argument("--svg", type=pathlib.Path, default=HERE / "inception.svg", help="where the picture goes")
    given = parser.parse_args(arguments)
    tune = "off" if given.quick else "quick"
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "googlenet.prototxt"
        model.write_text(googlenet(given.size))
        fused = tw.build(model, tune=tune)
        with no_fusion():
            plain = tw.build(model, tune=tune)
        graph = import_model(model)
    image = {"data": np.random.default_rng(0).standard_normal((1, 3, given.size, given.size), np.float32)}
    profiles = [engine.profile(image, given.repeat) for engine in (plain, fused)]
    if given.all:
        for title, times in zip(("without fusion", "with fusion"), profiles, strict=True):
            print(title, *(f"  {t.us:9.1f} us  {', '.join(t.origin)}" for t in times), sep="\n")
    print(by_part(*profiles))
    given.svg.write_text(picture(graph, {step["name"] for step in fused.report()["steps"]}), encoding="utf-8")
    print(f"{BLOCK} before and after: {given.svg}")
    expected, found = (np.asarray(engine.run(image)["prob"]) for engine in (plain, fused))
    if not np.allclose(expected, found, rtol=1e-3, atol=1e-6):
        print("the two engines do not agree", file=sys.stderr)
        return 1
    return 0


# -- the profile ------------------------------------------------------------------------------------
def by_part(plain: Sequence[StepTime], fused: Sequence[StepTime]) -> str:
    """Steps and microseconds of each part of the network, without and with fusion."""
    parts = list(dict.fromkeys(_part(time) for time in plain))
    lines = [f"{'':14s}{'without fusion':>21s}{'with fusion':>21s}"]
    for part in (*parts, ""):
        cells = []
        for times in (plain, fused):
            chosen = [time.us for time in times if part in ("", _part(time))]
            cells.append(f"{sum(chosen):8.0f} us {len(chosen):3d} steps")
        lines.append(f"{part or 'all':14s}{''.join(cells)}")
    return "\n".join(lines)


def _part(time: StepTime) -> str:
    """The part of the network that a step belongs to: the layer's name up to the slash."""
    return time.origin[0].split("/")[0]


# -- the picture ------------------------------------------------------------------------------------
def picture(graph: Graph, steps: Collection[str], block: str = BLOCK) -> str:
    """An SVG of the block as the model has it, and as an engine runs it whose steps have these names."""
    order = {name: index for index, node in enumerate(graph.nodes) for name in node.origin}
    before = boxes_of(graph.nodes, graph, {node.name for node in graph.nodes}, block)
    optimised = optimise(graph).graph
    nodes = sorted(optimised.nodes, key=lambda node: min(order[name] for name in node.origin))
    after = boxes_of(nodes, optimised, steps, block)
    counts = [sum(not box.dashed and bool(box.reads) for box in boxes.values()) for boxes in (before, after)]
    return svg(
        [
            (f"{block} as the model has it: {counts[0]} steps", before),
            (f"as the engine runs it: {counts[1]} steps (dashed: a place in memory, no work)", after),
        ]
    )


def boxes_of(nodes: Sequence[Node], graph: Graph, steps: Collection[str], block: str) -> dict[str, Box]:
    """A box for each of the nodes that belongs to the block, and one for what they read from outside."""
    chosen = {node.name: node for node in nodes if node.origin[0].startswith(block)}
    boxes: dict[str, Box] = {}
    for node in chosen.values():
        reads = []
        for value in node.inputs:
            if value is None or value in graph.constants:
                continue
            maker = graph.producer(value)
            name = maker.name if maker is not None and maker.name in chosen else value.name
            if name not in chosen:
                boxes.setdefault(name, Box(name, _size(value.type.shape), "data"))
            reads.append(name)
        boxes[node.name] = _box(node, tuple(reads), block, dashed=node.name not in steps)
    return boxes


def _box(node: Node, reads: tuple[str, ...], block: str, *, dashed: bool) -> Box:
    kind, *more = label(node.op).split("+")
    words = [kind.replace("_", " "), *more]
    if kind == "convolution" and node.inputs[1] is not None:
        words[0] = f"conv {'x'.join(map(str, node.inputs[1].type.shape[2:]))}"
        words[1:] = ["bias" if word == "add" else word for word in more]
    layers = [name.removeprefix(f"{block}/") for name in node.origin if "relu_" not in name or len(node.origin) == 1]
    return Box(" + ".join(words), f"{', '.join(layers)}: {_size(node.outputs[0].type.shape)}", kind, reads, dashed)


def _size(shape: Sequence[object]) -> str:
    return "x".join(map(str, shape[1:]))


if __name__ == "__main__":
    sys.exit(main())
