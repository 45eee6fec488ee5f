# SPDX-License-Identifier: Apache-2.0
"""The methods of `Network` that add layers which choose, place, count, quantise or sample elements, and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.network import (
    conditionals,
    generators,
    loops,
    quantisation,
    recurrent,
    reductions,
    selection,
    sequences,
)
from tensorwright.network.base import BaseNetwork
from tensorwright.network.enums import (
    AttentionNormalizationOp,
    BoundingBoxFormat,
    CumulativeOperation,
    FillOperation,
    InterpolationMode,
    RNNDirection,
    RNNInputMode,
    RNNOperation,
    SampleMode,
    ScatterMode,
    TopKOperation,
)
from tensorwright.network.layer import Tensor

AnyType = DType | str | np.dtype[Any] | type


class SpecialLayers(BaseNetwork):
    """Methods `add_*`; each returns the layer, or what holds several."""

    # -- choosing, placing, counting ------------------------------------------------------------
    def add_topk(
        self, input: Tensor, op: TopKOperation, k: int, axes: int, indices_type: AnyType = DType.i32
    ) -> selection.TopKLayer:
        """The first k in order: values and indices. Bit i of `axes` chooses dim i."""
        layer = self._add(selection.TopKLayer, input)
        layer.op, layer.k, layer.axes, layer.indices_type = op, k, axes, indices_type
        return layer

    def add_scatter(self, data: Tensor, indices: Tensor, updates: Tensor, mode: ScatterMode) -> selection.ScatterLayer:
        """A copy of data with updates written at indices; `axis` is 0 until it is set."""
        layer = self._add(selection.ScatterLayer, data, indices, updates)
        layer.mode, layer.axis = mode, 0
        return layer

    def add_one_hot(self, indices: Tensor, values: Tensor, depth: Tensor, axis: int) -> selection.OneHotLayer:
        """values are (off, on); depth is a constant of one integer."""
        layer = self._add(selection.OneHotLayer, indices, values, depth)
        layer.axis = axis
        return layer

    def add_non_zero(self, input: Tensor, indices_type: AnyType = DType.i32) -> selection.NonZeroLayer:
        """Positions [rank, count], of which a run decides the count."""
        layer = self._add(selection.NonZeroLayer, input)
        layer.indices_type = indices_type
        return layer

    def add_nms(
        self, boxes: Tensor, scores: Tensor, max_output_boxes_per_class: Tensor, indices_type: AnyType = DType.i32
    ) -> selection.NMSLayer:
        """Boxes [batch, boxes, 4] by scores [batch, boxes, classes]: rows (batch, class, box), and their count."""
        layer = self._add(selection.NMSLayer, boxes, scores, max_output_boxes_per_class)
        layer.bounding_box_format, layer.indices_type = BoundingBoxFormat.CORNER_PAIRS, indices_type
        return layer

    def add_cumulative(
        self, input: Tensor, axis: Tensor, op: CumulativeOperation, exclusive: bool, reverse: bool
    ) -> selection.CumulativeLayer:
        """Running sums along the axis that a constant names."""
        layer = self._add(selection.CumulativeLayer, input, axis)
        layer.op, layer.exclusive, layer.reverse = op, exclusive, reverse
        return layer

    def add_assertion(self, condition: Tensor, message: str) -> selection.AssertionLayer:
        """A check of what is known when the graph is made."""
        layer = self._add(selection.AssertionLayer, condition)
        layer.message = message
        return layer

    # -- shapes and numbers ---------------------------------------------------------------------
    def add_shape(self, input: Tensor) -> generators.ShapeLayer:
        """The dims as an i64 vector."""
        return self._add(generators.ShapeLayer, input)

    def add_squeeze(self, input: Tensor, axes: Tensor) -> generators.SqueezeLayer:
        """axes: a constant; an empty one means all dims of 1."""
        return self._add(generators.SqueezeLayer, input, axes)

    def add_unsqueeze(self, input: Tensor, axes: Tensor) -> generators.UnsqueezeLayer:
        """axes: a constant, of places in the result."""
        return self._add(generators.UnsqueezeLayer, input, axes)

    def add_fill(
        self, shape: Sequence[int], op: FillOperation, output_type: AnyType = DType.f32
    ) -> generators.FillLayer:
        """Set `alpha` and `beta`, or inputs 1 and 2."""
        layer = self._add(generators.FillLayer)
        layer.shape, layer.operation, layer.to_type, layer.alpha, layer.beta = shape, op, output_type, 0.0, 1.0
        return layer

    # -- quantised tensors ----------------------------------------------------------------------
    def add_quantize(self, input: Tensor, scale: Tensor, output_type: AnyType = DType.i8) -> quantisation.QuantizeLayer:
        """Set `axis` for a scale of more than one element, and input 2 for zero points."""
        layer = self._add(quantisation.QuantizeLayer, input, scale)
        layer.to_type, layer.axis, layer.block_shape = output_type, None, None
        return layer

    def add_dequantize(
        self, input: Tensor, scale: Tensor, output_type: AnyType = DType.f32
    ) -> quantisation.DequantizeLayer:
        """Set `axis` for a scale of more than one element, and input 2 for zero points."""
        layer = self._add(quantisation.DequantizeLayer, input, scale)
        layer.to_type, layer.axis, layer.block_shape = output_type, None, None
        return layer

    # -- sequences and images -------------------------------------------------------------------
    def add_einsum(self, inputs: Sequence[Tensor], equation: str) -> sequences.EinsumLayer:
        """As in NumPy."""
        layer = self._add(sequences.EinsumLayer, *inputs)
        layer.equation = equation
        return layer

    def add_reverse_sequence(self, input: Tensor, sequence_lens: Tensor) -> sequences.ReverseSequenceLayer:
        """The steps are dim 0 and the batch is dim 1 until `sequence_axis` and `batch_axis` are set."""
        layer = self._add(sequences.ReverseSequenceLayer, input, sequence_lens)
        layer.batch_axis, layer.sequence_axis = 1, 0
        return layer

    def add_grid_sample(self, input: Tensor, grid: Tensor) -> sequences.GridSampleLayer:
        """By default linear, with zeros outside and without aligned corners."""
        layer = self._add(sequences.GridSampleLayer, input, grid)
        layer.interpolation_mode, layer.align_corners = InterpolationMode.LINEAR, False
        layer.sample_mode = SampleMode.FILL
        return layer

    def add_ragged_softmax(self, input: Tensor, bounds: Tensor) -> sequences.RaggedSoftMaxLayer:
        """bounds [..., 1]: the number of elements of each row."""
        return self._add(sequences.RaggedSoftMaxLayer, input, bounds)

    def add_attention(
        self, query: Tensor, key: Tensor, value: Tensor, norm_op: AttentionNormalizationOp, causal: bool
    ) -> sequences.AttentionLayer:
        """Unscaled attention on [batch, heads, sequence, size]; set `mask` as needed."""
        layer = self._add(sequences.AttentionLayer, query, key, value)
        layer.norm_op, layer.causal = norm_op, causal
        return layer

    def add_rms_normalization(self, input: Tensor, scale: Tensor, axesMask: int) -> reductions.RMSNormalizationLayer:
        """x / sqrt(mean(x^2) + epsilon) * scale."""
        layer = self._add(reductions.RMSNormalizationLayer, input, scale)
        layer.axes, layer.epsilon = axesMask, 1e-5
        return layer

    def add_rnn_v2(
        self, input: Tensor, layer_count: int, hidden_size: int, max_seq_length: int, op: RNNOperation
    ) -> recurrent.RNNv2Layer:
        """Recurrent layers on [batch, steps, size]; set the weights of every gate."""
        layer = self._add(recurrent.RNNv2Layer, input)
        layer.num_layers, layer.hidden_size, layer.max_seq_length, layer.op = (
            layer_count,
            hidden_size,
            max_seq_length,
            op,
        )
        layer.direction, layer.input_mode = RNNDirection.UNIDIRECTION, RNNInputMode.LINEAR
        return layer

    # -- control flow ---------------------------------------------------------------------------
    def add_if_conditional(self) -> conditionals.IfConditional:
        """A choice between two parts of the network, of which a run computes one."""
        return conditionals.IfConditional(self)

    def add_loop(self) -> loops.Loop:
        """A part of the network that a run computes again and again."""
        return loops.Loop(self)
