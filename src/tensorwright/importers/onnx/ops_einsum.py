# SPDX-License-Identifier: Apache-2.0
"""ONNX Einsum."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, Result, onnx_op
from tensorwright.network.composed import einsum as composed


@onnx_op("Einsum", since=12)
def einsum(b: Builder, n: OnnxNode) -> Result:
    """The sum over all labels that the result does not have, of the products of the operands' elements."""
    return composed.einsum(b, n.attr("equation", str), n.all_inputs())


OPS = [einsum]
