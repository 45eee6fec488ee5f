# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's lists of tensors (TensorList, and TensorArray of TensorFlow 1): what a TensorList is while it is read.

A list whose elements have one shape is an array with a dim more. What is set at known places is only noted, so that a
list that is filled and then stacked becomes one Concat; what a loop sets in order becomes what the loop stacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.importers.builder import Builder
from tensorwright.ir.dims import Dim
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import RefusalError, limit_constant
from tensorwright.ops.index import Gather
from tensorwright.ops.select import ScatterNd
from tensorwright.ops.shape import Concat, Expand, Reshape, Slice

Shape = tuple[Dim, ...]


class Watch:
    """Notices whether a list, or one that was made of it, is read."""

    read = False


@dataclass(slots=True)
class Rows:
    """A list of which a loop takes one element after the other: in an iteration, `row` at the indices `steps`."""

    row: Value
    steps: set[Value]
    used: bool = False


@dataclass(frozen=True, slots=True)
class TensorList:
    """A list of `count` tensors of one dtype and shape; `shape` is None while nothing says it.

    `base`, [some, *shape], holds the first elements; what it does not hold is zeros. `written` are newer, at known
    indices. `last`, (index, element), is newer than all, at an index that only a run knows; where `may_grow`, that may
    lie behind the end.
    """

    dtype: DType
    count: Dim
    shape: Shape | None
    base: Value | None = None
    written: Mapping[int, Value] = field(default_factory=dict)
    last: tuple[Value, Value] | None = None
    may_grow: bool = False
    watch: Watch | None = None
    rows: Rows | None = None

    @staticmethod
    def of(stacked: Value) -> TensorList:
        """The rows of an array."""
        if not stacked.type.rank:
            raise ValueError("a number is no list")
        return TensorList(stacked.type.dtype, stacked.type.shape[0], stacked.type.shape[1:], stacked)

    # -- reading --------------------------------------------------------------------------------
    def element_shape(self) -> Shape:
        """The shape of the elements. Raises RefusalError where nothing says it."""
        if self.shape is None:
            raise RefusalError(
                "it reads a list of tensors whose shape nothing says",
                "give the TensorArray an element_shape, or write to it before",
            )
        return self.shape

    def stacked(self, b: Builder) -> Value:
        """All elements, [count, *shape]."""
        self.note_read()
        if self.last is not None:
            if self.may_grow:
                raise RefusalError(
                    "it lengthens a list of tensors at an index that only a run knows",
                    "give the TensorArray its size, without dynamic_size",
                )
            index, item = self.last
            before = dataclasses.replace(self, last=None).stacked(b)
            at_index, row = b.add(Reshape((1, 1)), index), b.add(Reshape((1, *item.type.shape)), item)
            return b.add(ScatterNd("none"), before, at_index, row)
        parts, at = list[Value](), 0
        for place, item in sorted(self.written.items()):
            parts += [*self._rows(b, at, place), b.add(Reshape((1, *item.type.shape)), item)]
            at = place + 1
        parts += self._rows(b, at, self.count)
        if not parts:
            return b.constant(np.empty((0, *_known(self.element_shape())), self.dtype.numpy))
        return parts[0] if len(parts) == 1 else b.add(Concat(0), *parts)

    def _rows(self, b: Builder, start: int, end: Dim) -> list[Value]:
        """What lies between written elements: rows of the base, then zeros."""
        if start == end:
            return []
        held: Dim = self.base.type.shape[0] if self.base is not None else 0
        parts = []
        if self.base is not None and held != start:
            if held == end or not isinstance(held, int):
                stop = end
            else:
                stop = min(held, end) if isinstance(end, int) else held
            whole = start == 0 and stop == held
            if not (isinstance(stop, int) and stop <= start):
                parts.append(self.base if whole else b.add(Slice((start,), (stop,), (0,), (1,)), self.base))
                start = stop if isinstance(stop, int) else start
            if stop == end:
                return parts
        shape = (end - start, *self.element_shape())
        if all(isinstance(d, int) for d in shape):
            limit_constant(int(np.prod(_known(shape), dtype=object)))
        return [*parts, b.add(Expand(shape), b.scalar(0, self.dtype))]

    def get(self, b: Builder, index: Value) -> Value:
        """The element at an index, one integer."""
        if self.rows is not None and index in self.rows.steps:
            self.rows.used = True
            return self.rows.row
        self.note_read()
        if self.last is not None and self.last[0] is index:
            return self.last[1]
        place = _number(b, index)
        if place is None or self.last is not None:
            return b.add(Gather(0), self.stacked(b), b.add(Reshape(()), index))
        self._check(place)
        if place in self.written:
            return self.written[place]
        (row,) = dataclasses.replace(self, written={})._rows(b, place, place + 1)
        return b.add(Reshape(self.element_shape()), row)

    def _check(self, place: int) -> None:
        if place < 0 or (isinstance(self.count, int) and place >= self.count):
            raise ValueError(f"index {place} is not within a list of {self.count}")

    def note_read(self) -> None:
        if self.watch is not None:
            self.watch.read = True

    # -- writing --------------------------------------------------------------------------------
    def set(self, b: Builder, index: Value, item: Value, grow: bool = False) -> TensorList:
        """The list with another element at an index; `grow` makes it longer where the index is known."""
        if item.type.dtype is not self.dtype or (self.shape is not None and not _alike(self.shape, item.type.shape)):
            if item.type.dtype is not self.dtype:
                raise ValueError(f"{item.type} is put into a list of {self.dtype}")
            raise RefusalError(f"its elements have different shapes: {item.type} in a list of {list(self.shape or ())}")
        place = _number(b, index)
        settled = dataclasses.replace(self if self.last is None else self.settled(b), rows=None)
        shape = item.type.shape if self.shape is None else self.shape
        if place is None:
            return dataclasses.replace(settled, shape=shape, last=(index, item), may_grow=grow)
        count = settled.count
        if grow and isinstance(count, int):
            count = max(count, place + 1)
        grown = dataclasses.replace(settled, shape=shape, count=count)
        grown._check(place)
        return dataclasses.replace(grown, written={**settled.written, place: item})

    def settled(self, b: Builder) -> TensorList:
        """The same list, all of it in the base."""
        return dataclasses.replace(self, base=self.stacked(b), written={}, last=None)

    def resized(self, b: Builder, count: Dim) -> TensorList:
        """The list with fewer elements, or with zeros behind."""
        if self.base is None and not self.written and self.last is None:
            return dataclasses.replace(self, count=count)
        whole = self.stacked(b)
        held = whole.type.shape[0]
        if isinstance(count, int) and isinstance(held, int) and count < held:
            whole = b.add(Slice((0,), (count,), (0,), (1,)), whole)
        elif not (isinstance(count, int) and isinstance(held, int)) and count != held:
            raise RefusalError(f"it resizes a list of {held} to {count}", "give every input a fixed shape with shapes=")
        return dataclasses.replace(self, count=count, base=whole, written={}, last=None)


def _alike(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(x == y for x, y in zip(a, b, strict=True))


def _known(shape: Sequence[Dim]) -> list[int]:
    return [d if isinstance(d, int) else 0 for d in shape]


def _number(b: Builder, index: Value) -> int | None:
    array = b.known(index)
    if array is None:
        return None
    if array.size != 1:
        raise ValueError(f"an index must be one integer, it has {array.size} elements")
    return int(array.reshape(-1)[0])
