"""Dropout against torch: what does not depend on the random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import numbanet as nnet
from numbanet import functional as F


def test_probability_one(rng):
    data = rng.standard_normal((3, 4))
    data[0, 0] = np.nan
    np.testing.assert_array_equal(F.dropout(nnet.tensor(data), 1.0).data, TF.dropout(torch.tensor(data), 1.0).numpy())


@pytest.mark.parametrize("name", ["dropout", "dropout2d"])
def test_distribution(name):
    data = np.ones((40, 50, 4, 4), np.float32)
    ours = getattr(F, name)(nnet.tensor(data), 0.2).data
    theirs = getattr(TF, name)(torch.tensor(data), 0.2).numpy()
    assert set(np.unique(ours)) == set(np.unique(theirs)) == {0, np.float32(1.25)}
    assert abs((ours == 0).mean() - (theirs == 0).mean()) < 0.06
    assert ((ours == 0).reshape(40, 50, -1).std(axis=2).max() == 0) == (name == "dropout2d")


@pytest.mark.parametrize("name", ["dropout", "dropout2d"])
def test_bad_probability(name):
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError):
            getattr(TF, name)(torch.ones(2, 3, 4, 4), p)
        with pytest.raises(ValueError):
            getattr(F, name)(nnet.tensor(np.ones((2, 3, 4, 4))), p)
