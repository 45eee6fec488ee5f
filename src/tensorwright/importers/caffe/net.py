# SPDX-License-Identifier: Apache-2.0
"""What of a NetParameter is the network to deploy: the layers of phase TEST, the inputs, and who makes each blob.

Follows caffe's net.cpp: rules filter the layers first, then each top is a new blob, or the bottom of the same layer in
place; what no layer reads is an output.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorwright.importers.caffe.data import data_shapes, dummy_number, dummy_shapes, makes_samples
from tensorwright.importers.problems import Problems
from tensorwright.ir.dims import Dim

TRAINING_LAYERS = (
    *("Accuracy", "SoftmaxWithLoss", "EuclideanLoss", "HingeLoss", "SigmoidCrossEntropyLoss", "InfogainLoss"),
    *("MultinomialLogisticLoss", "ContrastiveLoss", "MultiBoxLoss", "DetectionEvaluate", "HDF5Output", "SmoothL1Loss"),
)
"""Layers that judge a result, or write it away: an engine gives the result itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """A layer with its blobs: numbers of the blobs that it reads, and of those that it makes."""

    proto: Any
    name: str
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]


@dataclass(slots=True)
class Net:
    """A network as steps over numbered blobs: writing a blob in place makes a new number under the old name."""

    names: list[str] = field(default_factory=list)
    """Of each blob, its name."""
    inputs: dict[int, tuple[Dim, ...] | None] = field(default_factory=dict)
    """Blobs that are given, with their declared shapes; None where only shapes= can tell."""
    optional: set[int] = field(default_factory=set)
    """Of these, what a layer that reads samples makes: it is left out where nothing reads it, as labels are."""
    steps: list[Step] = field(default_factory=list)
    current: dict[str, int] = field(default_factory=dict)
    """Name to number, as after the last layer."""
    unread: dict[str, int] = field(default_factory=dict)
    """The blobs that no layer reads, by name."""
    dropped: list[str] = field(default_factory=list)
    """Names of layers that were left out, because they only judge the result."""

    def new(self, name: str) -> int:
        """A new blob."""
        self.names.append(name)
        self.current[name] = self.unread[name] = len(self.names) - 1
        return self.current[name]

    @property
    def outputs(self) -> list[str]:
        """What the network gives: blobs made by layers and read by none, in the order of their names."""
        return sorted(name for name, number in self.unread.items() if number not in self.inputs)


def net_of(proto: Any, problems: Problems) -> Net:
    """The network of a NetParameter in phase TEST; what is wrong with it is put into `problems`."""
    net = Net()
    _read_header(net, proto, problems)
    for layer in proto.layer:
        if layer.include and layer.exclude:
            problems.mistake(f"{described(layer, layer.name)} has both include and exclude rules")
    layers = [layer for layer in proto.layer if _is_included(proto.state, layer)]
    made_later = {top: f"only a later layer makes: {v.name!r}" for v in reversed(layers) for top in v.top}
    for layer in proto.layer:
        for top in layer.top:
            made_later.setdefault(top, "only layers make that their include and exclude rules leave out")
    for layer in layers:
        name = layer.name or f"{layer.type}:{next(iter(layer.top), '')}"
        if layer.type in TRAINING_LAYERS:  # what it reads stays an output
            net.dropped.append(name)
        elif layer.type == "Input":
            _read_inputs(net, layer, name, problems)
        elif makes_samples(layer):
            _read_data(net, layer, described(layer, name), problems)
        elif layer.type == "DummyData" and not layer.bottom:
            _read_dummies(net, layer, name, problems)
        else:
            _add_step(net, layer, name, made_later, problems)
    return net


def is_left_out(proto: Any, layer: Any) -> bool:
    """Whether nothing of what a layer of a NetParameter computes is imported."""
    return layer.type in TRAINING_LAYERS or makes_samples(layer) or not _is_included(proto.state, layer)


def described(layer: Any, name: str) -> str:
    """The layer in messages."""
    return f"layer {name!r} ({layer.type})"


# -- inputs -----------------------------------------------------------------------------------------
def _read_header(net: Net, proto: Any, problems: Problems) -> None:
    """`input:` with `input_dim:` (four for each) or `input_shape {}` (one for each)."""
    names, dims, shapes = list(proto.input), list(proto.input_dim), list(proto.input_shape)
    if dims and len(dims) != 4 * len(names):
        problems.mistake(f"{len(names)} inputs need {4 * len(names)} input_dim, there are {len(dims)}")
    elif dims and shapes:
        problems.mistake("inputs have either input_dim or input_shape, not both")
    elif shapes and len(shapes) != len(names):
        problems.mistake(f"{len(names)} inputs need as many input_shape, there are {len(shapes)}")
    else:
        for i, name in enumerate(names):
            shape = tuple(dims[4 * i : 4 * i + 4]) if dims else tuple(shapes[i].dim) if shapes else None
            _add_input(net, name, shape, "the header", problems)


def _read_inputs(net: Net, layer: Any, name: str, problems: Problems) -> None:
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    where = described(layer, name)
    if len(shapes) not in (0, 1, len(layer.top)):
        problems.mistake(f"{where} has {len(layer.top)} tops and {len(shapes)} shapes")
        shapes = []
    for i, top in enumerate(layer.top):
        shape = shapes[i if len(shapes) > 1 else 0] if shapes else None
        _add_input(net, top, shape, where, problems)


def _add_input(net: Net, name: str, shape: tuple[int, ...] | None, where: str, problems: Problems) -> None:
    if name in net.current:
        problems.mistake(f"{where} makes the blob {name!r}, which there is already")
        return
    if shape is not None and any(d < 0 for d in shape):
        problems.mistake(f"{where} declares {name!r} with the shape {list(shape)}; sizes are not negative")
        shape = tuple(max(d, 0) for d in shape)
    net.inputs[net.new(name)] = shape


def _read_data(net: Net, layer: Any, where: str, problems: Problems) -> None:
    for top, shape in zip(layer.top, data_shapes(layer), strict=True):
        _add_input(net, top, shape, where, problems)
        net.optional.add(net.current[top])


def _read_dummies(net: Net, layer: Any, name: str, problems: Problems) -> None:
    """Random samples become inputs; a layer makes those of one number."""
    where, constant = described(layer, name), []
    try:
        for i, (top, shape) in enumerate(zip(layer.top, dummy_shapes(layer), strict=True)):
            if dummy_number(layer, i) is None:
                _add_input(net, top, shape, where, problems)
                net.optional.add(net.current[top])
            else:
                constant.append(top)
    except ValueError as error:
        problems.mistake(f"{where}: {error}")
        constant = list(layer.top)
    if constant:
        tops = tuple(_new_top(net, top, where, problems) for top in constant)
        net.steps.append(Step(layer, name, (), tops))


# -- layers -----------------------------------------------------------------------------------------
def _is_included(state: Any, layer: Any) -> bool:
    """Whether the layer's include and exclude rules admit phase TEST with the net's own level and stages."""
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: Any, rule: Any) -> bool:
    test = 1
    if rule.HasField("phase") and rule.phase != test:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return set(rule.stage) <= stages and not stages & set(rule.not_stage)


def _add_step(net: Net, layer: Any, name: str, made_later: dict[str, str], problems: Problems) -> None:
    where = described(layer, name)
    bottoms = []
    for bottom in layer.bottom:
        number = net.current.get(bottom)
        if number is None:
            problems.mistake(f"{where} reads the blob {bottom!r}, {_missing(bottom, list(net.current), made_later)}")
            number = net.new(bottom)  # so that each fault is told once
            net.inputs[number] = None
        net.unread.pop(bottom, None)
        bottoms.append(number)
    tops = []
    for i, top in enumerate(layer.top):
        in_place = i < len(layer.bottom) and layer.bottom[i] == top
        tops.append(net.new(top) if in_place else _new_top(net, top, where, problems))
    net.steps.append(Step(layer, name, tuple(bottoms), tuple(tops)))


def _new_top(net: Net, top: str, where: str, problems: Problems) -> int:
    if top in net.current:
        problems.mistake(f"{where} makes the blob {top!r}, which another layer makes already")
    return net.new(top)


def _missing(name: str, known: Sequence[str], made_later: dict[str, str]) -> str:
    if name in made_later:
        return f"which {made_later[name]}"
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return "which no layer makes" + (f"; there are {', '.join(map(repr, near))}" if near else "")
