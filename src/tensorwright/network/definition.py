# SPDX-License-Identifier: Apache-2.0
"""`Network`: a model written layer by layer, with the names and argument order that TensorRT's users know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from tensorwright.errors import ModelError
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Graph, Value
from tensorwright.ir.source_builder import SourceBuilder
from tensorwright.ir.types import TensorType
from tensorwright.network import pointwise, reductions, tensors, windows
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
from tensorwright.network.layer import Layer, Tensor, as_dims, as_dtype

L = TypeVar("L", bound=Layer)


class Network:
    """A network under construction: `add_*` returns a layer, whose properties may be set at any time.

    `to_graph` (or `tw.build(network)`) makes the Graph of the layers that the marked outputs need. Every mistake is a
    ModelError M110 that names the layer: wrong arguments at once, layers that do not fit when a shape or the graph is
    asked for.
    """

    def __init__(self, name: str = "network") -> None:
        self.name = name
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._layers: list[Layer] = []
        self._counts: dict[str, int] = {}
        self._builder, self._values = SourceBuilder(name), dict[Tensor, Value]()

    # -- inputs and outputs ---------------------------------------------------------------------
    def add_input(
        self, name: str, dtype: DType | str | np.dtype[Any] | type = DType.f32, shape: Sequence[int | str] = ()
    ) -> Tensor:
        """A network input. A dim of -1, or a text that names it, is open."""
        if not name or any(t.name == name for t in self._inputs):
            raise ModelError(f"input {name!r} needs a name of its own", where=f"network {self.name!r}", code="M110")
        try:
            type = TensorType(as_dtype(dtype), as_dims(name, shape))
        except ValueError as error:
            raise ModelError(f"input {name!r}: {error}", where=f"network {self.name!r}", code="M110") from error
        tensor = Tensor(self, None, name, type)
        self._inputs.append(tensor)
        self.changed()
        return tensor

    def mark_output(self, tensor: Tensor) -> None:
        """Make the tensor an output, under its name."""
        if not isinstance(tensor, Tensor) or not tensor.belongs_to(self):
            raise ModelError(f"{tensor!r} is no tensor of this network", where=f"network {self.name!r}", code="M110")
        if tensor not in self._outputs:
            self._outputs.append(tensor)

    def unmark_output(self, tensor: Tensor) -> None:
        """Make the tensor no output any more."""
        if tensor in self._outputs:
            self._outputs.remove(tensor)

    def is_output(self, tensor: Tensor) -> bool:
        """Whether the tensor is marked."""
        return tensor in self._outputs

    @property
    def num_inputs(self) -> int:
        """The number of inputs."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """The number of marked outputs."""
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self._layers)

    def get_input(self, index: int) -> Tensor:
        """Input `index`, in the order of adding. Raises IndexError."""
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        """Output `index`, in the order of marking. Raises IndexError."""
        return self._outputs[index]

    def get_layer(self, index: int) -> Layer:
        """Layer `index`, in the order of adding. Raises IndexError."""
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Layer:
        return self._layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

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

    # -- the graph ------------------------------------------------------------------------------
    def to_graph(self) -> Graph:
        """The Graph of what the outputs need. Origins and node names are layer names, value names tensor names.

        Raises ModelError M110 when nothing is marked as output, names clash, or layers do not fit together.
        """
        if not self._outputs:
            raise ModelError(
                "the network has no outputs", where=f"network {self.name!r}", code="M110", do="call mark_output"
            )
        names = [t.name for t in self._outputs]
        if len(set(names)) != len(names):
            raise ModelError(
                f"the output names {', '.join(names)} are not all different",
                where=f"network {self.name!r}",
                code="M110",
                do="set the name of the tensors",
            )
        values = [self.value_of(tensor) for tensor in self._outputs]
        self._builder.name = self.name
        return self._builder.finish(list(zip(names, values, strict=True)))

    def changed(self, layer: Layer | None = None) -> None:
        """A property of the layer, or of an input, was set: what is known of the tensors behind it is out of date."""
        if self._values and (layer is None or layer.get_output(0) in self._values):
            self._builder, self._values = SourceBuilder(self.name), {}

    def value_of(self, tensor: Tensor) -> Value:
        """The graph value of a tensor, with the layers it needs written first."""
        if not self._values:
            self._values.update((t, self._builder.input(t.name, t.type)) for t in self._inputs)
        waiting: list[Tensor] = [tensor]
        open_tensors: set[Tensor] = set()
        while waiting:
            current = waiting[-1]
            layer = current.layer
            if current in self._values or layer is None:
                waiting.pop()
                continue
            needed = [
                t for t in map(layer.get_input, range(layer.num_inputs)) if t is not None and t not in self._values
            ]
            if not needed:
                self._values[current] = self._emit(layer, current)
            elif current in open_tensors:
                raise layer.error("it depends on its own output", "set its inputs to earlier tensors")
            open_tensors.add(current)
            waiting.extend(needed)
        return self._values[tensor]

    def _emit(self, layer: Layer, output: Tensor) -> Value:
        self._builder.source = layer.name
        inputs = [self._values[t] if t is not None else None for t in map(layer.get_input, range(layer.num_inputs))]
        try:
            value = layer.emit(self._builder, inputs)
        except ValueError as error:
            raise layer.error(str(error)) from error
        self._builder.bind(value, output.name)
        return value

    def _add(self, kind: type[L], *inputs: Tensor) -> L:
        self._counts[kind.kind] = self._counts.get(kind.kind, 0) + 1
        layer = kind(self, f"{kind.kind}_{self._counts[kind.kind]}", inputs)
        self._layers.append(layer)
        return layer
