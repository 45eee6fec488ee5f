# SPDX-License-Identifier: Apache-2.0
"""The types of a model's inputs, with symbolic dims fixed as the user asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnx import ValueInfoProto

from tensorwright.errors import ModelError
from tensorwright.importers.onnx.load import LoadedModel
from tensorwright.importers.onnx.problems import Problems
from tensorwright.importers.onnx.tensors import NO_NUMBERS, UnsupportedTypeError, declared_type, kind_of
from tensorwright.ir.dims import Dim, SymDim
from tensorwright.ir.types import ObjectType, TensorType


def bind_shapes(
    model: LoadedModel,
    initializers: Collection[str],
    shapes: Mapping[str, Sequence[int]],
    problems: Problems,
    *,
    objects: bool,
) -> tuple[dict[str, TensorType | None], dict[str, int]]:
    """Input name to type (None when it has no usable type, which is reported), and the value of each fixed symbol.

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
    bindings = _bindings(model.where, declared, shapes)
    return {
        name: t and t.with_shape(substituted(d, bindings) for d in t.shape) for name, t in declared.items()
    }, bindings


def substituted(dim: Dim, bindings: Mapping[str, int]) -> Dim:
    """The dim with a bound symbol replaced by its value."""
    return dim.evaluate(bindings) if isinstance(dim, SymDim) and dim.symbols <= bindings.keys() else dim


def _input_type(name: str, info: ValueInfoProto, shapes: Mapping[str, Sequence[int]], objects: bool) -> TensorType:
    tensor = info.type.WhichOneof("value") in (None, "tensor_type")
    if objects and (not tensor or info.type.tensor_type.elem_type in NO_NUMBERS):
        return ObjectType(kind_of(info.type))
    dtype, shape = declared_type(info.type, lambda axis, symbol: SymDim.symbol(symbol or f"{name}_{axis}"))
    if dtype is None:
        raise ValueError("has no element type")
    if shape is None:
        if name not in shapes:
            raise ValueError("has no shape; give it one with shapes=")
        shape = tuple(SymDim.symbol(f"{name}_{axis}") for axis in range(len(shapes[name])))
    return TensorType(dtype, shape)


def _bindings(
    where: str, declared: Mapping[str, TensorType | None], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    bindings: dict[str, int] = {}
    why: list[str] = []
    for name, shape in shapes.items():
        if name not in declared:
            why.append(f"there is no input {name!r}; the inputs are {', '.join(declared)}")
            continue
        input_type = declared[name]
        if input_type is None:
            continue
        if len(shape) != input_type.rank or any(d < 0 for d in shape):
            why.append(f"input {name!r} is declared as {input_type}, given is {tuple(shape)}")
            continue
        for dim, size in zip(input_type.shape, shape, strict=True):
            wanted = bindings.setdefault(next(iter(dim.symbols)), size) if isinstance(dim, SymDim) else dim
            if wanted != size:
                why.append(
                    f"input {name!r} is declared as {input_type}, given is {tuple(shape)}"
                    + (f", but {dim} is {wanted} elsewhere" if isinstance(dim, SymDim) else "")
                )
                break
    if why:
        raise ModelError(
            "shapes= does not fit the model",
            where=where,
            why=why,
            code="M106",
            do="give shapes that the declarations allow",
        )
    return bindings
