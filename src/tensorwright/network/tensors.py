# SPDX-License-Identifier: Apache-2.0
"""Layers that move elements: shuffle, slice, concatenation, padding, gather, resize."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.ir.dims import Dim, product
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.enums import (
    InterpolationMode,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    ResizeSelector,
)
from tensorwright.network.layer import (
    Ints,
    Layer,
    Setting,
    flag,
    integer,
    member,
    number,
    optional_integer,
    optional_ints,
    pair,
    present,
)
from tensorwright.ops.index import Gather
from tensorwright.ops.shape import Concat, Pad, Reshape, Resize, ResizeMode, Slice, Transpose

_MODES: dict[InterpolationMode, ResizeMode] = {
    InterpolationMode.NEAREST: "nearest",
    InterpolationMode.LINEAR: "linear",
    InterpolationMode.CUBIC: "cubic",
}
_ROUNDINGS = {
    ResizeRoundMode.HALF_UP: "round_prefer_ceil",
    ResizeRoundMode.HALF_DOWN: "round_prefer_floor",
    ResizeRoundMode.FLOOR: "floor",
    ResizeRoundMode.CEIL: "ceil",
}


def _any_dims(layer: Layer, value: Sequence[Dim] | None) -> tuple[Dim, ...] | None:
    return None if value is None else tuple(value)


class ShuffleLayer(Layer):
    """A transpose, then a reshape, then a transpose; each is left out while it is None.

    Dim i of a transpose comes from dim permutation[i]. In `reshape_dims` one -1 takes what is left, and 0 copies the
    dim at its place unless `zero_is_placeholder` is false.
    """

    kind = "shuffle"
    first_transpose = Setting[Ints | None, Sequence[int] | None](optional_ints)
    reshape_dims = Setting[tuple[Dim, ...] | None, Sequence[Dim] | None](_any_dims)
    second_transpose = Setting[Ints | None, Sequence[int] | None](optional_ints)
    zero_is_placeholder = Setting[bool, bool](flag)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if self.first_transpose is not None:
            x = b.add(Transpose(self.first_transpose), x)
        if self.reshape_dims is not None:
            x = b.add(Reshape(self._resolved(x, self.reshape_dims)), x)
        return x if self.second_transpose is None else b.add(Transpose(self.second_transpose), x)

    def _resolved(self, x: Value, wanted: tuple[Dim, ...]) -> tuple[Dim, ...]:
        shape = list(wanted)
        for axis, dim in enumerate(shape):
            if dim == 0 and self.zero_is_placeholder:
                if axis >= x.type.rank:
                    raise ValueError(f"reshape_dims {wanted} copies dim {axis}, which {x.type} does not have")
                shape[axis] = x.type.shape[axis]
        if shape.count(-1) > 1:
            raise ValueError(f"reshape_dims {wanted} has more than one -1")
        if -1 in shape:
            known = product(d for d in shape if d != -1)
            if known == 0:
                raise ValueError(f"reshape_dims {wanted} has a -1 beside a dim of 0")
            shape[shape.index(-1)] = product(x.type.shape) // known
        return tuple(shape)


class SliceLayer(Layer):
    """`shape[i]` elements of each axis from `start[i]` on in steps of `stride[i]`, all inside the input.

    `axes` lists the axes that the three speak of; None means all.
    """

    kind = "slice"
    start = Setting[Ints, Sequence[int]](lambda layer, value: tuple(int(v) for v in value))
    shape = Setting[Ints, Sequence[int]](lambda layer, value: tuple(int(v) for v in value))
    stride = Setting[Ints, Sequence[int]](lambda layer, value: tuple(int(v) for v in value))
    axes = Setting[Ints | None, Sequence[int] | None](optional_ints)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        axes = tuple(range(x.type.rank)) if self.axes is None else tuple(a % max(x.type.rank, 1) for a in self.axes)
        if not len(self.start) == len(self.shape) == len(self.stride) == len(axes):
            raise ValueError(
                f"start {self.start}, shape {self.shape} and stride {self.stride} "
                f"need one entry for each of axes {axes}"
            )
        if min(self.shape, default=0) < 0 or 0 in self.stride:
            raise ValueError(f"shape {self.shape} must not be negative and stride {self.stride} not 0")
        ends = []
        for first, count, step, axis in zip(self.start, self.shape, self.stride, axes, strict=True):
            last, length = first + (count - 1) * step, x.type.shape[axis]
            if count and isinstance(length, int) and not (0 <= first < length and 0 <= last < length):
                raise ValueError(f"elements {first} to {last} of axis {axis} are not all inside {x.type}")
            ends.append(last + (1 if step > 0 else -1) if count else first)
        return b.add(Slice(self.start, tuple(ends), axes, self.stride), x)


class ConcatenationLayer(Layer):
    """The inputs one after the other along `axis`; None means max(rank - 3, 0), the channels of images."""

    kind = "concatenation"
    axis = Setting[int | None, int | None](optional_integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        values = [present(inputs, i) for i in range(len(inputs))]
        rank = values[0].type.rank
        axis = max(rank - 3, 0) if self.axis is None else self.axis
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} does not fit {values[0].type}")
        return b.add(Concat(axis % rank), *values)


class PaddingLayer(Layer):
    """Zeros around the last two dims; negative amounts crop."""

    kind = "padding"
    pre_padding_nd = Setting[Ints, int | Sequence[int]](pair)
    post_padding_nd = Setting[Ints, int | Sequence[int]](pair)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if x.type.rank < 2 or len(self.pre_padding_nd) != 2 or len(self.post_padding_nd) != 2:
            raise ValueError(
                f"padding {self.pre_padding_nd} and {self.post_padding_nd} must have two entries each, for {x.type}"
            )
        rest = (0,) * (x.type.rank - 2)
        return b.add(Pad((*rest, *self.pre_padding_nd, *rest, *self.post_padding_nd)), x)


class GatherLayer(Layer):
    """Slices of input 0 along `axis` at the indices of input 1."""

    kind = "gather"
    axis = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        if not -x.type.rank <= self.axis < x.type.rank:
            raise ValueError(f"axis {self.axis} does not fit {x.type}")
        return b.add(Gather(self.axis % x.type.rank), x, present(inputs, 1))


class ResizeLayer(Layer):
    """Resampling of the innermost dims to `shape` (all dims), or by `scales` (of as many innermost dims as given)."""

    kind = "resize"
    shape = Setting[Ints | None, Sequence[int] | None](optional_ints)
    scales = Setting[tuple[float, ...], Sequence[float]](lambda layer, value: tuple(float(v) for v in value))
    resize_mode = Setting[InterpolationMode, InterpolationMode](member(InterpolationMode))
    coordinate_transformation = Setting[ResizeCoordinateTransformation, ResizeCoordinateTransformation](
        member(ResizeCoordinateTransformation)
    )
    selector_for_single_pixel = Setting[ResizeSelector, ResizeSelector](member(ResizeSelector))
    nearest_rounding = Setting[ResizeRoundMode, ResizeRoundMode](member(ResizeRoundMode))
    exclude_outside = Setting[bool, bool](flag)
    cubic_coeff = Setting[float, float](number)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        sizes, scales = self._target(x.type.shape)
        op = Resize(
            _MODES[self.resize_mode],
            sizes,
            scales,
            self._coordinates(),
            _ROUNDINGS[self.nearest_rounding],
            self.cubic_coeff,
            self.exclude_outside,
        )
        return b.add(op, x)

    def _target(self, shape: tuple[Dim, ...]) -> tuple[tuple[Dim, ...], tuple[float | None, ...]]:
        """The sizes, and the scales that coordinates use; None is the quotient of sizes that only a run knows."""
        if bool(self.scales) == (self.shape is not None):
            raise ValueError("set either shape or scales")
        if self.shape is not None:
            if len(self.shape) != len(shape) or 0 in shape:
                raise ValueError(f"shape {self.shape} cannot be made from {shape}")
            return self.shape, tuple(
                out / size if isinstance(size, int) else None for out, size in zip(self.shape, shape, strict=True)
            )
        if len(self.scales) > len(shape):
            raise ValueError(f"scales {self.scales} do not fit {shape}")
        scales = (1.0,) * (len(shape) - len(self.scales)) + self.scales
        return tuple(_scaled(size, scale) for size, scale in zip(shape, scales, strict=True)), scales

    def _coordinates(self) -> str:
        if self.coordinate_transformation is not ResizeCoordinateTransformation.HALF_PIXEL:
            return self.coordinate_transformation.name.lower()
        return "half_pixel" if self.selector_for_single_pixel is ResizeSelector.FORMULA else "pytorch_half_pixel"


def _scaled(size: Dim, scale: float) -> Dim:
    if isinstance(size, int):
        return int(size * scale)
    if scale != int(scale):
        raise ValueError(f"the scale {scale} of the open size {size} must be an integer")
    return size * int(scale)
