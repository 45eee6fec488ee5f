# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression. A unit is one class of one image: it takes the best box that is left and drops what overlaps
it, again and again. Then one worker adds up how many were chosen, which decides the size of the result, and writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensorwright.backends.base import Accept, CpuKernel, KernelFamily, Reject, Stage, Workload
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.kernels.decided import DecidedConfig, decide, decided_symbol
from tensorwright.backends.cpu.kernels.nest import entry
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dims import high
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.detection import NonMaxSuppression

Box = tuple[Reg, Reg, Reg, Reg, Reg]  # y0, x0, y1, x1, area
_LIMITS = {2: "i64", 3: "float"}  # 0 when absent


class NmsGreedy(KernelFamily[DecidedConfig, CpuTarget, CpuKernel]):
    """`NonMaxSuppression` of any strides."""

    name, version, config = "nms_greedy", 1, DecidedConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, NonMaxSuppression):
            return Reject(f"{w.op.kind} is not non_max_suppression")
        other = [o for o in w.inputs[:2] if o is None or o.dtype is not DType.f32]
        if other:
            return Reject(f"an operand is {other[0]}, needs f32")
        return Accept() if decided_symbol(w.op.count) else Reject(f"the count {w.op.count} is no bounded symbol")

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[DecidedConfig]:
        yield DecidedConfig()

    def emit(self, w: Workload, c: DecidedConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        m = Module(fast="")  # a contracted product could move an overlap across the limit
        kernel = _Emitter(m, w)
        kernel.select(entry(m, f"{symbol}_select", w))
        kernel.count(entry(m, f"{symbol}_count", w))
        kernel.write(entry(m, symbol, w))
        stages = (Stage(f"{symbol}_select", kernel.units), Stage(f"{symbol}_count", 1), Stage(symbol, 1))
        return CpuKernel(m.text(), stages, workspace_bytes=kernel.workspace_bytes)


class _Emitter:
    """The workspace holds for each unit the count and the numbers of its boxes (i64), then for each unit a byte per box
    that says whether it is left."""

    def __init__(self, m: Module, w: Workload) -> None:
        boxes, scores = w.inputs[:2]
        assert isinstance(w.op, NonMaxSuppression) and boxes is not None and scores is not None
        self.m, self.w, self.op, self.boxes, self.scores = m, w, w.op, boxes, scores
        self.classes, self.n = scores.shape[1], scores.shape[2]
        self.units = scores.shape[0] * self.classes
        self.row = 1 + self.n  # i64 of a unit
        self.workspace_bytes = high(self.units) * (9 * high(self.n) + 8)

    # -- stages ---------------------------------------------------------------------------------
    def select(self, f: Function) -> None:
        """Choose the boxes of each unit."""
        most, iou = (self._limit(f, i) for i in (2, 3))
        with f.loop(f.arg("begin"), f.arg("end")) as unit:
            image, kind = unit // self.classes, unit % self.classes
            first = image * self.scores.strides[0] + kind * self.scores.strides[1]
            boxes = f.gep(f.arg("in0"), image * self.boxes.strides[0])
            chosen = f.gep(f.arg("workspace"), unit * self.row, "i64")
            left = f.gep(f.arg("workspace"), f.i64(self.units * self.row) * 8 + unit * self.n, "i8")
            self._start(f, first, left)
            taken = f.var("i64", f.i64(0))
            with f.forever() as leave_when:
                leave_when(f.compare("sge", taken.get(), most))
                best = self._best(f, first, left)
                leave_when(f.compare("slt", best, 0))
                taken.set(taken.get() + 1)
                f.store(best, chosen, taken.get())
                f.store(f.const("i8", 0), left, best)
                self._drop(f, boxes, left, best, iou)
            f.store(taken.get(), chosen)
        f.ret()

    def count(self, f: Function) -> None:
        """Add up how many boxes were chosen."""
        total = f.var("i64", f.i64(0))
        with f.loop(f.arg("begin"), f.arg("end")), f.loop(0, self.units) as unit:
            total.set(total.get() + f.load("i64", f.arg("workspace"), unit * self.row))
        decide(f, self.op.count, total.get())
        f.ret()

    def write(self, f: Function) -> None:
        """The rows of the result."""
        out = self.w.outputs[0]
        row = f.var("i64", f.i64(0))
        with f.loop(f.arg("begin"), f.arg("end")), f.loop(0, self.units) as unit:
            chosen = f.gep(f.arg("workspace"), unit * self.row, "i64")
            with f.loop(0, f.load("i64", chosen)) as i:
                values = (unit // self.classes, unit % self.classes, f.load("i64", chosen, i + 1))
                for column, value in enumerate(values):
                    place = row.get() * out.strides[0] + f.i64(out.strides[1]) * column
                    f.store(value, f.arg("out0"), place)
                row.set(row.get() + 1)
        f.ret()

    # -- parts of a unit ------------------------------------------------------------------------
    def _limit(self, f: Function, index: int) -> Reg:
        element = _LIMITS[index]
        given = index < len(self.w.inputs) and self.w.inputs[index] is not None
        return f.load(element, f.arg(f"in{index}")) if given else f.const(element, 0)

    def _score(self, f: Function, first: Reg, box: Reg) -> Reg:
        return f.load("float", f.arg("in1"), first + box * self.scores.strides[2])

    def _start(self, f: Function, first: Reg, left: Reg) -> None:
        """Which boxes have enough score."""
        has_threshold = len(self.w.inputs) > 4 and self.w.inputs[4] is not None
        threshold = f.load("float", f.arg("in4")) if has_threshold else None
        with f.loop(0, self.n) as box:
            enough = Reg(f, "i1", "true")
            if threshold is not None:
                enough = f.compare("ogt", self._score(f, first, box), threshold)
            f.store(f.cast("zext", enough, "i8"), left, box)

    def _best(self, f: Function, first: Reg, left: Reg) -> Reg:
        """The box with the highest score of those left; -1 when there is none."""
        best, top = f.var("i64", f.i64(-1)), f.var("float", f.const("float", 0.0))
        with f.loop(0, self.n) as box:
            with f.when(f.compare("ne", f.load("i8", left, box), 0)):
                score = self._score(f, first, box)
                none_yet = f.compare("slt", best.get(), 0)
                is_better = f.binary("or", none_yet, f.compare("ogt", score, top.get()))
                best.set(f.select(is_better, box, best.get()))
                top.set(f.select(is_better, score, top.get()))
        return best.get()

    def _drop(self, f: Function, boxes: Reg, left: Reg, best: Reg, limit: Reg) -> None:
        """Drop the boxes that overlap `best` by more than the limit."""
        chosen = self._box(f, boxes, best)
        with f.loop(0, self.n) as box:
            with f.when(f.compare("ne", f.load("i8", left, box), 0)):
                overlaps = f.compare("ogt", self._overlap(f, chosen, self._box(f, boxes, box)), limit)
                with f.when(overlaps):
                    f.store(f.const("i8", 0), left, box)

    def _box(self, f: Function, boxes: Reg, box: Reg) -> Box:
        base, step = box * self.boxes.strides[1], self.boxes.strides[2]
        a, b, c, d = (f.load("float", boxes, base + f.i64(step) * i) for i in range(4))
        if self.op.centers:
            half_width, half_height = c * 0.5, d * 0.5
            y0, x0, y1, x1 = b - half_height, a - half_width, b + half_height, a + half_width
        else:
            y0, x0, y1, x1 = f.minimum(a, c), f.minimum(b, d), f.maximum(a, c), f.maximum(b, d)
        return y0, x0, y1, x1, (y1 - y0) * (x1 - x0)

    def _overlap(self, f: Function, a: Box, b: Box) -> Reg:
        height = f.maximum(f.minimum(a[2], b[2]) - f.maximum(a[0], b[0]), 0.0)
        width = f.maximum(f.minimum(a[3], b[3]) - f.maximum(a[1], b[1]), 0.0)
        common = height * width
        union = a[4] + b[4] - common
        zero = f.const("float", 0.0)
        are_full = [f.compare("ogt", area, zero) for area in (a[4], b[4], union)]
        is_full = f.binary("and", f.binary("and", are_full[0], are_full[1]), are_full[2])
        return f.select(is_full, common / union, zero)
