"""One-dimensional and transposed convolution: definitions, gradients, edges, layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from tests.gradcheck import gradcheck

CASES = [
    {}, {"stride": 2}, {"padding": (1, 2)}, {"stride": (2, 3), "output_padding": (1, 2), "padding": 1},
    {"groups": 2}, {"dilation": (2, 1), "stride": 2}, {"stride": 1, "dilation": 3, "output_padding": 2},
    {"stride": 2, "dilation": 4, "output_padding": (3, 2), "groups": 2, "padding": 2},
]  # fmt: skip


def transposed(x, weight, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Add each element's filter to the result, as the definition says."""
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    (sh, sw), (ph, pw), (oh, ow), (dh, dw) = map(pair, (stride, padding, output_padding, dilation))
    (n, k, p, q), (_, cg, r, s) = x.shape, weight.shape
    full = np.zeros((n, cg * groups, (p - 1) * sh + dh * (r - 1) + oh + 1, (q - 1) * sw + dw * (s - 1) + ow + 1))
    for channel, i, j, a, b in itertools.product(range(k), range(p), range(q), range(r), range(s)):
        group = channel // (k // groups) * cg
        share = x[:, channel, i, j, None] * weight[channel, :, a, b]
        full[:, group : group + cg, i * sh + a * dh, j * sw + b * dw] += share
    return full[:, :, ph : full.shape[2] - ph, pw : full.shape[3] - pw]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_transposed_against_definition(options, rng):
    x, groups = rng.standard_normal((2, 4, 3, 4)), options.get("groups", 1)
    weight, bias = rng.standard_normal((4, 6 // groups, 3, 2)), rng.standard_normal(6)
    want = transposed(x, weight, **options) + bias[:, None, None]
    y = ops.conv_transpose2d(x, weight, bias, **options)
    np.testing.assert_allclose(y, want, atol=1e-12)
    single = ops.conv_transpose2d(x[1].astype(np.float32), weight.astype(np.float32), **options)
    np.testing.assert_allclose(single, want[1] - bias[:, None, None], atol=1e-4)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("options", CASES, ids=str)
def test_transposed_gradients(options, rng):
    weight = rng.standard_normal((2, 4 // options.get("groups", 1), 2, 3))
    gradcheck(lambda x, w, b: F.conv_transpose2d(x, w, b, **options), rng.standard_normal((2, 2, 3, 3)), weight,
              rng.standard_normal(4))  # fmt: skip
    gradcheck(lambda x, w: F.conv_transpose2d(x, w, **options), rng.standard_normal((2, 3, 3)), weight)


def test_transposed_edges(rng):
    weight = rng.standard_normal((2, 3, 2, 2))
    assert ops.conv_transpose2d(np.zeros((0, 2, 4, 4)), weight, stride=2).shape == (0, 3, 8, 8)
    view = rng.standard_normal((1, 4, 6, 5))[:, ::-2, ::2]
    view.flags.writeable = False
    assert np.array_equal(ops.conv_transpose2d(view, weight), ops.conv_transpose2d(view.copy(), weight))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"output_padding": 2, "stride": 2}, "output_padding must be smaller.*got .2, 2."), ({"groups": 3}, "groups=3"),
     ({"padding": 4}, "at least one"), ({"stride": 2**62}, "input of shape .* 64 bits can't count"),
     ({"stride": 0}, "stride must be at least 1"), ({"padding": -1}, "padding")],
)  # fmt: skip
def test_transposed_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        ops.conv_transpose2d(np.zeros((1, 4, 3, 3)), np.zeros((4, 2, 2, 2)), **change)
    with pytest.raises(ValueError, match="bias must have shape"):
        ops.conv_transpose2d(np.zeros((1, 4, 3, 3)), np.zeros((4, 2, 2, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="input must have the 4 channels"):
        ops.conv_transpose2d(np.zeros((1, 3, 3, 3)), np.zeros((4, 2, 2, 2)))


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": (2,), "groups": 2}, {"padding": "same", "dilation": 3}],
    ids=str,
)  # fmt: skip
def test_conv1d(options, rng):
    weight = rng.standard_normal((4, 4 // options.get("groups", 1), 3))
    x, bias = rng.standard_normal((2, 4, 9)), rng.standard_normal(4)
    stride, gap = options.get("stride", 1), max(np.atleast_1d(options.get("dilation", 1)))
    pad = gap if options.get("padding") == "same" else options.get("padding", 0)
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad)))
    count = (wide.shape[2] - 2 * gap - 1) // stride + 1
    want = np.zeros((2, 4, count)) + bias[:, None]
    for k, s, q in itertools.product(range(4), range(3), range(count)):
        cg = weight.shape[1]
        first = k // (4 // options.get("groups", 1)) * cg
        want[:, k, q] += wide[:, first : first + cg, q * stride + s * gap] @ weight[k, :, s]
    y = F.conv1d(*map(nnet.tensor, (x, weight, bias)), **options)
    np.testing.assert_allclose(y.data, want, atol=1e-12)
    gradcheck(lambda x, w, b: F.conv1d(x, w, b, **options), x[:1], weight, bias)
    assert F.conv1d(*map(nnet.tensor, (x[0], weight, bias)), **options).shape == want.shape[1:]


def test_conv1d_refusals():
    with pytest.raises(ValueError, match=r"input must have shape \(N, C, L\)"):
        F.conv1d(nnet.tensor(np.zeros((1, 1, 2, 2))), nnet.tensor(np.zeros((1, 1, 2))))
    with pytest.raises(ValueError, match="stride must be an integer or a sequence of one"):
        F.conv1d(nnet.tensor(np.zeros((1, 1, 2))), nnet.tensor(np.zeros((1, 1, 2))), stride=(1, 2))


def test_layers(rng):
    generator = np.random.default_rng(3)
    layer = nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2, generator=generator)
    x = nnet.tensor(rng.standard_normal((2, 4, 5, 6)).astype(np.float32))
    assert layer.weight.shape == (4, 3, 3, 3) and np.abs(layer.weight.data).max() <= 1 / np.sqrt(27)
    assert layer(x).shape == (2, 6, 9, 11) and layer(x, (10, 11)).shape == (2, 6, 10, 11)
    assert layer(x, (2, 6, 10, 12)).shape == (2, 6, 10, 12)
    with pytest.raises(ValueError, match=r"output_size must be from \(9, 11\) to \(10, 12\)"):
        layer(x, (8, 11))
    line = nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular", generator=generator)
    assert line(nnet.tensor(np.ones((2, 4, 7), np.float32))).shape == (2, 6, 7)
    constant = line(nnet.tensor(np.ones((1, 4, 7), np.float32))).data
    assert np.allclose(constant, constant[:, :, :1])
