"""Tensor: changes in place, with and without the tape."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet.tensor import Tensor

OPERATORS = [operator.iadd, operator.isub, operator.imul, operator.itruediv]


@pytest.mark.parametrize("change", OPERATORS)
@pytest.mark.parametrize("other", [2.5, np.array([2.0, 4.0], np.float32), nnet.tensor([2.0, 4.0])])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_leaves_change_in_their_own_memory(change: Callable, other: object, requires_grad: bool) -> None:
    x = nnet.tensor([[1.0, -3.0], [5.0, 7.0]], requires_grad=requires_grad)
    memory, expected = x.data, x.data.copy()
    expected = change(expected, other.data if isinstance(other, Tensor) else other)
    version, view = x._version, x.detach()
    with nnet.no_grad():
        assert change(x, other) is x
    assert x.data is memory and x.requires_grad == requires_grad and x.is_leaf and x._version > version
    np.testing.assert_array_equal(x.data, expected)
    np.testing.assert_array_equal(view.data, expected)


def test_a_step_of_gradient_descent_by_hand() -> None:
    p = nnet.tensor([1.0, 2.0], requires_grad=True)
    kept = p
    (p * p).sum().backward()
    with nnet.no_grad():
        p -= 0.25 * p.grad
        p.add_(p.grad, alpha=-0.25)
        p.grad.zero_()
    assert p is kept and p.requires_grad and p.tolist() == [0.0, 0.0] and p.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "change",
    [*(lambda x, f=f: f(x, 2.0) for f in OPERATORS), Tensor.zero_, lambda x: x.fill_(1), lambda x: x.copy_(x.detach()),
     lambda x: x.__setitem__(0, 1.0)],
)  # fmt: skip
def test_recorded_leaves_are_refused(change: Callable) -> None:
    x = nnet.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf that requires grad is being used in an in-place operation"):
        change(x)
    assert x.tolist() == [1.0, 2.0]


def test_gradients_flow_through_recorded_changes() -> None:
    a, b = nnet.tensor([1.0, 2.0], requires_grad=True), nnet.tensor(3.0, requires_grad=True)
    x = a * 2
    kept = x
    x *= b  # 2ab
    x += x  # 4ab
    x /= 2.0
    x -= a  # 2ab - a
    assert x is kept and x.tolist() == [5.0, 10.0]
    x.sum().backward()
    assert a.grad.tolist() == [5.0, 5.0] and b.grad.item() == 6.0


def test_sums_that_grow_from_a_plain_tensor() -> None:
    w = nnet.tensor([1.0, 2.0], requires_grad=True)
    total = nnet.tensor(0.0)
    for factor in (1.0, 2.0):
        total += (w * factor).sum()
    total.backward()
    assert total.item() == 9.0 and w.grad.tolist() == [3.0, 3.0]


def test_elements_of_recorded_tensors() -> None:
    a, b = nnet.tensor([1.0, 2.0, 3.0], requires_grad=True), nnet.tensor(5.0, requires_grad=True)
    x = a * 2
    x[1:] = b
    x[0] += 1.0
    assert x.tolist() == [3.0, 5.0, 5.0]
    (x * nnet.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert a.grad.tolist() == [2.0, 0.0, 0.0] and b.grad.item() == 110.0
    out = nnet.tensor(np.zeros(3, np.float32))
    b.grad = None
    for index in range(3):
        out[index] = b * index
    out.sum().backward()
    assert b.grad.item() == 3.0


def test_what_was_computed_before_keeps_its_values() -> None:
    a = nnet.tensor([1.0, 2.0], requires_grad=True)
    y = F.sigmoid(a)
    expected = y.data * (1 - y.data)
    with nnet.no_grad():
        y *= 100.0
    y.sum().backward()
    np.testing.assert_allclose(a.grad.data, expected)


def test_a_plain_operand_changed_after_its_use_is_noticed() -> None:
    w, x = nnet.tensor([1.0], requires_grad=True), nnet.tensor([2.0])
    y = w * x
    x += 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize(
    "index",
    [0, -1, (0, 1), slice(None, None, 2), (..., 1), None, [2, 0], (1, [0, 2]), (slice(1, 3), [0, 2]), ..., True,
     nnet.tensor([True, False, True]), nnet.tensor(np.eye(3, dtype=bool)), nnet.tensor([1, 1])],
)  # fmt: skip
def test_setitem_takes_what_getitem_takes(index: object) -> None:
    x = nnet.tensor(np.arange(9.0).reshape(3, 3))
    memory = x.data
    value = x[index].clone() + 10.0
    x[index] = value
    assert x.data is memory and x._version == 1
    np.testing.assert_array_equal(x[index].data, value.data)
    x[index] = 7
    assert (x[index].data == 7).all()


def test_values_are_converted_and_broadcast() -> None:
    x = nnet.tensor(np.zeros((2, 3), np.float32))
    assert x.copy_(nnet.tensor([1, 2, 3])) is x and x.tolist() == [[1, 2, 3]] * 2 and x.dtype == np.float32
    assert x.fill_(2.5).tolist() == [[2.5] * 3] * 2 and x.zero_().tolist() == [[0.0] * 3] * 2
    x += np.ones(3)  # float64 fits in float32, as in torch
    assert x.dtype == np.float32
    counts = nnet.tensor([1, 2])
    counts += 1
    counts[0] = True
    assert counts.dtype == np.int64 and counts.tolist() == [1, 3]


def test_refusals() -> None:
    x, counts = nnet.tensor([1.0, 2.0]), nnet.tensor([1, 2])
    with pytest.raises(ValueError, match=r"other must broadcast to the shape \(2,\), got a result of shape \(3, 2\)"):
        x += np.ones((3, 2), np.float32)
    for change in (lambda: counts.add_(1.5), lambda: counts.div_(2), lambda: nnet.tensor([True]).add_(1)):
        with pytest.raises(TypeError, match="does not fit in the tensor's dtype"):
            change()
    with pytest.raises(ValueError, match=r"value of shape \(1, 3\) does not fit in tensor of shape \(2,\)"):
        x[x > -100] = np.ones((1, 3))
    with pytest.raises(ValueError, match=r"value of shape \(3,\) does not fit in tensor of shape \(2,\)"):
        x[:] = np.ones(3)
    with pytest.raises(TypeError, match="value must be a Tensor, an array or a number, got list"):
        x[:] = [1.0, 2.0]
    with pytest.raises(IndexError):
        x[5] = 1.0
    with pytest.raises(TypeError, match="src must be a Tensor, got ndarray"):
        x.copy_(np.ones(2))
    with pytest.raises(ValueError, match="value must be a number or a tensor of no dimensions"):
        x.fill_(nnet.tensor([1.0]))
    with pytest.raises(RuntimeError, match="read-only"):
        nnet.tensor([1.0]).expand(3).zero_()
    assert x.tolist() == [1.0, 2.0] and counts.tolist() == [1, 2]


def test_nothing_done_in_place_keeps_the_memory_watched() -> None:
    w, x = nnet.tensor([1.0], requires_grad=True), nnet.tensor([2.0])
    y = w * x
    F.dropout(x, 0.0, inplace=True)
    x += 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_rows_under_no_grad_change_the_whole() -> None:
    w = nnet.tensor(np.ones((2, 3)), requires_grad=True)
    recorded = w[1]
    with nnet.no_grad():
        w[0].zero_()
        recorded *= 5.0
    assert w.tolist() == [[0.0] * 3, [5.0] * 3]


def test_values_that_do_not_fit() -> None:
    x = nnet.tensor(np.zeros(3, np.uint8))
    assert x.fill_(-2).tolist() == [254] * 3  # as in C, and in PyTorch
    for value in (300, -256, 2**70, np.inf):
        with pytest.raises(ValueError, match=r"value of shape \(\) does not fit"):
            x.fill_(value)
    with pytest.raises(ValueError, match=r"src must broadcast to the shape \(3,\), got \(1, 3\)"):
        x.copy_(nnet.tensor(np.zeros((1, 3))))
    with pytest.raises(TypeError, match="src must hold real numbers, got complex128"):
        x.copy_(nnet.Tensor(np.zeros(3, complex)))
    with pytest.raises(IndexError, match="index does not fit a tensor of shape"):
        x[("a", "b"),] = 2
    with pytest.raises(IndexError, match="index does not fit a tensor of shape"):
        x[1, (1.5, 2)] = 2
    objects = nnet.Tensor(np.full((70, 70), None))
    assert objects.clone().data.tolist() == objects.data.tolist()
    with pytest.raises(IndexError, match="dim must be between -1 and 0, got 1"):
        x.size(1)


def test_values_that_a_mask_has_no_place_for():
    mask = nnet.tensor([[True, False, True], [True, False, False]])
    for value in (np.zeros(2), np.zeros(4), np.zeros((2, 3)), np.zeros((3, 1))):
        x = nnet.tensor(np.ones((2, 3)))
        for given in (value, nnet.tensor(value), nnet.tensor(value, requires_grad=True)):
            with pytest.raises(ValueError, match="does not fit in tensor of shape"):
                x[mask] = given
        assert x.tolist() == [[1] * 3] * 2


def test_leading_dimensions_of_size_one_are_left_out():
    x, value = nnet.tensor(np.ones((2, 3))), nnet.tensor([[[5.0, 6.0, 7.0]]], requires_grad=True)
    for index in (nnet.tensor([[True, False, True], [True, False, False]]), 0, nnet.tensor([0]), slice(0, 1)):
        y = x.clone()
        y[index] = value
        assert y.data.sum() == 3 + 5 + 6 + 7
        value.grad = None
        y.sum().backward()
        assert value.grad.tolist() == [[[1, 1, 1]]]
