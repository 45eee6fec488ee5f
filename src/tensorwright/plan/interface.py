# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of an engine, as its user sees them and as a plan stores them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tensorwright.ir.dim_text import parse_dim, read_dim
from tensorwright.ir.dims import Symbol
from tensorwright.ir.dtype import DType
from tensorwright.ir.types import ObjectType, TensorType
from tensorwright.plan.fields import Fields
from tensorwright.plan.format import malformed

_MOST_SYMBOLS = 1 << 16


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of an engine.

    A dim that only a run decides is text ("batch"). A value that is no numeric tensor has dtype `object`, shape () and
    `kind`, its ONNX type: "tensor(string)", "seq(tensor(float))".
    """

    name: str
    dtype: DType
    shape: tuple[int | str, ...]
    kind: str = ""

    @staticmethod
    def of(name: str, type: TensorType) -> TensorInfo:
        """How users see a value of this type."""
        if isinstance(type, ObjectType):
            return TensorInfo(name, DType.object, (), type.kind)
        return TensorInfo(name, type.dtype, tuple(d if isinstance(d, int) else str(d) for d in type.shape))

    @property
    def is_object(self) -> bool:
        """Whether values are Python objects rather than numeric arrays."""
        return self.dtype is DType.object

    @property
    def is_static(self) -> bool:
        """Whether dtype and every dim are known before a run."""
        return not self.is_object and all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints. Raises ValueError when a dim is known only in a run."""
        if not self.is_static:
            raise ValueError(f"the shape of {self} is known only in a run")
        return tuple(d for d in self.shape if isinstance(d, int))

    def __str__(self) -> str:
        if self.is_object:
            return f"{self.name}: {self.kind}"
        return f"{self.name}: {self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Equality:
    """Two sizes (text of dims) that a run must find equal, and the source-model node that needs it."""

    left: str
    right: str
    where: str


def equality_rows(equalities: Iterable[Equality]) -> list[list[object]]:
    """The rows `[left, right, where]` of a plan."""
    return [[e.left, e.right, e.where] for e in equalities]


def read_equalities(fields: Fields) -> tuple[Equality, ...]:
    """What `equality_rows` wrote. Raises PlanError P106."""
    found = tuple(Equality(*row) for row in fields.rows(str, str, str))
    for text in (side for e in found for side in (e.left, e.right)):
        try:
            parse_dim(text)
        except ValueError as error:
            raise malformed(fields.what, fields.where, str(error)) from None
    return found


def info_rows(infos: Iterable[TensorInfo]) -> list[list[object]]:
    """The rows `[name, dtype, shape]` of a plan; the shape of an object is its kind."""
    return [[i.name, str(i.dtype), i.kind if i.is_object else list(i.shape)] for i in infos]


def read_infos(fields: Fields, *, static: bool = False) -> tuple[TensorInfo, ...]:
    """What `info_rows` wrote; `static` refuses what is known only in a run. Raises PlanError P106."""
    infos = tuple(
        _info(fields, name, read_dtype(fields, dtype), shape) for name, dtype, shape in fields.rows(str, str, object)
    )
    loose = [info for info in infos if static and not info.is_static]
    if loose:
        raise malformed(fields.what, fields.where, f"{loose[0]} has no fixed shape")
    return infos


def symbol_rows(symbols: Iterable[Symbol]) -> list[list[object]]:
    """The rows `[name, slot, low, opt, high]` of a plan."""
    return [[str(s), s.slot, s.low, s.opt, s.high] for s in symbols]


def read_symbols(fields: Fields) -> tuple[Symbol, ...]:
    """What `symbol_rows` wrote. Raises PlanError P106."""
    rows = fields.rows(str, int, int, int, int)
    try:
        found = tuple(Symbol(name, low, opt, high, slot) for name, slot, low, opt, high in rows)
    except ValueError as error:
        raise malformed(fields.what, fields.where, str(error)) from None
    if sorted(s.slot for s in found) != sorted({s.slot for s in found if 0 <= s.slot < _MOST_SYMBOLS}):
        raise malformed(fields.what, fields.where, "slots of symbols are out of range or used twice")
    return found


def read_dtype(fields: Fields, text: str) -> DType:
    """The dtype of this name. Raises PlanError P106."""
    try:
        return DType(text)
    except ValueError:
        raise malformed(fields.what, fields.where, f"there is no dtype {text!r}") from None


def _info(fields: Fields, name: str, dtype: DType, shape: object) -> TensorInfo:
    if dtype is DType.object and isinstance(shape, str) and shape:
        return TensorInfo(name, dtype, (), shape)
    if dtype is DType.object or not isinstance(shape, list):
        raise malformed(fields.what, fields.where, f"{shape!r:.80} is not the shape of {dtype}")
    fields.sizes([dim for dim in shape if not isinstance(dim, str) or not _is_symbolic(dim)])
    return TensorInfo(name, dtype, tuple(shape))


def _is_symbolic(text: str) -> bool:
    try:
        dim, end = read_dim(text, 0)
    except ValueError:
        return False
    return not isinstance(dim, int) and end == len(text)
