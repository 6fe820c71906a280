"""Activations with parameters against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch.nn.functional as TF
from torch import nn as tnn

from numbanet import functional as F
from numbanet import nn
from tests.parity.agreement import agree

ARGUMENTS = {
    "relu6": [()], "hardtanh": [(), (-2.0, 0.5), (0, 0), (1, -1)], "elu": [(), (0.3,), (-1.0,)], "hardsigmoid": [()],
    "hardswish": [()], "softplus": [(), (2.0, 3.0), (0.5,)], "mish": [()],
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_values_and_gradients(name, dtype, tolerance, rng):
    if name == "hardsigmoid":
        tolerance = 1e-7  # torch takes the 1/6 of the gradient in float32
    for arguments in ARGUMENTS[name]:
        for shape in [(), (0, 3), (17,), (2, 3, 5, 7)]:
            x = np.asarray(rng.standard_normal(shape) * 4, dtype)
            agree(getattr(F, name), getattr(TF, name), [x], *arguments, tolerance=tolerance)
        corners = np.array([-3, -2, -1, 0, 0.5, 1, 3, 6, 30, -30], dtype)
        agree(getattr(F, name), getattr(TF, name), [corners], *arguments, tolerance=tolerance)


def test_integers_are_refused_by_both():
    for name in ("hardsigmoid", "hardswish", "mish", "softplus"):
        assert not agree(getattr(F, name), getattr(TF, name), [np.arange(3)])


def test_prelu(rng):
    for shape in [(), (3,), (2, 3), (2, 3, 4, 5), (0, 3, 2)]:
        for weights in [(), (1,), (3,), (2,), (1, 3)]:
            agree(F.prelu, TF.prelu, [rng.standard_normal(shape), rng.standard_normal(weights)])


def test_text():
    for make in (lambda n: n.ReLU6(True), lambda n: n.Hardtanh(-1, 2), lambda n: n.ELU(0.5, True), lambda n: n.Mish(),
                 lambda n: n.Softplus(), lambda n: n.PReLU(4), lambda n: n.Hardswish(), lambda n: n.Hardsigmoid(True),
                 lambda n: n.Hardtanh(inplace=True)):  # fmt: skip
        assert repr(make(nn)) == repr(make(tnn))
    for lib in (nn, tnn):
        with pytest.warns(FutureWarning, match="min_val"), pytest.warns(FutureWarning, match="max_val"):
            assert repr(lib.Hardtanh(min_value=-2, max_value=0.5)) == "Hardtanh(min_val=-2, max_val=0.5)"
