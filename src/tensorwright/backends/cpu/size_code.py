# SPDX-License-Identifier: Apache-2.0
"""Code that computes symbolic sizes from an engine's table of symbol values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorwright.ir.dims import Call, Dim, Symbol, SymDim, Undecided, low

if TYPE_CHECKING:
    from tensorwright.backends.cpu.emitter import Function, Reg


def value(f: Function, dim: Dim, dims: Reg, known: dict[str, Reg]) -> Reg:
    """The i64 value of a dim at this point of the code; `dims` points to the table, `known` keeps the values of atoms.

    Raises Undecided for a symbol without bounds.
    """
    if not isinstance(dim, SymDim):
        return f.i64(dim)
    total = f.i64(0)
    for atoms, factor in dim.terms:
        part = f.i64(factor)
        for atom in atoms:
            if str(atom) not in known:
                known[str(atom)] = _atom(f, atom, dims, known)
            part = known[str(atom)] * part
        total = part + total
    return total


def _atom(f: Function, atom: str | Call, dims: Reg, known: dict[str, Reg]) -> Reg:
    if isinstance(atom, Symbol):
        return f.load("i64", dims, atom.slot)
    if isinstance(atom, str):
        raise Undecided(f"the dimension {atom!r} has no bounds")
    first, *rest = (value(f, arg, dims, known) for arg in atom.args)
    if atom.function in ("min", "max"):
        extreme = f.minimum if atom.function == "min" else f.maximum
        for other in rest:
            first = extreme(first, other)
        return first
    divisor = rest[0]
    if low(atom.args[1]) == 0:  # of an empty tensor: no element depends on it, but the processor must not divide
        divisor = f.maximum(divisor, 1)
    if low(atom.args[0]) < 0:  # rounds towards minus infinity
        left = f.binary("srem", first, divisor)
        left = f.select(f.compare("slt", left, 0), left + divisor, left)
        return left if atom.function == "%" else f.binary("sdiv", first - left, divisor)
    return first // divisor if atom.function == "//" else first % divisor
