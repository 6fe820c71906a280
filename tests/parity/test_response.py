"""Local response normalisation against torch."""

from __future__ import annotations

import itertools

import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.agreement import agree


def test_values_gradients_and_refusals(rng):
    for shape in [(2, 7, 3, 4), (3, 5, 2), (1, 1, 1, 1), (2, 3), (0, 3, 2), (2, 4, 2, 2, 3)]:
        for size, alpha, beta, k in itertools.product([1, 2, 5, 8], [1e-4, 0.5], [0.75, 1.5], [1.0, 2]):
            agree(F.local_response_norm, TF.local_response_norm, [rng.standard_normal(shape)], size, alpha, beta, k)
    agree(F.local_response_norm, TF.local_response_norm, [rng.standard_normal((2, 3, 4))], 0)
