"""Extremes, variances and standard deviations against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import numbanet as nnet
from numbanet import functional as F
from tests.parity.agreement import agree

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SHAPES = [(), (5,), (3, 4), (2, 3, 4, 5), (2, 0), (1, 1)]


@pytest.mark.parametrize("name", ["max", "min", "argmin", "amax", "amin"])
def test_extremes(name, rng):
    for shape in SHAPES:
        x = np.asarray(np.round(rng.standard_normal(shape) * 2))
        agree(getattr(F, name), getattr(torch, name), [x])
        agree(getattr(F, name), getattr(torch, name), [x.astype(np.int64)])
        for dim, keepdim in itertools.product((0, -1, 1, 4), (False, True)):
            agree(getattr(F, name), getattr(torch, name), [rng.permutation(x.size).reshape(shape) * 1.0], dim, keepdim)
        if name.startswith("a") and name != "argmin":
            for dim in ((0, 1), (-1, 0), (0, 0), ()):
                agree(getattr(F, name), getattr(torch, name), [x], dim)
    for name in ("max", "min"):
        agree(getattr(F, name), getattr(torch, name), [np.arange(4.0), np.array([3.0, 1, 2, 9])])


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("correction", [0, 0.5, 1, 2])
def test_gradients_of_what_is_not_finite(name, correction):
    inf, nan = np.inf, np.nan
    rows = [[1, inf, 3], [1, -inf, 3], [inf, inf, 1], [inf, -inf, 1], [1, nan, 2], [inf], [-inf], [nan], [3],
            [inf, inf], [[1, inf, 2], [3, 4, 5.5], [nan, 1, 2]], [[inf], [3], [nan]]]  # fmt: skip
    for row in rows:
        for dim in (None, 0, -1):
            ours = nnet.tensor(row, dtype=np.float32, requires_grad=True)
            theirs = torch.tensor(row, dtype=torch.float32, requires_grad=True)
            found, wanted = (getattr(t, name)(dim, correction=correction) for t in (ours, theirs))
            found.sum().backward()
            wanted.sum().backward()
            np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), 1e-5)
            np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), 1e-5, err_msg=f"{row} {dim}")


@pytest.mark.parametrize("name", ["var", "std"])
def test_deviations(name, rng):
    ours, theirs = getattr(F, name), getattr(torch, name)
    for shape in SHAPES:
        x = np.asarray(rng.standard_normal(shape))
        agree(ours, theirs, [x], tolerance=1e-9)
        for dim, keepdim, correction in itertools.product((0, -1, (0, 1), None), (False, True), (0, 1, 0.5)):
            agree(ours, theirs, [x], dim, keepdim=keepdim, correction=correction, tolerance=1e-9)
        agree(ours, theirs, [x], 0, False, tolerance=1e-9)
    agree(ours, theirs, [np.arange(3)])
