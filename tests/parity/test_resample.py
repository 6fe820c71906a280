"""Interpolation against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from torch import nn as tnn

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from tests.parity.agreement import agree

MODES = ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "area", "cubic"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_values_gradients_and_refusals(mode, dtype, tolerance, rng):
    sizes = [{"size": s} for s in (1, 4, (3, 9), (10, 2), (5,), 0)]
    sizes += [{"scale_factor": f} for f in (2, 0.5, 1.3, (2.7, 0.7), 3.0)] + [{"size": 3, "scale_factor": 2.0}, {}]
    for shape in [(2, 3, 5, 7), (1, 1, 1, 4), (2, 3, 6), (0, 2, 3, 3), (3, 4)]:
        for size, align, again in itertools.product(sizes, [None, False, True], [None, True]):
            x = rng.standard_normal(shape).astype(dtype)
            options = {**size, "mode": mode, "align_corners": align, "recompute_scale_factor": again}
            agree(F.interpolate, TF.interpolate, [x], tolerance=tolerance, **options)


def test_many_scales(rng):
    for size, count in itertools.product(range(1, 12), range(1, 14)):
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic"):
            agree(F.interpolate, TF.interpolate, [rng.standard_normal((1, 1, size, 3))], (count, 3), mode=mode)


def test_text():
    for make in (lambda n: n.Upsample(scale_factor=(1, 2), mode="bicubic"), lambda n: n.Upsample((2, 3)),
                 lambda n: n.UpsamplingBilinear2d(scale_factor=2), lambda n: n.UpsamplingNearest2d(4)):  # fmt: skip
        assert repr(make(nn)) == repr(make(tnn))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_bytes(mode, align, antialias, rng):
    """Every byte, in both memory formats (PyTorch has other code for up to 4 channels)."""
    options = {"mode": mode, "align_corners": align, "antialias": antialias}
    targets = [{"size": s} for s in ((9, 13), (20, 5), (3, 40), (64, 64))]
    targets += [{"scale_factor": f} for f in ((1.05, 1.3), (0.5, 2.0), (2.0, 1.0), (0.37, 3.3))]
    for channels, images, target in itertools.product((1, 3, 4, 5), ((9, 13), (32, 33)), targets):
        x = rng.integers(0, 256, (2, channels, *images), dtype=np.uint8)
        want = TF.interpolate(torch.from_numpy(x), **target, **options).numpy()
        last = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(TF.interpolate(last, **target, **options).numpy(), want)
        np.testing.assert_array_equal(F.interpolate(nnet.tensor(x), **target, **options).data, want)
