"""Exponential, logarithm and their relatives on vectors.

Numba calls no vector math library, so each function is a reduction of its argument and a polynomial. The polynomials
are minimax in relative error (Remez exchange in 60 digits), with one list of coefficients, highest power first, for
each dtype. Errors stay within about 2 units in the last place (`normal`: 9) where the result is a normal number; a
denormal result may be zero. NaN gives NaN, and infinities give the limits.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.compile import device
from numbanet.cpu.simd import absolute, fma, select
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

# (tanh(x) / x - 1) / z with z = x^2, |x| <= 0.625, to 4e-9 and 1e-17
_TANH_SINGLE = (
    -0.0057170455718906, 0.020650587842852404, -0.053743498280957556, 0.1333149128988782, -0.33333283925418894,
)  # fmt: skip
_TANH_DOUBLE = (
    -1.6107554793187207e-05, 7.721919766913949e-05, -0.0002286332577274228, 0.0005863524924816257,
    -0.0014549704787276078, 0.003591991571282366, -0.008863221319349796, 0.021869487601973388, -0.053968253932482786,
    0.13333333333264916, -0.33333333333332876,
)  # fmt: skip

# (a + 5) erfc(a / sqrt(2)) exp(a^2 / 2) / 2 in t = (a - 5) / (a + 5), for 0 <= a <= 14 and 39, to 9e-9 and 6e-18
_NORMAL_SINGLE = (
    0.0003997012898840324, -0.0009848865156920719, -0.002970242705389163, 0.02087877309146852, -0.06911229081904832,
    0.16500704600522118, -0.31353434199136543, 0.49530635640590703, -0.665382471140776, 0.7691930429992007,
)  # fmt: skip
_NORMAL_DOUBLE = (
    -3.029054367127476e-10, 1.4319698080215568e-09, 7.942232432180805e-09, -8.294769619983627e-09,
    -6.601164866907313e-08, 4.088040353405643e-08, 4.3288425138611416e-07, -3.3553710539223754e-07,
    -2.7689525896399363e-06, 3.9803846492765475e-06, 1.6681041274681266e-05, -4.9762654890833005e-05,
    -5.9375674808139956e-05, 0.0005448990333862102, -0.0007978694080067856, -0.0029933767667050817,
    0.020795066800837356, -0.06911863870657003, 0.16502036617033744, -0.3135331566712962, 0.4953056159699773,
    -0.6653825028900567, 0.769193049750063,
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
def sigmoid(x):
    """Return 1 / (1 + e**-x)."""
    one = pick(x, 1.0, 1.0)
    return one / (one + exp(-x))


@device
def logistic(x):
    """Return s = sigmoid(x) and its derivative s (1 - s), both with small relative errors."""
    one = pick(x, 1.0, 1.0)
    e = exp(-absolute(x))
    r = one / (one + e)
    return select(x < pick(x, 0.0, 0.0), e * r, r), e * r * r


@device
def tanh(x):
    """Return the hyperbolic tangent."""
    one, two = pick(x, 1.0, 1.0), pick(x, 2.0, 2.0)
    a, z = absolute(x), x * x
    far = one - two / (exp(a + a) + one)
    far = select(x < pick(x, 0.0, 0.0), -far, far)
    near = x * fma(polynomial(z, _TANH_SINGLE, _TANH_DOUBLE), z, one)
    return select(a < pick(x, 0.625, 0.625), near, far)


@device
def normal(x):
    """Return the distribution function and the density of the standard normal distribution at x.

    The lower tail keeps its relative accuracy (``1 + erf`` would lose it): the distribution function at -a is the
    density times Mills' ratio, which is smooth enough for one polynomial in (a - 5) / (a + 5).
    """
    one, half = pick(x, 1.0, 1.0), pick(x, -0.5, -0.5)
    a, far = absolute(x), pick(x, 14.0, 39.0)  # beyond, the tail is zero
    a = select(a > far, far, a)
    square = a * a
    lost = fma(a, a, -square)  # the rounding error of a^2, which the exponential would amplify
    e = exp(half * square)
    e = fma(e, half * lost, e)
    d = one / (a + pick(x, 5.0, 5.0))
    tail = e * d * polynomial(fma(pick(x, -10.0, -10.0), d, one), _NORMAL_SINGLE, _NORMAL_DOUBLE)
    return select(x < pick(x, 0.0, 0.0), tail, one - tail), e * pick(x, _INV_SQRT_2PI, _INV_SQRT_2PI)
