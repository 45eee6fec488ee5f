# SPDX-License-Identifier: Apache-2.0
"""The model that a command line names: its flag says the format, whatever the file is called."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Final

from tensorwright.cli.twexec.options import ModelOptions, Shapes
from tensorwright.shapes import Range

if TYPE_CHECKING:
    from tensorwright.ir.graph import Graph

Ranges = dict[str, Range]

_SUFFIX: Final = {"onnx": ".onnx", "deploy": ".prototxt", "tf": ".pb", "darknet": ".cfg"}


def imported(model: ModelOptions, ranges: Ranges, notes: list[str] | None = None) -> Graph:
    """The graph of the model before it is optimised; lines that the user should read are appended to `notes`.

    Raises what its importer raises.
    """
    from tensorwright.importers.base import FORMATS, Request

    format = FORMATS[_SUFFIX[model.flag]]
    weights = model.weights if format.has_weights_file else None
    request = Request(ranges or None, model.outputs or None, weights, [] if notes is None else notes)
    return format.read(model.path, request)


def has_usual_name(model: ModelOptions) -> bool:
    """Whether the path says the format as well, so that `tw.build` finds it."""
    return os.path.isdir(model.path) or pathlib.Path(model.path).suffix.lower() == _SUFFIX[model.flag]


def caffe_inputs(path: str) -> Shapes:
    """The inputs of a prototxt with their declared shapes, as far as it declares any.

    Raises ModelError when it cannot be read. What else is wrong with it, the build says.
    """
    from tensorwright.importers.caffe.net import net_of
    from tensorwright.importers.caffe.text import read_prototxt
    from tensorwright.importers.problems import Problems

    net = net_of(read_prototxt(path), Problems("layer", ""))
    shapes = {net.names[number]: shape or () for number, shape in net.inputs.items() if number not in net.optional}
    sizes = {name: tuple(dim for dim in shape if isinstance(dim, int)) for name, shape in shapes.items()}
    return {name: shape for name, shape in sizes.items() if shape}
