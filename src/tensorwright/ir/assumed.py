# SPDX-License-Identifier: Apache-2.0
"""What shape inference takes for granted of symbolic dims, collected for those who must check it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tensorwright.ir.dims import Dim, Symbol, SymDim, Undecided, maximum, minimum


@dataclass(frozen=True, slots=True)
class Assumed:
    """What was taken for granted of symbolic dims: pairs that must be equal, and pairs of which a run may find one to
    be 1, so that it is broadcast."""

    equal: list[tuple[Dim, Dim]]
    open: list[tuple[Dim, Dim]]


_ASSUMED: ContextVar[Assumed | None] = ContextVar("assumed", default=None)


@contextmanager
def assuming() -> Iterator[Assumed]:
    """Collect what `assume_equal` and `broadcast_dims` take for granted of dims with bounds inside the block."""
    assumed = Assumed([], [])
    token = _ASSUMED.set(assumed)
    try:
        yield assumed
    finally:
        _ASSUMED.reset(token)


def assume_equal(a: Dim, b: Dim) -> bool:
    """Whether two dims may be equal: certainly so, or unknown because one is symbolic, which is then `assuming`'s."""
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    _note(a, b, is_open=False)
    return True


def _note(a: Dim, b: Dim, *, is_open: bool) -> None:
    assumed = _ASSUMED.get()
    dims = [d for d in (a, b) if isinstance(d, SymDim)]
    if assumed is not None and all(isinstance(s, Symbol) for d in dims for s in d.symbols):
        (assumed.open if is_open else assumed.equal).append((a, b))


def broadcast_dims(a: Dim, b: Dim) -> Dim:
    """The dim of two operands under NumPy broadcasting. Raises ValueError when both are known and do not fit.

    A symbol against an int other than 1 takes the int; two different expressions give their maximum, which
    is right whenever the operands fit at run and neither is empty.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    known = [d for d in (a, b) if isinstance(d, int)]
    if len(known) == 2:
        raise ValueError(f"dims {a} and {b} do not broadcast")
    _note(a, b, is_open=_may_be_one(minimum(a, b)))
    return known[0] if known else maximum(a, b)


def _may_be_one(dim: Dim) -> bool:
    try:
        return not dim > 1
    except Undecided:
        return True
