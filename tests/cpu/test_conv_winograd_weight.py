"""Winograd's gradient of the weight: its ways of cutting the work, its errors, what it refuses, when it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import conv_winograd_weight, isa, parallel
from numbanet.cpu.winograd import INPUT
from numbanet.cpu.winograd_weight import GRADIENT, OUTPUT
from numbanet.problem.conv import conv2d_problem
from tests.processes import run_python

# (x_shape, out-channels, padding, partial results, chunks): many tiles, few tiles, in one chunk and in several.
CUTS = [
    ((5, 18, 29, 31), 35, ((0, 2), (1, 3)), 8, 8),
    ((2, 70, 65, 61), 20, 1, 16, 16),
    ((1, 5, 173, 171), 7, 0, 16, 32),
    ((2, 33, 33, 37), 50, 1, 0, 2),
    ((3, 20, 13, 18), 130, 1, 0, 1),
    ((1, 200, 5, 4), 300, 1, 0, 1),
    ((1, 64, 1, 1), 16, 1, 0, 1),
]


def gradient(x, grad, padding, name="cpu.winograd"):
    """Return the gradient of a 3x3 weight, by one kernel."""
    with nnet.use(name):
        return nnet.ops.conv2d_backward_weight(x, grad, (grad.shape[1], x.shape[1], 3, 3), 1, padding)


def operands(x_shape, k, padding, rng):
    problem = conv2d_problem("backward_weight", x_shape, (k, x_shape[1], 3, 3), "float32", 1, padding)
    return problem, rng.standard_normal(x_shape), rng.standard_normal((x_shape[0], k, problem.p, problem.q))


def error(x, grad, padding, **kernel):
    """Return max|error| / max|result| for operands in float64, which are rounded before."""
    x, grad = x.astype(np.float32), grad.astype(np.float32)
    exact = gradient(x.astype(np.float64), grad.astype(np.float64), padding, "cpu.direct")
    return np.abs(gradient(x, grad, padding, **kernel) - exact).max() / np.abs(exact).max()


def test_the_algorithm(rng):
    """The matrices against the definition."""
    bt, g_, at = (np.array(matrix) for matrix in (INPUT, GRADIENT, OUTPUT))
    d, g = rng.standard_normal((6, 6)), rng.standard_normal((4, 4))
    expected = [[(d[r : r + 4, s : s + 4] * g).sum() for s in range(3)] for r in range(3)]
    np.testing.assert_allclose(at @ ((g_ @ g @ g_.T) * (bt @ d @ bt.T)) @ at.T, expected, atol=1e-12)


@pytest.mark.parametrize(("x_shape", "k", "padding", "shares", "chunks"), CUTS)
def test_every_cut(x_shape, k, padding, shares, chunks, rng, monkeypatch):
    real = memory.empty

    def poisoned(*arguments):
        out = real(*arguments)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", poisoned)
    problem, x, grad = operands(x_shape, k, padding, rng)
    plan = conv_winograd_weight._plan(problem)
    assert (plan.shares, plan.chunks) == (shares, chunks)
    assert error(x, grad, padding) <= 1e-5


def test_large_filters_have_no_partial_results(rng, monkeypatch):
    problem, x, grad = operands((4, 36, 35, 35), 24, 1, rng)
    expected = gradient(x.astype(np.float32), grad.astype(np.float32), 1)
    assert conv_winograd_weight._plan(problem).shares
    monkeypatch.setattr(conv_winograd_weight, "_PARTIAL_BYTES", 4 * 9 * 36 * 24 - 1)
    conv_winograd_weight._plan.cache_clear()
    try:
        assert conv_winograd_weight._plan(problem).shares == 0
        assert error(x, grad, 1) <= 1e-5
        assert not np.array_equal(gradient(x.astype(np.float32), grad.astype(np.float32), 1), expected)
    finally:
        conv_winograd_weight._plan.cache_clear()


@pytest.mark.parametrize(("x_shape", "k", "padding", "shares", "chunks"), CUTS[:5])
def test_threads_do_not_change_a_bit(x_shape, k, padding, shares, chunks, rng):
    x, grad = (a.astype(np.float32) for a in operands(x_shape, k, padding, rng)[1:])
    before, results = parallel.get_num_threads(), []
    try:
        for threads in (1, before):
            parallel.set_num_threads(threads)
            results += [gradient(x, grad, padding) for _ in range(3)]
    finally:
        parallel.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


REALISTIC = {
    "rectified activations": lambda x, g: (np.maximum(x, 0), g),
    "far from zero": lambda x, g: (x + 100, g - g.mean((0, 2, 3), keepdims=True)),
    "all positive": lambda x, g: (np.abs(x), np.abs(g)),
    "few gradients": lambda x, g: (np.maximum(x, 0), g * (np.abs(g) > 2.5)),
    "images of many scales": lambda x, g: (x, g * 10.0 ** -np.arange(len(g)).reshape(-1, 1, 1, 1) % 5),
    "smooth images": lambda x, g: (x.cumsum(2).cumsum(3), g.cumsum(2).cumsum(3)),
}


@pytest.mark.parametrize("kind", REALISTIC)
def test_large_reductions_keep_their_digits(kind, rng):
    """131,072 products a sum: the design allows 3e-5; found are 2e-7 to 1e-6."""
    x, grad = REALISTIC[kind](rng.standard_normal((128, 16, 32, 32)), rng.standard_normal((128, 8, 32, 32)))
    assert error(x, grad, 1) <= 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_kept(value, rng):
    _, x, grad = operands((4, 32, 9, 9), 24, 1, rng)
    x[1, 3, 4, 4] = value
    result = gradient(x.astype(np.float32), grad.astype(np.float32), 1)
    assert not np.isfinite(result[:, 3]).any()
    assert np.isfinite(np.delete(result, 3, axis=1)).all()


def reason(x_shape=(2, 64, 16, 16), weight_shape=(64, 64, 3, 3), dtype="float32", **options):
    problem = conv2d_problem("backward_weight", x_shape, weight_shape, dtype, **{"padding": 1, **options})
    return {candidate.name: why for candidate, why in dispatch.verdicts(problem, "cpu")}["cpu.winograd"]


def test_refusals():
    assert reason() is None
    assert "float64" in reason(dtype="float64")
    assert "stride 1" in reason(stride=2) and "dilation 1" in reason(dilation=2)
    assert "3 x 3" in reason(weight_shape=(64, 64, 5, 5)) and "group" in reason(weight_shape=(64, 32, 3, 3), groups=2)
    with nnet.precision("strict"):
        assert reason() == "the precision is 'strict'"


@pytest.mark.parametrize(
    ("x_shape", "k", "chosen"),
    [
        ((8, 64, 56, 56), 64, True),
        ((8, 48, 35, 35), 48, True),
        ((8, 512, 7, 7), 512, True),
        ((64, 32, 16, 16), 32, True),
        ((1, 512, 7, 7), 512, False),  # four tiles: the transforms of the result outweigh the products
        ((1, 16, 4, 4), 16, False),
        ((64, 32, 1, 1), 32, False),
        ((64, 3, 32, 32), 16, False),
    ],
)
def test_it_is_chosen_where_it_is_faster(x_shape, k, chosen):
    problem = conv2d_problem("backward_weight", x_shape, (k, x_shape[1], 3, 3), "float32", padding=1)
    assert (dispatch.choose(problem).name == "cpu.winograd") == chosen


def test_it_reads_no_pixel_beyond_its_operands(rng):
    """Operands between pages of NaN: padding is the address of zeros, so none of them shows."""
    blocks = [np.full(40_000, np.nan, np.float32) for _ in range(2)]
    views = [b[10_000 : 10_000 + 3 * 7 * 6 * c].reshape(3, 7, 6, c) for b, c in zip(blocks, (20, 18))]
    for view in views:
        view[...] = rng.standard_normal(view.shape)
    x, grad = (view.transpose(0, 3, 1, 2) for view in views)
    assert error(x, grad, 1) <= 1e-5


CODE = """
import numpy as np
import numbanet as nnet
from numbanet.cpu.isa import host_isa
rng = np.random.default_rng(0)
for n, c, h, w, k in ((1, 19, 6, 7, 21), (6, 5, 30, 31, 7)):
    x, grad = rng.standard_normal((n, c, h, w)), rng.standard_normal((n, k, h, w))
    with nnet.use("reference"):
        exact = nnet.ops.conv2d_backward_weight(x, grad, (k, c, 3, 3), 1, 1)
    with nnet.use("cpu.winograd"):
        found = nnet.ops.conv2d_backward_weight(x.astype("f4"), grad.astype("f4"), (k, c, 3, 3), 1, 1)
    assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
print(host_isa().name)
"""


@pytest.mark.skipif(isa.host_isa() is not isa.AVX512, reason="the narrower set needs a CPU that has it")
def test_narrower_vectors():
    assert run_python(CODE, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+avx,+avx2,+fma") == "avx2"
