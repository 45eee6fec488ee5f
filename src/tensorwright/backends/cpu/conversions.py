# SPDX-License-Identifier: Apache-2.0
"""Element types in memory and in registers, and the conversions between them.

Registers hold f16 and bf16 as `float` with a value that the narrow type has; every other type as it is in memory. bool
is an `i8` of 0 or 1. LLVM's integers have no sign, so code that needs it carries the `DType` along.
Narrowing never calls a compiler's support function: bf16 is made by integer arithmetic, and f64 goes to f16 by way of
f32 rounded to odd, after which the second rounding is right ("When double rounding is odd", Boldo and Melquiond, 2005).
"""

from __future__ import annotations

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import element_of, is_float, size_of, vector, width_of
from tensorwright.backends.cpu.small_types import FORMATS, INTEGER_BITS, decode_small, encode_small
from tensorwright.ir.dtype import DType

REGISTERS = {
    DType.f64: "double",
    DType.f32: "float",
    DType.f16: "float",
    DType.bf16: "float",
    DType.i64: "i64",
    DType.u64: "i64",
    DType.i32: "i32",
    DType.u32: "i32",
    DType.i16: "i16",
    DType.u16: "i16",
    DType.i8: "i8",
    DType.u8: "i8",
    DType.bool: "i8",
}
HALVES = frozenset({DType.f16, DType.bf16})
ELEMENTS = {d: e for d, e in REGISTERS.items() if d not in HALVES}  # the same in memory and in registers
SMALL = frozenset({*FORMATS, *INTEGER_BITS})  # only converted: no arithmetic on them
HELD = REGISTERS | {d: "float" if d.is_float else "i8" for d in (*SMALL, DType.f8e8m0fnu)}
STORED = HELD | dict.fromkeys(HALVES, "i16") | dict.fromkeys((*SMALL, DType.f8e8m0fnu), "i8")  # moved as bits


def decode(f: Function, x: Reg, dtype: DType) -> Reg:
    """What memory holds as what registers hold."""
    if dtype is DType.f16:
        return f.cast("fpext", f.cast("bitcast", x, _retype(x, "half")), _retype(x, "float"))
    if dtype is DType.bf16:
        high = f.binary("shl", f.cast("zext", x, _retype(x, "i32")), 16)
        return f.cast("bitcast", high, _retype(x, "float"))
    return decode_small(f, x, dtype) if dtype not in REGISTERS else x


def encode(f: Function, x: Reg, dtype: DType) -> Reg:
    """What registers hold (halves also before their rounding) as what memory holds; ties round to even."""
    if dtype is DType.f16:
        return f.cast("bitcast", f.cast("fptrunc", x, _retype(x, "half")), _retype(x, "i16"))
    if dtype is DType.bf16:
        bits = f.cast("bitcast", x, _retype(x, "i32"))
        odd = f.binary("and", f.binary("lshr", bits, 16), 1)
        rounded = f.binary("lshr", bits + odd + 0x7FFF, 16)
        quiet = f.binary("or", f.binary("lshr", bits, 16), 0x40)
        return f.cast("trunc", f.select(f.compare("uno", x, x), quiet, rounded), _retype(x, "i16"))
    return encode_small(f, x, dtype) if dtype in SMALL else x


def rounded(f: Function, x: Reg, dtype: DType) -> Reg:
    """A register of `dtype` after an instruction: the halves and smaller types lose the bits that they do not have."""
    return decode(f, encode(f, x, dtype), dtype) if dtype in HALVES or dtype in SMALL else x


def convert(f: Function, x: Reg, source: DType, to: DType) -> Reg:
    """The cast of a register. Floats lose their fraction in integers; integers wrap; non-zero becomes true.

    Floats out of the range of a 64-bit integer saturate; narrower ones take the low bits, as NumPy does. NaN is 0.
    """
    if to is DType.bool:
        nonzero = f.compare("une" if is_float(x.ty) else "ne", x, 0)
        return f.cast("zext", nonzero, _retype(x, "i8"))
    if source.is_float and to.is_float:
        return rounded(f, _resized(f, x, source, to), to)
    if source.is_float:
        return _truncated(f, x, to)
    if to.is_float:
        how = "sitofp" if source.is_signed else "uitofp"
        # NumPy and ml_dtypes make a half of an integer by way of f32, too
        return rounded(f, f.cast(how, x, _retype(x, HELD[to])), to)
    ty = _retype(x, HELD[to])
    if size_of(ty) <= size_of(x.ty):
        return rounded(f, f.cast("trunc", x, ty), to)
    return f.cast("sext" if source.is_signed else "zext", x, ty)


def _resized(f: Function, x: Reg, source: DType, to: DType) -> Reg:
    """A float in the register type of `to`, not rounded to a half or smaller type yet. ml_dtypes makes these of f64
    by way of f32."""
    ty = _retype(x, HELD[to])
    if source is not DType.f64 or to is DType.f64:
        return f.cast("fpext", x, ty)
    return _round_to_odd(f, x, ty) if to is DType.f16 else f.cast("fptrunc", x, ty)


def _round_to_odd(f: Function, x: Reg, ty: str) -> Reg:
    """f64 as f32: when it is not exact, the neighbour whose last bit is set."""
    near = f.cast("fptrunc", x, ty)
    back = f.cast("fpext", near, x.ty)
    bits = f.cast("bitcast", near, _retype(x, "i32"))
    sizes = (f.intrinsic("fabs", x.ty, v) for v in (back, x))
    below = f.select(f.compare("ogt", *sizes), bits - 1, bits)
    return f.cast("bitcast", f.select(f.compare("one", back, x), f.binary("or", below, 1), bits), ty)


def _truncated(f: Function, x: Reg, to: DType) -> Reg:
    """A float as an integer."""
    ty = _retype(x, HELD[to])
    wide = _retype(x, "i64" if to.size_bytes == 8 or to is DType.u32 else "i32")
    whole = _saturating(f, "fptosi", x, wide)
    if to is DType.u64:
        whole = f.select(f.compare("olt", x, 0), whole, _saturating(f, "fptoui", x, wide))
    return rounded(f, f.cast("trunc", whole, ty), to)


def _saturating(f: Function, how: str, x: Reg, ty: str) -> Reg:
    return f.call(f"llvm.{how}.sat.{_suffix(ty)}.{_suffix(x.ty)}", ty, x)


def _suffix(ty: str) -> str:
    """The type part of an intrinsic's name."""
    element = {"float": "f32", "double": "f64"}.get(element_of(ty), element_of(ty))
    return element if width_of(ty) == 1 else f"v{width_of(ty)}{element}"


def _retype(x: Reg, element: str) -> str:
    return vector(width_of(x.ty), element)
