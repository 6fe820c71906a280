"""Interpolation: kernels against the definition, gradients, edges, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

OPTIONS = [
    {"scale_factor": 2}, {"size": (3, 11)}, {"scale_factor": (1.7, 0.6), "mode": "nearest-exact"},
    {"scale_factor": 2, "mode": "bilinear"}, {"size": (13, 3), "mode": "bilinear", "align_corners": True},
    {"scale_factor": (0.4, 2.5), "mode": "bilinear", "recompute_scale_factor": True},
    {"scale_factor": 1.5, "mode": "bicubic"}, {"size": (1, 9), "mode": "bicubic", "align_corners": True},
    {"size": (3, 4), "mode": "area"}, {"size": (3, 11), "mode": "bilinear", "antialias": True},
    {"scale_factor": (0.4, 0.7), "mode": "bicubic", "antialias": True},
    {"size": (2, 3), "mode": "bicubic", "align_corners": True, "antialias": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_kernels_against_definition(options, dtype, tolerance, rng, poisoned):
    for shape in [(2, 17, 5, 7), (1, 3, 6, 4), (2, 1, 4, 9), (1, 16, 1, 1), (0, 4, 5, 5), (1, 33, 41, 40)]:
        if "scale_factor" in options and shape[-1] == 1 and min(np.atleast_1d(options["scale_factor"])) < 1:
            continue
        x = rng.standard_normal(shape).astype(dtype)
        y = ops.interpolate(x, **options)
        grad = rng.standard_normal(y.shape).astype(dtype)
        dx = ops.interpolate_backward(grad, shape, **options)
        with nnet.use("reference"):
            want = ops.interpolate(x.astype(np.float64), **options)
            want_dx = ops.interpolate_backward(grad.astype(np.float64), shape, **options)
        for got, right in ((y, want), (dx, want_dx)):
            assert got.shape == right.shape and got.dtype == dtype
            assert np.abs(got - right).max(initial=0) <= tolerance * np.abs(right).max(initial=1)


def test_by_hand():
    x = np.array([[[[0.0, 4.0]]]])
    assert ops.interpolate(x, (1, 4))[0, 0, 0].tolist() == [0, 0, 4, 4]
    assert ops.interpolate(x, (1, 4), mode="bilinear")[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert np.allclose(ops.interpolate(x, (1, 5), mode="bilinear", align_corners=True)[0, 0, 0], [0, 1, 2, 3, 4])
    assert ops.interpolate(x[0], scale_factor=2, mode="linear")[0, 0].tolist() == [0, 1, 3, 4]
    ramp = np.arange(8.0).reshape(1, 1, 1, 8)
    mean = np.average(range(6), weights=[5, 7, 7, 5, 3, 1])  # a triangle around 1.5, twice 4 pixels wide, cut at 0
    assert np.allclose(ops.interpolate(ramp, (1, 2), mode="bilinear", antialias=True)[0, 0, 0], [mean, 7 - mean])


def test_antialias_keeps_constants_and_changes_nothing_where_pixels_stay(rng):
    x = rng.standard_normal((1, 2, 6, 7))
    for mode in ("bilinear", "bicubic"):
        ones = ops.interpolate(np.ones_like(x), (2, 3), mode=mode, antialias=True)
        np.testing.assert_allclose(ones, 1, rtol=0, atol=1e-15)
        assert np.array_equal(ops.interpolate(x, (6, 7), mode=mode, antialias=True), x)


def bytes_along(x, count, mode, antialias, align):
    """Resize the last axis of bytes with integers only: a matrix of 16 bits, half a unit, and a shift."""
    size = x.shape[-1]
    if size == count:
        return x
    identity = np.eye(size)[None, :, None]  # what each output takes of each input
    options = {"mode": mode, "antialias": antialias, "align_corners": align}
    weights = ops.interpolate(identity, (1, count), **options)[0, :, 0].T
    bits = max(b for b in range(23) if b == 0 or int(weights.max() * 2.0**b + 0.5) < 1 << 15)
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int64)
    assert np.abs(whole).max() < 1 << 15
    return np.clip((np.tensordot(x.astype(np.int64), whole, (-1, -1)) + (1 << bits >> 1)) >> bits, 0, 255)


@pytest.mark.parametrize(("mode", "antialias"), [(m, a) for m in ("bilinear", "bicubic") for a in (False, True)])
@pytest.mark.parametrize("align", [False, True])
def test_bytes(mode, antialias, align, rng):
    """One axis at a time, across and then down, each in fixed point and rounded to a byte."""
    for shape in ((2, 3, 9, 11), (1, 1, 1, 40), (1, 5, 33, 2)):
        x = rng.integers(0, 256, shape).astype(np.uint8)
        for size in ((5, 17), (12, 4), (9, 11), (1, 1), (200, 3)):
            got = ops.interpolate(x, size, mode=mode, antialias=antialias, align_corners=align)
            across = bytes_along(x, size[1], mode, antialias, align)
            want = bytes_along(across.swapaxes(2, 3), size[0], mode, antialias, align).swapaxes(2, 3)
            assert got.dtype == np.uint8 and np.array_equal(got, want) and not np.shares_memory(got, x)


def test_bytes_of_an_axis_that_keeps_its_size_stay(rng):
    """Whatever the scale, unlike floats."""
    x = rng.integers(0, 256, (1, 2, 9, 13)).astype(np.uint8)
    y = ops.interpolate(x, scale_factor=(1.05, 2), mode="bicubic")
    assert np.array_equal(y, ops.interpolate(x, scale_factor=(1, 2), mode="bicubic"))
    assert np.array_equal(ops.interpolate(x, scale_factor=1.05, mode="bilinear"), x)


def test_nearest_bytes(rng):
    x = rng.integers(0, 256, (2, 3, 9, 11)).astype(np.uint8)
    for mode in ("nearest", "nearest-exact"):
        want = ops.interpolate(x.astype(float), (5, 17), mode=mode)
        assert np.array_equal(ops.interpolate(x, (5, 17), mode=mode), want)
    assert ops.interpolate(x[:, :, 0], 4, mode="nearest").dtype == np.uint8
    assert F.interpolate(nnet.tensor(x), 4).dtype == np.uint8
    with pytest.raises(TypeError, match="float32 or float64, got uint8"):
        ops.interpolate(x, 4, mode="area")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(options, rng):
    gradcheck(lambda t: F.interpolate(t, **options), rng.standard_normal((2, 2, 4, 5)))


def test_three_dimensions(rng):
    for options in ({"size": 7}, {"scale_factor": 0.5, "mode": "linear"}, {"size": 2, "mode": "area"}):
        gradcheck(lambda t, o=options: F.interpolate(t, **o), rng.standard_normal((2, 2, 4)))


def test_any_strides_and_threads(rng):
    from numbanet.cpu.parallel import get_num_threads, set_num_threads

    x = rng.standard_normal((2, 6, 40, 50))[:, ::-1, :, ::2]
    x.flags.writeable = False
    threads, results = get_num_threads(), []
    for count, view in ((1, x), (threads, x), (threads, x.copy())):
        set_num_threads(count)
        results.append(ops.interpolate(view, scale_factor=2.5, mode="bicubic"))
    assert np.array_equal(*results[:2]) and np.array_equal(*results[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "one of size and scale_factor"), ({"size": 2, "scale_factor": 2}, "one of size and scale_factor"),
     ({"size": (2, 2, 2)}, "size must have 2 numbers"), ({"size": 0}, "must have channels and pixels"),
     ({"size": 2, "mode": "cubic"}, "mode must be one of"), ({"size": 2, "mode": "linear"}, "input must have"),
     ({"size": 2, "align_corners": True}, "align_corners must be None"),
     ({"size": 2, "antialias": True}, "antialias must be False unless mode is 'bilinear' or 'bicubic', got mode="),
     ({"size": 2, "recompute_scale_factor": True}, "recompute_scale_factor must not")],
    ids=str,
)  # fmt: skip
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        F.interpolate(nnet.tensor(np.zeros((1, 2, 3, 4))), **options)


VOLUMES = [
    {"size": (3, 2, 5)}, {"scale_factor": (2, 0.5, 1.7), "mode": "nearest-exact"}, {"size": 5, "mode": "area"},
    {"scale_factor": (1.5, 1.2, 2), "mode": "trilinear"},
    {"size": (2, 7, 3), "mode": "trilinear", "align_corners": True},
]  # fmt: skip


@pytest.mark.parametrize("options", VOLUMES, ids=str)
def test_volumes(options, rng):
    """Each axis on its own: in any order, the result is that of the others first."""
    x = rng.standard_normal((2, 2, 4, 3, 2))
    gradcheck(lambda t: F.interpolate(t, **options), x)
    turned = {k: v[::-1] if isinstance(v, tuple) else v for k, v in options.items()}
    other = ops.interpolate(x.transpose(0, 1, 4, 3, 2), **turned).transpose(0, 1, 4, 3, 2)
    np.testing.assert_allclose(ops.interpolate(x, **options), other, rtol=0, atol=1e-13)


def test_an_axis_that_keeps_its_size_is_left_alone(rng):
    """As in PyTorch: 2 pixels times 1.2 are 2 pixels, and the scale of 1.2 has no say."""
    x = rng.standard_normal((1, 1, 4, 2))
    found = ops.interpolate(x, scale_factor=(2, 1.2), mode="bilinear")
    np.testing.assert_allclose(found[..., 1], ops.interpolate(x[..., 1], scale_factor=2, mode="linear"), atol=1e-15)


@pytest.mark.parametrize(("mode", "dimensions"), [("bilinear", "4"), ("linear", "3"), ("bicubic", "4")])
def test_volumes_are_refused_by_mode(mode, dimensions):
    volumes = nnet.tensor(np.zeros((1, 1, 4, 4, 4)))
    with pytest.raises(ValueError, match=f"have {dimensions} dimensions with mode='{mode}', got shape .1, 1, 4, 4, 4"):
        F.interpolate(volumes, scale_factor=2, mode=mode)
    with pytest.raises(ValueError, match=f"antialias must be False unless|must have {dimensions} dimensions"):
        F.interpolate(volumes, scale_factor=2, mode=mode, antialias=True)


def test_gradients_of_axes_that_stay_or_double(rng):
    """By hand, and of what was computed: small images leave the scale out, sequences follow it."""
    ramp = np.arange(4.0)
    assert ops.interpolate(ramp.reshape(1, 1, 1, 4), scale_factor=1.2).ravel().tolist() == [0, 1, 2, 3]
    assert ops.interpolate(ramp.reshape(1, 1, 1, 4), scale_factor=(1, 2.1)).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert ops.interpolate(ramp.reshape(1, 1, 4), scale_factor=1.2).ravel().tolist() == [0, 0, 1, 2]
    for shape, factor in itertools.product([(1, 2, 4), (1, 2, 3, 4), (1, 1, 2, 3, 4)], (1.2, 2.1)):
        gradcheck(lambda t, f=factor: F.interpolate(t, scale_factor=f), rng.standard_normal(shape))


def test_types():
    with pytest.raises(TypeError, match="size must be a number"):
        F.interpolate(nnet.tensor(np.zeros((1, 2, 3, 4))), 2.5)
    with pytest.raises(TypeError, match="float32 or float64"):
        F.interpolate(nnet.tensor(np.zeros((1, 2, 3, 4), int)), 2)


def test_layers(rng):
    x = nnet.tensor(rng.standard_normal((1, 2, 3, 4)))
    assert repr(nn.Upsample(scale_factor=2, mode="bilinear")) == "Upsample(scale_factor=2.0, mode='bilinear')"
    assert nn.Upsample((4, 6))(x).shape == (1, 2, 4, 6)
    assert nn.UpsamplingNearest2d(scale_factor=2)(x).shape == nn.UpsamplingBilinear2d((6, 8))(x).shape
