# SPDX-License-Identifier: Apache-2.0
"""Reads a Caffe network into a Graph, collecting every problem before it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from tensorwright.importers.builder import Builder, DataDependentError
from tensorwright.importers.caffe.layer import Layer, Weights
from tensorwright.importers.caffe.net import Net, Step, described, is_left_out, net_of
from tensorwright.importers.caffe.registry import find_layer
from tensorwright.importers.caffe.text import read_prototxt
from tensorwright.importers.caffe.weights import read_caffemodel
from tensorwright.importers.files import check_wanted
from tensorwright.importers.problems import Problems
from tensorwright.importers.sizes import symbol_bindings
from tensorwright.ir.dims import Dim, SymDim, Undecided, substitute
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.types import TensorType
from tensorwright.network.builder import RefusalError
from tensorwright.shapes import Range

_REMEDY = "correct the prototxt, or give the weights that belong to it"
_RANDOM = "no weights were given: all parameters are random numbers from a fixed seed, good for timing only"


def import_caffe(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, Sequence[int] | Range] | None = None,
    outputs: Sequence[str] | None = None,
    notes: list[str] | None = None,
) -> Graph:
    """The Graph of a prototxt in phase TEST, with the weights of a caffemodel or seeded random ones.

    Values and outputs carry blob names (of a blob that layers change in place, the last), origins are layer names.
    `shapes` gives inputs other sizes than the declared ones, or ranges; `outputs` chooses other blobs than those that
    no layer reads. Lines that the user should read are appended to `notes`.

    Raises UnsupportedError M201 with all layers that cannot be imported, or ModelError: M101 missing, M102 empty, M103
    unreadable (with line and column) or in the old style, M104 inconsistent, M106 shapes= does not fit, M107 outputs=
    names an unknown blob.
    """
    where, problems = os.fspath(path), Problems("layer", _REMEDY)
    proto = read_prototxt(path, lambda net, layer: is_left_out(net, layer) or find_layer(layer.type) is None)
    net = net_of(proto, problems)
    if not problems.first and outputs is not None:
        check_wanted(outputs, list(net.current), where)
    reader = _Reader(proto.name or "network", where, net, shapes or {}, problems)
    reader.weights = Weights(None if weights is None else read_caffemodel(weights))
    graph = reader.read(list(outputs) if outputs is not None else net.outputs)
    if notes is not None:
        notes += _notes(net, reader.weights)
    return graph


def _notes(net: Net, weights: Weights) -> list[str]:
    notes = []
    if net.dropped:
        notes.append(f"left out, as they only judge the result: the layers {', '.join(net.dropped)}")
    if weights.blobs is None:
        return [*notes, _RANDOM]
    if weights.without:
        notes.append(f"the weights file has nothing for {', '.join(weights.without)}: their fillers were used")
    layers = {step.name for step in net.steps} | set(net.dropped)
    unused = [name for name, blobs in weights.blobs.items() if blobs and name not in layers]
    if unused:
        notes.append(f"not used: the weights of {', '.join(unused)}, which the network does not have")
    return notes


class _Reader:
    """Reads the layers that the outputs need."""

    weights: Weights

    def __init__(
        self, name: str, where: str, net: Net, shapes: Mapping[str, Sequence[int] | Range], problems: Problems
    ) -> None:
        self.where, self.net, self.shapes, self.problems = where, net, shapes, problems
        self.builder = Builder(name)
        self.symbols: dict[object, str] = {}  # of dims that are declared and given alike
        self.values: dict[int, Value | None] = {}  # None: could not be imported, and was reported

    def read(self, outputs: Sequence[str]) -> Graph:
        """The graph of these blobs. Raises what `import_caffe` says."""
        self.problems.raise_any(self.where)
        if not outputs:
            self.problems.mistake("it has no layer that makes an output")
        wanted = [self.net.current[name] for name in outputs]
        steps, needed = self._needed(wanted)
        self._read_inputs(needed)
        for step in steps:
            self._read_step(step)
        self.problems.raise_any(self.where)
        found = [(name, self.values[number]) for name, number in zip(outputs, wanted, strict=True)]
        return self.builder.finish([(name, value) for name, value in found if value is not None])

    def _needed(self, wanted: Sequence[int]) -> tuple[list[Step], set[int]]:
        """The layers that these blobs depend on, in order, and all blobs that are read or wanted."""
        needed, steps = set(wanted), []
        for step in reversed(self.net.steps):
            if not needed.isdisjoint(step.tops):
                needed.update(step.bottoms)
                steps.append(step)
        return steps[::-1], needed

    # -- inputs ---------------------------------------------------------------------------------
    def _read_inputs(self, needed: set[int]) -> None:
        numbers = [n for n in self.net.inputs if n in needed or n not in self.net.optional]
        declared = {self.net.names[n]: self._declared(n) for n in numbers}
        bindings = symbol_bindings(self.where, declared, self.shapes)
        for number in numbers:
            name = self.net.names[number]
            input_type = declared[name]
            self.values[number] = None
            if input_type is not None:
                shape = tuple(substitute(d, bindings) for d in input_type.shape)
                self.values[number] = self.builder.input(name, TensorType(DType.f32, shape))

    def _declared(self, number: int) -> TensorType | None:
        """The type of an input; what `shapes` names may have any size there. Dims that are declared alike, and are
        given alike, are one symbol: the steps of a sequence, say."""
        name, shape = self.net.names[number], self.net.inputs[number]
        given = self.shapes.get(name)
        if given is None:
            if shape is None:
                self.problems.mistake(
                    f"the input {name!r} has no shape here: give it one with shapes={{{name!r}: ...}}"
                )
                return None
            return TensorType(DType.f32, shape)
        ranges = Range.of(given)
        rank = len(ranges.opt)
        if shape is not None and len(shape) != rank:
            return TensorType(DType.f32, shape)  # which makes shapes= a mistake
        return TensorType(DType.f32, tuple(self._symbol(name, shape, ranges, axis) for axis in range(rank)))

    def _symbol(self, name: str, shape: tuple[Dim, ...] | None, ranges: Range, axis: int) -> SymDim:
        if shape is None:
            return SymDim.symbol(f"{name}_{axis}")
        alike = (axis, shape[axis], ranges.min[axis], ranges.opt[axis], ranges.max[axis])
        return SymDim.symbol(self.symbols.setdefault(alike, f"{name}_{axis}"))

    # -- layers ---------------------------------------------------------------------------------
    def _read_step(self, step: Step) -> None:
        self.values.update(dict.fromkeys(step.tops))
        entry = find_layer(step.proto.type)
        if entry is None:
            self.problems.refuse(
                step.proto.type or "a layer without type",
                step.name,
                "this version has no importer for the layer",
                "replace the layer, or ask for it in the issue tracker",
            )
            return
        bottoms = [self.values[number] for number in step.bottoms]
        known = [value for value in bottoms if value is not None]
        if len(known) != len(bottoms):
            return  # what is wrong there was reported
        self.builder.source = step.name
        names = [self.net.names[number] for number in step.tops]
        layer = Layer(step.proto, step.name, known, names, self.builder, self.weights)
        try:
            result = entry.translate(self.builder, layer)
            self.weights.check_all_read(step.name)
        except RefusalError as refusal:
            self.problems.refuse(step.proto.type, step.name, refusal.reason, refusal.do)
        except (DataDependentError, Undecided) as error:
            do = "give the inputs a fixed shape with shapes="
            self.problems.refuse(step.proto.type, step.name, str(error), do)
        except (ValueError, ArithmeticError, IndexError) as error:
            self.problems.mistake(f"{described(step.proto, step.name)}: {error}")
        else:
            results = [result] if isinstance(result, Value) else list(result)
            if len(results) < len(names):
                self.problems.mistake(
                    f"{described(step.proto, step.name)} makes {len(results)} of its {len(names)} tops"
                )
                return
            for number, name, value in zip(step.tops, names, results, strict=False):
                self.values[number] = value
                self.builder.bind(value, name)
