# SPDX-License-Identifier: Apache-2.0
"""Integers of 2 and 4 bits and floats of 4 to 8 bits: each lies in the low bits of a byte, as in ml_dtypes.

A float's register is a `float` with a value that the small type has, an integer's an `i8` with its value.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import vector, width_of
from tensorwright.ir.dtype import DType

_F32_MANTISSA, _F32_BIAS = 23, 127


@dataclass(frozen=True, slots=True)
class Format:
    """How a small float lies in its bits: a sign, `exponent` bits with `bias`, `mantissa` bits.

    `largest` is the code of the largest number without its sign, `overflow` that of everything beyond, `nan` that of
    NaN. `has_infinity`: the code after `largest` is infinity. `single_zero`: there is no -0, its code is NaN.
    """

    exponent: int
    mantissa: int
    bias: int
    largest: int
    overflow: int
    nan: int
    has_infinity: bool = False
    single_zero: bool = False

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (self.exponent + self.mantissa)


FORMATS = {
    DType.f8e4m3fn: Format(4, 3, 7, 0x7E, 0x7F, 0x7F),
    DType.f8e5m2: Format(5, 2, 15, 0x7B, 0x7C, 0x7E, has_infinity=True),
    DType.f8e4m3fnuz: Format(4, 3, 8, 0x7F, 0x80, 0x80, single_zero=True),
    DType.f8e5m2fnuz: Format(5, 2, 16, 0x7F, 0x80, 0x80, single_zero=True),
    DType.f6e2m3fn: Format(2, 3, 1, 0x1F, 0x1F, 0x20),
    DType.f6e3m2fn: Format(3, 2, 3, 0x1F, 0x1F, 0x20),
    DType.f4e2m1fn: Format(2, 1, 1, 0x07, 0x07, 0x08),
}
"""Types without NaN give -0 for it, as ml_dtypes does."""

INTEGER_BITS = {DType.i4: 4, DType.u4: 4, DType.i2: 2, DType.u2: 2}


def decode_small(f: Function, x: Reg, dtype: DType) -> Reg:
    """The register of a byte."""
    if dtype in INTEGER_BITS:
        unused = 8 - INTEGER_BITS[dtype]
        return f.binary("ashr" if dtype.is_signed else "lshr", f.binary("shl", x, unused), unused)
    code = f.cast("zext", x, _like(x, "i32"))
    if dtype is DType.f8e8m0fnu:
        return _power_of_two(f, code)
    form = FORMATS[dtype]
    size = f.binary("and", code, form.sign - 1)
    negative = f.binary("shl", f.binary("and", code, form.sign), 31 - (form.exponent + form.mantissa))
    # as bits of an f32 the code is the number times 2 to the difference of the biases, also where it is denormal
    scaled = f.cast("bitcast", f.binary("shl", size, _F32_MANTISSA - form.mantissa), _like(x, "float"))
    value = f.cast("bitcast", scaled * 2.0 ** (_F32_BIAS - form.bias), _like(x, "i32"))
    if form.has_infinity:
        value = f.select(f.compare("sgt", size, form.largest), f.const(value.ty, 0x7F800000), value)
    if form.single_zero or form.largest != form.overflow:
        low = f.binary("and", code, 2 * form.sign - 1)
        is_nan = f.compare("eq", low, form.nan) if form.single_zero else f.compare("sgt", size, _last_number(form))
        value = f.select(is_nan, f.const(value.ty, 0x7FC00000), value)
    return f.cast("bitcast", f.binary("or", value, negative), _like(x, "float"))


def encode_small(f: Function, x: Reg, dtype: DType) -> Reg:
    """The byte of a register; floats are rounded to the nearest number, ties to the even one."""
    if dtype in INTEGER_BITS:
        return f.binary("and", x, (1 << INTEGER_BITS[dtype]) - 1)
    form = FORMATS[dtype]
    bits = f.cast("bitcast", x, _like(x, "i32"))
    size = f.binary("and", bits, 0x7FFFFFFF)
    drop = _F32_MANTISSA - form.mantissa
    odd = f.binary("and", f.binary("lshr", size, drop), 1)
    rounded = f.binary("lshr", size + odd + ((1 << drop - 1) - 1), drop)
    normal = rounded - ((_F32_BIAS - form.bias) << form.mantissa)
    # below the smallest normal number, adding a number whose last bit is the smallest denormal one rounds to it
    magic = f.const(x.ty, 2.0 ** (drop + 1 - form.bias))
    total = f.cast("bitcast", f.cast("bitcast", size, x.ty) + magic, _like(x, "i32"))
    denormal = total - f.cast("bitcast", magic, _like(x, "i32"))
    smallest = (_F32_BIAS + 1 - form.bias) << _F32_MANTISSA
    code = f.select(f.compare("slt", size, smallest), denormal, normal)
    code = f.select(f.compare("sgt", code, form.largest), f.const(code.ty, form.overflow), code)
    code = f.select(f.compare("uno", x, x), f.const(code.ty, form.nan), code)
    sign = f.binary("and", f.binary("lshr", bits, 31 - (form.exponent + form.mantissa)), form.sign)
    if form.single_zero:
        sign = f.select(f.compare("eq", f.binary("and", code, form.sign - 1), 0), f.const(sign.ty, 0), sign)
    return f.cast("trunc", f.binary("or", code, sign), _like(x, "i8"))


def _last_number(form: Format) -> int:
    """The largest code that is not NaN."""
    return form.largest + form.has_infinity


def _power_of_two(f: Function, code: Reg) -> Reg:
    """2^(code - 127); the lowest one is a denormal f32, and 255 is NaN."""
    bits = f.select(f.compare("eq", code, 0), f.const(code.ty, 0x00400000), f.binary("shl", code, _F32_MANTISSA))
    bits = f.select(f.compare("eq", code, 255), f.const(code.ty, 0x7FC00000), bits)
    return f.cast("bitcast", bits, _like(code, "float"))


def _like(x: Reg, element: str) -> str:
    return vector(width_of(x.ty), element)
