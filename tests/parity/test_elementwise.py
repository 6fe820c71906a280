"""Elementwise functions, sums and means against torch: values, dtypes, gradients, memory order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet import functional as F

TWO = ["add", "sub", "mul", "div", "pow", "maximum", "minimum"]
ONE = ["neg", "exp", "log", "sqrt", "abs"]
SPECIAL = [0.0, 1.0, -1.0, 2.5, -3.0, float("inf"), float("-inf"), float("nan"), 4.0, 0.5]


def check(function, torch_function, *arrays, tolerance=1e-6):
    ours = [nnet.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, u = function(*ours), torch_function(*theirs)
    assert y.shape == tuple(u.shape)
    assert str(y.dtype) == str(u.dtype).removeprefix("torch.")
    np.testing.assert_allclose(y.data, u.detach().numpy(), rtol=tolerance, atol=tolerance)
    if not u.requires_grad:
        return
    grad = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
    y.backward(grad)
    u.backward(torch.tensor(grad))
    for mine, right in zip(ours, theirs):
        if right.requires_grad:
            assert str(mine.grad.dtype) == str(right.grad.dtype).removeprefix("torch.")
            np.testing.assert_allclose(mine.grad.data, right.grad.numpy(), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(name, dtype):
    a, b = np.meshgrid(np.array(SPECIAL, dtype), np.array(SPECIAL, dtype))
    check(getattr(F, name), getattr(torch, name), a, b)


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_operand(name, dtype, rng):
    check(getattr(F, name), getattr(torch, name), np.array(SPECIAL, dtype))
    check(getattr(F, name), getattr(torch, name), rng.random((3, 4, 5, 6)).astype(dtype))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "eq", "lt"])
def test_dtypes_and_broadcasting(name, rng):
    shapes = [((3, 4), (4,)), ((2, 3, 1), (1, 4)), ((), (3,)), ((2, 3, 4, 5), (3, 1, 1))]
    dtypes = ["float32", "float64", "int64", "bool"]
    for (a, b), (s, t) in itertools.product(shapes, itertools.product(dtypes, repeat=2)):
        if name == "sub" and "bool" in (s, t):
            continue  # refused by both
        x, y = (np.asarray(rng.integers(1, 5, shape)).astype(kind) for shape, kind in ((a, s), (b, t)))
        check(getattr(F, name), getattr(torch, name), x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("number", [2, 2.5, True])
def test_numbers(dtype, number):
    x = np.ones((2, 3), dtype)
    for function in (lambda t: t + number, lambda t: number * t, lambda t: number / t, lambda t: t / number):
        check(function, function, x)


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3])
def test_powers(exponent, rng):
    # At -inf torch takes roots for some exponents (NaN), and the C library's pow for the others.
    numbers = [x for x in SPECIAL if x != float("-inf")]
    x = np.concatenate([numbers, rng.standard_normal(20)]).astype(np.float32)
    check(lambda t: t**exponent, lambda t: t**exponent, x, tolerance=2e-6)


def test_clamp_and_where(rng):
    x, low, high = np.array(SPECIAL, np.float32), np.full(10, -1, np.float32), np.float32(rng.random(10))
    for bounds in ((-1, 2.5), (None, 1), (0, None), (2, -2)):
        check(lambda t, b=bounds: F.clamp(t, *b), lambda t, b=bounds: torch.clamp(t, *b), x)
    check(F.clamp, torch.clamp, np.nan_to_num(x), low, high)
    mask = rng.random((3, 10)) > 0.5
    check(lambda a, b: F.where(nnet.tensor(mask), a, b), lambda a, b: torch.where(torch.tensor(mask), a, b), low, high)


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4, 5), (0, 3), (2, 33, 20, 20)], ids=str)
def test_reductions(name, dtype, shape, rng):
    x = rng.standard_normal(shape).astype(dtype)
    dims = [None, ()] + [c for n in (1, 2) for c in itertools.combinations(range(-len(shape), 0), n)]
    for dim, keepdim in itertools.product(dims, (False, True)):
        if dim is None:
            check(getattr(F, name), getattr(torch, name), x, tolerance=5e-6)
        else:
            check(
                lambda t, d=dim, k=keepdim: getattr(F, name)(t, d, k),
                lambda t, d=dim, k=keepdim: getattr(torch, name)(t, d, keepdim=k),
                x,
                tolerance=5e-6,
            )


def test_sums_of_integers():
    for x in (np.arange(6).reshape(2, 3), np.array([[True, False]]), np.ones((2, 2), np.int32)):
        check(lambda t: F.sum(t, 0), lambda t: torch.sum(t, 0), x)


def test_memory_order():
    x, y = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.ones(3, 1, 1)
    for a, b in ((x, y), (y, x), (x, x)):
        assert nnet.ops.add(a.numpy(), b.numpy()).strides == tuple(4 * s for s in (a + b).stride())


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("shape", [(1,), ()])
def test_integers_to_negative_powers(dtype, shape):
    base = np.array([-3, -2, -1, 0, 1, 2, 3], dtype)
    for exponent in (-3, -2, -1, 0, 2):
        power = np.full(shape, exponent, dtype)
        ours, theirs = nnet.tensor(base) ** nnet.tensor(power), torch.tensor(base) ** torch.tensor(power)
        assert str(ours.dtype) == dtype
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    mixed = base[::-1].copy()
    np.testing.assert_array_equal(
        (nnet.tensor(base) ** nnet.tensor(mixed)).numpy(), (torch.tensor(base) ** torch.tensor(mixed)).numpy()
    )
    np.testing.assert_array_equal((2 ** nnet.tensor(base)).numpy(), (2 ** torch.tensor(base)).numpy())
    for tensor in (torch.tensor(base), nnet.tensor(base)):
        with pytest.raises((ValueError, RuntimeError), match="negative"):
            tensor ** -1
