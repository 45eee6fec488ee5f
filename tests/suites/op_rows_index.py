# SPDX-License-Identifier: Apache-2.0
"""Rows of the op table: ops that select, order, scatter or sample elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tensorwright import ops as o
from tensorwright.ir.dtype import DType
from tests.suites.op_case import OpCase, Spec, case


def select_cases() -> Iterator[OpCase]:
    """Elements and blocks read and written at indices; scatters that only write get each index once."""
    for dtype in (DType.i64, DType.i32):
        yield case(o.GatherElements(1), (3, 9), Spec((3, 4), "index 9", dtype))
    yield case(o.GatherElements(0), (5, 4, 3), Spec((7, 2, 3), "index 5", DType.i64))
    yield case(o.GatherElements(0), Spec((5,), "integers", DType.i64), Spec((0,), "index 5", DType.i64))
    yield case(o.GatherNd(), (3, 4, 5), Spec((2, 6, 2), "index 3", DType.i64))
    yield case(o.GatherNd(), (3, 4), Spec((2,), "index 3", DType.i64))
    yield case(o.GatherNd(1), (2, 4, 5), Spec((2, 1), "index 4", DType.i64))
    yield case(o.GatherNd(1), Spec((2, 4, 5), "bool", DType.bool), Spec((2, 3, 2), "index 4", DType.i64))
    yield case(o.ScatterElements(1), (3, 9), Spec((3, 1), "index 9", DType.i64), (3, 1))
    yield case(o.ScatterNd(), (5, 7), Spec((1, 1), "index 5", DType.i64), (1, 7))
    yield case(
        o.ScatterNd(), Spec((3, 4), "bool", DType.bool), Spec((2,), "index 3", DType.i64), Spec((), "bool", DType.bool)
    )
    for how in ("add", "mul", "max", "min"):
        yield case(o.ScatterElements(0, how), (4, 5, 3), Spec((9, 2, 3), "index 4", DType.i64), (9, 2, 3))
        yield case(o.ScatterNd(how), (4, 5, 3), Spec((2, 9, 2), "index 4", DType.i64), (2, 9, 3))
        integers = Spec((7,), "integers", DType.i64)
        yield case(
            o.ScatterElements(0, how), integers, Spec((20,), "index 7", DType.i64), Spec((20,), "integers", DType.i64)
        )


def order_cases() -> Iterator[OpCase]:
    """Top-k with ties, of both kinds; running sums in both directions."""
    for kind in (o.TopKValues, o.TopKIndices):
        for largest in (True, False):
            yield case(kind(3, 1, largest), Spec((5, 9, 3), "integers"))
            yield case(kind(17, 1, largest), (4, 17))
            yield case(kind(2, 0, largest), Spec((30,), "integers", DType.i64))
    for exclusive in (False, True):
        for reverse in (False, True):
            yield case(o.CumSum(1, exclusive, reverse), (5, 9, 3))
            yield case(o.CumSum(0, exclusive, reverse), Spec((30,), "integers", DType.i64))


def sample_cases() -> Iterator[OpCase]:
    """Grids reaching beyond the image, in each mode and padding; boxes of both poolings."""
    modes: tuple[Literal["nearest", "linear", "cubic"], ...] = ("nearest", "linear", "cubic")
    paddings: tuple[Literal["zeros", "border", "reflection"], ...] = ("zeros", "border", "reflection")
    for mode in modes:
        for padding in paddings:
            for align in (False, True):
                yield case(o.GridSample(mode, padding, align), (2, 3, 7, 5), (2, 4, 6, 2))
        if mode != "cubic":
            yield case(o.GridSample(mode), (1, 2, 3, 4, 5), (1, 2, 3, 2, 3))
    for half_pixel in (False, True):
        for maximum in (False, True):
            op = o.RoiAlign(3, 2, 2, 0.5, half_pixel, maximum)
            yield case(op, (3, 4, 9, 11), Spec((5, 4), "positive"), Spec((5,), "bool", DType.i64))
    yield case(o.RoiAlign(2, 2, 0, 4.0, False), (3, 4, 9, 11), Spec((5, 4), "positive"), Spec((5,), "bool", DType.i64))
