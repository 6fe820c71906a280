"""Depthwise convolution: tiles of every width, rows that the table of columns takes in pieces, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.cpu.conv_depthwise import TABLE, row_slots
from numbanet.problem.conv import conv2d_problem


def passes(x, weight, grad, **options):
    return (
        nnet.ops.conv2d(x, weight, **options),
        nnet.ops.conv2d_backward_input(grad, weight, x.shape, **options),
        nnet.ops.conv2d_backward_weight(x, grad, weight.shape, **options),
    )


def check(rng, x_shape, filter_size, **options):
    """Compare all passes with the reference."""
    channels = x_shape[1]
    options["groups"] = channels
    x, weight = rng.standard_normal(x_shape), rng.standard_normal((channels, 1, *filter_size))
    with nnet.use("reference"):
        grad = np.ones_like(nnet.ops.conv2d(x, weight, **options))
        grad += rng.standard_normal(grad.shape)
        wanted = passes(x, weight, grad, **options)
    single = (a.astype(np.float32) for a in (x, weight, grad))
    x, weight, grad = single
    with nnet.use("cpu.depthwise"):
        results = list(zip(passes(x, weight, grad, **options), wanted))
    with nnet.use("cpu.depthwise", "cpu.depthwise_band"):  # which takes few of the problems
        results.append((nnet.ops.conv2d_backward_weight(x, grad, weight.shape, **options), wanted[2]))
    for found, want in results:
        np.testing.assert_allclose(found, want, rtol=0, atol=3e-6 * np.abs(want).max())


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("channels", [3, 8, 21])
def test_rows_of_every_length(channels, stride, rng):
    for columns in range(1, 19):
        check(rng, (2, channels, 4, columns), (3, 3), padding=1, stride=stride)


@pytest.mark.parametrize(("size", "padding"), [(2, 0), (5, 2), (7, 3), (6, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (2, 1)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)], ids=str)
def test_filters_of_every_kind(size, padding, stride, dilation, rng):
    check(rng, (1, 20, 19, 20), (size, size), padding=padding, stride=stride, dilation=dilation)


@pytest.mark.parametrize("stride", [1, 2])
def test_rows_longer_than_the_table(stride, rng):
    check(rng, (1, 9, 3, TABLE // 3 * stride + 70), (3, 3), padding=1, stride=stride)


def test_many_channels_in_parts(rng):
    check(rng, (1, 531, 3, 4), (3, 3), padding=1)


@pytest.mark.parametrize("channels", [5, 24])
@pytest.mark.parametrize("columns", [3, 34])
def test_what_a_band_pads_adds_nothing(channels, columns, rng):
    """Steps of a tile go beyond the last position, where an infinite pixel must not meet a zero."""
    x, grad = (rng.standard_normal((1, channels, 4, columns)).astype(np.float32) for _ in range(2))
    x[:, 0, 1, columns - 1] = np.inf
    grad = np.abs(grad)
    with nnet.use("cpu.depthwise_band"):
        found = nnet.ops.conv2d_backward_weight(x, grad, (channels, 1, 3, 3), padding=1, groups=channels)
    assert np.isposinf(found[0, 0, :, 1:]).all()
    assert np.isfinite(found[0, 0, :, 0]).all()
    assert np.isfinite(found[1:]).all()


def test_source_rows_have_different_slots():
    assert row_slots([0, 1, 2]) == 3
    assert row_slots([-2, 0, 2]) == 3  # modulo 3: 1, 0, 2
    assert row_slots([0, 3, 6]) == 4
    assert row_slots([]) == 1


@pytest.mark.parametrize("which", ["forward", "backward_input", "backward_weight"])
def test_a_filter_beyond_the_table_is_refused(which):
    p = conv2d_problem(which, (1, 16, 1, 9 * TABLE), (16, 1, 1, 3), "float32", groups=16, dilation=(1, TABLE))
    reasons = {candidate.name: reason for candidate, reason in dispatch.verdicts(p, "cpu")}
    assert "columns of a table" in reasons["cpu.depthwise"]
