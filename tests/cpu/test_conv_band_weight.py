"""The gradient of the weight by bands: its two ways round, where buffers end, and when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.cpu import conv_band_weight
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.problem.conv import conv2d_problem
from tests.fuzz.guards import Guards

# What fills vectors, and so what is chosen, depends on their width.
of_this_width = pytest.mark.skipif(host_isa().name != "avx512", reason="another width of vectors")


def problem(n, c, k, size, r, stride=1, padding=None, dtype="float32", **options):
    padding = r // 2 if padding is None else padding
    return conv2d_problem("backward_weight", (n, c, size, size), (k, c, r, r), dtype, stride, padding, **options)


# (images, in-channels, out-channels, size, filter, stride): layers of LeNet, of ConvNetJS' network and of ResNet-20,
# first layers of others.
LAYERS = [
    (128, 1, 6, 28, 5, 1), (128, 6, 16, 14, 5, 1), (128, 3, 16, 32, 5, 1), (128, 3, 16, 32, 3, 1),
    (128, 16, 32, 32, 3, 2), (128, 3, 64, 32, 3, 1), (4, 3, 64, 224, 7, 2), (4, 3, 64, 224, 11, 4),
]  # fmt: skip


@of_this_width
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_few_channels_choose_it(layer):
    assert dispatch.choose(problem(*layer)).name == "cpu.band"


@of_this_width
def test_other_layers_choose_others():
    assert dispatch.choose(problem(128, 16, 16, 32, 3)).name == "cpu.winograd"
    assert dispatch.choose(problem(4, 64, 64, 56, 3)).name == "cpu.winograd"
    assert dispatch.choose(problem(128, 16, 20, 16, 5)).name == "cpu.winograd_5x5"
    assert dispatch.choose(problem(128, 20, 20, 8, 5)).name == "cpu.winograd_5x5"
    assert dispatch.choose(problem(4, 256, 64, 56, 1)).name == "cpu.direct"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [
    {}, {"stride": (2, 3), "padding": ((2, 1), (0, 3))}, {"dilation": (1, 2), "padding": 2}, {"dilation": (3, 1)},
], ids=str)  # fmt: skip
@pytest.mark.parametrize(("c", "k"), [(1, 6), (3, 16), (5, 1), (7, 33), (16, 20), (20, 20), (19, 7), (2, 70), (13, 12)])
def test_both_ways_round(c, k, options, dtype, rng):
    x, weight = rng.standard_normal((3, c, 14, 13)).astype(dtype), (k, c, 4, 3)
    with nnet.use("reference"):
        wide = x.astype(float)
        grad = rng.standard_normal(nnet.ops.conv2d(wide, np.zeros(weight), **options).shape).astype(dtype)
        want = nnet.ops.conv2d_backward_weight(wide, grad.astype(float), weight, **options)
    results, threads = [], get_num_threads()
    with nnet.use("cpu.band"):
        for number in (1, 2):
            set_num_threads(number)
            results.append(nnet.ops.conv2d_backward_weight(x, grad, weight, **options))
    set_num_threads(threads)
    np.testing.assert_array_equal(*results)
    atol = (2e-6 if dtype == "float32" else 1e-14) * np.abs(want).max()
    np.testing.assert_allclose(results[0], want, rtol=0, atol=atol)


@of_this_width
def test_out_channels_are_rows_where_that_fills_vectors():
    assert conv_band_weight._plan(problem(128, 16, 20, 16, 5))[1].turned
    assert not conv_band_weight._plan(problem(128, 16, 32, 32, 3, 2))[1].turned
    assert not conv_band_weight._plan(problem(128, 16, 3, 32, 3))[1].turned  # fewer than a tile has


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize(("c", "k"), [(16, 20), (20, 17), (3, 16), (3, 5), (1, 6), (17, 21)])
def test_no_number_beside_the_operands_is_read(c, k, at_end, rng):
    """The last pixel of the gradient lies before a page that ends the process: tiles have more rows than are left."""
    p = problem(2, c, k, 9, 3)
    guards = Guards(at_end, pages=True)
    arrays = []
    for shape in ((2, 9, 9, c), (2, p.p, p.q, k)):
        values = rng.standard_normal(shape).astype(np.float32)
        guarded = guards.buffer(values.nbytes, 4)[: values.nbytes].view(np.float32).reshape(shape)
        guarded[...] = values
        arrays.append(guarded)
    out = np.full((k, 3, 3, c), np.nan, np.float32)
    conv_band_weight._run(p, tuple(arrays), (out,), None)
    assert guards.damage() is None
    x, grad = (a.astype(float).transpose(0, 3, 1, 2) for a in arrays)
    with nnet.use("reference"):
        want = nnet.ops.conv2d_backward_weight(x, grad, (k, c, 3, 3), 1, 1)
    np.testing.assert_allclose(out.transpose(0, 3, 1, 2), want, rtol=0, atol=2e-6 * np.abs(want).max())


def test_refusals():
    def refusal(x_shape, weight_shape, **options):
        p = conv2d_problem("backward_weight", x_shape, weight_shape, "float32", **options)
        return {candidate.name: reason for candidate, reason in dispatch.verdicts(p, "cpu")}["cpu.band"]

    assert refusal((1, 3, 40, 5000), (4, 3, 1, 1)) is None  # a row is a band, however many positions it has
    assert "sees 18000 numbers" in refusal((1, 3, 40, 6000), (4, 3, 1, 1))
    assert "more than one group" in refusal((1, 4, 8, 8), (4, 2, 3, 3), groups=2)
    assert "a filter of 1152 elements" in refusal((1, 128, 8, 8), (4, 128, 3, 3))
    assert "an empty input" in refusal((0, 3, 8, 8), (4, 3, 3, 3))


def test_a_long_row(rng):
    x, grad = rng.standard_normal((1, 3, 4, 5000)), rng.standard_normal((1, 4, 4, 5000))
    with nnet.use("reference"):
        want = nnet.ops.conv2d_backward_weight(x, grad, (4, 3, 1, 1))
    with nnet.use("cpu.band"):
        found = nnet.ops.conv2d_backward_weight(x.astype(np.float32), grad.astype(np.float32), (4, 3, 1, 1))
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-6 * np.abs(want).max())
