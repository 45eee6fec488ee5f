# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a model's tensors are: inside it, in files beside it, or lifted out of it. Nothing is copied."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from tensorwright.errors import ModelError
from tensorwright.ir.op import Array
from tensorwright.memory import map_file

LIFTED: Final = "\0lifted"
"""The location of data that is in no file: its offset is a position in `TensorData.lifted`."""


class TensorData:
    """The bytes of a model's tensors. `folder` holds its external data (None for a model in memory); `lifted` are the
    bytes that `lift` took out of it."""

    def __init__(self, folder: pathlib.Path | None, lifted: Sequence[Array] = ()) -> None:
        self.folder, self.lifted = folder, lifted
        self._files: dict[pathlib.Path, Array] = {}

    def bytes_of(self, tensor: TensorProto) -> Array | None:
        """The raw data of a tensor, u8[size]: a view where it lies outside the proto; None where it has typed fields.

        External data is read from inside the folder only, and never through a link. Raises ModelError M108.
        """
        if not uses_external_data(tensor):
            return np.frombuffer(tensor.raw_data, np.uint8) if tensor.HasField("raw_data") else None
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        number = entries.get("offset", "")
        if location == LIFTED and number.isdecimal() and int(number) < len(self.lifted):
            return self.lifted[int(number)]
        try:
            path = self._path(tensor, location)
            if path not in self._files:
                self._files[path] = map_file(path)
            return _part(self._files[path], entries.get("offset", ""), entries.get("length", ""))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the data of tensor {tensor.name!r} cannot be read",
                where=f"{self.folder}, location {location!r}",
                why=str(error),
                code="M108",
                do="export the model again: the data file is shorter or older than the model",
            ) from error

    def _path(self, tensor: TensorProto, location: str) -> pathlib.Path:
        if self.folder is None:
            raise ModelError(
                f"the data of tensor {tensor.name!r} lies in another file, {location!r}",
                where="a model in memory",
                code="M108",
                do="give the path of the .onnx file, or load the external data into the model first",
            )
        root = self.folder.resolve()
        path = pathlib.Path(os.path.normpath(root / location))
        if not location or os.path.isabs(location) or not path.is_relative_to(root) or _is_linked(path, root):
            raise ModelError(
                f"the data of tensor {tensor.name!r} lies outside the model's folder, or behind a link",
                where=str(self.folder),
                code="M108",
                why=f"location {location!r}",
                do="copy the data file itself beside the .onnx file",
            )
        if not path.is_file():
            raise ModelError(
                f"the data file {location!r} of tensor {tensor.name!r} does not exist",
                where=str(self.folder),
                code="M108",
                do="copy the data file beside the .onnx file",
            )
        return path


def _is_linked(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Whether a symbolic link leads to the path from the root, or the file has a second name: either could be a file
    from elsewhere."""
    steps = [path, *path.parents][: len(path.parts) - len(root.parts)]
    return any(step.is_symlink() for step in steps) or (path.is_file() and path.stat().st_nlink > 1)


def _part(data: Array, offset: str, length: str) -> Array:
    start = int(offset or 0)
    size = int(length) if length else data.size - start
    if not 0 <= start <= data.size or not 0 <= size <= data.size - start:
        raise ValueError(f"{length or 'all'} bytes from {start} on are not in a file of {data.size}")
    return data[start : start + size]
