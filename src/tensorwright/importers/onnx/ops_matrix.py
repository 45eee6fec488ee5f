# SPDX-License-Identifier: Apache-2.0
"""ONNX functions of square matrices."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.ops.matrix import Determinant


@onnx_op("Det", since=11)
def det(b: Builder, n: OnnxNode) -> Result:
    """Determinants."""
    return b.add(Determinant(), n.input(0))


OPS = [det]
