# SPDX-License-Identifier: Apache-2.0
"""The sliding-window attributes that convolutions and pools share: kernel, strides, dilations, padding."""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.importers.onnx.node import OnnxNode
from tensorwright.importers.windows import same_padding
from tensorwright.ir.dims import Dim


@dataclass(frozen=True, slots=True)
class Window:
    """One window per spatial axis; `pads` are all begins, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """The span of the dilated kernel on each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def read_window(n: OnnxNode, spatial: tuple[Dim, ...], kernel: tuple[int, ...]) -> Window:
    """The window of a convolution or pool over `spatial` dims. Raises ValueError for a wrong length or sign."""
    rank = len(spatial)
    if len(kernel) != rank:
        raise ValueError(f"a kernel of shape {list(kernel)} does not fit {rank} spatial dims")
    ones = (1,) * rank
    strides, dilations, kernel = (
        _positive(n, "strides", ones),
        _positive(n, "dilations", ones),
        _checked("kernel_shape", kernel, kernel),
    )
    mode = n.attr("auto_pad", str, "NOTSET") or "NOTSET"
    explicit = n.ints("pads") or ()
    window = Window(kernel, strides, dilations, (0,) * (2 * rank))
    if mode == "VALID":
        return window
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return Window(kernel, strides, dilations, _same_pads(n, window, spatial, upper=mode == "SAME_UPPER"))
    if mode != "NOTSET":
        raise ValueError(f"auto_pad is {mode!r}, which ONNX does not define")
    pads = explicit or window.pads
    if len(pads) != 2 * rank:
        raise ValueError(f"pads {list(pads)} must have {2 * rank} entries")
    if min(pads, default=0) < 0:
        n.refuse(f"its pads {list(pads)} are negative", "put a Slice before it that crops, and use pads of 0")
    return Window(kernel, strides, dilations, pads)


def _positive(n: OnnxNode, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return _checked(name, n.ints(name) or default, default)


def _checked(name: str, values: tuple[int, ...], like: tuple[int, ...]) -> tuple[int, ...]:
    if len(values) != len(like) or min(values, default=1) < 1:
        raise ValueError(f"{name} {list(values)} must be {len(like)} positive numbers")
    return values


def _same_pads(n: OnnxNode, window: Window, spatial: tuple[Dim, ...], *, upper: bool) -> tuple[int, ...]:
    """Padding that gives ceil(size / stride) outputs on each axis."""
    pairs = []
    for size, stride, extent in zip(spatial, window.strides, window.extents, strict=True):
        pair = same_padding(size, extent, stride, upper=upper)
        if pair is None:
            n.refuse(
                f"auto_pad SAME with stride {stride} needs a known size, not {size}",
                "give every input a fixed shape with shapes=",
            )
        pairs.append(pair)
    return tuple(begin for begin, _ in pairs) + tuple(end for _, end in pairs)
