# SPDX-License-Identifier: Apache-2.0
"""Dimensions: plain ints, or integer expressions over named symbols in one normal form.

The normal form is a polynomial: a sum of integer coefficients times products of atoms. An atom is a symbol or
one of `//`, `%`, `min`, `max` over normalised arguments, so equal expressions are equal objects (`n+n == 2*n`).
Rounding is towards minus infinity as in Python, and a divisor is taken to be non-zero (`(4*n)//n == 4`).

A symbol may be bounded (`Symbol`). Code that takes dims for numbers then works on expressions too, as long as it
does not ask what only a run decides: an order that the bounds leave open, a truth value, a plain int. Such a
question raises Undecided and is never answered by a guess.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MAX_TERMS = 4096  # products of sums grow exponentially; text from a file must not
_MOST_CORNERS = 6  # atoms whose combinations of bounds are tried
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class Undecided(ValueError):  # noqa: N818  a question without an answer, not a failure
    """What was asked of a dimension is known only in a run."""


class Symbol(str):
    """A symbol's name that knows its bounds: low <= value <= high, tuned for `opt`. `slot` numbers the symbols of
    an engine, whose values native code reads from a table. Equal to its plain name."""

    __slots__ = ("high", "low", "opt", "slot")

    low: int
    opt: int
    high: int
    slot: int

    def __new__(cls, name: str, low: int, opt: int, high: int, slot: int) -> Symbol:
        """Raises ValueError unless 0 <= low <= opt <= high."""
        if not name or not 0 <= low <= opt <= high:
            raise ValueError(f"symbol {name!r} cannot have the bounds {low}..{opt}..{high}")
        self = super().__new__(cls, name)
        self.low, self.opt, self.high, self.slot = low, opt, high, slot
        return self


class Call:
    """An atom that is not a symbol: `function` is "//", "%", "min" or "max". Immutable; equal when its text is.

    What is asked of it often is kept: calls are nested deeply, and many dims share one.
    """

    __slots__ = ("_bounds", "args", "function", "symbols", "text")

    def __init__(self, function: str, args: tuple[int | SymDim, ...]) -> None:
        self.function, self.args = function, args
        self.symbols: frozenset[str] = frozenset().union(*(a.symbols for a in args if isinstance(a, SymDim)))
        if function in ("min", "max"):
            self.text = f"{function}({','.join(map(str, args))})"
        else:
            self.text = function.join(_operand(a) for a in args)
        self._bounds: tuple[int, int] | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        """As of a SymDim."""
        if self._bounds is None:
            self._bounds = _call_bounds(self)
        return self._bounds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


Atom = str | Call
Product = tuple[Atom, ...]  # sorted; a power is a repeated atom; () is the constant term


@dataclass(frozen=True, slots=True)
class SymDim:
    """A non-constant dimension: `terms` are (product of atoms, coefficient != 0), sorted."""

    terms: tuple[tuple[Product, int], ...]

    @staticmethod
    def symbol(name: str) -> SymDim:
        """The dimension called `name` (any non-empty text; a `Symbol` keeps its bounds)."""
        if not name:
            raise ValueError("a dimension symbol needs a name")
        return SymDim((((name,), 1),))

    @property
    def symbols(self) -> frozenset[str]:
        """The names that the value depends on (`Symbol` objects where they have bounds)."""
        names: set[str] = set()
        for product, _ in self.terms:
            for atom in product:
                if isinstance(atom, str):
                    names.add(atom)
                else:
                    names |= atom.symbols
        return frozenset(names)

    @property
    def as_symbol(self) -> str | None:
        """The symbol that this is, when it is one alone."""
        if len(self.terms) != 1:
            return None
        ((product, factor),) = self.terms
        return product[0] if factor == 1 and len(product) == 1 and isinstance(product[0], str) else None

    @property
    def bounds(self) -> tuple[int, int]:
        """Numbers between which the value lies. Raises Undecided when a symbol has no bounds."""
        found = {atom: _atom_bounds(atom) for product, _ in self.terms for atom in product}
        if len(found) <= _MOST_CORNERS and all(len(set(product)) == len(product) for product, _ in self.terms):
            corners = (dict(zip(found, ends, strict=True)) for ends in itertools.product(*found.values()))
            values = [sum(c * math.prod(at[atom] for atom in atoms) for atoms, c in self.terms) for at in corners]
            return min(values), max(values)  # linear in each atom, so its extremes lie at corners
        low = high = 0
        for product, c in self.terms:
            ends = _interval_product(found[atom] for atom in product)
            low, high = low + min(c * e for e in ends), high + max(c * e for e in ends)
        return low, high

    @property
    def opt(self) -> int:
        """The value at the sizes that an engine is tuned for. Raises Undecided when a symbol has no bounds."""
        return self.evaluate({name: _bounded(name).opt for name in self.symbols})

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        """The value under `bindings`. Raises KeyError for an unbound symbol, ZeroDivisionError for a zero divisor."""
        return sum(c * math.prod(_atom_value(atom, bindings) for atom in atoms) for atoms, c in self.terms)

    def substitute(self, bindings: Mapping[str, Dim]) -> Dim:
        """The expression with the bound symbols replaced."""
        total: Dim = 0
        for atoms, c in self.terms:
            total = total + product(_substituted(atom, bindings) for atom in atoms) * c
        return total

    def __add__(self, other: Dim) -> Dim:
        return _polynomial([*self.terms, *_terms(other)]) if _is_dim(other) else NotImplemented

    def __sub__(self, other: Dim) -> Dim:
        return self + -other if _is_dim(other) else NotImplemented

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    def __neg__(self) -> SymDim:
        return SymDim(tuple((product, -c) for product, c in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        if not _is_dim(other):
            return NotImplemented
        return _polynomial((_ordered(p + q), c * d) for p, c in self.terms for q, d in _terms(other))

    def __floordiv__(self, other: Dim) -> Dim:
        return _floor_div(self, other) if _is_dim(other) else NotImplemented

    def __rfloordiv__(self, other: int) -> Dim:
        return _floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return _modulo(self, other) if _is_dim(other) else NotImplemented

    def __rmod__(self, other: int) -> Dim:
        return _modulo(other, self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __lt__(self, other: Dim) -> bool:
        return _is_positive(other - self)

    def __gt__(self, other: Dim) -> bool:
        return _is_positive(self - other)

    def __le__(self, other: Dim) -> bool:
        return not _is_positive(self - other)

    def __ge__(self, other: Dim) -> bool:
        return not _is_positive(other - self)

    def __bool__(self) -> bool:
        low, high = self.bounds
        if low <= 0 <= high:
            raise Undecided(f"whether {self} is zero is known only in a run")
        return True

    def __index__(self) -> int:
        raise Undecided(f"the number {self} is known only in a run")

    def bit_length(self) -> int:
        """As of an int, where the bounds decide it."""
        low, high = self.bounds
        if low.bit_length() != high.bit_length():
            self.__index__()
        return low.bit_length()

    def __abs__(self) -> Dim:
        return self if self >= 0 else -self

    def __truediv__(self, other: Dim) -> float:
        raise Undecided(f"the quotient of {self} is known only in a run")

    __rtruediv__ = __truediv__
    __int__ = __index__

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


def low(dim: Dim) -> int:
    """The least value that a dim can have. Raises Undecided for an unbounded symbol."""
    return dim.bounds[0] if isinstance(dim, SymDim) else dim


def high(dim: Dim) -> int:
    """The greatest value that a dim can have. Raises Undecided for an unbounded symbol."""
    return dim.bounds[1] if isinstance(dim, SymDim) else dim


def opt(dim: Dim) -> int:
    """The value that an engine is tuned for. Raises Undecided for an unbounded symbol."""
    return dim.opt if isinstance(dim, SymDim) else dim


def nonzero(dim: int) -> int:
    """The dim, but 1 for 0; a symbolic one as it is. For strides, which no element has where a dim is 0."""
    size: Dim = dim
    return dim if isinstance(size, SymDim) else max(dim, 1)


def ceil_div(a: Dim, b: Dim) -> Dim:
    """The quotient rounded up."""
    return (a + b - 1) // b if isinstance(b, SymDim) or isinstance(a, SymDim) else -(-a // b)


def substitute(dim: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """Any dim with the bound symbols replaced."""
    return dim.substitute(bindings) if isinstance(dim, SymDim) else dim


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
    """min or max of dims: of two whose order is known only one stays."""
    sign = -1 if function == "min" else 1
    kept: list[Dim] = []
    for dim in dims:
        gaps = [(i, sign * (dim - other)) for i, other in enumerate(kept)]
        known = [(i, is_more) for i, gap in gaps if (is_more := _order(gap)) is not None]
        if not known:
            kept.append(dim)
        elif known[0][1]:
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


def _is_dim(value: object) -> bool:
    return isinstance(value, int | SymDim)


def _bounded(name: str) -> Symbol:
    if not isinstance(name, Symbol):
        raise Undecided(f"the dimension {name!r} has no bounds")
    return name


def _atom_bounds(atom: Atom) -> tuple[int, int]:
    if isinstance(atom, str):
        symbol = _bounded(atom)
        return symbol.low, symbol.high
    return atom.bounds


def _call_bounds(atom: Call) -> tuple[int, int]:
    ends = [arg.bounds if isinstance(arg, SymDim) else (arg, arg) for arg in atom.args]
    if atom.function in ("min", "max"):
        pick = min if atom.function == "min" else max
        return pick(e[0] for e in ends), pick(e[1] for e in ends)
    (a, b), (c, d) = ends
    if c <= 0 <= d:
        if d <= 0:
            raise Undecided(f"{atom} may divide by zero")
        c = 1  # a divisor is taken to be non-zero
    if atom.function == "%":
        return (0, min(b, d - 1) if a >= 0 else d - 1) if c > 0 else (c + 1, 0)
    quotients = [x // y for x in (a, b) for y in (c, d)]
    return min(quotients), max(quotients)


def _interval_product(factors: Iterable[tuple[int, int]]) -> tuple[int, int]:
    a, b = 1, 1
    for c, d in factors:
        ends = (a * c, a * d, b * c, b * d)
        a, b = min(ends), max(ends)
    return a, b


def _is_positive(difference: Dim) -> bool:
    """Whether it is > 0, or surely is not. Raises Undecided where the bounds allow both."""
    if isinstance(difference, int):
        return difference > 0
    low, high = difference.bounds
    if low <= 0 < high:
        raise Undecided(f"whether {difference} is positive is known only in a run")
    return low > 0


def _order(difference: Dim) -> bool | None:
    """As `_is_positive`; None where it is open."""
    try:
        return _is_positive(difference)
    except Undecided:
        return None


def _substituted(atom: Atom, bindings: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, str):
        found = bindings.get(atom)
        return SymDim.symbol(atom) if found is None else found
    args = [substitute(arg, bindings) for arg in atom.args]
    if atom.function in ("min", "max"):
        return _extreme(atom.function, *args)
    return args[0] // args[1] if atom.function == "//" else args[0] % args[1]


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
        return atom if PLAIN.fullmatch(atom) and atom not in ("min", "max") else json.dumps(atom)
    return str(atom) if atom.function in ("min", "max") else f"({atom})"


def _operand(dim: Dim) -> str:
    simple = isinstance(dim, int) and dim >= 0
    if isinstance(dim, SymDim) and len(dim.terms) == 1:
        ((product, c),) = dim.terms
        simple = c == 1 and len(product) == 1
    return str(dim) if simple else f"({dim})"
