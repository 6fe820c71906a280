"""Variances and standard deviations on the GPU: in float64, as nobody waits to see whether float32 would do."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from tests.cuda.fake import FakeDriver

RNG = np.random.default_rng(0)
VALUES = {
    "usual": RNG.standard_normal((3, 40)), "beside an offset": 1e5 + RNG.standard_normal((3, 40)),
    "beyond float32's squares": 1e25 * RNG.standard_normal((3, 40)), "below them": 1e-25 * RNG.standard_normal((3, 40)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_deviations(values: np.ndarray, dtype: str, driver: FakeDriver) -> None:
    x = nnet.tensor(values.astype(dtype), requires_grad=True, device="cuda")
    y = F.std(x, 1)
    y.sum().backward()
    exact = values.astype(dtype).astype(np.float64)
    centred, std = exact - exact.mean(1, keepdims=True), exact.std(1, ddof=1, keepdims=True)
    rtol = 2e-6 if dtype == "float32" else 1e-12
    assert y.dtype == x.grad.dtype == np.dtype(dtype)
    np.testing.assert_allclose(y.cpu().data, std[:, 0], rtol=rtol)
    np.testing.assert_allclose(x.grad.cpu().data, centred / std / 39, rtol=rtol, atol=rtol)


def test_gradients_beside_infinity(driver: FakeDriver) -> None:
    """Those of the CPU, which are PyTorch's: see `tests.functional.test_statistics`."""
    for function in (F.std, F.var):
        for values, dim in (([[1.0, np.inf, 3.0], [2.0, 2.0, 5.0]], 1), ([np.inf], None), ([-np.inf, np.inf], 0)):
            found = []
            for place in ("cpu", "cuda"):
                x = nnet.tensor(values, requires_grad=True, device=place)
                function(x, dim).sum().backward()
                found.append(x.grad.cpu().data)  # type: ignore[union-attr]
            np.testing.assert_allclose(found[1], found[0], 1e-6)
            assert np.isnan(found[0]).any()


def test_variance(driver: FakeDriver) -> None:
    values = 3 + RNG.standard_normal((2, 5, 4)).astype(np.float32)
    x = nnet.tensor(values, device="cuda")
    for dim in (None, 1, (0, 2)):
        np.testing.assert_allclose(F.var(x, dim).cpu().data, values.astype(np.float64).var(dim, ddof=1), rtol=1e-6)
