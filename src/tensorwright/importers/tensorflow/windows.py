# SPDX-License-Identifier: Apache-2.0
"""What convolutions and pools share: data formats, and the padding that SAME, VALID and EXPLICIT mean."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.importers.builder import Builder
from tensorwright.importers.tensorflow.node import OpNode
from tensorwright.importers.windows import same_padding
from tensorwright.ir.dims import Dim
from tensorwright.ir.graph import Value
from tensorwright.ops.shape import Transpose

Ints = tuple[int, ...]


def is_channels_first(n: OpNode) -> bool:
    """Whether the node's data_format has the channels before the spatial dims. Raises RefusalError for others."""
    text = n.text("data_format", "NHWC")
    if text not in ("NHWC", "NCHW", "NDHWC", "NCDHW", "NWC", "NCW"):
        n.refuse(f"its data_format is {text!r}")
    return text.startswith("NC")


def image(b: Builder, n: OpNode, x: Value) -> Value:
    """x as [n, channels, ...]."""
    if x.type.rank < 3:
        raise ValueError(f"the input must have batch, channel and spatial dims, it is {x.type}")
    rank = x.type.rank
    return x if is_channels_first(n) else b.add(Transpose((0, rank - 1, *range(1, rank - 1))), x)


def as_given(b: Builder, n: OpNode, y: Value) -> Value:
    """The image [n, channels, ...] in the node's data_format."""
    rank = y.type.rank
    return y if is_channels_first(n) else b.add(Transpose((0, *range(2, rank), 1)), y)


def spatial(n: OpNode, values: Sequence[int], what: str) -> Ints:
    """The entries of the spatial dims of a list with one for each dim of the data_format. Raises ValueError when the
    others are not 1."""
    count = len(values) - 2
    if count < 1:
        raise ValueError(f"{what} {list(values)} must have an entry for each dim")
    inside = values[2:] if is_channels_first(n) else values[1:-1]
    others = values[:2] if is_channels_first(n) else (values[0], values[-1])
    if any(v != 1 for v in others):
        n.refuse(f"its {what} {list(values)} reach over images or channels")
    return tuple(inside)


def spatial_list(n: OpNode, name: str, rank: int) -> Ints:
    """The spatial entries of an attribute; all 1 when it is absent."""
    given = n.ints(name)
    values = spatial(n, given, name) if given else (1,) * rank
    if len(values) != rank or min(values) < 1:
        raise ValueError(f"{name} {list(given or ())} does not fit {rank} spatial dims")
    return values


def pads(n: OpNode, sizes: Sequence[Dim], extents: Sequence[int], strides: Ints) -> Ints:
    """Begins, then ends, of the padding of dims of these sizes for windows of these extents."""
    mode = n.text("padding", "")
    if mode == "VALID":
        return (0,) * (2 * len(extents))
    if mode == "EXPLICIT":
        return _explicit(n, len(extents))
    if mode != "SAME":
        raise ValueError(f"its padding is {mode!r}")
    pairs = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        pair = same_padding(size, extent, stride, upper=True)
        if pair is None:
            n.refuse(
                f"padding SAME with stride {stride} needs a known size, not {size}",
                "give every input a fixed shape with shapes=",
            )
        pairs.append((max(pair[0], 0), max(pair[1], 0)))
    return tuple(begin for begin, _ in pairs) + tuple(end for _, end in pairs)


def _explicit(n: OpNode, rank: int) -> Ints:
    given = n.ints("explicit_paddings") or ()
    if len(given) != 2 * (rank + 2):
        raise ValueError(f"explicit_paddings {list(given)} must have {2 * (rank + 2)} entries")
    begins, ends = given[::2], given[1::2]
    inside = slice(2, None) if is_channels_first(n) else slice(1, -1)
    if sum(given) != sum(begins[inside]) + sum(ends[inside]):
        n.refuse(f"its explicit_paddings {list(given)} reach over images or channels")
    return (*begins[inside], *ends[inside])
