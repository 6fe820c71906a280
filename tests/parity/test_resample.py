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


def test_cubic_bytes_of_nearly_the_same_size(rng):
    """The precision of the weights follows sums at the borders, which are near 1 there."""
    counts = [(n, n + d) for n in range(5, 71) for d in (-3, -2, -1, 1, 2, 3)]
    counts += [(225, 224), (224, 223), (301, 300), (300, 299), (300, 301), (1000, 999)]
    for (size, count), align in itertools.product(counts, (False, True)):
        x = rng.integers(0, 256, (1, 1, 20, size), dtype=np.uint8)
        options = {"size": (20, count), "mode": "bicubic", "align_corners": align}
        want = TF.interpolate(torch.from_numpy(x), **options).numpy()
        np.testing.assert_array_equal(F.interpolate(nnet.tensor(x), **options).data, want, err_msg=f"{size} {options}")


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_scales_of_axes_that_stay_or_double(mode, rng):
    """The gradient too, where PyTorch's is that of its own result: see `interpolate`."""
    scales = [(1.1, 1.04), (1.0, 2.05), (2.09, 1.0), (1.3, 2.09), (2.05, 1.1)]
    for factors, channels in itertools.product(scales, (1, 3, 5)):
        for dtype in ("float32", "float64"):
            x = rng.standard_normal((2, channels, 8, 11)).astype(dtype)
            assert agree(F.interpolate, TF.interpolate, [x], scale_factor=factors, mode=mode, tolerance=1e-6)
    for factor, shape in itertools.product((1.1, 2.05), [(2, 3, 8), (1, 2, 8, 8), (1, 2, 4, 8, 9)]):
        for x in (rng.standard_normal(shape), rng.integers(0, 256, shape).astype(np.uint8)):
            want = TF.interpolate(torch.from_numpy(x), scale_factor=factor, mode=mode).numpy()
            np.testing.assert_array_equal(F.interpolate(nnet.tensor(x), scale_factor=factor, mode=mode).data, want)
    for height, width in ((63, 63), (63, 65), (63, 66), (64, 64), (65, 65), (31, 33), (32, 32), (32, 33), (200, 2)):
        for factor in (1 + 0.6 / max(height, width), 2 + 0.6 / max(height, width)):
            x = rng.standard_normal((1, 3, height, width)).astype("float32")
            want = TF.interpolate(torch.from_numpy(x), scale_factor=factor, mode=mode).numpy()
            np.testing.assert_array_equal(F.interpolate(nnet.tensor(x), scale_factor=factor, mode=mode).data, want)
