"""Winograd's transforms, and the kernel around the corners of its blocks, panels, tiles and both orders of work."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import parallel
from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.isa import host_isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers
from numbanet.cpu.winograd_form import F2X2, F2X2_OF_5X5, F4X4, F4X4_STRIDE_2
from numbanet.cpu.winograd_plan import plan_of
from numbanet.cpu.winograd_tile import SPARE_ROWS, row_plan
from numbanet.problem.conv import conv2d_problem

FORMS = {
    "cpu.winograd": F4X4,
    "cpu.winograd_f2": F2X2,
    "cpu.winograd_5x5": F2X2_OF_5X5,
    "cpu.winograd_s2": F4X4_STRIDE_2,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_matrices_are_a_correlation(form, rng):
    def transformed(transform, tile):
        down, across, passes = transform
        assert sorted(row for rows in passes for row in rows) == list(range(len(down)))
        return np.array(down) @ tile @ np.array(across).T

    def cut(array, like):
        return array[: len(like), : len(like[0])]

    s, size = form.stride, form.taps
    tile, taps = rng.standard_normal((form.extent, form.extent)), rng.standard_normal((size, size))
    grad, sums = rng.standard_normal((form.tile, form.tile)), np.zeros((form.span, form.span))
    gradients, weight = transformed(form.gradient, grad), np.zeros((size, size))
    places = [(i, j) for i in range(form.tile) for j in range(form.tile)]
    for phase in form.phases:
        pixels, filter_ = tile[phase.row :: s, phase.column :: s], taps[phase.row :: s, phase.column :: s]
        points = transformed(phase.input, cut(pixels, np.empty((len(phase.input.down[0]), len(phase.input.across[0])))))
        products = transformed(phase.weight, filter_) * points
        cut(sums, products)[...] += products
        weight[phase.row :: s, phase.column :: s] = transformed(phase.sums, cut(gradients, points) * points)
        # The gradient of the input: a phase alone.
        rows, columns = filter_.shape
        expected = [(pixels[i : i + rows, j : j + columns] * filter_).sum() for i, j in places]
        np.testing.assert_allclose(transformed(phase.output, products).ravel(), expected, rtol=0, atol=1e-12)
    windows = {(i, j): tile[s * i : s * i + size, s * j : s * j + size] for i, j in places}
    expected = [(windows[place] * taps).sum() for place in places]
    np.testing.assert_allclose(transformed(form.phases[0].output, sums).ravel(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weight, sum(windows[p] * grad[p] for p in places), rtol=0, atol=1e-12)


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
@pytest.mark.parametrize("name", FORMS)
def test_the_error_does_not_grow_with_the_channels(name, channels, positive, rng):
    draw, taps, stride = rng.random if positive else rng.standard_normal, FORMS[name].taps, FORMS[name].stride
    x, weight = draw((1, channels, 8, 8)), draw((16, channels, taps, taps))
    y = nnet.ops.conv2d(x, weight, stride=stride, padding=1)
    with nnet.use(name):
        found = nnet.ops.conv2d(x.astype(np.float32), weight.astype(np.float32), stride=stride, padding=1)
    assert np.abs(found - y).max() <= 5e-6 * np.abs(y).max()


def operands(rng, form, n, c, h, w, k, padding):
    x = np.maximum(rng.standard_normal((n, c, h, w)), 0)
    weight = rng.standard_normal((k, c, form.taps, form.taps)) / np.sqrt(form.taps**2 * c)
    y = nnet.ops.conv2d(x, weight, stride=form.stride, padding=padding)
    return x, weight, rng.standard_normal(k), rng.standard_normal(y.shape)


def results(form, x, weight, bias, grad, padding):
    options = {"stride": form.stride, "padding": padding}
    return (
        nnet.ops.conv2d(x, weight, bias, **options),
        nnet.ops.conv2d(x, weight, bias, **options, residual=grad, activation="relu6"),
        nnet.ops.conv2d(x, weight, **options, residual=grad, activation="relu"),
        nnet.ops.conv2d_backward_input(grad, weight, x.shape, **options),
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


def widened(shape, form):
    """Return a shape of 3x3 filters for those of a form: with the padding that gives the same result's size."""
    return *shape[:-1], shape[-1] + (form.taps - 3) // 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_corners(name, shape, rng, monkeypatch):
    form, shape = FORMS[name], widened(shape, FORMS[name])
    arrays, padding = operands(rng, form, *shape), shape[-1]
    expected = results(form, *arrays, padding)
    real = memory.empty

    def poisoned(*arguments):
        out = real(*arguments)
        out.view(np.uint8).fill(255)
        return out

    monkeypatch.setattr(memory, "empty", poisoned)
    single = [a.astype(np.float32) for a in arrays]
    before, found = parallel.get_num_threads(), []
    try:
        with nnet.use(name):
            for threads in {1, before}:
                parallel.set_num_threads(threads)
                found.append(results(form, *single, padding))
    finally:
        parallel.set_num_threads(before)
    for y, reference, other in zip(found[0], expected, found[-1]):
        assert np.abs(y - reference).max() <= 1e-5 * np.abs(reference).max()
        np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_both_orders_of_work_are_tried(form):
    plans = [
        plan_of(
            form,
            conv2d_problem("forward", (n, c, h, w), (k, c, form.taps, form.taps), "float32", form.stride, padding=p),
        )
        for n, c, h, w, k, p in (widened(shape, form) for shape in SHAPES)
    ]
    assert {plan.inputs_ahead for plan in plans} == {True, False}
    assert any(plan.tasks > 1 and plan.inputs_ahead for plan in plans)


@pytest.mark.parametrize("name", FORMS)
def test_the_batch_changes_no_bit(name, rng):
    """An image alone, whose input is transformed ahead, gives what it gives within a batch."""
    taps, stride = FORMS[name].taps, FORMS[name].stride
    x, weight = rng.random((80, 40, 6, 6), np.float32), rng.random((70, 40, taps, taps), np.float32)
    with nnet.use(name):
        np.testing.assert_array_equal(
            nnet.ops.conv2d(x, weight, stride=stride, padding=1)[7:8],
            nnet.ops.conv2d(x[7:8], weight, stride=stride, padding=1),
        )


@pytest.mark.parametrize("which", ["forward", "backward_input"])
@pytest.mark.parametrize(
    ("x_shape", "k", "taps", "stride", "chosen"),
    [
        ((128, 48, 2, 2), 512, 3, 1, "cpu.winograd_f2"),  # an image is a tile of four pixels, or a quarter of one of 16
        ((8, 320, 6, 6), 256, 3, 1, "cpu.winograd_f2"),
        ((8, 64, 4, 4), 64, 3, 1, "cpu.winograd"),
        ((4, 64, 56, 56), 64, 3, 1, "cpu.winograd"),
        ((4, 512, 7, 7), 512, 3, 1, "cpu.winograd"),
        ((4, 48, 35, 35), 64, 5, 1, "cpu.winograd_5x5"),
        ((128, 16, 16, 16), 20, 5, 1, "cpu.winograd_5x5"),
        ((128, 192, 2, 2), 32, 5, 1, "cpu.direct"),  # which leaves out the taps that see padding only
        ((4, 64, 1, 1), 64, 3, 1, "cpu.direct"),
        ((4, 128, 56, 56), 128, 3, 2, "cpu.winograd_s2"),
        ((1, 64, 112, 112), 128, 3, 2, "cpu.winograd_s2"),
        ((4, 512, 14, 14), 512, 3, 2, "cpu.direct"),  # seven pixels are less than two tiles
    ],
)
def test_each_is_chosen_where_it_is_faster(which, x_shape, k, taps, stride, chosen):
    problem = conv2d_problem(which, x_shape, (k, x_shape[1], taps, taps), "float32", stride, padding=taps // 2)
    assert dispatch.choose(problem).name == chosen
