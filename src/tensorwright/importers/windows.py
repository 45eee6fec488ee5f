# SPDX-License-Identifier: Apache-2.0
"""Padding that formats describe by its result."""

from __future__ import annotations

from tensorwright.ir.dims import Dim


def split_padding(total: int, *, upper: bool) -> tuple[int, int]:
    """Begin and end padding of `total`; an odd one goes to the end when `upper`."""
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def same_padding(size: Dim, extent: int, stride: int, *, upper: bool) -> tuple[int, int] | None:
    """Begin and end padding with which a window of `extent` (the kernel with its dilation) at `stride` gives
    ceil(size / stride) results; None where that depends on a size that only a run knows."""
    if stride == 1:  # any size: the window may start everywhere
        return split_padding(extent - 1, upper=upper)
    if not isinstance(size, int):
        return None
    return split_padding(max((-(-size // stride) - 1) * stride + extent - size, 0), upper=upper)
