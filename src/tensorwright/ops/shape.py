# SPDX-License-Identifier: Apache-2.0
"""Ops that move elements: views and copies of parts, and resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from tensorwright.ir.dims import Dim, SymDim, maximum, product
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import EXACT, SUMMED, Array, Compare, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import broadcast_shapes, check_axis, merge_dim, required, same_dim, same_dtype, widen

Dims = tuple[Dim, ...]
ResizeMode = Literal["nearest", "linear", "cubic"]
PadMode = Literal["constant", "reflect", "edge", "wrap"]


@op("reshape", compare=EXACT)
class Reshape(Op):
    """The same elements in row-major order under another shape, fully resolved (no 0 or -1 markers)."""

    shape: Dims

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if any(isinstance(d, int) and d < 0 for d in self.shape) or not same_dim(product(x.shape), product(self.shape)):
            raise ValueError(f"reshape cannot turn {x} into [{','.join(map(str, self.shape))}]")
        return (x.with_shape(self.shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (x.reshape(concrete(self, self.shape, x.size)),)


@op("transpose", compare=EXACT)
class Transpose(Op):
    """Dim i of the result is dim perm[i] of the input."""

    perm: tuple[int, ...]

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if sorted(self.perm) != list(range(x.rank)):
            raise ValueError(f"transpose {self.perm} is not a permutation of the dims of {x}")
        return (x.with_shape(x.shape[p] for p in self.perm),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.ascontiguousarray(x.transpose(self.perm)).reshape([x.shape[p] for p in self.perm]),)


@op("concat", compare=EXACT)
class Concat(Op):
    """The inputs (one or more, equal but for `axis`) one after the other along `axis`."""

    axis: int

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        types = required(self, inputs, max(len(inputs), 1))
        dtype, shape = same_dtype(self, types), list(types[0].shape)
        check_axis(self, self.axis, len(shape))
        for t in types[1:]:
            fits = [i == self.axis or same_dim(a, b) for i, (a, b) in enumerate(zip(shape, t.shape, strict=False))]
            if t.rank != len(shape) or not all(fits):
                raise ValueError(f"concat along axis {self.axis} cannot join {types[0]} and {t}")
            pairs = enumerate(zip(shape, t.shape, strict=True))
            shape = [a + b if i == self.axis else merge_dim(a, b) for i, (a, b) in pairs]
        return (TensorType(dtype, tuple(shape)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return (np.concatenate(required(self, inputs, max(len(inputs), 1)), self.axis),)


@op("slice", compare=EXACT)
class Slice(Op):
    """Elements start, start+step, ... before `end` along each of `axes`.

    Resolved: 0 <= start <= end <= dim for a positive step; dim > start >= end >= -1 for a negative one, where
    an end of -1 includes element 0. start == end is empty. Starts and ends may be symbolic.
    """

    starts: Dims
    ends: Dims
    axes: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if not len(self.starts) == len(self.ends) == len(self.axes) == len(self.steps) == len(set(self.axes)):
            raise ValueError("slice needs one start, end and step for each axis, and each axis once")
        shape = list(x.shape)
        for start, end, axis, step in zip(self.starts, self.ends, self.axes, self.steps, strict=True):
            check_axis(self, axis, x.rank)
            low, high = (start, end) if step > 0 else (end + 1, start + 1)
            order = [d for d in (0, low, high, x.shape[axis]) if isinstance(d, int)]
            if step == 0 or (order != sorted(order) and low != high):
                raise ValueError(f"slice [{start}:{end}:{step}] does not fit axis {axis} of {x}")
            shape[axis] = (high - low + abs(step) - 1) // abs(step)
        return (x.with_shape(shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        index = [slice(None)] * x.ndim
        starts, ends = _known(self, self.starts), _known(self, self.ends)
        for start, end, axis, step in zip(starts, ends, self.axes, self.steps, strict=True):
            index[axis] = slice(start, None if end < 0 else end, step) if start != end else slice(0, 0)
        return (x[tuple(index)].copy(),)


@op("pad", compare=EXACT)
class Pad(Op):
    """`pads` (begin of every dim..., end of every dim...) elements more; negative ones crop.

    They are `value`, the mirror image without the border element ("reflect"), the border element ("edge") or the
    other end ("wrap").
    """

    pads: tuple[int, ...]
    mode: PadMode = "constant"
    value: float = 0.0

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if len(self.pads) != 2 * x.rank or self.mode not in ("constant", "reflect", "edge", "wrap"):
            raise ValueError(f"pad {self.mode} by {self.pads} does not fit {x}")
        begins, ends = self.pads[: x.rank], self.pads[x.rank :]
        shape: list[Dim] = []
        for i, (dim, b, e) in enumerate(zip(x.shape, begins, ends, strict=True)):
            shape.append(dim + b + e)
            kept = dim + min(b, 0) + min(e, 0)
            if isinstance(kept, int) and (kept < 0 or (kept == 0 and self.mode != "constant" and max(b, e) > 0)):
                raise ValueError(f"pad {self.mode} by {b} and {e} does not fit axis {i} of {x}")
        return (x.with_shape(shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        begins, ends = self.pads[: x.ndim], self.pads[x.ndim :]
        kept = x[tuple(slice(max(-b, 0), d - max(-e, 0)) for d, b, e in zip(x.shape, begins, ends, strict=True))]
        widths = [(max(b, 0), max(e, 0)) for b, e in zip(begins, ends, strict=True)]
        if self.mode == "constant":
            return (np.pad(kept, widths, constant_values=np.asarray(self.value).astype(x.dtype)),)
        return (np.pad(kept, widths, self.mode),)


@op("expand", compare=EXACT)
class Expand(Op):
    """The input broadcast to `shape`, which has at least its rank."""

    shape: Dims

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        shape = broadcast_shapes(self, x.shape, self.shape)
        if len(shape) != len(self.shape) or not all(map(same_dim, shape, self.shape)):
            raise ValueError(f"expand cannot broadcast {x} to [{','.join(map(str, self.shape))}]")
        return (x.with_shape(self.shape),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.broadcast_to(x, _known(self, self.shape)).copy(),)


@op("tile", compare=EXACT)
class Tile(Op):
    """The input repeated `repeats[i]` times along dim i."""

    repeats: tuple[int, ...]

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if len(self.repeats) != x.rank or any(r < 0 for r in self.repeats):
            raise ValueError(f"tile needs {x.rank} non-negative repeats, not {self.repeats}")
        return (x.with_shape(d * r for d, r in zip(x.shape, self.repeats, strict=True)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.tile(x, self.repeats),)


@op("shape_of", compare=EXACT)
class ShapeOf(Op):
    """Dims [start, end) of the input as an i64 vector; 0 <= start <= end <= rank."""

    start: int
    end: int

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if not 0 <= self.start <= self.end <= x.rank:
            raise ValueError(f"shape_of [{self.start}:{self.end}] does not fit {x}")
        return (TensorType(DType.i64, (self.end - self.start,)),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        return (np.array(x.shape[self.start : self.end], np.int64),)


@op("resize", compare=SUMMED)
class Resize(Op):
    """Samples of the input on another grid, dim by dim, as ONNX (opset 19) defines; the border repeats outside.

    `sizes` is the whole output shape, which may be symbolic, and `scales` the ratios that coordinates use (ONNX allows
    them to differ a little from sizes/shape; None is that quotient). `coordinates` maps output to input positions,
    `rounding` is for nearest only, `cubic_coeff` and `exclude_outside` (drop taps outside and renormalise) for cubic
    only.
    """

    mode: ResizeMode
    sizes: Dims
    scales: tuple[float | None, ...]
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_coeff: float = -0.75
    exclude_outside: bool = False

    @property
    def compare(self) -> Compare:
        return EXACT if self.mode == "nearest" else SUMMED

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = required(self, inputs, 1)
        if not len(self.sizes) == len(self.scales) == x.rank:
            raise ValueError(f"resize needs {x.rank} sizes and scales, not {self.sizes} and {self.scales}")
        if self.mode not in _KERNELS or self.coordinates not in _COORDINATES or self.rounding not in _ROUNDINGS:
            raise ValueError(f"resize does not know mode {self.mode}, {self.coordinates}, {self.rounding}")
        if self.mode != "nearest" and not x.dtype.is_float:
            raise ValueError(f"resize {self.mode} needs a float type, not {x.dtype}")
        if any(s is not None and not s > 0 for s in self.scales) or any(
            isinstance(n, int) and n < 0 for n in self.sizes
        ):
            raise ValueError(f"resize needs positive scales and sizes, not {self.scales} and {self.sizes}")
        if any(d == 0 and isinstance(n, int) and n > 0 for d, n in zip(x.shape, self.sizes, strict=True)):
            raise ValueError(f"resize cannot sample the empty {x}")
        return (x.with_shape(self.sizes),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        (x,) = required(self, inputs, 1)
        y = widen(x)
        for axis in range(x.ndim):
            indices, weights = self.taps(axis, x.shape[axis])
            if indices.shape[1] == 1:
                y = np.take(y, indices[:, 0], axis)
                continue
            column = [-1 if i == axis else 1 for i in range(x.ndim)]
            parts = (
                np.take(y, indices[:, t], axis) * weights[:, t].astype(y.dtype).reshape(column)
                for t in range(indices.shape[1])
            )
            with np.errstate(all="ignore"):
                y = sum(parts, np.zeros((), y.dtype))
        return (y.astype(x.dtype, copy=False),)

    def taps(self, axis: int, size: int) -> tuple[Array, Array]:
        """For each output position along `axis` (of input `size`) the input indices it reads, i64[out, taps],
        all in range, and their f64 weights. One tap of weight 1 for nearest and for an unchanged dim."""
        (out,), scale = _known(self, self.sizes[axis : axis + 1]), self.scales[axis]
        scale = out / max(size, 1) if scale is None else scale
        if out == size and scale == 1:
            return np.arange(out)[:, None], np.ones((out, 1))
        position = _COORDINATES[self.coordinates](np.arange(out, dtype=np.float64), scale, size, out)
        if self.mode == "nearest":
            index = _ROUNDINGS[self.rounding](position).astype(np.int64)
            return np.clip(index, 0, size - 1)[:, None], np.ones((out, 1))
        reach = 1 if self.mode == "linear" else 2
        index = np.floor(position).astype(np.int64)[:, None] + np.arange(1 - reach, 1 + reach)
        weights = _KERNELS[self.mode](np.abs(position[:, None] - index), self.cubic_coeff)
        if self.exclude_outside:
            weights = np.where((index >= 0) & (index < size), weights, 0)
            weights = weights / weights.sum(1, keepdims=True)
        return np.clip(index, 0, size - 1), weights


def concrete(op: Op, shape: Dims, elems: int) -> tuple[int, ...]:
    """`shape` with its only symbolic dim taken from the element count. Raises ValueError when there are several."""
    unknown = [i for i, d in enumerate(shape) if isinstance(d, SymDim)]
    if len(unknown) > 1:
        raise ValueError(f"{op.kind} to [{','.join(map(str, shape))}] needs the values of its symbols")
    rest = product(d for i, d in enumerate(shape) if i not in unknown)
    filled = [elems // maximum(rest, 1) if i in unknown else d for i, d in enumerate(shape)]
    return _known(op, tuple(filled))


def _known(op: Op, dims: Dims) -> tuple[int, ...]:
    if any(isinstance(d, SymDim) for d in dims):
        raise ValueError(f"{op.kind} needs the values of the symbols in [{','.join(map(str, dims))}]")
    return tuple(d for d in dims if isinstance(d, int))


def _half_pixel(i: Array, scale: float, size: int, out: int) -> Array:
    return (i + 0.5) / scale - 0.5


def _symmetric(i: Array, scale: float, size: int, out: int) -> Array:
    shift = size / 2 * (1 - out / (scale * size))
    return shift + (i + 0.5) / scale - 0.5


def _pytorch_half_pixel(i: Array, scale: float, size: int, out: int) -> Array:
    return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros_like(i)


def _align_corners(i: Array, scale: float, size: int, out: int) -> Array:
    return i * ((size - 1) / (out - 1)) if out > 1 else np.zeros_like(i)


def _asymmetric(i: Array, scale: float, size: int, out: int) -> Array:
    return i / scale


_COORDINATES: dict[str, Callable[[Array, float, int, int], Array]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
}
_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda p: np.ceil(p - 0.5),
    "round_prefer_ceil": lambda p: np.floor(p + 0.5),
}


def _triangle(distance: Array, coeff: float) -> Array:
    return np.asarray(np.maximum(1 - distance, 0))


def _cubic(distance: Array, coeff: float) -> Array:
    """The cubic convolution kernel of Keys (1981) with free parameter `coeff`."""
    d = distance
    near = ((coeff + 2) * d - (coeff + 3)) * d * d + 1
    far = ((coeff * d - 5 * coeff) * d + 8 * coeff) * d - 4 * coeff
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))


_KERNELS: dict[str, Callable[[Array, float], Array]] = {"nearest": _triangle, "linear": _triangle, "cubic": _cubic}
