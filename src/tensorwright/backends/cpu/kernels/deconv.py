# SPDX-License-Identifier: Apache-2.0
"""Deconvolution (transposed convolution) in any form.

Each output gathers the taps that reach it. Where the kernel equals the stride every phase has exactly one
tap, and the method is a register-tiled matrix product.
"""

from __future__ import annotations

from tensorwright.backends.cpu.kernels.taps import TapsConfig, TapsFamily
from tensorwright.ops.conv import Deconvolution


class Deconv(TapsFamily):
    """Register tiles of output pixels that are `stride` apart, so that they share their taps."""

    name, version, anchor = "deconv", 1, Deconvolution


__all__ = ["Deconv", "TapsConfig"]
