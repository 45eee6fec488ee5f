# SPDX-License-Identifier: Apache-2.0
"""Pointwise workloads in one form: a body over operands, whatever op they came as."""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu.conversions import HALVES, STORED
from tensorwright.backends.cpu.pointwise_ops import supports
from tensorwright.ir.dtype import DType
from tensorwright.ir.types import TensorType
from tensorwright.ops.copy import Copy
from tensorwright.ops.elementwise import Add, Div, Mul, Pointwise, Sqrt, Sub
from tensorwright.ops.fused import Fused, Instr, Literal
from tensorwright.ops.norm import BatchNorm

_COPIED = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}  # a copy moves bits, whatever they mean


@dataclass(frozen=True, slots=True)
class Region:
    """A body without anchor over `inputs` (broadcasting to the output). `used` are the inputs the body reads;
    `elements` are the LLVM types in memory of those, then of the output."""

    fused: Fused
    inputs: tuple[Operand, ...]
    used: tuple[int, ...]
    output: Operand
    elements: tuple[str, ...]


def region_of(w: Workload) -> Region | str:
    """The workload as a region, or why it is none."""
    fused, inputs = _as_body(w)
    if fused is None:
        return f"{w.op.kind} is not pointwise"
    operands = tuple(o for o in inputs if o is not None)
    if len(operands) != len(inputs):
        return "an input is absent"
    output = w.outputs[0]
    if not fused.body:
        if operands[-1].dtype is not output.dtype:
            return f"copy from {operands[-1].dtype} to {output.dtype}"
        element = _COPIED[output.dtype.size_bytes]
        return Region(fused, operands, (len(operands) - 1,), output, (element, element))
    reason = _type_problem(fused, operands, output)
    if reason:
        return reason
    read = {a for instr in fused.body for a in instr.args}
    used = tuple(i for i in range(len(operands)) if i in read)
    elements = tuple(STORED[o.dtype] for o in (*(operands[i] for i in used), output))
    return Region(fused, operands, used, output, elements)


def _as_body(w: Workload) -> tuple[Fused | None, tuple[Operand | None, ...]]:
    """The op written as a region, with its inputs in broadcastable form."""
    n = len(w.inputs)
    if isinstance(w.op, Fused):
        return (w.op, w.inputs) if w.op.anchor is None else (None, w.inputs)
    if isinstance(w.op, Copy):
        return Fused(None, n, ()), w.inputs
    if isinstance(w.op, Pointwise):
        return Fused(None, n, (Instr(w.op, tuple(range(n))),)), w.inputs
    if isinstance(w.op, BatchNorm) and w.outputs[0].dtype not in HALVES:  # it rounds once, not after every step
        return _batch_norm(w.op, w.inputs)
    return None, w.inputs


def _batch_norm(op: BatchNorm, inputs: tuple[Operand | None, ...]) -> tuple[Fused, tuple[Operand | None, ...]]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias with the parameters as [C, 1, ...]."""
    x, *parameters = inputs
    trailing = len(x.shape) - 2 if x is not None else 0
    columns = [
        None if p is None else Operand(p.dtype, (*p.shape, *(1,) * trailing), (*p.strides, *(0,) * trailing))
        for p in parameters
    ]
    body = (
        Instr(Sub(), (0, 3)),
        Instr(Literal(op.epsilon, x.dtype if x is not None else DType.f32), ()),
        Instr(Add(), (4, 6)),
        Instr(Sqrt(), (7,)),
        Instr(Div(), (5, 8)),
        Instr(Mul(), (9, 1)),
        Instr(Add(), (10, 2)),
    )
    return Fused(None, 5, body), (x, *columns)


def _type_problem(fused: Fused, inputs: tuple[Operand, ...], output: Operand) -> str | None:
    """Why the body cannot be emitted for these element types."""
    values: list[TensorType] = [o.type for o in inputs]
    wrong = [str(v.dtype) for v in values if v.dtype not in STORED]
    if wrong:
        return f"an input is {wrong[0]}"
    for instr in fused.body:
        operands = [values[a] for a in instr.args]
        reason = supports(instr.op, [v.dtype for v in operands])
        if reason:
            return reason
        values.append(instr.op.infer(*operands)[0])
    if values[-1].dtype is not output.dtype or output.dtype not in STORED:
        return f"the body makes {values[-1].dtype}, the output is {output.dtype}"
    return None
