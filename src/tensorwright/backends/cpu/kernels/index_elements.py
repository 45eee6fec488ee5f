# SPDX-License-Identifier: Apache-2.0
"""Single elements or blocks at indices known only at run time, read or written, on operands of any strides.

An index out of range never touches memory: what it would read is NaN (0 in integer types) in the output, what it
would write is left out. (The reference raises there; a kernel has no way to.)

Scatters run in two stages: the data is copied, then updates are applied. Work is divided so that all updates that can
meet in one element belong to one unit, which applies them in order: no two workers write the same element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorwright.backends.base import Accept, Config, CpuKernel, KernelFamily, Operand, Reject, Stage, Workload
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Module, Reg
from tensorwright.backends.cpu.epilogue import Epilogue
from tensorwright.backends.cpu.kernels.gather import NAN_BITS
from tensorwright.backends.cpu.kernels.nest import Share, empty_kernel, entry, unravel
from tensorwright.backends.cpu.llvm_types import is_float
from tensorwright.backends.cpu.pointwise_ops import ELEMENTS
from tensorwright.backends.cpu.target import CpuTarget
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.select import GatherElements, GatherNd, ScatterElements, ScatterNd

_BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
_REDUCIBLE = (DType.f32, DType.f64, DType.i64, DType.i32, DType.u8)


@dataclass(frozen=True, slots=True)
class IndexConfig(Config):
    """There is one way to walk."""


class IndexElements(KernelFamily[IndexConfig, CpuTarget, CpuKernel]):
    """`GatherElements`, `GatherNd`, `ScatterElements`, `ScatterNd`: any element type, reductions on numbers."""

    name, version, config = "index_elements", 1, IndexConfig

    def accepts(self, w: Workload, t: CpuTarget) -> Accept | Reject:
        if not isinstance(w.op, GatherElements | GatherNd | ScatterElements | ScatterNd):
            return Reject(f"{w.op.kind} neither gathers nor scatters elements")
        if isinstance(w.op, ScatterElements | ScatterNd) and w.op.reduction != "none":
            dtype = w.outputs[0].dtype
            return Accept() if dtype in _REDUCIBLE else Reject(f"{w.op.reduction} of {dtype}")
        return Accept()

    def candidates(self, w: Workload, t: CpuTarget) -> Iterator[IndexConfig]:
        yield IndexConfig()

    def emit(self, w: Workload, c: IndexConfig, t: CpuTarget, symbol: str, constants: dict[int, Array]) -> CpuKernel:
        if 0 in w.outputs[0].shape:
            return empty_kernel(w, symbol)
        m = Module()
        if isinstance(w.op, GatherElements | GatherNd):
            return CpuKernel(_gather(m, w, symbol), (Stage(symbol, _gather_share(w).units),))
        stages = [Stage(f"{symbol}_copy", _copied(m, w, f"{symbol}_copy"))]
        if 0 not in _present(w, 1).shape:
            stages.append(Stage(symbol, _updated(m, w, symbol)))
        return CpuKernel(m.text(), tuple(stages))

    def bound(self, w: Workload, t: CpuTarget) -> float:
        return 0.0


def _present(w: Workload, index: int) -> Operand:
    operand = w.inputs[index]
    assert operand is not None
    return operand


# -- gather -----------------------------------------------------------------------------------------
def _gather_share(w: Workload) -> Share:
    """Items are the rows of the output's last axis."""
    shape = w.outputs[0].shape
    return Share.of(math.prod(shape[:-1]), shape[-1] if shape else 1)


def _gather(m: Module, w: Workload, symbol: str) -> str:
    f = entry(m, symbol, w)
    out, data, indices = w.outputs[0], _present(w, 0), _present(w, 1)
    element = _BITS[data.dtype.size_bytes]
    fill = f.const(element, NAN_BITS.get(data.dtype, 0))
    with _gather_share(w).items(f) as item, f.loop(0, out.shape[-1] if out.shape else 1) as last:
        place = [*unravel(f, item, out.shape[:-1]), last] if len(out.shape) > 1 else [last][: len(out.shape)]
        at, valid = _source(f, w, data, indices, place)
        value = f.var(element, fill)
        with f.when(valid):
            value.set(f.load(element, f.arg("in0"), at))
        f.store(value.get(), f.arg("out0"), Epilogue.offset(f, out.strides, place))
    f.ret()
    return m.text()


def _source(f: Function, w: Workload, data: Operand, indices: Operand, place: Sequence[Reg]) -> tuple[Reg, Reg]:
    """The offset in data that the output position `place` reads, and whether its indices are in range."""
    if isinstance(w.op, GatherElements):
        index, valid = _index(f, indices, Epilogue.offset(f, indices.strides, place), data.shape[w.op.axis])
        where = [index if d == w.op.axis else i for d, i in enumerate(place)]
        return Epilogue.offset(f, data.strides, where), valid
    assert isinstance(w.op, GatherNd)
    split = len(indices.shape) - 1
    batch = w.op.batch_dims
    start, valid = _block(f, indices, place[:split], data, batch)
    depth = indices.shape[-1]
    rest = Epilogue.offset(f, data.strides[batch + depth :], place[split:])
    return start + Epilogue.offset(f, data.strides[:batch], place[:batch]) + rest, valid


def _block(f: Function, indices: Operand, place: Sequence[Reg], data: Operand, batch: int) -> tuple[Reg, Reg]:
    """The offset that the coordinates at `place` of `indices` name in data, and whether all are in range."""
    base = Epilogue.offset(f, indices.strides[:-1], place)
    total, valid = f.i64(0), Reg(f, "i1", "true")
    for k in range(indices.shape[-1]):
        index, inside = _index(f, indices, base + k * indices.strides[-1], data.shape[batch + k])
        total = total + index * data.strides[batch + k]
        valid = f.binary("and", valid, inside)
    return total, valid


def _index(f: Function, indices: Operand, at: Reg, size: int) -> tuple[Reg, Reg]:
    """The index at an offset, made non-negative, and whether it is below `size`."""
    raw = f.cast("sext", f.load(ELEMENTS[indices.dtype], f.arg("in1"), at), "i64")
    index = f.select(f.compare("slt", raw, 0), raw + size, raw)
    return index, f.compare("ult", index, size)


# -- scatter ----------------------------------------------------------------------------------------
def _copied(m: Module, w: Workload, symbol: str) -> int:
    """The stage that copies data to the output; its units."""
    f = entry(m, symbol, w)
    out, data = w.outputs[0], _present(w, 0)
    element = _BITS[data.dtype.size_bytes]
    rows = out.shape[:-1]
    share = Share.of(math.prod(rows), out.shape[-1] if out.shape else 1)
    with share.items(f) as item:
        place = unravel(f, item, rows)
        source, target = (Epilogue.offset(f, o.strides[: len(rows)], place) for o in (data, out))
        with f.loop(0, out.shape[-1]) as i:
            value = f.load(element, f.arg("in0"), source + i * data.strides[-1])
            f.store(value, f.arg("out0"), target + i * out.strides[-1])
    f.ret()
    return share.units


def _updated(m: Module, w: Workload, symbol: str) -> int:
    """The stage that applies the updates; its units."""
    f = entry(m, symbol, w)
    units = _update_elements(f, w) if isinstance(w.op, ScatterElements) else _update_blocks(f, w)
    f.ret()
    return units


def _update_elements(f: Function, w: Workload) -> int:
    """Items are the positions beside the axis: along it, updates may meet."""
    assert isinstance(w.op, ScatterElements)
    out, indices, updates, axis = w.outputs[0], _present(w, 1), _present(w, 2), w.op.axis
    beside = [d for d in range(len(out.shape)) if d != axis]
    length = indices.shape[axis]
    share = Share.of(math.prod(indices.shape[d] for d in beside), length)
    with share.items(f) as item:
        place = unravel(f, item, [indices.shape[d] for d in beside])

        def offset(o: Operand) -> Reg:
            return Epilogue.offset(f, [o.strides[d] for d in beside], place)

        to, at, source = offset(out), offset(indices), offset(updates)
        with f.loop(0, length) as i:
            index, valid = _index(f, indices, at + i * indices.strides[axis], out.shape[axis])
            with f.when(valid):
                _combine(f, w, to + index * out.strides[axis], source + i * updates.strides[axis])
    return share.units


def _update_blocks(f: Function, w: Workload) -> int:
    """Items are the elements of a block: blocks may meet, their elements do not."""
    out, indices, updates = w.outputs[0], _present(w, 1), _present(w, 2)
    depth, outer = indices.shape[-1], indices.shape[:-1]
    block = out.shape[depth:]
    share = Share.of(math.prod(block), math.prod(outer))
    first = f.minimum(f.arg("begin") * share.per_unit, share.count)
    last = f.minimum(f.arg("end") * share.per_unit, share.count)
    with f.loop(0, math.prod(outer)) as m:
        place = unravel(f, m, outer)
        start, valid = _block(f, indices, place, out, 0)
        source = Epilogue.offset(f, updates.strides[: len(outer)], place)
        with f.when(valid), f.loop(first, last) as item:
            inner = unravel(f, item, block)
            to = start + Epilogue.offset(f, out.strides[depth:], inner)
            _combine(f, w, to, source + Epilogue.offset(f, updates.strides[len(outer) :], inner))
    return share.units


def _combine(f: Function, w: Workload, to: Reg, source: Reg) -> None:
    """One update: what is at `to` in the output, combined with the update at `source`."""
    assert isinstance(w.op, ScatterElements | ScatterNd)
    dtype, how = w.outputs[0].dtype, w.op.reduction
    element = _BITS[dtype.size_bytes] if how == "none" else ELEMENTS[dtype]
    new = f.load(element, f.arg("in2"), source)
    if how != "none":
        old = f.load(element, f.arg("out0"), to)
        if how in ("add", "mul"):  # integers wrap around, as in NumPy
            new = f.op(element, f"{'f' if is_float(element) else ''}{how} {element} {old.ref}, {new.ref}")
        else:
            new = _extreme(f, how, old, new, dtype)
    f.store(new, f.arg("out0"), to)


def _extreme(f: Function, how: str, old: Reg, new: Reg, dtype: DType) -> Reg:
    """The larger or smaller of two; NaN wins."""
    test = "gt" if how == "max" else "lt"
    if not is_float(old.ty):
        return f.select(f.compare(("s" if dtype.is_signed else "u") + test, new, old), new, old)
    wins = f.binary("or", f.compare("o" + test, new, old), vm.is_nan(f, new))
    return f.select(wins, new, old)
