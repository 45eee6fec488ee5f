# SPDX-License-Identifier: Apache-2.0
"""Fusion regions: an anchor op followed by pointwise work, computed as one step."""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import DType
from tensorwright.ir.op import ROUNDED, Array, Compare, Instr, Op, op
from tensorwright.ir.types import TensorType

__all__ = ["Fused", "Instr", "Literal"]


@op("literal")
class Literal(Op):
    """A scalar constant inside a region."""

    value: float
    dtype: DType = DType.f32

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, ()),)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return (np.asarray(self.value, self.dtype.numpy),)


@op("fused")
class Fused(Op):
    """`anchor` (on the first `anchor_inputs` inputs; None for a purely pointwise region), then `body`.

    The node's further inputs are read by the body under broadcasting. Argument k < n (the node's inputs) of an
    instruction reads an input; n is the anchor's result when there is one, and the following numbers are
    instruction results in order. The last instruction (the anchor when
    the body is empty) is the result. The body never broadcasts the anchor's result to a larger shape.
    """

    anchor: Op | None
    anchor_inputs: int
    body: tuple[Instr, ...]

    @property
    def compare(self) -> Compare:
        """The loosest of its parts, relative to the largest element: a sum of rounded values may cancel."""
        parts = [ROUNDED, *(instr.op.compare for instr in self.body)]
        if self.anchor is not None:
            parts.append(self.anchor.compare)
        if len(parts) <= 2:
            return parts[-1]
        return Compare(rtol=max(p.rtol for p in parts), atol=max(p.atol for p in parts) + 2e-6, scaled=True)

    def infer(self, *inputs: TensorType | None) -> tuple[TensorType, ...]:
        if not 0 <= self.anchor_inputs <= len(inputs) or (self.anchor is None and not self.body):
            raise ValueError(
                f"a region of {len(self.body)} instructions and {self.anchor_inputs} anchor inputs does "
                f"not fit {len(inputs)} inputs"
            )
        values: list[TensorType | None] = list(inputs)
        if self.anchor is not None:
            values.append(self.anchor.infer(*inputs[: self.anchor_inputs])[0])
        for instr in self.body:
            if any(not 0 <= a < len(values) for a in instr.args):
                raise ValueError(f"{instr.op.kind} in a region reads {instr.args} of {len(values)} values")
            values.append(instr.op.infer(*(values[a] for a in instr.args))[0])
        return tuple(v for v in values[-1:] if v is not None)

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        values: list[Array | None] = list(inputs)
        if self.anchor is not None:
            values.append(self.anchor.reference(*inputs[: self.anchor_inputs])[0])
        for instr in self.body:
            values.append(instr.op.reference(*(values[a] for a in instr.args))[0])
        return tuple(v for v in values[-1:] if v is not None)
