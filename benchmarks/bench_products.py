"""Matrix products of all shapes and orders."""

from __future__ import annotations

from benchmarks import layers, products
from benchmarks.common import THREADS, Suite, use_threads, warm

_SHAPES = {"x".join(map(str, shape)): shape for shape in layers.PRODUCTS}


class Product(Suite):
    """Seconds of one product of (m, k) and (k, n)."""

    params = (tuple(_SHAPES), products.ORDERS, THREADS)
    param_names = ("mxkxn", "order", "threads")

    def setup(self, shape: str, order: str, threads: int) -> None:
        use_threads(threads)
        self.call = warm(products.product_call, _SHAPES[shape], order, True, "numbanet")

    def time_call(self, shape: str, order: str, threads: int) -> None:
        self.call()
