"""Methods and in-place operators of Tensor against torch: values, dtypes, gradients, refusals."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet import functional as F

DTYPES = ["bool", "int32", "int64", "float32", "float64"]
IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv]


def same(ours, theirs):
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("change", IN_PLACE)
@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("right", [*DTYPES, 2, 2.5])
def test_dtypes_in_place(change, left, right):
    if change is operator.isub and right == "bool":
        pytest.skip("torch has no subtraction of booleans")
    values = np.array([[1, 2, 3], [4, 5, 6]])

    def attempt(make):
        a = make(values.astype(left))
        try:
            return change(a, make(np.array([1, 2, 4], right)) if isinstance(right, str) else right)
        except (RuntimeError, TypeError):
            return None

    ours, theirs = attempt(nnet.tensor), attempt(torch.tensor)
    assert (ours is None) == (theirs is None)
    if theirs is not None:
        same(ours, theirs)


def test_recorded_changes():
    start = np.arange(1.0, 13.0).reshape(3, 4)
    results = []
    for make in (nnet.tensor, torch.tensor):
        a, b = make(start, requires_grad=True), make(start[0] + 0.5, requires_grad=True)
        x = a * 2
        x *= b
        x += a
        x[1] = b
        x[:, 2] -= 3.0
        x[make(np.array([0, 2])), 0] = a[0, :2]
        x[0] += x[1]
        x /= b
        (x * x).sum().backward()
        results.append((x, a.grad, b.grad))
    for ours, theirs in zip(*results):
        same(ours, theirs)


def test_setitem_without_the_tape():
    for index in (0, (slice(None), 1), ([0, 2], 1), (1, [0, 3]), ([2, 1],), (..., [1, 0]), None, (slice(0, 2), [0, 3])):
        ours, theirs = nnet.tensor(np.zeros((3, 4))), torch.zeros(3, 4, dtype=torch.float64)
        shape = theirs[index].shape
        value = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
        ours[index], theirs[index] = nnet.tensor(value), torch.tensor(value)
        same(ours, theirs)


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("right", [*DTYPES[:3], True, 3])
@pytest.mark.parametrize("function", [operator.and_, operator.or_, operator.xor])
def test_bits(function, left, right):
    def attempt(make):
        try:
            return function(make(np.array([5, 0, 3], left)), make(np.array([3, 1, 0], right))
                            if isinstance(right, str) else right)  # fmt: skip
        except (RuntimeError, TypeError):
            return None

    ours, theirs = attempt(nnet.tensor), attempt(torch.tensor)
    assert (ours is None) == (theirs is None)
    if theirs is not None:
        same(ours, theirs)
        same(~ours, ~theirs)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activations_of_integers(name, dtype):
    x = np.array([-3, 0, 2], dtype)
    same(getattr(F, name)(nnet.tensor(x)), getattr(torch, name)(torch.tensor(x)))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_argmax(dim, keepdim):
    x = np.array([[1.0, 7.0, 2.0], [np.nan, 3.0, 8.0]])
    same(nnet.tensor(x).argmax(dim, keepdim), torch.tensor(x).argmax(dim, keepdim))


@pytest.mark.parametrize("sizes", [(4, 2, 3), (-1, 3), (2, 1)])
def test_expand(sizes, rng):
    x = rng.standard_normal((2, 1))
    ours, theirs = nnet.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, u = ours.expand(*sizes), theirs.expand(*sizes)
    same(y, u)
    grad = rng.standard_normal(y.shape)
    y.backward(grad)
    u.backward(torch.tensor(grad))
    same(ours.grad, theirs.grad)
