# SPDX-License-Identifier: Apache-2.0
"""Base of all operations, and the registry by kind name.

An op is a frozen dataclass of attributes with two pure methods. It knows nothing of backends, passes or
file formats: such knowledge lives in a rule table beside its consumer, keyed by op class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from tensorwright.ir.types import TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Compare:
    """How exactly a kernel must agree with `reference`: |a-b| <= atol + rtol*|b|, both scaled by max|b|
    of the tensor when `scaled` (sums of many products have no useful elementwise relative error)."""

    rtol: float = 0.0
    atol: float = 0.0
    scaled: bool = False


EXACT = Compare()
ROUNDED = Compare(rtol=2e-6, atol=1e-7)  # a few roundings of f32
SUMMED = Compare(rtol=2e-5, atol=2e-5, scaled=True)  # long f32 sums in another order


class Op:
    """One operation with its attributes.

    `infer` maps input types to output types and raises ValueError with a plain sentence when they do not fit;
    `reference` computes the same in NumPy and is the oracle of every test. Optional absent inputs are None.
    """

    kind: ClassVar[str]
    default_compare: ClassVar[Compare]
    __slots__ = ()

    @property
    def compare(self) -> Compare:
        """How exactly kernels of this op must agree with `reference`."""
        return self.default_compare

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        raise NotImplementedError

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Instr:
    """One instruction of a fusion region (see `ops.fused`): `op` on the values numbered `args`."""

    op: Op
    args: tuple[int, ...]


OPS: dict[str, type[Op]] = {}
_T = TypeVar("_T", bound=type[Op])


@dataclass_transform(frozen_default=True)
def op(kind: str, *, compare: Compare = ROUNDED) -> Callable[[_T], _T]:
    """Class decorator: make a frozen dataclass Op and register it under `kind` (snake_case, used in text form)."""

    def register(cls: _T) -> _T:
        dataclass(frozen=True)(cls)  # without slots it changes the class in place
        cls.kind, cls.default_compare = kind, compare
        if kind in OPS:
            raise ValueError(f"op kind {kind!r} is defined twice")
        OPS[kind] = cls
        return cls

    return register
