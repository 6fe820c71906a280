"""The gradient of the weight: what its buffers hold, for every number of filters."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import ops
from numbanet.cpu import conv_weight
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.problem.conv import ConvProblem, conv2d_problem

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


# (images, in-channels, out-channels, size, filter, stride, groups): several tasks read the same rows of the gradient
PACKED = [
    (1, 300, 130, 15, 1, 1, 1),  # the last strip and the last panel are not full
    (2, 1024, 256, 7, 1, 1, 1),  # few pixels: one chunk
    (2, 130, 333, 11, 3, 2, 1),
    (3, 390, 141, 9, 3, 1, 3),  # strips of every group
    (4, 512, 256, 28, 1, 1, 1),  # several shares of the pixels
    (1, 448, 700, 12, 1, 1, 1),  # several blocks of rows
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", PACKED, ids=str)
def test_packed_strips(case: tuple[int, ...], dtype: str, rng: np.random.Generator) -> None:
    n, c, k, size, r, stride, groups = case
    weight = (k, c // groups, r, r)
    p = conv2d_problem("backward_weight", (n, c, size, size), weight, dtype, stride, r // 2, 1, groups)
    cut = conv_weight._plan(p)[2]
    assert (cut.strips and cut.unit_tasks > 1) or host_isa().name != "avx512" or dtype == "float64"
    x, grad = (rng.standard_normal(shape).astype(dtype) for shape in ((n, size, size, c), (n, p.p, p.q, k)))
    results, threads = [], get_num_threads()
    for number in (1, 2):
        set_num_threads(number)
        results.append(np.full((k, r, r, c // groups), np.nan, dtype))
        conv_weight.run(p, x, grad, results[-1])
    set_num_threads(threads)
    with nnet.use("reference"):
        wide = (a.astype(np.float64).transpose(0, 3, 1, 2) for a in (x, grad))
        want = ops.conv2d_backward_weight(*wide, weight, stride, r // 2, 1, groups).transpose(0, 2, 3, 1)
    assert np.array_equal(*results)
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(results[0], want, rtol=0, atol=tolerance * np.abs(want).max())


def test_strips_are_packed_where_tasks_share_rows() -> None:
    def packed(c: int, k: int, size: int, groups: int) -> bool:
        weight = (k, c // groups, 3, 3)
        return (
            conv_weight._plan(
                conv2d_problem("backward_weight", (16, c, size, size), weight, "float32", 1, 1, 1, groups)
            )[2].strips
            > 0
        )

    assert not packed(256, 256, 14, 8)  # a task reads the rows of few groups
    assert not packed(1024, 128, 14, 32)  # strips would be three times as long as the rows
    assert packed(256, 256, 14, 1) or host_isa().name != "avx512"
