# SPDX-License-Identifier: Apache-2.0
"""`RoiAlign`: the samples of a cell one after the other, each for all channels; cells add up in the output.

A box of an image that does not exist becomes NaN. (The reference raises there; a kernel has no way to.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.grid_sample import integer
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.pointwise_ops import ELEMENTS
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.sample import RoiAlign

_SAMPLES_GUESS = 16  # of a cell, to divide the work


@dataclass(frozen=True, slots=True)
class RoiConfig(Config):
    """There is one way to sample."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a box: where it starts, the extent of a cell, and the samples of a cell (integer and float)."""

    start: Reg
    step: Reg
    count: Reg
    divisor: Reg


class RoiAlignCells(KernelFamily[RoiConfig, CpuTarget, CpuKernel]):
    """f32 `RoiAlign` of any strides."""

    name, version, config = "roi_align_cells", 1, RoiConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, RoiAlign):
            return Reject(f"{w.op.kind} is not a roi_align")
        x = w.inputs[0]
        return Accept() if x is not None and x.dtype is DType.f32 and 0 not in x.shape else Reject(f"boxes of {x}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[RoiConfig]:
        yield RoiConfig()

    def emit(self, w: Workload, c: RoiConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")
        f = entry(m, symbol, w)
        units = _Cells(f, w).emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


class _Cells:
    """Writes the code: items are the cells of all boxes."""

    def __init__(self, f: Function, w: Workload) -> None:
        x, rois, batch = w.inputs
        assert isinstance(w.op, RoiAlign) and x is not None and rois is not None and batch is not None
        self.f, self.op, self.x, self.rois, self.batch, self.out = f, w.op, x, rois, batch, w.outputs[0]

    def emit(self) -> int:
        f, op, out, x = self.f, self.op, self.out, self.x
        cells = (out.shape[0], op.height, op.width)
        share = Share.of(math.prod(cells), out.shape[1] * _SAMPLES_GUESS)
        with share.items(f) as item:
            box, row, column = unravel(f, item, cells)
            target = Epilogue.offset(f, (out.strides[0], *out.strides[2:]), (box, row, column))
            image = image_number(f, self.batch, box, x.shape[0])
            exists = f.compare("ult", image, x.shape[0])
            start = f.select(exists, f.const("float", 0), f.const("float", math.nan))
            with f.loop(0, out.shape[1]) as c:
                f.store(start, f.arg("out0"), target + c * out.strides[1])
            with f.when(exists):
                self._cell(box, row, column, image * x.strides[0], target)
        return share.units

    def _cell(self, box: Reg, row: Reg, column: Reg, image: Reg, target: Reg) -> None:
        f, op = self.f, self.op
        high = self._axis(box, 1, op.height)
        wide = self._axis(box, 0, op.width)
        first = f.var("i1", Reg(f, "i1", "true"))
        with f.loop(0, high.count) as i, f.loop(0, wide.count) as j:
            y, x = self._at(high, row, i), self._at(wide, column, j)
            self._sample(y, x, image, target, first.get())
            first.set(Reg(f, "i1", "false"))
        if not op.maximum:
            samples = f.cast("sitofp", f.maximum(high.count * wide.count, 1), "float")
            with f.loop(0, self.out.shape[1]) as c:
                at = target + c * self.out.strides[1]
                f.store(f.load("float", f.arg("out0"), at) / samples, f.arg("out0"), at)

    def _axis(self, box: Reg, first: int, cells: int) -> _Axis:
        """The axis of the box whose corners are numbers `first` and `first + 2`."""
        f, op, strides = self.f, self.op, self.rois.strides
        start, end = (
            f.load("float", f.arg("in1"), box * strides[0] + k * strides[1]) * op.scale
            - (0.5 if op.half_pixel else 0.0)
            for k in (first, first + 2)
        )
        extent = end - start
        extent = extent if op.half_pixel else f.maximum(extent, 1.0)
        step = extent / float(cells)
        count = f.i64(op.samples) if op.samples else f.maximum(integer(f, f.intrinsic("ceil", "float", step)), 0)
        return _Axis(start, step, count, f.cast("sitofp", count, "float"))

    def _at(self, axis: _Axis, cell: Reg, sample: Reg) -> Reg:
        f = self.f
        place, part = (f.cast("sitofp", i, "float") for i in (cell, sample))
        return axis.start + place * axis.step + (part + 0.5) * axis.step / axis.divisor

    def _sample(self, y: Reg, x: Reg, image: Reg, target: Reg, is_first: Reg) -> None:
        """Add one bilinear sample to the cell, for all channels."""
        f, op, zero = self.f, self.op, self.f.const("float", 0)
        (top, bottom, v, v_in), (left, right, h, h_in) = self._pixels(y, 2), self._pixels(x, 3)
        inside, one = f.binary("and", v_in, h_in), f.const("float", 1)
        corners = [
            (row + column + image, a * b)
            for row, a in ((top, one - v), (bottom, v))
            for column, b in ((left, one - h), (right, h))
        ]
        with f.loop(0, self.out.shape[1]) as c:
            at = target + c * self.out.strides[1]
            parts = [
                f.load("float", f.arg("in0"), offset + c * self.x.strides[1]) * weight for offset, weight in corners
            ]
            parts = [f.select(inside, part, zero) for part in parts]
            old = f.load("float", f.arg("out0"), at)
            new = parts[0]
            for part in parts[1:]:
                new = larger(f, new, part) if op.maximum else new + part
            if op.maximum:
                new = f.select(is_first, new, larger(f, old, new))
            f.store(new if op.maximum else old + new, f.arg("out0"), at)

    def _pixels(self, at: Reg, d: int) -> tuple[Reg, Reg, Reg, Reg]:
        """Offsets of the two pixels along dim d, the weight of the second, and whether the sample counts."""
        f, size, stride = self.f, self.x.shape[d], self.x.strides[d]
        inside = f.binary("and", f.compare("oge", at, -1.0), f.compare("ole", at, f.number("float", size)))
        at = f.select(inside, f.maximum(at, 0.0), f.const("float", 0))
        low = f.minimum(integer(f, at), size - 1)
        is_last = f.compare("eq", low, size - 1)
        weight = f.select(is_last, f.const("float", 0), at - f.cast("sitofp", low, "float"))
        return low * stride, f.select(is_last, low, low + 1) * stride, weight, inside


def image_number(f: Function, batch: Operand, box: Reg, images: int) -> Reg:
    """The image of a box (input 2), negative ones from the end; it need not exist."""
    image = f.cast("sext", f.load(ELEMENTS[batch.dtype], f.arg("in2"), box * batch.strides[0]), "i64")
    return f.select(f.compare("slt", image, 0), f.op("i64", f"add i64 {image.ref}, {f.i64(images).ref}"), image)


def larger(f: Function, a: Reg, b: Reg) -> Reg:
    """The larger of two; NaN wins."""
    wins = f.binary("or", f.compare("ogt", b, a), f.compare("uno", b, b))
    return f.select(wins, b, a)
