"""Gradients of matrix products against finite differences."""

from __future__ import annotations

import pytest

import numbanet as nnet
from tests.gradcheck import gradcheck

SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 3)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((2, 1, 3, 4), (5, 4, 2)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul(a, b, rng):
    gradcheck(nnet.functional.matmul, rng.standard_normal(a), rng.standard_normal(b))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_linear(shape, rng):
    weight, bias = rng.standard_normal((5, 4)), rng.standard_normal(5)
    gradcheck(nnet.functional.linear, rng.standard_normal(shape), weight, bias)
    gradcheck(nnet.functional.linear, rng.standard_normal(shape), weight)
