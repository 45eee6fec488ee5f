# SPDX-License-Identifier: Apache-2.0
"""The bytes of a model file, or a ModelError that says why there are none."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from tensorwright.errors import ModelError
from tensorwright.ir.op import Array
from tensorwright.memory import map_file

_OTHER_FORMATS = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to get the file itself"),
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint: export it to ONNX with torch.onnx.export"),
    (b"\x89HDF", "an HDF5 file, perhaps a Keras model: save it as a SavedModel, or convert it with tf2onnx"),
    (b"<!DOCTYPE", "a web page: the download went wrong"),
    (b"<html", "a web page: the download went wrong"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)


def mapped(path: str | os.PathLike[str], what: str = "model") -> Array:
    """The bytes of a file, mapped. `what` is what messages call it. Raises ModelError M101."""
    path = pathlib.Path(path)
    try:
        return map_file(path)
    except FileNotFoundError as error:
        raise ModelError(
            f"the {what} file does not exist",
            where=str(path),
            why=f"looked in {path.absolute().parent}",
            code="M101",
            do="check the path",
        ) from error
    except OSError as error:
        raise ModelError(
            f"the {what} file cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            code="M101",
            do="give the path of a readable file",
        ) from error


def check_format(data: bytes, where: str, expected: str, what: str = "model") -> None:
    """Refuse nothing at all, and what is certainly another format. `data`: the file, or its first bytes.

    `expected` is the format with its article ("an ONNX model"). Raises ModelError M102 (empty), M103.
    """
    if not data:
        raise ModelError(f"the {what} file is empty", where=where, code="M102", do="copy or export the model again")
    for magic, meaning in _OTHER_FORMATS:
        if data.startswith(magic):
            raise ModelError(f"the file is not {expected}", where=where, why=f"it is {meaning}", code="M103")


def check_wanted(outputs: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse `outputs=` that name nothing, something twice, or what is not among the `known` tensors of the model.

    Raises ModelError M107, with the nearest names.
    """
    unknown = [name for name in outputs if name not in set(known)]
    if unknown or not outputs:
        raise ModelError(
            f"outputs= names {', '.join(map(repr, unknown)) or 'nothing'}, which the model does not compute",
            where=where,
            code="M107",
            do=f"choose tensors of the model, such as {', '.join(_nearest(unknown, known))}",
        )
    twice = [name for name in dict.fromkeys(outputs) if outputs.count(name) > 1]
    if twice:
        raise ModelError(
            f"outputs= names {', '.join(map(repr, twice))} more than once",
            where=where,
            code="M107",
            do="name each tensor once",
        )


def _nearest(unknown: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names that are spelt like one that is missing; the last ones of the model where none is."""
    import difflib

    near = [close for name in unknown for close in difflib.get_close_matches(name, known, 3, 0.5)]
    return list(dict.fromkeys(near)) or list(known[-5:])
