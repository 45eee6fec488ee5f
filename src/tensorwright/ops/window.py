# SPDX-License-Identifier: Apache-2.0
"""Sliding windows over spatial dims, shared by convolution and pooling.

`pads` are (begin of each spatial dim..., end of each...). `taps` are the positions inside a window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from tensorwright.ir.dims import Dim, Symbol, SymDim, minimum
from tensorwright.ir.op import Array, Op

Ints = tuple[int, ...]

_MOST = 1 << 20  # elements of a window, and of steps: more is a mistake


def extents(kernel: Sequence[int], dilations: Sequence[int]) -> Ints:
    """The input elements that a dilated window spans, per dim."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def check_window(op: Op, rank: int, positive: dict[str, Ints], pads: Ints) -> None:
    """Raise ValueError unless every attribute has one value per spatial dim and lies in its range."""
    for name, values in positive.items():
        if len(values) != rank or any(v < 1 for v in values):
            raise ValueError(f"{op.kind} needs {rank} positive {name}, not {values}")
        if math.prod(values) > _MOST:
            raise ValueError(f"{op.kind} has {name} {values}; their product is at most {_MOST}")
    if len(pads) != 2 * rank or any(p < 0 for p in pads):
        raise ValueError(f"{op.kind} needs {2 * rank} non-negative pads, not {pads}")


def output_dims(
    op: Op,
    spatial: Sequence[Dim],
    kernel: Sequence[int],
    strides: Ints,
    pads: Ints,
    dilations: Ints,
    ceil_mode: bool = False,
) -> tuple[Dim, ...]:
    """The number of windows along each spatial dim, as ONNX defines it.

    With `ceil_mode` a last partial window counts, unless it would begin in the padding after the input.
    Raises ValueError when the padded input is smaller than one window.
    """
    result: list[Dim] = []
    rank = len(kernel)
    for i, (size, extent) in enumerate(zip(spatial, extents(kernel, dilations), strict=True)):
        room = size + pads[i] + pads[rank + i] - extent
        # a symbolic size that may be 0 is one that the data decides, and may still be large enough
        if at_least(room) < 0 and (isinstance(size, int) or at_least(size) > 0):
            least = "" if isinstance(size, int) else f", which is {at_least(size)} at the smallest sizes of its range,"
            raise ValueError(
                f"{op.kind} has a window of {extent} in dim {i}, wider than the input of {size}{least} "
                f"with pads {pads[i]} and {pads[rank + i]}"
            )
        count = (room + (strides[i] - 1 if ceil_mode else 0)) // strides[i] + 1
        result.append(minimum(count, (size + pads[i] - 1) // strides[i] + 1) if ceil_mode else count)
    return tuple(result)


def at_least(size: Dim) -> int:
    """The value of a size where all symbols are at their lower bounds; 0 when they have none."""
    if not isinstance(size, SymDim):
        return size
    symbols = [s for s in size.symbols if isinstance(s, Symbol)]
    return size.evaluate({s: s.low for s in symbols}) if len(symbols) == len(size.symbols) else 0


def taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], outputs: Sequence[int]
) -> Iterator[tuple[Ints, Array]]:
    """For each tap its index and the view of `x` (already padded) that all windows read there.

    The trailing dims of `x` are spatial; the view has `outputs` in their place and may be written to.
    """
    whole = [slice(None)] * (x.ndim - len(kernel))
    for tap in itertools.product(*map(range, kernel)):
        steps = [
            slice(t * d, t * d + (n - 1) * s + 1, s) if n else slice(0, 0)
            for t, d, n, s in zip(tap, dilations, outputs, strides, strict=True)
        ]
        yield tap, x[(*whole, *steps)]


def at_tap(x: Array, tap: Ints) -> Array:
    """The view x[:, tap...]."""
    index: list[slice | int] = [slice(None), *tap]
    return x[tuple(index)]


def pad_spatial(x: Array, pads: Ints, value: float) -> Array:
    """`x` with its trailing dims extended by `pads` elements of `value`."""
    rank = len(pads) // 2
    widths = [(0, 0)] * (x.ndim - rank) + [(pads[i], pads[rank + i]) for i in range(rank)]
    return np.pad(x, widths, constant_values=np.asarray(value, x.dtype)) if any(pads) else x
