# SPDX-License-Identifier: Apache-2.0
"""From layers to graph nodes: a `Writer` writes the layers that a tensor needs, each once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError
from tensorwright.network.layer import Layer, Tensor


class Writer:
    """Writes one graph. `values` has what is written. A tensor outside of `inside` (None: all are inside) is no matter
    of this graph: `capture` says what its value is."""

    def __init__(
        self,
        builder: NetworkBuilder,
        inside: Collection[Tensor] | None = None,
        capture: Callable[[Tensor], Value] | None = None,
    ) -> None:
        self.builder, self._inside, self._capture = builder, inside, capture
        self.values: dict[Tensor, Value] = {}
        self.written: set[Layer] = set()  # also those in the bodies of this graph

    def value_of(self, tensor: Tensor) -> Value:
        """The value of a tensor, with the layers it needs written first."""
        waiting: list[Tensor] = [tensor]
        open_tensors: set[Tensor] = set()
        while waiting:
            current = waiting[-1]
            layer = current.layer
            if current in self.values or (layer is None and self._capture is None):
                waiting.pop()
            elif layer is None or (self._inside is not None and current not in self._inside):
                assert self._capture is not None
                self.values[current] = self._capture(current)
            else:
                needed = [t for t in layer.needs() if t not in self.values]
                if not needed:
                    self.write(layer)
                elif current in open_tensors:
                    raise layer.error("it depends on its own output", "set its inputs to earlier tensors")
                open_tensors.add(current)
                waiting.extend(needed)
        return self.values[tensor]

    def write(self, layer: Layer) -> None:
        """Write a layer whose needs are written."""
        self.builder.source = layer.name
        self.written.add(layer)
        try:
            results = layer.write(self)
        except RefusalError as error:
            raise layer.error(error.reason, error.do) from error
        except ValueError as error:
            raise layer.error(str(error)) from error
        for tensor, value in results.items():
            self.builder.bind(value, tensor.name)
        self.values.update(results)


def depending(results: Iterable[Tensor], sources: Collection[Tensor]) -> set[Tensor]:
    """The tensors that `results` need and that depend on one of `sources`, with these."""
    users: dict[Tensor, list[Tensor]] = {}
    waiting, seen = list(results), set(results)
    while waiting:
        tensor = waiting.pop()
        for needed in () if tensor.layer is None or tensor in sources else tensor.layer.needs():
            users.setdefault(needed, []).append(tensor)
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    found, waiting = set(sources), list(sources)
    while waiting:
        new = [user for user in users.get(waiting.pop(), ()) if user not in found]
        found.update(new)
        waiting.extend(new)
    return found


def outside(results: Iterable[Tensor], inside: Collection[Tensor]) -> list[Tensor]:
    """What is read directly by the tensors of `inside` that `results` need, and the results, without being inside."""
    found: dict[Tensor, None] = {}
    waiting, seen = list(results), set(results)
    while waiting:
        tensor = waiting.pop()
        if tensor not in inside:
            found[tensor] = None
            continue
        for needed in () if tensor.layer is None else tensor.layer.needs_inside():
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    return list(found)
