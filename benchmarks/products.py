"""Matrix products: all four transpositions of many shapes, beside PyTorch's and beside NumPy's, which is OpenBLAS's.

PyTorch multiplies tensors, and so does numbanet beside it; beside NumPy, both multiply arrays.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import backends, layers
from benchmarks.cases import Call, Case, random

# Whether a, and b, lie in memory as they are (N), or as their transposes (T).
ORDERS = ("NN", "NT", "TN", "TT")
BESIDE = {"torch": "PyTorch", "numpy": "NumPy"}
BACKENDS = ("numbanet", *BESIDE)


def stored(shape: layers.Product, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Return both operands as they lie in memory."""
    m, k, n = shape
    return random(0, *((m, k) if order[0] == "N" else (k, m))), random(1, *((k, n) if order[1] == "N" else (n, k)))


def product_call(shape: layers.Product, order: str, tensors: bool, backend: str) -> Call:
    """Return the function that multiplies, with one of `BACKENDS`: tensors, or arrays."""

    def turned(x: Any, letter: str) -> Any:
        return x.T if letter == "T" else x

    operands: list[Any] = list(stored(shape, order))
    if tensors and backend != "numpy":
        operands = [backends.get(backend).tensor(x) for x in operands]
    a, b = map(turned, operands, order)
    if backend == "numbanet" and not tensors:
        from numbanet import ops

        return lambda: ops.matmul(a, b)
    return lambda: a @ b


def kernel(shape: layers.Product, order: str) -> str:
    """Return the name of the kernel that numbanet chooses."""
    from numbanet import dispatch
    from numbanet.problem.matmul import MatmulProblem

    m, k, n = shape
    rows = order[0] == "N" or m == 1 or k == 1, order[1] == "N" or k == 1 or n == 1  # a single line lies both ways
    return dispatch.choose(MatmulProblem("forward", "float32", m, n, k, *rows)).name


def section(beside: str) -> str:
    """Return the section of the comparison with a library of `BESIDE`."""
    return f"matmul {BESIDE[beside]}"


def product_case(shape: layers.Product, order: str, beside: str) -> Case:
    """Return the case of a product beside that of a library of `BESIDE`."""
    m, k, n = shape
    return Case(
        section(beside), f"{m}x{k} by {k}x{n}", order,
        build=partial(product_call, shape, order, beside == "torch"),
        kernel=partial(kernel, shape, order),
        formats=(beside,), flops=2 * m * k * n,
    )  # fmt: skip


def product_cases() -> list[Case]:
    """Return the cases of all shapes, library by library and order by order."""
    return [product_case(shape, order, beside) for beside in BESIDE for order in ORDERS for shape in layers.PRODUCTS]
