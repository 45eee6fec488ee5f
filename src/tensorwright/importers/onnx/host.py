# SPDX-License-Identifier: Apache-2.0
"""Nodes that no importer function reads become host steps, where ONNX's own reference implementation can run them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper

from tensorwright.errors import InputError
from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.scope import bodies
from tensorwright.importers.onnx.tensors import NO_NUMBERS, declared_type, kind_of, type_of_kind
from tensorwright.ir.dims import Dim, Symbol, SymDim, product, substitute
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Array
from tensorwright.ir.source_builder import FOLD_LIMIT_ELEMS
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.ops.host import EVALUATOR_ERRORS, OnnxHost

RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_OF_BOUNDED_SIZE = ("NonZero", "Unique", "Compress", "StringNormalizer", "TfIdfVectorizer")
"""Ops whose result, of a size that only the data decides, is at most a few times as large as their inputs."""
_AT_MOST_ALL = ("Unique",)
"""Ops whose results have at most as many elements along an axis as their first input has in all."""
_SYMBOL = "dim_"
_PACKAGES = {"ImageDecoder": ("PIL", "Pillow", "image")}
"""Operators whose reference needs a package that is not always there: module, its name to people, our extra."""


def missing_package(op_type: str) -> tuple[str, str] | None:
    """Why ONNX's reference of an operator cannot run here for want of a package, and what helps; None when it can."""
    module, name, extra = _PACKAGES.get(op_type, ("", "", ""))
    if not module or find_spec(module) is not None:
        return None
    return f"it needs {name}, which is not installed", f"pip install 'tensorwright[{extra}]'"


class HostSteps:
    """Makes host steps for one model: `opsets` and `ir_version` are the model's, `declared` what it says of types."""

    def __init__(self, model: ModelProto, builder: Builder) -> None:
        self._opsets, self._ir_version = list(model.opset_import), model.ir_version
        self._declared = {info.name: info.type for info in (*model.graph.value_info, *model.graph.output)}
        self._builder = builder

    def declare(self, infos: Sequence[ValueInfoProto]) -> None:
        """Take note of what else the model says of types."""
        self._declared |= {info.name: info.type for info in infos}

    def add(
        self, node: NodeProto, inputs: Mapping[str, Value], read: Sequence[str], reason: str = ""
    ) -> dict[str, Value] | str:
        """The values of the outputs `read` by name, or the reason why the reference cannot run the node.

        `inputs` holds a value for each of `names_read(node)`; `reason` is what the op will say of itself. What has only
        small constant inputs is computed at once.
        Raises ValueError for a node that contradicts ONNX.
        """
        plain = not any(True for _ in bodies(node))
        pure = plain and node.op_type not in RANDOM or not plain and not _draws(node)
        node, inputs, names = self._renamed(node, inputs, read) if plain and pure else (node, inputs, list(read))
        symbols = _Symbols(inputs)
        infos = [helper.make_value_info(name, symbols.proto(value.type)) for name, value in inputs.items()]
        proto = self._model(node, infos, [ValueInfoProto(name=name) for name in names])
        inferred = self._inferred(proto, inputs)
        types = tuple(
            self._type(symbols, name, inferred.get(own), self._declared.get(name))
            for own, name in zip(names, read, strict=True)
        )
        bounded: dict[str, Dim] = {}
        if node.op_type in _AT_MOST_ALL:
            bounded = self._bounded(symbols.new(types), list(inputs.values()))
            types = tuple(t.with_shape(substitute(d, bounded) for d in t.shape) for t in types)
        for info, found in zip(proto.graph.output, types, strict=True):
            info.type.CopyFrom(symbols.proto(found))
        lack = missing_package(node.op_type)
        if lack is not None:
            return lack[0]
        step = OnnxHost.of(proto, types, pure=pure, reason=reason, bounded=tuple(bounded.values()))
        try:
            step.prepare()
        except EVALUATOR_ERRORS as error:
            return str(error).partition("\n")[0] or type(error).__name__
        values = self._folded(step, node, list(inputs.values())) if pure and plain else None
        if values is None:
            self._builder.data_symbols |= {s for s in symbols.new(types) if not isinstance(s, Symbol)}
            values = self._builder.add_all(step, *inputs.values())
        return dict(zip(read, values, strict=True))

    def _bounded(self, new: Collection[str], inputs: Sequence[Value]) -> dict[str, Dim]:
        """New symbols bounded by the number of elements of the first input, if that has a bound."""
        if not inputs[0].type.is_bounded:
            return {}
        bound = product(inputs[0].type.shape)
        return {name: self._builder.decided_dim(name, bound) for name in sorted(new)}

    def _renamed(
        self, node: NodeProto, inputs: Mapping[str, Value], read: Sequence[str]
    ) -> tuple[NodeProto, dict[str, Value], list[str]]:
        """The node with names that do not depend on its place, so that equal steps are equal ops."""
        new = {name: f"in{i}" for i, name in enumerate(inputs)}
        result = NodeProto()
        result.CopyFrom(node)
        result.name = ""
        result.input[:] = [new.get(name, "") for name in node.input]
        result.output[:] = [f"out{i}" if name in read else "" for i, name in enumerate(node.output)]
        names = [f"out{list(node.output).index(name)}" for name in read]
        return result, {new[name]: value for name, value in inputs.items()}, names

    def _model(self, node: NodeProto, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> ModelProto:
        proto = helper.make_model(helper.make_graph([node], "host", inputs, outputs), opset_imports=self._opsets)
        proto.ir_version = self._ir_version
        return proto

    def _inferred(self, proto: ModelProto, inputs: Mapping[str, Value]) -> dict[str, TypeProto]:
        """What ONNX infers of the outputs when it is shown the inputs that are known now."""
        shown = ModelProto()
        shown.CopyFrom(proto)
        for name, value in inputs.items():
            array = self._builder.known(value)
            if array is not None and array.size <= FOLD_LIMIT_ELEMS:
                shown.graph.initializer.append(numpy_helper.from_array(array, name))
        try:
            shown = onnx.shape_inference.infer_shapes(shown, strict_mode=True, data_prop=True)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError) as error:
            raise ValueError(str(error).strip().rpartition("\n")[2]) from error
        except RuntimeError:  # inference itself gave up, which says nothing about the node
            return {}
        return {info.name: info.type for info in shown.graph.output}

    def _type(self, symbols: _Symbols, name: str, inferred: TypeProto | None, declared: TypeProto | None) -> TensorType:
        """The type of an output: as inferred, and where that leaves something open, as the model declares it."""
        found = [t for t in (inferred, declared) if t is not None and t.WhichOneof("value") is not None]
        if not found:
            return ObjectType("unknown")
        kind = ObjectType(kind_of(found[0]))
        if found[0].WhichOneof("value") != "tensor_type" or found[0].tensor_type.elem_type in NO_NUMBERS:
            return kind
        parts = [declared_type(t, symbols.opener(name, t is inferred)) for t in found if kind_of(t) == kind.kind]
        dtype, shapes = parts[0][0], [shape for _, shape in parts if shape is not None]
        if dtype is None or not shapes:
            return kind
        if len({len(shape) for shape in shapes}) > 1:
            return TensorType(dtype, shapes[0])
        return TensorType(dtype, tuple(_better(dims) for dims in zip(*shapes, strict=True)))

    def _folded(self, step: OnnxHost, node: NodeProto, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        arrays = [self._builder.known(value) for value in inputs]
        bounded = node.op_type in _OF_BOUNDED_SIZE
        if any(a is None or a.size > FOLD_LIMIT_ELEMS for a in arrays) or any(
            isinstance(t, ObjectType) or not (bounded or (t.is_static and t.elems <= FOLD_LIMIT_ELEMS))
            for t in step.types
        ):
            return None
        try:
            with np.errstate(all="ignore"):
                results: tuple[Array, ...] = step.reference(*arrays)
        except InputError as error:
            raise ValueError(str(error.why[0]) if error.why else str(error)) from error
        return tuple(self._builder.constant(array) for array in results)


class _Symbols:
    """Dims as names that ONNX's inference carries along, and back."""

    def __init__(self, inputs: Mapping[str, Value]) -> None:
        dims = [d for value in inputs.values() for d in value.type.shape if isinstance(d, SymDim)]
        self._names = {dim: f"{_SYMBOL}{i}" for i, dim in enumerate(dict.fromkeys(dims))}
        self._dims = {name: dim for dim, name in self._names.items()}

    def proto(self, value_type: TensorType) -> TypeProto:
        if isinstance(value_type, ObjectType):
            return type_of_kind(value_type.kind)
        number = helper.np_dtype_to_tensor_dtype(value_type.dtype.numpy)
        dims = [d if isinstance(d, int) else self._names.get(d) for d in value_type.shape]
        return helper.make_tensor_type_proto(number, dims)

    def opener(self, output: str, inferred: bool) -> Callable[[int, str], Dim]:
        """What makes a dim that ONNX leaves open: the input dim of that name, or a symbol called after the output."""
        known = self._dims if inferred else {}
        return lambda axis, name: known[name] if name in known else SymDim.symbol(f"{output}_{axis}")

    def new(self, types: Sequence[TensorType]) -> set[str]:
        """The symbols in these types that no input has: sizes that only the data decides."""
        found = {s for t in types for d in t.shape if isinstance(d, SymDim) for s in d.symbols}
        return found - {s for dim in self._names for s in dim.symbols}


def _better(dims: Sequence[Dim]) -> Dim:
    """The best known one of the dims that inference (first) and declaration give."""
    return next((d for d in dims if isinstance(d, int)), dims[0])


def _draws(node: NodeProto) -> bool:
    """Whether the subgraphs of a node draw random numbers."""
    inner = [n for body in bodies(node) for n in body.node]
    return any(n.op_type in RANDOM or _draws(n) for n in inner)


def constant_node(tensor: TensorProto) -> NodeProto:
    """A node that makes a tensor which the IR cannot hold as a constant, such as one of strings."""
    return helper.make_node("Constant", [], [tensor.name], value=tensor)
