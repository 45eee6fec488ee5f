# SPDX-License-Identifier: Apache-2.0
"""Which input positions an output position of a (transposed) convolution reads, along one spatial axis.

Convolution: output o and kernel index k read input o*stride - pad + k*dilation.
Deconvolution: they read (o + pad - k*dilation) / stride where that division is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

from tensorwright.backends.base import Operand
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.epilogue import Problem, aligned_strides
from tensorwright.backends.cpu.kernels.microkernel import may
from tensorwright.ir.dims import Dim, SymDim, ceil_div, high, maximum, minimum, opt
from tensorwright.ops.conv import Convolution, Deconvolution


@dataclass(frozen=True, slots=True)
class Run:
    """`repeat` consecutive tiles of `width` outputs from output number `first`, all reading the same taps.

    `valid[t][n]` says whether tap n of the t-th output of a tile lies inside the input; it is None where only a run
    knows, and `width` then 1.
    """

    first: int
    width: int
    repeat: int
    valid: tuple[tuple[bool, ...], ...] | None

    @property
    def stop(self) -> int:
        """Past the last output."""
        return self.first + self.repeat * self.width


@dataclass(frozen=True, slots=True)
class Phase:
    """Outputs `first + j*step` for j < count; tap (kernel index, start) of output j reads input `j*in_step + start`."""

    first: int
    step: int
    count: int
    in_step: int
    size: int
    taps: tuple[tuple[int, int], ...]

    def runs(self, width: int) -> list[Run]:
        """Tiles of `width` outputs (the last may be narrower), neighbours with equal borders put together.

        Where only a run knows the sizes, these are the tiles of the opt sizes, which it uses if it has them, and
        those for any other size.
        """
        tuned, others = self._cases()
        if others is None:
            return tuned._fixed_runs(width)
        is_tuned = 1 - others
        runs = [replace(r, repeat=r.repeat * is_tuned) for r in tuned._fixed_runs(width)]
        return [r for r in (*runs, *self._loose_runs(width, others)) if may(r.repeat)]

    def _cases(self) -> tuple[Phase, int | None]:
        """The phase at the opt sizes, and 1 where a run has other ones, else 0; None when there is no choice."""
        if not isinstance(cast(Dim, self.size), SymDim) and not isinstance(cast(Dim, self.count), SymDim):
            return self, None
        tuned = replace(self, count=opt(self.count), size=opt(self.size))
        gaps = [maximum(a - b, b - a) for a, b in ((self.count, tuned.count), (self.size, tuned.size))]
        return tuned, cast(int, minimum(1, gaps[0] + gaps[1]))

    def _loose_runs(self, width: int, factor: int) -> list[Run]:
        """Runs for any size, with no output where `factor` is 0.

        Tiles whose left border is known, whole tiles inside, and what is left of the inside in powers of two; the right
        border, and an input too small for all that, one by one.
        """
        starts = [start for _, start in self.taps] or [0]
        count = self.count * factor
        inside = cast(int, minimum(count, maximum(0, (self.size - 1 - max(starts)) // self.in_step + 1)))
        left = ceil_div(max(0, -min(starts)), self.in_step)
        tiles = math.ceil(cast(int, left) / width)
        fits: int = cast(int, minimum(1, inside // (tiles * width))) if tiles else 1
        runs = []
        for first in range(0, tiles * width, width):
            outputs = range(first, first + width)
            valid = tuple(tuple(j * self.in_step + start >= 0 for _, start in self.taps) for j in outputs)
            runs.append(Run(first, width, fits, valid))
        begin = tiles * width * fits
        whole = (inside - begin) // width * fits
        runs.append(self._inside(begin, width, whole))
        begin = begin + whole * width
        rest = (inside - begin) * fits
        size = 1 << (width - 1).bit_length() >> 1  # the greatest power of two below `width`
        while size > 1:
            runs.append(self._inside(begin + rest // (2 * size) * (2 * size), size, rest // size % 2))
            size //= 2
        begin = begin + rest - rest % 2
        return [*runs, Run(begin, 1, count - begin, None)]

    def _inside(self, first: int, width: int, repeat: int) -> Run:
        return Run(first, width, repeat, ((True,) * len(self.taps),) * width)

    def _fixed_runs(self, width: int) -> list[Run]:
        runs: list[Run] = []
        for first in range(0, self.count, width):
            outputs = range(first, min(first + width, self.count))
            valid = tuple(tuple(0 <= j * self.in_step + start < self.size for _, start in self.taps) for j in outputs)
            if runs and runs[-1].valid == valid:
                runs[-1] = Run(runs[-1].first, width, runs[-1].repeat + 1, valid)
            else:
                runs.append(Run(first, len(outputs), 1, valid))
        return runs


@dataclass(frozen=True, slots=True)
class SpatialAxis:
    """One spatial axis of a convolution: input extent `size`, output extent `count`, padding in front `pad`."""

    size: int
    count: int
    kernel: int
    stride: int
    pad: int
    dilation: int
    transposed: bool

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The outputs grouped so that within a group every tap moves by a constant input step."""
        if not self.transposed:
            taps = tuple((k, k * self.dilation - self.pad) for k in range(self.kernel))
            return (Phase(0, 1, self.count, self.stride, self.size, taps),)
        phases = []
        for first in range(min(self.stride, high(self.count))):
            reach = [(k, first + self.pad - k * self.dilation) for k in range(self.kernel)]
            taps = tuple((k, r // self.stride) for k, r in reach if r % self.stride == 0)
            count = cast(int, maximum(0, ceil_div(self.count - first, self.stride)))
            phases.append(Phase(first, self.stride, count, 1, self.size, taps))
        return tuple(phases)

    @property
    def reads(self) -> int:
        """How many (output, tap) pairs read inside the input."""
        walked, limit = (self.size, self.count) if self.transposed else (self.count, self.size)
        total = 0
        for k in range(self.kernel):
            start = k * self.dilation - self.pad
            total += max(0, min(walked, -((start - limit) // self.stride)) - max(0, -(start // self.stride)))
        return total

    @property
    def never_outside(self) -> bool:
        """Whether every tap of every output reads inside the input."""
        last = (self.count - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation
        return not self.transposed and self.pad <= 0 and high(last - self.size) < 0

    @contextmanager
    def taps_of(self, f: Function, output: Reg | int) -> Iterator[tuple[Reg, Reg]]:
        """for each (kernel index, input position) that the run-time output position reads: the body."""
        with f.loop(0, self.kernel) as k:
            if self.transposed:
                reach = f.i64(output) + self.pad - k * self.dilation
                # unsigned compare: a negative reach is huge
                inside = f.compare("ult", reach, self.size * self.stride)
                position = f.i64(reach) // self.stride
                if self.stride > 1:
                    inside = f.binary("and", inside, f.compare("eq", reach % self.stride, 0))
            else:
                position = f.i64(output) * self.stride - self.pad + k * self.dilation
                if self.never_outside:
                    yield k, position
                    return
                inside = f.compare("ult", position, self.size)
            with f.when(inside):
                yield k, position

    def first_taps(self, f: Function, output: Reg | int) -> tuple[Reg, Reg, Reg]:
        """Input position of kernel index 0, first kernel index inside the input, and end of those (no transpose)."""
        if self.transposed:
            raise ValueError("taps of a deconvolution are not one range")
        top = f.i64(output) * self.stride - self.pad
        if self.never_outside:
            return top, f.i64(0), f.i64(self.kernel)
        step = self.dilation
        begin = f.maximum(f.i64(0) - top, 0) + (step - 1)
        end = f.maximum(f.i64(self.size + step - 1) - top, 0)
        return top, begin // step, f.minimum(end // step, self.kernel)


@dataclass(frozen=True, slots=True)
class GroupedShape:
    """A (transposed) convolution as `groups` convolutions of `c` input to `k` output channels over three spatial axes.

    Strides are in elements: `x` and `out` over (n, channel, depth, height, width), `w` over (group, k, c, depth,
    height, width), `extras` as `out`. Missing leading spatial axes have extent 1 and stride 0.
    """

    n: int
    groups: int
    c: int
    k: int
    axes: tuple[SpatialAxis, SpatialAxis, SpatialAxis]
    x: tuple[int, ...]
    w: tuple[int, ...]
    out: tuple[int, ...]
    extras: tuple[tuple[int, ...], ...]

    @property
    def taps(self) -> int:
        return math.prod(a.kernel for a in self.axes)

    @property
    def flops(self) -> int:
        """Floating point operations (a multiply-add counts as two) of the taps inside the input."""
        return 2 * self.n * self.groups * self.c * self.k * math.prod(a.reads for a in self.axes)


def grouped_shape(p: Problem, kind: type[Convolution | Deconvolution]) -> GroupedShape | str:
    """The problem as grouped convolution of the given op class with at most three spatial dims, or why it is none."""
    if not isinstance(p.anchor, kind):
        return f"{p.anchor.kind} is not a {kind.kind}"
    op, x, w, out = p.anchor, p.inputs[0], p.inputs[1], p.output
    if x is None or w is None or any(b is not None for b in p.inputs[2:]):
        return "the operands are not x and weights alone"
    spatial = len(out.shape) - 2
    if not 1 <= spatial <= 3:
        return f"{spatial} spatial dims"
    transposed = kind is Deconvolution
    lead = 3 - spatial

    def widen(values: Sequence[int], fill: int, keep: int = 2) -> tuple[int, ...]:
        return (*values[:keep], *(fill,) * lead, *values[keep:])

    size, count, kernel = (widen(o.shape[2:], 1, 0) for o in (x, out, w))
    stride, dilation, pad = widen(op.strides, 1, 0), widen(op.dilations, 1, 0), widen(op.pads[:spatial], 0, 0)
    depth, height, width = (
        SpatialAxis(size[i], count[i], kernel[i], stride[i], pad[i], dilation[i], transposed) for i in range(3)
    )
    g, c, k = op.groups, x.shape[1] // op.groups, out.shape[1] // op.groups
    extras = tuple(widen(aligned_strides(e, len(out.shape)), 0) for e in p.extras)
    return GroupedShape(
        out.shape[0],
        g,
        c,
        k,
        (depth, height, width),
        widen(x.strides, 0),
        _weight_strides(w, c, k, transposed, lead),
        widen(out.strides, 0),
        extras,
    )


def _weight_strides(w: Operand, c: int, k: int, transposed: bool, lead: int) -> tuple[int, ...]:
    """Strides over (group, k, c, spatial): weights are [groups*k, c, ...], transposed ones [groups*c, k, ...]."""
    outer, inner = w.strides[:2]
    rest = (*(0,) * lead, *w.strides[2:])
    return (outer * c, inner, outer, *rest) if transposed else (outer * k, outer, inner, *rest)
