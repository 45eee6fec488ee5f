# SPDX-License-Identifier: Apache-2.0
"""The types of a model's inputs, with symbolic dims fixed as the user asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import ValueInfoProto

from tensorwright.importers.onnx.load import LoadedModel
from tensorwright.importers.onnx.tensors import NO_NUMBERS, UnsupportedTypeError, declared_type, kind_of
from tensorwright.importers.problems import Problems
from tensorwright.importers.sizes import symbol_bindings
from tensorwright.ir.dims import Dim, SymDim, substitute
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.shapes import Range


def bind_shapes(
    model: LoadedModel,
    initializers: Collection[str],
    shapes: Mapping[str, Sequence[int] | Range],
    problems: Problems,
    *,
    objects: bool,
) -> tuple[dict[str, TensorType | None], dict[str, Dim]]:
    """Input name to type (None when it has no usable type, which is reported), and what each symbol of an input in
    `shapes` stands for: its value, or the symbol with its bounds.

    An open dim without a name gets the symbol `<input>_<axis>`. What is no tensor of numbers has an ObjectType where
    `objects` allows it, and is reported otherwise. Raises ModelError M106 when `shapes` does not fit.
    """
    declared: dict[str, TensorType | None] = {}
    for info in model.proto.graph.input:
        if info.name in initializers:
            continue
        declared[info.name] = None
        try:
            declared[info.name] = _input_type(info.name, info, shapes, objects)
        except UnsupportedTypeError as error:
            problems.refuse("input", info.name, str(error))
        except ValueError as error:
            problems.mistake(f"input {info.name!r} {error}")
    bindings = symbol_bindings(model.where, declared, shapes)
    return {
        name: t and t.with_shape(substitute(d, bindings) for d in t.shape) for name, t in declared.items()
    }, bindings


def _input_type(
    name: str, info: ValueInfoProto, shapes: Mapping[str, Sequence[int] | Range], objects: bool
) -> TensorType:
    tensor = info.type.WhichOneof("value") in (None, "tensor_type")
    if objects and (not tensor or info.type.tensor_type.elem_type in NO_NUMBERS):
        return ObjectType(kind_of(info.type))
    dtype, shape = declared_type(info.type, lambda axis, symbol: SymDim.symbol(symbol or f"{name}_{axis}"))
    if dtype is None:
        raise ValueError("has no element type")
    if shape is None:
        if name not in shapes:
            raise ValueError("has no shape; give it one with shapes=")
        shape = tuple(SymDim.symbol(f"{name}_{axis}") for axis in range(len(Range.of(shapes[name]).opt)))
    return TensorType(dtype, shape)
