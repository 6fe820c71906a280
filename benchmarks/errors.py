"""How far every kernel of a convolution, a matrix product and a sum is from the exact result, in float32.

::

    python -m benchmarks.errors

The exact result is the definition's (`numbanet.reference`) in float64. Errors are max|out - exact| / max|exact|, of
normally distributed operands, beside what the kernel promises (`numbanet.explain` shows it); the last column is the
quotient, which must stay below 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

# Name, (n, c, h, w), (k, c / groups, r, s), options: realistic shapes, and those that hit the remainder of a tile.
CONVOLUTIONS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("3x3, 64 channels", (2, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    ("3x3, 256 channels", (1, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    ("3x3, odd sizes", (3, 33, 13, 11), (65, 33, 3, 3), {"padding": 1}),
    ("3x3, stride 2", (2, 48, 15, 15), (96, 48, 3, 3), {"stride": 2, "padding": 1}),
    ("first layer, 7x7/2", (2, 3, 64, 64), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    ("1x1, 512 channels", (2, 512, 14, 14), (128, 512, 1, 1), {}),
    ("1x1, one out-channel", (2, 130, 9, 9), (1, 130, 1, 1), {}),
    ("5x5, 16 channels", (4, 16, 14, 14), (20, 16, 5, 5), {"padding": 2}),
    ("3x3, dilated", (1, 40, 17, 17), (24, 40, 3, 3), {"padding": 2, "dilation": 2}),
    ("depthwise 3x3", (2, 96, 28, 28), (96, 1, 3, 3), {"padding": 1, "groups": 96}),
    ("groups of 4", (2, 64, 14, 14), (64, 4, 3, 3), {"padding": 1, "groups": 16}),
    ("one pixel", (4, 1, 1, 1), (1, 1, 1, 1), {}),
)
MATMULS = ((128, 1024, 512), (1, 4096, 1000), (3, 17, 5), (67, 129, 33), (2, 25088, 96), (1000, 7, 1000))
SUMS = (1_000, 65_537, 1_000_000)
PASSES = ("forward", "backward_input", "backward_weight")


def _conv(x: np.ndarray, weight: np.ndarray, which: str, options: dict[str, Any]) -> Callable[..., Callable[[], Any]]:
    from numbanet import ops

    shape = ops.conv2d_shape(x, weight, **options)
    grad = np.random.default_rng(2).standard_normal(shape)

    def call(dtype: str) -> Callable[[], Any]:
        a, b, g = (array.astype(dtype) for array in (x, weight, grad))
        if which == "forward":
            return partial(ops.conv2d, a, b, None, **options)
        if which == "backward_input":
            return partial(ops.conv2d_backward_input, g, b, x.shape, **options)
        return partial(ops.conv2d_backward_weight, a, g, weight.shape, **options)

    return call


def _single(x: np.ndarray) -> np.ndarray:
    """Return numbers that float32 holds: the error is that of the kernel, not of its operands."""
    return x.astype(np.float32).astype(np.float64)


def _measured(problem: Any, call: Callable[[str], Callable[[], Any]]) -> Iterator[tuple[str, float, float]]:
    """Yield name, error and promised error of every kernel that takes the problem."""
    import numbanet as nnet
    from numbanet import dispatch

    with nnet.use("reference"):
        exact = call("float64")()
    run = call("float32")
    for candidate, reason in dispatch.verdicts(problem, "cpu"):
        if reason is None and candidate.name != "reference":
            with nnet.use(candidate.name):
                out = run()
            top = np.abs(exact).max()
            yield candidate.name, float(np.abs(out - exact).max() / (top or 1)), candidate.tolerance(problem)


def rows() -> Iterator[tuple[str, str, str, float, float]]:
    """Yield case, pass, kernel, error and promised error."""
    from numbanet import ops
    from numbanet.problem.conv import Epilogue, conv2d_problem
    from numbanet.problem.matmul import MatmulProblem
    from numbanet.problem.reduce import ReduceProblem

    rng = np.random.default_rng(0)
    for name, x_shape, w_shape, options in CONVOLUTIONS:
        x, weight = _single(rng.standard_normal(x_shape)), _single(rng.standard_normal(w_shape))
        for which in PASSES:
            problem = conv2d_problem(which, x_shape, w_shape, "float32", **options)
            call = _conv(x, weight, which, options)
            for kernel, error, promised in _measured(problem, call):
                yield name, which, kernel, error, promised
    for m, k, n in MATMULS:
        a, b = _single(rng.standard_normal((m, k))), _single(rng.standard_normal((k, n)))
        problem = MatmulProblem("forward", "float32", m, n, k, True, True, Epilogue(), 1)
        product = lambda dtype, a=a, b=b: partial(ops.matmul, a.astype(dtype), b.astype(dtype))  # noqa: E731
        for kernel, error, promised in _measured(problem, product):
            yield f"{m} x {k} by {k} x {n}", "matmul", kernel, error, promised
    for size in SUMS:
        x = _single(rng.random(size))
        problem = ReduceProblem("forward", "float32", 1, size, 1, 1.0)
        total = lambda dtype, x=x: partial(ops.sum, x.astype(dtype))  # noqa: E731
        for kernel, error, promised in _measured(problem, total):
            yield f"sum of {size:,}", "sum", kernel, error, promised


def lines() -> Iterator[str]:
    """Yield the table, line by line."""
    yield "| case                       | pass            | kernel           | error   | promised | quotient |"
    yield "|----------------------------|-----------------|------------------|--------:|---------:|---------:|"
    worst = 0.0
    for case, which, kernel, error, promised in rows():
        worst = max(worst, error / promised)
        numbers = f"{error:>7.1e} | {promised:>8.1e} | {error / promised:>8.2f}"
        yield f"| {case:<26} | {which:<15} | {kernel:<16} | {numbers} |"
    yield f"\nlargest quotient: {worst:.2f}"


if __name__ == "__main__":
    for text in lines():
        print(text, flush=True)
