"""Winograd's transforms, and the kernel around the corners of its blocks, panels, tiles and both orders of work."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import memory
from numbanet.cpu import parallel
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers
from numbanet.cpu.winograd import INPUT, OUTPUT, SPAN, TILE, WEIGHT
from numbanet.cpu.winograd_plan import plan_of
from numbanet.cpu.winograd_tile import SPARE_ROWS, row_plan
from numbanet.problem.conv import conv2d_problem


def test_the_matrices_are_a_correlation(rng):
    tile, taps = rng.standard_normal((SPAN, SPAN)), rng.standard_normal((3, 3))
    left, right, back = (np.array(matrix, float) for matrix in (INPUT, WEIGHT, OUTPUT))
    result = back @ ((right @ taps @ right.T) * (left @ tile @ left.T)) @ back.T
    expected = [[(tile[i : i + 3, j : j + 3] * taps).sum() for j in range(TILE)] for i in range(TILE)]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


@kernel
def plan_rows(task: Index, ints: I64, counts: I64, unused: T):
    (width,) = integers(ints, 1)
    counts[2 * task], counts[2 * task + 1] = row_plan(task + 1, width)


@pytest.mark.parametrize("width", range(1, host_isa().tile_vectors + 1))
def test_rows_are_cut_with_little_waste(width):
    counts = np.full((64, 2), -1, np.int64)
    launch(plan_rows, 64, (counts, np.zeros(1, np.float32)), (width,), "float32")
    many = host_isa().tile_rows[width - 1]
    few = 4 if many > 4 else 2
    for rows, (large, total) in enumerate(counts, 1):
        assert large % many == 0 and (total - large) % few == 0
        assert rows <= total <= rows + SPARE_ROWS
        if rows >= few and rows % 2 == 0:
            assert total <= rows + 2


@pytest.mark.parametrize("channels", [64, 2048])
@pytest.mark.parametrize("positive", [True, False])
def test_the_error_does_not_grow_with_the_channels(channels, positive, rng):
    draw = rng.random if positive else rng.standard_normal
    x, weight = draw((1, channels, 8, 8)), draw((16, channels, 3, 3))
    y = nnet.ops.conv2d(x, weight, padding=1)
    with nnet.use("cpu.winograd"):
        found = nnet.ops.conv2d(x.astype(np.float32), weight.astype(np.float32), padding=1)
    assert np.abs(found - y).max() <= 5e-6 * np.abs(y).max()


def operands(rng, n, c, h, w, k, padding):
    x = np.maximum(rng.standard_normal((n, c, h, w)), 0)
    weight = rng.standard_normal((k, c, 3, 3)) / np.sqrt(9 * c)
    y = nnet.ops.conv2d(x, weight, padding=padding)
    return x, weight, rng.standard_normal(k), rng.standard_normal(y.shape)


def results(x, weight, bias, grad, padding):
    return (
        nnet.ops.conv2d(x, weight, bias, padding=padding),
        nnet.ops.conv2d(x, weight, bias, padding=padding, residual=grad, activation="relu6"),
        nnet.ops.conv2d(x, weight, padding=padding, residual=grad, activation="relu"),
        nnet.ops.conv2d_backward_input(grad, weight, x.shape, padding=padding),
    )


# Numbers of tiles around those of a block; channels and columns around vectors, blocks of channels and panels; images
# smaller than a tile, of whole tiles, and with one pixel left; paddings from 0 to more than the filter reaches.
SHAPES = [
    (1, 3, 1, 1, 1, 1),
    (1, 16, 4, 4, 16, 1),
    (3, 17, 5, 2, 15, 1),
    (1, 33, 8, 9, 64, 2),
    (16, 8, 8, 8, 20, 1),
    (65, 5, 3, 4, 33, 1),
    (2, 65, 23, 21, 40, 1),
    (1, 130, 6, 7, 80, 0),
    (9, 48, 10, 12, 208, 1),
    (2, 20, 35, 35, 65, 1),
    (18, 170, 7, 8, 180, 1),
    (2, 9, 3, 3, 7, 4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_corners(shape, rng, monkeypatch):
    arrays, padding = operands(rng, *shape), shape[-1]
    expected = results(*arrays, padding)
    real = memory.empty

    def poisoned(*arguments):
        out = real(*arguments)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", poisoned)
    single = [a.astype(np.float32) for a in arrays]
    before, found = parallel.get_num_threads(), []
    try:
        with nnet.use("cpu.winograd"):
            for threads in {1, before}:
                parallel.set_num_threads(threads)
                found.append(results(*single, padding))
    finally:
        parallel.set_num_threads(before)
    for y, reference, other in zip(found[0], expected, found[-1]):
        assert np.abs(y - reference).max() <= 1e-5 * np.abs(reference).max()
        np.testing.assert_array_equal(y, other)


def test_both_orders_of_work_are_tried():
    plans = [
        plan_of(conv2d_problem("forward", (n, c, h, w), (k, c, 3, 3), "float32", padding=p))
        for n, c, h, w, k, p in SHAPES
    ]
    assert {plan.inputs_ahead for plan in plans} == {True, False}
    assert any(plan.tasks > 1 and plan.inputs_ahead for plan in plans)


def test_the_batch_changes_no_bit(rng):
    """An image alone, whose input is transformed ahead, gives what it gives within a batch."""
    x, weight = rng.random((80, 40, 6, 6), np.float32), rng.random((70, 40, 3, 3), np.float32)
    with nnet.use("cpu.winograd"):
        np.testing.assert_array_equal(
            nnet.ops.conv2d(x, weight, padding=1)[7:8], nnet.ops.conv2d(x[7:8], weight, padding=1)
        )
