"""The worked examples of courses on convolutional networks, and the page in docs/ that shows them."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn


def image(rng: np.random.Generator, *shape: int) -> nnet.Tensor:
    return nnet.tensor(rng.standard_normal(shape))


def convolution(*arguments: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*arguments, dtype=np.float64, **options)


@pytest.mark.parametrize(
    ("channels", "size", "filters", "options", "result"),
    [
        (3, 32, 1, {"kernel_size": 5}, 28),
        (3, 32, 6, {"kernel_size": 5}, 28),
        (1, 7, 1, {"kernel_size": 3, "stride": 1}, 5),
        (1, 7, 1, {"kernel_size": 3, "stride": 2}, 3),
        (1, 7, 1, {"kernel_size": 3, "stride": 3}, 2),
        (1, 7, 1, {"kernel_size": 3, "padding": 1}, 7),
        (3, 32, 10, {"kernel_size": 5, "padding": 2}, 32),
    ],
)
def test_sizes(
    channels: int, size: int, filters: int, options: dict[str, int], result: int, rng: np.random.Generator
) -> None:
    """(H + 2P - R) / S + 1 positions, each the sum of one window times the filter, plus the bias."""
    layer = convolution(channels, filters, **options)
    x = image(rng, 1, channels, size, size)
    y = layer(x).data
    assert y.shape == (1, filters, result, result)
    stride, pad, r = options.get("stride", 1), options.get("padding", 0), options["kernel_size"]
    padded = np.pad(x.data[0], ((0, 0), (pad, pad), (pad, pad)))
    for p, q in ((0, 0), (result - 1, 0), (result // 2, result - 1)):
        window = padded[:, p * stride : p * stride + r, q * stride : q * stride + r]
        expected = (layer.weight.data * window).sum((1, 2, 3)) + layer.bias.data
        np.testing.assert_allclose(y[0, :, p, q], expected, rtol=1e-12, atol=1e-14)


def test_stride_three_does_not_tile(rng: np.random.Generator) -> None:
    layer = convolution(1, 1, 3, stride=3)
    remark = nn.summary(layer, (1, 1, 7, 7)).layers[0].remark
    assert remark == "3x3 windows at stride 3 do not tile 7x7: the last row and column are never seen"
    x = image(rng, 1, 1, 7, 7)
    before = layer(x).data
    x.data[:, :, 6], x.data[:, :, :, 6] = np.nan, np.nan
    assert np.array_equal(layer(x).data, before)  # never seen, indeed


def test_760_parameters() -> None:
    found = nn.summary(nn.Conv2d(3, 10, 5, stride=1, padding=2), (3, 32, 32))
    assert found.output_shape == (1, 10, 32, 32) and found.parameters == 760


def test_max_pooling(rng: np.random.Generator) -> None:
    x = nnet.tensor([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    assert F.max_pool2d(x, 2, 2).tolist() == [[[[6, 8], [3, 4]]]]
    x = image(rng, 1, 2, 7, 7)
    y = nn.MaxPool2d(3, 2)(x).data
    assert y.shape == (1, 2, 3, 3)
    for p in range(3):
        for q in range(3):
            window = x.data[:, :, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
            assert np.array_equal(y[:, :, p, q], window.max((2, 3)))
    assert nn.MaxPool2d(2, 2)(image(rng, 1, 64, 224, 224)).shape == (1, 64, 112, 112)


def test_one_by_one_convolution_is_a_matrix_product_at_each_pixel(rng: np.random.Generator) -> None:
    layer, x = convolution(64, 32, 1), image(rng, 2, 64, 9, 8)
    y = layer(x).data
    for p, q in np.ndindex(9, 8):
        expected = x.data[:, :, p, q] @ layer.weight.data[:, :, 0, 0].T + layer.bias.data
        np.testing.assert_allclose(y[:, :, p, q], expected, rtol=1e-10, atol=1e-12)


def test_fully_connected_layer_is_a_convolution_with_a_full_size_filter(rng: np.random.Generator) -> None:
    dense, x = nn.Linear(32 * 7 * 7, 10, dtype=np.float64), image(rng, 2, 32, 7, 7)
    scores = F.conv2d(x, dense.weight.reshape(10, 32, 7, 7), dense.bias)
    assert scores.shape == (2, 10, 1, 1)
    np.testing.assert_allclose(scores.data[:, :, 0, 0], dense(x.flatten(1)).data, rtol=1e-10, atol=1e-12)


def test_the_page_shows_what_happens() -> None:
    page = Path(__file__).parents[1] / "docs" / "worked-examples.md"
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(examples.examples) > 25
    report: list[str] = []
    doctest.DocTestRunner().run(examples, out=report.append)
    assert not report, "".join(report)
