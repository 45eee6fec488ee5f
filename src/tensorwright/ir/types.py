# SPDX-License-Identifier: Apache-2.0
"""The type of a value: element type and shape."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from tensorwright.ir.dims import Dim, Symbol, SymDim, high, product
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
    def sizes(self) -> tuple[int, ...]:
        """The shape as kernels take it: ints, or bounded dims that behave as ints (see `ir.dims`).

        Raises ValueError when a dim has no bounds.
        """
        if not self.is_bounded:
            raise ValueError(f"{self} has dims without bounds")
        return cast(tuple[int, ...], self.shape)

    @property
    def elems(self) -> int:
        return math.prod(self.static_shape)

    @property
    def is_bounded(self) -> bool:
        """Whether every dim is an int or has bounds: what native code can run."""
        return all(isinstance(s, Symbol) for d in self.shape if isinstance(d, SymDim) for s in d.symbols)

    @property
    def size_bytes(self) -> int:
        """Bytes of the largest value of the type. Raises Undecided when a dim has no bounds."""
        return high(product(self.shape)) * self.dtype.size_bytes

    def learn(self, shape: Iterable[int], sizes: dict[str, int]) -> None:
        """Put the symbols that are dims of the type into `sizes`, as a value of this `shape` has them."""
        for dim, size in zip(self.shape, shape, strict=True):
            name = dim.as_symbol if isinstance(dim, SymDim) else None
            if name is not None:
                sizes[name] = size

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

    @property
    def is_bounded(self) -> bool:
        return False

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return self

    def __str__(self) -> str:
        return f"object<{self.kind}>"
