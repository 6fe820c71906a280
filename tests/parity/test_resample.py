"""Interpolation against torch."""

from __future__ import annotations

import itertools

import pytest
import torch.nn.functional as TF
from torch import nn as tnn

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
