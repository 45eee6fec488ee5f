# SPDX-License-Identifier: Apache-2.0
"""Types of all tensors of a model, through ONNX's shape inference, without handing it the weights."""

from __future__ import annotations

import onnx
from onnx import ModelProto, TypeProto, ValueInfoProto, helper

_SMALL_ELEMS = 1024  # shape arithmetic needs the values of small tensors; of others the type says all


def infer_types(model: ModelProto, *, fresh: bool = False) -> dict[str, TypeProto]:
    """Tensor name to type, as far as it can be known. With `fresh`, what the model says of results is not believed."""
    types = {i.name: i.type for i in model.graph.input}
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    inferred = _inferred(_skeleton(model, fresh=fresh))
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        if info.type.WhichOneof("value") is not None:
            types.setdefault(info.name, info.type)
    return types


def refresh_types(model: ModelProto, *, fresh: bool = False) -> None:
    """Write the inferred types into the model, in place: of inner tensors, and of outputs that declare another type or
    none. With `fresh`, what the model said of results before is not believed."""
    graph = model.graph
    types = infer_types(model, fresh=fresh)
    for output in graph.output:
        found = types.get(output.name)
        if found is not None and _contradicts(output.type, found):
            output.type.CopyFrom(found)
    outer = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    del graph.value_info[:]
    for name, found in types.items():
        if name not in outer:
            graph.value_info.append(ValueInfoProto(name=name, type=found))


def static_shape(found: TypeProto | None) -> tuple[int | None, ...] | None:
    """The dims of a tensor type, None for an open one; None when the rank is not known."""
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        return None
    dims = found.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _contradicts(declared: TypeProto, found: TypeProto) -> bool:
    if declared.WhichOneof("value") != "tensor_type" or found.WhichOneof("value") != "tensor_type":
        return declared.WhichOneof("value") is None
    if declared.tensor_type.elem_type != found.tensor_type.elem_type:
        return True
    old, new = static_shape(declared), static_shape(found)
    if old is None or new is None:
        return new is not None
    return len(old) != len(new) or any(a != b for a, b in zip(old, new, strict=True) if a is not None and b is not None)


def _skeleton(model: ModelProto, *, fresh: bool) -> ModelProto:
    """The model with its larger weights as inputs."""
    graph = model.graph
    inputs = list(graph.input)
    named = {i.name for i in inputs}
    small = []
    for tensor in graph.initializer:
        elems = 1
        for dim in tensor.dims:
            elems *= dim
        if elems <= _SMALL_ELEMS:
            small.append(tensor)
        elif tensor.name not in named:
            inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    outputs = [ValueInfoProto(name=o.name) if fresh else o for o in graph.output]
    infos = [] if fresh else list(graph.value_info)
    skeleton = helper.make_graph(list(graph.node), graph.name, inputs, outputs, small, value_info=infos)
    result = ModelProto(ir_version=max(model.ir_version, 4))
    result.graph.CopyFrom(skeleton)
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    return result


def _inferred(model: ModelProto) -> ModelProto:
    """What ONNX can infer; the model as it is where it cannot (the checker then says what is wrong with it)."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return model
