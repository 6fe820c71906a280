"""Winograd's gradient of the weight: its ways of cutting the work, its errors, what it refuses, when it is chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import conv_winograd_weight, isa, parallel
from numbanet.cpu.winograd_form import F2X2, F2X2_OF_5X5, F4X4, F4X4_STRIDE_2
from numbanet.problem.conv import conv2d_problem
from tests.processes import run_python

FORMS = {
    "cpu.winograd": F4X4,
    "cpu.winograd_f2": F2X2,
    "cpu.winograd_5x5": F2X2_OF_5X5,
    "cpu.winograd_s2": F4X4_STRIDE_2,
}

# (x_shape, out-channels, padding, partial results, chunks): many tiles, few tiles, in one chunk and in several.
CUTS = [
    ((5, 18, 29, 31), 35, ((0, 2), (1, 3)), 8, 8, "cpu.winograd"),
    ((2, 70, 65, 61), 20, 1, 16, 16, "cpu.winograd"),
    ((1, 5, 173, 171), 7, 0, 16, 32, "cpu.winograd"),
    ((2, 33, 33, 37), 50, 1, 0, 2, "cpu.winograd"),
    ((3, 20, 13, 18), 130, 1, 0, 1, "cpu.winograd"),
    ((1, 200, 5, 4), 300, 1, 0, 1, "cpu.winograd"),
    ((1, 64, 1, 1), 16, 1, 0, 1, "cpu.winograd"),
    ((5, 18, 13, 15), 35, ((0, 2), (1, 3)), 8, 8, "cpu.winograd_f2"),
    ((1, 5, 93, 71), 7, 0, 16, 32, "cpu.winograd_f2"),
    ((1, 33, 25, 27), 50, 1, 0, 2, "cpu.winograd_f2"),
    ((1, 200, 5, 4), 300, 1, 0, 1, "cpu.winograd_f2"),
    ((1, 64, 1, 1), 16, 1, 0, 1, "cpu.winograd_f2"),
    ((5, 18, 13, 15), 35, ((1, 3), (2, 4)), 8, 8, "cpu.winograd_5x5"),
    ((1, 5, 93, 71), 7, 1, 16, 32, "cpu.winograd_5x5"),
    ((1, 33, 25, 27), 50, 2, 0, 2, "cpu.winograd_5x5"),
    ((1, 200, 5, 4), 300, 2, 0, 1, "cpu.winograd_5x5"),
    ((1, 64, 1, 1), 16, 2, 0, 1, "cpu.winograd_5x5"),
    ((5, 18, 58, 61), 35, ((0, 2), (1, 3)), 8, 8, "cpu.winograd_s2"),
    ((1, 5, 346, 342), 7, 0, 16, 32, "cpu.winograd_s2"),
    ((2, 33, 65, 74), 50, 1, 0, 2, "cpu.winograd_s2"),
    ((1, 200, 10, 7), 300, 1, 0, 1, "cpu.winograd_s2"),
    ((1, 64, 1, 1), 16, 1, 0, 1, "cpu.winograd_s2"),
]


def options(name, padding):
    """Return the size of the filter of an algorithm, and stride and padding."""
    form = FORMS[name]
    return form.taps, (form.stride, padding)


def gradient(x, grad, padding, name="cpu.winograd", form=None):
    """Return the gradient of the weight, by one kernel."""
    size, how = options(form or name, padding)
    with nnet.use(name):
        return nnet.ops.conv2d_backward_weight(x, grad, (grad.shape[1], x.shape[1], size, size), *how)


def operands(x_shape, k, padding, rng, name="cpu.winograd"):
    size, how = options(name, padding)
    problem = conv2d_problem("backward_weight", x_shape, (k, x_shape[1], size, size), "float32", *how)
    return problem, rng.standard_normal(x_shape), rng.standard_normal((x_shape[0], k, problem.p, problem.q))


def error(x, grad, padding, name="cpu.winograd"):
    """Return max|error| / max|result| for operands in float64, which are rounded before."""
    x, grad = x.astype(np.float32), grad.astype(np.float32)
    exact = gradient(x.astype(np.float64), grad.astype(np.float64), padding, "cpu.direct", name)
    return np.abs(gradient(x, grad, padding, name) - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize(("x_shape", "k", "padding", "shares", "chunks", "name"), CUTS)
def test_every_cut(x_shape, k, padding, shares, chunks, name, rng, monkeypatch):
    real = memory.empty

    def poisoned(*arguments):
        out = real(*arguments)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", poisoned)
    problem, x, grad = operands(x_shape, k, padding, rng, name)
    plan = conv_winograd_weight._plan(FORMS[name], problem)
    assert (plan.shares, plan.chunks) == (shares, chunks)
    assert error(x, grad, padding, name) <= 1e-5


def test_large_filters_have_no_partial_results(rng, monkeypatch):
    problem, x, grad = operands((4, 36, 35, 35), 24, 1, rng)
    expected = gradient(x.astype(np.float32), grad.astype(np.float32), 1)
    assert conv_winograd_weight._plan(F4X4, problem).shares
    monkeypatch.setattr(conv_winograd_weight, "_PARTIAL_BYTES", 4 * 9 * 36 * 24 - 1)
    conv_winograd_weight._plan.cache_clear()
    try:
        assert conv_winograd_weight._plan(F4X4, problem).shares == 0
        assert error(x, grad, 1) <= 1e-5
        assert not np.array_equal(gradient(x.astype(np.float32), grad.astype(np.float32), 1), expected)
    finally:
        conv_winograd_weight._plan.cache_clear()


@pytest.mark.parametrize(("x_shape", "k", "padding", "shares", "chunks", "name"), CUTS)
def test_threads_do_not_change_a_bit(x_shape, k, padding, shares, chunks, name, rng):
    x, grad = (a.astype(np.float32) for a in operands(x_shape, k, padding, rng, name)[1:])
    before, results = parallel.get_num_threads(), []
    try:
        for threads in (1, before):
            parallel.set_num_threads(threads)
            results += [gradient(x, grad, padding, name) for _ in range(3)]
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
@pytest.mark.parametrize("name", FORMS)
def test_large_reductions_keep_their_digits(name, kind, rng):
    """131,072 products a sum: the design allows 3e-5; found are 1e-7 to 1e-6."""
    form = FORMS[name]
    x, grad = REALISTIC[kind](
        rng.standard_normal((128, 16, 32 * form.stride, 32 * form.stride)), rng.standard_normal((128, 8, 32, 32))
    )
    assert error(x, grad, form.taps // 2, name) <= 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_kept(value, rng):
    _, x, grad = operands((4, 32, 9, 9), 24, 1, rng)
    x[1, 3, 4, 4] = value
    result = gradient(x.astype(np.float32), grad.astype(np.float32), 1)
    assert not np.isfinite(result[:, 3]).any()
    assert np.isfinite(np.delete(result, 3, axis=1)).all()


@pytest.mark.parametrize("which", ["forward", "backward_input", "backward_weight"])
@pytest.mark.parametrize("name", FORMS)
def test_refusals(name, which):
    size, stride = FORMS[name].taps, FORMS[name].stride

    def reason(weight_shape=(64, 64, size, size), dtype="float32", **options):
        defaults = {"stride": stride, "padding": 1}
        problem = conv2d_problem(which, (2, 64, 16, 16), weight_shape, dtype, **{**defaults, **options})
        return {candidate.name: why for candidate, why in dispatch.verdicts(problem, "cpu")}[name]

    assert reason() is None
    assert "float64" in reason(dtype="float64")
    assert f"stride {stride}" in reason(stride=3 - stride) and "dilation 1" in reason(dilation=2)
    assert f"{size} x {size}" in reason(weight_shape=(64, 64, 8 - size, 8 - size))
    assert "group" in reason(weight_shape=(64, 32, size, size), groups=2)
    with nnet.precision("strict"):
        assert reason() == "the precision is 'strict'"


@pytest.mark.parametrize(
    ("x_shape", "k", "size", "stride", "chosen"),
    [
        ((8, 64, 56, 56), 64, 3, 1, "cpu.winograd"),
        ((8, 48, 35, 35), 48, 3, 1, "cpu.winograd"),
        ((8, 512, 7, 7), 512, 3, 1, "cpu.winograd"),
        ((64, 32, 16, 16), 32, 3, 1, "cpu.winograd"),
        ((1, 512, 7, 7), 512, 3, 1, None),  # four tiles: the transforms of the result outweigh the products
        ((1, 16, 4, 4), 16, 3, 1, None),
        ((64, 32, 1, 1), 32, 3, 1, None),
        ((64, 3, 32, 32), 16, 3, 1, None),
        ((128, 64, 2, 2), 256, 3, 1, "cpu.winograd_f2"),
        ((4, 48, 35, 35), 64, 5, 1, "cpu.winograd_5x5"),
        ((1, 16, 4, 4), 16, 5, 1, None),
        ((4, 128, 56, 56), 128, 3, 2, "cpu.winograd_s2"),
        ((1, 64, 112, 112), 128, 3, 2, "cpu.winograd_s2"),
        ((4, 512, 14, 14), 512, 3, 2, None),
    ],
)
def test_each_is_chosen_where_it_is_faster(x_shape, k, size, stride, chosen):
    weight_shape = k, x_shape[1], size, size
    problem = conv2d_problem("backward_weight", x_shape, weight_shape, "float32", stride, padding=size // 2)
    found = dispatch.choose(problem).name
    assert found == chosen if chosen else found not in FORMS


@pytest.mark.parametrize("name", FORMS)
def test_it_reads_no_pixel_beyond_its_operands(name, rng):
    """Operands between pages of NaN: padding is the address of zeros, so none of them shows."""
    form = FORMS[name]
    blocks = [np.full(40_000, np.nan, np.float32) for _ in range(2)]
    sizes = (3, 7 * form.stride, 6 * form.stride, 20), (3, 7, 6, 18)
    views = [b[10_000 : 10_000 + math.prod(size)].reshape(size) for b, size in zip(blocks, sizes)]
    for view in views:
        view[...] = rng.standard_normal(view.shape)
    x, grad = (view.transpose(0, 3, 1, 2) for view in views)
    assert error(x, grad, form.taps // 2, name) <= 1e-5


CODE = """
import numpy as np
import numbanet as nnet
from numbanet.cpu.isa import host_isa
rng = np.random.default_rng(0)
for name, r, s in (
    ("cpu.winograd", 3, 1), ("cpu.winograd_f2", 3, 1), ("cpu.winograd_5x5", 5, 1), ("cpu.winograd_s2", 3, 2)
):
    for n, c, h, w, k in ((1, 19, 6, 7, 21), (6, 5, 30, 31, 7)):
        x, grad = rng.standard_normal((n, c, s * h, s * w)), rng.standard_normal((n, k, h, w))
        with nnet.use("reference"):
            exact = nnet.ops.conv2d_backward_weight(x, grad, (k, c, r, r), s, r // 2)
        with nnet.use(name):
            found = nnet.ops.conv2d_backward_weight(x.astype("f4"), grad.astype("f4"), (k, c, r, r), s, r // 2)
        assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()
print(host_isa().name)
"""


@pytest.mark.skipif(isa.host_isa() is not isa.AVX512, reason="the narrower set needs a CPU that has it")
def test_narrower_vectors():
    assert run_python(CODE, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+avx,+avx2,+fma") == "avx2"
