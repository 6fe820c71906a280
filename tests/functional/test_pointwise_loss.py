"""Losses of pairs of numbers and the hinge loss: values, gradients, reductions, edges, layers."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from tests.gradcheck import gradcheck

REDUCTIONS = ("mean", "sum", "none")
CALLS = {
    "l1": F.l1_loss, "smooth_l1": lambda x, t, **o: F.smooth_l1_loss(x, t, beta=0.3, **o),
    "smooth_l1, beta 0": lambda x, t, **o: F.smooth_l1_loss(x, t, beta=0, **o),
    "huber": lambda x, t, **o: F.huber_loss(x, t, delta=0.4, **o), "bce": F.binary_cross_entropy,
    "logits": F.binary_cross_entropy_with_logits, "kl": F.kl_div,
    "kl of logarithms": lambda x, t, **o: F.kl_div(x, t, log_target=True, **o),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:reduction='mean' divides:UserWarning")


def operands(rng, shape):
    x, t = rng.random(shape) * 0.9 + 0.05, rng.random(shape) * 0.9 + 0.05
    return np.where(np.abs(np.abs(x - t) - 0.35) < 0.06, t + 0.2 * (x > t) - 0.1, x), t  # away from corners


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients(name, reduction, rng):
    gradcheck(lambda x, t: CALLS[name](x, t, reduction=reduction), *operands(rng, (3, 4)))


@pytest.mark.parametrize("name", CALLS)
def test_reductions_agree(name, rng):
    for shape in [(3, 5), (), (40_000,), (2, 3, 4, 5)]:
        x, t = (nnet.tensor(a) for a in operands(rng, shape))
        each = CALLS[name](x, t, reduction="none")
        assert each.shape == shape
        np.testing.assert_allclose(CALLS[name](x, t, reduction="sum").data, each.data.sum(), rtol=1e-10)
        np.testing.assert_allclose(CALLS[name](x, t).data, each.data.mean(), rtol=1e-10)


def test_weights(rng):
    x, t = operands(rng, (3, 4))
    w = rng.random((3, 4)) + 0.5
    gradcheck(lambda x, t: F.l1_loss(x, t, weight=nnet.tensor(w)), x, t)
    gradcheck(lambda x, t: F.huber_loss(x, t, weight=nnet.tensor(w)), x, t)
    gradcheck(lambda x, t: F.binary_cross_entropy(x, t, nnet.tensor(w[0])), x, t)
    row, column = nnet.tensor(w[0]), nnet.tensor(w[:, :1])
    gradcheck(lambda x, t: F.binary_cross_entropy_with_logits(x, t, column, pos_weight=row), x, t)
    gradcheck(lambda x, t: F.binary_cross_entropy_with_logits(x, t, column, pos_weight=row, reduction="none"), x, t)


def test_extremes():
    x = nnet.tensor(np.array([0.0, 1.0, 0.0, 1.0], np.float32), requires_grad=True)
    loss = F.binary_cross_entropy(x, nnet.tensor(np.array([0, 1, 1, 0], np.float32)), reduction="none")
    assert loss.data.tolist() == [0, 0, 100, 100]
    scores = nnet.tensor(np.array([1e4, -1e4, 50.0, -50.0], np.float32), requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(scores, nnet.tensor(np.array([0, 1, 1, 0], np.float32)), reduction="none")
    np.testing.assert_allclose(loss.data, [1e4, 1e4, np.exp(-50), np.exp(-50)], rtol=1e-5)
    loss.backward(np.ones(4, np.float32))
    np.testing.assert_allclose(scores.grad.data, [1, -1, -np.exp(-50), np.exp(-50)], rtol=1e-5)
    assert F.kl_div(nnet.tensor([0.5]), nnet.tensor([0.0]), reduction="sum").item() == 0
    empty = nnet.tensor(np.zeros((0, 3)))
    assert np.isnan(F.l1_loss(empty, empty).item()) and F.l1_loss(empty, empty, reduction="sum").item() == 0


def test_broadcasting_and_memory_order(rng):
    x, t = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 1, 1))
    with pytest.warns(UserWarning, match="broadcast"):
        loss = F.l1_loss(nnet.tensor(x), nnet.tensor(t))
    assert np.isclose(loss.item(), np.abs(x - t).mean())
    moved = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    each = F.huber_loss(nnet.Tensor(moved), nnet.tensor(x * 0), reduction="none")
    assert np.allclose(each.data, np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5))
    assert each.data.strides == moved.strides


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hinge_loss(power, dtype, rng):
    for rows, classes in [(4, 10), (1, 1), (33, 17), (5, 100), (0, 3), (2000, 16)]:
        x, y = rng.standard_normal((rows, classes)).astype(dtype), rng.integers(0, classes, rows)
        w = rng.random(classes).astype(dtype)
        expected = np.zeros(rows)
        for row in range(rows):
            gaps = np.maximum(0.7 - x[row, y[row]] + x[row].astype(np.float64), 0) ** power
            expected[row] = w[y[row]] * (gaps.sum() - gaps[y[row]]) / classes
        t = nnet.tensor(x, requires_grad=True)
        arguments = (nnet.tensor(y), power, 0.7, nnet.tensor(w))
        loss = F.multi_margin_loss(t, *arguments, reduction="none")
        np.testing.assert_allclose(loss.data, expected, atol=1e-5 if dtype == "float32" else 1e-12)
        if rows:
            F.multi_margin_loss(t, *arguments).backward()
            with nnet.use("reference"):
                wide = nnet.tensor(x.astype(np.float64), requires_grad=True)
                F.multi_margin_loss(wide, *arguments[:3], nnet.tensor(w.astype(np.float64))).backward()
            np.testing.assert_allclose(t.grad.data, wide.grad.data, atol=1e-6)
    far = np.array([[1.0, 2.0, -np.inf], [-1e30, 1e30, 0.5]], dtype)
    losses = F.multi_margin_loss(nnet.tensor(far), nnet.tensor([2, 1]), power, reduction="none")
    assert losses.data.tolist() == [np.inf, 0.0]  # the right class does not count, whatever its score
    y = nnet.tensor(np.array([1, 0, 3]))
    for reduction in REDUCTIONS:
        gradcheck(lambda x, r=reduction: F.multi_margin_loss(x, y, power, reduction=r), rng.standard_normal((3, 4)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [(lambda x, t: F.l1_loss(x, t, reduction="all"), ValueError, "reduction must be one of"),
     (lambda x, t: F.mse_loss(x, nnet.Tensor(t.data.astype(np.float16))), TypeError, "target must be .* float16"),
     (lambda x, t: F.l1_loss(x, t[:, :2]), ValueError, "must agree"),
     (lambda x, t: F.l1_loss(x, t, weight=t[0]), ValueError, "weight must have the shape"),
     (lambda x, t: F.smooth_l1_loss(x, t, beta=-1), ValueError, "beta must be at least 0"),
     (lambda x, t: F.huber_loss(x, t, delta=0), ValueError, "delta must be above 0"),
     (lambda x, t: F.binary_cross_entropy(x, t[0]), ValueError, "target must have the shape"),
     (lambda x, t: F.binary_cross_entropy(x + 1, t), ValueError, "probabilities from 0 to 1"),
     (lambda x, t: F.binary_cross_entropy(x, t, t[:, :2]), ValueError, "agree"),
     (lambda x, t: F.binary_cross_entropy(x, t, nnet.Tensor(np.zeros(5, "V4"))), TypeError, "weight must be .*V4"),
     (lambda x, t: F.binary_cross_entropy(*2 * [nnet.Tensor(x.data.astype("V4"))], x), TypeError, "input must .*V4"),
     (lambda x, t: F.binary_cross_entropy(x, t.float()), TypeError, "input and target must have one dtype"),
     (lambda x, t: F.binary_cross_entropy_with_logits(x, t[0]), ValueError, "target must have the shape"),
     (lambda x, t: F.multi_margin_loss(x, nnet.tensor([0, 1, 5])), IndexError, "5"),
     (lambda x, t: F.multi_margin_loss(x, nnet.tensor([0, 1, -1])), IndexError, "-1"),
     (lambda x, t: F.multi_margin_loss(x, nnet.tensor([0, 1, 2]), 3), ValueError, "p must be 1 or 2"),
     (lambda x, t: nn.MultiMarginLoss(3), ValueError, "p must be 1 or 2")],
)  # fmt: skip
def test_refusals(call, error, message):
    values = nnet.tensor(np.full((3, 5), 0.5))
    with pytest.raises(error, match=message):
        call(values, values)


def test_layers(rng):
    x, t = (nnet.tensor(a) for a in operands(rng, (3, 4)))
    y, w = nnet.tensor(np.array([0, 3, 1])), nnet.tensor(rng.random(4))
    for layer, want in [
        (nn.L1Loss(reduction="sum"), F.l1_loss(x, t, reduction="sum")),
        (nn.SmoothL1Loss(beta=0.2), F.smooth_l1_loss(x, t, beta=0.2)),
        (nn.HuberLoss("none", 0.2), F.huber_loss(x, t, "none", 0.2)),
        (nn.BCELoss(w), F.binary_cross_entropy(x, t, w)),
        (nn.BCEWithLogitsLoss(w, pos_weight=w), F.binary_cross_entropy_with_logits(x, t, w, pos_weight=w)),
        (nn.KLDivLoss(reduction="batchmean"), F.kl_div(x, t, reduction="sum") / 3),
        (nn.MultiMarginLoss(2, 0.5, w), F.multi_margin_loss(x, y, 2, 0.5, w)),
    ]:
        np.testing.assert_allclose(layer(x, y if isinstance(layer, nn.MultiMarginLoss) else t).data, want.data)


def test_weights_that_would_get_no_gradient_are_refused():
    x, t = nnet.tensor(np.full((2, 3), 0.5), requires_grad=True), nnet.tensor(np.ones((2, 3)))
    labels, w = nnet.tensor(np.zeros(2, np.int64)), nnet.tensor(np.ones(3), requires_grad=True)
    calls = {
        "pos_weight": lambda w: F.binary_cross_entropy_with_logits(x, t, pos_weight=w),
        "weight of logits": lambda w: F.binary_cross_entropy_with_logits(x, t, w),
        "weight": lambda w: F.binary_cross_entropy(x, t, w),
        "weight of classes": lambda w: F.cross_entropy(x, labels, w),
        "weight of classes of soft labels": lambda w: F.cross_entropy(x, t, w),
        "weight of logarithms": lambda w: F.nll_loss(x, labels, w),
        "weight of margins": lambda w: F.multi_margin_loss(x, labels, weight=w),
    }
    for name, call in calls.items():
        with pytest.raises(RuntimeError, match=f"{name.split()[0]} must not require a gradient"):
            call(w)
        with nnet.no_grad():
            want = call(w)
        assert np.array_equal(call(w.detach()).data, want.data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [1.5, -1e-3, np.nan, np.inf, -np.inf])
def test_targets_that_are_no_probabilities(wrong, dtype, rng):
    for size in (1, 3, 40, 40_001):  # in the tail of a vector, and in a whole one
        x, t = nnet.tensor(np.full(size, 0.5, dtype)), np.ones(size, dtype)
        F.binary_cross_entropy(x, nnet.tensor(t))
        t[rng.integers(size)] = wrong
        text = f"target must hold probabilities from 0 to 1, got {wrong}"
        for reduction in REDUCTIONS:
            for chosen in (contextlib.nullcontext(), nnet.use("reference")):
                with chosen, pytest.raises(ValueError, match=text):
                    F.binary_cross_entropy(x, nnet.tensor(t), reduction=reduction)
    with pytest.raises(ValueError, match="target must hold probabilities"):
        nn.BCELoss()(x, nnet.tensor(t))


def test_a_weight_of_nan_is_no_error():
    x = nnet.tensor([0.0, 1.0])
    assert np.isnan(F.binary_cross_entropy(x, x, nnet.tensor([np.nan, 1.0])).item())


def test_dtypes_of_losses():
    """Losses compute with floats; integers beside them are converted only where PyTorch does."""
    floats, integers, booleans = nnet.tensor([[1.0, 0.0]]), nnet.tensor([[1, 3]]), nnet.tensor([[True, False]])
    doubles = floats.double()
    for call in (F.huber_loss, F.binary_cross_entropy_with_logits):
        for wrong in (integers, booleans):
            with pytest.raises(TypeError, match="input must have dtype float32 or float64, got (int64|bool)"):
                call(wrong, floats)
    assert F.huber_loss(floats, integers).item() == F.huber_loss(floats, integers.float()).item()
    for x, t in ((floats, doubles), (doubles, floats), (floats, integers)):
        for weight in (None, floats):
            assert F.huber_loss(x, t, weight=weight).dtype == x.dtype
        with pytest.raises(TypeError, match=f"target must have the dtype {x.dtype} of input .* got {t.dtype}"):
            F.huber_loss(x.clone().requires_grad_(), t)
    for wrong in (integers, booleans):
        with pytest.raises(TypeError, match="target must have dtype float32 or float64, got (int64|bool)"):
            F.binary_cross_entropy_with_logits(floats, wrong)
    for x, t in ((floats, doubles), (doubles, floats)):
        assert F.binary_cross_entropy_with_logits(x, t).dtype == t.dtype
    for reduction in REDUCTIONS:
        for call in (F.l1_loss, lambda *pair, **o: F.smooth_l1_loss(*pair, beta=0, **o)):
            for pair in ((booleans, floats), (floats, booleans), (integers, booleans)):
                with pytest.raises(TypeError, match="must hold numbers, got booleans"):
                    call(*pair, reduction=reduction)
        assert F.smooth_l1_loss(floats, booleans, reduction=reduction).dtype == np.float32


@pytest.mark.filterwarnings("ignore:size_average and reduce:FutureWarning")
def test_batchmean_divides_beside_the_older_flags_too(rng):
    x, t = (nnet.tensor(a) for a in operands(rng, (4, 3)))
    for flags, word in (((True, None), "mean"), ((False, None), "sum"), ((None, False), "none")):
        y = F.kl_div(x, t, *flags, "batchmean")
        np.testing.assert_allclose(y.data, F.kl_div(x, t, reduction=word).data / 4, rtol=1e-12)
        assert nn.KLDivLoss(*flags, "batchmean").reduction == word  # the layer has a word only
    assert nn.KLDivLoss(reduction="batchmean").reduction == "batchmean"


def test_hinge_loss_of_a_single_row():
    scores, right = np.array([0.5, 2.0, -1.0]), np.array(0)
    want = (1 - 0.5 + 2.0) / 3
    for x in (scores, scores[None]):
        for target in (right, right[None]):
            t = nnet.tensor(x, requires_grad=True)
            losses = F.multi_margin_loss(t, nnet.tensor(target), reduction="none")
            assert losses.shape == target.shape and losses.item() == pytest.approx(want)
            losses.sum().backward()
            assert t.grad.data.reshape(3).tolist() == pytest.approx([-1 / 3, 1 / 3, 0])
            assert F.multi_margin_loss(t, nnet.tensor(target)).item() == pytest.approx(want)
    for target in (right, right[None]):  # one class, which has no rival
        t = nnet.tensor(0.5, requires_grad=True)
        losses = F.multi_margin_loss(t, nnet.tensor(target), weight=nnet.tensor([2.0]), reduction="none")
        losses.sum().backward()
        assert losses.shape == target.shape and losses.item() == t.grad.item() == 0 and t.grad.shape == ()
    for wrong in (np.array(0, np.int32), np.array([0], np.int32), np.array(0, np.uint8), np.array([0], np.uint8)):
        with pytest.raises(TypeError, match="target must hold class indices of dtype int64"):
            F.multi_margin_loss(nnet.tensor(scores), nnet.tensor(wrong))
    two = np.ones((2, 3))
    for x, target in ((scores, [0, 0]), (two, 0), (two, [0]), (scores[:0], 0), (np.array(1.0), 1)):
        with pytest.raises((ValueError, IndexError), match="target|input"):
            F.multi_margin_loss(nnet.tensor(x), nnet.tensor(target))
