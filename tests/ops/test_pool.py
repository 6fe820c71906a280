"""Pooling on arrays: every kernel, every pass, against the definition in float64."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import parallel, pool_average, pool_max
from numbanet.cpu.pool_windows import portion
from numbanet.ops.pool import max_pool2d_indices, max_pool2d_offsets
from numbanet.problem.pool import max_pool2d_problem

SHAPES = [
    (2, 1, 7, 9),
    (1, 3, 8, 8),
    (2, 15, 6, 5),
    (1, 16, 9, 7),
    (2, 17, 5, 6),
    (1, 33, 5, 5),
    (1, 69, 6, 5),
    (0, 4, 6, 6),
]
WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0), "ceil_mode": True},
    {"kernel_size": 1, "stride": 3},
    {"kernel_size": (5, 4), "stride": (1, 4), "padding": 2},
    {"kernel_size": 2, "stride": 4, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": "same_upper"},
    {"kernel_size": (4, 2), "stride": (3, 2), "padding": ((1, 2), (0, 1)), "ceil_mode": True},
]
DILATED = [
    {"kernel_size": 2, "dilation": 2, "padding": 1},
    {"kernel_size": (3, 2), "dilation": (2, 3), "stride": 4, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "dilation": 2, "stride": 2, "padding": 1},
    {"kernel_size": 2, "dilation": 4, "stride": 2, "padding": "same_upper"},
]
AVERAGES = [{}, {"count_include_pad": False}, {"count_include_pad": True}, {"divisor_override": -5}]


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every array that the package allocates: what a kernel forgets to write shows."""
    real = memory.empty

    def empty(shape, dtype, like=None):
        out = real(shape, dtype)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", empty)


def images(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Few different values, so that maxima tie."""
    return rng.integers(-4, 5, shape).astype(dtype)


def close(value: np.ndarray, expected: np.ndarray) -> None:
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=16 * np.finfo(value.dtype).eps, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", WINDOWS + DILATED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_max_pool(shape, options, dtype, rng, poisoned):
    x = images(shape, dtype, rng)
    with nnet.use("reference"):
        expected, offsets = max_pool2d_offsets(x, **options)
        grad = rng.integers(-9, 9, expected.shape).astype(dtype)
        indices = max_pool2d_indices(offsets, x.shape, **options)
        dx = nnet.ops.max_pool2d_backward(grad, offsets, x.shape, **options)
    y, found = max_pool2d_offsets(x, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(found, offsets)
    np.testing.assert_array_equal(nnet.ops.max_pool2d(x, **options), expected)
    np.testing.assert_array_equal(nnet.ops.max_pool2d(x, return_indices=True, **options)[1], indices)
    for name in ("cpu.gather", "cpu.scatter"):
        with nnet.use(name):
            np.testing.assert_array_equal(nnet.ops.max_pool2d_backward(grad, offsets, x.shape, **options), dx)


@pytest.mark.parametrize("channels", range(1, 19))
@pytest.mark.parametrize("kernel", [(3, 2), (1, 256), (15, 17), (256, 1)], ids=str)
def test_indices_of_every_tail(channels, kernel, rng):
    x = images((2, channels, 258, 259), "float32", rng)
    options = {"kernel_size": kernel, "stride": (61, 47), "padding": (kernel[0] // 2, kernel[1] // 2)}
    _, offsets = max_pool2d_offsets(x, **options)
    with nnet.use("reference"):
        expected = max_pool2d_indices(offsets, x.shape, **options)
    np.testing.assert_array_equal(max_pool2d_indices(offsets, x.shape, **options), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("more", AVERAGES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_avg_pool(shape, options, more, dtype, rng, poisoned):
    x = rng.standard_normal(shape)
    with nnet.use("reference"):
        expected = nnet.ops.avg_pool2d(x, **options, **more)
        grad = rng.standard_normal(expected.shape)
        dx = nnet.ops.avg_pool2d_backward(grad, x.shape, **options, **more)
    close(nnet.ops.avg_pool2d(x.astype(dtype), **options, **more), expected)
    close(nnet.ops.avg_pool2d_backward(grad.astype(dtype), x.shape, **options, **more), dx)


@pytest.mark.parametrize("portion", [(1, 1), (1, 2), (1, 9)], ids=str)
@pytest.mark.parametrize("channels", [16, 69])
def test_windows_in_parts(portion, channels, rng, poisoned, monkeypatch):
    """Where inputs are large, windows are taken in parts: here small ones are."""
    monkeypatch.setattr(pool_max, "portion", lambda problem: portion)
    monkeypatch.setattr(pool_average, "portion", lambda problem: portion)
    x = images((2, channels, 8, 9), "float32", rng)
    x[rng.random(x.shape) < 0.01] = np.nan
    numbers = rng.standard_normal(x.shape).astype(np.float32)
    for options in WINDOWS:
        with nnet.use("reference"):
            expected, offsets = max_pool2d_offsets(x, **options)
            average = nnet.ops.avg_pool2d(numbers, **options)
        y, found = max_pool2d_offsets(x, **options)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(found, offsets)
        np.testing.assert_array_equal(nnet.ops.max_pool2d(x, **options), expected)
        close(nnet.ops.avg_pool2d(numbers, **options), average)


def test_large_inputs_are_read_in_order():
    problem = partial(max_pool2d_problem, "forward", dtype="float32")
    assert portion(problem((128, 256, 16, 16), kernel_size=2)) == (1, 1)
    assert portion(problem((128, 64, 32, 32), kernel_size=2)) == (1, 2)
    for shape, options in (
        ((4, 64, 224, 224), {"kernel_size": 2}),  # long rows
        ((1, 256, 16, 16), {"kernel_size": 2}),  # in a cache
        ((128, 256, 16, 16), {"kernel_size": 3, "stride": 2}),  # windows overlap
        ((512, 16, 32, 32), {"kernel_size": 2}),  # few channels
    ):
        assert portion(problem(shape, **options)) == (options["kernel_size"],) * 2


@pytest.mark.parametrize("shape", [*SHAPES, (1, 600, 3, 4), (2, 0, 3, 4)], ids=str)
@pytest.mark.parametrize("size", [1, 3, (None, 2), (7, None), (11, 13), 0], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adaptive_avg_pool(shape, size, dtype, rng, poisoned):
    x = rng.standard_normal(shape)
    with nnet.use("reference"):
        expected = nnet.ops.adaptive_avg_pool2d(x, size)
        close(nnet.ops.adaptive_avg_pool2d(x.astype(dtype), size), expected)
        grad = rng.standard_normal(expected.shape)
        if 0 in expected.shape[1:] and size != 1:  # PyTorch has no gradient of these
            with pytest.raises(ValueError, match="output_size must have pixels, and input channels, for a gradient"):
                nnet.ops.adaptive_avg_pool2d_backward(grad, x.shape)
            return
        dx = nnet.ops.adaptive_avg_pool2d_backward(grad, x.shape)
    close(nnet.ops.adaptive_avg_pool2d(x.astype(dtype), size), expected)
    close(nnet.ops.adaptive_avg_pool2d_backward(grad.astype(dtype), x.shape), dx)


def test_large_windows_have_wide_offsets(rng):
    x = np.arange(3600.0).reshape(1, 3, 40, 30)
    options = {"kernel_size": (17, 16), "stride": (9, 16)}
    y, offsets = max_pool2d_offsets(x, **options)
    assert offsets.dtype == np.int32 and offsets.max() > 255
    assert y[0, 0, 0, 0] == x[0, 0, :17, :16].max()
    grad = rng.standard_normal(y.shape)
    with nnet.use("reference"):
        expected = nnet.ops.max_pool2d_backward(grad, offsets, x.shape, **options)
    for name in ("cpu.gather", "cpu.scatter"):
        with nnet.use(name):
            close(nnet.ops.max_pool2d_backward(grad, offsets, x.shape, **options), expected)


@pytest.mark.parametrize("channels", [1, 16, 20])
def test_non_finite_values(channels):
    x = np.full((1, channels, 2, 6), -np.inf, np.float32)
    x[..., 1, 1] = x[..., 0, 3] = np.nan
    x[..., 0, 2] = np.inf
    y, indices = nnet.ops.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(y[0, 0, 0], [np.nan, np.nan, -np.inf])
    np.testing.assert_array_equal(indices[0, -1, 0], [7, 3, 4])
    np.testing.assert_array_equal(nnet.ops.max_pool2d(x, 2)[0, -1, 0], [np.nan, np.nan, -np.inf])
    average = nnet.ops.avg_pool2d(np.where(np.isnan(x), 0, x), (1, 2))
    np.testing.assert_array_equal(average[0, -1, 0], [-np.inf, np.inf, -np.inf])
    grad = np.full(y.shape, np.nan, np.float32)
    _, offsets = max_pool2d_offsets(x, 2)
    assert np.isnan(nnet.ops.max_pool2d_backward(grad, offsets, x.shape, 2)).sum() == 3 * channels


@pytest.mark.parametrize("channels", [2, 16, 33, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_max_pool_of_scattered_non_finite_values(channels, dtype, rng, poisoned):
    x = images((2, channels, 9, 8), dtype, rng)
    for value in (np.nan, np.inf, -np.inf, np.nan):
        x[rng.random(x.shape) < 0.03] = value
    x[:, 0] = np.sign(x[:, 0]) * np.finfo(dtype).max  # sums of these overflow
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        with nnet.use("reference"):
            expected, offsets = max_pool2d_offsets(x, **options)
        y, found = max_pool2d_offsets(x, **options)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(found, offsets)
        np.testing.assert_array_equal(nnet.ops.max_pool2d(x, **options), expected)


def test_last_nan_wins():
    x = np.array([[np.nan, 1.0], [2.0, np.nan]])[None]
    assert nnet.ops.max_pool2d(x, 2, return_indices=True)[1].item() == 3


def test_window_outside_the_input():
    """A dilated window may miss a small input altogether: it gives minus infinity, and its gradient goes nowhere."""
    x = np.ones((1, 20, 1, 1))
    y, offsets = max_pool2d_offsets(x, 2, padding=1, dilation=2)
    assert (y == -np.inf).all()
    for name in ("cpu.gather", "cpu.scatter", "reference"):
        with nnet.use(name):
            assert not nnet.ops.max_pool2d_backward(y, offsets, x.shape, 2, padding=1, dilation=2).any()


def test_wrong_offsets_are_harmless(rng):
    """Offsets that no forward pass gave write nothing outside the array."""
    grad = rng.standard_normal((1, 3, 4, 4))
    offsets = np.full(grad.shape, 255, np.uint8)
    with nnet.use("cpu.scatter"):
        assert not nnet.ops.max_pool2d_backward(grad, offsets, (1, 3, 8, 8), 2).any()


@pytest.mark.parametrize("function", [lambda x: nnet.ops.max_pool2d(x, 3, 2, 1), lambda x: nnet.ops.avg_pool2d(x, 2)])
def test_any_strides(function, rng):
    base = rng.standard_normal((4, 12, 11, 6))
    base.flags.writeable = False
    for view in (base, base.transpose(0, 3, 1, 2), base[::-2, ::3, ::-1, ::-1], np.broadcast_to(base[:1], base.shape)):
        y = function(view)
        np.testing.assert_array_equal(y, function(view.copy()))
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(function(view[0]), y[0])


@pytest.mark.parametrize("n, channels, least", [(1, 1024, 4), (1, 512, 2), (2, 960, 6), (4, 2048, 8), (1, 8192, 8)])
def test_one_image_is_work_for_several_threads(n, channels, least, rng):
    x = rng.standard_normal((n, 7, 7, channels)).astype(np.float32).transpose(0, 3, 1, 2)
    launches = parallel.Launches()
    with parallel.recording(launches):
        y = nnet.ops.avg_pool2d(x, 7)
    *_, tasks, _ = launches.calls[-1].call
    assert least <= tasks <= n * channels // 128
    close(y, x.mean((2, 3), dtype=np.float64)[..., None, None])


def test_same_bits_for_any_number_of_threads(rng):
    if parallel.get_num_threads() < 2:
        pytest.skip("one thread only")
    x = rng.standard_normal((3, 40, 17, 19)).astype(np.float32)

    def everything() -> list[np.ndarray]:
        y, offsets = max_pool2d_offsets(x, 3, 2, 1)
        a = nnet.ops.avg_pool2d(x, 3, 1, 1)
        results = [y, a, nnet.ops.adaptive_avg_pool2d(x, (4, 5))]
        results += [nnet.ops.max_pool2d_backward(y, offsets, x.shape, 3, 2, 1)]
        return [*results, nnet.ops.avg_pool2d_backward(a, x.shape, 3, 1, 1)]

    parallel.set_num_threads(1)
    try:
        alone = everything()
    finally:
        parallel.set_num_threads(2)
    for one, two in zip(alone, everything()):
        assert one.tobytes() == two.tobytes()


def test_choice_of_backward():
    def chosen(channels: int, kernel: int, stride: int) -> str:
        return dispatch.choose(
            max_pool2d_problem("backward_input", (2, channels, 9, 9), "float32", kernel, stride)
        ).name

    assert chosen(64, 3, 2) == "cpu.gather"
    assert chosen(64, 2, 2) == "cpu.scatter"
    assert chosen(1, 3, 2) == "cpu.scatter"


def test_subject_examples():
    """2x2 windows at stride 2 halve an image; 3x3 windows at stride 2 overlap."""
    x = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], np.float32)[None]
    np.testing.assert_array_equal(nnet.ops.max_pool2d(x, 2), [[[6, 8], [3, 4]]])
    assert nnet.ops.max_pool2d(np.zeros((1, 64, 224, 224), np.float32), 2, 2).shape == (1, 64, 112, 112)
    assert nnet.ops.max_pool2d(np.zeros((1, 96, 55, 55), np.float32), 3, 2).shape == (1, 96, 27, 27)


def test_errors(rng):
    grad, x = rng.standard_normal((1, 2, 2, 2)), rng.standard_normal((1, 2, 4, 4))
    _, offsets = max_pool2d_offsets(x, 2)
    with pytest.raises(ValueError, match="grad must have the result's shape"):
        nnet.ops.avg_pool2d_backward(grad[..., :1], x.shape, 2)
    with pytest.raises(TypeError, match="offsets must have dtype uint8"):
        nnet.ops.max_pool2d_backward(grad, offsets.astype(np.int32), x.shape, 2)
    with pytest.raises(ValueError, match="offsets must have the result's shape"):
        nnet.ops.max_pool2d_backward(grad, offsets[..., :1], x.shape, 2)
    with pytest.raises(ValueError, match=r"input must have shape \(N, C, H, W\) or \(C, H, W\)"):
        nnet.ops.max_pool2d(x[0, 0], 2)
    with pytest.raises(TypeError, match="input must have dtype float32 or float64"):
        nnet.ops.max_pool2d(x.astype(np.float16), 2)


@pytest.mark.parametrize("shape", [(2, 3, 12, 12), (3, 48, 13, 11), (1, 200, 15, 16), (2, 64, 40, 33)], ids=str)
def test_means_of_whole_images(shape, rng, poisoned):
    x = rng.standard_normal(shape).astype(np.float32)
    found = nnet.ops.adaptive_avg_pool2d(x, 1)
    np.testing.assert_allclose(found, x.mean(axis=(2, 3), dtype=np.float64, keepdims=True), rtol=1e-5, atol=1e-7)
    assert "-> cpu.sum" in nnet.explain("adaptive_avg_pool2d", shape, 1)


@pytest.mark.parametrize("channels", [64, 40])
def test_gradients_beyond_the_caches(channels, rng):
    shape = (2, channels, 260, -(-(1 << 22) // (2 * channels * 260)))
    x = rng.integers(0, 99, shape).astype(np.float32)
    assert x.nbytes >= 1 << 24
    y, offsets = max_pool2d_offsets(x, 3, 2, 1)
    grad = rng.integers(1, 9, y.shape).astype(np.float32)
    dx = nnet.ops.max_pool2d_backward(grad, offsets, shape, 3, 2, 1)
    assert dx.sum(dtype=np.float64) == grad.sum(dtype=np.float64)
    assert (dx != 0).sum() <= grad.size
    dx = nnet.ops.avg_pool2d_backward(grad, shape, 3, 2, 1, divisor_override=1)
    ones = nnet.ops.avg_pool2d(np.ones((1, 1, *shape[2:]), np.float32), 3, 2, 1, divisor_override=1)
    assert dx.sum(dtype=np.float64) == (grad * ones).sum(dtype=np.float64)
