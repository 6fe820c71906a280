"""Layer, group and instance normalisation against torch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from torch import nn as tnn

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from tests.parity.agreement import agree

SHAPES = [(2, 6, 3, 4), (1, 6, 2), (2, 6), (3, 6, 1, 1), (1, 6), (0, 6, 2, 2), (6,), (2, 6, 2, 2, 2)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-4), ("float64", 1e-9)])
def test_group_norm(dtype, tolerance, rng):
    for shape in SHAPES:
        x, w, b = (rng.standard_normal(s).astype(dtype) for s in (shape, (6,), (6,)))
        for groups in (1, 2, 6, 4, 0):
            for affine in ((w, b), (None, None), (w, None), (w[:5], b)):
                agree(
                    lambda x, w, b, g: F.group_norm(x, g, w, b), lambda x, w, b, g: TF.group_norm(x, g, w, b),
                    [x, *affine], groups, tolerance=tolerance,
                )  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-4), ("float64", 1e-9)])
def test_layer_norm(dtype, tolerance, rng):
    for shape in SHAPES:
        for over in (shape[-1:], shape[-2:], shape, shape[:1], ()):
            x, w, b = (rng.standard_normal(s).astype(dtype) for s in (shape, over, over))
            for affine in ((w, b), (None, None), (None, b)):
                agree(
                    lambda x, w, b, n: F.layer_norm(x, n, w, b), lambda x, w, b, n: TF.layer_norm(x, n, w, b),
                    [x, *affine], over, tolerance=tolerance,
                )  # fmt: skip


def test_instance_norm(rng):
    for shape in [(2, 3, 4, 5), (2, 3, 4), (1, 3, 1, 1), (2, 3), (1, 3, 2, 2, 2)]:
        x, w, b = rng.standard_normal(shape), rng.standard_normal(3), rng.standard_normal(3)
        for affine in ((w, b), (None, None)):
            for own in (True, False):
                statistics = []

                def call(lib, make, x, w, b, own=own, statistics=statistics):
                    running = make(np.full(3, 0.5)), make(np.full(3, 2.0))
                    statistics.append(running)
                    return lib.instance_norm(x, *running, w, b, own, 0.3)

                ours = lambda x, w, b: call(F, nnet.tensor, x, w, b)  # noqa: E731
                theirs = lambda x, w, b: call(TF, torch.tensor, x, w, b)  # noqa: E731
                if agree(ours, theirs, [x, *affine], tolerance=1e-9):
                    for mine, other in zip(*statistics):
                        np.testing.assert_allclose(mine.data, other.numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "shape"),
    [("LayerNorm", ((3, 4),), {}, (2, 3, 4)), ("LayerNorm", (4,), {"bias": False, "eps": 0.1}, (2, 3, 4)),
     ("GroupNorm", (2, 6), {}, (2, 6, 3)), ("GroupNorm", (3, 6), {"affine": False}, (2, 6)),
     ("InstanceNorm2d", (3,), {}, (2, 3, 4, 4)), ("InstanceNorm2d", (3,), {"affine": True}, (3, 4, 4)),
     ("InstanceNorm1d", (3,), {"track_running_stats": True, "momentum": None}, (2, 3, 4)),
     ("InstanceNorm1d", (4,), {}, (2, 3, 4))],
)  # fmt: skip
def test_layers(name, arguments, options, shape, rng):
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(tnn, name)(*arguments, **options)
    assert repr(ours) == repr(theirs)
    state = {key: torch.tensor(np.array(value)) for key, value in ours.state_dict().items()}
    theirs.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for training in (True, False):
            ours.train(training), theirs.train(training)
            agree(ours, theirs, [rng.standard_normal(shape).astype(np.float32)], tolerance=2e-5)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-5, atol=1e-6)
