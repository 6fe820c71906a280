"""The gradient of the input by filter rows: what it takes, and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.problem.conv import conv2d_problem


def problem(x_shape, weight_shape, **options):
    return conv2d_problem("backward_input", x_shape, weight_shape, "float32", **options)


def refusal(p):
    return {candidate.name: reason for candidate, reason in dispatch.verdicts(p, "cpu")}["cpu.band"]


def test_first_layers_choose_it():
    assert dispatch.choose(problem((8, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)).name == "cpu.band"
    assert dispatch.choose(problem((8, 256, 14, 14), (256, 256, 1, 1))).name == "cpu.direct"


def test_refusals():
    assert "more than one group" in refusal(problem((1, 4, 8, 8), (4, 2, 3, 3), groups=2))
    assert "an input row of" in refusal(problem((1, 64, 8, 300), (4, 64, 3, 3)))
    assert "a row of products" in refusal(problem((1, 3, 8, 1300), (4, 3, 3, 9)))
    assert "an empty input" in refusal(problem((0, 3, 8, 8), (4, 3, 3, 3)))


@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("dilation", [1, (2, 3), 4])
@pytest.mark.parametrize("channels", [1, 3, 15, 17, 33])
def test_every_residue(stride, dilation, channels, rng):
    options = {"stride": stride, "dilation": dilation, "padding": ((2, 1), (0, 3))}
    x_shape, weight = (2, channels, 13, 14), rng.standard_normal((7, channels, 3, 4))
    with nnet.use("reference"):
        grad = rng.standard_normal(nnet.ops.conv2d(np.zeros(x_shape), weight, **options).shape)
        expected = nnet.ops.conv2d_backward_input(grad, weight, x_shape, **options)
    with nnet.use("cpu.band"):
        np.testing.assert_allclose(
            nnet.ops.conv2d_backward_input(grad, weight, x_shape, **options), expected, atol=1e-11
        )
