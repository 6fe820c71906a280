"""Statistics that a convolution's kernel takes of its result, against the result's own in long double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import ops
from numbanet.cpu.group_tile import can_permute
from numbanet.cpu.simd import numpy_lanes
from numbanet.moments import Moments

RNG = np.random.default_rng(5)

# Kernel; shape of the input, filters, their size; further options.
CASES: list[tuple[str, tuple[int, ...], int, int, dict[str, Any]]] = [
    ("cpu.direct", (3, 5, 9, 11), 7, 3, {"padding": 1}),
    ("cpu.direct", (1, 8, 23, 19), 16, 3, {"stride": 2}),
    ("cpu.direct", (2, 6, 31, 17), 24, 1, {}),
    ("cpu.direct", (40, 3, 7, 5), 8, 3, {"padding": 1}),  # positions go across the images
    ("cpu.direct", (2, 16, 14, 14), 200, 1, {}),  # several panels
    ("cpu.direct", (2, 12, 10, 10), 150, 3, {"groups": 3, "padding": 1}),
    ("cpu.direct", (1, 4, 1, 2), 3, 1, {}),
    ("cpu.direct", (2, 640, 6, 6), 520, 3, {"padding": 1}),  # tasks go part by part of the channels
    ("cpu.band", (3, 3, 29, 21), 16, 3, {"padding": 1}),
    ("cpu.band", (2, 1, 64, 64), 9, 5, {"stride": 2}),
    ("cpu.winograd", (5, 16, 33, 30), 32, 3, {"padding": 1}),
    ("cpu.winograd", (1, 8, 10, 9), 40, 3, {"padding": 1}),  # few tiles: tasks are panels
    ("cpu.winograd", (9, 4, 12, 13), 100, 3, {}),
    ("cpu.winograd_f2", (5, 16, 17, 15), 16, 3, {"padding": 1}),
    ("cpu.winograd_5x5", (6, 8, 19, 18), 24, 5, {"padding": 2}),
    ("cpu.winograd_s2", (5, 16, 33, 30), 32, 3, {"stride": 2, "padding": 1}),
    ("cpu.winograd_s2", (1, 8, 10, 9), 40, 3, {"stride": 2, "padding": 1}),
    ("cpu.depthwise", (2, 37, 13, 12), 37, 3, {"groups": 37, "padding": 1}),
    ("cpu.depthwise", (1, 300, 9, 30), 300, 3, {"groups": 300, "stride": 2}),
    ("cpu.depthwise", (32, 20, 40, 33), 20, 3, {"groups": 20, "padding": 1}),  # a task is an image: in several sums
    ("cpu.depthwise", (32, 20, 9, 70), 20, 3, {"groups": 20, "padding": 1}),
    ("cpu.grouped", (2, 24, 20, 50), 24, 3, {"groups": 6, "padding": 1}),
    ("cpu.grouped", (3, 100, 9, 8), 100, 3, {"groups": 50, "stride": 2}),
]


def made(shape: tuple[int, ...], filters: int, size: int, options: dict[str, Any], dtype: str) -> tuple[Any, ...]:
    x = RNG.standard_normal(shape).astype(dtype)
    w = RNG.standard_normal((filters, shape[1] // options.get("groups", 1), size, size)).astype(dtype)
    return x, w, (1000 * RNG.standard_normal(filters)).astype(dtype)  # means far from zero


def merged(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and sum of squares about it."""
    count, shift, total, squares = parts.astype(np.longdouble).transpose(1, 0, 2)
    number = count.sum(0)
    mean = (count * shift + total).sum(0) / number
    apart = total / np.maximum(count, 1)
    return number, mean, (squares - total * apart + count * (shift - mean + apart) ** 2).sum(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "shape", "filters", "size", "options"), CASES)
def test_moments_are_those_of_the_result(
    name: str, shape: tuple[int, ...], filters: int, size: int, options: dict[str, Any], dtype: str
) -> None:
    if "winograd" in name and dtype == "float64":
        pytest.skip("for float32 alone")
    if name == "cpu.grouped" and not (can_permute() and shape[1] // options["groups"] <= numpy_lanes(dtype)):
        pytest.skip("vectors of this machine have no permutation, or are shorter than a group")
    x, w, bias = made(shape, filters, size, options, dtype)
    moments = Moments()
    with nnet.use(name):
        y = ops.conv2d(x, w, bias, moments=moments, **options)
        np.testing.assert_array_equal(y, ops.conv2d(x, w, bias, **options))
    assert moments.parts is not None
    number, mean, squares = merged(moments.parts)
    exact = y.astype(np.longdouble).transpose(1, 0, 2, 3).reshape(filters, -1)
    assert set(number) == {exact.shape[1]}
    unit = np.finfo(dtype).eps
    np.testing.assert_allclose(mean, exact.mean(1), rtol=unit, atol=4 * unit * exact.std(1).max())
    expected = exact.var(1) * exact.shape[1]
    np.testing.assert_allclose(squares, expected, rtol=30 * unit, atol=30 * unit * expected.max() / 100)


@pytest.mark.parametrize("name", ["cpu.direct", "cpu.winograd", "cpu.band"])
def test_threads_do_not_change_a_bit(name: str) -> None:
    x, w, bias = made((9, 4, 21, 17), 40, 3, {}, "float32")
    found, before = [], nnet.get_num_threads()
    try:
        for threads in {1, before}:
            nnet.set_num_threads(threads)
            with nnet.use(name):
                ops.conv2d(x, w, bias, moments=(moments := Moments()))
            found.append(moments.parts)
    finally:
        nnet.set_num_threads(before)
    np.testing.assert_array_equal(found[-1], found[0])


def test_a_large_mean_takes_no_digits_from_a_small_variance() -> None:
    """Each channel of the result is 3000 and a little noise."""
    noise = RNG.standard_normal((6, 16, 30, 31), dtype=np.float32)
    moments = Moments()
    y = ops.conv2d(
        noise, np.eye(16, dtype=np.float32)[:, :, None, None], np.full(16, 3000, np.float32), moments=moments
    )
    assert moments.parts is not None
    _, inverse = ops.batch_norm_forward(y, training=True, eps=1e-12, moments=moments)[1:]
    exact = 1 / y.astype(np.float64).std((0, 2, 3))
    np.testing.assert_allclose(inverse, exact, rtol=2e-6)


@pytest.mark.parametrize("name", ["reference", "cpu.pointwise"])
def test_a_batch_norm_does_without(name: str) -> None:
    """Kernels that take no sums leave the statistics to the batch norm."""
    x, w, _ = made((2, 3, 5, 6), 1, 1, {}, "float32")
    with nnet.use(name):
        y = ops.conv2d(x, w, moments=(moments := Moments()))
        found = ops.batch_norm_forward(y, training=True, moments=moments)
        expected = ops.batch_norm_forward(y, training=True)
    assert moments.parts is None
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_the_definition_does_without_what_a_kernel_gave() -> None:
    x, w, _ = made((2, 3, 5, 6), 8, 3, {}, "float32")
    y = ops.conv2d(x, w, moments=(moments := Moments()))
    assert moments.parts is not None
    with nnet.use("reference"):
        found = ops.batch_norm_forward(y, training=True, moments=moments)
    for ours, theirs in zip(found, ops.batch_norm_forward(y, training=True)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_values_far_from_the_first_ones_keep_their_variance() -> None:
    """The shift of a sum is the mean of its first values, so sums are short: here these are 1000, the others small."""
    x = RNG.standard_normal((32, 24, 64, 64), dtype=np.float32)
    x[:, :, 0, :8] = 1000
    identity = np.zeros((24, 1, 3, 3), np.float32)
    identity[:, 0, 1, 1] = 1
    with nnet.use("cpu.depthwise"):
        ops.conv2d(x, identity, padding=1, groups=24, moments=(moments := Moments()))
    assert moments.parts is not None
    count, shift, sums, squares = (moments.parts[:, i].astype(np.float64) for i in range(4))
    assert count.sum(0).tolist() == [32 * 64 * 64] * 24
    exact = x.astype(np.float64)
    mean = (count * shift + sums).sum(0) / count.sum(0)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    within = squares - sums * sums / np.maximum(count, 1)
    apart = shift + sums / np.maximum(count, 1) - mean
    np.testing.assert_allclose((within + count * apart**2).sum(0) / count.sum(0), exact.var((0, 2, 3)), rtol=1e-4)
