# SPDX-License-Identifier: Apache-2.0
"""ONNX ops on the bits of elements."""

from __future__ import annotations

from tensorwright.importers.onnx.builder import Builder
from tensorwright.importers.onnx.node import OnnxNode, OnnxOp, Result, onnx_op
from tensorwright.importers.onnx.tensors import dtype_name, dtype_of
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ops.bitwise import BitCast, BitShift, BitwiseAnd, BitwiseNot, BitwiseOr, BitwiseXor

_BINARY: dict[str, type[Op]] = {"BitwiseAnd": BitwiseAnd, "BitwiseOr": BitwiseOr, "BitwiseXor": BitwiseXor}


def _binary(name: str, op: type[Op]) -> OnnxOp:
    return OnnxOp(name, 18, lambda b, n: b.add(op(), n.input(0), n.input(1)))


@onnx_op("BitwiseNot", since=18)
def bitwise_not(b: Builder, n: OnnxNode) -> Result:
    """All bits inverted."""
    return b.add(BitwiseNot(), n.input(0))


@onnx_op("BitShift", since=11)
def bit_shift(b: Builder, n: OnnxNode) -> Result:
    """Bits moved to either side; signed types came with opset 28."""
    direction = n.attr("direction", str)
    if direction not in ("LEFT", "RIGHT"):
        raise ValueError(f"direction is {direction!r}, expected 'LEFT' or 'RIGHT'")
    return b.add(BitShift(direction == "LEFT"), n.input(0), n.input(1))


@onnx_op("BitCast", since=26)
def bit_cast(b: Builder, n: OnnxNode) -> Result:
    """The same bits as another type."""
    x, number = n.input(0), n.dtype_attr("to")
    dtype = dtype_of(number)
    if dtype is None:
        n.refuse(f"it reads bits as {dtype_name(number)}, which is not supported")
    if dtype is DType.bool is not x.type.dtype:
        n.refuse(f"it reads {x.type.dtype} as bool, which no byte above 1 is", "compare with zero instead")
    return x if dtype is x.type.dtype else b.add(BitCast(dtype), x)


OPS = [*(_binary(name, op) for name, op in _BINARY.items()), bitwise_not, bit_shift, bit_cast]
