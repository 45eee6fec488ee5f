# SPDX-License-Identifier: Apache-2.0
"""Layers with weights and windows: convolution, deconvolution, fully connected, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dims import Dim, product
from tensorwright.ir.graph import Value
from tensorwright.ir.op import Op
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.enums import PaddingMode, PoolingType
from tensorwright.network.layer import (
    Ints,
    Layer,
    Setting,
    flag,
    integer,
    member,
    number,
    pair,
    present,
    shaped,
    weights,
)
from tensorwright.ops.conv import Convolution, Deconvolution
from tensorwright.ops.elementwise import Add, Mul
from tensorwright.ops.linear import MatMul
from tensorwright.ops.pool import AveragePool, MaxPool
from tensorwright.ops.shape import Reshape, Transpose


class WindowLayer(Layer):
    """Strides and padding of a window that slides over the spatial dims. Sizes take one int for two equal dims.

    `padding_nd` sets `pre_padding` and `post_padding`; a SAME `padding_mode` overrides both.
    """

    stride_nd = Setting[Ints, int | Sequence[int]](pair)
    pre_padding = Setting[Ints, int | Sequence[int]](pair)
    post_padding = Setting[Ints, int | Sequence[int]](pair)
    padding_mode = Setting[PaddingMode, PaddingMode](member(PaddingMode))

    @property
    def padding_nd(self) -> Ints:
        """The padding before; set it to pad as much on both sides."""
        return self.pre_padding

    @padding_nd.setter
    def padding_nd(self, value: int | Sequence[int]) -> None:
        self.pre_padding = value
        self.post_padding = value

    def _start(self, rank: int) -> None:
        """The defaults for `rank` spatial dims."""
        self.stride_nd, self.padding_nd = (1,) * rank, (0,) * rank
        self.padding_mode = PaddingMode.EXPLICIT_ROUND_DOWN


def window_pads(layer: WindowLayer, x: Value, extents: Sequence[int], *, round_up: bool) -> Ints:
    """Begin and end padding under the layer's padding mode; `round_up` adds what makes the last window whole.

    Raises ValueError when a symbolic size is in the way, or a property has a wrong length.
    """
    rank = x.type.rank - 2
    for name, values in (
        ("stride_nd", layer.stride_nd),
        ("pre_padding", layer.pre_padding),
        ("post_padding", layer.post_padding),
        ("the kernel", extents),
    ):
        if len(values) != rank:
            raise ValueError(f"{name} has {len(values)} entries, the input {x.type} has {rank} spatial dims")
    mode = layer.padding_mode
    pads: list[tuple[int, int]] = []
    for i, (size, stride, extent) in enumerate(zip(x.type.shape[2:], layer.stride_nd, extents, strict=True)):
        if mode is PaddingMode.EXPLICIT_ROUND_DOWN or (mode is PaddingMode.EXPLICIT_ROUND_UP and not round_up):
            pads.append((layer.pre_padding[i], layer.post_padding[i]))
            continue
        if not isinstance(size, int):
            raise ValueError(f"{mode.name} needs a known size, not {size}")
        if mode is PaddingMode.EXPLICIT_ROUND_UP:
            room = size + layer.pre_padding[i] + layer.post_padding[i] - extent
            pads.append((layer.pre_padding[i], layer.post_padding[i] + -room % stride))
        else:
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if mode is PaddingMode.SAME_UPPER else (large, small))
    return tuple(before for before, _ in pads) + tuple(after for _, after in pads)


class _Weighted(WindowLayer):
    """What convolution and deconvolution share. Inputs 1 and 2 are tensors in place of `kernel` and `bias`."""

    most_inputs = 3
    num_output_maps = Setting[int, int](integer)
    kernel_size_nd = Setting[Ints, int | Sequence[int]](pair)
    dilation_nd = Setting[Ints, int | Sequence[int]](pair)
    num_groups = Setting[int, int](integer)
    kernel = Setting[Any, Any](weights)
    bias = Setting[Any, Any](weights)

    def start(self, num_output_maps: int, kernel_shape: int | Sequence[int], kernel: Any, bias: Any) -> None:
        """The arguments of `add_..._nd`, and the defaults."""
        self.num_output_maps, self.kernel_size_nd = num_output_maps, kernel_shape
        self.kernel, self.bias, self.num_groups = kernel, bias, 1
        rank = len(self.kernel_size_nd)
        self.dilation_nd = (1,) * rank
        self._start(rank)

    @property
    def extents(self) -> Ints:
        """The span of the dilated kernel per dim."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size_nd, self.dilation_nd, strict=True))

    def operands(
        self, b: NetworkBuilder, inputs: Sequence[Value | None], kernel_shape: Sequence[int]
    ) -> tuple[Value, ...]:
        """Kernel and, where there is one, bias."""
        dtype = present(inputs).type.dtype
        kernel, bias = (inputs[i] if i < len(inputs) else None for i in (1, 2))
        if kernel is None:
            if self.kernel is None:
                raise ValueError("it has no kernel")
            kernel = b.constant(shaped(self.kernel, kernel_shape, "kernel", dtype), f"{self.name}.kernel")
        if bias is None and self.bias is not None:
            bias = b.constant(shaped(self.bias, (self.num_output_maps,), "bias", dtype), f"{self.name}.bias")
        return (kernel,) if bias is None else (kernel, bias)

    def channels(self, x: Value) -> int:
        """The input channels. Raises ValueError when they do not fall into the groups."""
        channels = x.type.shape[1] if x.type.rank > 2 else 0
        if (
            not isinstance(channels, int)
            or self.num_groups < 1
            or channels % self.num_groups
            or self.num_output_maps % self.num_groups
        ):
            raise ValueError(
                f"an input of {x.type} with {self.num_output_maps} output maps "
                f"does not fall into {self.num_groups} groups"
            )
        return channels


class ConvolutionLayer(_Weighted):
    """Cross-correlation; the kernel is K x C/groups x spatial."""

    kind = "convolution"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        shape = (self.num_output_maps, self.channels(x) // self.num_groups, *self.kernel_size_nd)
        pads = window_pads(self, x, self.extents, round_up=True)
        op = Convolution(self.stride_nd, pads, self.dilation_nd, self.num_groups)
        return b.add(op, x, *self.operands(b, inputs, shape))


class DeconvolutionLayer(_Weighted):
    """Transposed convolution; the kernel is C x K/groups x spatial. SAME modes give size * stride."""

    kind = "deconvolution"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        shape = (self.channels(x), self.num_output_maps // self.num_groups, *self.kernel_size_nd)
        pads, extra = self._padding(x)
        op = Deconvolution(self.stride_nd, pads, self.dilation_nd, self.num_groups, extra)
        return b.add(op, x, *self.operands(b, inputs, shape))

    def _padding(self, x: Value) -> tuple[Ints, Ints]:
        rank = len(self.kernel_size_nd)
        if self.padding_mode in (PaddingMode.EXPLICIT_ROUND_DOWN, PaddingMode.EXPLICIT_ROUND_UP):
            return window_pads(self, x, self.extents, round_up=False), (0,) * rank
        upper = self.padding_mode is PaddingMode.SAME_UPPER
        totals = [extent - stride for extent, stride in zip(self.extents, self.stride_nd, strict=True)]
        halves = [(t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in (max(t, 0) for t in totals)]
        pads = tuple(before for before, _ in halves) + tuple(after for _, after in halves)
        return pads, tuple(max(-t, 0) for t in totals)


class FullyConnectedLayer(Layer):
    """x W' + b with a kernel of K x inputs. All dims after the first are the inputs; for rank 3 and more the
    result keeps the rank with dims of 1."""

    kind = "fully_connected"
    num_output_channels = Setting[int, int](integer)
    kernel = Setting[Any, Any](weights)
    bias = Setting[Any, Any](weights)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        rows, *rest = x.type.shape or (0,)
        depth, outputs = product(rest), self.num_output_channels
        if not rest or not isinstance(depth, int):
            raise ValueError(f"an input of {x.type} has no known number of elements after its first dim")
        if self.kernel is None:
            raise ValueError("it has no kernel")
        flat = b.add(Reshape((rows, depth)), x) if len(rest) > 1 else x
        kernel = b.constant(shaped(self.kernel, (outputs, depth), "kernel", x.type.dtype), f"{self.name}.kernel")
        y = b.add(MatMul(), flat, b.add(Transpose((1, 0)), kernel))
        if self.bias is not None:
            y = b.add(Add(), y, b.constant(shaped(self.bias, (outputs,), "bias", x.type.dtype), f"{self.name}.bias"))
        ones: tuple[Dim, ...] = (1,) * (len(rest) - 1)
        return b.add(Reshape((rows, outputs, *ones)), y) if ones else y


class PoolingLayer(WindowLayer):
    """The maximum or average of each window. `average_count_excludes_padding` is true by default."""

    kind = "pooling"
    type = Setting[PoolingType, PoolingType](member(PoolingType))
    window_size_nd = Setting[Ints, int | Sequence[int]](pair)
    average_count_excludes_padding = Setting[bool, bool](flag)
    blend_factor = Setting[float, float](number)

    def start(self, type: PoolingType, window_size: int | Sequence[int]) -> None:
        """The arguments of `add_pooling_nd`, and the defaults."""
        self.type, self.window_size_nd = type, window_size
        self.average_count_excludes_padding, self.blend_factor = True, 0.0
        self._start(len(self.window_size_nd))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x = present(inputs)
        pads = window_pads(self, x, self.window_size_nd, round_up=False)
        common = (
            self.window_size_nd,
            self.stride_nd,
            pads,
            (1,) * len(self.window_size_nd),
            self.padding_mode is PaddingMode.EXPLICIT_ROUND_UP,
        )
        largest, average = (
            MaxPool(*common),
            AveragePool(*common, count_include_pad=not self.average_count_excludes_padding),
        )
        if self.type is not PoolingType.MAX_AVERAGE_BLEND:
            op: Op = largest if self.type is PoolingType.MAX else average
            return b.add(op, x)
        parts = ((largest, 1.0 - self.blend_factor), (average, self.blend_factor))
        first, second = (
            b.add(Mul(), b.add(op, x), b.constant(np.asarray(share, x.type.dtype.numpy))) for op, share in parts
        )
        return b.add(Add(), first, second)
