# SPDX-License-Identifier: Apache-2.0
"""The matrix product in a workload: a MatMul of any form, or a 1x1 convolution, as strides over merged axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.epilogue import Problem, aligned_strides
from tensorwright.ops.conv import Convolution
from tensorwright.ops.linear import MatMul


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop over output rows: extent and the stride of each operand along it (right operand: 0 = shared)."""

    size: int
    left: int
    right: int
    output: int
    extras: tuple[int, ...]

    def then(self, inner: Axis) -> Axis | None:
        """This axis and the next inner one as a single axis, when every operand allows it."""
        if self.size == 1:
            return inner
        if inner.size == 1:
            return self
        pairs = [
            (self.left, inner.left),
            (self.right, inner.right),
            (self.output, inner.output),
            *zip(self.extras, inner.extras, strict=True),
        ]
        if any(o != inner.size * i for o, i in pairs):
            return None
        return Axis(self.size * inner.size, inner.left, inner.right, inner.output, inner.extras)


@dataclass(frozen=True, slots=True)
class GemmShape:
    """out[batch, m, n] = sum_k left[batch, m, k] * right[batch, k, n], all by strides."""

    batch: tuple[Axis, ...]
    rows: Axis
    n: int
    k: int
    left_k: int
    right_k: int
    right_n: int
    out_n: int
    extras_n: tuple[int, ...]

    @property
    def batches(self) -> int:
        return math.prod(a.size for a in self.batch)

    @property
    def right_batch(self) -> tuple[Axis, ...]:
        """The batch axes along which the right operand changes."""
        return tuple(a for a in self.batch if a.right != 0)

    @property
    def right_batches(self) -> int:
        """How many different right operands there are."""
        return math.prod(a.size for a in self.right_batch)

    @property
    def flops(self) -> int:
        return 2 * self.batches * self.rows.size * self.n * self.k


def gemm_shape(p: Problem) -> GemmShape | str:
    """The matrix product a problem is, or why it is none."""
    if isinstance(p.anchor, MatMul):
        return _matmul_shape(p)
    if isinstance(p.anchor, Convolution):
        return _pointwise_convolution_shape(p, p.anchor)
    return f"{p.anchor.kind} is not a matrix product"


def _matmul_shape(p: Problem) -> GemmShape | str:
    a, b, out = p.inputs[0], p.inputs[1], p.output
    if a is None or b is None:
        return "an operand is missing"
    rank = max(len(out.shape) + (len(a.shape) == 1) + (len(b.shape) == 1), 2)

    def widen(o: Operand, *, left: bool = False, right: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape and strides with the unit axes NumPy's matmul drops for 1-D operands put back."""
        shape, strides = list(o.shape), list(o.strides)
        if left:
            shape.insert(len(shape) - (0 if right else 1), 1)
            strides.insert(len(strides) - (0 if right else 1), 0)
        if right:
            shape.append(1)
            strides.append(0)
        return tuple(shape), tuple(strides)

    def over(strides: tuple[int, ...]) -> tuple[int, ...]:
        return (0,) * (rank - len(strides)) + strides

    one_left, one_right = len(a.shape) == 1, len(b.shape) == 1
    a_shape, a_strides = ((1, *a.shape), (0, *a.strides)) if one_left else (a.shape, a.strides)
    b_shape, b_strides = ((*b.shape, 1), (*b.strides, 0)) if one_right else (b.shape, b.strides)
    out_shape, out_strides = widen(out, left=one_left, right=one_right)
    extras = []
    for e in p.extras:
        full = Operand(
            e.dtype,
            (1,) * (len(out.shape) - len(e.shape)) + e.shape,
            (0,) * (len(out.shape) - len(e.shape)) + e.strides,
        )
        extras.append(over(widen(full, left=one_left, right=one_right)[1]))
    a_over, b_over, o_over = over(a_strides), over(b_strides), over(out_strides)
    out_shape = (1,) * (rank - len(out_shape)) + out_shape
    axes = [
        Axis(out_shape[i], a_over[i], b_over[i] if i < rank - 2 else 0, o_over[i], tuple(e[i] for e in extras))
        for i in range(rank - 1)
    ]
    return _shape(
        axes, out_shape[-1], a_shape[-1], a_over[-1], b_over[-2], b_over[-1], o_over[-1], tuple(e[-1] for e in extras)
    )


def _pointwise_convolution_shape(p: Problem, conv: Convolution) -> GemmShape | str:
    x, w, out = p.inputs[0], p.inputs[1], p.output
    if x is None or w is None or len(p.inputs) > 2 and p.inputs[2] is not None:
        return "the convolution has a separate bias"
    if math.prod(w.shape[2:]) != 1:
        return f"the kernel is {'x'.join(map(str, w.shape[2:]))}, not 1x1"
    if conv.groups != 1 or any(conv.pads):
        return f"groups={conv.groups}, pads={conv.pads}: not a plain matrix product"
    rank = len(out.shape)
    extras = [aligned_strides(e, rank) for e in p.extras]
    axes = [
        Axis(
            out.shape[i],
            x.strides[i] * (conv.strides[i - 2] if i >= 2 else 1),
            0,
            out.strides[i],
            tuple(e[i] for e in extras),
        )
        for i in (0, *range(2, rank))
    ]
    return _shape(
        axes,
        w.shape[0],
        w.shape[1],
        x.strides[1],
        w.strides[1],
        w.strides[0],
        out.strides[1],
        tuple(e[1] for e in extras),
    )


def _shape(
    axes: Sequence[Axis], n: int, k: int, left_k: int, right_k: int, right_n: int, out_n: int, extras_n: tuple[int, ...]
) -> GemmShape:
    joined = [axes[0]]
    for axis in axes[1:]:
        both = joined[-1].then(axis)
        if both is None:
            joined.append(axis)
        else:
            joined[-1] = both
    if joined[-1].right != 0:  # the right operand changes with every row: each row is a batch of its own
        joined.append(Axis(1, 0, 0, 0, (0,) * len(extras_n)))
    return GemmShape(tuple(joined[:-1]), joined[-1], n, k, left_k, right_k, right_n, out_n, extras_n)
