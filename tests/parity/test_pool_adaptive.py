"""Adaptive maximum pooling against torch."""

from __future__ import annotations

import itertools

import numpy as np
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.agreement import agree


def test_values_gradients_and_refusals(rng):
    shapes = [(2, 3, 7, 5), (4, 6, 6), (1, 2, 1, 1), (0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3), (3, 3)]
    sizes = [1, 3, 8, (2, 4), (None, 2), (3, None), (1, 2, 3), -1]
    for shape, size, indices in itertools.product(shapes, sizes, (False, True)):
        x = np.round(rng.standard_normal(shape) * 2)
        x[rng.random(shape) < 0.05] = np.nan
        agree(F.adaptive_max_pool2d, TF.adaptive_max_pool2d, [x], size, indices)
