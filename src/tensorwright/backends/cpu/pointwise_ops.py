# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops as LLVM instructions, on scalars or vectors alike: one table entry per op class.

Registers hold what `conversions` says. The halves compute in f32 and are rounded after every instruction, as separate
ops round them; integers wrap.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensorwright.backends.cpu import bit_math as bm
from tensorwright.backends.cpu import double_math as dm
from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.conversions import ELEMENTS as ELEMENTS
from tensorwright.backends.cpu.conversions import HELD, REGISTERS, SMALL, convert, rounded
from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import element_of, is_float, vector, width_of
from tensorwright.backends.cpu.quantise_math import dequantise, quantise
from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ir.types import TensorType
from tensorwright.ops import activation as act
from tensorwright.ops import bitwise as bits
from tensorwright.ops import elementwise as ew
from tensorwright.ops.fused import Fused, Literal
from tensorwright.ops.quantise import Dequantise, Quantise

_FLOATS = frozenset(d for d in REGISTERS if d.is_float)
_INTEGERS = frozenset(d for d in REGISTERS if d.is_integer)
_NUMBERS = frozenset(REGISTERS) - {DType.bool}
_BOOL = frozenset({DType.bool})
_ANY = frozenset(REGISTERS)
_CONVERTED = frozenset(HELD)
_Emit = Callable[[Function, Any, Sequence[Reg], Sequence[DType]], Reg]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an op class is emitted, and for which types of its inputs."""

    emit: _Emit
    types: frozenset[DType]


def supports(op: Op, dtypes: Sequence[DType]) -> str | None:
    """Why `emit_instr` cannot compute `op` on inputs of these types; None when it can."""
    if isinstance(op, Literal):
        return None if op.dtype in REGISTERS else f"literal of {op.dtype}"
    rule = _RULES.get(type(op))
    if rule is None:
        return f"{op.kind} is not a pointwise op of this backend"
    if isinstance(op, ew.Cast | bits.BitCast | Quantise | Dequantise) and op.dtype not in REGISTERS:
        if isinstance(op, bits.BitCast) or op.dtype not in SMALL:
            return f"{op.kind} to {op.dtype}"
    wrong = [str(d) for d in dtypes if d not in rule.types and not (isinstance(op, ew.Where) and d is DType.bool)]
    return f"{op.kind} of {', '.join(wrong)}" if wrong else None


def emit_instr(f: Function, op: Op, args: Sequence[Reg], dtypes: Sequence[DType]) -> Reg:
    """The value of `op` on registers of equal width that hold `dtypes`; see `supports` for those.

    NaN and infinities follow the op's reference. Integer division by zero gives 0, as NumPy's does.
    """
    rule = _RULES.get(type(op))
    if rule is None:
        raise InternalError(f"{op.kind} is not a pointwise op of the CPU backend", why="a family accepted it unchecked")
    return rounded(f, rule.emit(f, op, args, dtypes), result_type(op, dtypes))


def result_type(op: Op, dtypes: Sequence[DType]) -> DType:
    """The type that a pointwise op makes of these."""
    return op.infer(*(TensorType(d, ()) for d in dtypes))[0].dtype


def emit_body(
    f: Function, fused: Fused, args: Sequence[Reg | None], anchor: Reg | None, dtypes: Sequence[DType] | None = None
) -> Reg:
    """The result of a region's body. `args` are the node's inputs (None where the body does not read them),
    `anchor` the anchor's result; all of equal width. `dtypes` are those of the inputs and, when there is an anchor,
    of its result; all f32 unless given. Literals become constants."""
    values: list[Reg | None] = [*args, anchor] if fused.anchor is not None else list(args)
    types = list(dtypes) if dtypes is not None else [DType.f32] * len(values)
    width = next((width_of(v.ty) for v in reversed(values) if v is not None), 1)
    for instr in fused.body:
        if isinstance(instr.op, Literal):
            values.append(f.const(vector(width, REGISTERS[instr.op.dtype]), instr.op.value))
            types.append(instr.op.dtype)
            continue
        operands = []
        for index in instr.args:
            value = values[index]
            if value is None:
                raise InternalError(f"the body of a region reads value {index}, which is absent")
            operands.append(value)
        held = [types[index] for index in instr.args]
        values.append(emit_instr(f, instr.op, operands, held))
        types.append(result_type(instr.op, held))
    result = values[-1]
    if result is None:
        raise InternalError("a region has no result")
    return result


# -- helpers ------------------------------------------------------------------------------------
def constant_of(x: Reg) -> float | int | None:
    """The number a register is known to hold in every lane, or None."""
    text = x.ref.removeprefix("splat (").removesuffix(")").rsplit(" ", 1)[-1]
    if text.startswith("0x"):
        return float(struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0])
    return int(text) if text.lstrip("-").isdigit() else None


def _boolean(f: Function, condition: Reg) -> Reg:
    """i1 lanes as stored bools."""
    return f.cast("zext", condition, vector(width_of(condition.ty), "i8"))


def _condition(f: Function, x: Reg) -> Reg:
    """Stored bools as i1 lanes."""
    return f.compare("ne", x, 0)


def _is_double(x: Reg) -> bool:
    return element_of(x.ty) == "double"


def compare(f: Function, how: str, a: Reg, b: Reg | float, dtype: DType) -> Reg:
    """i1 lanes of `lt le gt ge eq`, false for NaN."""
    if is_float(a.ty):
        return f.compare("o" + how, a, b)
    return f.compare(how if how == "eq" else ("s" if dtype.is_signed else "u") + how, a, b)


def extreme(f: Function, how: str, a: Reg, b: Reg, dtype: DType) -> Reg:
    """The larger (`how` "gt") or smaller ("lt") of two registers; NaN when either is."""
    result = f.select(compare(f, how, b, a, dtype), b, a)  # a NaN in a stays
    known = constant_of(b)
    if is_float(a.ty) and (known is None or math.isnan(known)):
        result = f.select(vm.is_nan(f, b), b, result)
    return result


# -- rules with attributes or several types -----------------------------------------------------
def _abs(f: Function, op: Op, dtype: DType, x: Reg) -> Reg:
    if is_float(x.ty):
        return vm.absolute(f, x)
    return f.select(f.compare("slt", x, 0), _wrapping_negative(f, x), x) if dtype.is_signed else x


def _neg(f: Function, op: Op, x: Reg) -> Reg:
    return f.fneg(x) if is_float(x.ty) else _wrapping_negative(f, x)


def _relu(f: Function, op: Op, dtype: DType, x: Reg) -> Reg:
    return f.maximum(x, 0) if dtype.is_signed else x


def _sign(f: Function, op: Op, dtype: DType, x: Reg) -> Reg:
    below = f.select(compare(f, "lt", x, 0, dtype), f.const(x.ty, -1), x) if dtype.is_signed else x
    return f.select(compare(f, "gt", x, 0, dtype), f.const(x.ty, 1), below)


def _hard_swish(f: Function, op: Op, x: Reg) -> Reg:
    return x * f.minimum(f.maximum(x / 6.0 + 0.5, 0.0), 1.0)


def _leaky_relu(f: Function, op: act.LeakyRelu, x: Reg) -> Reg:
    return f.select(f.compare("olt", x, 0.0), x * op.alpha, x)


def _elu(f: Function, op: act.Elu, x: Reg) -> Reg:
    return f.select(f.compare("olt", x, 0.0), _expm1(f, x) * op.alpha, x)


def _selu(f: Function, op: act.Selu, x: Reg) -> Reg:
    return f.select(f.compare("ole", x, 0.0), _expm1(f, x) * op.alpha, x) * op.gamma


def _expm1(f: Function, x: Reg) -> Reg:
    return dm.expm1(f, x) if _is_double(x) else vm.expm1(f, x)


def _softplus(f: Function, op: act.Softplus, x: Reg) -> Reg:
    softplus = dm.softplus if _is_double(x) else vm.softplus
    return softplus(f, x) if op.beta == 1 else softplus(f, x * op.beta) / op.beta


def _hard_sigmoid(f: Function, op: act.HardSigmoid, x: Reg) -> Reg:
    return f.minimum(f.maximum(x * op.alpha + op.beta, 0.0), 1.0)


def _thresholded_relu(f: Function, op: act.ThresholdedRelu, x: Reg) -> Reg:
    return f.select(f.compare("ogt", x, op.alpha), x, f.const(x.ty, 0.0))


def _gelu(f: Function, op: act.Gelu, x: Reg) -> Reg:
    if _is_double(x):
        return dm.gelu_tanh(f, x) if op.approximate else dm.gelu(f, x)
    return vm.gelu_tanh(f, x) if op.approximate else vm.gelu(f, x)


def _clip(f: Function, op: act.Clip, dtype: DType, x: Reg) -> Reg:
    for bound, how in ((op.low, "gt"), (op.high, "lt")):
        if bound is not None:
            limit = f.const(x.ty, bound if is_float(x.ty) else _in_range(bound, dtype))
            x = extreme(f, how, x, rounded(f, limit, dtype), dtype)
    return x


def _in_range(bound: float, dtype: DType) -> int:
    bits = dtype.size_bytes * 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.is_signed else (0, (1 << bits) - 1)
    return low if bound <= low else high if bound >= high else int(bound)


def _cast(f: Function, op: ew.Cast, dtype: DType, x: Reg) -> Reg:
    return convert(f, x, dtype, op.dtype)


def _div(f: Function, op: Op, dtype: DType, a: Reg, b: Reg) -> Reg:
    return a / b if is_float(a.ty) else _divide_integers(f, a, b, dtype)[0]


def _divide_integers(f: Function, a: Reg, b: Reg, dtype: DType) -> tuple[Reg, Reg]:
    """Truncated quotient and remainder; both 0 for b = 0. The divisor -1 is avoided too: min / -1 would trap."""
    zero, one = f.const(a.ty, 0), f.const(a.ty, 1)
    if dtype.is_signed:
        minus = f.compare("eq", b, -1)
        safe = f.select(f.binary("or", minus, f.compare("eq", b, 0)), one, b)
        quotient, rest = f.binary("div", a, safe), f.binary("srem", a, safe)
        quotient = f.select(minus, _wrapping_negative(f, a), quotient)
    else:
        safe = f.select(f.compare("eq", b, 0), one, b)
        quotient, rest = f.binary("udiv", a, safe), f.binary("urem", a, safe)
    return f.select(f.compare("eq", b, 0), zero, quotient), rest


def _wrapping_negative(f: Function, a: Reg) -> Reg:
    return _wrapping(f, "sub", f.const(a.ty, 0), a)


def _wrapping(f: Function, name: str, a: Reg, b: Reg) -> Reg:
    """Integer arithmetic on data, which may overflow (the builder's own is for indices, which may not)."""
    return f.op(a.ty, f"{name} {a.ty} {a.ref}, {b.ref}")


def _mod(f: Function, op: ew.Mod, dtype: DType, a: Reg, b: Reg) -> Reg:
    if not is_float(a.ty):
        rest = _divide_integers(f, a, b, dtype)[1]
    else:
        rest = (dm if _is_double(a) else vm).remainder(f, a, b)
    if op.fmod or not dtype.is_signed:
        return rest
    differs = f.binary("xor", compare(f, "lt", rest, 0, dtype), compare(f, "lt", b, 0, dtype))
    nonzero = f.compare("une" if is_float(a.ty) else "ne", rest, 0)
    shifted = f.binary("and", differs, nonzero)
    if not is_float(a.ty):
        shifted = f.binary("and", shifted, f.compare("ne", b, 0))
    moved = rest + b if is_float(a.ty) else _wrapping(f, "add", rest, b)
    return f.select(shifted, moved, rest)


def _pow(f: Function, op: Op, args: Sequence[Reg], dtypes: Sequence[DType]) -> Reg:
    (x, y), (dtype, exponent) = args, dtypes
    if not dtype.is_float:
        return _integer_power(f, x, y, dtype, exponent)
    y = convert(f, y, exponent, dtype)
    known = constant_of(y)
    if known == 0.5:  # NaN at -inf as NumPy's shortcut gives, where C's pow has +inf
        return vm.sqrt(f, x)
    if known in (1, 2, 3, 4):
        square = x * x if known > 1 else x
        return {1: x, 2: square, 3: square * x, 4: square * square}[int(known)]
    if known == -1:
        return f.const(x.ty, 1.0) / x
    return dm.power(f, x, y) if _is_double(x) else vm.power(f, x, y)


def _integer_power(f: Function, x: Reg, y: Reg, dtype: DType, exponent: DType) -> Reg:
    """x^y of integers by squaring, wrapping. A negative exponent, or one with a fraction, goes through f64."""
    wide, base = DType.f64, dtype
    through_double = convert(f, dm.power(f, convert(f, x, base, wide), convert(f, y, exponent, wide)), wide, dtype)
    if exponent.is_float:
        return through_double
    power, result = f.var(x.ty, x), f.var(x.ty, f.const(x.ty, 1))
    left = f.var(y.ty, y)
    with f.loop(0, exponent.size_bytes * 8):
        odd = f.compare("ne", f.binary("and", left.get(), 1), 0)
        result.set(f.select(odd, _wrapping(f, "mul", result.get(), power.get()), result.get()))
        power.set(_wrapping(f, "mul", power.get(), power.get()))
        left.set(f.binary("lshr", left.get(), 1))
    if not exponent.is_signed:
        return result.get()
    return f.select(f.compare("slt", y, 0), through_double, result.get())


def _p_relu(f: Function, op: Op, dtype: DType, x: Reg, slope: Reg) -> Reg:
    scaled = x * slope if is_float(x.ty) else _wrapping(f, "mul", x, slope)
    return f.select(compare(f, "lt", x, 0, dtype), scaled, x)


def _where(f: Function, op: Op, condition: Reg, a: Reg, b: Reg) -> Reg:
    return f.select(_condition(f, condition), a, b)


# -- the table ----------------------------------------------------------------------------------
def _with(emit: Callable[..., Reg]) -> _Emit:
    """A rule function that takes its operands as separate arguments."""
    return lambda f, op, args, dtypes: emit(f, op, *args)


def _typed(emit: Callable[..., Reg]) -> _Emit:
    """The same for one that asks for the type of its first operand, too."""
    return lambda f, op, args, dtypes: emit(f, op, dtypes[0], *args)


def _function(emit: Callable[[Function, Reg], Reg]) -> _Emit:
    """A rule of an op without attributes."""
    return lambda f, op, args, dtypes: emit(f, args[0])


def _by_width(single: Callable[[Function, Reg], Reg], double: Callable[..., Reg]) -> _Emit:
    """A rule of an elementary function."""
    return lambda f, op, args, dtypes: (double if _is_double(args[0]) else single)(f, args[0])


def _rounding(intrinsic: str) -> _Emit:
    return lambda f, op, args, dtypes: f.intrinsic(intrinsic, args[0].ty, args[0])


def _arithmetic(name: str) -> _Emit:
    return lambda f, op, args, dtypes: (f.binary if is_float(args[0].ty) else partial(_wrapping, f))(
        name, args[0], args[1]
    )


def _relation(how: str) -> _Emit:
    return lambda f, op, args, dtypes: _boolean(f, compare(f, how, args[0], args[1], dtypes[0]))


def _choice(how: str) -> _Emit:
    return lambda f, op, args, dtypes: extreme(f, how, args[0], args[1], dtypes[0])


_MATH: dict[type[Op], tuple[Callable[[Function, Reg], Reg], Callable[..., Reg]]] = {
    ew.Exp: (vm.exp, dm.exp),
    ew.Log: (vm.log, dm.log),
    act.Sigmoid: (vm.sigmoid, dm.sigmoid),
    ew.Tanh: (vm.tanh, dm.tanh),
    ew.Erf: (vm.erf, dm.erf),
    act.Silu: (vm.silu, dm.silu),
    act.Mish: (vm.mish, dm.mish),
    ew.Sin: (vm.sin, dm.sin),
    ew.Cos: (vm.cos, dm.cos),
    ew.Tan: (vm.tan, dm.tan),
    ew.Asin: (vm.asin, dm.asin),
    ew.Acos: (vm.acos, dm.acos),
    ew.Atan: (vm.atan, dm.atan),
    ew.Sinh: (vm.sinh, dm.sinh),
    ew.Cosh: (vm.cosh, dm.cosh),
    ew.Asinh: (vm.asinh, dm.asinh),
    ew.Acosh: (vm.acosh, dm.acosh),
    ew.Atanh: (vm.atanh, dm.atanh),
}

_RULES: dict[type[Op], _Rule] = {
    **{kind: _Rule(_by_width(*emit), _FLOATS) for kind, emit in _MATH.items()},
    act.Elu: _Rule(_with(_elu), _FLOATS),
    act.Selu: _Rule(_with(_selu), _FLOATS),
    act.Softplus: _Rule(_with(_softplus), _FLOATS),
    act.Gelu: _Rule(_with(_gelu), _FLOATS),
    ew.Pow: _Rule(_pow, _NUMBERS),
    ew.Abs: _Rule(_typed(_abs), _NUMBERS),
    ew.Neg: _Rule(_with(_neg), _NUMBERS),
    act.Relu: _Rule(_typed(_relu), _NUMBERS),
    ew.Sign: _Rule(_typed(_sign), _NUMBERS),
    act.Clip: _Rule(_typed(_clip), _NUMBERS),
    ew.Sqrt: _Rule(_function(vm.sqrt), _FLOATS),
    ew.Reciprocal: _Rule(_function(lambda f, x: f.const(x.ty, 1.0) / x), _FLOATS),
    act.Softsign: _Rule(_function(lambda f, x: x / (vm.absolute(f, x) + 1.0)), _FLOATS),
    act.HardSwish: _Rule(_with(_hard_swish), _FLOATS),
    act.HardSigmoid: _Rule(_with(_hard_sigmoid), _FLOATS),
    act.LeakyRelu: _Rule(_with(_leaky_relu), _FLOATS),
    act.ThresholdedRelu: _Rule(_with(_thresholded_relu), _FLOATS),
    ew.Floor: _Rule(_rounding("floor"), _FLOATS),
    ew.Ceil: _Rule(_rounding("ceil"), _FLOATS),
    ew.Round: _Rule(_rounding("roundeven"), _FLOATS),
    ew.IsNan: _Rule(_function(lambda f, x: _boolean(f, vm.is_nan(f, x))), _FLOATS),
    ew.Not: _Rule(_function(lambda f, x: _boolean(f, f.compare("eq", x, 0))), _BOOL),
    ew.And: _Rule(_arithmetic("and"), _BOOL),
    ew.Or: _Rule(_arithmetic("or"), _BOOL),
    ew.Xor: _Rule(_arithmetic("xor"), _BOOL),
    bits.BitwiseAnd: _Rule(_arithmetic("and"), _INTEGERS),
    bits.BitwiseOr: _Rule(_arithmetic("or"), _INTEGERS),
    bits.BitwiseXor: _Rule(_arithmetic("xor"), _INTEGERS),
    bits.BitwiseNot: _Rule(_function(lambda f, x: f.binary("xor", x, -1)), _INTEGERS),
    bits.BitShift: _Rule(_typed(bm.shift), _INTEGERS),
    bits.BitCast: _Rule(_typed(bm.reinterpret), _ANY),
    ew.Add: _Rule(_arithmetic("add"), _NUMBERS),
    ew.Sub: _Rule(_arithmetic("sub"), _NUMBERS),
    ew.Mul: _Rule(_arithmetic("mul"), _NUMBERS),
    ew.Div: _Rule(_typed(_div), _NUMBERS),
    ew.Mod: _Rule(_typed(_mod), _NUMBERS),
    ew.Maximum: _Rule(_choice("gt"), _NUMBERS),
    ew.Minimum: _Rule(_choice("lt"), _NUMBERS),
    act.PRelu: _Rule(_typed(_p_relu), _NUMBERS),
    ew.Equal: _Rule(_relation("eq"), _ANY),
    ew.Less: _Rule(_relation("lt"), _NUMBERS),
    ew.LessEqual: _Rule(_relation("le"), _NUMBERS),
    ew.Greater: _Rule(_relation("gt"), _NUMBERS),
    ew.GreaterEqual: _Rule(_relation("ge"), _NUMBERS),
    ew.Where: _Rule(_with(_where), _ANY),
    ew.Cast: _Rule(_typed(_cast), _CONVERTED),
    Quantise: _Rule(quantise, _CONVERTED),
    Dequantise: _Rule(dequantise, _CONVERTED),
}
