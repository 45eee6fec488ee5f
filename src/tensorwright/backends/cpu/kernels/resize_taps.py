# SPDX-License-Identifier: Apache-2.0
"""The taps of `Resize` along one dim as code, for sizes that only a run knows: `Resize.taps` operation by operation, in
f64."""

from __future__ import annotations

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.ops.shape import Resize


def resize_taps(f: Function, o: Reg, *, op: Resize, axis: int, size: int) -> list[tuple[Reg, Reg | None]]:
    """The (input position i64, weight float or None for 1) of each tap of output position `o`.

    The module must keep the order of float operations: a nearest position is rounded.
    """
    place = _position(f, f.cast("sitofp", o, "double"), op, axis, size)
    if op.mode == "nearest":
        return [(_clipped(f, _rounded(f, place, op.rounding), size), None)]
    reach = 1 if op.mode == "linear" else 2
    first = f.intrinsic("floor", "double", place)
    shifts = range(1 - reach, 1 + reach)
    distances = [f.intrinsic("fabs", "double", place - (first + float(shift))) for shift in shifts]
    weights = [_triangle(f, d) if op.mode == "linear" else _cubic(f, d, op.cubic_coeff) for d in distances]
    indexes = [f.cast("fptosi", first, "i64") + shift for shift in shifts]
    if op.exclude_outside:
        zero = f.const("double", 0.0)
        inside = [f.compare("ult", i, size) for i in indexes]
        weights = [f.select(here, w, zero) for here, w in zip(inside, weights, strict=True)]
        total = weights[0]
        for weight in weights[1:]:
            total = total + weight
        weights = [w / total for w in weights]
    narrow = [f.cast("fptrunc", w, "float") for w in weights]
    return [(f.minimum(f.maximum(i, 0), size - 1), w) for i, w in zip(indexes, narrow, strict=True)]


def _position(f: Function, i: Reg, op: Resize, axis: int, size: int) -> Reg:
    """The input coordinate of output coordinate `i`."""
    out = f.i64(op.sizes[axis])
    many = f.compare("sgt", out, 1)
    out_d, size_d = (f.cast("sitofp", f.i64(d), "double") for d in (out, size))
    given = op.scales[axis]
    scale = out_d / size_d if given is None else f.const("double", given)
    zero = f.const("double", 0.0)
    if op.coordinates == "asymmetric":
        return i / scale
    if op.coordinates == "align_corners":
        return f.select(many, i * ((size_d - 1.0) / (out_d - 1.0)), zero)
    if op.coordinates == "half_pixel_symmetric":
        shift = size_d / 2.0 * (f.const("double", 1.0) - out_d / (scale * size_d))
        return shift + (i + 0.5) / scale - 0.5
    half = (i + 0.5) / scale - 0.5
    return f.select(many, half, zero) if op.coordinates == "pytorch_half_pixel" else half


def _rounded(f: Function, place: Reg, rounding: str) -> Reg:
    shift = {"round_prefer_floor": -0.5, "round_prefer_ceil": 0.5}.get(rounding, 0.0)
    return f.intrinsic("ceil" if rounding in ("ceil", "round_prefer_floor") else "floor", "double", place + shift)


def _clipped(f: Function, place: Reg, size: int) -> Reg:
    return f.minimum(f.maximum(f.cast("fptosi", place, "i64"), 0), size - 1)


def _triangle(f: Function, distance: Reg) -> Reg:
    return f.maximum(f.const("double", 1.0) - distance, 0.0)


def _cubic(f: Function, d: Reg, coeff: float) -> Reg:
    """The cubic convolution kernel of Keys (1981) with free parameter `coeff`."""
    near = (d * (coeff + 2) - (coeff + 3)) * d * d + 1.0
    far = ((d * coeff - 5 * coeff) * d + 8 * coeff) * d - 4 * coeff
    beyond = f.select(f.compare("olt", d, 2.0), far, f.const("double", 0.0))
    return f.select(f.compare("ole", d, 1.0), near, beyond)
