# SPDX-License-Identifier: Apache-2.0
"""Pointwise ops as LLVM instructions, on scalars or vectors alike: one table entry per op class.

Element types in registers: f32 `float`, f64 `double`, i64, i32, and `i8` for bool (0 or 1) and u8: an i8 is unsigned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tensorwright.backends.cpu import vector_math as vm
from tensorwright.backends.cpu.emitter import Function, Reg, element_of, is_float, vector, width_of
from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Op
from tensorwright.ops import activation as act
from tensorwright.ops import elementwise as ew
from tensorwright.ops.fused import Fused, Literal

ELEMENTS = {
    DType.f32: "float",
    DType.f64: "double",
    DType.i64: "i64",
    DType.i32: "i32",
    DType.bool: "i8",
    DType.u8: "i8",
}

_F32 = frozenset({DType.f32})
_FLOATS = frozenset({DType.f32, DType.f64})
_NUMBERS = frozenset(ELEMENTS) - {DType.bool}
_BOOL = frozenset({DType.bool})
_ANY = frozenset(ELEMENTS)
_Emit = Callable[[Function, Any, Sequence[Reg]], Reg]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an op class is emitted, and for which types of its inputs."""

    emit: _Emit
    types: frozenset[DType]


def supports(op: Op, dtypes: Sequence[DType]) -> str | None:
    """Why `emit_instr` cannot compute `op` on inputs of these types; None when it can."""
    if isinstance(op, Literal):
        return None if op.dtype in ELEMENTS else f"literal of {op.dtype}"
    rule = _RULES.get(type(op))
    if rule is None:
        return f"{op.kind} is not a pointwise op of this backend"
    if isinstance(op, ew.Cast) and op.dtype not in ELEMENTS:
        return f"cast to {op.dtype}"
    if isinstance(op, ew.Pow):
        dtypes = dtypes[:1]  # the exponent is cast to the type of the base
    wrong = [str(d) for d in dtypes if d not in rule.types and not (isinstance(op, ew.Where) and d is DType.bool)]
    return f"{op.kind} of {', '.join(wrong)}" if wrong else None


def emit_instr(f: Function, op: Op, args: Sequence[Reg]) -> Reg:
    """The value of `op` on registers of equal width; see `supports` for the types.

    NaN and infinities follow the op's reference. Integer division by zero gives 0, as NumPy's does.
    """
    rule = _RULES.get(type(op))
    if rule is None:
        raise InternalError(f"{op.kind} is not a pointwise op of the CPU backend", why="a family accepted it unchecked")
    return rule.emit(f, op, args)


def emit_body(f: Function, fused: Fused, args: Sequence[Reg | None], anchor: Reg | None) -> Reg:
    """The result of a region's body. `args` are the node's inputs (None where the body does not read them),
    `anchor` the anchor's result; all of equal width. Literals become constants."""
    values: list[Reg | None] = [*args, anchor] if fused.anchor is not None else list(args)
    width = next((width_of(v.ty) for v in reversed(values) if v is not None), 1)
    for instr in fused.body:
        if isinstance(instr.op, Literal):
            values.append(f.const(vector(width, ELEMENTS[instr.op.dtype]), instr.op.value))
            continue
        operands = []
        for index in instr.args:
            value = values[index]
            if value is None:
                raise InternalError(f"the body of a region reads value {index}, which is absent")
            operands.append(value)
        values.append(emit_instr(f, instr.op, operands))
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


def _is_unsigned(x: Reg) -> bool:
    return element_of(x.ty) == "i8"


def _boolean(f: Function, condition: Reg) -> Reg:
    """i1 lanes as stored bools."""
    return f.cast("zext", condition, vector(width_of(condition.ty), "i8"))


def _condition(f: Function, x: Reg) -> Reg:
    """Stored bools as i1 lanes."""
    return f.compare("ne", x, 0)


def _retype(x: Reg, element: str) -> str:
    return vector(width_of(x.ty), element)


def _compare(f: Function, how: str, a: Reg, b: Reg | float) -> Reg:
    """i1 lanes of `lt le gt ge eq`, false for NaN, by the signedness of the element type."""
    if is_float(a.ty):
        return f.compare("o" + how, a, b)
    return f.compare(how if how == "eq" else ("u" if _is_unsigned(a) else "s") + how, a, b)


def extreme(f: Function, how: str, a: Reg, b: Reg) -> Reg:
    """The larger (`how` "gt") or smaller ("lt") of two registers; NaN when either is."""
    result = f.select(_compare(f, how, b, a), b, a)  # a NaN in a stays
    known = constant_of(b)
    if is_float(a.ty) and (known is None or math.isnan(known)):
        result = f.select(vm.is_nan(f, b), b, result)
    return result


# -- rules with attributes or several types -----------------------------------------------------
def _abs(f: Function, op: Op, x: Reg) -> Reg:
    if is_float(x.ty):
        return vm.absolute(f, x)
    return x if _is_unsigned(x) else f.select(f.compare("slt", x, 0), _wrapping_negative(f, x), x)


def _neg(f: Function, op: Op, x: Reg) -> Reg:
    return f.fneg(x) if is_float(x.ty) else _wrapping_negative(f, x)


def _relu(f: Function, op: Op, x: Reg) -> Reg:
    return x if _is_unsigned(x) else f.maximum(x, 0)


def _sign(f: Function, op: Op, x: Reg) -> Reg:
    below = x if _is_unsigned(x) else f.select(_compare(f, "lt", x, 0), f.const(x.ty, -1), x)
    return f.select(_compare(f, "gt", x, 0), f.const(x.ty, 1), below)


def _hard_swish(f: Function, op: Op, x: Reg) -> Reg:
    return x * f.minimum(f.maximum(x / 6.0 + 0.5, 0.0), 1.0)


def _leaky_relu(f: Function, op: act.LeakyRelu, x: Reg) -> Reg:
    return f.select(f.compare("olt", x, 0.0), x * op.alpha, x)


def _elu(f: Function, op: act.Elu, x: Reg) -> Reg:
    return f.select(f.compare("olt", x, 0.0), vm.expm1(f, x) * op.alpha, x)


def _selu(f: Function, op: act.Selu, x: Reg) -> Reg:
    return f.select(f.compare("ole", x, 0.0), vm.expm1(f, x) * op.alpha, x) * op.gamma


def _softplus(f: Function, op: act.Softplus, x: Reg) -> Reg:
    return vm.softplus(f, x) if op.beta == 1 else vm.softplus(f, x * op.beta) / op.beta


def _hard_sigmoid(f: Function, op: act.HardSigmoid, x: Reg) -> Reg:
    return f.minimum(f.maximum(x * op.alpha + op.beta, 0.0), 1.0)


def _thresholded_relu(f: Function, op: act.ThresholdedRelu, x: Reg) -> Reg:
    return f.select(f.compare("ogt", x, op.alpha), x, f.const(x.ty, 0.0))


def _gelu(f: Function, op: act.Gelu, x: Reg) -> Reg:
    return vm.gelu_tanh(f, x) if op.approximate else vm.gelu(f, x)


def _clip(f: Function, op: act.Clip, x: Reg) -> Reg:
    for bound, how in ((op.low, "gt"), (op.high, "lt")):
        if bound is not None:
            x = extreme(f, how, x, f.const(x.ty, bound if is_float(x.ty) else _in_range(bound, element_of(x.ty))))
    return x


def _in_range(bound: float, element: str) -> int:
    low, high = {"i8": (0, 255), "i32": (-(1 << 31), (1 << 31) - 1), "i64": (-(1 << 63), (1 << 63) - 1)}[element]
    return int(min(max(bound, low), high))


def _cast(f: Function, op: ew.Cast, x: Reg) -> Reg:
    ty = _retype(x, ELEMENTS[op.dtype])
    if op.dtype is DType.bool:
        return _boolean(f, f.compare("une" if is_float(x.ty) else "ne", x, 0))
    if is_float(x.ty):
        if is_float(ty):
            return f.cast("fptrunc" if element_of(ty) == "float" else "fpext", x, ty)
        # saturating, so that out-of-range values and NaN are defined; u8 takes the low byte as NumPy does
        wide = _retype(x, "i32") if element_of(ty) == "i8" else ty
        whole = f.call(f"llvm.fptosi.sat.{_suffix(wide)}.{_suffix(x.ty)}", wide, x)
        return f.cast("trunc", whole, ty)
    if is_float(ty):
        return f.cast("uitofp" if _is_unsigned(x) else "sitofp", x, ty)
    sizes = {"i8": 1, "i32": 4, "i64": 8}
    narrower = sizes[element_of(ty)] < sizes[element_of(x.ty)]
    return f.cast("trunc" if narrower else "zext" if _is_unsigned(x) else "sext", x, ty)


def _suffix(ty: str) -> str:
    """The type part of an intrinsic's name."""
    element = {"float": "f32", "double": "f64"}.get(element_of(ty), element_of(ty))
    return element if width_of(ty) == 1 else f"v{width_of(ty)}{element}"


def _div(f: Function, op: Op, a: Reg, b: Reg) -> Reg:
    return a / b if is_float(a.ty) else _divide_integers(f, a, b)[0]


def _divide_integers(f: Function, a: Reg, b: Reg) -> tuple[Reg, Reg]:
    """Truncated quotient and remainder; both 0 for b = 0. The divisor -1 is avoided too: min / -1 would trap."""
    zero, one = f.const(a.ty, 0), f.const(a.ty, 1)
    if _is_unsigned(a):
        safe = f.select(f.compare("eq", b, 0), one, b)
        quotient, rest = f.binary("udiv", a, safe), f.binary("urem", a, safe)
    else:
        minus = f.compare("eq", b, -1)
        safe = f.select(f.binary("or", minus, f.compare("eq", b, 0)), one, b)
        quotient, rest = f.binary("div", a, safe), f.binary("srem", a, safe)
        quotient = f.select(minus, _wrapping_negative(f, a), quotient)
    return f.select(f.compare("eq", b, 0), zero, quotient), rest


def _wrapping_negative(f: Function, a: Reg) -> Reg:
    return _wrapping(f, "sub", f.const(a.ty, 0), a)


def _wrapping(f: Function, name: str, a: Reg, b: Reg) -> Reg:
    """Integer arithmetic on data, which may overflow (the builder's own is for indices, which may not)."""
    return f.op(a.ty, f"{name} {a.ty} {a.ref}, {b.ref}")


def _mod(f: Function, op: ew.Mod, a: Reg, b: Reg) -> Reg:
    rest = vm.remainder(f, a, b) if is_float(a.ty) else _divide_integers(f, a, b)[1]
    if op.fmod or _is_unsigned(a):
        return rest
    differs = f.binary("xor", _compare(f, "lt", rest, 0), _compare(f, "lt", b, 0))
    nonzero = f.compare("une" if is_float(a.ty) else "ne", rest, 0)
    shifted = f.binary("and", differs, nonzero)
    if not is_float(a.ty):
        shifted = f.binary("and", shifted, f.compare("ne", b, 0))
    moved = rest + b if is_float(a.ty) else _wrapping(f, "add", rest, b)
    return f.select(shifted, moved, rest)


def _pow(f: Function, op: Op, x: Reg, y: Reg) -> Reg:
    if not is_float(y.ty):
        y = _cast(f, ew.Cast(DType.f32), y)
    elif element_of(y.ty) == "double":
        y = f.cast("fptrunc", y, x.ty)
    known = constant_of(y)
    if known == 0.5:  # NaN at -inf as NumPy's shortcut gives, where C's pow has +inf
        return vm.sqrt(f, x)
    if known in (1, 2, 3, 4):
        square = x * x if known > 1 else x
        return {1: x, 2: square, 3: square * x, 4: square * square}[int(known)]
    return f.const(x.ty, 1.0) / x if known == -1 else vm.power(f, x, y)


def _where(f: Function, op: Op, condition: Reg, a: Reg, b: Reg) -> Reg:
    return f.select(_condition(f, condition), a, b)


# -- the table ----------------------------------------------------------------------------------
def _with(emit: Callable[..., Reg]) -> _Emit:
    """A rule function that takes its operands as separate arguments."""
    return lambda f, op, args: emit(f, op, *args)


def _function(emit: Callable[[Function, Reg], Reg]) -> _Emit:
    """A rule of an op without attributes."""
    return lambda f, op, args: emit(f, args[0])


def _rounding(intrinsic: str) -> _Emit:
    return lambda f, op, args: f.intrinsic(intrinsic, args[0].ty, args[0])


def _arithmetic(name: str) -> _Emit:
    return lambda f, op, args: (f.binary if is_float(args[0].ty) else partial(_wrapping, f))(name, args[0], args[1])


def _relation(how: str) -> _Emit:
    return lambda f, op, args: _boolean(f, _compare(f, how, args[0], args[1]))


def _choice(how: str) -> _Emit:
    return lambda f, op, args: extreme(f, how, args[0], args[1])


_MATH: dict[type[Op], Callable[[Function, Reg], Reg]] = {
    ew.Exp: vm.exp,
    ew.Log: vm.log,
    act.Sigmoid: vm.sigmoid,
    ew.Tanh: vm.tanh,
    ew.Erf: vm.erf,
    act.Silu: vm.silu,
    act.Mish: vm.mish,
    ew.Sin: vm.sin,
    ew.Cos: vm.cos,
    ew.Tan: vm.tan,
    ew.Asin: vm.asin,
    ew.Acos: vm.acos,
    ew.Atan: vm.atan,
    ew.Sinh: vm.sinh,
    ew.Cosh: vm.cosh,
    ew.Asinh: vm.asinh,
    ew.Acosh: vm.acosh,
    ew.Atanh: vm.atanh,
}

_RULES: dict[type[Op], _Rule] = {
    **{kind: _Rule(_function(emit), _F32) for kind, emit in _MATH.items()},
    act.Elu: _Rule(_with(_elu), _F32),
    act.Selu: _Rule(_with(_selu), _F32),
    act.Softplus: _Rule(_with(_softplus), _F32),
    act.Gelu: _Rule(_with(_gelu), _F32),
    ew.Pow: _Rule(_with(_pow), _F32),
    ew.Abs: _Rule(_with(_abs), _NUMBERS),
    ew.Neg: _Rule(_with(_neg), _NUMBERS),
    act.Relu: _Rule(_with(_relu), _NUMBERS),
    ew.Sign: _Rule(_with(_sign), _NUMBERS),
    act.Clip: _Rule(_with(_clip), _NUMBERS),
    ew.Sqrt: _Rule(_function(vm.sqrt), _FLOATS),
    ew.Reciprocal: _Rule(lambda f, op, args: f.const(args[0].ty, 1.0) / args[0], _FLOATS),
    act.Softsign: _Rule(lambda f, op, args: args[0] / (vm.absolute(f, args[0]) + 1.0), _FLOATS),
    act.HardSwish: _Rule(_with(_hard_swish), _FLOATS),
    act.HardSigmoid: _Rule(_with(_hard_sigmoid), _FLOATS),
    act.LeakyRelu: _Rule(_with(_leaky_relu), _FLOATS),
    act.ThresholdedRelu: _Rule(_with(_thresholded_relu), _FLOATS),
    ew.Floor: _Rule(_rounding("floor"), _FLOATS),
    ew.Ceil: _Rule(_rounding("ceil"), _FLOATS),
    ew.Round: _Rule(_rounding("roundeven"), _FLOATS),
    ew.IsNan: _Rule(lambda f, op, args: _boolean(f, vm.is_nan(f, args[0])), _FLOATS),
    ew.Not: _Rule(lambda f, op, args: _boolean(f, f.compare("eq", args[0], 0)), _BOOL),
    ew.And: _Rule(_arithmetic("and"), _BOOL),
    ew.Or: _Rule(_arithmetic("or"), _BOOL),
    ew.Xor: _Rule(_arithmetic("xor"), _BOOL),
    ew.Add: _Rule(_arithmetic("add"), _NUMBERS),
    ew.Sub: _Rule(_arithmetic("sub"), _NUMBERS),
    ew.Mul: _Rule(_arithmetic("mul"), _NUMBERS),
    ew.Div: _Rule(_with(_div), _NUMBERS),
    ew.Mod: _Rule(_with(_mod), _NUMBERS - {DType.f64}),
    ew.Maximum: _Rule(_choice("gt"), _NUMBERS),
    ew.Minimum: _Rule(_choice("lt"), _NUMBERS),
    act.PRelu: _Rule(lambda f, op, args: f.select(_compare(f, "lt", args[0], 0), args[0] * args[1], args[0]), _FLOATS),
    ew.Equal: _Rule(_relation("eq"), _ANY),
    ew.Less: _Rule(_relation("lt"), _NUMBERS),
    ew.LessEqual: _Rule(_relation("le"), _NUMBERS),
    ew.Greater: _Rule(_relation("gt"), _NUMBERS),
    ew.GreaterEqual: _Rule(_relation("ge"), _NUMBERS),
    ew.Where: _Rule(_with(_where), _ANY),
    ew.Cast: _Rule(_with(_cast), _ANY),
}
