# SPDX-License-Identifier: Apache-2.0
"""The numbers of a .weights file, one after the other; without a file, random ones that keep activations in range."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.importers.files import check_format, mapped

Array = np.ndarray[Any, Any]

_MOST_RANDOM_ELEMS = 1 << 28  # of one array: 1 GiB
_SANE_VERSION = 1 << 16


class Weights:
    """The f32 numbers of a network in the order of its layers. `transposed` says how connected layers store theirs,
    `by_fork` whether AlexeyAB's fork wrote the file, whose batch normalisations differ a little."""

    transposed = False
    by_fork = False

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = "" if path is None else str(path)
        self._data: Array | None = None
        self._start = self._used = 0
        self._random = np.random.default_rng(0)
        if path is not None:
            self._open(mapped(path, "weights"))

    def _open(self, data: Array) -> None:
        """Read the header: version i32[3], then the number of images seen, of 64 bits from version 0.2 on."""
        check_format(data[:64].tobytes(), self._path, "a Darknet .weights file", "weights")
        major, minor, revision = version = data[:12].view("<i4").tolist() if data.size >= 16 else (-1, -1, -1)
        if not all(0 <= part < _SANE_VERSION for part in version):
            raise ModelError(
                "the file is not a Darknet .weights file",
                where=self._path,
                why=f"its {data.size} bytes do not start with a version and a count",
                code="M103",
            )
        self.transposed = major > 1000 or minor > 1000
        self.by_fork = revision >= 5  # the original's files are of revision 0
        self._start = 20 if major * 10 + minor >= 2 and not (major >= 1000 or minor >= 1000) else 16
        self._data = data[self._start : self._start + (data.size - self._start) // 4 * 4].view("<f4")

    def take(self, *shape: int, random: str = "zeros") -> Array:
        """The next numbers, f32 of this shape. `random` is "zeros", "ones" or "normal" (by the inputs, all dims but
        the first). Raises ValueError when the file ends before."""
        count = math.prod(shape)
        start, self._used = self._used, self._used + count
        if self._data is not None:
            if self._used > self._data.size:
                needed, found = (self._start + 4 * n for n in (self._used, self._data.size))
                raise ValueError(f"it needs the first {needed} bytes of {self._path}, which has {found}")
            return self._data[start : self._used].reshape(shape)
        if count > _MOST_RANDOM_ELEMS:
            raise ValueError(f"{'x'.join(map(str, shape))} random weights are too many: give it those of a file")
        if random == "normal":
            spread = math.sqrt(2 / max(math.prod(shape[1:]), 1))
            return self._random.standard_normal(shape, np.float32) * np.float32(spread)
        return np.full(shape, random == "ones", np.float32)

    def batch_norm(self, channels: int, bias: Array) -> tuple[Array, Array]:
        """The scale and shift of the next scales, means and variances: y = x * scale + shift.

        The original Darknet adds 1e-6 to the deviation; AlexeyAB's fork adds 1e-5 to the variance.
        """
        scales, mean, variance = (self.take(channels, random=r).astype(np.float64) for r in ("ones", "zeros", "ones"))
        scale = scales / (np.sqrt(variance + 1e-5) if self.by_fork else np.sqrt(variance) + 1e-6)
        return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)

    def notes(self) -> list[str]:
        """What the user should know when all layers have theirs."""
        if self._data is None:
            return ["no weights= was given: seeded random numbers take their place"]
        extra = self._data.size - self._used
        return [f"{self._path} has {extra} more numbers than the network needs"] if extra else []
