# SPDX-License-Identifier: Apache-2.0
"""What a caller says about the shapes an engine must run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tensorwright.errors import BuildError


@dataclass(frozen=True, slots=True)
class Range:
    """Shapes from `min` to `max`, tuned for `opt`; all of one rank, and min <= opt <= max in every dim.

    Raises BuildError (B110) when they are not.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in ("min", "opt", "max"):
            object.__setattr__(self, field, tuple(int(dim) for dim in getattr(self, field)))
        if not len(self.min) == len(self.opt) == len(self.max):
            self._refuse("they have different ranks")
        if not all(0 <= low <= mid <= high for low, mid, high in zip(self.min, self.opt, self.max, strict=True)):
            self._refuse("min <= opt <= max does not hold in every dim")

    @staticmethod
    def of(shape: Iterable[int] | Range) -> Range:
        """The range itself, or the one that is this shape."""
        if isinstance(shape, Range):
            return shape
        dims = tuple(shape)
        return Range(dims, dims, dims)

    def _refuse(self, why: str) -> None:
        raise BuildError(
            "a shape range is inconsistent",
            where=str(self),
            why=why,
            code="B110",
            do="give three shapes of the same rank, the smallest first",
        )

    @property
    def is_fixed(self) -> bool:
        """Whether the range is one shape."""
        return self.min == self.max

    def contains(self, shape: Iterable[int]) -> bool:
        """Whether `shape` lies in the range."""
        dims = tuple(shape)
        return len(dims) == len(self.min) and all(
            low <= dim <= high for low, dim, high in zip(self.min, dims, self.max, strict=True)
        )

    def as_json(self) -> list[int] | dict[str, list[int]]:
        """The shape, or the three shapes by name."""
        if self.is_fixed:
            return list(self.opt)
        return {"min": list(self.min), "opt": list(self.opt), "max": list(self.max)}

    def __str__(self) -> str:
        shapes = (self.opt,) if self.is_fixed else (self.min, self.opt, self.max)
        return " .. ".join("x".join(map(str, shape)) for shape in shapes)
