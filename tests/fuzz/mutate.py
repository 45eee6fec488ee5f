# SPDX-License-Identifier: Apache-2.0
"""Damage done to sound ONNX files: to their bytes, to their graph, and to what they say of data in other files.

`written(case, folder)` is a pure function of `SEED` and the number of the case.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.fuzz.corpus import MODELS, pick

SEED = 20260317
ABSURD = (-(2**63), -(2**31) - 1, -(2**31), -2, -1, 0, 1, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
_OPS = ("Add", "MatMul", "Relu", "Reshape", "Concat", "Gather", "If", "Loop", "Identity", "TopK", "Conv", "Nothing", "")
_LOCATIONS = (
    "../secret.bin",
    "folder/../../secret.bin",
    "link.bin",
    "pipe",
    "folder",
    "/dev/zero",
    "",
    ".",
    "none.bin",
    "weights.bin\0",
    "./weights.bin",
    "x" * 5000,
    "\0lifted",
)
_STORED_FROM = 64  # bytes of an initializer that is moved to another file

Change = Callable[[ModelProto, np.random.Generator], None]


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged file: its number, the model it was made of and what was done.

    `escapes`: it points at data outside of its folder, so that it must be refused.
    """

    number: int
    model: str
    damage: str
    path: pathlib.Path
    escapes: bool = False


def written(number: int, folder: pathlib.Path) -> Case:
    """Make the case of this number in an empty folder. `model/` is where its data may lie, and nowhere else."""
    rng = np.random.default_rng([SEED, number])
    home = folder / "model"
    home.mkdir()
    path = home / "case.onnx"
    kind = rng.random()
    if kind < 0.1:
        name, proto = "stored", MODELS["stored"]()
        damage = _outside(proto, home, rng)
        path.write_bytes(proto.SerializeToString())
        escapes = any(word in damage for word in ("secret", "link", "/dev"))
        return Case(number, name, damage, path, escapes)
    name, proto = pick(rng)
    if kind < 0.35:
        data, damage = damaged_bytes(proto.SerializeToString(), rng)
        path.write_bytes(data)
        return Case(number, name, damage, path)
    done: list[str] = []
    wanted = int(rng.choice([1, 1, 1, 2, 3]))
    while len(done) < wanted:
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        try:
            change(proto, rng)
        except (ValueError, IndexError):  # this model has nothing (any more) for it to damage
            wanted = max(wanted - 1, 1)
            continue
        done.append(change.__name__.strip("_"))
    path.write_bytes(proto.SerializeToString())
    return Case(number, name, ", ".join(done), path)


# -- bytes ------------------------------------------------------------------------------------------------------
def damaged_bytes(whole: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Flipped bits, a lost end, a piece lost, doubled, or overwritten."""
    data = bytearray(whole)
    # weights are most of the bytes of some files and the least interesting ones: aim at both ends as often
    near = int(rng.integers(1, min(600, len(data))))
    place = [int(rng.integers(len(data))), near, len(data) - near][int(rng.integers(3))]
    size = int(rng.integers(1, 40))
    match int(rng.choice([0, 0, 0, 1, 2, 3, 4])):
        case 0:
            for _ in range(int(rng.integers(1, 9))):
                at = place if rng.random() < 0.3 else (place + int(rng.integers(200))) % len(data)
                data[at] ^= 1 << int(rng.integers(8))
            return bytes(data), "flipped bits"
        case 1:
            return bytes(data[:place]), "truncated"
        case 2:
            del data[place : place + size]
            return bytes(data), "piece lost"
        case 3:
            data[place:place] = data[place : place + size]
            return bytes(data), "piece doubled"
        case _:
            data[place : place + size] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * size
            return bytes(data), "piece overwritten"


# -- the graph --------------------------------------------------------------------------------------------------
def _graphs(proto: ModelProto) -> list[GraphProto]:
    """The main graph and every body inside of it."""
    found, waiting = [], [proto.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        waiting += [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found


def _any_node(proto: ModelProto, rng: np.random.Generator) -> tuple[GraphProto, NodeProto]:
    """Raises ValueError for a model without nodes, as the choices below do for what they need."""
    places = [(graph, node) for graph in _graphs(proto) for node in graph.node]
    places += [(proto.graph, node) for function in proto.functions for node in function.node]
    return places[int(rng.integers(len(places)))]


def _slot(proto: ModelProto, rng: np.random.Generator) -> tuple[NodeProto, int]:
    places = [(n, i) for g in _graphs(proto) for n in g.node for i in range(len(n.input))]
    return places[int(rng.integers(len(places)))]


def _cycle(proto: ModelProto, rng: np.random.Generator) -> None:
    """An input reads a tensor made at the end."""
    node, index = _slot(proto, rng)
    last = proto.graph.node[-1 - int(rng.integers(min(3, len(proto.graph.node))))]
    node.input[index] = next(name for name in (*last.output, *node.output) if name)


def _missing_input(proto: ModelProto, rng: np.random.Generator) -> None:
    node, index = _slot(proto, rng)
    match int(rng.integers(3)):
        case 0:
            node.input[index] = "nowhere"
        case 1:
            node.input[index] = ""
        case _:
            del node.input[index]


def _other_edge(proto: ModelProto, rng: np.random.Generator) -> None:
    node, index = _slot(proto, rng)
    names = [i.name for i in proto.graph.input] + [t.name for t in proto.graph.initializer]
    names += [name for n in proto.graph.node for name in n.output]
    node.input[index] = names[int(rng.integers(len(names)))]


def _lost_node(proto: ModelProto, rng: np.random.Generator) -> None:
    graph = _graphs(proto)[int(rng.integers(len(_graphs(proto))))]
    del graph.node[int(rng.integers(len(graph.node)))]


def _doubled_node(proto: ModelProto, rng: np.random.Generator) -> None:
    graph, node = _any_node(proto, rng)
    graph.node.append(node)


def _other_op(proto: ModelProto, rng: np.random.Generator) -> None:
    _, node = _any_node(proto, rng)
    if rng.random() < 0.5:
        node.op_type = str(rng.choice(_OPS))
    else:
        _, other = _any_node(proto, rng)
        node.op_type, node.domain = other.op_type, other.domain


def _other_domain(proto: ModelProto, rng: np.random.Generator) -> None:
    _, node = _any_node(proto, rng)
    node.domain = str(rng.choice(["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "local", "nobody"]))


def _attribute(proto: ModelProto, rng: np.random.Generator) -> AttributeProto:
    found = [a for g in _graphs(proto) for n in g.node for a in n.attribute]
    return found[int(rng.integers(len(found)))]


def _lost_attribute(proto: ModelProto, rng: np.random.Generator) -> None:
    _, node = _any_node(proto, rng)
    del node.attribute[int(rng.integers(len(node.attribute)))]


def _absurd_attribute(proto: ModelProto, rng: np.random.Generator) -> None:
    attribute = _attribute(proto, rng)
    number = int(rng.choice(ABSURD))
    if attribute.type == AttributeProto.INT:
        attribute.i = number
    elif attribute.type == AttributeProto.INTS and len(attribute.ints):
        attribute.ints[int(rng.integers(len(attribute.ints)))] = number
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = float(rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 3e38]))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = bytes(rng.integers(0, 256, int(rng.integers(9)), dtype=np.uint8))
    elif attribute.type == AttributeProto.TENSOR:
        _spoil_tensor(attribute.t, rng)
    else:
        attribute.type = AttributeProto.INT


def _new_attribute(proto: ModelProto, rng: np.random.Generator) -> None:
    _, node = _any_node(proto, rng)
    name = str(rng.choice(["axis", "axes", "pads", "group", "to", "body", "epsilon", "kernel_shape", "perm", "odd"]))
    number = int(rng.choice(ABSURD))
    node.attribute.append(helper.make_attribute(name, [number, 1] if rng.random() < 0.5 else number))


def _wrong_attribute_type(proto: ModelProto, rng: np.random.Generator) -> None:
    _attribute(proto, rng).type = int(rng.integers(0, 16))


def _absurd_declaration(proto: ModelProto, rng: np.random.Generator) -> None:
    """A dim, an element type or a whole type of an input, an output or an inner tensor."""
    infos = [i for g in _graphs(proto) for i in (*g.input, *g.output, *g.value_info)]
    kind = infos[int(rng.integers(len(infos)))].type
    tensor, dims = kind.tensor_type, kind.tensor_type.shape.dim
    match int(rng.integers(6)):
        case 0 | 1 if len(dims):
            dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice(ABSURD))
        case 2 if len(dims):
            dims[int(rng.integers(len(dims)))].dim_param = str(rng.choice(["n", "batch", "a+b", " ", "0", "x*"]))
        case 3:
            dims.add().dim_value = int(rng.choice(ABSURD))
        case 4:
            tensor.elem_type = int(rng.choice([0, 1, 2, 6, 7, 8, 9, 10, 11, 13, 14, 16, 17, 23, 99]))
        case _:
            kind.Clear()


def _spoil_tensor(tensor: TensorProto, rng: np.random.Generator) -> None:
    match int(rng.integers(7)):
        case 0 | 1 if len(tensor.dims):
            tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(ABSURD))
        case 2:
            tensor.dims.append(int(rng.choice(ABSURD)))
        case 3:
            tensor.data_type = int(rng.choice([0, 1, 2, 6, 7, 8, 9, 10, 11, 13, 14, 16, 17, 21, 23, 99]))
        case 4:
            tensor.raw_data = bytes(tensor.raw_data)[: len(tensor.raw_data) // 2]
        case 5:
            tensor.dims[:] = [2**30, 2**30, 2**30]
        case _:
            _spoil_elements(tensor, rng)


def _spoil_elements(tensor: TensorProto, rng: np.random.Generator) -> None:
    """Absurd numbers where sizes, axes and indices are stored."""
    array = np.array(numpy_helper.to_array(tensor))
    if not array.size:
        raise ValueError("no elements")
    at = int(rng.integers(array.size))
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        array.flat[at] = int(np.clip(int(rng.choice(ABSURD)), info.min, info.max))
    elif array.dtype.kind == "f":
        array.flat[at] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0])
    else:
        raise ValueError("no numbers")
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _absurd_tensor(proto: ModelProto, rng: np.random.Generator) -> None:
    stored = [t for g in _graphs(proto) for t in g.initializer]
    stored += [a.t for g in _graphs(proto) for n in g.node for a in n.attribute if a.type == AttributeProto.TENSOR]
    _spoil_tensor(stored[int(rng.integers(len(stored)))], rng)


def _stored_input(proto: ModelProto, rng: np.random.Generator) -> None:
    """An input becomes a small stored tensor, often of a rank or size that does not fit: sizes, axes, conditions."""
    infos = proto.graph.input
    info = infos[int(rng.integers(len(infos)))]
    shape = [min(d.dim_value, 4) for d in info.type.tensor_type.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type or 1)
    values = np.asarray(rng.choice(ABSURD, size=shape or None))
    with np.errstate(all="ignore"):
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), info.name))


def _other_opset(proto: ModelProto, rng: np.random.Generator) -> None:
    opsets = proto.opset_import
    match int(rng.integers(4)):
        case 0:
            opsets[int(rng.integers(len(opsets)))].version = int(rng.choice([*ABSURD, 1, 5, 7, 9, 11, 13, 18, 22, 28]))
        case 1:
            del opsets[int(rng.integers(len(opsets)))]
        case 2:
            opsets.append(helper.make_opsetid("", int(rng.integers(1, 30))))
        case _:
            proto.ir_version = int(rng.choice([0, 1, 3, 99, 2**40]))


def _odd_names(proto: ModelProto, rng: np.random.Generator) -> None:
    """One name, wherever it stands: empty, strange, very long, or that of another tensor."""
    names = sorted({name for g in _graphs(proto) for n in g.node for name in (*n.input, *n.output) if name})
    old = names[int(rng.integers(len(names)))]
    new = [" ", "a\nb", "\x00", "%s{0}", "x" * 5000, "ü漢", names[0], "../../x"][int(rng.integers(8))]
    for graph in _graphs(proto):
        for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            named.name = new if named.name == old else named.name
        for node in graph.node:
            for fields in (node.input, node.output):
                fields[:] = [new if name == old else name for name in fields]


def _lost_interface(proto: ModelProto, rng: np.random.Generator) -> None:
    graph = _graphs(proto)[int(rng.integers(len(_graphs(proto))))]
    field = [graph.input, graph.output, graph.initializer, graph.value_info][int(rng.integers(4))]
    del field[int(rng.integers(len(field)))]


def _doubled_interface(proto: ModelProto, rng: np.random.Generator) -> None:
    graph = _graphs(proto)[int(rng.integers(len(_graphs(proto))))]
    field = [graph.input, graph.output, graph.initializer][int(rng.integers(3))]
    field.append(field[int(rng.integers(len(field)))])


def _deep_bodies(proto: ModelProto, rng: np.random.Generator) -> None:
    """The whole graph inside of branches inside of branches."""
    for _ in range(int(rng.choice([1, 5, 18]))):
        inner = onnx.GraphProto()
        inner.CopyFrom(proto.graph)
        yes = numpy_helper.from_array(np.array(True), "yes")
        outer = helper.make_graph([], "outer", list(inner.input), list(inner.output), [yes])
        del inner.input[:]
        names = [o.name for o in inner.output]
        outer.node.append(helper.make_node("If", ["yes"], names, then_branch=inner, else_branch=inner))
        proto.graph.CopyFrom(outer)
        if proto.ByteSize() > 1 << 20:
            return


def _recursive_function(proto: ModelProto, rng: np.random.Generator) -> None:
    """A function that calls itself, or two that call one another."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("again", 1)]
    names = ["F", "G"][: int(rng.integers(1, 3))]
    for name, called in zip(names, names[1:] + names[:1], strict=True):
        body = [helper.make_node(called, ["a"], ["b"], domain="again")]
        proto.functions.append(helper.make_function("again", name, ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("again", 1))
    node, index = _slot(proto, rng)
    proto.graph.node.insert(0, helper.make_node("F", [node.input[index]], ["f_out"], domain="again"))
    node.input[index] = "f_out"


def _spoiled_function(proto: ModelProto, rng: np.random.Generator) -> None:
    function = proto.functions[int(rng.integers(len(proto.functions)))]
    match int(rng.integers(5)):
        case 0:
            del function.node[int(rng.integers(len(function.node)))]
        case 1:
            function.input.append("more")
        case 2:
            del function.output[:]
        case 3:
            del function.opset_import[:]
        case _:
            proto.functions.append(function)


_CHANGES: tuple[Change, ...] = (
    _cycle,
    _missing_input,
    _other_edge,
    _lost_node,
    _doubled_node,
    _other_op,
    _other_domain,
    _lost_attribute,
    _absurd_attribute,
    _absurd_attribute,
    _new_attribute,
    _wrong_attribute_type,
    _absurd_declaration,
    _absurd_declaration,
    _absurd_tensor,
    _absurd_tensor,
    _stored_input,
    _other_opset,
    _odd_names,
    _lost_interface,
    _doubled_interface,
    _deep_bodies,
    _recursive_function,
    _spoiled_function,
)


# -- data in other files ----------------------------------------------------------------------------------------
def _outside(proto: ModelProto, home: pathlib.Path, rng: np.random.Generator) -> str:
    """Weights in `weights.bin` beside the model, and then something wrong with where they are said to lie."""
    data = bytearray()
    stored = [t for t in proto.graph.initializer if len(t.raw_data) >= _STORED_FROM]
    for tensor in stored:
        onnx.external_data_helper.set_external_data(tensor, "weights.bin", len(data), len(tensor.raw_data))
        data += tensor.raw_data
        tensor.ClearField("raw_data")
    (home / "weights.bin").write_bytes(data)
    (home.parent / "secret.bin").write_bytes(data)
    (home / "folder").mkdir()
    (home / "link.bin").symlink_to(home.parent / "secret.bin")
    os.mkfifo(home / "pipe")
    tensor = stored[int(rng.integers(len(stored)))]
    entries = {e.key: e for e in tensor.external_data}
    match int(rng.integers(8)):
        case 0 | 1:
            locations = [*_LOCATIONS, str(home.parent / "secret.bin")]
            entries["location"].value = locations[int(rng.integers(len(locations)))]
            return f"location {entries['location'].value[:40]!r}"
        case 2:
            entries["offset"].value = str(rng.choice(["-1", "99999999999", "7", "x", "", "1e3", str(2**63)]))
            return f"offset {entries['offset'].value!r}"
        case 3 | 4:
            entries["length"].value = str(rng.choice(["-1", "0", "99999999999", "7", "x", "", str(2**63)]))
            return f"length {entries['length'].value!r}"
        case 5:
            with (home / "weights.bin").open("r+b") as file:
                file.truncate(int(rng.integers(len(data))))
            return "weights truncated"
        case 6:
            tensor.dims[0] = int(rng.choice(ABSURD))
            return f"external tensor of {tensor.dims[0]} rows"
        case _:
            del tensor.external_data[int(rng.integers(len(tensor.external_data)))]
            return "external entry lost"
