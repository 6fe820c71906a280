"""Losses against torch: values and gradients over shapes, weights, ignored rows, smoothing and reductions."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F

REDUCTIONS = ("none", "mean", "sum")
SHAPES = [(7,), (5, 7), (0, 7), (2, 7, 3), (2, 19, 4, 5), (2, 3, 2, 2, 2)]


def call(module, make, name, arrays, options):
    """Call a function on tensors of arrays that require gradients; other arrays are made tensors too."""
    tensors = [make(a, requires_grad=True) for a in arrays]
    others = {key: make(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
    return tensors, getattr(module, name)(*tensors, **others)


def compare(name, arrays, options, rng):
    """Compare the value of a loss and the gradient of each array with torch's."""
    tensors, y = call(F, nnet.tensor, name, arrays, options)
    others, u = call(TF, torch.tensor, name, arrays, options)
    assert y.shape == tuple(u.shape)
    tolerance = 3e-6 if arrays[0].dtype == np.float32 else 1e-13
    np.testing.assert_allclose(y.data, u.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=str(options))
    grad = np.asarray(rng.standard_normal(y.shape), y.dtype)
    y.backward(grad)
    u.backward(torch.tensor(grad))
    for t, o in zip(tensors, others):
        np.testing.assert_allclose(t.grad.data, o.grad.numpy(), rtol=tolerance, atol=tolerance, err_msg=str(options))


def rows_and_classes(shape):
    return ((), shape[0]) if len(shape) == 1 else ((shape[0], *shape[2:]), shape[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_of_indices(shape, dtype, rng):
    rows, classes = rows_and_classes(shape)
    for reduction, weighted, ignore, smoothing in itertools.product(REDUCTIONS, (0, 1), (-100, 2), (0.0, 0.1)):
        options = {
            "target": np.asarray(rng.integers(0, classes, rows)),
            "weight": rng.uniform(0.2, 2, classes).astype(dtype) if weighted else None,
            "ignore_index": ignore,
            "reduction": reduction,
            "label_smoothing": smoothing,
        }
        compare("cross_entropy", [(rng.standard_normal(shape) * 3).astype(dtype)], options, rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_of_probabilities(shape, dtype, rng):
    classes = rows_and_classes(shape)[1]
    for reduction, weighted, smoothing in itertools.product(REDUCTIONS, (0, 1), (0.0, 0.3)):
        options = {
            "weight": rng.uniform(0.2, 2, classes).astype(dtype) if weighted else None,
            "reduction": reduction,
            "label_smoothing": smoothing,
        }
        arrays = [(rng.standard_normal(shape) * 3).astype(dtype), rng.uniform(0, 1, shape).astype(dtype)]
        compare("cross_entropy", arrays, options, rng)


def test_probabilities_of_another_dtype(rng):
    x, target = rng.standard_normal((4, 3)).astype(np.float32), rng.uniform(0, 1, (4, 3))
    compare("cross_entropy", [x, target], {"weight": np.array([1.0, 2.0, 3.0], np.float32)}, rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nll_loss(shape, dtype, rng):
    rows, classes = rows_and_classes(shape)
    for reduction, ignore, weighted in itertools.product(REDUCTIONS, (-100, 1), (0, 1)):
        options = {
            "target": np.asarray(rng.integers(0, classes, rows)),
            "weight": rng.uniform(0.2, 2, classes).astype(dtype) if weighted else None,
            "ignore_index": ignore,
            "reduction": reduction,
        }
        compare("nll_loss", [rng.standard_normal(shape).astype(dtype)], options, rng)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_everything_ignored(reduction, rng):
    options = {"target": np.full(3, -100), "reduction": reduction}
    for name in ("cross_entropy", "nll_loss"):
        compare(name, [rng.standard_normal((3, 4))], options, rng)


@pytest.mark.parametrize("shapes", [((5,), (5,)), ((3, 4), (3, 4)), ((2, 3, 4, 5), (2, 3, 4, 5)), ((3, 4), (4,))])
@pytest.mark.parametrize("weighted", [False, True])
def test_mse_loss(shapes, weighted, rng):
    for dtype, reduction in itertools.product(("float32", "float64"), REDUCTIONS):
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        weight = rng.uniform(0.2, 2, shapes[0]).astype(dtype) if weighted else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shapes that broadcast
            compare("mse_loss", arrays, {"reduction": reduction, "weight": weight}, rng)


@pytest.mark.parametrize("target", [[0, 7], [-1, 0], [0], [[0, 1]], [0.0, 1.0]])
def test_refused_as_by_torch(target):
    x = np.zeros((2, 3))
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        TF.cross_entropy(torch.tensor(x), torch.tensor(target))
    with pytest.raises((IndexError, ValueError, TypeError)):
        F.cross_entropy(nnet.tensor(x), nnet.tensor(target))
