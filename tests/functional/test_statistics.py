"""Extremes, variances and standard deviations: kernels against the definition, gradients, edges."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import ops
from tests.gradcheck import gradcheck


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("largest", [True, False])
def test_extremes_against_definition(dtype, largest, rng, poisoned):
    for shape in [(), (1,), (17,), (3, 40), (2, 17, 5, 6), (0, 3), (2, 3000), (300, 33), (4, 1, 3)]:
        x = np.asarray(np.round(rng.standard_normal(shape) * 3), dtype)  # with ties
        views = [x]
        if x.ndim == 4:
            views += [np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x[:, ::-2]]
        for view in views:
            for dim in range(max(view.ndim, 1)):
                if view.ndim and not view.shape[dim]:
                    continue
                values, places = ops.extremum(view, dim, True, largest)
                want = (np.argmax if largest else np.argmin)(view, axis=dim if view.ndim else None)
                assert np.array_equal(places.reshape(want.shape), want)
                assert values.dtype == dtype and values.ndim == view.ndim
                right = (np.max if largest else np.min)(view, axis=dim if view.ndim else None)
                assert np.array_equal(values.reshape(want.shape), right)


def test_nan_beats_numbers():
    x = np.array([[1.0, np.nan, np.inf, np.nan], [-np.inf, 3.0, 3.0, 2.0]])
    for data, dim in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        for function in (F.max, F.min):
            values, places = function(nnet.tensor(data), dim)
            assert np.isnan(values.data[0]) and places.data[0] == 1
        assert F.max(nnet.tensor(data), dim).indices.data[1] == 1


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "var", "std"])
def test_gradients(name, rng):
    x, function = rng.standard_normal((3, 4, 2)), getattr(F, name)
    gradcheck(function, x)
    for dim in (0, -1) if name in ("max", "min") else (1, (0, 2), ()):
        for keepdim in (False, True):
            gradcheck(lambda t, d=dim, k=keepdim: _first(function(t, d, keepdim=k)), x)


def _first(result):
    return result if isinstance(result, nnet.Tensor) else result[0]


def test_methods(rng):
    t = nnet.tensor(rng.standard_normal((3, 4)))
    x = t.data
    assert t.max().item() == x.max() and t.min(1).values.tolist() == x.min(1).tolist()
    assert t.argmin().item() == x.argmin() and t.argmin(0, True).shape == (1, 4)
    assert np.allclose(t.var(0).data, x.var(0, ddof=1)) and np.isclose(t.std(unbiased=False).item(), x.std())
    assert np.allclose(t.amax((0, 1), True).data, x.max()) and np.array_equal(t.max(-t).data, np.maximum(x, -x))
    assert np.allclose(t.var(1, correction=2).data, x.var(1, ddof=2)) and t.amin(1).shape == (3,)


def test_edges():
    one = nnet.tensor([2.0], requires_grad=True)
    assert np.isnan(one.var().item())
    F.std(one, correction=0).backward()
    assert one.grad.item() == 0
    for call in (lambda t: t.max(), lambda t: t.amax(1), lambda t: t.min(1), lambda t: t.argmin()):
        with pytest.raises(ValueError, match="elements"):
            call(nnet.tensor(np.zeros((2, 0))))
    with pytest.raises(ValueError, match="dim must be between"):
        one.max(3)
    with pytest.raises(TypeError, match="float32 or float64"):
        nnet.tensor([1, 2]).var()
    for function in (F.argmax, F.argmin, F.max):
        with pytest.raises(TypeError, match="input must be .*V4"):
            function(nnet.Tensor(np.zeros(3, "V4")))


def test_arguments_that_do_not_go_together():
    x = nnet.tensor([[1.0, 2.0], [3.0, 5.0]])
    for name in ("var", "std"):
        call, function = getattr(x, name), getattr(F, name)
        for wrong in (
            lambda c=call: c(unbiased=True, keepdim=True), lambda f=function: f(x, unbiased=False, keepdim=False),
            lambda c=call: c(0, unbiased=True, correction=1), lambda c=call: c(False, True),
            lambda c=call: c(False, keepdim=True), lambda c=call: c(0, True, "yes"), lambda c=call: c(0, None),
        ):  # fmt: skip
            text = r"dim must be given beside|must not both|must stand alone|(keepdim|unbiased) must be True or False"
            with pytest.raises(TypeError, match=text):
                wrong()
        assert call(None, True, True).shape == call(keepdim=True).shape == call(correction=1, keepdim=True).shape
        assert call(False).item() == call(unbiased=False).item() == call(correction=0).item()
        assert call(0, correction=True).tolist() == call(0).tolist()
        for correction in (-1, 0, 1):  # of nothing
            assert np.isnan(getattr(x[:0], name)(correction=correction).item())
            assert np.isnan(getattr(x[:, :0], name)(1, correction=correction).data).all()
    for name in ("max", "min"):
        for wrong in (lambda n=name: getattr(x, n)(None), lambda n=name: getattr(F, n)(x, dim=None, keepdim=True)):
            with pytest.raises(TypeError, match="dim must be an integer, got None"):
                wrong()
        with pytest.raises(TypeError, match="dim and other must not both be given"):
            getattr(x, name)(0, other=x)


# What PyTorch 2.13 gives: values, correction, std, and the gradients of std and of var over all.
NOT_FINITE = [
    ([1, np.inf, 3], 1, np.nan, [np.nan] * 3, [-np.inf, np.nan, -np.inf]),
    ([1, -np.inf, 3], 0, np.nan, [np.nan] * 3, [np.inf, np.nan, np.inf]),
    ([np.inf, -np.inf, 1], 1, np.nan, [np.nan] * 3, [np.nan] * 3),
    ([np.inf, np.inf], 1, np.nan, [np.nan] * 2, [np.nan] * 2),
    ([1, np.nan], 1, np.nan, [np.nan] * 2, [np.nan] * 2),
    ([np.inf], 1, np.nan, [np.nan], [np.nan]), ([-np.inf], 0, np.nan, [np.nan], [np.nan]),
    ([np.nan], 1, np.nan, [np.nan], [np.inf]), ([np.inf, 1], 2, np.nan, [np.nan] * 2, [np.nan, np.inf]),
    ([2, 2], 1, 0, [0, 0], [0, 0]), ([3], 1, np.nan, [np.nan], [np.nan]),
    ([1, 4], 2, np.inf, [np.nan] * 2, [np.inf] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("values", "correction", "std", "of_std", "of_var"), NOT_FINITE)
def test_gradients_beside_what_is_not_finite(values, correction, std, of_std, of_var):
    for function, wanted in ((F.std, of_std), (F.var, of_var)):
        x = nnet.tensor(values, dtype=np.float32, requires_grad=True)
        y = function(x, correction=correction)
        y.backward()
        assert np.allclose(y.item(), std**2 if function is F.var else std, equal_nan=True)
        assert np.allclose(x.grad.data, wanted, equal_nan=True), (function.__name__, x.grad)


@pytest.mark.parametrize("function", [F.max, F.min])
def test_the_gradient_of_nan_goes_to_the_nans(function):
    x = nnet.tensor(np.array([[1.0, np.nan, np.nan], [-np.inf, 2, np.inf]]), requires_grad=True)
    function(x).backward()
    assert x.grad.tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
    one = nnet.tensor(np.array(np.nan), requires_grad=True)
    function(one).backward()
    assert one.grad.item() == 1


@pytest.mark.parametrize("function", [F.amax, F.amin])
def test_the_gradient_of_nan_over_dimensions_is_nan(function):
    x = nnet.tensor(np.array([[1.0, np.nan, np.nan], [2, 2, 2]]), requires_grad=True)
    function(x, 1).sum().backward()
    assert np.isnan(x.grad.data[0]).all() and np.allclose(x.grad.data[1], 1 / 3)
