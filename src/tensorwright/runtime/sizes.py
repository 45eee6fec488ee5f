# SPDX-License-Identifier: Apache-2.0
"""The sizes that a run decides: read from the shapes of its inputs, checked against their bounds, put into the table
that native code reads, and used to say the shapes of the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

import numpy as np

from tensorwright.errors import InputError, InternalError
from tensorwright.ir.dim_text import parse_dim
from tensorwright.ir.dims import Dim, Symbol, SymDim, evaluate, high, low, opt
from tensorwright.ir.op import Array
from tensorwright.plan.interface import Equality, TensorInfo
from tensorwright.shapes import Range

_REMEMBERED: Final = 64  # combinations of shapes whose sizes are kept, so that going back to one costs nothing
Shape = tuple[int, ...]


class Sizes:
    """The symbols of one engine: what shapes of inputs say of them, and the shapes of outputs that follow."""

    def __init__(
        self,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        symbols: Iterable[Symbol],
        where: str = "",
        decided: Iterable[str] | None = None,
        equalities: Iterable[Equality] = (),
    ) -> None:
        """`equalities` are checked for all shapes. `decided` are the symbols that a run finds in the data; None stands
        for all that the inputs do not tell."""
        self.where = where
        self.symbols = {str(s): s for s in symbols}
        self.slots = 1 + max((s.slot for s in self.symbols.values()), default=-1)
        self._inputs = [(info, self.dims(info)) for info in inputs]
        self._outputs = [self.dims(info) for info in outputs]
        self._given = {name for _, dims in self._inputs for d in dims if (name := _name(d)) is not None}
        self._equalities = [(e, parse_dim(e.left), parse_dim(e.right)) for e in equalities]
        untold = self.symbols.keys() - self._given
        self._untold = tuple(sorted(untold - set(untold if decided is None else decided)))
        self._known: dict[tuple[object, ...], tuple[Array, list[Shape]]] = {}

    def dims(self, info: TensorInfo) -> tuple[Dim, ...]:
        """The dims of an input or output; symbols have their bounds."""
        bindings = {name: SymDim.symbol(symbol) for name, symbol in self.symbols.items()}
        parsed = (parse_dim(d) if isinstance(d, str) else d for d in info.shape)
        return tuple(d.substitute(bindings) if isinstance(d, SymDim) else d for d in parsed)

    def resolve(
        self, shapes: Sequence[Shape], known: Mapping[str, int] = MappingProxyType({})
    ) -> tuple[Array, list[Shape]]:
        """For shapes of the inputs in order: the values of all symbols (i64 by slot), and the shapes of the outputs.

        `known` are symbols that these shapes do not tell. What only the data decides is as large as its
        bound allows, until a run is over (`decided`).

        Raises InputError I103 for shapes that contradict each other or the declaration, I130 for a size out of bounds.
        """
        untold = {name: known[name] for name in self._untold if name in known}
        if len(untold) < len(self._untold):
            raise InternalError(f"the sizes {', '.join(self._untold)} are needed, known are {dict(known)}")
        key = (*shapes, *untold.values())
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            try:
                found = self._known[key] = self._resolved(tuple(shapes), untold)
            except ZeroDivisionError:
                raise InputError(
                    "the sizes of the inputs do not fit each other",
                    where=self.where,
                    why=f"a size of the network is divided by one that is 0, with shapes {', '.join(map(str, shapes))}",
                    do="pass inputs of sizes that the network can take",
                    code="I133",
                ) from None
        return found

    @property
    def untold(self) -> tuple[str, ...]:
        """The symbols that neither shapes of inputs nor the program's own data tell."""
        return self._untold

    def told(self, shapes: Sequence[Shape]) -> dict[str, int]:
        """The symbols that shapes of the inputs tell. Raises InputError as `resolve`."""
        values = self.values(self.resolve(shapes)[0])
        return {name: value for name, value in values.items() if name in self._given}

    def values(self, table: Array) -> dict[str, int]:
        """The value of every symbol in a table."""
        return {name: int(table[symbol.slot]) for name, symbol in self.symbols.items()}

    def refuse(self, slot: int) -> NoReturn:
        """Raise InputError I131 for the symbol whose value a run found to be out of its bounds."""
        symbol = next(s for s in self.symbols.values() if s.slot == slot)
        raise InputError(
            f"the data asks for a size {symbol} that is not possible",
            where=self.where or str(symbol),
            why=f"it must be from {symbol.low} to {symbol.high}",
            do="check the values of the inputs of this run (a count k, a shape)",
            code="I131",
        )

    def fits(self, shapes: Sequence[Shape]) -> bool:
        """Whether inputs of these shapes can be run."""
        try:
            self.resolve(shapes)
        except InputError:
            return False
        return True

    def ranges(self) -> dict[str, Range]:
        """The shapes that each input may have, by name; without those that have none, or no bounds."""
        named = ((info.name, i) for i, (info, _) in enumerate(self._inputs) if not info.is_object)
        return {name: self.range_of(i) for name, i in named if self._is_bounded(i)}

    def _is_bounded(self, index: int) -> bool:
        return all(s in self.symbols for d in self._inputs[index][1] if isinstance(d, SymDim) for s in d.symbols)

    def range_of(self, index: int) -> Range:
        """The shapes that input `index` may have. Raises Undecided when a dim has no bounds."""
        dims = self._inputs[index][1]
        return Range(tuple(map(low, dims)), tuple(map(opt, dims)), tuple(map(high, dims)))

    def _resolved(self, shapes: tuple[Shape, ...], untold: Mapping[str, int]) -> tuple[Array, list[Shape]]:
        values: dict[str, int] = dict(untold)
        owner: dict[str, str] = {}
        for (info, dims), shape in zip(self._inputs, shapes, strict=True):
            if info.is_object:
                continue
            if len(shape) != len(dims):
                raise _wrong(info, shape, f"its rank is {len(dims)}")
            for dim, size in zip(dims, shape, strict=True):
                name = _name(dim)
                if name is None:
                    continue
                if values.setdefault(name, size) != size:
                    raise _wrong(info, shape, f"{name} is {values[name]} in input {owner[name]!r} and {size} here")
                owner.setdefault(name, info.name)
        for (info, dims), shape in zip(self._inputs, shapes, strict=True):
            if not info.is_object:
                self._check(info, dims, shape, values)
        self._check_equalities(values)
        table: Array = np.zeros(max(self.slots, 1), np.int64)
        for name, symbol in self.symbols.items():
            table[symbol.slot] = values.get(name, symbol.high)  # those that a run decides: as large as can be
        most = {name: values.get(name, symbol.high) for name, symbol in self.symbols.items()}
        return table, [tuple(size_of(d, most) for d in dims) for dims in self._outputs]

    def decided(self, index: int, table: Array) -> Shape | None:
        """The shape of output `index` after a run that left `table`; None when the inputs alone decide it."""
        dims = self._outputs[index]
        if not any(isinstance(d, SymDim) and d.symbols - self._given - set(self._untold) for d in dims):
            return None
        values = self.values(table)
        return tuple(evaluate(d, values) for d in dims)

    def _check_equalities(self, values: Mapping[str, int]) -> None:
        for equality, left, right in self._equalities:
            a, b = size_of(left, values), size_of(right, values)
            if a != b:
                sizes = ", ".join(f"{name} = {value}" for name, value in values.items())
                raise InputError(
                    "the sizes of the inputs do not fit each other",
                    where=equality.where or self.where,
                    why=f"{equality.left} must equal {equality.right}; it is {a}, not {b}, with {sizes}",
                    do="pass inputs of sizes that the network can take",
                    code="I133",
                )

    def _check(self, info: TensorInfo, dims: tuple[Dim, ...], shape: Shape, values: Mapping[str, int]) -> None:
        for dim, size in zip(dims, shape, strict=True):
            symbol = self.symbols.get(_name(dim) or "")
            if symbol is not None and not symbol.low <= size <= symbol.high:
                raise InputError(
                    f"input {info.name!r} has a shape outside of the engine's range",
                    where=self.where or f"input {info.name!r}",
                    why=(
                        f"given   {list(shape)}",
                        f"allowed {self.range_of([i for i, _ in self._inputs].index(info))} (min .. opt .. max)",
                        f"{symbol} = {size} is not in {symbol.low}..{symbol.high}",
                    ),
                    do="pass an input within the range, or build the engine with a wider one in shapes=",
                    code="I130",
                )
            if evaluate(dim, values) != size:
                raise _wrong(info, shape, f"{dim} is {evaluate(dim, values)}, not {size}")


def size_of(dim: Dim, values: Mapping[str, int]) -> int:
    """The value of a dim; -1 where a symbol without bounds has none yet."""
    return evaluate(dim, values) if not isinstance(dim, SymDim) or dim.symbols <= values.keys() else -1


def _name(dim: Dim) -> str | None:
    return dim.as_symbol if isinstance(dim, SymDim) else None


def _wrong(info: TensorInfo, shape: Shape, why: str) -> InputError:
    return InputError(
        f"input {info.name!r} of shape {list(shape)} does not fit",
        where=f"input {info.name!r}",
        why=why,
        do=f"pass arrays that agree; this one is {info}",
        code="I103",
    )
