"""Exponential, logarithm and their relatives on vectors.

Numba calls no vector math library, so each function is a reduction of its argument and a polynomial, or a quotient of
two. They are minimax in relative error, or nearly so (found in 50 digits and more), with one list of coefficients,
highest power first, for each dtype. Errors stay within about 2 units in the last place (`normal`: 9) where the result
is a normal number; a denormal result may be zero. NaN gives NaN, and infinities give the limits.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.simd import absolute, bits, fma, select
from numbanet.cpu.vector import ir_call, ir_splat, ir_vector

_LAYOUT = {types.float32: (ir.IntType(32), 23, 127), types.float64: (ir.IntType(64), 52, 1023)}
"""Of each dtype: the integer of its size, the number of bits of its mantissa, the bias of its exponent."""

_LOG2E = 1.4426950408889634
_LN2_SINGLE = (0.693147182464599609375, -1.904654323148236e-09)  # the nearest number, and what it lacks
_LN2_DOUBLE = (0.6931471805599453, 2.3190468138462996e-17)

# (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, to 3e-9 and 4e-18 of exp(r)
_EXP_SINGLE = (
    0.0013814596886741629, 0.008368716920448958, 0.04166838808505348, 0.1666652063128301, 0.49999993447580326,
)  # fmt: skip
_EXP_DOUBLE = (
    2.500005878658206e-08, 2.7630248431009703e-07, 2.755758638320012e-06, 2.4801493098780288e-05,
    0.00019841269506567293, 0.00138888889436302, 0.008333333333494468, 0.041666666666530155, 0.16666666666666413,
    0.5000000000000011,
)  # fmt: skip

# (2 atanh(s) / s - 2) / z with z = s^2 <= 0.0295, to 8e-10 and 1e-18
_LOG_SINGLE = (0.298730732367162, 0.399774955805276, 0.6666677671705196)
_LOG_DOUBLE = (
    0.14797507718977523, 0.15313903245650412, 0.1818356973985316, 0.2222219847598522, 0.2857142874326269,
    0.3999999999941109, 0.6666666666666735,
)  # fmt: skip

# (exp(-t / 2) - 1) / t for |t| <= ln(2), to 5e-9 and 9e-18 of exp(-t / 2)
_GAUSS_SINGLE = (
    2.177145424342513e-05, -0.00026153813411886273, 0.0026041540123378556, -0.020833130766290762, 0.12500000033846825,
    -0.5000000054182078,
)  # fmt: skip
_GAUSS_DOUBLE = (
    -1.2258453481260792e-11, 2.697899955706269e-10, -5.3822764003907984e-09, 9.68808750563551e-08,
    -1.550099208984553e-06, 2.1701388957423437e-05, -0.0002604166666664401, 0.0026041666666607745,
    -0.02083333333333334, 0.12500000000000014, -0.5,
)  # fmt: skip

# erfc(a / sqrt(2)) exp(a^2 / 2) / 2 as a quotient, for 0 <= a <= 13.27 and 37.66, to 1.3e-7 and 9e-19
_TAIL_SINGLE = (
    6.587483363748115e-06, 0.3986325391725286, 2.9855318515786364, 9.427534436416039, 13.86557958694437,
)  # fmt: skip
_OVER_SINGLE = (1.0, 7.468147761192975, 24.805388950390597, 40.98114087168549, 27.731162805651845)
_TAIL_DOUBLE = (
    0.3989422804015376, 12.432098627335398, 190.16287212211614, 1857.25961058503, 12736.41916157291, 63836.48834827721,
    236534.6673468522, 640643.8013691033, 1219386.5179591633, 1486734.9691654015, 898702.2734014507,
)  # fmt: skip
_OVER_DOUBLE = (
    1.0, 31.162649932340223, 477.66763204006594, 4686.6221035537765, 32400.136002580006, 164607.48135783608,
    623886.6045717591, 1756871.1843078837, 3590290.8492793096, 5056819.791760577, 4407591.27574171, 1797404.5468029014,
)  # fmt: skip
_INV_SQRT_2PI = 0.3989422804014327


# ---------------------------------------------------------------------------------------------------------------------
# What the functions are made of. `v` is a vector whose dtype decides between `single` and `double`.


def _splat_constant(builder, value, v):
    scalar = builder.fptrunc(value, ir.FloatType()) if v.dtype == types.float32 else value
    return ir_splat(builder, scalar, v.lanes)


@intrinsic
def pick(typingctx, v, single, double):
    """Return a constant in every lane: `single` for a vector of float32, else `double`."""

    def codegen(context, builder, sig, args):
        return _splat_constant(builder, args[1] if v.dtype == types.float32 else args[2], v)

    return v(v, types.float64, types.float64), codegen


@intrinsic
def polynomial(typingctx, v, single, double):
    """Return the polynomial in v with the coefficients of v's dtype, highest power first, by Horner's rule."""

    def codegen(context, builder, sig, args):
        numbers = cgutils.unpack_tuple(builder, args[1] if v.dtype == types.float32 else args[2])
        value = _splat_constant(builder, numbers[0], v)
        for number in numbers[1:]:
            value = ir_call(builder, "llvm.fma", v, value, args[0], _splat_constant(builder, number, v))
        return value

    return v(v, single, double), codegen


@intrinsic
def polynomial_in_pairs(typingctx, v, square, single, double):
    """Return the same polynomial, given v * v: Horner's rule on pairs of terms, which waits half as often."""

    def codegen(context, builder, sig, args):
        numbers = cgutils.unpack_tuple(builder, args[2] if v.dtype == types.float32 else args[3])
        low = [_splat_constant(builder, number, v) for number in reversed(numbers)]
        if len(low) % 2:
            value = low.pop()
        else:
            value = ir_call(builder, "llvm.fma", v, args[0], low.pop(), low.pop())
        while low:
            pair = ir_call(builder, "llvm.fma", v, args[0], low.pop(), low.pop())
            value = ir_call(builder, "llvm.fma", v, value, args[1], pair)
        return value

    return v(v, v, single, double), codegen


@intrinsic
def _add_exponent(typingctx, v, shifted):
    """Return v * 2**n, where the integer n stands in the lowest bits of the mantissa of `shifted`."""
    integer, mantissa, _ = _LAYOUT[v.dtype]

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(integer, v.lanes)
        number, n = (builder.bitcast(a, kind) for a in args)
        n = builder.shl(n, ir.Constant(kind, [mantissa] * v.lanes))
        return builder.bitcast(builder.add(number, n), ir_vector(v))

    return v(v, v), codegen


@intrinsic
def _two_to(typingctx, shifted):
    """Return 2**n, where the sum of the integer n and the exponent's bias stands in the lowest bits of `shifted`."""
    integer, mantissa, _ = _LAYOUT[shifted.dtype]

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(integer, shifted.lanes)
        n = builder.shl(builder.bitcast(args[0], kind), ir.Constant(kind, [mantissa] * shifted.lanes))
        return builder.bitcast(n, ir_vector(shifted))

    return shifted(shifted), codegen


@device
def negative(v):
    """Return where v's sign is set: the mask costs no instruction."""
    return bits(v) < bits(pick(v, 0.0, 0.0))


@intrinsic
def power(typingctx, a, b):
    """Return a to the power b, lane by lane: the C library's pow, with all its special cases.

    A denormal a counts as zero. It must be one before the library sees it, which scales such numbers by a product that
    is zero while denormals are; on the bits, as the compiler would take a comparison with zero out.
    """
    integer, mantissa, _ = _LAYOUT[a.dtype]
    width = a.dtype.bitwidth

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(integer, a.lanes)
        constant = lambda value: ir.Constant(kind, [value] * a.lanes)  # noqa: E731
        raw = builder.bitcast(args[0], kind)
        exponent = builder.and_(raw, constant((1 << width - 1) - (1 << mantissa)))
        small = builder.icmp_unsigned("==", exponent, constant(0))
        base = builder.select(small, builder.and_(raw, constant(1 << width - 1)), raw)
        return ir_call(builder, "llvm.pow", a, builder.bitcast(base, ir_vector(a)), args[1])

    return a(a, a), codegen


@intrinsic
def _split_exponent(typingctx, v):
    """Return (m, e) with v = m * 2**e, e an integer and sqrt(1/2) <= m < sqrt(2), for normal v > 0."""
    integer, mantissa, bias = _LAYOUT[v.dtype]
    half_root = {23: 0x3F3504F3, 52: 0x3FE6A09E667F3BCD}[mantissa]  # the bits of sqrt(1/2)
    pair = types.UniTuple(v, 2)

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(integer, v.lanes)
        constant = lambda value: ir.Constant(kind, [value] * v.lanes)  # noqa: E731
        raw = builder.bitcast(args[0], kind)
        above = builder.ashr(builder.sub(raw, constant(half_root)), constant(mantissa))
        m = builder.bitcast(builder.sub(raw, builder.shl(above, constant(mantissa))), ir_vector(v))
        return context.make_tuple(builder, pair, [m, builder.sitofp(above, ir_vector(v))])

    return pair(v), codegen


# ---------------------------------------------------------------------------------------------------------------------


@device
def exp(x):
    """Return e**x."""
    # Adding 1.5 * 2**mantissa leaves the nearest integer to x / ln(2) in the low bits: no conversion is needed.
    magic = pick(x, 12582912.0, 6755399441055744.0)
    shifted = fma(x, pick(x, _LOG2E, _LOG2E), magic)
    n = shifted - magic
    r = fma(n, pick(x, -_LN2_SINGLE[0], -_LN2_DOUBLE[0]), x)
    r = fma(n, pick(x, -_LN2_SINGLE[1], -_LN2_DOUBLE[1]), r)
    y = fma(polynomial(r, _EXP_SINGLE, _EXP_DOUBLE), r * r, r) + pick(x, 1.0, 1.0)
    y = _add_exponent(y, shifted)
    y = select(x < pick(x, -87.33654022216797, -708.3964185322641), pick(x, 0.0, 0.0), y)
    # Beyond the largest finite result x + inf is inf, and for NaN, where the comparison is false, it is NaN.
    infinity = pick(x, float("inf"), float("inf"))
    return select(x <= pick(x, 88.72283172607422, 709.782712893384), y, x + infinity)


@device
def log(x):
    """Return the natural logarithm; -inf at 0 (and at denormals), NaN below."""
    m, e = _split_exponent(x)
    one = pick(x, 1.0, 1.0)
    f = m - one
    s = f / (m + one)
    z = s * s
    half_square = pick(x, 0.5, 0.5) * f * f
    # log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + z (2/3 + 2/5 z + ...)): f itself carries no rounding error
    tail = fma(polynomial(z, _LOG_SINGLE, _LOG_DOUBLE), z, half_square)
    low = fma(s, tail, e * pick(x, _LN2_SINGLE[1], _LN2_DOUBLE[1]))
    y = fma(e, pick(x, _LN2_SINGLE[0], _LN2_DOUBLE[0]), f - (half_square - low))
    zero, infinity = pick(x, 0.0, 0.0), pick(x, float("inf"), float("inf"))
    y = select(x > zero, y, select(x == zero, -infinity, pick(x, float("nan"), float("nan"))))
    return select(x == infinity, infinity, y)


@device
def _split(x):
    """Return q and s with e**x = s + q s and s a power of two, for x from where s is zero to about 88 (709)."""
    magic = pick(x, 12582912.0 + 127, 6755399441055744.0 + 1023)
    shifted = fma(x, pick(x, _LOG2E, _LOG2E), magic)
    n = shifted - magic
    r = fma(n, pick(x, -_LN2_SINGLE[0], -_LN2_DOUBLE[0]), x)
    r = fma(n, pick(x, -_LN2_SINGLE[1], -_LN2_DOUBLE[1]), r)
    square = r * r
    return fma(polynomial_in_pairs(r, square, _EXP_SINGLE, _EXP_DOUBLE), square, r), _two_to(shifted)


@device
def exp_below(x):
    """Return e**x for x that is no larger than about 88 (float64: 709): in fewer instructions than `exp`."""
    least = pick(x, -88.0296919311, -709.0895657128)  # where s is zero
    q, s = _split(select(least > x, least, x))
    return fma(q, s, s)


@device
def logistic(x):
    """Return s = sigmoid(x) and its derivative s (1 - s), both with small relative errors."""
    one = pick(x, 1.0, 1.0)
    e = exp_below(-absolute(x))
    r = one / (one + e)
    return select(negative(x), e * r, r), e * r * r


@device
def sigmoid(x):
    """Return 1 / (1 + e**-x)."""
    s, _ = logistic(x)
    return s


@device
def tanh(x):
    """Return the hyperbolic tangent: e / (e + 2) with e = exp(2 |x|) - 1, whose relative error is small near zero."""
    far, two = pick(x, 10.0, 20.0), pick(x, 2.0, 2.0)
    a = absolute(x)
    a = select(a > far, far, a)
    q, s = _split(a + a)
    e = fma(q, s, s - pick(x, 1.0, 1.0))
    y = e / (e + two)
    return select(negative(x), -y, y)


@device
def gauss(x):
    """Return a = |x|, cut off where its density is zero, g = exp(-a^2 / 2), and the number m that makes g m the tail.

    That is the distribution function of the standard normal distribution at -a, which so keeps its relative accuracy
    (``1 + erf`` would lose it); m is smooth enough for a quotient of short polynomials.
    """
    far = pick(x, 13.2688, 37.6587)
    a = absolute(x)
    a = select(a > far, far, a)
    square = a * a
    lost = fma(a, a, -square)  # the rounding error of a^2, which the exponential would amplify
    magic = pick(x, 12582912.0 + 127, 6755399441055744.0 + 1023)
    shifted = fma(square, pick(x, -0.5 * _LOG2E, -0.5 * _LOG2E), magic)
    n = shifted - magic
    t = fma(n, pick(x, 2 * _LN2_SINGLE[0], 2 * _LN2_DOUBLE[0]), square)
    t = t + fma(n, pick(x, 2 * _LN2_SINGLE[1], 2 * _LN2_DOUBLE[1]), lost)
    q, s = t * polynomial_in_pairs(t, t * t, _GAUSS_SINGLE, _GAUSS_DOUBLE), _two_to(shifted)
    above = polynomial_in_pairs(a, square, _TAIL_SINGLE, _TAIL_DOUBLE)
    m = above / polynomial_in_pairs(a, square, _OVER_SINGLE, _OVER_DOUBLE)
    return a, fma(q, s, s), m


@device
def normal(x):
    """Return the distribution function and the density of the standard normal distribution at x."""
    _, g, m = gauss(x)
    tail = g * m
    return select(negative(x), tail, pick(x, 1.0, 1.0) - tail), g * pick(x, _INV_SQRT_2PI, _INV_SQRT_2PI)


@device
def normal_slope(x):
    """Return the derivative of x times the distribution function at x."""
    a, g, m = gauss(x)
    slope = g * fma(pick(x, -_INV_SQRT_2PI, -_INV_SQRT_2PI), a, m)
    return select(negative(x), slope, pick(x, 1.0, 1.0) - slope)
