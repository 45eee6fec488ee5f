# SPDX-License-Identifier: Apache-2.0
"""The type of a value: element type and shape."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and logical shape (ONNX order, e.g. n, c, h, w). Dims are ints or symbolic."""

    dtype: DType
    shape: tuple[Dim, ...]

    @staticmethod
    def of(dtype: DType, shape: Iterable[Dim]) -> TensorType:
        return TensorType(dtype, tuple(shape))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints. Raises ValueError when a dim is symbolic."""
        if not self.is_static:
            raise ValueError(f"{self} has symbolic dims")
        return tuple(d for d in self.shape if isinstance(d, int))

    @property
    def elems(self) -> int:
        return math.prod(self.static_shape)

    @property
    def size_bytes(self) -> int:
        return self.elems * self.dtype.size_bytes

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class ObjectType(TensorType):
    """The type of a value that is no array of known rank and NumPy dtype: strings, sequences, optionals.

    `kind` is ONNX's name for it: "tensor(string)", "seq(tensor(float))". Only host steps (`ops.host`) read and make
    such values; no pass or kernel sees into them, which is why the type is never static and its dtype is `object`.
    """

    dtype: DType = field(init=False, default=DType.object)
    shape: tuple[Dim, ...] = field(init=False, default=())
    kind: str

    @property
    def is_static(self) -> bool:
        return False

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return self

    def __str__(self) -> str:
        return f"object<{self.kind}>"
