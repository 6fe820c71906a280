"""Gradients of batch normalisation against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from tests.gradcheck import gradcheck


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 5), (2, 3, 3, 2)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_gradients(shape, training, rng):
    mean, var = nnet.tensor(rng.standard_normal(shape[1])), nnet.tensor(rng.random(shape[1]) + 0.5)

    def affine(x, weight, bias):
        return F.batch_norm(x, mean, var, weight, bias, training)

    gradcheck(affine, rng.standard_normal(shape), rng.standard_normal(shape[1]), rng.standard_normal(shape[1]))
    gradcheck(lambda x: F.batch_norm(x, mean, var, training=training), rng.standard_normal(shape))


def test_only_the_gradients_that_are_asked_for(rng):
    x = nnet.tensor(rng.standard_normal((5, 3)))
    weight = nnet.tensor(np.ones(3), requires_grad=True)
    F.batch_norm(x, None, None, weight, training=True).sum().backward()
    assert x.grad is None
    assert weight.grad.shape == (3,)


def test_evaluation_keeps_its_statistics_when_training_goes_on(rng):
    x = nnet.tensor(rng.standard_normal((5, 3)), requires_grad=True)
    mean, var = nnet.tensor(np.zeros(3)), nnet.tensor(np.full(3, 4.0))
    y = F.batch_norm(x, mean, var, eps=0)
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    y.backward(np.ones((5, 3)))
    np.testing.assert_allclose(x.grad.data, 0.5, rtol=1e-14)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_an_empty_batch_needs_no_statistics(given, training):
    statistics = (nnet.tensor(np.zeros(3)), nnet.tensor(np.ones(3))) if given else (None, None)
    x = nnet.tensor(np.zeros((0, 3, 4)), requires_grad=True)
    y = F.batch_norm(x, *statistics, training=training)
    assert y.shape == (0, 3, 4)
    y.backward(nnet.tensor(np.zeros((0, 3, 4))))
    assert x.grad.shape == (0, 3, 4)


@pytest.mark.parametrize("training", [1, 1e-30, "train"])
def test_training_is_a_flag(training):
    x, mean, var = (nnet.tensor(np.ones(shape, np.float32)) for shape in ((2, 3), (3,), (3,)))
    with pytest.raises(TypeError, match=f"training must be True or False, got {training!r}"):
        F.batch_norm(x, mean, var, training=training)


@pytest.mark.parametrize(("eps", "training"), [(0.0, True), (-1e-5, True), (-1e-5, False)])
def test_eps_is_positive(eps, training):
    mean, var = (nnet.tensor(np.full(3, value, np.float32)) for value in (0, 1))
    for x in (nnet.tensor(np.ones((rows, 3), np.float32)) for rows in (2, 0)):
        with pytest.raises(ValueError, match=f"eps must be (above|at least) 0, got {eps}"):
            F.batch_norm(x, mean, var, training=training, eps=eps)
        with pytest.raises(ValueError, match="eps must be"):
            nn.BatchNorm1d(3, eps=eps).train(training)(x)
    assert mean.tolist() == [0, 0, 0]
    assert F.batch_norm(nnet.tensor(np.ones((2, 3), np.float32)), mean, var, eps=0.0).tolist() == [[1.0] * 3] * 2
