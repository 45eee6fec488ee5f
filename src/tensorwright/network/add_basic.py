# SPDX-License-Identifier: Apache-2.0
"""The methods of `Network` that add layers with weights, elementwise ones, and those that move or combine elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.network import pointwise, reductions, tensors, windows
from tensorwright.network.base import BaseNetwork
from tensorwright.network.enums import (
    ActivationType,
    ElementWiseOperation,
    InterpolationMode,
    MatrixOperation,
    PoolingType,
    ReduceOperation,
    ResizeCoordinateTransformation,
    ResizeRoundMode,
    ResizeSelector,
    ScaleMode,
    UnaryOperation,
)
from tensorwright.network.layer import Tensor


class BasicLayers(BaseNetwork):
    """Methods `add_*`; each returns the layer."""

    # -- layers with weights and windows --------------------------------------------------------
    def add_convolution_nd(
        self,
        input: Tensor,
        num_output_maps: int,
        kernel_shape: int | Sequence[int],
        kernel: Any = None,
        bias: Any = None,
    ) -> windows.ConvolutionLayer:
        """kernel: K x C/groups x kernel_shape numbers in any shape; bias: K numbers."""
        layer = self._add(windows.ConvolutionLayer, input)
        layer.start(num_output_maps, kernel_shape, kernel, bias)
        return layer

    def add_deconvolution_nd(
        self,
        input: Tensor,
        num_output_maps: int,
        kernel_shape: int | Sequence[int],
        kernel: Any = None,
        bias: Any = None,
    ) -> windows.DeconvolutionLayer:
        """kernel: C x K/groups x kernel_shape numbers in any shape; bias: K numbers."""
        layer = self._add(windows.DeconvolutionLayer, input)
        layer.start(num_output_maps, kernel_shape, kernel, bias)
        return layer

    def add_fully_connected(
        self, input: Tensor, num_outputs: int, kernel: Any, bias: Any = None
    ) -> windows.FullyConnectedLayer:
        """kernel: num_outputs x (elements of one sample) numbers."""
        layer = self._add(windows.FullyConnectedLayer, input)
        layer.num_output_channels, layer.kernel, layer.bias = num_outputs, kernel, bias
        return layer

    def add_pooling_nd(
        self, input: Tensor, type: PoolingType, window_size: int | Sequence[int]
    ) -> windows.PoolingLayer:
        """The stride is 1 until `stride_nd` is set."""
        layer = self._add(windows.PoolingLayer, input)
        layer.start(type, window_size)
        return layer

    # -- elementwise layers ---------------------------------------------------------------------
    def add_activation(self, input: Tensor, type: ActivationType) -> pointwise.ActivationLayer:
        """Parameters are the layer's `alpha` and `beta`."""
        layer = self._add(pointwise.ActivationLayer, input)
        layer.type, layer.alpha, layer.beta = type, None, None
        return layer

    def add_parametric_relu(self, input: Tensor, slopes: Tensor) -> pointwise.ParametricReLULayer:
        """slopes broadcast to the input."""
        return self._add(pointwise.ParametricReLULayer, input, slopes)

    def add_elementwise(self, input1: Tensor, input2: Tensor, op: ElementWiseOperation) -> pointwise.ElementWiseLayer:
        """The inputs broadcast as in NumPy."""
        layer = self._add(pointwise.ElementWiseLayer, input1, input2)
        layer.op = op
        return layer

    def add_unary(self, input: Tensor, op: UnaryOperation) -> pointwise.UnaryLayer:
        """An elementwise function."""
        layer = self._add(pointwise.UnaryLayer, input)
        layer.op = op
        return layer

    def add_scale(
        self, input: Tensor, mode: ScaleMode, shift: Any = None, scale: Any = None, power: Any = None
    ) -> pointwise.ScaleLayer:
        """(input * scale + shift) ** power; channels are the third dim from the end."""
        return self.add_scale_nd(input, mode, shift, scale, power, None)

    def add_scale_nd(
        self,
        input: Tensor,
        mode: ScaleMode,
        shift: Any = None,
        scale: Any = None,
        power: Any = None,
        channel_axis: int | None = 1,
    ) -> pointwise.ScaleLayer:
        """(input * scale + shift) ** power, with the channels at `channel_axis`; None is the third dim from the end."""
        layer = self._add(pointwise.ScaleLayer, input)
        layer.mode, layer.shift, layer.scale, layer.power, layer.channel_axis = mode, shift, scale, power, channel_axis
        return layer

    def add_select(self, condition: Tensor, then_input: Tensor, else_input: Tensor) -> pointwise.SelectLayer:
        """Elementwise choice by a bool condition; all three broadcast."""
        return self._add(pointwise.SelectLayer, condition, then_input, else_input)

    def add_identity(self, input: Tensor) -> pointwise.IdentityLayer:
        """The same tensor under another name."""
        return self._add(pointwise.IdentityLayer, input)

    def add_cast(self, input: Tensor, to_type: DType | str | np.dtype[Any] | type) -> pointwise.CastLayer:
        """Conversion to another element type."""
        layer = self._add(pointwise.CastLayer, input)
        layer.to_type = to_type
        return layer

    def add_constant(self, shape: Sequence[int], weights: Any) -> pointwise.ConstantLayer:
        """A constant tensor of the dtype of `weights`; lists of floats are f32."""
        layer = self._add(pointwise.ConstantLayer)
        layer.shape, layer.weights = shape, weights
        return layer

    # -- layers that move elements --------------------------------------------------------------
    def add_shuffle(self, input: Tensor) -> tensors.ShuffleLayer:
        """Set `first_transpose`, `reshape_dims` and `second_transpose` as needed."""
        layer = self._add(tensors.ShuffleLayer, input)
        layer.first_transpose, layer.reshape_dims, layer.second_transpose = None, None, None
        layer.zero_is_placeholder = True
        return layer

    def add_slice(
        self, input: Tensor, start: Sequence[int], shape: Sequence[int], stride: Sequence[int] | None = None
    ) -> tensors.SliceLayer:
        """`shape` is the size of the result; the stride is 1 by default."""
        layer = self._add(tensors.SliceLayer, input)
        layer.start, layer.shape, layer.stride, layer.axes = (
            start,
            shape,
            (1,) * len(start) if stride is None else stride,
            None,
        )
        return layer

    def add_concatenation(self, inputs: Sequence[Tensor], axis: int | None = None) -> tensors.ConcatenationLayer:
        """The default axis is max(rank - 3, 0): the channels of images."""
        layer = self._add(tensors.ConcatenationLayer, *inputs)
        if not inputs:
            raise layer.error("it needs at least one input")
        layer.axis = axis
        return layer

    def add_padding_nd(
        self, input: Tensor, pre_padding: int | Sequence[int], post_padding: int | Sequence[int]
    ) -> tensors.PaddingLayer:
        """Zero padding of the last two dims; negative amounts crop."""
        layer = self._add(tensors.PaddingLayer, input)
        layer.pre_padding_nd, layer.post_padding_nd = pre_padding, post_padding
        return layer

    def add_gather(self, input: Tensor, indices: Tensor, axis: int = 0) -> tensors.GatherLayer:
        """Slices along an axis at i32 or i64 indices."""
        layer = self._add(tensors.GatherLayer, input, indices)
        layer.axis = axis
        return layer

    def add_resize(self, input: Tensor) -> tensors.ResizeLayer:
        """Set `shape` or `scales`, and how to sample; by default nearest, asymmetric, rounding down."""
        layer = self._add(tensors.ResizeLayer, input)
        layer.shape, layer.scales, layer.resize_mode = None, (), InterpolationMode.NEAREST
        layer.coordinate_transformation = ResizeCoordinateTransformation.ASYMMETRIC
        layer.selector_for_single_pixel, layer.nearest_rounding = ResizeSelector.FORMULA, ResizeRoundMode.FLOOR
        layer.exclude_outside, layer.cubic_coeff = False, -0.75
        return layer

    # -- layers that combine elements -----------------------------------------------------------
    def add_reduce(
        self, input: Tensor, op: ReduceOperation, axes: int, keep_dims: bool = False
    ) -> reductions.ReduceLayer:
        """Bit i of `axes` chooses dim i."""
        layer = self._add(reductions.ReduceLayer, input)
        layer.op, layer.axes, layer.keep_dims = op, axes, keep_dims
        return layer

    def add_softmax(self, input: Tensor) -> reductions.SoftMaxLayer:
        """Set the `axes` bitmask; the default axis is max(rank - 3, 0), which for a matrix is its first."""
        layer = self._add(reductions.SoftMaxLayer, input)
        layer.axes = 0
        return layer

    def add_lrn(
        self, input: Tensor, window: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> reductions.LRNLayer:
        """Normalisation over `window` neighbouring channels."""
        layer = self._add(reductions.LRNLayer, input)
        layer.window_size, layer.alpha, layer.beta, layer.k = window, alpha, beta, k
        return layer

    def add_normalization(
        self, input: Tensor, scale: Tensor, bias: Tensor, axesMask: int
    ) -> reductions.NormalizationLayer:
        """Layer, instance or group normalisation; scale and bias broadcast to the input."""
        layer = self._add(reductions.NormalizationLayer, input, scale, bias)
        layer.axes, layer.epsilon, layer.num_groups = axesMask, 1e-5, 1
        return layer

    def add_matrix_multiply(
        self, input0: Tensor, op0: MatrixOperation, input1: Tensor, op1: MatrixOperation
    ) -> reductions.MatrixMultiplyLayer:
        """A batched matrix product."""
        layer = self._add(reductions.MatrixMultiplyLayer, input0, input1)
        layer.op0, layer.op1 = op0, op1
        return layer
