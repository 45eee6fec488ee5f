# SPDX-License-Identifier: Apache-2.0
"""Dimensions: plain ints, or integer expressions over named symbols in one normal form.

The normal form is a polynomial: a sum of integer coefficients times products of atoms. An atom is a symbol or
one of `//`, `%`, `min`, `max` over normalised arguments, so equal expressions are equal objects (`n+n == 2*n`).
Rounding is towards minus infinity as in Python, and a divisor is taken to be non-zero (`(4*n)//n == 4`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MAX_TERMS = 4096  # products of sums grow exponentially; text from a file must not
_MAX_DEPTH = 40
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(r'\s*(?:([0-9]+)|([A-Za-z_][A-Za-z0-9_.]*)|("(?:[^"\\]|\\.)*")|(//|[-+*%(),]))')


@dataclass(frozen=True, slots=True)
class Call:
    """An atom that is not a symbol: `function` is "//", "%", "min" or "max"."""

    function: str
    args: tuple[int | SymDim, ...]

    def __str__(self) -> str:
        if self.function in ("min", "max"):
            return f"{self.function}({','.join(map(str, self.args))})"
        return self.function.join(_operand(a) for a in self.args)


Atom = str | Call
Product = tuple[Atom, ...]  # sorted; a power is a repeated atom; () is the constant term


@dataclass(frozen=True, slots=True)
class SymDim:
    """A non-constant dimension: `terms` are (product of atoms, coefficient != 0), sorted."""

    terms: tuple[tuple[Product, int], ...]

    @staticmethod
    def symbol(name: str) -> SymDim:
        """The dimension called `name` (any non-empty text)."""
        if not name:
            raise ValueError("a dimension symbol needs a name")
        return SymDim((((name,), 1),))

    @property
    def symbols(self) -> frozenset[str]:
        """The names that the value depends on."""
        names: set[str] = set()
        for product, _ in self.terms:
            for atom in product:
                if isinstance(atom, str):
                    names.add(atom)
                else:
                    names.update(*(a.symbols for a in atom.args if isinstance(a, SymDim)))
        return frozenset(names)

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        """The value under `bindings`. Raises KeyError for an unbound symbol, ZeroDivisionError for a zero divisor."""
        return sum(c * math.prod(_atom_value(atom, bindings) for atom in atoms) for atoms, c in self.terms)

    def __add__(self, other: Dim) -> Dim:
        return _polynomial([*self.terms, *_terms(other)])

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    def __neg__(self) -> SymDim:
        return SymDim(tuple((product, -c) for product, c in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        return _polynomial((_ordered(p + q), c * d) for p, c in self.terms for q, d in _terms(other))

    def __floordiv__(self, other: Dim) -> Dim:
        return _floor_div(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return _floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return _modulo(self, other)

    def __rmod__(self, other: int) -> Dim:
        return _modulo(other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for product, c in self.terms:
            factors = "*".join(_factor(atom) for atom in product)
            if not factors or abs(c) != 1:
                factors = f"{abs(c)}*{factors}" if factors else str(abs(c))
            text += ("-" if c < 0 else "+" if text else "") + factors
        return text

    def __repr__(self) -> str:
        return str(self)


Dim = int | SymDim


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two dims."""
    return _extreme("min", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two dims."""
    return _extreme("max", a, b)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims (1 for none)."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int:
    """The value of any dim under `bindings`."""
    return dim.evaluate(bindings) if isinstance(dim, SymDim) else dim


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
    return known[0] if known else maximum(a, b)


def parse_dim(text: str) -> Dim:
    """The dim written as `str` does. Raises ValueError on anything else."""
    dim, end = read_dim(text, 0)
    if text[end:].strip():
        raise ValueError(f"unexpected {text[end:].strip()[:20]!r} after dimension {text[:end]!r}")
    return dim


def read_dim(text: str, start: int) -> tuple[Dim, int]:
    """The longest dim that begins at `start`, and where it ends. Raises ValueError when there is none."""
    reader = _Reader(text, start)
    try:
        return reader.sum(0), reader.position
    except ZeroDivisionError:
        raise ValueError(f"dimension {text[start : start + 40]!r} divides by zero") from None


# -- normal form --------------------------------------------------------------------------------
def _terms(dim: Dim) -> tuple[tuple[Product, int], ...]:
    return dim.terms if isinstance(dim, SymDim) else (((), dim),)


def _ordered(atoms: Iterable[Atom]) -> Product:
    return tuple(sorted(atoms, key=_factor))


def _polynomial(terms: Iterable[tuple[Product, int]]) -> Dim:
    total: dict[Product, int] = {}
    for product, c in terms:
        total[product] = total.get(product, 0) + c
        if len(total) > _MAX_TERMS:
            raise ValueError(f"a dimension has more than {_MAX_TERMS} terms")
    kept = {product: c for product, c in total.items() if c}
    if not kept or (len(kept) == 1 and () in kept):
        return kept.get((), 0)
    return SymDim(tuple(sorted(kept.items(), key=lambda item: (-len(item[0]), [_factor(a) for a in item[0]]))))


def _atom(function: str, *args: Dim) -> SymDim:
    return SymDim((((Call(function, args),), 1),))


def _split(a: Dim, divisor: int) -> tuple[Dim, Dim]:
    """a = divisor * quotient + rest, with every coefficient of rest in the range of `% divisor`."""
    quotient = _polynomial((p, c // divisor) for p, c in _terms(a))
    return quotient, _polynomial((p, c % divisor) for p, c in _terms(a))


def _exact_quotient(a: Dim, b: SymDim) -> Dim | None:
    """a / b when b is one product that divides every term of a."""
    if a == b:
        return 1
    if len(b.terms) != 1:
        return None
    ((divisor, scale),) = b.terms
    terms: list[tuple[Product, int]] = []
    for product, c in _terms(a):
        rest = list(product)
        for atom in divisor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % scale:
            return None
        terms.append((tuple(rest), c // scale))
    return _polynomial(terms)


def _floor_div(a: Dim, b: Dim) -> Dim:
    if isinstance(b, int):
        quotient, rest = _split(a, b)
        return quotient + (rest // b if isinstance(rest, int) else _atom("//", rest, b))
    exact = 0 if a == 0 else _exact_quotient(a, b)
    return exact if exact is not None else _atom("//", a, b)


def _modulo(a: Dim, b: Dim) -> Dim:
    if isinstance(b, int):
        rest = _split(a, b)[1]
        return rest % b if isinstance(rest, int) else _atom("%", rest, b)
    return 0 if a == 0 or _exact_quotient(a, b) is not None else _atom("%", a, b)


def _extreme(function: str, *dims: Dim) -> Dim:
    """min or max of dims: of those that differ by a constant only one stays."""
    sign = -1 if function == "min" else 1
    kept: list[Dim] = []
    for dim in dims:
        gaps = [(i, sign * (dim - other)) for i, other in enumerate(kept)]
        known = [(i, gap) for i, gap in gaps if isinstance(gap, int)]
        if not known:
            kept.append(dim)
        elif known[0][1] > 0:
            kept[known[0][0]] = dim
    if len(kept) == 1:
        return kept[0]
    flat = [arg for dim in kept for arg in _extreme_args(function, dim)]
    return _extreme(function, *flat) if len(flat) > len(kept) else _atom(function, *sorted(kept, key=str))


def _extreme_args(function: str, dim: Dim) -> tuple[Dim, ...]:
    if isinstance(dim, SymDim) and len(dim.terms) == 1:
        ((product, c),) = dim.terms
        if c == 1 and len(product) == 1 and isinstance(product[0], Call) and product[0].function == function:
            return product[0].args
    return (dim,)


def _atom_value(atom: Atom, bindings: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return bindings[atom]
    values = [evaluate(a, bindings) for a in atom.args]
    if atom.function in ("min", "max"):
        return min(values) if atom.function == "min" else max(values)
    return values[0] // values[1] if atom.function == "//" else values[0] % values[1]


# -- text ---------------------------------------------------------------------------------------
def _factor(atom: Atom) -> str:
    if isinstance(atom, str):
        return atom if _PLAIN.fullmatch(atom) and atom not in ("min", "max") else json.dumps(atom)
    return str(atom) if atom.function in ("min", "max") else f"({atom})"


def _operand(dim: Dim) -> str:
    simple = isinstance(dim, int) and dim >= 0
    if isinstance(dim, SymDim) and len(dim.terms) == 1:
        ((product, c),) = dim.terms
        simple = c == 1 and len(product) == 1
    return str(dim) if simple else f"({dim})"


class _Reader:
    """Recursive descent over sum > term > factor."""

    def __init__(self, text: str, position: int) -> None:
        self.text, self.position = text, position

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.position)
        return match.group().strip() if match else ""

    def take(self) -> str:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            raise ValueError(f"expected a dimension at {self.text[self.position : self.position + 20]!r}")
        self.position = match.end()
        return match.group().strip()

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise ValueError(f"expected {token!r} in a dimension at {self.text[self.position : self.position + 20]!r}")
        self.take()

    def sum(self, depth: int) -> Dim:
        if depth > _MAX_DEPTH:
            raise ValueError("a dimension is nested too deeply")
        value = self.term(depth)
        while self.peek() in ("+", "-"):
            value = value + self.term(depth) if self.take() == "+" else value - self.term(depth)
        return value

    def term(self, depth: int) -> Dim:
        value = self.factor(depth)
        while self.peek() in ("*", "//", "%"):
            token = self.take()
            other = self.factor(depth)
            value = value * other if token == "*" else value // other if token == "//" else value % other
        return value

    def factor(self, depth: int) -> Dim:
        token = self.take()
        if token == "-" and depth < _MAX_DEPTH:
            return -self.factor(depth + 1)
        if token.isdigit():
            return int(token)
        if token == "(":
            value = self.sum(depth + 1)
            self.expect(")")
            return value
        if token in ("min", "max"):
            return self.call(token, depth)
        if token[0] == '"':
            return SymDim.symbol(json.loads(token))
        if not _PLAIN.fullmatch(token):
            raise ValueError(f"unexpected {token!r} in a dimension")
        return SymDim.symbol(token)

    def call(self, function: str, depth: int) -> Dim:
        self.expect("(")
        args = [self.sum(depth + 1)]
        while self.peek() == ",":
            self.take()
            args.append(self.sum(depth + 1))
        self.expect(")")
        return _extreme(function, *args)
