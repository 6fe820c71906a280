"""Matrix products of all shapes and orders, and how they compare with the better of NumPy's and PyTorch's."""

from __future__ import annotations

from benchmarks import backends, layers, products, timing
from benchmarks.common import Suite, require, warm

_SHAPES = {"x".join(map(str, shape)): shape for shape in layers.PRODUCTS}


class Product(Suite):
    """Seconds of one product of (m, k) and (k, n)."""

    params = (products.BACKENDS, tuple(_SHAPES), products.ORDERS)
    param_names = ("backend", "mxkxn", "order")

    def setup(self, backend: str, shape: str, order: str) -> None:
        require(backend)
        self.call = warm(products.product_call, _SHAPES[shape], order, True, backend)

    def time_call(self, backend: str, shape: str, order: str) -> None:
        self.call()


class AgainstTheBetter:
    """The better time of NumPy and PyTorch over ours: geometric mean over all shapes."""

    timeout = 300
    params = (products.ORDERS,)
    param_names = ("order",)

    def track_ratio(self, order: str) -> float:
        return timing.geometric_mean(_ratio(shape, order) for shape in layers.PRODUCTS)

    track_ratio.unit = "better time / numbanet time"


def _ratio(shape: layers.Product, order: str) -> float:
    names = [name for name in products.BACKENDS if backends.available(name)]
    calls = {name: products.product_call(shape, order, True, name) for name in names}
    for call in calls.values():
        call()
    best = {name: min(times) for name, times in timing.interleave(calls, seconds=0.05, rounds=3).items()}
    return min(best[name] for name in names if name != "numbanet") / best["numbanet"]
