"""Grouped convolution: how groups are dealt to vectors, what it refuses, and what it fuses."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, ops
from numbanet.cpu import conv_grouped
from numbanet.cpu.group_tile import can_permute
from numbanet.cpu.simd import numpy_lanes
from numbanet.problem.conv import conv2d_problem
from tests.processes import run_python

pytestmark = pytest.mark.skipif(not can_permute(), reason="vectors of this machine have no permutation")


def problem(which, c, k, groups, size=9, **options):
    return conv2d_problem(which, (2, c, size, size), (k, c // groups, 3, 3), "float32", groups=groups, **options)


def refusal(p):
    return {candidate.name: reason for candidate, reason in dispatch.verdicts(p, "cpu")}["cpu.grouped"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8])
def test_permutations_bring_each_group_its_channels(channels):
    lanes = numpy_lanes("float32")
    found = conv_grouped.permutations(channels, channels, "float32").reshape(channels, lanes)
    for lane in range(lanes // channels * channels):
        assert found[:, lane].tolist() == [lane // channels * channels + j for j in range(channels)]


def test_a_float64_is_two_parts():
    found = conv_grouped.permutations(2, 2, "float64").reshape(2, -1, 2)
    np.testing.assert_array_equal(found[..., 0] % 2, 0)
    np.testing.assert_array_equal(found[..., 1], found[..., 0] + 1)


@pytest.mark.parametrize("which", ["forward", "backward_input", "backward_weight"])
def test_chosen_for_small_groups_only(which):
    assert dispatch.choose(problem(which, 64, 64, 16)).name == "cpu.grouped"
    assert "more than a vector" in refusal(problem(which, 256, 256, 2))
    assert refusal(problem(which, 8, 8, 1)) == "one group"


def test_an_image_wider_than_the_plane_is_cut_in_segments():
    p = conv2d_problem("forward", (1, 32, 4, 4000), (32, 4, 3, 3), "float32", groups=8, padding=1)
    assert refusal(p) is None
    assert conv_grouped.window(p).columns < 100


def test_a_filter_beyond_the_plane_is_refused():
    p = conv2d_problem("forward", (1, 32, 400, 400), (32, 4, 3, 3), "float32", groups=8, dilation=150)
    assert "numbers of a plane" in refusal(p)


@pytest.mark.parametrize("groups", [5, 20])
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_epilogue(groups, activation, rng):
    x, weight = 3 * rng.standard_normal((2, 20, 9, 11)), rng.standard_normal((20, 20 // groups, 3, 3))
    bias, residual = rng.standard_normal(20), rng.standard_normal((2, 20, 7, 9))
    arguments = {"groups": groups, "residual": residual, "activation": activation}
    with nnet.use("reference"):
        expected = nnet.ops.conv2d(x, weight, bias, **arguments)
    with nnet.use("cpu.grouped", "cpu.depthwise"):
        np.testing.assert_allclose(nnet.ops.conv2d(x, weight, bias, **arguments), expected, atol=1e-12)


@pytest.mark.parametrize("groups", [5, 20])
def test_nan_reaches_its_outputs_only(groups, rng):
    x, weight = rng.standard_normal((1, 20, 9, 9)), rng.standard_normal((20, 20 // groups, 3, 3))
    clean = nnet.ops.conv2d(x, weight, padding=1, groups=groups, activation="relu6")
    x[0, 4, 4, 4] = np.nan
    y = nnet.ops.conv2d(x, weight, padding=1, groups=groups, activation="relu6")
    size, hit = 20 // groups, np.zeros(y.shape, bool)
    hit[:, 4 // size * size : 4 // size * size + size, 3:6, 3:6] = True
    assert np.isnan(y[hit]).all()
    np.testing.assert_array_equal(y[~hit], clean[~hit])


AVX2 = """
import numpy as np, numbanet as nnet
from numbanet.cpu.isa import host_isa
rng = np.random.default_rng(0)
for groups in (8, 32):
    x, weight = rng.standard_normal((2, 32, 9, 11)), rng.standard_normal((32, 32 // groups, 3, 3))
    results = []
    for names in (("reference",), ("cpu.grouped", "cpu.depthwise")):
        with nnet.use(*names):
            y = nnet.ops.conv2d(x, weight, padding=1, stride=2, groups=groups)
            options = {"padding": 1, "stride": 2, "groups": groups}
            results.append((y, nnet.ops.conv2d_backward_input(y, weight, x.shape, **options),
                            nnet.ops.conv2d_backward_weight(x, y, weight.shape, **options)))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, atol=1e-11)
print(host_isa().name)
"""


def test_avx2():
    environment = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    assert run_python(AVX2, **environment).strip().endswith("avx2")


def test_a_stride_that_passes_over_every_pixel() -> None:
    grad, weight = np.ones((1, 16, 3, 2), np.float32), np.ones((16, 8, 1, 1), np.float32)
    with nnet.use("cpu.grouped"):
        dx = ops.conv2d_backward_input(grad, weight, (1, 16, 1, 1), (1, 2), 1, 1, 2)
    assert not dx.any() and dx.shape == (1, 16, 1, 1)
