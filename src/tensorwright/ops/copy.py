# SPDX-License-Identifier: Apache-2.0
"""The copy that lowering inserts where values must lie elsewhere or otherwise in memory."""

from __future__ import annotations

from tensorwright.ir.op import EXACT, Array, Op, op
from tensorwright.ir.types import TensorType
from tensorwright.ops.check import required


@op("copy", compare=EXACT)
class Copy(Op):
    """The same values; only the strides of the two operands differ. Never part of a source model."""

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return (required(self, inputs, 1)[0],)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return (required(self, inputs, 1)[0].copy(),)
