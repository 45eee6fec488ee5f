# SPDX-License-Identifier: Apache-2.0
"""From a .cfg file, and the .weights that belong to it, to a Graph: each section becomes layers of a `tw.Network`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tensorwright.errors import ModelError
from tensorwright.importers.darknet import detectors, joins, layers, rare  # noqa: F401  they register their kinds
from tensorwright.importers.darknet.base import KINDS, Layer, Net
from tensorwright.importers.darknet.cfg import Section, read_sections, typed
from tensorwright.importers.darknet.weights import Weights
from tensorwright.importers.files import check_wanted
from tensorwright.importers.problems import Problems
from tensorwright.importers.sizes import sized
from tensorwright.ir.graph import Graph
from tensorwright.network import Network, Tensor
from tensorwright.shapes import Range

Path = str | os.PathLike[str]

INPUT = "data"


@dataclass(frozen=True)
class Input:
    """What [net] says of the input: an image, or a number of elements. All other options are for training."""

    height: int = 0
    width: int = 0
    channels: int = 0
    inputs: int = 0
    refused: ClassVar[Mapping[str, str]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a batch of one; () when it is not known."""
        image = (1, self.channels, self.height, self.width)
        return image if all(image) else (1, self.inputs) if self.inputs else ()


@dataclass(frozen=True)
class Part:
    """A layer and its name; `section` says where it stands."""

    name: str
    layer: Layer
    section: Section


def import_darknet(
    path: Path,
    *,
    weights: Path | None = None,
    shapes: Mapping[str, Sequence[int] | Range] | None = None,
    outputs: Sequence[str] | None = None,
    notes: list[str] | None = None,
) -> Graph:
    """The Graph of a .cfg file. Its input is "data", of batch 1 and of the size in [net] unless `shapes` says another.

    The result of every layer is named after its section and its index in Darknet: "convolutional_0", "yolo_82".
    Outputs are those that `outputs` names; by default all yolo and region layers, and the last layer. Without
    `weights` they are seeded random numbers. Raises ModelError M101 to M104, M106 and M107, UnsupportedError M201.
    """
    notes = [] if notes is None else notes
    where = str(path)
    declared, parts = read_parts(path, notes)
    network, numbers = Network(pathlib.Path(path).stem), Weights(weights)
    x = network.add_input(INPUT, "f32", _input_shape(declared.shape, shapes))
    results = _add(network, numbers, x, parts, where)
    notes += numbers.notes()
    if outputs is None:
        outputs = _default_outputs(parts)
    check_wanted(outputs, [INPUT, *(part.name for part in parts)], where)
    for name in outputs:
        network.mark_output(_named(network, results[name], name))
    graph = network.to_graph()
    return sized(graph, shapes) if shapes else graph


def read_parts(path: Path, notes: list[str]) -> tuple[Input, list[Part]]:
    """The input and the layers of a .cfg file. Raises ModelError M101 to M104, UnsupportedError M201."""
    problems = Problems("layer", "correct the .cfg file")
    net, *sections = read_sections(str(path), problems)
    if net.kind not in ("net", "network"):
        problems.mistake(f"the first section is {net}, not [net]")
    declared = typed(Input, net, problems, [])
    if not declared.shape:
        problems.mistake(f"{net} has neither height=, width= and channels= nor inputs=")
    parts: list[Part] = []
    for index, section in enumerate(sections):
        kind = KINDS.get(section.kind)
        if kind is None:
            problems.refuse(f"[{section.kind}]", f"line {section.line}", "this kind of layer is not supported")
            continue
        layer = typed(kind, section, problems, notes)
        for text in layer.problems():
            problems.refuse(f"[{section.kind}]", f"line {section.line}", text)
        parts.append(Part(f"{kind.kind}_{index}", layer, section))
    if not sections:
        problems.mistake("there is no layer after [net]")
    problems.raise_any(str(path))
    return declared, parts


def _input_shape(
    declared: tuple[int, ...], shapes: Mapping[str, Sequence[int] | Range] | None
) -> tuple[int | str, ...]:
    """The declared shape, or the one that `shapes` gives: a dim that has a range gets a name."""
    given = Range.of((shapes or {}).get(INPUT, declared))
    if len(given.opt) != len(declared):
        return declared  # `sized` says what is wrong with it
    names = ("batch", "channels", "height", "width") if len(declared) == 4 else ("batch", "inputs")
    return tuple(low if low == high else name for low, high, name in zip(given.min, given.max, names, strict=True))


def _add(network: Network, weights: Weights, x: Tensor, parts: Sequence[Part], where: str) -> dict[str, Tensor]:
    """Write all layers; the result of each by its name. Raises ModelError M104 at the first that does not fit."""
    net = Net(network, weights, [])
    results = {INPUT: x}
    for part in parts:
        first = network.num_layers
        try:
            x = part.layer.add(net, x)
            _name_layers(network, first, part.name)
            _ = x.shape  # is asked for here, so that what does not fit is told of this layer
        except (ValueError, ModelError) as error:
            raise ModelError(
                f"layer {part.name} does not fit",
                where=f"{where}, {part.section}",
                why=[error.what, *error.why] if isinstance(error, ModelError) else str(error),
                code="M104",
                do="correct the .cfg file, or give the weights that belong to it",
            ) from error
        net.results.append(x)
        results[part.name] = x
    return results


def _name_layers(network: Network, first: int, name: str) -> None:
    """Name the layers from number `first` on: the last one `name`, those before it `name.kind`."""
    for index in range(first, network.num_layers):
        layer = network.get_layer(index)
        layer.name = name if index == network.num_layers - 1 else f"{name}.{layer.kind}"


def _default_outputs(parts: Sequence[Part]) -> list[str]:
    """All detectors and the last layer that is no loss, in the order of the layers."""
    last = max((i for i, part in enumerate(parts) if not part.layer.is_loss), default=len(parts) - 1)
    return [part.name for i, part in enumerate(parts) if part.layer.is_output or i == last]


def _named(network: Network, x: Tensor, name: str) -> Tensor:
    """x under this name."""
    if x.name == name:
        return x
    identity = network.add_identity(x)
    identity.name = name
    return identity.get_output(0)
