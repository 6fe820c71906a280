"""Softmax and losses on the GPU, against their definitions in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet.cuda.launch import executor
from numbanet.problem.loss import CrossEntropyProblem, MSEProblem, NLLProblem
from numbanet.problem.margin import MarginProblem
from numbanet.problem.softmax import SoftmaxProblem
from tests.cuda.ptx.executor import HostDevice
from tests.cuda.twins import agree, compare, poison, reference, run


@pytest.mark.parametrize("sizes", [(9, 10, 1), (1, 1, 1), (3, 2051, 1), (2, 5, 37)], ids=str)
@pytest.mark.parametrize("log", [True, False])
def test_softmax(sizes: tuple[int, int, int], log: bool) -> None:
    rng = np.random.default_rng(0)
    x, grad = (5 * rng.standard_normal((2, *sizes))).astype(np.float32)
    compare(SoftmaxProblem("forward", "float32", log, *sizes), (x,), (poison(sizes, "float32"),), 2)
    (y,) = run(SoftmaxProblem("forward", "float32", log, *sizes), (x,), (poison(sizes, "float32"),))
    compare(SoftmaxProblem("backward_input", "float32", log, *sizes), (grad, y), (poison(sizes, "float32"),), 4)


def test_softmax_of_special_numbers_and_float64() -> None:
    rows = np.array([[1000.0, 0, -np.inf], [np.nan, 1, 2], [-1e4, -1e4, -1e4]])
    x = rows.reshape(3, 3, 1)
    (y,) = run(SoftmaxProblem("forward", "float64", False, 3, 3, 1), (x,), (poison(x.shape, "float64"),))
    np.testing.assert_allclose(y[:, :, 0], [[1, 0, 0], [np.nan] * 3, [1 / 3] * 3], rtol=1e-15)


# (rows, classes, reduction, smoothing): a warp and a block a row, several rows a block, one class.
CASES = [(19, 10, "mean", 0.0), (5, 33, "none", 0.1), (2, 2100, "sum", 0.2), (3, 1, "mean", 0.0)]


@pytest.mark.parametrize(("rows", "classes", "reduction", "smoothing"), CASES)
@pytest.mark.parametrize("probabilities", [False, True])
def test_cross_entropy(rows: int, classes: int, reduction: str, smoothing: float, probabilities: bool) -> None:
    rng = np.random.default_rng(rows)
    for dtype in ("float32", "float64") if classes < 20 else ("float32",):
        x = (3 * rng.standard_normal((rows, classes))).astype(dtype)
        weight = (rng.random(classes) + 0.5).astype(dtype)
        target = rng.dirichlet(np.ones(classes), rows).astype(dtype)
        if not probabilities:
            target = rng.integers(0, classes, rows)
            target[0] = -100
        fields = (dtype, rows, classes, probabilities, reduction, -100, smoothing)
        saved, divisor = poison((2 * rows,), dtype), poison((1,), "float64")
        outputs = [poison((rows,), dtype), saved, poison((1,), dtype), divisor]
        forward = CrossEntropyProblem("forward", *fields)
        losses, saved, total, divisor = run(forward, (x, target, weight), outputs)
        if not probabilities:  # what is saved of ignored rows is the kernel's own
            assert saved[:2].tolist() == [0, 0]
            saved[:2] = 0
        check_forward(forward, (x, target, weight), (losses, total, divisor))
        grad = rng.standard_normal(rows if reduction == "none" else 1).astype(dtype)
        dx = (poison((rows, classes), dtype),)
        compare(CrossEntropyProblem("backward_input", *fields), (grad, x, target, weight, saved, divisor), dx, 4)
        if probabilities:
            compare(CrossEntropyProblem("backward_target", *fields), (grad, x, weight, saved, divisor), dx, 4)


@pytest.mark.parametrize("label", [10, -1])
def test_an_index_that_is_no_class_makes_the_loss_nan(label: int) -> None:
    x, weight = np.ones((3, 10), np.float32), np.ones(10, np.float32)
    target = np.array([1, label, -100])
    outputs = [poison(shape, "float32") for shape in ((3,), (6,), (1,))]
    fields = ("float32", 3, 10, False, "mean", -100, 0.0)
    divisor = poison((1,), "float64")
    given = (x, target, weight)
    losses, saved, total, divisor = run(CrossEntropyProblem("forward", *fields), given, (*outputs, divisor))
    assert np.isnan(total[0]) and np.isnan(losses).tolist() == [False, True, False]
    grad = np.ones(1, np.float32)
    backward = CrossEntropyProblem("backward_input", *fields)
    (dx,) = run(backward, (grad, *given, saved, divisor), (poison(x.shape, "float32"),))
    assert np.isnan(dx[1]).all() and (dx[2] == 0).all()
    problem = NLLProblem("forward", "float32", 3, 10, "sum", -100)
    assert np.isnan(run(problem, given, (outputs[0], outputs[2], divisor))[1][0])


def check_forward(problem: CrossEntropyProblem, inputs: tuple, found: tuple) -> None:
    rows, dtype = problem.rows, problem.dtype
    shapes = ((rows,), (2 * rows,), (1,))
    outputs = [*(poison(shape, dtype) for shape in shapes), poison((1,), "float64")]
    losses, _, total, divisor = reference(problem, inputs, outputs)
    bound = 64 * float(np.finfo(dtype).eps)
    if problem.reduction == "none":
        agree(found[0], losses, bound)
    else:
        agree(found[1], total, bound)
    agree(found[2], divisor, bound)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll_and_squares(reduction: str) -> None:
    rng = np.random.default_rng(1)
    rows, classes = 300, 7
    x, weight = rng.standard_normal((rows, classes)).astype(np.float32), rng.random(classes).astype(np.float32)
    target = rng.integers(0, classes, rows)
    target[::5] = 3
    grad = rng.standard_normal(rows if reduction == "none" else 1).astype(np.float32)
    outputs = (poison((rows,), "float32"), poison((1,), "float32"), poison((1,), "float64"))
    problem = NLLProblem("forward", "float32", rows, classes, reduction, 3)
    losses, total, divisor = run(problem, (x, target, weight), outputs)
    kept = target != 3
    expected = np.where(kept, -weight[target].astype(np.float64) * x[np.arange(rows), target], 0)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    mean = weight[target[kept]].sum(dtype=np.float64) if reduction == "mean" else 1.0
    np.testing.assert_allclose([total[0], divisor[0]], [expected.sum() / mean, mean], rtol=1e-6)
    back = NLLProblem("backward_input", "float32", rows, classes, reduction, 3)
    compare(back, (grad, target, weight, divisor), (poison(x.shape, "float32"),))

    a, b = rng.standard_normal((2, 1027)).astype(np.float32)
    values = poison(a.shape, "float32") if reduction == "none" else None
    squares = MSEProblem("forward", "float32", a.size, reduction)
    found, total, divisor = run(squares, (a, b), (values, poison((1,), "float32"), poison((1,), "float64")))
    exact = (a.astype(np.float64) - b) ** 2
    if reduction == "none":
        np.testing.assert_allclose(found, exact, rtol=1e-6)
    else:
        np.testing.assert_allclose(total[0], exact.sum() / divisor[0], rtol=1e-6)
    grad = a if reduction == "none" else grad
    back_squares = MSEProblem("backward_input", "float32", a.size, reduction)
    compare(back_squares, (grad, a, b, divisor), (poison(a.shape, "float32"),))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("each", [True, False])
def test_multi_margin(power: int, each: bool) -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((5, 37)).astype(np.float32), rng.random(37).astype(np.float32)
    target = rng.integers(0, 37, 5)
    forward = MarginProblem("forward", "float32", 5, 37, power)
    compare(forward, (x, target, weight, np.array([0.7])), (poison((5,), "float32"),), 2)
    grad = rng.standard_normal(5 if each else 1).astype(np.float32)
    backward = MarginProblem("backward_input", "float32", 5, 37, power, each)
    compare(backward, (grad, x, target, weight, np.array([0.7, 0.3])), (poison(x.shape, "float32"),), 4)


@pytest.mark.parametrize("power", [1, 2])
def test_margins_of_what_is_no_class_are_nan(power: int) -> None:
    x, target = np.ones((4, 5), np.float32), np.array([1, 5, -1, 2**32])
    weight, numbers = np.ones(5, np.float32), np.array([0.7, 1.0])
    forward = MarginProblem("forward", "float32", 4, 5, power)
    (losses,) = run(forward, (x, target, weight, numbers[:1]), (poison((4,), "float32"),))
    backward = MarginProblem("backward_input", "float32", 4, 5, power, False)
    grad = np.ones(1, np.float32)
    (dx,) = run(backward, (grad, x, target, weight, numbers), (np.zeros(x.shape, np.float32),))
    assert np.isnan(losses).tolist() == np.isnan(dx).all(1).tolist() == [False, True, True, True]


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss, F.multi_margin_loss])
@pytest.mark.parametrize("label", [5, -1, 2**32])
def test_a_label_that_is_no_class_is_told_when_python_waits(loss: Callable[..., nnet.Tensor], label: int) -> None:
    scores, right = np.ones((3, 5), np.float32), np.array([1, 4, 0])
    wrong = np.array([1, label, 0])
    expected = loss(nnet.tensor(scores), nnet.tensor(right)).item()
    with pytest.raises(IndexError) as told:
        loss(nnet.tensor(scores), nnet.tensor(wrong))
    with executor(HostDevice()):
        there = nnet.tensor(scores, device="cuda", requires_grad=True)
        found = loss(there, nnet.tensor(wrong, device="cuda"))
        found.backward()
        with pytest.raises(IndexError, match=str(told.value)):
            found.item()
        assert np.isnan(found.item())  # told once
        good = loss(there, nnet.tensor(right, device="cuda"))
        assert good.item() == pytest.approx(expected)
        if loss is not F.multi_margin_loss:
            assert np.isfinite(loss(there, nnet.tensor(wrong, device="cuda"), ignore_index=label).item())


def test_a_replayed_loss_tells_of_its_labels() -> None:
    scores = np.ones((3, 5), np.float32)
    with executor(HostDevice()):

        def step(x: nnet.Tensor, labels: nnet.Tensor) -> nnet.Tensor:
            return F.cross_entropy(x, labels)

        replayed = nnet.capture(step)
        x = nnet.tensor(scores, device="cuda")
        for labels in ([1, 2, 3], [0, 0, 0], [1, 2, 5]):
            with nnet.no_grad():
                found = replayed(x, nnet.tensor(np.array(labels), device="cuda"))
            if 5 in labels:
                with pytest.raises(IndexError, match="target holds 5, which is not one of the 5 classes"):
                    found.item()
            else:
                assert found.item() == pytest.approx(np.log(5))
