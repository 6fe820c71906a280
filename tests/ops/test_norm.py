"""Batch normalisation kernels against the definition, their accuracy, and the effects on running statistics."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet import dispatch, memory, ops
from numbanet.cpu.simd import numpy_lanes
from numbanet.ops import norm

pytestmark = pytest.mark.usefixtures("poisoned")


# Widened and cut rows (channels below 64), several strips and tiles, one sample a column of a block, one pixel.
SHAPES = [
    (4, 3, 5, 7), (8, 16, 9, 11), (2, 64, 7, 7), (3, 65, 5, 5), (33, 10), (2, 100, 33), (5, 512, 7, 7), (2, 1100, 3, 3),
    (2, 1, 3, 3), (1, 20, 3, 3), (300, 3, 20, 20), (70, 128, 1, 1), (2, 7, 1), (3, 5, 2, 2, 2), (129, 33, 2, 2),
]  # fmt: skip


def operands(shape, dtype, rng):
    channels = shape[1]
    x, grad = (2 * rng.standard_normal(shape) + 3).astype(dtype), rng.standard_normal(shape).astype(dtype)
    weight, bias, mean = rng.standard_normal((3, channels)).astype(dtype)
    return x, grad, weight, bias, mean, (rng.random(channels) + 0.5).astype(dtype)


def everything(x, grad, weight, bias, mean, var, training):
    """Return result, statistics, running statistics and gradients."""
    mean, var = mean.copy(), var.copy()
    y, centre, inverse = ops.batch_norm_forward(x, mean, var, weight, bias, training, 0.3, 1e-3)
    return y, centre, inverse, mean, var, *ops.batch_norm_backward(grad, x, weight, centre, inverse, training)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_definition(shape, training, dtype, rng):
    given = operands(shape, dtype, rng)
    with dispatch.use("reference"):
        expected = everything(*(a.astype(np.float64) for a in given), training)
    terms = given[0].size / shape[1]
    unit = 3e-6 if dtype == "float32" else 3e-14
    for position, (found, right) in enumerate(zip(everything(*given, training), expected)):
        assert found.dtype == dtype
        assert found.shape == right.shape
        size = terms**0.5 if position > 5 else 1  # of the gradients of weight and bias: sums of random numbers
        assert np.abs(found - right).max() <= unit * max(size, np.abs(right).max())


def fused(x, grad, weight, bias, mean, var, extra, training, activation):
    mean, var = mean.copy(), var.copy()
    y, centre, inverse = ops.batch_norm_forward(x, mean, var, weight, bias, training, 0.3, 1e-3, activation, extra)
    gradients = ops.batch_norm_backward(
        grad, x, weight, centre, inverse, training, activation, y, extra is not None
    )  # fmt: skip
    return y, centre, inverse, mean, var, *gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_fused_is_the_same_as_one_after_the_other(shape, residual, activation, rng):
    x, grad, weight, bias, mean, var = operands(shape, "float32", rng)
    extra = rng.standard_normal(shape).astype(np.float32) if residual else None
    for training in (True, False):
        found = fused(x, grad, weight, bias, mean, var, extra, training, activation)
        y = ops.batch_norm_forward(x, mean.copy(), var.copy(), weight, bias, training, 0.3, 1e-3)[0]
        y = y if extra is None else ops.add(y, extra)
        masked = grad
        if activation == "relu":
            y = ops.relu(y)
            masked = ops.relu_backward(grad, y)
        _, centre, inverse, mean_after, var_after, *gradients = everything(
            x, masked, weight, bias, mean, var, training
        )  # fmt: skip
        expected = [y, centre, inverse, mean_after, var_after, *gradients, *([masked] if residual else [])]
        for a, b in zip(found, expected, strict=True):
            assert np.array_equal(a, b)
        with dispatch.use("reference"):
            right = fused(*(a.astype(np.float64) for a in (x, grad, weight, bias, mean, var)),
                          None if extra is None else extra.astype(np.float64), training, activation)  # fmt: skip
        assert np.abs(found[0] - right[0]).max() <= 3e-6 * max(1, np.abs(right[0]).max())


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (2, 65, 7, 7), (5, 16)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_the_two_halves_make_the_whole(shape, training, rng):
    x, _, weight, bias, mean, var = operands(shape, "float64", rng)
    arguments = (weight, bias, training, 0.3, 1e-3)
    y, centre, inverse = ops.batch_norm_forward(x, mean.copy(), var.copy(), *arguments, "relu", x)
    found = ops.batch_norm_statistics(x, mean, var, *arguments)
    np.testing.assert_array_equal(found[0], centre)
    np.testing.assert_array_equal(found[1], inverse)
    np.testing.assert_array_equal(ops.batch_norm_apply(x, found[2], "relu", x), y)
    with dispatch.use("reference"):
        np.testing.assert_allclose(ops.batch_norm_apply(x, found[2], "relu", x), y, rtol=1e-12, atol=1e-13)
    assert ops.batch_norm_apply(x[:0], found[2]).shape == x[:0].shape


@pytest.mark.parametrize("channels", [64, 128, 48, 30])
def test_results_beyond_the_caches(channels, rng):
    x, grad = rng.standard_normal((2, 4_500_000 // channels, channels), np.float32)
    x, grad = x[:, :, None, None], grad[:, :, None, None]
    y, mean, inverse = ops.batch_norm_forward(x, training=True, activation="relu")
    assert y.nbytes > 1 << 24
    dx = ops.batch_norm_backward(grad, x, None, mean, inverse, True, "relu", y)[0]
    centred = (x - mean[:, None, None]) * inverse[:, None, None]
    np.testing.assert_allclose(y, np.maximum(centred, 0), rtol=1e-5, atol=1e-5)
    grad = np.where(y > 0, grad, 0)
    share = grad.mean(axis=0) + centred * (grad * centred).mean(axis=0)
    np.testing.assert_allclose(dx, (grad - share) * inverse[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 16, 64, 100])
def test_a_large_mean_costs_no_digits(channels, rng):
    x = (1e4 + rng.standard_normal((8, channels, 40, 40))).astype(np.float32)
    x[0, :, 0, 0] = 0  # an outlier in the rows that shift the first block
    y, mean, inverse = ops.batch_norm_forward(x, training=True)
    exact = x.astype(np.float64)
    axes = (0, 2, 3)
    np.testing.assert_allclose(mean, exact.mean(axis=axes), rtol=1e-7)
    longer = max(1, 16 / numpy_lanes("float32"))  # sums of a block, where vectors are narrower than 512 bits
    np.testing.assert_allclose(inverse, 1 / np.sqrt(exact.var(axis=axes) + 1e-5), rtol=2e-6 * longer)
    expected = (exact - exact.mean(axis=axes, keepdims=True)) / np.sqrt(exact.var(axis=axes, keepdims=True) + 1e-5)
    assert np.abs(y - expected).max() <= 2e-6 * longer * np.abs(expected).max()


@pytest.mark.parametrize("channels", [48, 64, 300])
def test_rows_unlike_the_rest_cost_few_digits(channels, rng):
    """The first rows of a block, if they alone said what its numbers are near to, would cost most of them."""
    x = rng.standard_normal((2, 56, 56, channels))
    x[0, 0] += 1000
    x = x.astype(np.float32).transpose(0, 3, 1, 2)
    _, _, inverse = ops.batch_norm_forward(x, training=True, eps=1e-9)
    variance = x.astype(np.float64).var((0, 2, 3))
    error = np.abs(1 / np.asarray(inverse, np.float64) ** 2 / variance - 1)
    assert error.max() < 30 * np.finfo(np.float32).eps


def test_constant_channels_have_no_variance():
    x = np.full((4, 5, 6, 7), 1e6 / 3, np.float32)
    y, mean, inverse = ops.batch_norm_forward(x, training=True)
    assert np.array_equal(y, np.zeros_like(x))
    assert np.array_equal(mean, x[0, :, 0, 0])
    np.testing.assert_allclose(inverse, 1 / np.sqrt(1e-5), rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 3, 70, 70), (8, 64, 20, 20), (4, 300, 9, 9)], ids=str)
def test_same_bits_for_any_number_of_threads(shape, rng, on_one_thread):
    given = operands(shape, "float32", rng)
    one = on_one_thread(lambda: everything(*given, True))
    for a, b in zip(one, everything(*given, True)):
        assert np.array_equal(a, b)


def test_layouts(rng):
    x, grad, weight, bias, mean, var = operands((4, 6, 5, 8), "float64", rng)
    right = everything(x, grad, weight, bias, mean, var, True)
    last = memory.empty_channels_last(x.shape, x.dtype)
    last[...] = x
    last.flags.writeable = False
    backwards = np.flip(np.flip(x).copy())
    stepped = np.repeat(x, 2, axis=1)[:, ::2]
    for view in (last, backwards, stepped):
        for found, expected in zip(everything(view, grad[::1], weight[::-1][::-1], bias, mean, var, True), right):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert right[0].strides == last.strides


def test_strided_running_statistics_are_updated_in_place(rng):
    x = rng.standard_normal((10, 4))
    both = np.ones((4, 2))
    ops.batch_norm(x, both[:, 0], both[:, 1], training=True, momentum=1.0)
    np.testing.assert_allclose(both[:, 0], x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(both[:, 1], x.var(axis=0, ddof=1), rtol=1e-13)


def test_no_weight_no_bias_no_statistics(rng):
    x = rng.standard_normal((10, 4))
    y, mean, inverse = ops.batch_norm_forward(x, training=True, eps=1e-300)
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12, atol=1e-13)
    dx, dweight, dbias = ops.batch_norm_backward(np.ones_like(x), x, None, mean, inverse, True)
    np.testing.assert_allclose(dbias, 10, rtol=1e-13)
    np.testing.assert_allclose(np.concatenate([dx.ravel(), dweight]), 0, atol=1e-12)


def test_empty_batch_leaves_the_statistics(rng):
    mean, var = rng.random((2, 3))
    before = mean.copy(), var.copy()
    for training in (True, False):
        y, centre, inverse = ops.batch_norm_forward(np.zeros((0, 3, 4, 4)), mean, var, training=training)
        assert y.shape == (0, 3, 4, 4)
        dx, dweight, dbias = ops.batch_norm_backward(y, y, None, centre, inverse, training)
        assert dx.shape == y.shape
        assert dweight.tolist() == dbias.tolist() == [0, 0, 0]
    assert np.array_equal(mean, before[0])
    assert np.array_equal(var, before[1])


def test_nan_and_inf_stay_in_their_channel(rng):
    x = rng.standard_normal((4, 5, 6, 6)).astype(np.float32)
    x[0, 1, 0, 0], x[1, 3, 2, 2] = np.nan, np.inf
    y = ops.batch_norm(x, training=True)
    assert np.isnan(y[:, 1]).all()
    assert np.isnan(y[1, 3, 2, 2])
    assert np.isfinite(y[:, [0, 2, 4]]).all()


def test_refusals():
    x, one = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        ops.batch_norm(np.ones((1, 3, 1, 1), np.float32), training=True)
    with pytest.raises(ValueError, match="training is False"):
        ops.batch_norm(x)
    with pytest.raises(ValueError, match="together"):
        ops.batch_norm(x, one, None, training=True)
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\)"):
        ops.batch_norm(x, weight=np.ones(2, np.float32), training=True)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        ops.batch_norm(one, training=True)
    with pytest.raises(TypeError, match="weight: float64"):
        ops.batch_norm(x, weight=np.ones(3), training=True)
    with pytest.raises(ValueError, match="grad"):
        ops.batch_norm_backward(one, x, None, one, one, True)
    with pytest.raises(ValueError, match=r"residual must have the shape of input, \(2, 3\), got \(3,\)"):
        ops.batch_norm_forward(x, training=True, residual=one)
    with pytest.raises(TypeError, match="residual: float64"):
        ops.batch_norm_forward(x, training=True, residual=np.ones((2, 3)))
    with pytest.raises(ValueError, match="activation must be one of 'relu', got 'tanh'"):
        ops.batch_norm_forward(x, training=True, activation="tanh")
    with pytest.raises(ValueError, match="y must be the result"):
        ops.batch_norm_backward(x, x, None, one, one, True, "relu")
    with pytest.raises(ValueError, match=r"coefficients must have shape \(3, 3\)"):
        ops.batch_norm_apply(x, one)
    with pytest.raises(ValueError, match="at least one value per channel"):
        ops.batch_norm_statistics(x[:0], training=True)
    with pytest.raises(ValueError, match="mean and inverse must have shape"):
        ops.batch_norm_backward(x, x, None, np.ones(6, np.float32)[:2], one, True)
    fixed = one.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="running_var is updated in place"):
        ops.batch_norm(x, one.copy(), fixed, training=True)
    with pytest.raises(TypeError, match="running_mean must be an array"):
        ops.batch_norm(x, [0.0, 0.0, 0.0], one, training=True)
    with pytest.raises(TypeError, match="eps"):
        ops.batch_norm(x, training=True, eps=[])


def strided(x):
    """Return the values of x, every other number of a larger array."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def test_statistics_of_backward_passes_have_any_strides_and_the_right_shape(rng):
    x, grad = rng.standard_normal((2, 4, 6, 3, 3))
    _, mean, inverse = ops.batch_norm_forward(x, training=True)
    expected = ops.batch_norm_backward(grad, x, None, mean, inverse, True)
    for a, b in zip(ops.batch_norm_backward(grad, x, None, strided(mean), strided(inverse), True), expected):
        np.testing.assert_array_equal(a, b)
    _, mean, inverse, _ = ops.group_norm_forward(x, 3)
    expected = ops.group_norm_backward(grad, x, 3, None, mean, inverse)
    for a, b in zip(ops.group_norm_backward(grad, x, 3, None, strided(mean), strided(inverse)), expected):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"mean must have shape \(4, 3\), got \(2, 3\)"):
        ops.group_norm_backward(grad, x, 3, None, mean[:2], inverse)
    with pytest.raises(TypeError, match="inverse must have the dtype"):
        ops.group_norm_backward(grad, x, 3, None, mean, inverse.astype(np.float32))
    _, mean, inverse = ops.layer_norm_forward(x, (3, 3))
    with pytest.raises(ValueError, match=r"inverse must have shape \(24, 1\)"):
        ops.layer_norm_backward(grad, x, (3, 3), None, mean, inverse[:1])
    with pytest.raises(ValueError, match="activation"):
        ops.batch_norm_apply(x, np.ones((3, 6)), [])


def test_inference_sees_every_change_of_its_vectors(rng):
    """What is kept of running statistics belongs to their values: arrays of them may change unnoticed."""
    x, _, weight, bias, mean, var = operands((2, 5, 3, 3), "float32", rng)
    for vector in (None, mean, var, weight, bias):
        if vector is not None:
            vector += 0.25
        with dispatch.use("reference"):
            expected = everything(x, x, weight, bias, mean, var, False)
        for found, right in zip(everything(x, x, weight, bias, mean, var, False), expected):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)
    without = ops.batch_norm_forward(x, mean, var)[0]
    np.testing.assert_allclose(without, ops.batch_norm_forward(x, mean, var, np.ones(5, "f"), np.zeros(5, "f"))[0])
    assert np.abs(ops.batch_norm_forward(x, mean, var, eps=1.0)[0] - without).max() > 1e-3


def test_inference_has_the_bits_of_one_that_keeps_nothing(rng, monkeypatch):
    given = operands((3, 20, 4, 5), "float32", rng)
    kept = everything(*given, False)
    monkeypatch.setattr(norm, "_FEW", (0,))
    for found, expected in zip(everything(*given, False), kept):
        np.testing.assert_array_equal(found, expected)


def test_kept_statistics_are_read_only(rng):
    x, _, weight, bias, mean, var = operands((2, 5, 3, 3), "float32", rng)
    _, centre, inverse = ops.batch_norm_forward(x, mean, var, weight, bias)
    for kept in (centre, inverse):
        with pytest.raises(ValueError, match="read-only"):
            kept += 1
