# SPDX-License-Identifier: Apache-2.0
"""Typed reading of JSON that came from a file: a wrong or missing field is a PlanError, whatever the bytes."""

from __future__ import annotations

from typing import Any, TypeVar

from tensorwright.plan.format import malformed

T = TypeVar("T")


class Fields:
    """A JSON object or list called `what`, found at `where`, whose parts are checked as they are read."""

    def __init__(self, value: object, what: str, where: str) -> None:
        self.value, self.what, self.where = value, what, where

    def get(self, key: str, kind: type[T]) -> T:
        """The field `key`, which must be of type `kind` (an int is also a float). Raises PlanError P106."""
        if not isinstance(self.value, dict) or key not in self.value:
            raise malformed(self.what, self.where, f"field {key!r} is missing")
        return self._checked(self.value[key], kind, f"field {key!r}")

    def size(self, key: str) -> int:
        """The field `key`, an integer of at least 0."""
        value = self.get(key, int)
        if value < 0:
            raise malformed(self.what, self.where, f"field {key!r} is {value}")
        return value

    def rows(self, *kinds: type) -> list[tuple[Any, ...]]:
        """The value as a list of rows with one column per kind."""
        if not isinstance(self.value, list):
            raise malformed(self.what, self.where, "expected a list")
        for row in self.value:
            if not isinstance(row, list) or len(row) != len(kinds):
                raise malformed(self.what, self.where, f"expected rows of {len(kinds)} columns, found {row!r:.80}")
            for column, kind in zip(row, kinds, strict=True):
                self._checked(column, kind, f"a column of {row!r:.80}")
        return [tuple(row) for row in self.value]

    def at(self, key: str) -> Fields:
        """The field `key`, to be read further."""
        return Fields(self.get(key, object), f"{self.what}.{key}", self.where)

    def sizes(self, values: list[object]) -> tuple[int, ...]:
        """The values, which must be integers of at least 0, as a tuple."""
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            raise malformed(self.what, self.where, f"{values!r:.80} should be sizes")
        return tuple(v for v in values if isinstance(v, int))

    def texts(self, values: list[object]) -> tuple[str, ...]:
        """The values, which must be strings, as a tuple."""
        if not all(isinstance(v, str) for v in values):
            raise malformed(self.what, self.where, f"{values!r:.80} should be strings")
        return tuple(v for v in values if isinstance(v, str))

    def _checked(self, value: Any, kind: type[T], what: str) -> T:
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise malformed(self.what, self.where, f"{what} should be {kind.__name__}, is {value!r:.80}")
        return value
