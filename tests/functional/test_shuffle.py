"""Rearrangements of pixels and channels, and tensors cut in parts."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck


def test_pixel_shuffle(rng):
    for shape in [(2, 12, 3, 5), (8, 2, 3), (1, 2, 4, 1, 1), (0, 4, 2, 2)]:
        x = rng.standard_normal(shape)
        y = ops.pixel_shuffle(x, 2)
        *lead, c, h, w = shape
        assert y.shape == (*lead, c // 4, 2 * h, 2 * w)
        for i, j in np.ndindex(2, 2):
            assert np.array_equal(y[..., i::2, j::2], x[..., 2 * i + j :: 4, :, :])
        assert np.array_equal(ops.pixel_unshuffle(y, 2), x)


@pytest.mark.parametrize("order", ["row-major", "channels-last", "reversed"])
def test_large_and_strided(order, rng):
    x = rng.standard_normal((2, 36, 33, 17)).astype(np.float32)
    if order == "channels-last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    x = x[:, ::-1] if order == "reversed" else x
    x.flags.writeable = False
    for groups in (1, 2, 3, 36):
        y = ops.channel_shuffle(x, groups)
        want = x.reshape(2, groups, 36 // groups, 33, 17).swapaxes(1, 2).reshape(x.shape)
        assert np.array_equal(y, want) and y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.array_equal(ops.pixel_shuffle(x, 3)[:, 1, 1::3, 2::3], x[:, 9 + 5])


def test_gradients(rng):
    gradcheck(lambda t: F.pixel_shuffle(t, 2), rng.standard_normal((2, 4, 2, 3)))
    gradcheck(lambda t: F.pixel_unshuffle(t, 2), rng.standard_normal((2, 2, 2, 4)))
    gradcheck(lambda t: F.channel_shuffle(t, 3), rng.standard_normal((2, 6, 2, 1)))
    gradcheck(lambda t: F.split(t, [1, 0, 3])[2][1:] * 2 + F.chunk(t, 2, 0)[1], rng.standard_normal((4, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda t: F.pixel_shuffle(t, 2), "upscale_factor squared must divide the 6 channels"),
     (lambda t: F.pixel_shuffle(t, 0), "upscale_factor must be at least 1"),
     (lambda t: F.pixel_unshuffle(t, 3), "downscale_factor must divide"),
     (lambda t: F.channel_shuffle(t, 4), "groups must divide the 6"),
     (lambda t: F.channel_shuffle(t[0, 0], 1), "input must have shape"),
     (lambda t: F.split(t, 0), "split_size_or_sections must be at least 1"),
     (lambda t: F.split(t, [1, 3]), "must add up to 2"),
     (lambda t: F.chunk(t, 0), "chunks must be at least 1"),
     (lambda t: F.chunk(t[0, 0, 0, 0], 1), "at least a 1-dimensional")],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(nnet.tensor(np.zeros((2, 6, 4, 4))))


def test_parts_are_views():
    t = nnet.tensor(np.arange(10.0))
    parts = t.split(4)
    assert [p.shape[0] for p in parts] == [4, 4, 2] and np.shares_memory(parts[1].data, t.data)
    assert [p.shape[0] for p in t.chunk(3)] == [4, 4, 2] and [p.shape[0] for p in t.chunk(20)] == [1] * 10
    assert [p.tolist() for p in t.split([3, 7])] == [[0, 1, 2], list(range(3, 10))]


def test_layers():
    x = nnet.tensor(np.arange(32.0).reshape(1, 8, 2, 2))
    layers = {
        "PixelShuffle(upscale_factor=2)": nn.PixelShuffle(2), "ChannelShuffle(groups=4)": nn.ChannelShuffle(4),
        "PixelUnshuffle(downscale_factor=2)": nn.PixelUnshuffle(2),
    }  # fmt: skip
    for text, layer in layers.items():
        assert repr(layer) == text and layer(x).data.size == 32


@pytest.mark.parametrize("function", [F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, F.group_norm])
@pytest.mark.parametrize("number", [2.0, 1.0, True], ids=str)
def test_a_factor_that_is_no_integer_is_refused_after_one_that_is(function, number):
    x = nnet.tensor(np.zeros((2, 8, 4, 4)))
    function(x, int(number))
    with pytest.raises(TypeError, match="must be an integer, got"):
        function(x, number)
