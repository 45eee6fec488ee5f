# SPDX-License-Identifier: Apache-2.0
"""`MaxRoiPool`: the pixels of a cell one after the other, each for all channels; cells grow in the output.

A box of an image that does not exist becomes NaN. (The reference raises there; a kernel has no way to.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.grid_sample import integer
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.kernels.roi_align import image_number, larger
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.sample import MaxRoiPool

_PIXELS_GUESS = 16  # of a cell, to divide the work


@dataclass(frozen=True, slots=True)
class MaxRoiConfig(Config):
    """There is one way to pool."""


class MaxRoiPoolCells(KernelFamily[MaxRoiConfig, CpuTarget, CpuKernel]):
    """f32 `MaxRoiPool` of any strides."""

    name, version, config = "max_roi_pool_cells", 1, MaxRoiConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, MaxRoiPool):
            return Reject(f"{w.op.kind} is not a max_roi_pool")
        x = w.inputs[0]
        return Accept() if x is not None and x.dtype is DType.f32 else Reject(f"boxes of {x}")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[MaxRoiConfig]:
        yield MaxRoiConfig()

    def emit(self, w: Workload, c: MaxRoiConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module(fast="")
        f = entry(m, symbol, w)
        units = _Cells(f, w).emit()
        f.ret()
        return CpuKernel(m.text(), (Stage(symbol, units),))


class _Cells:
    """Writes the code: items are the cells of all boxes."""

    def __init__(self, f: Function, w: Workload) -> None:
        x, rois, batch = w.inputs
        assert isinstance(w.op, MaxRoiPool) and x is not None and rois is not None and batch is not None
        self.f, self.op, self.x, self.rois, self.batch, self.out = f, w.op, x, rois, batch, w.outputs[0]

    def emit(self) -> int:
        f, op, out, x = self.f, self.op, self.out, self.x
        cells = (out.shape[0], op.height, op.width)
        share = Share.of(math.prod(cells), out.shape[1] * _PIXELS_GUESS)
        with share.items(f) as item:
            box, row, column = unravel(f, item, cells)
            target = Epilogue.offset(f, (out.strides[0], *out.strides[2:]), (box, row, column))
            image = image_number(f, self.batch, box, x.shape[0])
            exists = f.compare("ult", image, x.shape[0])
            start = f.select(exists, f.const("float", 0), f.const("float", math.nan))
            with f.loop(0, out.shape[1]) as c:
                f.store(start, f.arg("out0"), target + c * out.strides[1])
            with f.when(exists):
                self._cell(self._pixels(box, row, 1), self._pixels(box, column, 0), image * x.strides[0], target)
        return share.units

    def _number(self, box: Reg, index: int) -> Reg:
        return self.f.load("float", self.f.arg("in1"), box * self.rois.strides[0] + index * self.rois.strides[1])

    def _pixels(self, box: Reg, cell: Reg, first: int) -> tuple[Reg, Reg]:
        """The pixels from .. to of a cell along the axis whose corners are numbers `first` and `first + 2`."""
        f = self.f
        low, high = (
            integer(f, f.intrinsic("round", "float", self._number(box, k) * self.op.scale)) for k in (first, first + 2)
        )
        size, cells = (self.x.shape[2], self.op.height) if first else (self.x.shape[3], self.op.width)
        step = f.cast("sitofp", f.maximum(high - low + 1, 1), "float") / float(cells)
        ends = []
        for number, rounding in ((cell, "floor"), (cell + 1, "ceil")):
            edge = f.intrinsic(rounding, "float", f.cast("sitofp", number, "float") * step)
            ends.append(f.minimum(f.maximum(integer(f, edge) + low, 0), size))
        return ends[0], ends[1]

    def _cell(self, rows: tuple[Reg, Reg], columns: tuple[Reg, Reg], image: Reg, target: Reg) -> None:
        """The largest pixels of a cell."""
        f, x, out = self.f, self.x, self.out
        with f.loop(*rows) as i, f.loop(*columns) as j:
            is_first = f.binary("and", f.compare("eq", i, rows[0]), f.compare("eq", j, columns[0]))
            source = image + i * x.strides[2] + j * x.strides[3]
            with f.loop(0, out.shape[1]) as c:
                at = target + c * out.strides[1]
                value = f.load("float", f.arg("in0"), source + c * x.strides[1])
                f.store(
                    f.select(is_first, value, larger(f, f.load("float", f.arg("out0"), at), value)), f.arg("out0"), at
                )
