"""Each vector function against NumPy, lane by lane, in both dtypes; nothing is touched beyond a tail."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from numbanet.cpu import simd
from numbanet.cpu.compile import F32, F64, I32, I64, U8, Index, T, device, kernel
from numbanet.cpu.isa import AVX2, AVX512, host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    absolute,
    bits,
    convert,
    first_lane,
    floats,
    floor,
    fma,
    from_bits,
    integers,
    lanes,
    last_lanes,
    load,
    load_as,
    load_as_tail,
    load_tail,
    load_tail_or,
    maximum,
    minimum,
    named,
    offset,
    reduce_add,
    reduce_max,
    round_even,
    select,
    shift_left,
    splat,
    splat_as,
    sqrt,
    store,
    store_tail,
)

DTYPES = ["float32", "float64"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1.5, 2.5, 3.7, -3.2, np.inf, -np.inf, np.nan, 1e30, -1e-30, 7.0]


def column(dtype: str, shift: int = 0) -> np.ndarray:
    """One vector of values with every special one somewhere; `shift` turns it round."""
    return np.resize(np.roll(np.array(SPECIAL), shift), simd.numpy_lanes(dtype)).astype(dtype)


@kernel
def binary(task: Index, ints: I64, a: T, b: T, out: T):
    x, y, n = load(a, 0), load(b, 0), lanes(a)
    one, zero = splat(a, 1.0), splat(a, 0.0)
    store(out, 0, x + y)
    store(out, n, x - y)
    store(out, 2 * n, x * y)
    store(out, 3 * n, x / y)
    store(out, 4 * n, maximum(x, y))
    store(out, 5 * n, minimum(x, y))
    store(out, 6 * n, fma(x, y, y))
    store(out, 7 * n, select(x < y, one, zero))
    store(out, 8 * n, select(x <= y, one, zero))
    store(out, 9 * n, select(x > y, one, zero))
    store(out, 10 * n, select(x >= y, one, zero))
    store(out, 11 * n, select(x == y, one, zero))
    store(out, 12 * n, select(x != y, one, zero))
    store(out, 13 * n, select((x < y) & (y > zero), one, zero))
    store(out, 14 * n, select((x < y) | (y > zero), one, zero))
    store(out, 15 * n, select((x < y) ^ (y > zero), one, zero))


BINARY: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y, np.maximum, np.minimum,
    lambda x, y: x * y + y, lambda x, y: x < y, lambda x, y: x <= y, lambda x, y: x > y, lambda x, y: x >= y,
    lambda x, y: x == y, lambda x, y: x != y, lambda x, y: (x < y) & (y > 0), lambda x, y: (x < y) | (y > 0),
    lambda x, y: (x < y) ^ (y > 0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_operands(dtype: str) -> None:
    for shift in range(len(SPECIAL)):
        for turn in (0, 3):
            x, y = column(dtype, turn), column(dtype, shift)
            out = np.full((len(BINARY), x.size), 99, dtype)
            launch(binary, 1, (x, y, out), (), dtype)
            with np.errstate(all="ignore"):
                for number, (found, function) in enumerate(zip(out, BINARY)):
                    expected = function(x, y).astype(dtype)
                    np.testing.assert_allclose(found, expected, rtol=np.finfo(dtype).eps, atol=0, err_msg=str(number))


@kernel
def unary(task: Index, ints: I64, a: T, out: T):
    x, n = load(a, 0), lanes(a)
    store(out, 0, -x)
    store(out, n, sqrt(x))
    store(out, 2 * n, absolute(x))
    store(out, 3 * n, round_even(x))
    store(out, 4 * n, floor(x))
    store(out, 5 * n, splat_as(x, 3.0))
    store(out, 6 * n, from_bits(bits(x)))
    store(out, 7 * n, from_bits(bits(x) ^ shift_left(bits(splat(a, 0.0)) - bits(splat(a, 0.0)), 1)))
    store(out, 8 * n, convert(convert(floor(select(absolute(x) < splat(a, 1e9), x, splat(a, 0.0))), bits(x)), a))
    store(out, 9 * n, load(offset(a, 1), -1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_operand(dtype: str) -> None:
    x = column(dtype)
    out = np.full((10, x.size), 99, dtype)
    launch(unary, 1, (x, out), (), dtype)
    with np.errstate(all="ignore"):
        whole = np.floor(np.where(np.abs(x) < 1e9, x, 0))
        expected = [-x, np.sqrt(x), np.abs(x), np.rint(x), np.floor(x), np.full_like(x, 3), x, x, whole, x]
    for number, (found, wanted) in enumerate(zip(out, expected)):
        np.testing.assert_array_equal(found, wanted, err_msg=str(number))
    for number in (0, 2, 6):
        np.testing.assert_array_equal(np.signbit(out[number]), np.signbit(expected[number]), err_msg=str(number))


def test_fma_rounds_once() -> None:
    @kernel
    def fused(task: Index, ints: I64, a: T, out: T):
        x = load(a, 0)
        store(out, 0, fma(x, x, splat(a, -1.0)))

    for dtype in DTYPES:
        x = np.full(simd.numpy_lanes(dtype), 1 + np.finfo(dtype).eps, dtype)
        out = np.zeros_like(x)
        launch(fused, 1, (x, out), (), dtype)
        eps = np.finfo(dtype).eps
        assert (out == x.dtype.type(2 * eps) + x.dtype.type(eps) ** 2).all(), "2 eps + eps^2 is lost if rounded twice"


@kernel
def tails(task: Index, ints: I64, a: T, out: T):
    n, start = integers(ints, 2)
    store_tail(out, start, load_tail(a, start, n), n)
    store(out, 4 * lanes(a), load_tail(a, start, n))
    store(out, 5 * lanes(a), load_tail_or(a, start, n, splat(a, 7.0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_touch_nothing_beyond(dtype: str) -> None:
    lanes = simd.numpy_lanes(dtype)
    for n in range(-1, lanes + 3):
        for start in (0, 1, lanes - 1):
            x = np.arange(1.0, 4 * lanes + 1).astype(dtype)
            out = np.full(6 * lanes, -1, dtype)
            launch(tails, 1, (x, out), (n, start), dtype)
            count = min(max(n, 0), lanes)
            expected = np.full(4 * lanes, -1, dtype)
            expected[start : start + count] = x[start : start + count]
            np.testing.assert_array_equal(out[: 4 * lanes], expected)
            kept = np.where(np.arange(lanes) < n, x[start : start + lanes], 0)
            np.testing.assert_array_equal(out[4 * lanes : 5 * lanes], kept)
            np.testing.assert_array_equal(out[5 * lanes :], np.where(np.arange(lanes) < n, kept, 7))


@kernel
def ends(task: Index, ints: I64, a: T, out: T):
    (n,) = integers(ints, 1)
    store(out, 0, last_lanes(load(a, 0), n))
    out[lanes(a)] = first_lane(load(a, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_last_lanes_and_the_first(dtype: str) -> None:
    lanes = simd.numpy_lanes(dtype)
    x = np.arange(1.0, lanes + 1).astype(dtype)
    x[0] = np.nan  # times zero it would stay
    for n in range(lanes):
        out = np.zeros(lanes + 1, dtype)
        launch(ends, 1, (x, out), (n,), dtype)
        np.testing.assert_array_equal(out, [*np.where(np.arange(lanes) >= lanes - n, x, 0), np.nan])


def test_tails_at_the_end_of_a_page() -> None:
    """A masked load that read the lanes beyond would leave the mapping, and end the process."""
    mmap = pytest.importorskip("mmap")
    page = mmap.PAGESIZE
    region = mmap.mmap(-1, 2 * page)
    both = np.frombuffer(region, np.uint8)
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mprotect"):
        pytest.skip("needs mprotect")
    second = both.__array_interface__["data"][0] + page
    assert libc.mprotect(ctypes.c_void_p(second), ctypes.c_size_t(page), 0) == 0
    try:
        for dtype in DTYPES:
            x = both[:page].view(dtype)
            out = np.zeros(6 * simd.numpy_lanes(dtype), dtype)
            for n in range(simd.numpy_lanes(dtype)):
                last = x[x.size - n :] if n else x[:0]
                launch(tails_only, 1, (x, out), (n, x.size - n), dtype)
                np.testing.assert_array_equal(out[:n], last)
    finally:
        libc.mprotect(ctypes.c_void_p(second), ctypes.c_size_t(page), 3)


@kernel
def tails_only(task: Index, ints: I64, a: T, out: T):
    n, start = integers(ints, 2)
    v = load_tail(a, start, n)
    store_tail(a, start, v, n)
    store(out, 0, v)


@kernel
def reductions(task: Index, ints: I64, a: T, out: T):
    v = load(a, 0)
    out[0] = reduce_add(v)
    out[1] = reduce_max(v)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.standard_normal(simd.numpy_lanes(dtype)).astype(dtype)
        out = np.zeros(2, dtype)
        launch(reductions, 1, (x, out), (), dtype)
        halves = x
        while halves.size > 1:  # the documented order: the halves of the vector are added
            halves = halves[: halves.size // 2] + halves[halves.size // 2 :]
        assert out[0] == halves[0] and out[1] == x.max()


@kernel
def integer_lanes(task: Index, ints: I64, a: I32, b: I32, out: I32):
    x, y, n = load(a, 0), load(b, 0), lanes(a)
    store(out, 0, x + y)
    store(out, n, x - y)
    store(out, 2 * n, x * y)
    store(out, 3 * n, -x)
    store(out, 4 * n, maximum(x, y))
    store(out, 5 * n, minimum(x, y))
    store(out, 6 * n, x & y)
    store(out, 7 * n, x | y)
    store(out, 8 * n, x ^ y)
    store(out, 9 * n, shift_left(x, 3))
    store(out, 10 * n, select(x < y, x, y))
    out[11 * n] = reduce_add(x)
    out[11 * n + 1] = reduce_max(x)


def test_integers() -> None:
    rng = np.random.default_rng(0)
    n = simd.numpy_lanes("int32")
    x, y = rng.integers(-1000, 1000, (2, n)).astype(np.int32)
    out = np.zeros(11 * n + 2, np.int32)
    launch(integer_lanes, 1, (x, y, out), (), "float32")
    expected = [x + y, x - y, x * y, -x, np.maximum(x, y), np.minimum(x, y), x & y, x | y, x ^ y, x << 3,
                np.minimum(x, y)]  # fmt: skip
    np.testing.assert_array_equal(out[:-2].reshape(11, n), expected)
    assert out[-2] == x.sum() and out[-1] == x.max()


@kernel
def conversions(task: Index, ints: I64, x: T, small: U8, wide: F64, narrow: F32, whole: I32, bytes_out: U8):
    v = load(x, 0)
    store(wide, 0, convert(v, wide))
    store(narrow, 0, convert(v, narrow))
    store(whole, 0, convert(v, whole))
    store(bytes_out, 0, convert(convert(v, whole), bytes_out))
    store(wide, lanes(x), convert(load_as(small, 0, v), wide))
    store(whole, lanes(x), convert(load_as(small, 0, v), whole))
    store(wide, 2 * lanes(x), convert(load_as_tail(small, 0, v, 3), wide))
    store(wide, 3 * lanes(x), convert(convert(load_as(small, 0, v), whole), wide))


@pytest.mark.parametrize("dtype", DTYPES)
def test_conversions(dtype: str) -> None:
    n = simd.numpy_lanes(dtype)
    x = (np.arange(n) * 1.3).astype(dtype)
    small = (np.arange(n) * 15 + 3).astype(np.uint8)
    wide, narrow = np.zeros(4 * n), np.zeros(n, np.float32)
    whole, bytes_out = np.zeros(2 * n, np.int32), np.zeros(n, np.uint8)
    launch(conversions, 1, (x, small, wide, narrow, whole, bytes_out), (), dtype)
    np.testing.assert_array_equal(wide[:n], x.astype(np.float64))
    np.testing.assert_array_equal(narrow, x.astype(np.float32))
    np.testing.assert_array_equal(whole[:n], x.astype(np.int32))
    np.testing.assert_array_equal(bytes_out, x.astype(np.uint8))
    np.testing.assert_array_equal(wide[n : 2 * n], small)
    np.testing.assert_array_equal(whole[n:], small)
    np.testing.assert_array_equal(wide[2 * n : 3 * n], np.where(np.arange(n) < 3, small, 0))
    np.testing.assert_array_equal(wide[3 * n :], small)


def test_negative_and_large_conversions() -> None:
    @kernel
    def cast(task: Index, ints: I64, x: T, whole: I32):
        store(whole, 0, convert(load(x, 0), whole))

    x = np.resize([-1.9, -0.5, 1.9, 2**30], simd.numpy_lanes("float32")).astype(np.float32)
    whole = np.zeros(x.size, np.int32)
    launch(cast, 1, (x, whole), (), "float32")
    np.testing.assert_array_equal(whole, np.trunc(x))


@kernel
def tuples(task: Index, ints: I64, parameters: F64, out: F64):
    a, b, c = integers(ints, 3)
    p, q = floats(parameters, 2)
    out[0] = a * p + b * q + c


def test_tuples() -> None:
    out = np.zeros(1)
    launch(tuples, 1, (np.array([0.5, 0.25]), out), (2, 4, -7), "float32")
    assert out[0] == 1 + 1 - 7


def test_vectors_of_two_types_do_not_mix() -> None:
    @kernel
    def mixed(task: Index, ints: I64, a: F32, b: F64):
        store(a, 0, load(a, 0) + load(b, 0))

    with pytest.raises(numba.core.errors.TypingError):
        launch(mixed, 1, (np.zeros(64, np.float32), np.zeros(64)), (), "float32")


def test_the_widest_registers_are_used() -> None:
    """LLVM's own vectoriser would stop at 256 bits."""
    register = {AVX512: "zmm", AVX2: "ymm"}.get(host_isa())
    if register is None:
        pytest.skip("vectors of 128 bits")
    for dtype in DTYPES:
        assert f"%{register}" in binary.inspect_asm(dtype)


class Size(NamedTuple):
    count: int
    step: int
    first: int


@device
def place(ints, i):
    size = named(ints, Size)
    return size.first + i * size.step


@kernel
def every_step(task: Index, ints: I64, y: T):
    size = named(ints, Size)
    for i in range(size.count):
        y[place(ints, i)] = i + 1


def test_numbers_have_names() -> None:
    y = np.zeros(9, np.float32)
    launch(every_step, 1, (y,), Size(first=1, step=3, count=2), "float32")
    assert y.tolist() == [0, 1, 0, 0, 2, 0, 0, 0, 0]
