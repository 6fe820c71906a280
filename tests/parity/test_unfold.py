"""Windows of images as columns, and back, against torch."""

from __future__ import annotations

import itertools

import torch.nn.functional as TF
from torch import nn as tnn

from numbanet import functional as F
from numbanet import nn, ops
from tests.parity.agreement import agree


def test_values_gradients_and_refusals(rng):
    for shape, kernel, gap, pad, step in itertools.product(
        [(2, 3, 5, 4), (3, 5, 4), (5, 4)], [2, (1, 3), 6], [1, (2, 1)], [0, (1, 2)], [1, 2]
    ):
        x = rng.standard_normal(shape)
        if agree(F.unfold, TF.unfold, [x], kernel, gap, pad, step):
            columns = ops.unfold(x, kernel, gap, pad, step)
            agree(F.fold, TF.fold, [columns], (5, 4), kernel, gap, pad, step)
            agree(F.fold, TF.fold, [columns[..., 1:].copy()], (5, 4), kernel, gap, pad, step)


def test_text():
    for make in (lambda n: n.Unfold((2, 3), stride=2), lambda n: n.Fold((4, 5), 2, padding=1)):
        assert repr(make(nn)) == repr(make(tnn))
