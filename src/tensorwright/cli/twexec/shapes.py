# SPDX-License-Identifier: Apache-2.0
"""The shapes to build for: from flags, from the batch of a Caffe network, and 1 for what nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tensorwright.cli.twexec.model import Ranges, caffe_inputs, imported
from tensorwright.cli.twexec.options import Options, ProfileShapes, Shapes
from tensorwright.cli.twexec.values import matched
from tensorwright.errors import InputError
from tensorwright.shapes import Range

if TYPE_CHECKING:
    from tensorwright.cli.twexec.log import Log
    from tensorwright.ir.graph import Graph


def matched_shapes(given: Mapping[str, object], names: list[str], flag: str) -> dict[str, object]:
    """As `values.matched`. Raises InputError I112 for a name that no input has."""
    try:
        return matched(given, names)
    except ValueError as error:
        raise InputError(
            f"--{flag} does not fit the network", why=str(error), do="name the inputs as the model does", code="I112"
        ) from None


def build_ranges(options: Options, log: Log) -> list[Ranges]:
    """The ranges of every optimization profile, as far as flags say; one that is empty leaves all to the model.

    Raises BuildError B110 when min <= opt <= max does not hold, InputError I112 for a wildcard that fits no input, and
    what reading the model raises.
    """
    build, inference = options.build, options.inference
    profiles = [_named(profile, options) for profile in build.profiles]
    if not profiles and inference.shapes:
        shapes = _without_wildcards(inference.shapes, "shapes", options)
        profiles = [{name: Range.of(shape) for name, shape in shapes.items()}]
    if options.model.flag == "deploy" and not build.profiles:
        return [_batched(options, log) | (profiles[0] if profiles else {})]
    return profiles or [{}]


def _named(profile: ProfileShapes, options: Options) -> Ranges:
    if profile.has_wildcards:
        sides = (("min", profile.min), ("opt", profile.opt), ("max", profile.max))
        profile = ProfileShapes(*(_without_wildcards(part, f"{side}Shapes", options) for side, part in sides))
        problems = profile.complete()
        if problems:
            raise InputError(
                "the build shapes are incomplete", why=problems, do="give all three, or --optShapes alone", code="I112"
            )
    return {name: Range(profile.min[name], shape, profile.max[name]) for name, shape in profile.opt.items()}


def _without_wildcards(shapes: Shapes, flag: str, options: Options) -> Shapes:
    if not any("*" in name for name in shapes):
        return shapes  # reading the model says what is wrong with a name
    names = [value.name for value in imported(options.model, {}).inputs]
    found: Shapes = {}
    for name, shape in matched_shapes(shapes, names, flag).items():
        assert isinstance(shape, tuple)
        found[name] = shape
    return found


# -- Caffe ------------------------------------------------------------------------------------------
def _batched(options: Options, log: Log) -> Ranges:
    """The declared shapes of a prototxt's inputs with the batch as their first dim."""
    model = options.model
    declared = caffe_inputs(model.path)
    batch = model.batch or 1
    high = model.max_batch or batch
    firsts = {shape[0] for shape in declared.values()}
    if model.batch is None and (len(firsts) != 1 or firsts == {batch}) and high == batch:
        return {}
    if model.batch is None and firsts != {batch}:
        count = "/".join(map(str, sorted(firsts)))
        log.info(f"Batch 1, where the prototxt has {count}: --batch={max(firsts, default=1)} builds for that")
    low = 1 if model.max_batch else batch
    return {name: Range((low, *shape[1:]), (batch, *shape[1:]), (high, *shape[1:])) for name, shape in declared.items()}


# -- what nobody says -------------------------------------------------------------------------------
def filled(graph: Graph, ranges: Ranges, log: Log) -> Ranges:
    """`ranges`, and for inputs with free dims a shape with 1 in their place, with a warning."""
    from tensorwright.ir.dims import Dim, Symbol, SymDim, high, low, opt

    def is_free(dim: Dim) -> bool:
        return isinstance(dim, SymDim) and any(not isinstance(symbol, Symbol) for symbol in dim.symbols)

    more: Ranges = {}
    for value in graph.inputs:
        dims = value.type.shape
        if value.name not in ranges and any(map(is_free, dims)):
            ends = [tuple(1 if is_free(d) else end(d) for d in dims) for end in (low, opt, high)]
            more[value.name] = Range(*ends)
            log.warning(
                f"Dynamic dimensions of input {value.name} ({value.type}) are set to 1, as no shape is given for it: "
                f"{more[value.name]}"
            )
    return ranges | more
