# SPDX-License-Identifier: Apache-2.0
"""The builder that layers write to, and importers of whole models build upon."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.ir.dims import Dim, Symbol, SymDim, high
from tensorwright.ir.source_builder import SourceBuilder

_CONSTANT_LIMIT_ELEMS = 1 << 24


class RefusalError(ValueError):
    """What is asked for is defined, but this version cannot build it: `reason` says why, `do` what would help."""

    def __init__(self, reason: str, do: str = "") -> None:
        super().__init__(reason)
        self.reason, self.do = reason, do


class NetworkBuilder(SourceBuilder):
    """A SourceBuilder that hands out the sizes that only a run decides. A body has those of the network `around` it:
    sizes cross its border."""

    def __init__(self, name: str = "network", around: NetworkBuilder | None = None) -> None:
        super().__init__(name)
        self._around = around
        self._decided = -1  # the last slot given to a size that a run decides

    def decided_dim(self, name: str, bound: Dim) -> SymDim:
        """A new symbol for a size between 0 and `bound` that a run decides; tuned for half of that.

        Raises Undecided where the bound is not known, because an input has dims without bounds.
        """
        if self._around is not None:
            return self._around.decided_dim(name, bound)
        most = high(bound)
        symbols = {s for v in self._inputs for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}
        slots = [s.slot for s in symbols if isinstance(s, Symbol)]
        unbounded = len(symbols) - len(slots)  # they may get bounds, and the first slots, when the network is built
        self._decided = max(self._decided, *slots, unbounded - 1) + 1
        return SymDim.symbol(Symbol(name, 0, most // 2, most, self._decided))


def limit_constant(elems: int) -> None:
    """Refuse to make up a constant of more than 2**24 elements."""
    if elems > _CONSTANT_LIMIT_ELEMS:
        raise RefusalError(f"it makes a constant of {elems} elements, more than {_CONSTANT_LIMIT_ELEMS}")


def normal_axis(axis: int, rank: int) -> int:
    """A non-negative axis. Raises ValueError when it is not one of `rank` positions."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is not within a rank of {rank}")
    return axis % rank


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Non-negative, distinct, sorted axes. Raises ValueError."""
    result = tuple(sorted(normal_axis(a, rank) for a in axes))
    if len(set(result)) != len(result):
        raise ValueError(f"axes {list(axes)} name an axis twice")
    return result
