# SPDX-License-Identifier: Apache-2.0
"""The one-dimensional transforms of Winograd convolution F(m, 3) for m = 2 and 4, and the weight transform undone.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.ir.op import Array

Lin = Callable[[Function, Sequence[Reg]], list[Reg]]


def _input_2(f: Function, d: Sequence[Reg]) -> list[Reg]:
    """B^T d of F(2,3)."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_2(f: Function, d: Sequence[Reg]) -> list[Reg]:
    """A^T d of F(2,3)."""
    return [d[0] + d[1] + d[2], d[1] - d[2] - d[3]]


def _input_4(f: Function, d: Sequence[Reg]) -> list[Reg]:
    """B^T d of F(4,3), rows 1-2 and 3-4 sharing their even and odd halves."""

    def c(value: float) -> Reg:
        return f.const(d[0].ty, value)

    even, odd = f.fma(d[2], c(-4), d[4]), f.fma(d[1], c(-4), d[3])
    near, far = d[4] - d[2], (d[3] - d[1]) * 2.0
    return [
        f.fma(d[0], c(4), f.fma(d[2], c(-5), d[4])),
        even + odd,
        even - odd,
        near + far,
        near - far,
        f.fma(d[1], c(4), f.fma(d[3], c(-5), d[5])),
    ]


def _output_4(f: Function, d: Sequence[Reg]) -> list[Reg]:
    """A^T d of F(4,3)."""

    def c(value: float) -> Reg:
        return f.const(d[0].ty, value)

    s1, s2, s3, s4 = d[1] + d[2], d[1] - d[2], d[3] + d[4], d[3] - d[4]
    return [d[0] + s1 + s3, f.fma(s4, c(2), s2), f.fma(s3, c(4), s1), f.fma(s4, c(8), s2) + d[5]]


TRANSFORMS: dict[int, tuple[Lin, Lin, Array]] = {
    2: (_input_2, _output_2, np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])),
    4: (
        _input_4,
        _output_4,
        np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ]
        ),
    ),
}


# Row i of a kernel as a sum of (row of U, factor): the transform G undone.
INVERSE: dict[int, tuple[tuple[tuple[int, float], ...], ...]] = {
    2: (((0, 1.0),), ((1, 1.0), (2, -1.0)), ((3, 1.0),)),
    4: (((0, 4.0),), ((1, -3.0), (2, 3.0)), ((5, 1.0),)),
}
