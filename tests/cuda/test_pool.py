"""Pooling on the GPU: every pass against the definition, over windows that leave the image, overlap, or miss pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numbanet.problem.pool import adaptive_avg_pool2d_problem, avg_pool2d_problem, max_pool2d_problem
from numbanet.problem.pool_adaptive import adaptive_max_pool2d_problem
from tests.cuda.twins import agree, compare, poison, reference, run

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0), "ceil_mode": True},
    {"kernel_size": 2, "stride": 4, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": "same_upper"},
]
DILATED: list[dict[str, Any]] = [
    {"kernel_size": (3, 2), "dilation": (2, 3), "stride": 4, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "padding": 1, "dilation": 6},  # windows of which nothing lies inside the image
]
SHAPES = [(2, 3, 7, 9), (1, 8, 5, 6)]


def images(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Few different values, so that maxima tie, and some NaN."""
    x = np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)
    x.reshape(-1)[::37] = np.nan
    return x


def pixels(p: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (p.n, p.h, p.w, p.c), (p.n, p.p, p.q, p.c)


def check_max(shape: tuple[int, ...], dtype: str, options: dict[str, Any]) -> None:
    p = max_pool2d_problem("forward", shape, dtype, **options)
    full, small = pixels(p)
    x = images(full, dtype)
    y, codes = poison(small, dtype), poison(small, p.offsets)
    compare(p, (x,), (y, codes))
    _, codes = run(p, (x,), (y, codes))
    without = max_pool2d_problem("forward", shape, dtype, **options, offsets=False)
    compare(without, (x,), (y,))
    backward = max_pool2d_problem("backward_input", shape, dtype, **options)
    compare(backward, (images(small, dtype, 1), codes), (poison(full, dtype),))
    indices = max_pool2d_problem("indices", shape, dtype, **options)
    compare(indices, (codes,), (poison(small, "int64"),))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", WINDOWS + DILATED, ids=str)
def test_max_pool(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    check_max(shape, "float32", options)


def test_max_pool_in_float64_and_with_large_windows() -> None:
    check_max((1, 6, 5, 6), "float64", WINDOWS[1])
    check_max((1, 4, 26, 16), "float32", {"kernel_size": (17, 16), "stride": (9, 16)})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("more", [{}, {"count_include_pad": False}, {"divisor_override": -5}], ids=str)
def test_avg_pool(shape: tuple[int, ...], options: dict[str, Any], more: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for which in ("forward", "backward_input"):
        p = avg_pool2d_problem(which, shape, "float32", **options, **more)
        sizes = pixels(p) if which == "forward" else pixels(p)[::-1]
        compare(p, (rng.standard_normal(sizes[0]).astype(np.float32),), (poison(sizes[1], "float32"),))


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 8, 3, 4)], ids=str)
@pytest.mark.parametrize("size", [1, (None, 2), (7, None), (11, 13)], ids=str)
def test_adaptive_pools(shape: tuple[int, ...], size: Any) -> None:
    rng = np.random.default_rng(3)
    for which in ("forward", "backward_input"):
        p = adaptive_avg_pool2d_problem(which, shape, "float32", size)
        full, small = pixels(p)
        source, target = (full, small) if which == "forward" else (small, full)
        compare(p, (rng.standard_normal(source).astype(np.float32),), (poison(target, "float32"),))
    p = adaptive_max_pool2d_problem("forward", shape, "float32", size)
    x, outputs = images(full, "float32"), (poison(small, "float32"), poison(small, "int64"))
    compare(p, (x,), outputs)
    positions = reference(p, (x,), outputs)[1]
    backward = adaptive_max_pool2d_problem("backward_input", shape, "float32", size)
    compare(backward, (rng.standard_normal(small).astype(np.float32), positions), (poison(full, "float32"),))


def test_the_last_nan_wins() -> None:
    p = max_pool2d_problem("forward", (1, 1, 2, 2), "float32", 2)
    x = np.array([np.nan, 1, 2, np.nan], np.float32).reshape(1, 2, 2, 1)
    _, codes = run(p, (x,), (poison((1, 1, 1, 1), "float32"), poison((1, 1, 1, 1), "uint8")))
    agree(codes, np.full((1, 1, 1, 1), 3, np.uint8), 0)
