"""The gradient of the weight: what its buffers hold, for every number of filters."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cpu import conv_weight
from numbanet.problem.conv import ConvProblem

# (n, c, h, w, filter, pad)
IMAGES = [(1, 32, 1, 208, 1, 0), (2, 128, 13, 16, 3, 1), (1, 512, 1, 416, 1, 0), (4, 64, 56, 56, 1, 0)]


def problem(dtype: str, images: tuple[int, ...], k: int) -> ConvProblem:
    n, c, h, w, r, pad = images
    return ConvProblem("backward_weight", dtype, n, c, h, w, k, r, r, (1, 1), (pad,) * 4, (1, 1), 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("images", IMAGES, ids=str)
def test_the_strips_of_a_block_have_room(dtype: str, images: tuple[int, ...]) -> None:
    """The plan asserts it; a block of one strip too many was written beyond the buffer."""
    for k in (*range(8, 4700, 24), 256, 1024, 2048, 4096, 3656):
        conv_weight._plan(problem(dtype, images, k))


@pytest.mark.parametrize(("images", "k"), [(IMAGES[0], 3656), (IMAGES[2], 920)], ids=str)
def test_many_filters_and_few_pixels(images: tuple[int, ...], k: int, rng: np.random.Generator) -> None:
    n, c, h, w, _, _ = images
    x, grad = rng.standard_normal((n, h, w, c), np.float32), rng.standard_normal((n, h, w, k), np.float32)
    out = np.full((k, 1, 1, c), np.nan, np.float32)
    conv_weight.run(problem("float32", images, k), x, grad, out)
    expected = grad.reshape(-1, k).T.astype(float) @ x.reshape(-1, c).astype(float)
    np.testing.assert_allclose(out[:, 0, 0], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
