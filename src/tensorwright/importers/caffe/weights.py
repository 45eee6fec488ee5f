# SPDX-License-Identifier: Apache-2.0
"""The blobs of a caffemodel as views of the mapped file, and what takes their place: fillers, or random numbers."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tensorwright.errors import ModelError
from tensorwright.importers.caffe.schema import BlobProto, FillerParameter, LayerParameter, V1LayerParameter
from tensorwright.importers.files import check_format, mapped
from tensorwright.importers.wire import BYTES, MalformedError, fields
from tensorwright.ir.op import Array

_LAYER, _V1_LAYER = 100, 2  # fields of NetParameter
_BLOBS = {_LAYER: 7, _V1_LAYER: 6}
_NAME_AND_TYPE = {_LAYER: (1, 2), _V1_LAYER: (4, 5)}
_V0_LAYER, _V0_BLOBS = 1, 50  # fields of V1LayerParameter and V0LayerParameter
_DATA, _DIFFS, _DOUBLE_DATA = 5, (6, 9), 8  # fields of BlobProto
_LEGACY_DIMS = ("num", "channels", "height", "width")

MOST_ELEMS = 1 << 29
"""No filler makes up more numbers for one blob (2 GiB of f32)."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Numbers of a layer, flat, and the shape that the file gives them; `legacy` ones always have four dims."""

    data: Array
    shape: tuple[int, ...]
    legacy: bool

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether these are numbers for a parameter of `shape`: dims of 1 may be left out or added."""
        return self.data.size == math.prod(shape) and [d for d in self.shape if d != 1] == [d for d in shape if d != 1]


def read_caffemodel(path: str | os.PathLike[str]) -> dict[str, list[Blob]]:
    """Layer name to blobs. Floats stay in the mapped file.

    Raises ModelError M101 (missing), M102 (empty), M103 (no caffemodel, or a truncated one), M104 (sizes contradict).
    """
    data, where = mapped(path, "weights"), os.fspath(path)
    if data[:4].tobytes() == b"\x89HDF":
        raise ModelError(
            "the weights are in HDF5, which this version does not read",
            where=where,
            do="let Caffe read them, and write the binary form: net.save('new.caffemodel')",
            code="M103",
        )
    check_format(data[:64].tobytes(), where, "a caffemodel", "weights")
    found: dict[str, list[Blob]] = {}
    problems: list[str] = []
    try:
        for number, kind, _, body, end in fields(data, 0, data.size):
            if number in _BLOBS and kind == BYTES:
                name, blobs = _layer(data, number, body, end, problems)
                found[name] = blobs
    except (MalformedError, DecodeError, ValueError, RecursionError) as error:
        raise ModelError(
            "the weights file is not a caffemodel, or is truncated",
            where=where,
            why=(f"{data.size} bytes read", str(error)),
            do="copy or train the model again; weights= takes the binary .caffemodel that belongs to the prototxt",
            code="M103",
        ) from error
    if not found:
        raise ModelError(
            "the weights file is not a caffemodel",
            where=where,
            why="it holds no layers",
            do="give the binary .caffemodel that belongs to the prototxt",
            code="M103",
        )
    if problems:
        raise ModelError(
            "the caffemodel contradicts itself", where=where, why=problems, do="copy it again", code="M104"
        )
    return found


def _layer(data: Array, number: int, start: int, end: int, problems: list[str]) -> tuple[str, list[Blob]]:
    """Name and blobs of one layer, of today's or the old format."""
    blobs, rest, inner = [], bytearray(), None
    for field, kind, first, body, last in fields(data, start, end):
        if field == _BLOBS[number] and kind == BYTES:
            blobs.append((body, last))
        elif number == _V1_LAYER and field == _V0_LAYER and kind == BYTES:
            inner = (body, last)
        elif field in _NAME_AND_TYPE[number]:  # of the parameters, forks disagree about what has which number
            rest += data[first:last].data
    if inner is not None:  # the oldest format: a layer within a connection
        return _v0_layer(data, *inner, problems)
    layer = (LayerParameter if number == _LAYER else V1LayerParameter).FromString(bytes(rest))
    name = _text(layer.name)
    return name, [_blob(data, *span, problems, name) for span in blobs]


def _v0_layer(data: Array, start: int, end: int, problems: list[str]) -> tuple[str, list[Blob]]:
    spans, name = [], ""
    for field, kind, _, body, last in fields(data, start, end):
        if field == _V0_BLOBS and kind == BYTES:
            spans.append((body, last))
        elif field == 1 and kind == BYTES:
            name = data[body:last].tobytes().decode("utf-8")
    return name, [_blob(data, *span, problems, name) for span in spans]


def _text(name: Any) -> str:
    """A name, which protobuf leaves as bytes where it is damaged."""
    if not isinstance(name, str):
        raise MalformedError("a layer's name is no text")
    return name


def _blob(data: Array, start: int, end: int, problems: list[str], name: str) -> Blob:
    """One BlobProto: packed numbers are views; numbers written one by one are read by protobuf."""
    parts, kept, loose = [], bytearray(), bytearray()
    for field, kind, first, body, last in fields(data, start, end):
        if field in (_DATA, _DOUBLE_DATA) and kind == BYTES:
            parts.append(_numbers(data[body:last], np.dtype("<f4" if field == _DATA else "<f8")))
        elif field in (_DATA, _DOUBLE_DATA):
            loose += data[first:last].data
        elif field not in _DIFFS:
            kept += data[first:last].data
    proto = BlobProto.FromString(bytes(kept))
    if loose:
        single = BlobProto.FromString(bytes(loose))
        parts += [np.array(values, np.float32) for values in (single.data, single.double_data) if len(values)]
    values = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
    # Caffe writes no shape for a single number without dims either: the old fields tell an old blob.
    unshaped = not proto.HasField("shape")
    legacy = unshaped and (values.size == 0 or any(proto.HasField(field) for field in _LEGACY_DIMS))
    shape = tuple(getattr(proto, field) for field in _LEGACY_DIMS) if legacy else tuple(proto.shape.dim)
    if any(d < 0 for d in shape) or math.prod(shape) != values.size:
        problems.append(f"layer {name!r} has a blob of the shape {list(shape)} with {values.size} numbers")
    return Blob(values, shape, legacy)


def _numbers(payload: Array, dtype: np.dtype[Any]) -> Array:
    if payload.size % dtype.itemsize:
        raise MalformedError(f"{payload.size} bytes are no whole numbers of {dtype}")
    values = payload.view(dtype)
    return values if dtype.itemsize == 4 else values.astype(np.float32)


# -- numbers that no file gives -----------------------------------------------------------------------
def filled(filler: Any, shape: tuple[int, ...], seed: str) -> Array:
    """f32 numbers as Caffe's filler makes them (filler.hpp), but from a generator seeded with the text `seed`.

    Raises ValueError for an unknown filler and a shape that it does not take.
    """
    limit_elems(shape)
    make = _FILLERS.get(filler.type)
    if make is None:
        raise ValueError(f"it has the filler {filler.type!r}; Caffe knows {', '.join(_FILLERS)}")
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    return np.asarray(make(filler, shape, rng), np.float32).reshape(shape)


def random_numbers(kind: str, shape: tuple[int, ...], fan_in: int, seed: str) -> Array:
    """f32 numbers for a parameter of a network without weights, seeded with the text `seed`.

    Weights are scaled by the number of terms in a sum (He et al. 2015), so that activations neither vanish nor
    overflow; scales and variances lie around 1, means and biases around 0.
    """
    limit_elems(shape)
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    if kind == "weight":
        values = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / max(fan_in, 1)))
    elif kind in ("scale", "variance"):
        values = rng.uniform(0.8, 1.2, shape)
    elif kind == "slope":
        values = rng.uniform(0.1, 0.4, shape)
    elif kind == "factor":
        values = np.ones(shape)
    else:  # bias, mean
        values = rng.standard_normal(shape, np.float32) * np.float32(0.05)
    return np.asarray(values, np.float32).reshape(shape)


def limit_elems(shape: tuple[int, ...]) -> None:
    """Raise ValueError for a shape of more numbers than any network has in one blob."""
    if math.prod(shape) > MOST_ELEMS:
        raise ValueError(f"it has a parameter of the shape {list(shape)}, more than {MOST_ELEMS} numbers")


def constant_filler(value: float = 0.0) -> Any:
    """A FillerParameter that gives one number everywhere."""
    return FillerParameter(type="constant", value=value)


def _fan(filler: Any, shape: tuple[int, ...]) -> float:
    elems = math.prod(shape)
    fan_in = elems / max(shape[0] if shape else 1, 1)
    fan_out = elems / max(shape[1] if len(shape) > 1 else 1, 1)
    return (fan_in, fan_out, (fan_in + fan_out) / 2)[filler.variance_norm] or 1.0


def _gaussian(filler: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values = rng.normal(filler.mean, abs(filler.std), shape)
    if filler.sparse >= 0:
        outputs = max(shape[0] if shape else 1, 1)
        values = values * (rng.random(shape) < min(filler.sparse / outputs, 1.0))
    return values


def _positive_unitball(filler: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    rows = rng.random(shape).reshape(max(shape[0] if shape else 1, 1), -1)
    result: Array = rows / np.maximum(rows.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return result


def _bilinear(filler: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Weights of a deconvolution that interpolates: (1 - |x/f - c|) (1 - |y/f - c|), f = ceil(k/2), c = (k-1)/(2f)."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"its bilinear filler needs square kernels of two dims, not the shape {list(shape)}")
    f = math.ceil(shape[3] / 2)
    c = (shape[3] - 1) / (2.0 * f)
    line = 1 - np.abs(np.arange(shape[3]) / f - c)
    return np.broadcast_to(line[:, None] * line, shape)


_FILLERS: Mapping[str, Any] = {
    "constant": lambda f, shape, rng: np.full(shape, f.value),
    "uniform": lambda f, shape, rng: rng.uniform(min(f.min, f.max), max(f.min, f.max), shape),
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": lambda f, shape, rng: rng.uniform(-1, 1, shape) * math.sqrt(3 / _fan(f, shape)),
    "msra": lambda f, shape, rng: rng.standard_normal(shape) * math.sqrt(2 / _fan(f, shape)),
    "bilinear": _bilinear,
}
