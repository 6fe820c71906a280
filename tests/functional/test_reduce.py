"""Gradients of sums and means against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from tests.gradcheck import gradcheck


@pytest.mark.parametrize("function", [F.sum, F.mean])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (1, -1), ()])
@pytest.mark.parametrize("keepdim", [False, True])
def test_gradients(function, dim, keepdim, rng):
    gradcheck(lambda x: function(x, dim, keepdim), rng.standard_normal((2, 3, 4)))
    gradcheck(lambda x: function(x * x, dim, keepdim), rng.standard_normal((2, 4, 3)).transpose(0, 2, 1))


def test_methods_and_empty(rng):
    x = nnet.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert x.sum().item() == 6
    assert x.mean(1, keepdim=True).shape == (2, 1)
    assert nnet.tensor([True, True]).sum().item() == 2
    empty = nnet.tensor(np.ones((0, 3)), requires_grad=True)
    empty.sum().backward()
    assert empty.grad.shape == (0, 3)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min"])
@pytest.mark.parametrize("word", ["keepdim", "keepdims"])
def test_keepdim_needs_dim(name, word):
    x = nnet.tensor(np.ones((2, 3)))
    for call in (getattr(x, name), lambda *args, **options: getattr(F, name)(x, *args, **options)):
        for keep in (True, False):
            with pytest.raises(TypeError, match="dim must be given beside keepdim"):
                call(**{word: keep})
        first = call(0, **{word: True})
        assert (first if isinstance(first, nnet.Tensor) else first[0]).shape == (1, 3)


def test_names_of_numpy(rng):
    a = rng.standard_normal((2, 3))
    x = nnet.tensor(a)
    for name in ("sum", "mean", "prod", "var", "std", "amax", "amin", "argmax", "argmin", "any", "all", "max", "min"):
        for call in (getattr(x, name), lambda n=name, **options: getattr(F, n)(x, **options)):
            found, want = call(axis=1, keepdims=True), call(dim=1, keepdim=True)
            for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, want))):
                assert one.shape == (2, 1) and np.array_equal(one.data, other.data)
            with pytest.raises(TypeError, match="dim and axis are one argument"):
                call(axis=1, dim=1)
            with pytest.raises(TypeError, match="keepdim and keepdims are one argument"):
                call(axis=1, keepdim=True, keepdims=True)
    for name in ("softmax", "log_softmax", "squeeze", "unsqueeze"):
        assert np.array_equal(getattr(x, name)(axis=1).data, getattr(x, name)(dim=1).data)
    assert F.cat([x, x], axis=1).shape == (2, 6) and F.stack([x, x], axis=2).shape == (2, 3, 2)
    assert F.squeeze(x, axis=0).shape == (2, 3) and F.unsqueeze(x, axis=0).shape == (1, 2, 3)
    with pytest.raises(TypeError, match="multiple values"):
        x.sum(0, axis=0)


def test_dtype_is_that_of_the_numbers_and_of_the_result(rng):
    x = nnet.tensor([[1.5, 2.5], [-0.25, 200.0]], requires_grad=True)
    for name in ("sum", "mean", "prod"):
        assert getattr(x, name)(dtype=np.float64).dtype == np.float64
        assert getattr(nnet.tensor([[1, 2]]), name)(1, True, dtype=np.float32).dtype == np.float32
    x.sum(1, dtype=np.float64).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [[1, 1], [1, 1]]
    assert x.sum(0, dtype=np.int32).tolist() == [1, 202] and x.sum(dtype=np.int32).dtype == np.int32
    wide = nnet.tensor([[200, 100], [100, 3]])
    assert wide.sum(0, dtype=np.uint8).tolist() == [300 % 256, 103] and wide.sum(dtype=np.uint8).dtype == np.uint8
    assert wide.prod(0, dtype=np.uint8).tolist() == [20000 % 256, 300 % 256]
    for name in ("sum", "prod"):
        assert getattr(nnet.tensor([[2, 0], [4, 1]]), name)(1, dtype=np.bool_).tolist() == [name == "sum", True]
    for wrong in (np.int64, np.bool_):
        with pytest.raises(TypeError, match="dtype must be float32 or float64, got"):
            x.mean(dtype=wrong)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21])
def test_products(size, rng):
    a = rng.standard_normal((3, size, 2)) * 1.5
    gradcheck(lambda x: F.prod(x), a[:1, :, 0])
    for zeros in (0, 1, 2):
        a[0, :zeros] = 0
        x = nnet.tensor(a, requires_grad=True)
        for axis, keep in ((1, False), (-2, True), (0, False)):
            y, x.grad = x.prod(axis, keep), None
            np.testing.assert_allclose(y.data, a.prod(axis, keepdims=keep), rtol=1e-12)
            y.sum().backward()
            others = np.stack([np.delete(a, i, axis).prod(axis) for i in range(a.shape[axis])], axis)
            np.testing.assert_allclose(x.grad.data, others, rtol=1e-12)
    gradcheck(lambda x: F.prod(x, 1), a)


@pytest.mark.parametrize(
    ("factors", "dtype"),
    [([1e30, 1e-30, 1e30, 1e-30], "float32"), ([1e30, 1e30, 1e-30, 1e-30], "float32"), ([1e200, 1e-200] * 2, "float64"),
     ([1e10, 1e-10] * 8, "float32")],
)  # fmt: skip
def test_products_that_balance(factors, dtype):
    x = nnet.tensor(np.array(factors, dtype), requires_grad=True)
    y = x.prod()
    assert y.dtype == dtype and y.item() == pytest.approx(1, rel=1e-6)
    y.backward()
    np.testing.assert_allclose(x.grad.data, 1 / np.array(factors), rtol=1e-6)


def test_products_of_integers_and_of_nothing():
    for dtype in ("bool", "uint8", "int8", "int32"):
        y = nnet.tensor(np.array([[1, 1], [1, 0]], dtype)).prod(1)
        assert y.dtype == np.int64 and y.tolist() == [1, 0]
    assert nnet.tensor([2**40, 2**20]).prod().item() == 2**60
    for dtype in ("float32", "int64"):
        empty = nnet.tensor(np.zeros((2, 0), dtype))
        assert empty.prod(1).tolist() == [1, 1] and empty.prod().item() == 1 and empty.prod(0).shape == (0,)
    empty = nnet.tensor(np.zeros((2, 0)), requires_grad=True)
    empty.prod(1).sum().backward()
    assert empty.grad.shape == (2, 0)
    assert nnet.tensor(3.0).prod(0, True).shape == ()
    for wrong in (None, (0,), "0", 1.0):
        with pytest.raises(TypeError, match="dim must be an integer"):
            nnet.tensor([1.0]).prod(wrong)
    with pytest.raises(ValueError, match="dim must be between"):
        nnet.tensor([1.0]).prod(1)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float32", "float64"])
def test_truth(dtype, rng):
    for shape in ((), (3,), (4, 5), (2, 0), (0, 3), (2, 3, 4)):
        a = (rng.random(shape) < 0.6).astype(dtype) * np.array(2).astype(dtype)
        x = nnet.tensor(a)
        for name, definition in (("any", np.any), ("all", np.all)):
            for dim in (None, 0, -1, *([(0, -1)] if a.ndim > 1 else [])):
                for keep in (False, True):
                    y, axis = getattr(x, name)(dim, keep), dim if a.ndim else None
                    want = definition(a, axis=axis, keepdims=keep)
                    assert y.dtype == (np.uint8 if dtype == "uint8" else np.bool_) and np.array_equal(y.data, want)
            assert np.array_equal(getattr(x, name)(()).data, a != 0)
            assert getattr(x, name)(keepdim=True).shape == (1,) * a.ndim
            with pytest.raises(ValueError, match="dim must be between"):
                getattr(x, name)(5)
    assert nnet.tensor([np.nan, -0.0]).any().item() and nnet.tensor([np.nan]).all().item()
    assert not nnet.tensor([1.0], requires_grad=True).any().requires_grad
