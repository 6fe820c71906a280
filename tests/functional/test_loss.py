"""Losses: kernels against definitions, gradients, extreme scores, arguments, layers."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, ops
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from tests.gradcheck import gradcheck

REDUCTIONS = ("none", "mean", "sum")
# rows and classes around multiples of the lanes, and several tasks
SIZES = [(0, 3), (1, 1), (5, 10), (3, 15), (3, 16), (3, 17), (2, 33), (700, 50)]


def gradient(reduction, rows, dtype, rng):
    return rng.standard_normal(rows if reduction == "none" else ()).astype(dtype)


def close(got, want, dtype):
    tolerance = 3e-6 if dtype == "float32" else 1e-13
    scale = max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_cross_entropy_kernels(dtype, reduction, smoothing, kind, rng):
    for rows, classes in SIZES:
        x = (rng.standard_normal((rows, classes)) * 4).astype(dtype)
        weight = rng.uniform(0.2, 2, classes).astype(dtype)
        if kind == "indices":
            target = rng.integers(0, classes, rows)
            target[::3] = -7
        else:
            target = rng.uniform(0, 1, (rows, classes)).astype(dtype)
        grad = gradient(reduction, rows, dtype, rng)
        options = {"ignore_index": -7, "reduction": reduction, "label_smoothing": smoothing}

        def solve(cast, x=x, target=target, weight=weight, grad=grad, options=options):
            given = target if target.dtype == np.int64 else cast(target)
            loss, state = ops.cross_entropy_with_state(cast(x), given, cast(weight), **options)
            results = [loss, ops.cross_entropy_backward(cast(grad), state)]
            if given.dtype != np.int64:
                results.append(ops.cross_entropy_backward_target(cast(grad), state))
            return results

        with nnet.use("reference"):
            want = solve(lambda a: a.astype(np.float64))
        for a, b in zip(solve(lambda a: a), want):
            if np.isnan(b).all() and b.size:
                assert np.isnan(a).all()
            else:
                close(a, b, dtype)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 5, 3), (2, 3, 2, 3)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_gradients(shape, reduction, rng):
    x = rng.standard_normal(shape)
    rows, classes = ((), shape[0]) if len(shape) == 1 else ((shape[0], *shape[2:]), shape[1])
    weight = nnet.tensor(rng.uniform(0.5, 1.5, classes))
    labels = nnet.tensor(np.asarray(rng.integers(0, classes, rows)))
    options = {"weight": weight, "reduction": reduction, "label_smoothing": 0.2}
    gradcheck(lambda t: F.cross_entropy(t, labels, **options), x)
    gradcheck(lambda t, q: F.cross_entropy(t, q, **options), x, rng.uniform(0, 1, shape))
    gradcheck(lambda t: F.nll_loss(t, labels, weight, reduction=reduction), x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_kernels(reduction, rng):
    for rows, classes in SIZES:
        x = rng.standard_normal((rows, classes)).astype(np.float32)
        weight = rng.uniform(0.2, 2, classes).astype(np.float32)
        target = rng.integers(0, classes, rows)
        target[1::4] = 99
        grad = gradient(reduction, rows, np.float32, rng)
        results = []
        for name in ("cpu.vector", "reference"):
            with nnet.use(name):
                loss, state = ops.nll_loss_with_state(x, target, weight, ignore_index=99, reduction=reduction)
                results.append((loss, ops.nll_loss_backward(grad, state)))
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_nll_of_log_softmax_is_cross_entropy(rng):
    x = nnet.tensor(rng.standard_normal((6, 5, 4)))
    target = nnet.tensor(rng.integers(0, 5, (6, 4)))
    for reduction in REDUCTIONS:
        direct = F.cross_entropy(x, target, reduction=reduction).data
        close(F.nll_loss(F.log_softmax(x, 1), target, reduction=reduction).data, direct, "float64")


def test_large_scores_do_not_overflow():
    x = np.array([[3e38, -3e38, 0], [1e4, 1e4 - 1, -1e4]], np.float32)
    loss, state = ops.cross_entropy_with_state(x, np.array([0, 1]), reduction="none")
    np.testing.assert_allclose(loss, [0, 1 + np.log1p(np.exp(-1))], rtol=1e-6)
    assert np.isfinite(ops.cross_entropy_backward(np.ones(2, np.float32), state)).all()


def test_infinite_scores():
    x = np.array([[0, -np.inf], [0, -np.inf], [np.nan, 0], [np.inf, 0]], np.float32)
    loss = ops.cross_entropy(x, np.array([0, 1, 1, 1]), reduction="none")
    assert loss[0] == 0 and loss[1] == np.inf and np.isnan(loss[2:]).all()


def test_nan_score_of_an_ignored_row_does_not_matter():
    x = np.array([[0.0, 1.0], [np.nan, 0.0]])
    loss, state = ops.cross_entropy_with_state(x, np.array([1, -100]))
    assert loss == ops.cross_entropy(x[:1], np.array([1]))
    assert ops.cross_entropy_backward(np.ones(()), state)[1].tolist() == [0, 0]


def test_nothing_to_average_is_nan():
    x = np.zeros((2, 3), np.float32)
    assert np.isnan(ops.cross_entropy(x, np.array([-100, -100])))
    assert np.isnan(ops.cross_entropy(x[:0], np.zeros(0, np.int64)))
    assert ops.cross_entropy(x[:0], np.zeros(0, np.int64), reduction="sum") == 0
    for chosen in (contextlib.nullcontext(), nnet.use("reference")):  # neither rows nor classes
        with chosen:
            nothing = np.zeros((0, 0)), np.zeros(0, np.int64)
            assert ops.cross_entropy(*nothing, reduction="sum", label_smoothing=0.1) == 0
            ignored = np.zeros((2, 0)), np.zeros(2, np.int64)
            loss, state = ops.cross_entropy_with_state(*ignored, reduction="sum", ignore_index=0, label_smoothing=0.1)
            assert loss == 0 and ops.cross_entropy_backward(np.ones(()), state).shape == (2, 0)
    assert np.isnan(ops.mse_loss(x[:0], x[:0]))


def test_memory_orders(rng):
    base = rng.standard_normal((2, 5, 4, 3))
    target = rng.integers(0, 5, (2, 4, 3))
    want, state = ops.cross_entropy_with_state(base, target, reduction="none")
    dwant = ops.cross_entropy_backward(np.ones(want.shape), state)
    views = [
        np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.ascontiguousarray(base[::-1])[::-1],
        np.repeat(base, 2, axis=1)[:, ::2],
        np.ascontiguousarray(base.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0),
    ]
    for view in views:
        view.flags.writeable = False
        got, state = ops.cross_entropy_with_state(view, target, reduction="none")
        assert np.array_equal(got, want)
        dx = ops.cross_entropy_backward(np.ones(want.shape), state)
        assert np.array_equal(dx, dwant) and dx.transpose(0, 2, 3, 1).flags.c_contiguous


def test_thread_count_does_not_matter(rng):
    threads = get_num_threads()
    x = rng.standard_normal((3000, 100)).astype(np.float32)
    target = rng.integers(0, 100, 3000)
    try:
        results = []
        for count in (1, threads):
            set_num_threads(count)
            results.append((ops.cross_entropy(x, target), ops.mse_loss(x, x[::-1])))
    finally:
        set_num_threads(threads)
    assert results[0] == results[1]


def test_weights_for_images_may_have_any_shape(rng):
    scores, target = nnet.tensor(rng.standard_normal((2, 3, 4))), nnet.tensor(rng.integers(0, 3, (2, 4)))
    weight = np.array([[0.5], [2], [1]])
    for loss in (F.nll_loss, F.cross_entropy):
        flat = loss(scores, target, nnet.tensor(weight[:, 0])).item()
        assert loss(scores, target, nnet.tensor(weight)).item() == flat
        with pytest.raises(ValueError, match=r"weight must have shape \(3,\), one for each class, got \(3, 1\)"):
            loss(scores[:, :, 0], target[:, 0], nnet.tensor(weight))


def test_uint8_targets_and_a_single_row():
    x = np.array([1.0, 3.0, 2.0])
    want = np.log(np.exp(x).sum()) - 3
    for target in (np.uint8(1), np.array(1), np.array([1])):
        loss = ops.cross_entropy(x, np.asarray(target))
        assert loss.shape == () and abs(loss - want) < 1e-15


@pytest.mark.parametrize(
    ("target", "options", "error", "text"),
    [
        ([0, 3], {}, IndexError, "target holds 3, which is not one of the 3 classes"),
        ([0, -1], {}, IndexError, "target holds -1"),
        ([0, -100], {"ignore_index": 1}, IndexError, "target holds -100"),
        ([0, 1, 2], {}, ValueError, r"target must have shape \(2,\).*got \(3,\)"),
        ([[0, 1, 2], [0, 1, 2]], {}, TypeError, "class probabilities, got int64"),
        ([0.0, 1.0], {}, TypeError, "int64 or uint8, got float64"),
        (np.array([0, 1], np.int32), {}, TypeError, "int64 or uint8, got int32"),
        ([0, 1], {"reduction": "avg"}, ValueError, "reduction must be one of.*'avg'"),
        ([0, 1], {"label_smoothing": 1.5}, ValueError, "label_smoothing must be at most 1, got 1.5"),
        ([0, 1], {"label_smoothing": "a"}, TypeError, "label_smoothing"),
        ([0, 1], {"weight": np.ones(2)}, ValueError, r"weight must have shape \(3,\)"),
        ([0, 1], {"weight": np.ones(3, np.float32)}, TypeError, "weight must have the dtype float64"),
        ([0, 1], {"ignore_index": 0.5}, TypeError, "ignore_index must be an integer"),
        (np.zeros((2, 3)), {"ignore_index": 1}, ValueError, "ignore_index must be negative"),
    ],
)
def test_bad_arguments(target, options, error, text):
    with pytest.raises(error, match=text):
        ops.cross_entropy(np.zeros((2, 3)), np.asarray(target), **options)


@pytest.mark.parametrize("wrong", [-1, 3, 1 << 40, -(1 << 62)])
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (ops.cross_entropy, "cpu.fused"), (ops.cross_entropy, "reference"),
        (ops.nll_loss, "cpu.vector"), (ops.nll_loss, "reference"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes(loss, name, wrong):
    """Kernels see them, and read nothing there, in calls that come again as well; NaN of other origin is no error."""
    text = f"target holds {wrong}, which is not one of the 3 classes"
    for x in (np.zeros((40, 3)), np.full((40, 3), np.nan, "f4"), np.zeros((10, 3, 2, 2), "f4")):
        good = np.arange(40).reshape(x.shape[:1] + x.shape[2:]) % 3
        bad = good.copy()
        bad.reshape(-1)[17] = wrong
        for reduction, _ in itertools.product(REDUCTIONS, range(5)):
            with nnet.use(name):
                assert np.isnan(loss(x, good, reduction=reduction)).all() == np.isnan(x).all()
                with pytest.raises(IndexError, match=text):
                    loss(x, bad, reduction=reduction)
                ignored = loss(x, bad, ignore_index=wrong, reduction=reduction)
                assert np.isnan(ignored).any() == np.isnan(x).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("wrong", [-1, 3, 1 << 40, -(1 << 62)])
def test_labels_that_become_no_classes(wrong, dtype):
    """Before the backward pass: nothing is written at such an index."""
    x, labels = np.zeros((40, 3), dtype), np.arange(40) % 3
    right = np.arange(40) != 17
    for with_state, backward, expected in (
        (ops.cross_entropy_with_state, ops.cross_entropy_backward, np.nan),
        (ops.nll_loss_with_state, ops.nll_loss_backward, 0.0),
    ):
        for _ in range(5):
            loss, state = with_state(x, labels, reduction="sum")
            good, labels[17] = backward(np.ones_like(loss), state), wrong
            found, labels[17] = backward(np.ones_like(loss), state), 17 % 3
            np.testing.assert_array_equal(found[right], good[right])
            np.testing.assert_array_equal(found[17], expected)
    for loss in (F.cross_entropy, F.nll_loss):
        target = nnet.tensor(labels)
        y = loss(nnet.tensor(x, requires_grad=True), target)
        target[17] = wrong
        with pytest.raises(RuntimeError, match="changed"):
            y.backward()


def test_bad_input():
    with pytest.raises(ValueError, match="input must have shape"):
        ops.cross_entropy(np.float64(1), np.array(0))
    with pytest.raises(TypeError, match="input must have dtype float32 or float64, got int64"):
        ops.nll_loss(np.zeros((2, 3), np.int64), np.array([0, 1]))
    with pytest.raises(TypeError, match="grad must have the dtype"):
        ops.cross_entropy_backward(np.ones(()), ops.cross_entropy_with_state(np.zeros((1, 2), "f4"), np.array([0]))[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_kernels(dtype, reduction, rng):
    for size in (0, 1, 15, 16, 17, 33, 40_001):
        x, target = rng.standard_normal((2, size)).astype(dtype)
        grad = gradient(reduction, size, dtype, rng)
        results = []
        for name in ("cpu.vector", "reference"):
            with nnet.use(name):
                loss, state = ops.mse_loss_with_state(x, target, reduction)
                results.append([loss] + [ops.mse_loss_backward(grad, state, of) for of in (False, True)])
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_gradients(reduction, rng):
    x, target = rng.standard_normal((2, 3, 4))
    gradcheck(lambda a, b: F.mse_loss(a, b, reduction=reduction), x, target)
    gradcheck(lambda a: F.mse_loss(a, nnet.tensor(target.T.copy().T), reduction=reduction), x)
    weight = nnet.tensor(rng.uniform(0.5, 2, (3, 4)))
    gradcheck(lambda a, b: F.mse_loss(a, b, reduction=reduction, weight=weight), x, target)


def test_mse_broadcasts_with_a_warning(rng):
    x, target = nnet.tensor(rng.standard_normal((3, 4)), requires_grad=True), nnet.tensor(rng.standard_normal((3, 1)))
    with pytest.warns(UserWarning, match=r"target has shape \(3, 1\), input \(3, 4\)"):
        loss = F.mse_loss(x, target)
    assert abs(loss.item() - ((x.data - target.data) ** 2).mean()) < 1e-15
    with pytest.raises(ValueError, match="shape"), pytest.warns(UserWarning):
        F.mse_loss(x, nnet.tensor(np.zeros((2, 4))))


def test_old_reduction_flags():
    x, target = nnet.tensor(np.zeros((2, 3))), nnet.tensor(np.array([0, 1]))
    for flags, word in (((False, None), "sum"), ((None, False), "none"), ((True, True), "mean")):
        with pytest.warns(FutureWarning, match="reduction"):
            old = F.cross_entropy(x, target, size_average=flags[0], reduce=flags[1])
        assert np.array_equal(old.data, F.cross_entropy(x, target, reduction=word).data)


def test_layers(rng):
    x, target = nnet.tensor(rng.standard_normal((4, 3))), nnet.tensor(np.array([0, 2, 1, 2]))
    weight = nnet.tensor(np.array([1.0, 2.0, 3.0]))
    layer = nn.CrossEntropyLoss(weight, ignore_index=1, reduction="sum", label_smoothing=0.1)
    want = F.cross_entropy(x, target, weight, ignore_index=1, reduction="sum", label_smoothing=0.1)
    assert layer(x, target).item() == want.item()
    assert list(layer.state_dict()) == ["weight"] and list(nn.CrossEntropyLoss().state_dict()) == []
    assert nn.NLLLoss(weight)(x, target).item() == F.nll_loss(x, target, weight).item()
    assert nn.MSELoss(reduction="sum")(x, x * 2).item() == F.mse_loss(x, x * 2, reduction="sum").item()
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"


def test_bytes_are_classes_of_rows_only():
    scores = nnet.tensor(np.zeros((2, 3, 4), np.float32))
    for loss in (F.cross_entropy, F.nll_loss):
        assert loss(scores[:, :, 0], nnet.tensor(np.zeros(2, np.uint8))).shape == ()
        with pytest.raises(TypeError, match=r"target must have dtype int64 for input of shape \(2, 3, 4\), got uint8"):
            loss(scores, nnet.tensor(np.zeros((2, 4), np.uint8)))
        assert np.isnan(loss(scores[:0], nnet.tensor(np.zeros((0, 4), np.uint8))).item())


def test_probabilities_of_integer_scores_are_refused():
    with pytest.raises(TypeError, match="input must have dtype float32 or float64, got int64"):
        F.cross_entropy(nnet.tensor([[1, 2]]), nnet.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("shape", [(2, 0), (0,), (2, 0, 3), (0, 0)])
def test_the_mean_over_no_classes_is_nan(shape):
    nothing = nnet.tensor(np.zeros(shape, np.float32), requires_grad=True)
    loss = F.cross_entropy(nothing, nothing.detach(), label_smoothing=0.1)
    loss.backward()
    assert np.isnan(loss.item()) and nothing.grad.shape == shape
    assert F.cross_entropy(nothing, nothing.detach(), reduction="sum").item() == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_of_other_dtypes(reduction):
    integers, bytes_, booleans = nnet.tensor([[1], [3]]), nnet.tensor(np.ones(2, np.uint8)), nnet.tensor([True, False])
    floats = nnet.tensor([1.0, 2.0], requires_grad=True)
    for pair in ((integers, integers), (bytes_, bytes_), (integers[:, 0], bytes_), (booleans, booleans)):
        with pytest.raises(TypeError, match="input or target must have dtype float32 or float64, got"):
            F.mse_loss(*pair, reduction=reduction)
    with pytest.warns(UserWarning, match="broadcast"), pytest.raises(TypeError, match="input or target must"):
        F.mse_loss(integers, bytes_, reduction=reduction)
    F.mse_loss(floats, booleans, reduction=reduction).sum().backward()
    assert floats.grad.tolist() == ([0, 2] if reduction == "mean" else [0, 4])
    assert F.mse_loss(bytes_, floats.double(), reduction=reduction).dtype == np.float64


@pytest.mark.parametrize("smoothing", [-0.1, -np.inf, np.nan, -0.0])
def test_what_is_not_above_zero_smooths_nothing(smoothing, rng):
    x = rng.standard_normal((3, 4))
    for target in (np.array([0, 3, 1]), rng.random((3, 4))):
        assert ops.cross_entropy(x, target, label_smoothing=smoothing) == ops.cross_entropy(x, target)
