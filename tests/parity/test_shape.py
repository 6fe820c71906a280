"""Functions that change shapes, against PyTorch: values, gradients and refusals."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F

REFUSALS = (RuntimeError, ValueError, IndexError, NotImplementedError, TypeError)


def outcome(function, tensor, arguments):
    """Return the value and the gradient, or None where the arguments are refused."""
    tensor.requires_grad_(True)
    try:
        y = function(tensor, *arguments)
    except REFUSALS:
        return None
    grad = np.random.default_rng(0).standard_normal(tuple(y.shape))
    y.backward(torch.tensor(grad) if isinstance(y, torch.Tensor) else grad)
    return y.detach().numpy(), tensor.grad.numpy()


def compare(ours, theirs, data, *arguments):
    what = f"{arguments} on {data.shape}"
    mine, other = outcome(ours, nnet.tensor(data), arguments), outcome(theirs, torch.tensor(data), arguments)
    assert (mine is None) == (other is None), f"{what}: only one of the two refuses"
    for a, b in zip(mine or (), other or ()):
        assert a.shape == b.shape, what
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=what)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5)], ids=str)
def test_pad(mode, shape, rng):
    data = rng.standard_normal(shape)
    pads = [(), (1,), (0, 0), (2, 1), (4, 4), (5, 0), (-1, 2), (-2, -2), (-4, -3), (2, 1, 1, 0), (1, 1, -1, 2)]
    pads += [(5, 5, 3, 3), (1, 0, 2, 0, 1, 1), (0, 1, 0, 0, 1, 0, 0, 2), (0, 0, 0, -1)]
    for pad in pads:
        compare(F.pad, TF.pad, data, pad, mode)


def test_pad_value(rng):
    data = rng.standard_normal((2, 3))
    for value in (None, 0, 2, -1.5, float("inf")):
        compare(F.pad, TF.pad, data, (1, 0), "constant", value)
    for value in (None, 0, 0.0, 1.0):
        compare(F.pad, TF.pad, data, (1, 0), "reflect", value)


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 3), (1, 1), (0, 2)], ids=str)
def test_dimensions(shape, rng):
    data = rng.standard_normal(shape)
    compare(F.squeeze, torch.squeeze, data)
    for dim in range(-4, 5):
        compare(F.squeeze, torch.squeeze, data, dim)
        compare(F.unsqueeze, torch.unsqueeze, data, dim)
        for other in range(-4, 5):
            compare(F.transpose, torch.transpose, data, dim, other)
            compare(F.flatten, torch.flatten, data, dim, other)
            compare(F.squeeze, torch.squeeze, data, (dim, other))


@pytest.mark.parametrize("shape", [(), (12,), (2, 6), (2, 0)], ids=str)
def test_reshape(shape, rng):
    data = rng.standard_normal(shape)
    for sizes in [(), (1,), (12,), (-1,), (3, 4), (3, -1), (2, -1, 3), (5, -1), (-1, -1), (0, -1), (0,), (-2,)]:
        compare(F.reshape, torch.reshape, data, sizes)


def test_permute_and_unflatten(rng):
    data = rng.standard_normal((2, 6, 3))
    for dims in [*itertools.permutations(range(3)), (-1, 0, 1), (0, 1), (0, 0, 1), (0, 1, 3)]:
        compare(F.permute, torch.permute, data, dims)
    for dim, sizes in [(1, (2, 3)), (1, (-1, 2)), (-2, (6, 1)), (1, (4, -1)), (1, (2, 2)), (3, (1,))]:
        compare(F.unflatten, torch.unflatten, data, dim, sizes)


@pytest.mark.parametrize("dim", [-3, -2, -1, 0, 1, 2])
def test_cat_and_stack(dim, rng):
    data, other = rng.standard_normal((2, 3)), rng.standard_normal((2, 1))
    for extra in (data, other, other.T, other[0], np.zeros(0), data[None]):
        for name in ("cat", "stack"):
            compare(
                lambda x, name, extra: getattr(F, name)([x, nnet.tensor(extra), x], dim),
                lambda x, name, extra: getattr(torch, name)([x, torch.tensor(extra), x], dim),
                data,
                name,
                extra,
            )


INDICES = {
    "integer": 1, "negative": -2, "outside": 3, "slice": slice(1, None), "step": slice(None, None, 2), "none": None,
    "ellipsis": ..., "mixed": (0, ..., slice(1, 3)), "pair": (1, 2), "too many": (0, 0, 0, 0), "list": [0, 2, 0],
    "lists": ([0, 1], [1, 2]), "list of the middle": (slice(None), [2, 0]), "apart": ([0, 1], slice(None), [1, 2]),
    "list outside": [0, 3], "true": True, "false": False, "mask": [True, False, True], "wrong mask": [True, False],
    "list and none": (None, [1, 0]), "lists and none": ([1, 0], None, [0, 2]),
    "integer and list": (1, slice(None), [1, 0]), "list and integer": ([1, 0], slice(None), 1),
    "integer between": ([1, 0], 2, [1, 3]), "ellipsis, integer and list": (1, ..., [1, 0]),
    "mask and integer": (np.eye(3, dtype=bool), -1), "list and slice": ([2, 0], slice(1, None), 3),
    "empty": [], "float": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_indexing(name, rng):
    compare(operator.getitem, operator.getitem, rng.standard_normal((3, 3, 4)), INDICES[name])


def test_indexing_with_tensors(rng):
    data, rows = rng.standard_normal((3, 4)), np.array([[0, 2], [2, 1]])
    pairs = np.array([0, 2]), np.array([[1], [3]])
    masks = np.array([True, False, True]), data > 0, np.ones((2, 2), bool)
    for index in ((rows,), (np.array(1),), (rows.astype(np.int32),), pairs, *((mask,) for mask in masks)):
        compare(
            lambda x, *index: x[tuple(map(nnet.tensor, index))],
            lambda x, *index: x[tuple(map(torch.tensor, index))],
            data,
            *index,
        )
