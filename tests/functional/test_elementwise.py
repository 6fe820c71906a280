"""Gradients of elementwise functions against finite differences; operators and comparisons of Tensor."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from tests.gradcheck import gradcheck


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize(("a", "b"), [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (2, 3)), ((1,), ())])
def test_two_operands(name, a, b, rng):
    gradcheck(getattr(F, name), rng.standard_normal(a), rng.standard_normal(b) + 3 * np.sign(rng.standard_normal(b)))


def test_pow(rng):
    base, exponent = rng.random((3, 4)) + 0.5, rng.standard_normal(4)
    gradcheck(F.pow, base, exponent)
    for number in (2, 3, 0.5, -1.5, 1, 0):
        gradcheck(lambda x, n=number: x**n, base)
    gradcheck(lambda x: 2.5**x, exponent)


@pytest.mark.parametrize("name", ["neg", "exp", "log", "sqrt", "abs"])
def test_one_operand(name, rng):
    gradcheck(getattr(F, name), rng.random((2, 3, 4, 5)).transpose(0, 3, 1, 2) + 0.3)


def test_abs_of_negative_numbers(rng):
    gradcheck(F.abs, -rng.random(7) - 0.1)


def test_clamp_and_where(rng):
    x, low, high = rng.standard_normal((3, 20)), rng.standard_normal(20) - 1, rng.standard_normal((3, 1)) + 1
    gradcheck(lambda t: F.clamp(t, -0.5, 0.7), x)
    gradcheck(lambda t: F.clamp(t, min=0.1), x)
    gradcheck(F.clamp, x, low, high)
    mask = rng.random((3, 20)) > 0.5
    gradcheck(lambda a, b: F.where(mask, a, b), x, low)


def test_add_and_sub_scale_the_second_operand(rng):
    x, y = rng.standard_normal((2, 5))
    gradcheck(lambda a, b: F.add(a, b, alpha=2.5), x, y)
    gradcheck(lambda a, b: F.sub(a, b, alpha=-2), x, y)


def test_equal_operands_share_the_gradient():
    a, b = nnet.tensor([1.0, 2.0, 3.0], requires_grad=True), nnet.tensor([1.0, 3.0, 2.0], requires_grad=True)
    F.maximum(a, b).sum().backward()
    assert a.grad.tolist() == [0.5, 0, 1]
    assert b.grad.tolist() == [0.5, 1, 0]


def test_gradient_has_the_dtype_of_its_operand():
    a, b = nnet.tensor(np.ones(3, np.float32), requires_grad=True), nnet.tensor(np.ones(3), requires_grad=True)
    y = a * b
    assert y.dtype == np.float64
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_an_operand_used_twice_gets_both_gradients():
    x = nnet.tensor([2.0, 3.0], requires_grad=True)
    (x * x + x * 1 + x).sum().backward()
    assert x.grad.tolist() == [6, 8]


def test_operators():
    x = nnet.tensor([1.0, -2.0])
    array = np.array([3.0, 4.0], np.float32)
    for result, expected in [
        (1 - x, [0, 3]),
        (x - 1, [0, -3]),
        (2 / x, [2, -1]),
        (x / 2, [0.5, -1]),
        (2**x, [2, 0.25]),
        (x**2, [1, 4]),
        (-x, [-1, 2]),
        (abs(x), [1, 2]),
        (array + x, [4, 2]),
        (x * array, [3, -8]),
    ]:
        assert isinstance(result, nnet.Tensor)
        assert result.dtype == np.float32
        assert result.tolist() == expected


def test_comparisons():
    x = nnet.tensor([1.0, 2.0, float("nan")], requires_grad=True)
    assert (x == 2).tolist() == [False, True, False]
    assert (x != 2).tolist() == [True, False, True]
    assert (x < 2).tolist() == [True, False, False]
    assert (x <= nnet.tensor([1.0, 1.0, 1.0])).tolist() == [True, False, False]
    assert (1 < x).tolist() == [False, True, False]
    assert (x >= np.array([2.0])).tolist() == [False, True, False]
    assert not (x == 2).requires_grad
    assert (x == None) is False  # noqa: E711 - what else than a number is never equal
    assert {x: 1}[x] == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("exponent", [3, 4, -3, 2.0**24, 2.0**24 + 2, -(2.0**24), 2.0**31, -(2.0**31), 1e12, 1e30])
def test_slope_of_a_power_has_its_sign(dtype, exponent):
    """An even exponent less one is odd, and float32 has no odd numbers beyond 2^24."""
    x = nnet.tensor(np.array([-1.0, 1.0], dtype), requires_grad=True)
    for chosen in (contextlib.nullcontext(), nnet.use("reference")):
        x.grad = None
        with chosen:
            F.pow(x, exponent).backward(np.ones(2, dtype))
        assert (np.sign(x.grad.data) * np.sign(exponent)).tolist() == [1 if exponent % 2 else -1, 1]


@pytest.mark.parametrize("exponent", [-3, -4, -1.9436795, -(2.0**24), -(2.0**31), -1e30])
def test_slope_of_a_power_at_zero_has_its_sign(exponent):
    x = nnet.tensor(np.array([-0.0, 0.0], np.float32), requires_grad=True)
    for chosen in (contextlib.nullcontext(), nnet.use("reference")):
        x.grad = None
        with chosen, np.errstate(divide="ignore"):
            F.pow(x, exponent).backward(np.ones(2, np.float32))
        assert x.grad.tolist() == [np.inf if exponent % 2 == 0 else -np.inf, -np.inf]


def test_slope_of_an_exponent_overflows_no_sooner_than_it_must():
    x = nnet.tensor(np.array([1.23], np.float32), requires_grad=True)
    F.pow(1e30, x).backward(np.array([0.1], np.float32))
    assert x.grad.item() == pytest.approx(0.1 * 1e30 ** float(np.float32(1.23)) * np.log(1e30), rel=1e-3)


def test_alpha_and_a_number_keep_their_digits():
    x = nnet.tensor(np.zeros(2))
    assert F.sub(x, 1e-30, alpha=-0.5).data.tolist() == F.add(x, 1e-30, alpha=0.5).data.tolist() == [5e-31, 5e-31]


def test_booleans_as_exponents_of_what_has_a_gradient():
    x, e = nnet.tensor([2.0, 3.0], requires_grad=True), nnet.tensor([3.0, 2.0], requires_grad=True)
    for exponent in (nnet.tensor([True, False]), nnet.tensor(np.array(True))):
        y = x**exponent
        with pytest.raises(TypeError, match="exponent must not hold booleans where the base has a gradient"):
            y.sum().backward()
    (nnet.tensor([True, False]) ** e).sum().backward()  # as a base they are numbers
    (x**True).sum().backward()
    assert x.grad.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_that_are_square_roots(dtype):
    """As in PyTorch: their sign at -0, and infinity below zero, are those of the root."""
    x = nnet.tensor(np.array([-0.0, -np.inf, 4.0], dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        roots = x**-0.5
        assert roots.dtype == dtype
        np.testing.assert_array_equal(roots.data, [-np.inf, np.nan, 0.5])
        (x**0.5).sum().backward()
        np.testing.assert_array_equal(x.grad.data, [-np.inf, np.nan, 0.25])
        x.grad = None
        (x**1.5).sum().backward()
        np.testing.assert_array_equal(x.grad.data, [-0.0, np.nan, 3.0])
        assert np.signbit(x.grad.data[0])


def test_where_of_a_condition_alone_gives_places(rng):
    mask = rng.random((2, 3, 2)) < 0.5
    for array in (rng.integers(0, 2, (3, 4)), mask, np.array(2.0), np.array(0), np.zeros((0, 2))):
        found = F.where(nnet.tensor(array))
        want = np.nonzero(np.atleast_1d(array))
        assert len(found) == len(want) and all(t.dtype == np.int64 for t in found)
        assert [t.tolist() for t in found] == [w.tolist() for w in want]
    assert F.where(nnet.tensor([np.nan, 0.0]))[0].tolist() == [0]


def test_conditions():
    x, mask = nnet.tensor([1.0, 2.0], requires_grad=True), nnet.tensor([True, False])
    for y in (x.where(mask, 5.0), x.where(condition=mask, other=nnet.tensor(5.0)), F.where(mask, x, 5.0)):
        x.grad = None
        y.sum().backward()
        assert y.tolist() == [1, 5] and x.grad.tolist() == [1, 0]
    with pytest.warns(UserWarning, match="condition holds uint8"):
        assert F.where(nnet.tensor(np.array([3, 0], np.uint8)), x, 5.0).tolist() == [1, 5]
    for wrong in (lambda: F.where(mask, x), lambda: F.where(mask, None, x), lambda: F.where(mask, other=x)):
        with pytest.raises(TypeError, match="input and other must both be given, or neither"):
            wrong()
    with pytest.raises(TypeError, match="condition must hold booleans, got int64"):
        F.where(nnet.tensor([1, 0]), x, x)


def test_bounds_that_a_dtype_does_not_hold():
    for dtype, fit, wrong in (
        ("uint8", (-255, 255), (300, -256)), ("int8", (-128, 127), (128, -129)), ("int32", (0,), (2**40,)),
    ):  # fmt: skip
        x = nnet.tensor(np.array([1, 0], dtype))
        for bound in wrong:
            for name in ("min", "max"):
                with pytest.raises(ValueError, match=f"{name} must fit in the input's dtype {dtype}, got {bound}"):
                    x.clamp(**{name: bound})
            assert x.clamp(0.0, bound + 0.5).dtype == np.float32
        for bound in fit:
            assert x.clamp(bound).dtype == dtype
    assert nnet.tensor([True, False]).clamp(0, 2).tolist() == [1, 0]
    with pytest.raises(TypeError, match="got booleans only"):
        nnet.tensor([True, False]).clamp(False, True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounded_quotients(dtype):
    # What PyTorch 2.13 gives.
    inf, nan = np.inf, np.nan
    a = np.array([-7, 7, -7, 7, 1, -1, 0.0, -0.0, 7, inf, -7, 7, inf, nan, 1, -6], dtype)
    b = np.array([2, 2, -2, -2, 0, 0, 0, 5, inf, inf, inf, -inf, 2, 2, 0.1, 3], dtype)
    floor = [-4, 3, 3, -4, inf, -inf, nan, -0.0, 0, nan, -1, -1, nan, nan, 9, -2]
    trunc = [-3, 3, 3, -3, inf, -inf, nan, -0.0, 0, nan, -0.0, -0.0, inf, nan, 10, -2]
    for mode, want in (("floor", floor), ("trunc", trunc)):
        x, y = nnet.tensor(a, requires_grad=True), nnet.tensor(b, requires_grad=True)
        z = x.div(y, rounding_mode=mode)
        np.testing.assert_array_equal(z.data, np.array(want, dtype))
        zeros = z.data == 0
        assert z.dtype == dtype and np.array_equal(np.signbit(z.data[zeros]), np.signbit(np.array(want)[zeros]))
        z[:2].sum().backward()
        assert not x.grad.data.any() and not y.grad.data.any()


def test_rounded_quotients_of_integers():
    a, b = nnet.tensor([-7, 7, -7, 7, 6, 0]), nnet.tensor([2, 2, -2, -2, -3, 5])
    for call in (F.div, lambda x, y, **o: x.div(y, **o), lambda x, y, **o: x.clone().div_(y, **o)):
        floor, trunc = call(a, b, rounding_mode="floor"), call(a, b, rounding_mode="trunc")
        assert floor.dtype == trunc.dtype == np.int64
        assert floor.tolist() == [-4, 3, 3, -4, -2, 0] and trunc.tolist() == [-3, 3, 3, -3, -2, 0]
    flat = nnet.tensor(np.ones(2), requires_grad=True)
    (flat.div(2, rounding_mode="floor") * float("inf")).sum().backward()
    assert flat.grad.tolist() == [0, 0]
    assert a.div(2.5, rounding_mode="floor").dtype == np.float32 and a.div(b, rounding_mode=None).dtype == np.float32
    assert nnet.tensor(np.array([7], np.uint8)).div(2, rounding_mode="trunc").dtype == np.uint8
    for zero in (0, nnet.tensor([0]), nnet.tensor([[1, 0]]).reshape(2, 1)):
        for mode in ("floor", "trunc"):
            with pytest.raises(ValueError, match="other must not hold 0"):
                a.div(zero, rounding_mode=mode)
    with pytest.raises(ValueError, match="must not hold 0, as int32,"):
        nnet.tensor(np.ones(1, np.int32)).div(2**40, rounding_mode="floor")
    nothing = nnet.tensor(np.zeros((2, 0), np.int64))
    for zero in (0, nnet.tensor([[0], [1]])):
        assert nothing.div(zero, rounding_mode="trunc").shape == (2, 0)
    with pytest.raises(ValueError, match="rounding_mode must be one of 'trunc', 'floor', got 'up'"):
        a.div(b, rounding_mode="up")
    with pytest.raises(ValueError, match="input and other: shapes"):
        a.div(b[:5], rounding_mode="floor")
    with pytest.raises(TypeError, match="must not both hold booleans"):
        nnet.tensor([True]).div(nnet.tensor([True]), rounding_mode="floor")
