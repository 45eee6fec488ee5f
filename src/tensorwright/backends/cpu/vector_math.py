# SPDX-License-Identifier: Apache-2.0
"""Elementary functions on f32 scalars or vectors, without tables.

Every function takes and returns a `Reg` of `float` or `<n x float>`; errors stay within 4 units in the last place
unless its docstring says otherwise, NaN and infinities come out as NumPy's, and results below 2^-126 become 0.
Coefficients are least-maximum polynomial fits (Lawson's iteration on Chebyshev points) made for this file; the
range reductions are Cody and Waite's ("Software Manual for the Elementary Functions", 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tensorwright.backends.cpu.emitter import Function, Reg
from tensorwright.backends.cpu.llvm_types import vector, width_of

_LOG2E = 1 / math.log(2)
_LN2_HIGH, _LN2_LOW = 0.693147182464599609375, -1.9046542121259336e-09  # f32(ln 2), and what it misses
_ROUND = 1.5 * 2.0**23  # added to |x| < 2^22, leaves round(x) in the low mantissa bits

_EXP = (1.0, 0.49999994, 0.166665196, 0.0416683927, 0.00836878084, 0.00138144649)  # (e^r - 1)/r, |r| <= ln(2)/2
_EXP2 = (0.693147182, 0.240226477, 0.0555033199, 0.00961843971, 0.00133991335, 0.000153531524)  # (2^r - 1)/r, to 1/2
_LOG = (0.333333313, -0.250008225, 0.200012267, -0.166233569, 0.142017618, -0.131601945, 0.127615497, -0.0763442963)
_ERF_NEAR = (0.128379166, -0.37612626, 0.112835854, -0.0268538166, 0.00518833473, -0.000801024784, 7.85402663e-05)
_ERFC_LOG2 = (-0.00316785602, -1.61448085, -0.941057146, -0.12995702, 0.021989949, -0.00174367626)  # on [0.95, 4]
_NORMAL_TAIL_LOG2 = (
    -0.999999821,
    -1.15111291,
    -0.459149152,
    -0.0526657924,
    0.00729843462,
    -0.000310389936,
    -0.00011666261,
    2.51622896e-05,
    -1.67806979e-06,
)  # log2 of the upper tail of N(0, 1), on [0, 6]
_SIN = (-0.166666552, 0.00833215564, -0.00019514632)
_COS = (0.0416666456, -0.00138873095, 2.44324128e-05)
_ATAN = (
    -0.333332986,
    0.199985489,
    -0.142642409,
    0.109521851,
    -0.0840344802,
    0.0579575561,
    -0.0311778039,
    0.0109145818,
    -0.00179361599,
)
_ASIN = (0.166667521, 0.0749529749, 0.0454703569, 0.0241796039, 0.042166166)
_LOG2_F64 = (
    2.88539008177785,
    0.9617966941145182,
    0.5770779419599358,
    0.41220929761863345,
    0.319903695702726,
    0.28293058428201473,
)  # log2((1+s)/(1-s))/s in s^2, |s| <= 0.172
_EXP2_F64 = (
    0.6931471807045377,
    0.24022651066567624,
    0.05550410365976449,
    0.009618038131307374,
    0.0013333935066515874,
    0.00015466756519151494,
    1.5196154200671635e-05,
)
_SQRT_HALF_BITS, _ONE_BITS = 0x3F3504F3, 0x3F800000
_SQRT_HALF_BITS_F64, _ONE_BITS_F64 = 0x3FE6A09E667F3BCD, 0x3FF0000000000000


def horner(f: Function, x: Reg, coefficients: Sequence[float]) -> Reg:
    """coefficients[0] + coefficients[1]*x + ... with one fused multiply-add each."""
    total = f.const(x.ty, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = f.fma(total, x, f.const(x.ty, c))
    return total


def fma(f: Function, a: Reg, b: Reg | float, c: Reg | float) -> Reg:
    """a*b + c with one rounding; b and c may be numbers."""
    return f.fma(a, f.like(a, b), f.like(a, c))


def absolute(f: Function, x: Reg) -> Reg:
    """|x| of floats."""
    return f.intrinsic("fabs", x.ty, x)


def copysign(f: Function, size: Reg, sign: Reg) -> Reg:
    """|size| with the sign bit of `sign`."""
    return f.intrinsic("copysign", size.ty, size, sign)


def sqrt(f: Function, x: Reg) -> Reg:
    """Correctly rounded square root."""
    return f.intrinsic("sqrt", x.ty, x)


def is_nan(f: Function, x: Reg) -> Reg:
    """Lanes (i1) that are NaN."""
    return f.compare("uno", x, x)


def exp(f: Function, x: Reg) -> Reg:
    """e^x; 0 below -87, infinity above 88.72."""
    return _exp_reduced(f, f.minimum(f.maximum(x, -87.5), 89.0))


def _exp_reduced(f: Function, x: Reg) -> Reg:
    """e^x for x in [-87.5, 89] or NaN: 2^(n-1) * 2e^r, where the doubling keeps 2^(n-1) in range for all n."""
    n, scale, r = _split(f, x, -1)
    p = horner(f, r, [2 * c for c in _EXP])
    return fma(f, r, p, 2.0) * scale


def _split(f: Function, x: Reg, shift: int) -> tuple[Reg, Reg, Reg]:
    """n = round(x / ln 2), 2^(n + shift) and r = x - n ln 2; needs 0 <= n + shift + 127 <= 255."""
    rounder = _ROUND + 127 + shift
    t = fma(f, x, _LOG2E, rounder)
    n = t - rounder
    r = fma(f, n, -_LN2_LOW, fma(f, n, -_LN2_HIGH, x))
    return n, _exponent_of(f, t), r


def _exponent_of(f: Function, t: Reg) -> Reg:
    """The float whose exponent field is the low 8 bits of t."""
    ints = vector(width_of(t.ty), "i32")
    return f.cast("bitcast", f.binary("shl", f.cast("bitcast", t, ints), 23), t.ty)


def exp2_small(f: Function, x: Reg) -> Reg:
    """2^x for x <= 1; 0 below -126."""
    x = f.maximum(x, -127.0)
    rounder = _ROUND + 127
    t = x + rounder
    r = x - (t - rounder)
    return fma(f, r, horner(f, r, _EXP2), 1.0) * _exponent_of(f, t)


def expm1(f: Function, x: Reg) -> Reg:
    """e^x - 1 for x <= 88, accurate near 0."""
    x = f.minimum(f.maximum(x, -88.0), 88.0)
    _, scale, r = _split(f, x, 0)
    return fma(f, r * horner(f, r, _EXP), scale, scale - 1.0)


def log(f: Function, x: Reg) -> Reg:
    """Natural logarithm; -inf at 0, NaN below."""
    ints = vector(width_of(x.ty), "i32")
    tiny = f.compare("olt", x, 2.0**-126)
    y = f.select(tiny, x * 2.0**23, x)
    bits = f.cast("bitcast", y, ints)
    exponent = f.binary("ashr", bits - _SQRT_HALF_BITS, 23)  # so that the mantissa lies in [sqrt(1/2), sqrt(2))
    m = f.cast("bitcast", bits - f.binary("shl", exponent, 23), x.ty) - 1.0
    e = f.cast("sitofp", exponent, x.ty)
    e = f.select(tiny, e - 23.0, e)
    square = m * m
    low = fma(f, m * square, horner(f, m, _LOG), fma(f, e, _LN2_LOW, square * -0.5))
    result = fma(f, e, _LN2_HIGH, m + low)
    result = f.select(f.compare("oeq", x, math.inf), x, result)
    edge = f.select(f.compare("oeq", x, 0.0), f.const(x.ty, -math.inf), f.const(x.ty, math.nan))
    return f.select(f.compare("ogt", x, 0.0), result, edge)


def log1p(f: Function, u: Reg) -> Reg:
    """log(1 + u), accurate near 0 (Kahan's correction of the rounding of 1 + u)."""
    w = u + 1.0
    result = log(f, w) + (u - (w - 1.0)) / w
    result = f.select(f.compare("oeq", w, 0.0), f.const(u.ty, -math.inf), result)
    return f.select(f.compare("oeq", u, math.inf), u, result)


def sigmoid(f: Function, x: Reg) -> Reg:
    """1 / (1 + e^-x)."""
    return f.const(x.ty, 1.0) / (_exp_of_minus(f, x) + 1.0)


def silu(f: Function, x: Reg) -> Reg:
    """x / (1 + e^-x); NaN at -inf, as x * sigmoid(x) gives."""
    return x / (_exp_of_minus(f, x) + 1.0)


def _exp_of_minus(f: Function, x: Reg) -> Reg:
    return _exp_reduced(f, f.fneg(f.minimum(f.maximum(x, -89.0), 87.5)))


def tanh(f: Function, x: Reg) -> Reg:
    """(e^2x - 1) / (e^2x + 1), by expm1."""
    x = f.minimum(f.maximum(x, -10.0), 10.0)  # already 1 in f32
    _, scale, r = _split(f, x + x, 0)
    e = fma(f, r * horner(f, r, _EXP), scale, scale - 1.0)
    return e / (e + 2.0)


def erf(f: Function, x: Reg) -> Reg:
    """Error function: odd polynomial up to 1, 1 - 2^polynomial beyond."""
    a = absolute(f, x)
    near = fma(f, x, horner(f, x * x, _ERF_NEAR), x)
    far = f.const(x.ty, 1.0) - exp2_small(f, horner(f, f.minimum(a, 8.0), _ERFC_LOG2))
    return f.select(f.compare("ogt", a, 1.0), copysign(f, far, x), near)


def gelu(f: Function, x: Reg) -> Reg:
    """x * Phi(x), Phi the normal distribution function: 2^polynomial on the tail side, so no cancellation.

    The absolute error is below 4 ulp for |result| > 0.05 and below 1e-8 elsewhere.
    """
    tail = exp2_small(f, horner(f, absolute(f, x), _NORMAL_TAIL_LOG2))
    return x * f.select(f.compare("olt", x, 0.0), tail, f.const(x.ty, 1.0) - tail)


def gelu_tanh(f: Function, x: Reg) -> Reg:
    """x * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))."""
    scale = 2 * math.sqrt(2 / math.pi)
    inner = x * fma(f, x * x, 0.044715 * scale, scale)
    return x / (_exp_of_minus(f, inner) + 1.0)


def softplus(f: Function, x: Reg) -> Reg:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    return f.maximum(x, 0.0) + log1p(f, exp(f, f.fneg(absolute(f, x))))


def mish(f: Function, x: Reg) -> Reg:
    """x * tanh(softplus(x)); with n = e^x (e^x + 2) the tanh is n / (n + 2)."""
    e = exp(f, f.minimum(x, 20.0))  # the quotient is 1 in f32 from 9 on
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def sin(f: Function, x: Reg) -> Reg:
    """Sine."""
    return _with_large(f, x, "sin", _sin)


def cos(f: Function, x: Reg) -> Reg:
    """Cosine."""
    return _with_large(f, x, "cos", _cos)


def tan(f: Function, x: Reg) -> Reg:
    """Tangent."""
    return _with_large(f, x, "tan", _tan)


def _with_large(f: Function, x: Reg, name: str, fast: Callable[[Function, Reg], Reg]) -> Reg:
    """`fast` where |x| < 1e8. Where a lane is larger (rare), the C library's double function computes all lanes:
    its reduction modulo pi/2 is exact for every argument."""
    result = f.var(x.ty, fast(f, x))
    width = width_of(x.ty)
    large = f.compare("ogt", absolute(f, x), 1e8)
    bits = f.cast("bitcast", large, f"i{width}") if width > 1 else large
    with f.when(f.compare("ne", bits, 0)):
        exact = result.get()
        for lane in range(width):
            wide = f.cast("fpext", f.extract(x, lane), "double")
            value = f.cast("fptrunc", f.call(name, "double", wide), "float")
            exact = f.insert(exact, value, lane) if width > 1 else value
        result.set(exact)
    return result.get()


def _sin(f: Function, x: Reg) -> Reg:
    quadrant, sine, cosine = _sin_cos(f, x)
    return _signed(f, f.select(_bit(f, quadrant, 1), cosine, sine), quadrant, 2)


def _cos(f: Function, x: Reg) -> Reg:
    quadrant, sine, cosine = _sin_cos(f, x)
    return _signed(f, f.select(_bit(f, quadrant, 1), sine, cosine), quadrant + 1, 2)


def _tan(f: Function, x: Reg) -> Reg:
    quadrant, sine, cosine = _sin_cos(f, x)
    odd = _bit(f, quadrant, 1)
    return f.select(odd, f.fneg(cosine), sine) / f.select(odd, sine, cosine)


def _sin_cos(f: Function, x: Reg) -> tuple[Reg, Reg, Reg]:
    """Quadrant n = round(x / (pi/2)) as i32, sine and cosine of x - n pi/2. The reduction is done in f64: |x| < 1e9."""
    width = width_of(x.ty)
    wide = f.cast("fpext", x, vector(width, "double"))
    rounder = 1.5 * 2.0**52
    t = fma(f, wide, 2 / math.pi, rounder)
    n = t - rounder
    r = f.cast("fptrunc", fma(f, n, -6.123233995736766e-17, fma(f, n, -math.pi / 2, wide)), x.ty)
    quadrant = f.cast("trunc", f.cast("bitcast", t, vector(width, "i64")), vector(width, "i32"))
    u = r * r
    sine = fma(f, r * u, horner(f, u, _SIN), r)
    cosine = fma(f, u * u, horner(f, u, _COS), fma(f, u, -0.5, 1.0))
    return quadrant, sine, cosine


def _bit(f: Function, n: Reg, bit: int) -> Reg:
    return f.compare("ne", f.binary("and", n, bit), 0)


def _signed(f: Function, x: Reg, n: Reg, bit: int) -> Reg:
    return f.select(_bit(f, n, bit), f.fneg(x), x)


def asin(f: Function, x: Reg) -> Reg:
    """Arc sine: a polynomial up to 1/2, pi/2 - 2 asin(sqrt((1-x)/2)) beyond."""
    a = absolute(f, x)
    far = f.compare("ogt", a, 0.5)
    inner = _asin_reduced(f, a, far)
    return copysign(f, f.select(far, fma(f, inner, -2.0, math.pi / 2), inner), x)


def acos(f: Function, x: Reg) -> Reg:
    """Arc cosine, by the pieces of `asin`."""
    a = absolute(f, x)
    far = f.compare("ogt", a, 0.5)
    inner = _asin_reduced(f, a, far)
    double = inner + inner
    negative = f.compare("olt", x, 0.0)
    outer = f.select(negative, f.const(x.ty, math.pi) - double, double)
    return f.select(far, outer, f.const(x.ty, math.pi / 2) - copysign(f, inner, x))


def _asin_reduced(f: Function, a: Reg, far: Reg) -> Reg:
    """asin(a), or asin(sqrt((1-a)/2)) on the `far` lanes."""
    u = f.select(far, fma(f, a, -0.5, 0.5), a * a)
    y = f.select(far, sqrt(f, u), a)
    return fma(f, y * u, horner(f, u, _ASIN), y)


def atan(f: Function, x: Reg) -> Reg:
    """Arc tangent: a polynomial up to 1, pi/2 - atan(1/x) beyond."""
    a = absolute(f, x)
    far = f.compare("ogt", a, 1.0)
    t = f.select(far, f.const(x.ty, 1.0) / a, a)
    u = t * t
    p = fma(f, t * u, horner(f, u, _ATAN), t)
    return copysign(f, f.select(far, f.const(x.ty, math.pi / 2) - p, p), x)


def sinh(f: Function, x: Reg) -> Reg:
    """Hyperbolic sine: by expm1 up to 1, by e^(x/2) squared beyond (no early overflow)."""
    a = absolute(f, x)
    e = expm1(f, f.minimum(a, 2.0))
    near = (e + e / (e + 1.0)) * 0.5
    half = exp(f, a * 0.5)
    far = half * (half * 0.5) - f.const(x.ty, 0.5) / (half * half)
    return copysign(f, f.select(f.compare("ogt", a, 1.0), far, near), x)


def cosh(f: Function, x: Reg) -> Reg:
    """Hyperbolic cosine."""
    half = exp(f, absolute(f, x) * 0.5)
    return fma(f, half, half * 0.5, f.const(x.ty, 0.5) / (half * half))


def asinh(f: Function, x: Reg) -> Reg:
    """Inverse hyperbolic sine: log1p(a + a^2 / (1 + sqrt(1 + a^2))), log(2a) for large a."""
    a = absolute(f, x)
    s = f.minimum(a, 1e4)
    square = s * s
    near = log1p(f, s + square / (sqrt(f, square + 1.0) + 1.0))
    far = log(f, a) + math.log(2)
    return copysign(f, f.select(f.compare("ogt", a, 1e4), far, near), x)


def acosh(f: Function, x: Reg) -> Reg:
    """Inverse hyperbolic cosine: log1p(t + sqrt(t (t + 2))) with t = x - 1, log(2x) for large x; NaN below 1."""
    t = f.minimum(x, 1e4) - 1.0
    near = log1p(f, t + sqrt(f, t * (t + 2.0)))
    far = log(f, x) + math.log(2)
    result = f.select(f.compare("ogt", x, 1e4), far, near)
    return f.select(f.compare("olt", x, 1.0), f.const(x.ty, math.nan), result)


def atanh(f: Function, x: Reg) -> Reg:
    """Inverse hyperbolic tangent: log1p(2a / (1 - a)) / 2; NaN outside [-1, 1]."""
    a = absolute(f, x)
    return copysign(f, log1p(f, (a + a) / (f.const(x.ty, 1.0) - a)) * 0.5, x)


def power(f: Function, x: Reg, y: Reg) -> Reg:
    """x^y as 2^(y log2 |x|) in f64, so that a large exponent does not magnify the rounding of the logarithm."""
    wide = vector(width_of(x.ty), "double")
    a = f.cast("fpext", absolute(f, x), wide)
    log2 = _log2_f64(f, a)
    log2 = f.select(f.compare("oeq", a, 0.0), f.const(wide, -math.inf), log2)
    log2 = f.select(f.compare("oeq", a, math.inf), a, log2)
    product = log2 * f.cast("fpext", y, wide)
    product = f.select(f.compare("oeq", a, 1.0), f.const(wide, 0.0), product)
    size = f.cast("fptrunc", _exp2_f64(f, f.minimum(f.maximum(product, -300.0), 300.0)), x.ty)
    return _power_signs(f, x, y, size)


def _power_signs(f: Function, x: Reg, y: Reg, size: Reg) -> Reg:
    """Sign and special cases of IEEE 754 pow, given |x|^y."""
    half = y * 0.5
    whole = f.compare("oeq", f.intrinsic("trunc", y.ty, y), y)
    odd = f.binary("and", whole, f.compare("one", f.intrinsic("trunc", y.ty, half), half))
    result = f.select(odd, copysign(f, size, x), size)
    below = f.binary("and", f.compare("olt", x, 0.0), f.compare("ogt", x, -math.inf))
    undefined = f.binary("and", below, f.compare("one", f.intrinsic("trunc", y.ty, y), y))
    result = f.select(undefined, f.const(x.ty, math.nan), result)
    result = f.select(f.compare("uno", x, y), x + y, result)
    one = f.binary("or", f.compare("oeq", y, 0.0), f.compare("oeq", x, 1.0))
    return f.select(one, f.const(x.ty, 1.0), result)


def _log2_f64(f: Function, a: Reg) -> Reg:
    """log2 of positive normal f64 to 1e-13: log2((1+s)/(1-s)) with the mantissa in [sqrt(1/2), sqrt(2))."""
    ints = vector(width_of(a.ty), "i64")
    bits = f.cast("bitcast", a, ints)
    biased = f.binary("lshr", bits + (_ONE_BITS_F64 - _SQRT_HALF_BITS_F64), 52)  # exponent + 1023
    m = f.cast("bitcast", bits - f.binary("shl", biased - 1023, 52), a.ty)
    # an integer below 2^52 put into the mantissa of 2^52 converts without an instruction that AVX2 lacks
    exponent = f.cast("bitcast", f.binary("or", biased, 0x4330000000000000), a.ty) - (2.0**52 + 1023)
    s = (m - 1.0) / (m + 1.0)
    return fma(f, s, horner(f, s * s, _LOG2_F64), exponent)


def _exp2_f64(f: Function, x: Reg) -> Reg:
    """2^x of f64 for |x| <= 300 to 5e-11."""
    ints = vector(width_of(x.ty), "i64")
    rounder = 1.5 * 2.0**52 + 1023
    t = x + rounder
    r = x - (t - rounder)
    scale = f.cast("bitcast", f.binary("shl", f.cast("bitcast", t, ints), 52), x.ty)
    return fma(f, r, horner(f, r, _EXP2_F64), 1.0) * scale


def remainder(f: Function, a: Reg, b: Reg) -> Reg:
    """C's fmod, exact: every step takes a quotient of at most 24 bits, whose product with b is exact in f64."""
    wide, ints = vector(width_of(a.ty), "double"), vector(width_of(a.ty), "i64")
    r, d = (f.cast("fpext", absolute(f, v), wide) for v in (a, b))
    for _ in range(13):  # quotients reach 2^278
        bits = f.binary("and", f.cast("bitcast", r / d, ints), -(1 << 29))
        q = f.intrinsic("trunc", wide, f.cast("bitcast", bits, wide))
        r = f.fma(f.fneg(q), d, r)
    r = f.select(f.compare("olt", r, 0.0), r + d, r)  # a quotient that was rounded up
    result = f.cast("fptrunc", r, a.ty)
    bounded = f.binary("and", f.compare("oeq", absolute(f, b), math.inf), f.compare("olt", absolute(f, a), math.inf))
    return copysign(f, f.select(bounded, a, result), a)
