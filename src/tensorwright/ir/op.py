# SPDX-License-Identifier: Apache-2.0
"""Base of all operations, and the registry by kind name.

An op is a frozen dataclass of attributes with two pure methods. It knows nothing of backends, passes or
file formats: such knowledge lives in a rule table beside its consumer, keyed by op class.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import numpy as np

from tensorwright.ir.dims import Dim, SymDim
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

    def __new__(cls, *_args: Any, **_attributes: Any) -> Self:
        if cls in _UNFINISHED:
            finished(cls)
        return super().__new__(cls)

    @property
    def compare(self) -> Compare:
        """How exactly kernels of this op must agree with `reference`."""
        return self.default_compare

    @property
    def decides(self) -> tuple[Dim, ...]:
        """Symbolic dims of the results that a run of the op decides: its kernel writes them to the table of sizes."""
        return ()

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
_UNFINISHED: set[type] = set()  # registered, but not made dataclasses yet
_FINISHING = threading.RLock()
_T = TypeVar("_T", bound=type[Op])
_O = TypeVar("_O", bound=Op)


@dataclass_transform(frozen_default=True)
def op(kind: str, *, compare: Compare = ROUNDED) -> Callable[[_T], _T]:
    """Class decorator: make a frozen dataclass Op and register it under `kind` (snake_case, used in text form)."""

    def register(cls: _T) -> _T:
        _UNFINISHED.add(cls)
        cls.kind, cls.default_compare = kind, compare
        if kind in OPS:
            raise ValueError(f"op kind {kind!r} is defined twice")
        OPS[kind] = cls
        return cls

    return register


def finished(cls: _T) -> _T:
    """The op class as the dataclass that `op` promises; its first instance sees to that by itself.

    A network has a few kinds of ops. Generating the methods of all of them at import takes longer than a small build.
    """
    with _FINISHING:
        for base in reversed(cls.__mro__):
            if base in _UNFINISHED:
                dataclass(frozen=True)(base)  # without slots it changes the class in place
                _UNFINISHED.discard(base)
    return cls


def dims_of(op: Op) -> list[SymDim]:
    """The symbolic dims among the attributes of an op and of the ops inside it."""
    return [dim for field in dataclasses.fields(op) for dim in _dims_in(getattr(op, field.name))]  # type: ignore[arg-type]


def with_dims(op: _O, bindings: Mapping[str, Dim]) -> _O:
    """The op with the bound symbols of its attributes replaced."""
    if not dims_of(op):
        return op
    fields = dataclasses.fields(op)  # type: ignore[arg-type]  # `op` makes every op a dataclass
    changed = {f.name: _substituted(getattr(op, f.name), bindings) for f in fields if f.init}
    return dataclasses.replace(op, **changed)  # type: ignore[type-var]


def _dims_in(value: object) -> list[SymDim]:
    if isinstance(value, SymDim):
        return [value]
    if isinstance(value, tuple):
        return [dim for item in value for dim in _dims_in(item)]
    if isinstance(value, Instr):
        return dims_of(value.op)
    return dims_of(value) if isinstance(value, Op) else []


def _substituted(value: Any, bindings: Mapping[str, Dim]) -> Any:
    if isinstance(value, SymDim):
        return value.substitute(bindings)
    if isinstance(value, tuple):
        return tuple(_substituted(item, bindings) for item in value)
    if isinstance(value, Instr):
        return Instr(with_dims(value.op, bindings), value.args)
    return with_dims(value, bindings) if isinstance(value, Op) else value
