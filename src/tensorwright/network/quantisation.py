# SPDX-License-Identifier: Apache-2.0
"""Layers to and from quantised tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorwright.ir.dims import product
from tensorwright.ir.dtype import DType
from tensorwright.ir.graph import Value
from tensorwright.network.builder import NetworkBuilder
from tensorwright.network.composed.convert import as_type
from tensorwright.network.composed.quantise import by_granularity
from tensorwright.network.layer import Ints, Layer, Setting, as_dtype, optional_integer, optional_ints, present
from tensorwright.ops.quantise import Dequantise, Quantise


class _Scaled(Layer):
    """What both share. Input 1 is the scale: one number, one for each position on `axis`, or one for each block of
    `block_shape` (of which one dim may be larger than 1). Input 2, if set, holds the zero points."""

    most_inputs = 3
    to_type = Setting[DType, Any](lambda layer, value: as_dtype(value))
    axis = Setting[int | None, int | None](optional_integer)
    block_shape = Setting[Ints | None, Sequence[int] | None](optional_ints)

    def apply(self, b: NetworkBuilder, op: Quantise | Dequantise, x: Value, scale: Value, zero: Value | None) -> Value:
        """The op at the granularity that scale and settings say."""
        axis, block = self.axis, 0
        if self.block_shape is not None:
            blocked = [i for i, size in enumerate(self.block_shape) if size != 1]
            if len(self.block_shape) != x.type.rank or len(blocked) > 1 or min(self.block_shape, default=1) < 1:
                raise ValueError(f"block_shape {self.block_shape} must have one size above 1, for {x.type}")
            axis = blocked[0] if blocked else 0
            block = self.block_shape[axis]
        elif axis is None and product(scale.type.shape) != 1:
            raise ValueError(f"the scale is {scale.type}, and no axis says where it lies")
        return by_granularity(b, op, x, scale, zero, 0 if axis is None else axis, block)


class QuantizeLayer(_Scaled):
    """clamp(round(x / scale) + zero point) as `to_type`; halves are rounded to even."""

    kind = "quantize"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, scale = present(inputs), as_type(b, present(inputs, 1), present(inputs).type.dtype)
        return self.apply(b, Quantise(self.to_type), x, scale, inputs[2] if len(inputs) > 2 else None)


class DequantizeLayer(_Scaled):
    """(x - zero point) * scale as `to_type`."""

    kind = "dequantize"

    def emit(self, b: NetworkBuilder, inputs: Sequence[Value | None]) -> Value:
        x, scale = present(inputs), present(inputs, 1)
        return self.apply(b, Dequantise(self.to_type), x, scale, inputs[2] if len(inputs) > 2 else None)
