# SPDX-License-Identifier: Apache-2.0
"""Writes prototxt and caffemodel files for the tests, and runs them as engines."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import tensorwright as tw
from tensorwright.importers.wire import varint

Array = np.ndarray[Any, Any]
Fields = Mapping[str, Any]

TARGETS = ("reference", "cpu")


class Word(str):
    """A member of an enum, which prototxt does not quote."""


def text(fields: Fields, indent: str = "") -> str:
    """Protobuf text: dicts are blocks, lists are repeated fields, words are not quoted."""
    lines = []
    for key, value in fields.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{key} {{\n{text(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{key}: {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and not isinstance(value, Word) else str(value)


def layer(
    kind: str, bottoms: Sequence[str] = ("x",), tops: Sequence[str] = ("y",), name: str = "", **fields: Any
) -> Fields:
    """A layer, called like its first top unless it has a `name`."""
    named = {"name": name or (tops[0] if tops else kind.lower()), "type": kind}
    return {**named, "bottom": list(bottoms), "top": list(tops), **fields}


def inputs(shapes: Mapping[str, Sequence[int]]) -> list[Fields]:
    """An Input layer for each."""
    return [layer("Input", (), (name,), input_param={"shape": {"dim": list(shape)}}) for name, shape in shapes.items()]


def net_text(layers: Sequence[Fields], name: str = "test", **fields: Any) -> str:
    return text({"name": name, **fields, "layer": list(layers)})


# -- weights ------------------------------------------------------------------------------------------
def message_field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf encodes it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: Array, style: str = "packed") -> bytes:
    """A BlobProto: packed floats, `loose` ones, `legacy` four dims, `double` data, or `diff` as well."""
    if style == "legacy":
        shape = (1,) * (4 - array.ndim) + array.shape
        out = b"".join(varint(tag << 3) + varint(size) for tag, size in zip((1, 2, 3, 4), shape, strict=True))
    else:
        out = message_field(7, b"".join(varint(1 << 3) + varint(size) for size in array.shape))
    if style == "loose":
        return out + b"".join(varint(5 << 3 | 5) + number.tobytes() for number in array.reshape(-1))
    kind, number = (np.float64, 8) if style == "double" else (np.float32, 5)
    out += message_field(number, array.astype(kind).tobytes())
    return out + message_field(6, (array * 3).tobytes()) if style == "diff" else out


def model_bytes(weights: Mapping[str, Sequence[Array]], style: str = "packed", generation: str = "layer") -> bytes:
    """A caffemodel of today's layers, of `v1` layers or of `v0` layers within connections."""
    out = message_field(1, b"test")
    for name, arrays in weights.items():
        blobs = [blob(np.asarray(array, np.float32), style) for array in arrays]
        if generation == "layer":
            head = message_field(1, name.encode()) + message_field(2, b"Whatever")
            out += message_field(100, head + b"".join(message_field(7, b) for b in blobs))
        elif generation == "v1":
            head = message_field(4, name.encode()) + varint(5 << 3) + varint(4)
            out += message_field(2, head + b"".join(message_field(6, b) for b in blobs))
        else:
            head = message_field(1, name.encode()) + message_field(2, b"conv")
            out += message_field(2, message_field(1, head + b"".join(message_field(50, b) for b in blobs)))
    return out


def write(
    folder: pathlib.Path,
    layers: Sequence[Fields] | str,
    weights: Mapping[str, Sequence[Array]] | bytes | None = None,
) -> tuple[str, str | None]:
    """The paths of the prototxt and of the caffemodel."""
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(layers if isinstance(layers, str) else net_text(layers))
    if weights is None:
        return str(prototxt), None
    caffemodel.write_bytes(weights if isinstance(weights, bytes) else model_bytes(weights))
    return str(prototxt), str(caffemodel)


# -- running ------------------------------------------------------------------------------------------
def engines(
    folder: pathlib.Path,
    layers: Sequence[Fields] | str,
    weights: Any = None,
    targets: Sequence[str] = TARGETS,
    **more: Any,
) -> Iterator[tw.Engine]:
    """The network as an engine in NumPy, and as a compiled one without host steps."""
    prototxt, caffemodel = write(folder, layers, weights)
    for target in targets:
        native: dict[str, Any] = {"host_steps": False, "threads": 1} if target == "cpu" else {}
        yield tw.build(prototxt, weights=caffemodel, target=target, tune="off", **native, **more)


def check(
    folder: pathlib.Path,
    layers: Sequence[Fields],
    feeds: Mapping[str, Array],
    expected: Mapping[str, Array],
    weights: Mapping[str, Sequence[Array]] | None = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    **more: Any,
) -> None:
    """The layers give what is expected, on all targets; inputs have the shapes of what is fed."""
    all_layers = [*inputs({name: array.shape for name, array in feeds.items()}), *layers]
    for target, engine in zip(TARGETS, engines(folder, all_layers, weights, **more), strict=True):
        found = engine.run(dict(feeds))
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == np.float32
            assert found[name].shape == array.shape, (target, name)
            np.testing.assert_allclose(
                found[name], array, rtol=rtol, atol=atol, err_msg=f"{target} {name}", equal_nan=True
            )
