# SPDX-License-Identifier: Apache-2.0
"""The builder that importer functions of every format write to: it also follows shapes that are computed from symbolic
dims."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tensorwright.importers.shape_values import Contents, contents_of
from tensorwright.ir.dims import Dim, SymDim, Undecided
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.ir.source_builder import FOLD_LIMIT_ELEMS
from tensorwright.network.builder import NetworkBuilder
from tensorwright.ops.control_flow import ControlFlow
from tensorwright.ops.host import OnnxHost


class DataDependentError(Exception):
    """An op would have an attribute that only the data decides."""


class Builder(NetworkBuilder):
    """A NetworkBuilder that knows the elements of shape computations even when they are symbolic.

    `data_symbols` are the dims that only the data decides, at run: the results of host steps have them.
    """

    def __init__(self, name: str, around: Builder | None = None) -> None:
        super().__init__(name, around)
        self.data_symbols: set[str] = set()
        self._contents: dict[Value, Contents] = {}

    def decided_dim(self, name: str, bound: Dim) -> SymDim:
        """A new symbol for a size between 0 and `bound` that a run decides; tuned for half of that.

        Raises DataDependentError where the bound is not known, because an input has dims without bounds.
        """
        try:
            return super().decided_dim(name, bound)
        except Undecided as error:
            raise DataDependentError(f"the size {name} has no bound: {error}") from None

    @property
    def has_symbols(self) -> bool:
        """Whether an input has a symbolic dim."""
        return any(not value.type.is_static for value in self._inputs)

    @property
    def input_symbols(self) -> set[str]:
        """The symbols of the inputs' dims."""
        return {s for v in self._inputs for d in v.type.shape if isinstance(d, SymDim) for s in d.symbols}

    def contents(self, value: Value | None) -> Contents | None:
        """The elements of an integer value as dims (an object array of its shape), when they are known; else None."""
        array = self.known(value)
        if array is not None:
            is_shape = array.dtype.kind in "iub" and array.size <= FOLD_LIMIT_ELEMS
            return array.astype(object) if is_shape else None
        return self._contents.get(value) if value is not None else None

    def tell(self, value: Value, contents: Contents) -> None:
        """Make known what the elements of a value are: dims whose symbols a run knows."""
        self._contents[value] = contents

    def add_all(self, op: Op, *inputs: Value | None) -> tuple[Value, ...]:
        """Apply an op; all its results. Raises DataDependentError for an attribute that only the data decides."""
        if self.data_symbols and any(not self.data_symbols.isdisjoint(dim.symbols) for dim in _dims(op)):
            raise DataDependentError(f"{op.kind} depends on sizes that only the data decides")
        return super().add_all(op, *inputs)

    def add(self, op: Op, *inputs: Value | None) -> Value:
        """Apply an op with one result; when all elements of the result are known integers it becomes a constant."""
        value = super().add(op, *inputs)
        if self.known(value) is not None:
            return value
        contents = contents_of(op, inputs, [self.contents(v) for v in inputs])
        if contents is None:
            return value
        if not any(isinstance(x, SymDim) for x in contents.flat):
            return self.constant(contents.astype(value.type.dtype.numpy))
        self._contents[value] = np.broadcast_to(contents, contents.shape)
        return value


def _dims(op: Op) -> Iterator[SymDim]:
    """The symbolic dims among an op's attributes."""
    if isinstance(op, (OnnxHost, ControlFlow)):  # their symbols are those of what they make
        return
    for field in dataclasses.fields(op):  # type: ignore[arg-type]  # every op is a dataclass
        value = getattr(op, field.name)
        yield from (d for d in (value if isinstance(value, tuple) else (value,)) if isinstance(d, SymDim))
