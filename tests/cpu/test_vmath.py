"""Vector functions against higher precision: units in the last place over wide ranges, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from numbanet.cpu import vmath
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load_tail, store_tail


@kernel
def exp_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.exp(load_tail(x, i, size - i)), size - i)


@kernel
def log_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.log(load_tail(x, i, size - i)), size - i)


@kernel
def sigmoid_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.sigmoid(load_tail(x, i, size - i)), size - i)


@kernel
def tanh_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.tanh(load_tail(x, i, size - i)), size - i)


@kernel
def cdf_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        cdf, _ = vmath.normal(load_tail(x, i, size - i))
        store_tail(y, i, cdf, size - i)


@kernel
def pdf_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        _, pdf = vmath.normal(load_tail(x, i, size - i))
        store_tail(y, i, pdf, size - i)


@kernel
def exp_below_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.exp_below(load_tail(x, i, size - i)), size - i)


@kernel
def slope_kernel(task: Index, ints: I64, x: T, y: T):
    (size,) = integers(ints, 1)
    for i in range(0, size, lanes(x)):
        store_tail(y, i, vmath.normal_slope(load_tail(x, i, size - i)), size - i)


def run(function, x):
    y = np.full_like(x, np.nan)
    launch(function, 1, (x, y), (x.size,), x.dtype.name)
    return y


def exact(function):
    """The function, element by element, rounded once from the C library's float64."""
    return lambda x: np.array([function(float(v)) for v in x])


def _exp(x):
    return math.inf if x > 709.79 else math.exp(x)


def _sigmoid(x):
    return 1 / (1 + _exp(-x))


def _cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _pdf(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def ulps(got, want, dtype):
    """The error in units in the last place; results below the smallest normal number may be zero."""
    tiny = np.finfo(dtype).tiny
    with np.errstate(under="ignore", over="ignore"):
        unit = np.spacing(np.maximum(np.abs(want), tiny).astype(dtype)).astype(np.float64)
    error = np.abs(got.astype(np.float64) - want) / unit
    return np.where(np.abs(want) < tiny, np.where(np.abs(got) <= tiny, 0, error), error)


# function, kernel, range of arguments, ulps in float32, ulps in float64 (the C library's own error included)
CASES = {
    "exp": (_exp, exp_kernel, (-87.2, 88.7), (-708.2, 709.7), 1.5, 2),
    "exp_below": (_exp, exp_below_kernel, (-87.2, 88), (-708.2, 709), 1.5, 2),
    "log": (math.log, log_kernel, (1e-30, 1e30), (1e-300, 1e300), 1.5, 2),
    "sigmoid": (_sigmoid, sigmoid_kernel, (-80, 80), (-700, 700), 2.5, 4),
    "tanh": (math.tanh, tanh_kernel, (-12, 12), (-24, 24), 2.5, 4),
    "cdf": (_cdf, cdf_kernel, (-12.5, 12.5), (-3, 3), 9, 24),
    "pdf": (_pdf, pdf_kernel, (-12.5, 12.5), (-3, 3), 4, 12),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_accuracy(name, dtype, rng):
    function, compiled, *ranges, single, double = CASES[name]
    low, high = ranges[dtype == "float64"]
    x = np.geomspace(low, high, 60_001) if name == "log" else rng.uniform(low, high, 60_001)
    near = np.geomspace(1e-6, 1, 5001)
    x = np.concatenate([x, 1 + near * 0.5] if name == "log" else [x, near, -near]).astype(dtype)
    error = ulps(run(compiled, x), exact(function)(x), dtype)
    worst = int(np.argmax(error))
    assert error[worst] <= (single if dtype == "float32" else double), f"{error[worst]} ulps at {x[worst]!r}"


# x, distribution function, density, rounded from 40 digits: the C library's erfc(x / sqrt(2)) is no judge of the tail.
NORMAL = [
    (-37.0, 5.725571222524577e-300, 2.1200065515246056e-298),
    (-30.5, 1.3029379131780763e-204, 3.97822342728212e-203),
    (-20.25, 1.77619986494957e-91, 3.6055338157275847e-90),
    (-12.0, 1.776482112077679e-33, 2.1463837356630605e-32),
    (-8.5, 9.479534822203318e-18, 8.16623563166955e-17),
    (-5.0, 2.866515718791939e-07, 1.4867195147342977e-06),
    (-2.0, 0.02275013194817921, 0.05399096651318805),
    (-0.75, 0.2266273523768682, 0.30113743215480443),
    (-0.001, 0.49960105778608893, 0.39894208093034234),
    (0.0, 0.5, 0.3989422804014327),
    (0.5, 0.6914624612740131, 0.35206532676429947),
    (3.25, 0.9994229749576092, 0.0020290480572997677),
]


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 10), ("float64", 16)])
def test_normal_tail(dtype, limit):
    x, cdf, pdf = np.array(NORMAL).T
    if dtype == "float32":
        x, cdf, pdf = x[2:], cdf[2:], pdf[2:]
    x = x.astype(dtype)
    assert ulps(run(cdf_kernel, x), cdf, dtype).max() <= limit
    assert ulps(run(pdf_kernel, x), pdf, dtype).max() <= limit


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("float64", 4e-15)])
def test_normal_slope(dtype, limit, rng):
    x = rng.uniform(-12, 12, 20_001).astype(dtype)
    want = exact(lambda v: _cdf(v) + v * _pdf(v))(x)
    assert np.abs(run(slope_kernel, x) - want).max() <= limit


INF, NAN = math.inf, math.nan
# arguments and exact results at the edges
EDGES = {
    "exp": (exp_kernel, [0, -0.0, INF, -INF, NAN, 1e30, -1e30], [1, 1, INF, 0, NAN, INF, 0]),
    "exp_below": (exp_below_kernel, [0, -0.0, -INF, NAN, -1e30, -800], [1, 1, 0, NAN, 0, 0]),
    "slope": (slope_kernel, [INF, -INF, NAN, 1e30, -1e30, -40], [1, -0.0, NAN, 1, -0.0, -0.0]),
    "log": (log_kernel, [1, 0, -0.0, INF, -INF, NAN, -1], [0, -INF, -INF, INF, NAN, NAN, NAN]),
    "sigmoid": (sigmoid_kernel, [0, INF, -INF, NAN, 1e30, -1e30], [0.5, 1, 0, NAN, 1, 0]),
    "tanh": (tanh_kernel, [0, -0.0, INF, -INF, NAN, 1e30, -1e30], [0, -0.0, 1, -1, NAN, 1, -1]),
    "cdf": (cdf_kernel, [INF, -INF, NAN, 1e30, -1e30], [1, 0, NAN, 1, 0]),
    "pdf": (pdf_kernel, [INF, -INF, NAN, 1e30, -1e30], [0, 0, NAN, 0, 0]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EDGES)
def test_edges(name, dtype):
    compiled, x, want = EDGES[name]
    got, want = run(compiled, np.array(x, dtype)), np.array(want, dtype)
    assert np.array_equal(got, want, equal_nan=True)
    number = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exp_at_the_limits(dtype):
    info = np.finfo(dtype)
    last = np.array({"float32": 88.72283172607422, "float64": 709.782712893384}[dtype], dtype)
    above = np.nextafter(last, np.array(INF, dtype))
    first = np.array(np.log(np.float64(info.tiny)) * (1 - 4 * info.eps), dtype)
    x = np.array([last, above, first, 2 * first], dtype)
    y = run(exp_kernel, x)
    assert np.isfinite(y[0]) and y[0] > 0.99 * info.max
    assert y[1] == INF
    assert info.tiny <= y[2] < 1.01 * info.tiny
    assert y[3] == 0


def test_nan_payloads_stay_nan():
    x = np.array([0x7FC00001, 0x7F800001, 0xFFC12345, 0x7FFFFFFF], np.uint32).view(np.float32)
    for compiled in (exp_kernel, exp_below_kernel, slope_kernel, log_kernel, sigmoid_kernel, tanh_kernel, cdf_kernel):
        assert np.isnan(run(compiled, x)).all()
