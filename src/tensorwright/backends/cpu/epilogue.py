# SPDX-License-Identifier: Apache-2.0
"""The pointwise tail of an anchor kernel: extra operands are read where the accumulators are, then stored.

A kernel computes `acc`, some lanes of the output along one logical axis. `Epilogue.finish` applies the
`Fused` body to it and stores the result, whatever the strides of the output and of the extra operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Operand, Workload
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import element_of, vector, width_of
from tensorwright.backends.cpu.pointwise_ops import emit_body, supports
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ops.fused import Fused


@dataclass(frozen=True, slots=True)
class Problem:
    """A workload taken apart: the anchor with its operands, and the extra operands of the body."""

    anchor: Op
    inputs: tuple[Operand | None, ...]
    extras: tuple[Operand, ...]
    output: Operand
    fused: Fused | None


def problem_of(w: Workload) -> Problem:
    """Split a bare or fused workload with one output. Pointwise-only regions have no anchor and are not problems."""
    if isinstance(w.op, Fused) and w.op.anchor is not None:
        n = w.op.anchor_inputs
        extras = tuple(o for o in w.inputs[n:] if o is not None)
        return Problem(w.op.anchor, w.inputs[:n], extras, w.outputs[0], w.op)
    return Problem(w.op, w.inputs, (), w.outputs[0], None)


def body_problem(p: Problem) -> str | None:
    """Why no epilogue can be emitted for this body; None when it can."""
    if p.output.dtype is not DType.f32 or any(o.dtype is not DType.f32 for o in p.extras):
        return f"the epilogue has operands of {', '.join(str(o.dtype) for o in (*p.extras, p.output))}, needs f32"
    for instr in p.fused.body if p.fused else ():
        reason = supports(instr.op, [DType.f32] * len(instr.args))
        if reason:
            return reason
    return None


def aligned_strides(operand: Operand, rank: int) -> tuple[int, ...]:
    """Strides of an operand over the axes of a rank-`rank` output it broadcasts to (0 on broadcast axes)."""
    return (0,) * (rank - len(operand.shape)) + operand.strides


def merged(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride that walks these axes (outermost first) as a single axis; None when there is none."""
    live = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    if not live:
        return 0
    for (_, outer), (dim, inner) in zip(live, live[1:], strict=False):
        if outer != dim * inner:
            return None
    return live[-1][1]


class Epilogue:
    """Emits the body and the store. Axes are the kernel's own (possibly merged) output axes:
    `output` and each of `extras` are stride tuples over those axes; `lane_axis` is the vectorised one."""

    def __init__(
        self, fused: Fused | None, output: Sequence[int], extras: Sequence[Sequence[int]], lane_axis: int
    ) -> None:
        self.fused, self.output, self.extras, self.lane_axis = (
            fused,
            tuple(output),
            [tuple(e) for e in extras],
            lane_axis,
        )

    def finish(
        self,
        f: Function,
        acc: Reg,
        out: Reg,
        extra_pointers: Sequence[Reg],
        index: Sequence[Reg | int],
        count: Reg | int,
    ) -> None:
        """Apply the body to `acc` (lane 0 at logical `index`) and store the first `count` lanes."""
        if self.fused is not None and self.fused.body:
            operands = [
                self.load(f, pointer, strides, index, width_of(acc.ty), count)
                for pointer, strides in zip(extra_pointers, self.extras, strict=True)
            ]
            acc = emit_body(f, self.fused, [*[None] * self.fused.anchor_inputs, *operands], acc)
        store_lanes(f, acc, out, self.offset(f, self.output, index), self.output[self.lane_axis], count)

    def load(
        self,
        f: Function,
        pointer: Reg,
        strides: Sequence[int],
        index: Sequence[Reg | int],
        width: int,
        count: Reg | int,
    ) -> Reg:
        """The lanes of an extra operand at `index`."""
        return load_lanes(f, pointer, self.offset(f, strides, index), strides[self.lane_axis], width, count)

    @staticmethod
    def offset(f: Function, strides: Sequence[int], index: Sequence[Reg | int]) -> Reg:
        """sum(index * stride) in elements."""
        total = f.i64(0)
        for position, stride in zip(index, strides, strict=True):
            if stride != 0:
                total = f.i64(position) * stride + total
        return total


def load_lanes(
    f: Function, pointer: Reg, offset: Reg | int, stride: int, width: int, count: Reg | int, element: str = "float"
) -> Reg:
    """`count` elements `stride` apart as a vector (stride 0 broadcasts); lanes past `count` are zero or copies.

    A `count` that only a run knows is at least 1.
    """
    ty = vector(width, element)
    if width == 1:
        return f.load(element, pointer, offset)
    if stride == 1:
        return f.load_first(ty, pointer, offset, count)
    if stride == 0:
        return f.splat(f.load(element, pointer, offset), width)
    if isinstance(count, Reg):  # lanes past it repeat the last element
        last = count - 1
        lanes = [f.minimum(f.i64(lane), last) for lane in range(width)]
        return _gathered(f, ty, pointer, offset, [lane * stride for lane in lanes])
    return _gathered(f, ty, pointer, offset, [f.i64(lane * stride) for lane in range(min(width, count))])


def _gathered(f: Function, ty: str, pointer: Reg, offset: Reg | int, places: Sequence[Reg]) -> Reg:
    """A vector of the elements at these places after `offset`; its other lanes are zero."""
    out = f.const(ty, 0)
    for lane, place in enumerate(places):
        out = f.insert(out, f.load(element_of(ty), pointer, f.i64(offset) + place), lane)
    return out


def store_lanes(f: Function, value: Reg, pointer: Reg, offset: Reg | int, stride: int, count: Reg | int) -> None:
    """Store the first `count` lanes `stride` elements apart."""
    width = width_of(value.ty)
    if width == 1:
        f.store(value, pointer, offset)
    elif stride == 1:
        f.store_first(value, pointer, offset, count)
    elif isinstance(count, Reg):
        slot = Reg(f, "ptr", f.var(value.ty, value).slot)
        with f.loop(0, f.minimum(count, width)) as lane:
            f.store(f.load(element_of(value.ty), slot, lane), pointer, f.i64(offset) + lane * stride)
    else:
        for number in range(min(width, count)):
            f.store(f.extract(value, number), pointer, f.i64(offset) + number * stride)


__all__ = [
    "Epilogue",
    "Problem",
    "aligned_strides",
    "body_problem",
    "element_of",
    "load_lanes",
    "merged",
    "problem_of",
    "store_lanes",
]
