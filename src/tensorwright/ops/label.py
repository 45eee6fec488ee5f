# SPDX-License-Identifier: Apache-2.0
"""What people call an operation: the name for reports and displays."""

from __future__ import annotations

from tensorwright.ir.op import Op
from tensorwright.ops.fused import Fused, Literal
from tensorwright.ops.host import OnnxHost


def label(op: Op) -> str:
    """The op's kind; "convolution+relu" for a fused region, the ONNX operator for what runs through ONNX."""
    if isinstance(op, OnnxHost):
        return op.node_kind
    if isinstance(op, Fused):
        parts = [*([op.anchor] if op.anchor is not None else []), *(i.op for i in op.body)]
        return "+".join(dict.fromkeys(part.kind for part in parts if not isinstance(part, Literal)))
    return op.kind
