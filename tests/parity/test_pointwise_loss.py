"""Losses of pairs of numbers and the hinge loss against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch.nn.functional as TF

from numbanet import functional as F
from tests.parity.agreement import agree

REDUCTIONS = ["mean", "sum", "none", "batchmean"]
SHAPES = [((), ()), ((5,), (5,)), ((3, 4), (3, 4)), ((3, 4), (4,)), ((0, 2), (0, 2)), ((2, 3, 4, 5), (2, 3, 4, 5)),
          ((3,), (4,))]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(
    ("name", "options"),
    [("l1_loss", [{}]), ("smooth_l1_loss", [{}, {"beta": 0.3}, {"beta": 0}, {"beta": -1.0}]),
     ("huber_loss", [{}, {"delta": 0.3}, {"delta": 0}]), ("binary_cross_entropy", [{}]),
     ("binary_cross_entropy_with_logits", [{}]), ("kl_div", [{}, {"log_target": True}])],
)  # fmt: skip
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-5), ("float64", 1e-11)])
def test_values_gradients_and_refusals(name, options, dtype, tolerance, rng):
    for (a, b), chosen, reduction in itertools.product(SHAPES, options, REDUCTIONS):
        x, t = (np.asarray(rng.random(shape) * 0.98 + 0.01, dtype) for shape in (a, b))
        agree(getattr(F, name), getattr(TF, name), [x, t], reduction=reduction, tolerance=tolerance, **chosen)
    if name not in ("binary_cross_entropy", "huber_loss"):  # torch has no gradients of mixed dtypes there
        agree(getattr(F, name), getattr(TF, name), [x[:1], x[:1].astype("float64")], reduction="sum", tolerance=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights(reduction, rng):
    x, t = rng.random((3, 4)), rng.random((3, 4))
    for shape in [(3, 4), (4,), (3, 1), (), (5,)]:
        w = np.asarray(rng.random(shape))

        def weighted(lib, name, x, t, w):
            return getattr(lib, name)(x, t, weight=w.detach(), reduction=reduction)

        for name in ("l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"):
            agree(lambda *a, n=name: weighted(F, n, *a), lambda *a, n=name: weighted(TF, n, *a), [x, t, w])
        agree(
            lambda x, t, w: F.binary_cross_entropy_with_logits(x, t, pos_weight=w.detach(), reduction=reduction),
            lambda x, t, w: TF.binary_cross_entropy_with_logits(x, t, pos_weight=w.detach(), reduction=reduction),
            [x * 8 - 4, t, w],
        )


def test_extremes():
    scores = np.array([-1e3, -90, -1, 0, 1, 90, 1e3])
    for target in (0.0, 0.3, 1.0):
        t = np.full(7, target)
        agree(F.binary_cross_entropy_with_logits, TF.binary_cross_entropy_with_logits, [scores, t], reduction="none")
        agree(F.binary_cross_entropy, TF.binary_cross_entropy, [np.linspace(0, 1, 7), t], reduction="none",
              tolerance=1e-8)  # fmt: skip
    for wrong in ([1.5, 0.5], [-0.1, 0.5], [np.nan, 0.5]):
        assert not agree(F.binary_cross_entropy, TF.binary_cross_entropy, [np.array(wrong), np.ones(2)])


def test_hinge_loss(rng):
    for shape, p, margin in itertools.product([(4, 5), (5,), (2, 3, 4)], [1, 2, 3], [1.0, 0.3, -1.0]):
        y = rng.integers(0, 5, shape[:-1])
        for reduction, w in itertools.product(REDUCTIONS, (None, rng.random(5), rng.random(4))):

            def call(lib, x, y, w, p=p, margin=margin, reduction=reduction):
                weight = None if w is None else w.detach()
                return lib.multi_margin_loss(x, y, p, margin, weight, reduction=reduction)

            x = rng.standard_normal(shape)
            agree(lambda *a, call=call: call(F, *a), lambda *a, call=call: call(TF, *a), [x, y, w])
