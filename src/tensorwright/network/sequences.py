# SPDX-License-Identifier: Apache-2.0
"""Layers on sequences and images: einsum, attention, ragged softmax, reverse sequence, grid sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder, RefusalError, limit_constant, normal_axis
from tensorwright.network.composed.attention import shared_heads, triangle
from tensorwright.network.composed.convert import in_f32
from tensorwright.network.composed.einsum import einsum
from tensorwright.network.composed.index import reversed_sequences
from tensorwright.network.enums import AttentionNormalizationOp, InterpolationMode, SampleMode
from tensorwright.network.layer import Layer, Setting, Tensor, flag, integer, member, present
from tensorwright.ops.attention import Attention
from tensorwright.ops.elementwise import Add, Less, Where
from tensorwright.ops.linear import MatMul
from tensorwright.ops.reduce import Softmax
from tensorwright.ops.sample import GridSample
from tensorwright.ops.shape import Transpose

_SAMPLES: dict[InterpolationMode, Literal["nearest", "linear", "cubic"]] = {
    InterpolationMode.NEAREST: "nearest",
    InterpolationMode.LINEAR: "linear",
    InterpolationMode.CUBIC: "cubic",
}
_PADDINGS: dict[SampleMode, Literal["zeros", "border", "reflection"]] = {
    SampleMode.FILL: "zeros",
    SampleMode.CLAMP: "border",
    SampleMode.REFLECT: "reflection",
}


class EinsumLayer(Layer):
    """The sum of products that `equation` describes, as in NumPy; an ellipsis stands for dims that broadcast."""

    kind = "einsum"
    equation = Setting[str, str](lambda layer, value: str(value))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        return einsum(b, self.equation, [present(inputs, i) for i in range(len(inputs))])


class ReverseSequenceLayer(Layer):
    """Of each batch entry the first steps, as many as input 1 (i32 or i64) says, backwards."""

    kind = "reverse_sequence"
    batch_axis = Setting[int, int](integer)
    sequence_axis = Setting[int, int](integer)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, lengths = present(inputs), present(inputs, 1)
        batch, time = (normal_axis(axis, x.type.rank) for axis in (self.batch_axis, self.sequence_axis))
        if lengths.type.dtype not in (DType.i32, DType.i64):
            raise ValueError(f"lengths are i32 or i64, not {lengths.type}")
        return reversed_sequences(b, x, lengths, batch, time)


class GridSampleLayer(Layer):
    """x[N,C,H,W] at the points (x, y) of grid[N,H',W',2], which are from -1 to 1 over the image; by default linear,
    with zeros outside (FILL) and borders of pixels at -1 and 1."""

    kind = "grid_sample"
    interpolation_mode = Setting[InterpolationMode, InterpolationMode](member(InterpolationMode))
    align_corners = Setting[bool, bool](flag)
    sample_mode = Setting[SampleMode, SampleMode](member(SampleMode))

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        if self.sample_mode not in _PADDINGS:
            raise ValueError(f"sample_mode is {self.sample_mode.name}, not one of FILL, CLAMP and REFLECT")
        op = GridSample(_SAMPLES[self.interpolation_mode], _PADDINGS[self.sample_mode], self.align_corners)
        return in_f32(b, op, present(inputs), present(inputs, 1))


class RaggedSoftMaxLayer(Layer):
    """Softmax over the first elements of each row, as many as the bounds [..., 1] (i32 or i64) say; 0 behind them."""

    kind = "ragged_softmax"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, bounds = present(inputs), present(inputs, 1)
        length = x.type.shape[-1] if x.type.rank > 1 else None
        if not isinstance(length, int):
            raise ValueError(f"it needs rows of known length, not {x.type}")
        if bounds.type.dtype not in (DType.i32, DType.i64) or bounds.type.shape != (*x.type.shape[:-1], 1):
            raise ValueError(f"the bounds of {x.type} cannot be {bounds.type}")
        limit_constant(length)
        valid = b.add(Less(), b.constant(np.arange(length, dtype=bounds.type.dtype.numpy)), bounds)
        scores = b.add(Where(), valid, x, b.scalar(-np.inf, x.type.dtype))
        return b.add(Where(), valid, b.add(Softmax(x.type.rank - 1), scores), b.scalar(0, x.type.dtype))


class AttentionLayer(Layer):
    """softmax(q k^T + mask) v for [batch, heads, sequence, size]. Nothing is scaled: multiply the query by
    1 / sqrt(size) before. With norm_op NONE the scores are not normalised.

    `mask`, which broadcasts to [batch, heads, queries, keys], is added, or if it is bool says where to look. `causal`:
    query i sees keys up to i only. Fewer key heads than query heads are shared by groups of neighbouring ones. A query
    that sees nothing gives NaN.
    """

    kind = "attention"
    most_inputs = 4
    norm_op = Setting[AttentionNormalizationOp, AttentionNormalizationOp](member(AttentionNormalizationOp))
    causal = Setting[bool, bool](flag)

    @property
    def mask(self) -> Tensor | None:
        """The mask, input 3; None without one."""
        return self.get_input(3)

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        self.set_input(3, mask)

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        q, k, v = (present(inputs, i) for i in range(3))
        if any(x.type.rank != 4 for x in (q, k, v)):
            raise ValueError(f"query {q.type}, key {k.type} and value {v.type} must have rank 4")
        k, v = (shared_heads(b, x, q) for x in (k, v))
        mask = self._bias(b, q, k, inputs[3] if len(inputs) > 3 else None)
        if self.norm_op is AttentionNormalizationOp.SOFTMAX:
            return b.add(Attention(1.0), q, k, v, *(() if mask is None else (mask,)))
        if mask is not None:
            raise ValueError("scores that are not normalised take no mask")
        return b.add(MatMul(), b.add(MatMul(), q, b.add(Transpose((0, 1, 3, 2)), k)), v)

    def _bias(self, b: NetworkBuilder, q: Value, k: Value, mask: Value | None) -> Value | None:
        """What is added to the scores."""
        dtype, (rows, columns) = q.type.dtype, (q.type.shape[2], k.type.shape[2])
        if mask is not None and mask.type.dtype is DType.bool:
            mask = b.add(Where(), mask, b.scalar(0, dtype), b.scalar(-np.inf, dtype))
        if not self.causal:
            return mask
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise RefusalError(f"causal needs known lengths, not {rows} and {columns}", "set a mask instead")
        causal = triangle(b, rows, columns, 0, dtype)
        return causal if mask is None else b.add(Add(), mask, causal)
