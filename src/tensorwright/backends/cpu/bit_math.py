# SPDX-License-Identifier: Apache-2.0
"""Functions on the bits of registers."""

from __future__ import annotations

from tensorwright.backends.cpu.conversions import STORED, decode, encode
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import vector, width_of
from tensorwright.ir.dtype import DType
from tensorwright.ops.bitwise import BitCast, BitShift


def shift(f: Function, op: BitShift, dtype: DType, a: Reg, b: Reg) -> Reg:
    """LLVM leaves shifts by the whole width and more undefined."""
    count = dtype.size_bytes * 8
    inside = f.compare("ult", b, count)
    if not op.left and dtype.is_signed:
        return f.binary("ashr", a, f.select(inside, b, f.const(b.ty, count - 1)))
    shifted = f.binary("shl" if op.left else "lshr", a, f.select(inside, b, f.const(b.ty, 0)))
    return f.select(inside, shifted, f.const(a.ty, 0))


def reinterpret(f: Function, op: BitCast, dtype: DType, x: Reg) -> Reg:
    """The bits of a register of `dtype` as another type."""
    ty = vector(width_of(x.ty), STORED[op.dtype])
    return decode(f, f.cast("bitcast", encode(f, x, dtype), ty), op.dtype)
