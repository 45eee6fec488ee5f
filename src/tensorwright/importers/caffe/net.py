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

from tensorwright.importers.problems import Problems
from tensorwright.ir.dims import Dim

DATA_LAYERS = ("Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "AnnotatedData", "VideoData")
"""Layers that read samples: what they make is given to the engine instead."""

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
    """Of these, what a layer that reads samples makes: labels are left out where nothing reads them."""
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
    layers = [layer for layer in proto.layer if _is_included(proto.state, layer)]
    made_later = {top: layer.name for layer in reversed(layers) for top in layer.top}
    for layer in layers:
        name = layer.name or f"{layer.type}:{next(iter(layer.top), '')}"
        if layer.type in TRAINING_LAYERS:  # what it reads stays an output
            net.dropped.append(name)
        elif layer.type == "Input":
            _read_inputs(net, layer, name, problems)
        elif layer.type in DATA_LAYERS:
            for top, shape in zip(layer.top, _data_shapes(layer), strict=False):
                _add_input(net, top, shape, f"layer {name!r} ({layer.type})", problems)
                net.optional.add(net.current[top])
        else:
            _add_step(net, layer, name, made_later, problems)
    return net


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


def _data_shapes(layer: Any) -> list[tuple[int, ...] | None]:
    """Shapes of what a layer reads from files, where the prototxt tells them; then of its labels."""
    transform, crop = layer.transform_param, layer.transform_param.crop_size
    if layer.type == "MemoryData":
        p = layer.memory_data_param
        image: tuple[int, ...] | None = (p.batch_size, p.channels, crop or p.height, crop or p.width)
        return [image, (p.batch_size,)]
    param = layer.image_data_param if layer.type == "ImageData" else layer.data_param
    batch, crop = param.batch_size, crop or param.crop_size
    height, width = transform.crop_h or crop, transform.crop_w or crop
    if layer.type == "ImageData" and not height:
        height, width = param.new_height, param.new_width
    if not height:
        height, width = transform.resize_param.height, transform.resize_param.width
    gray = transform.force_gray or (layer.type == "ImageData" and not param.is_color)
    is_color = transform.force_color or len(transform.mean_value) == 3 or (layer.type == "ImageData" and not gray)
    known = batch and height and width and (gray or is_color)
    return [(batch, 1 if gray else 3, height, width) if known else None, (batch,) if batch else None]


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
        if top in net.current and not in_place:
            problems.mistake(f"{where} makes the blob {top!r}, which another layer makes already")
        tops.append(net.new(top))
    net.steps.append(Step(layer, name, tuple(bottoms), tuple(tops)))


def _missing(name: str, known: Sequence[str], made_later: dict[str, str]) -> str:
    if name in made_later:
        return f"which only a later layer makes: {made_later[name]!r}"
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return "which no layer makes" + (f"; there are {', '.join(map(repr, near))}" if near else "")
