"""Rearrangements of pixels and channels, and tensors cut in parts, against torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.agreement import agree

SHAPES = [(2, 12, 4, 6), (8, 2, 2), (1, 2, 4, 2, 2), (4, 4), (2, 4, 3)]  # torch has no gradients of empty ones


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"])
def test_rearrangements(name, rng):
    for shape in SHAPES:
        for number in (-1, 0, 1, 2, 3):
            agree(getattr(F, name), getattr(TF, name), [rng.standard_normal(shape)], number)


@pytest.mark.parametrize("name", ["split", "chunk"])
def test_parts(name, rng):
    for shape in [(6, 4), (5,), (0, 3), ()]:
        for count in (-1, 0, 1, 2, 4, 7, *([(2, 4), (1, 1, 4), (6, 0), (7, -1)] if name == "split" else ())):
            for dim in (0, 1, -1, 2):
                agree(getattr(F, name), getattr(torch, name), [rng.standard_normal(shape)], count, dim)
