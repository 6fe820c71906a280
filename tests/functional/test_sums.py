"""float32 sums of ten million numbers keep their digits, and values near the ends of the range do not overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import Tensor, ops, use
from numbanet import functional as F

COUNT = 10**7
ULPS = 4 * float(np.finfo(np.float32).eps)
INF, NAN = np.inf, np.nan
D = float(np.float32(0.1))


def draws(kind: str) -> np.ndarray:
    """Return numbers all alike (errors of a rounding do not cancel), from 0 to 1, or beside a large offset."""
    if kind == "alike":
        return np.full(COUNT, 0.1, np.float32)
    x = np.random.default_rng(0).random(COUNT, dtype=np.float32)
    return x + np.float32(1000) if kind == "offset" else x


def log_likelihood(x: np.ndarray) -> float:
    rows = x.reshape(-1, 10).astype(np.float64)
    return float((np.log(np.exp(rows - rows[:, :1]).sum(1))).mean())


IMAGES = (10, 2, 500, 1000)
STATISTICS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]] = {
    "sum": (ops.sum, np.sum),
    "sum of columns": (lambda x: ops.sum(x.reshape(-1, 5), 0), lambda x: x.reshape(-1, 5).sum(0)),
    "mean": (ops.mean, np.mean),
    "norm": (ops.vector_norm, np.linalg.norm),
    "mse_loss": (lambda x: ops.mse_loss(x, np.zeros_like(x)), lambda x: np.square(x).mean()),
    "cross_entropy": (lambda x: ops.cross_entropy(x.reshape(-1, 10), np.zeros(COUNT // 10, int)), log_likelihood),
    "batch_norm's means": (
        lambda x: ops.batch_norm_statistics(x.reshape(IMAGES), training=True)[0],
        lambda x: x.reshape(IMAGES).mean((0, 2, 3)),
    ),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x.reshape(1, 1, 2500, 4000), (2500, 4000)), np.mean),
}


@pytest.mark.parametrize("kind", ["alike", "uniform", "offset"])
def test_ten_million(kind: str) -> None:
    x = draws(kind)
    exact = x.astype(np.float64)
    for name, (function, definition) in STATISTICS.items():
        np.testing.assert_allclose(np.squeeze(function(x)), definition(exact), ULPS, err_msg=name)
    if kind != "alike":
        np.testing.assert_allclose(F.var(Tensor(x)).data, exact.var(ddof=1), ULPS)
        inverse = ops.batch_norm_statistics(x.reshape(IMAGES), training=True, eps=1e-30)[1]
        np.testing.assert_allclose(inverse, 1 / exact.reshape(IMAGES).std((0, 2, 3)), ULPS)
    else:
        assert F.var(Tensor(x)).item() < 1e-12


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (F.l1_loss, D),
        (F.smooth_l1_loss, D * D / 2),
        (F.huber_loss, D * D / 2),
        (F.binary_cross_entropy, -np.log1p(-D)),
        (F.binary_cross_entropy_with_logits, np.log1p(np.exp(D))),
    ],
)
def test_losses_of_ten_million(loss: Any, expected: float) -> None:
    x = np.full(COUNT, 0.1, np.float32)
    np.testing.assert_allclose(loss(Tensor(x), Tensor(np.zeros_like(x))).data, expected, ULPS)


@pytest.mark.parametrize("shape", [(1, 1, 37, 300), (2, 5, 40, 33), (1, 70, 20, 30)])
@pytest.mark.parametrize("options", [{}, {"padding": 3}, {"padding": 3, "count_include_pad": False}, {"stride": 1}])
def test_averages_of_many(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).random(shape, dtype=np.float32)
    with_64 = ops.avg_pool2d(x.astype(np.float64), (14, 19), **options)
    np.testing.assert_allclose(ops.avg_pool2d(x, (14, 19), **options), with_64, ULPS)
    with use("reference"):
        np.testing.assert_allclose(with_64, ops.avg_pool2d(x.astype(np.float64), (14, 19), **options), 1e-13)


EXTREME = np.array(
    [[1e30, 1e30, -1e30], [88, 89, 90], [1000, 1001, 1002], [-1e38, -1e38, -1e38], [-1e38, 3e38, 3e38], [-INF, 0, 0]],
    np.float32,
)
SOFT = [1 / (1 + np.e + np.e**2) * np.e**k for k in range(3)]
SHARES = np.array([[0.5, 0.5, 0], SOFT, SOFT, [1 / 3] * 3, [0, 0.5, 0.5], [0, 0.5, 0.5]])


def test_softmax_does_not_overflow() -> None:
    np.testing.assert_allclose(ops.softmax(EXTREME, 1), SHARES, 1e-6)
    x = EXTREME.astype(np.float64)
    top = x.max(1, keepdims=True)
    logs = x - top - np.log(np.exp(x - top).sum(1, keepdims=True))
    with np.errstate(over="ignore"):
        logs = logs.astype(np.float32)  # -4e38 is beyond float32
    np.testing.assert_allclose(ops.log_softmax(EXTREME, 1), logs, 1e-6)
    for label in range(3):
        losses = ops.cross_entropy(EXTREME, np.full(6, label), reduction="none")
        np.testing.assert_allclose(losses, -logs[:, label], 1e-6)


@pytest.mark.parametrize("row", [[INF, 0, 1], [-INF, -INF, -INF], [NAN, 0, 1]])
def test_softmax_without_a_largest_number_is_nan(row: list[float]) -> None:
    x = np.array([row], np.float32)
    assert np.isnan(ops.softmax(x, 1)).all()
    assert np.isnan(ops.cross_entropy(x, np.array([1])))


def test_logistic_losses_do_not_overflow() -> None:
    x = np.array([1e30, 88, 1000, -1000, -1e38, INF], np.float32)
    losses = F.binary_cross_entropy_with_logits(Tensor(x), Tensor(np.zeros_like(x)), reduction="none").data
    np.testing.assert_allclose(losses, np.maximum(x, 0), 1e-6)


@pytest.mark.parametrize("value", [1e30, 1e6 + 0.1, 0.1])
def test_constants_have_no_variance(value: float) -> None:
    x = np.full((100_000, 3), value, np.float32)
    assert not F.var(Tensor(x), 0).data.any()
    assert not ops.batch_norm(x, training=True).any()
    assert np.abs(ops.layer_norm(x, x.shape)).max() < 1e-6


def test_variance_beside_a_large_offset() -> None:
    x = np.float32(2**23) + np.arange(1000, dtype=np.float32)[:, None] % 7
    exact = x.astype(np.float64).var()
    np.testing.assert_allclose(F.var(Tensor(x), unbiased=False).data, exact, 1e-6)
    inverse = ops.batch_norm_statistics(x, training=True, eps=1e-30)[1]
    np.testing.assert_allclose(inverse, exact**-0.5, 1e-6)


def test_slope_of_a_variance_beside_a_large_offset() -> None:
    x = nnet.tensor(1e9 + np.random.default_rng(0).standard_normal(1001), requires_grad=True)
    F.var(x).backward()
    exact = x.data - 1e9
    np.testing.assert_allclose(x.grad.data, 2 / 1000 * (exact - exact.mean()), rtol=0, atol=1e-17)


@pytest.mark.parametrize("size", [100, 5000, 100_000])
@pytest.mark.parametrize("scale", [1e-18, 1e-25, 1e-33])
@pytest.mark.parametrize("offset", [0, 1, 1e3])
def test_deviations_whose_squares_are_zero_in_float32(size: int, scale: float, offset: float) -> None:
    x = ((offset + np.random.default_rng(0).standard_normal((3, size))) * scale).astype(np.float32)
    x[1] *= np.float32(0.5 / scale)  # beside one whose squares are numbers
    x[2] = offset * scale
    exact = x.astype(np.float64).std(1, ddof=1)
    found = F.std(nnet.tensor(x), 1).data
    np.testing.assert_allclose(found[:2], exact[:2], rtol=2e-6)
    assert found[2] == 0


@pytest.mark.parametrize("offset", [0, 1, 15, 100, 1e4])
@pytest.mark.parametrize(("shape", "dim"), [((70_000,), None), ((300, 400), 0), ((400, 300), 1), ((9, 5, 700), (0, 2))])
def test_variance_keeps_its_digits(offset: float, shape: tuple[int, ...], dim: Any) -> None:
    """Whether the rounding of the mean is left out of account or not."""
    x = (offset + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(F.var(nnet.tensor(x), dim).data, wide.var(dim, ddof=1), rtol=1e-6)
    leaf, exact = nnet.tensor(x, requires_grad=True), nnet.tensor(wide, requires_grad=True)
    for tensor in (leaf, exact):
        F.var(tensor, dim).sum().backward()
    largest = np.abs(exact.grad.data).max()
    assert np.abs(leaf.grad.data - exact.grad.data).max() < 4e-6 * largest


def test_how_deviations_were_computed_once_is_not_replayed() -> None:
    """The next numbers may want it otherwise: beside an offset, too large or too small for float32."""
    x = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32)
    captured = nnet.capture(lambda t: F.std(t, 1))
    with nnet.no_grad():
        for offset, scale in [(0, 1), (0, 1), (0, 1), (1e4, 1), (0, 1e30), (0, 1e-30), (0, 1)]:
            given = nnet.tensor((x + np.float32(offset)) * np.float32(scale))
            assert captured(given).tolist() == F.std(given, 1).tolist()


def test_norms_of_large_numbers() -> None:
    np.testing.assert_allclose(ops.vector_norm(np.full(4, 1e30, np.float32)), 2e30, 1e-6)
    np.testing.assert_allclose(ops.mean(np.full(1000, 3e38, np.float32)), 3e38, 1e-6)


@pytest.mark.parametrize("size", [100, 5000, 100_000])
@pytest.mark.parametrize("scale", [1e18, 1e19, 1e30])
def test_deviations_whose_squares_exceed_float32(size: int, scale: float) -> None:
    x = (np.random.default_rng(0).standard_normal((2, size)) * scale).astype(np.float32)
    exact = x.astype(np.float64)
    for dim in (None, 1):
        np.testing.assert_allclose(F.std(nnet.tensor(x), dim).data, exact.std(dim, ddof=1), rtol=4.8e-7)
        with np.errstate(over="ignore"):
            variance = exact.var(dim, ddof=1).astype(np.float32)  # beyond float32 it is infinite
        np.testing.assert_allclose(F.var(nnet.tensor(x), dim).data, variance, rtol=4.8e-7)
    leaf, wide = nnet.tensor(x, requires_grad=True), nnet.tensor(exact, requires_grad=True)
    for tensor in (leaf, wide):
        F.std(tensor, 1).sum().backward()
    np.testing.assert_allclose(leaf.grad.data, wide.grad.data, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("shape", "dim"), [((300_000,), None), ((1000, 700), 0), ((1000, 3), 0), ((40_000, 2), None)])
def test_averages_of_numbers_whose_sum_exceeds_float32(shape: tuple[int, ...], dim: int | None) -> None:
    x = np.full(shape, 3e38, np.float32)
    np.testing.assert_allclose(ops.mean(x, dim), 3e38, rtol=4.8e-7)
    x[: len(x) // 2] *= -1  # sums that go to infinity and minus infinity must not meet
    np.testing.assert_allclose(ops.sum(x, dim), 0.0, atol=1e32)
    x[0] = np.inf
    assert (ops.mean(x, dim) == np.inf).any()
