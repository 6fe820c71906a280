"""Layer, group and instance normalisation: kernels against the definition, gradients, edges, layers."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

# (shape, groups)
GROUPED = [
    ((2, 6, 3, 5), 2), ((2, 6, 3, 5), 6), ((3, 33, 7, 7), 1), ((3, 34, 7, 7), 2), ((2, 16, 4), 4), ((4, 12), 3),
    ((1, 8, 60, 70), 4), ((2, 1, 5, 5), 1), ((0, 4, 2, 2), 2), ((2, 40, 33, 33), 8),
]  # fmt: skip
LAYERED = [((2, 3, 17), 1), ((4, 5), 1), ((2, 3, 4, 5), 3), ((300, 33), 1), ((3, 5000), 1), ((0, 7), 1), ((6,), 1)]


def compare(forward, backward, x, weight, bias, arguments, tolerance, rng):
    grad = rng.standard_normal(x.shape).astype(x.dtype)
    y, mean, inverse = forward(x, *arguments, weight, bias)[:3]
    gradients = backward(grad, x, *arguments, weight, mean, inverse)
    wide = [None if a is None else a.astype(np.float64) for a in (x, weight, bias, grad)]
    with nnet.use("reference"):
        want, mean, inverse = forward(wide[0], *arguments, *wide[1:3])[:3]
        wanted = backward(wide[3], wide[0], *arguments, wide[1], mean, inverse)
    for got, right in zip((y, *gradients), (want, *wanted), strict=True):
        assert got.shape == right.shape and got.dtype == x.dtype
        assert np.abs(got - right).max(initial=0) <= tolerance * np.abs(right).max(initial=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(("shape", "groups"), GROUPED, ids=str)
def test_group_norm_against_definition(shape, groups, dtype, tolerance, rng, poisoned):
    x = (rng.standard_normal(shape) * 2 + 5).astype(dtype)
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    for affine in ((weight, bias), (None, None), (weight, None)):
        compare(ops.group_norm_forward, ops.group_norm_backward, x, *affine, (groups,), tolerance, rng)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(("shape", "dims"), LAYERED, ids=str)
def test_layer_norm_against_definition(shape, dims, dtype, tolerance, rng, poisoned):
    x, over = (rng.standard_normal(shape) * 2 + 5).astype(dtype), shape[len(shape) - dims :]
    weight, bias = (rng.standard_normal(over).astype(dtype) for _ in range(2))
    for affine in ((weight, bias), (None, None), (None, bias)):
        compare(ops.layer_norm_forward, ops.layer_norm_backward, x, *affine, (over,), tolerance, rng)


def test_large_means_keep_their_digits(rng):
    x = (rng.standard_normal((2, 8, 40, 40)) + 1000).astype(np.float32)
    for y in (ops.group_norm(x, 2), ops.layer_norm(x.reshape(4, -1), 12800 // 2)):
        assert abs(float(y.var(dtype=np.float64)) - 1) < 1e-4


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (2, 6, 130, 130), (3, 192, 9), (2, 70, 3, 3)])
def test_offsets_cost_no_digits(shape, rng):
    """Beside a mean of a million float32 has steps of 1/16; what is there is normalised as float64 would."""
    x = (1e6 + 0.1 + rng.standard_normal(shape)).astype(np.float32)
    exact = ops.group_norm(x.astype(np.float64), 2)
    assert np.abs(ops.group_norm(x, 2) - exact).max() < 2e-6 * np.abs(exact).max()
    exact = ops.group_norm(x.astype(np.float64), shape[1])
    assert np.abs(ops.group_norm(x, shape[1]) - exact).max() < 2e-6 * np.abs(exact).max()
    equal, _, _, variance = ops.group_norm_forward(np.full(shape, 1e6 + 0.1, np.float32), 2)
    assert not equal.any() and not variance.any()


def test_gradients(rng):
    x, w, b = rng.standard_normal((2, 4, 3, 2)), rng.standard_normal(4), rng.standard_normal(4)
    gradcheck(lambda x, w, b: F.group_norm(x, 2, w, b), x, w, b, tolerance=1e-6)
    gradcheck(lambda x: F.instance_norm(x), x, tolerance=1e-6)
    gradcheck(lambda x, w: F.layer_norm(x, (3, 2), w), x, rng.standard_normal((3, 2)), tolerance=1e-6)
    gradcheck(lambda x, w, b: F.group_norm(x, 2, w, b), x[..., 0, 0], w, b, tolerance=1e-6)


def test_any_strides_and_threads(rng):
    from numbanet.cpu.parallel import get_num_threads, set_num_threads

    x = rng.standard_normal((3, 24, 30, 64))[:, ::-1, :, ::2].astype(np.float32)
    x.flags.writeable = False
    threads, results = get_num_threads(), []
    for count, view in ((1, x), (threads, x), (threads, x.copy())):
        set_num_threads(count)
        y, mean, inverse, _ = ops.group_norm_forward(view, 4)
        results.append((y, *ops.group_norm_backward(view, view, 4, None, mean, inverse), ops.layer_norm(view, 32)))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_running_statistics(rng):
    x = rng.standard_normal((3, 2, 4, 5)) + 2
    mean, var = nnet.tensor(np.zeros(2)), nnet.tensor(np.ones(2))
    F.instance_norm(nnet.tensor(x), mean, var, momentum=0.25)
    assert np.allclose(mean.data, 0.25 * x.mean((0, 2, 3)))
    assert np.allclose(var.data, 0.75 + 0.25 * x.var((2, 3), ddof=1).mean(0))
    y = F.instance_norm(nnet.tensor(x), mean, var, use_input_stats=False)
    assert np.allclose(y.data, (x - mean.data[:, None, None]) / np.sqrt(var.data[:, None, None] + 1e-5))


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda x: F.group_norm(x, 4), "num_groups must divide the 6 channels"),
     (lambda x: F.group_norm(x, 0), "num_groups must be at least 1"),
     (lambda x: F.group_norm(x[0, 0, 0], 1), "at least 2 dimensions"),
     (lambda x: F.group_norm(x, 2, nnet.tensor(np.ones(5))), r"weight must have shape \(6,\), .*got \(5,\)"),
     (lambda x: F.group_norm(x[:1, :, :1, 0], 6), "more than 1 value per group"),
     (lambda x: F.layer_norm(x, (3,)), "normalized_shape must be the last dimensions"),
     (lambda x: nn.LayerNorm([1 << 70]), "normalized_shape must fit in 64 bits, got 1180591620717411303424"),
     (lambda x: F.layer_norm(x, ()), "normalized_shape must be the last dimensions"),
     (lambda x: F.layer_norm(x, (4,), bias=nnet.tensor(np.ones(3))), r"bias must have shape \(4,\)"),
     (lambda x: ops.layer_norm_backward(x.data, x.data, 4, np.ones(3), *2 * [np.ones((60, 1))]), r"weight .* \(4,\)"),
     (lambda x: F.instance_norm(x[0, 0, 0]), "at least 2 dimensions"),
     (lambda x: F.instance_norm(x[:, :, :1, :1]), "more than 1 spatial element"),
     (lambda x: F.instance_norm(x, use_input_stats=False), "running_mean and running_var must be given"),
     (lambda x: nn.GroupNorm(4, 6), "num_channels must be a multiple of num_groups=4"),
     (lambda x: nn.GroupNorm(4, -8), "num_channels must be at least 0, got -8"),
     (lambda x: nn.InstanceNorm2d(5, affine=True, dtype=np.float64)(x), "input must have 5 channels"),
     (lambda x: nn.InstanceNorm1d(6)(x), "input must have 2 or 3 dimensions")],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(nnet.tensor(np.zeros((2, 6, 3, 4))))


def test_layers(rng):
    x = nnet.tensor(rng.standard_normal((2, 6, 3, 4)))
    layer = nn.LayerNorm((3, 4), elementwise_affine=False)
    assert np.array_equal(layer(x).data, F.layer_norm(x, (3, 4)).data)
    group = nn.GroupNorm(3, 6, dtype=np.float64)
    group.weight.data[...], group.bias.data[...] = 2, 1
    assert np.allclose(group(x).data, 2 * F.group_norm(x, 3).data + 1)
    group.reset_parameters()
    assert np.array_equal(group(x).data, F.group_norm(x, 3).data)
    instance = nn.InstanceNorm2d(6, track_running_stats=True, dtype=np.float64)
    instance(x)
    assert np.allclose(instance.running_mean.data, 0.1 * x.data.mean((0, 2, 3)))
    before = instance.running_mean.data.copy()
    instance.eval()(x)
    assert np.array_equal(before, instance.running_mean.data)
    with pytest.warns(UserWarning, match="num_features is not used"):
        assert nn.InstanceNorm2d(5)(x[0]).shape == (6, 3, 4)


@pytest.mark.parametrize(("dtype", "other"), [("float32", "float64"), ("float64", "float32")])
def test_statistics_may_have_another_dtype_than_the_images(dtype, other, rng):
    x = rng.standard_normal((2, 3, 4, 5))
    mean, var = nnet.tensor(np.array([0.5, -1, 2], other)), nnet.tensor(np.array([1, 4, 0.25], other))
    images = nnet.tensor(x.astype(dtype))
    fixed = F.instance_norm(images, mean, var, use_input_stats=False)
    column = lambda t: t.data[:, None, None].astype(float)  # noqa: E731
    want = (x - column(mean)) / np.sqrt(column(var) + 1e-5)
    np.testing.assert_allclose(fixed.data, want, rtol=0, atol=2e-6)
    expected = 0.9 * mean.data + 0.1 * x.mean((0, 2, 3))
    assert F.instance_norm(images, mean, var).dtype == dtype and mean.dtype == var.dtype == other
    np.testing.assert_allclose(mean.data, expected, rtol=0, atol=1e-6)
    whole = nnet.tensor(np.zeros(3, int))
    for own in (True, False):
        with pytest.raises(TypeError, match="running_mean must have dtype float32 or float64, got int64"):
            F.instance_norm(images, whole, whole, use_input_stats=own)


def test_running_variance_of_small_numbers_keeps_its_digits(rng):
    x = (rng.standard_normal((3, 2, 40, 50)) * 1e-4).astype(np.float32)
    want = x.astype(np.float64).var((2, 3), ddof=1).mean(0)
    mean, var = (nnet.tensor(np.zeros(2, np.float32)) for _ in range(2))
    F.instance_norm(nnet.tensor(x), mean, var, momentum=1.0, eps=1e-2)
    assert np.allclose(var.data, want, rtol=1e-5, atol=0)
    for runs in (ops.group_norm_forward(x, 2)[3], ops.group_norm_forward(x[:, :1], 1)[3]):
        assert np.allclose(runs, x[:, : runs.shape[1]].astype(np.float64).var((2, 3)), rtol=1e-5, atol=0)


def test_a_number_is_the_shape_of_the_layer_only():
    x = nnet.tensor(np.ones((2, 4), np.float32))
    assert nn.LayerNorm(4)(x).shape == (2, 4)
    for number in (4, np.int64(4)):
        with pytest.raises(TypeError, match="normalized_shape must be a sequence of sizes, got"):
            F.layer_norm(x, number)
