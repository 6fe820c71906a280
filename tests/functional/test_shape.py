"""Differentiable functions that change shapes: gradients against finite differences, views, indexing."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import memory, nn
from tests.gradcheck import gradcheck

ROWS = np.array([[2, 0], [1, 2]])
MASK = np.array([[True, False, True], [False, False, True], [True, True, False]])

FUNCTIONS = {
    "reshape": lambda x: F.reshape(x, (2, -1)),
    "reshape of a transpose": lambda x: F.reshape(F.transpose(x, 0, 2), (4, 9)),
    "flatten": lambda x: F.flatten(x, 1),
    "unflatten": lambda x: F.unflatten(x, -1, (2, -1)),
    "permute": lambda x: F.permute(x, (2, 0, -2)),
    "transpose": lambda x: F.transpose(x, 0, -1),
    "unsqueeze": lambda x: F.unsqueeze(x, -2),
    "squeeze": lambda x: F.squeeze(F.unsqueeze(x, 1)),
    "clone": F.clone,
    "constant": lambda x: F.pad(x, (1, -2, 0, 3), value=2.0),
    "reflect": lambda x: F.pad(x, (2, 1, 1, 2), "reflect"),
    "replicate": lambda x: F.pad(x, (2, 1, -1, 2), "replicate"),
    "circular": lambda x: F.pad(x, (4, 1, -1, 2), "circular"),
    "cat": lambda x: F.cat([x, x * 2.0, x[:, :, :1]], -1),
    "stack": lambda x: F.stack([x, x * 3.0], 1),
    "slices": lambda x: x[1:, ::2, -2:],
    "integer": lambda x: x[1, 2, 3],
    "none and ellipsis": lambda x: x[None, ..., 1],
    "rows": lambda x: x[ROWS],
    "list": lambda x: x[[0, 0, 2]],
    "rows of the middle": lambda x: x[:, ROWS],
    "pairs": lambda x: x[ROWS, :, ROWS],
    "ellipsis and rows": lambda x: x[..., ROWS],
    "mask": lambda x: x[MASK],
    "mask and slice": lambda x: x[MASK, 1:],
    "integer, slice and rows": lambda x: x[1, :, ROWS],
    "tensor": lambda x: x[nnet.tensor(ROWS), 1],
    "empty": lambda x: x[[]],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name, rng):
    gradcheck(FUNCTIONS[name], rng.standard_normal((3, 3, 4)))


def test_gradient_of_conversion(rng):
    x = nnet.tensor(rng.standard_normal((3, 5)), requires_grad=True)
    y = F.to_dtype(x, np.float32)
    assert y.dtype == np.float32
    y.backward(np.ones((3, 5), np.float32))
    assert x.grad.dtype == np.float64 and (x.grad.data == 1).all()
    assert F.to_dtype(x, "float64") is x
    assert not F.to_dtype(x, np.int64).requires_grad


def test_gradient_of_cat_in_mixed_dtypes(rng):
    a = nnet.tensor(rng.standard_normal((2, 3)).astype(np.float32), requires_grad=True)
    b = nnet.tensor(rng.standard_normal((2, 2)), requires_grad=True)
    none = nnet.tensor(np.zeros(0, np.float32), requires_grad=True)
    F.cat([a, none, b], 1).backward(np.arange(10.0).reshape(2, 5))
    np.testing.assert_array_equal(a.grad.data, [[0, 1, 2], [5, 6, 7]])
    np.testing.assert_array_equal(b.grad.data, [[3, 4], [8, 9]])
    assert a.grad.dtype == np.float32 and none.grad.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 17, 5, 5), (3, 64, 8, 8), (0, 3, 2, 2), (2, 5, 1, 1)], ids=str)
def test_flatten_of_channels_last(shape, rng):
    """Row-major order of the shape, whatever the memory order; the gradient comes back in the order of the input."""
    x = rng.standard_normal(shape).astype(np.float32)
    t = nnet.tensor(x, requires_grad=True)
    t.data = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    y = F.flatten(t, 1)
    np.testing.assert_array_equal(y.data, x.reshape(len(x), x[:1].size or 12))
    grad = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(grad)
    np.testing.assert_array_equal(t.grad.data, grad.reshape(shape))
    assert memory.memory_order(t.grad.data) == memory.memory_order(t.data)


def test_views_share_memory(rng):
    x = nnet.tensor(rng.standard_normal((2, 3, 4)))
    for view in (
        F.reshape(x, (6, 4)), F.flatten(x), F.permute(x, (1, 0, 2)), F.transpose(x, 0, 1), F.unsqueeze(x, 0),
        F.squeeze(x[:1]), x[1], x[:, ::2], x[None],
    ):  # fmt: skip
        assert np.shares_memory(view.data, x.data)
    for copy in (F.clone(x), x[[0, 1]], F.cat([x]), F.reshape(F.transpose(x, 0, 1), (-1,))):
        assert not np.shares_memory(copy.data, x.data)


def test_indexing_is_that_of_numpy(rng):
    array = rng.standard_normal((3, 4, 5))
    t = nnet.tensor(array)
    for index in (
        0, -1, np.int64(2), np.array(1), slice(1, None), None, ..., (0, ..., 1), (slice(None), [0, 2]), True,
        np.array([True, False, True]), (np.array([0, 2]), np.array([[1], [3]])), (0, 1, 2),
    ):  # fmt: skip
        np.testing.assert_array_equal(t[index].data, array[index])
        assert isinstance(t[index].data, np.ndarray)
    np.testing.assert_array_equal(t[nnet.tensor([0, 1])].data, array[[0, 1]])
    assert [row.shape for row in t] == [(4, 5)] * 3


def test_indexing_errors(rng):
    t = nnet.tensor(rng.standard_normal((3, 4)))
    for index in (3, (0, 0, 0), [5], np.array([0.5]), np.ones(2, bool), [[0]] * 3, [None, 0, 0, 0]):
        with pytest.raises(IndexError):
            t[index]
    for dtype in ("int8", "int16", "uint16", "uint64", "float32"):
        with pytest.raises(IndexError, match=f"index must have dtype bool, uint8, int32, int64, got {dtype}"):
            t[nnet.tensor(np.zeros(2, dtype))]
        with pytest.raises(IndexError, match="index must have dtype"):
            t[nnet.tensor(np.zeros(2, dtype))] = 1.0
    with pytest.raises(TypeError, match=r"index must be an integer, got 1.0"):
        t[1.0]
    for wrong in (nnet.tensor(0.0), nnet.tensor([0, 1]), 0.0):
        with pytest.raises(TypeError, match="start must be an integer, got"):
            t[wrong:]
    with pytest.raises(ValueError, match="step below 1"):
        t[:: nnet.tensor(-1)]
    with pytest.raises(TypeError, match=r"index must hold numbers in a sequence, got a tensor of shape \(2,\)"):
        t[:, [nnet.tensor([0, 1])] * 2]
    with pytest.raises(ValueError, match="index must hold sequences of one length"):
        t[:, [[0, 1], [1]]]


def test_a_list_with_sequences_in_it_is_a_tuple(rng):
    array = rng.standard_normal((3, 4, 5))
    t, a, b = nnet.tensor(array, requires_grad=True), np.array([0, 2]), np.array([1, 3])
    for given, meant in (
        ([nnet.tensor(a), nnet.tensor(b)], (a, b)), ([a, b], (a, b)), ([[0, 2], [1, 3]], (a, b)), ([(0, 2), 1], (a, 1)),
        ([nnet.tensor(a)], (a,)), ([nnet.tensor(1), nnet.tensor(2)], (1, 2)), ([1, slice(None)], (1,)),
        ([None, 0], (None, 0)), ([..., 0], (..., 0)), ([nnet.tensor([True, False, True]), b], (a, b)), ([[]], (a[:0],)),
        ([0, 2], (a,)), ([nnet.tensor(0)] * 32, ([0] * 32,)), ([True, False, True], (a,)), (range(0, 3, 2), (a,)),
        ((slice(None), [nnet.tensor(1), 3]), (slice(None), b)),
    ):  # fmt: skip
        t.grad, changed = None, nnet.tensor(array)
        t[given].sum().backward()
        expected, written = np.zeros_like(array), array.copy()
        np.add.at(expected, meant, 1)
        np.testing.assert_array_equal(t[given].data, array[meant])
        np.testing.assert_array_equal(t.grad.data, expected)
        changed[given] = written[meant] = 7
        np.testing.assert_array_equal(changed.data, written)


def test_bytes_are_masks(rng):
    array = rng.standard_normal((2, 3))
    t = nnet.tensor(array)
    for mask in (np.array([2, 0]), np.array([[1, 0, 1], [0, 0, 1]]), np.array(1), np.array(0)):
        for given in (nnet.tensor(mask.astype(np.uint8)), mask.astype(np.uint8)):
            with pytest.warns(UserWarning, match="uint8 is a mask"):
                assert t[given].tolist() == array[mask != 0].tolist()
    with pytest.warns(UserWarning, match="uint8 is a mask"):
        assert t[nnet.tensor(np.array([0, 1], np.uint8)), 1].tolist() == array[[1], 1].tolist()
        t[nnet.tensor(np.array([0, 1], np.uint8))] = 5
    assert t.tolist() == [array[0].tolist(), [5, 5, 5]]


def test_warnings_name_the_line_that_wrote_the_index():
    t, mask = nnet.tensor(np.zeros(2)), nnet.tensor(np.array([1, 0], np.uint8))

    def write():
        t[mask] = 1

    for use in (lambda: t[mask], write, lambda: t.where(mask, 0), lambda: F.where(mask, t, 0)):
        with pytest.warns(UserWarning, match="uint8") as caught:
            use()
        assert [warning.filename for warning in caught] == [__file__]


def test_tensors_are_integers(rng):
    array = rng.standard_normal((4, 5))
    t = nnet.tensor(array, requires_grad=True)
    first, last, step = nnet.tensor(1), nnet.tensor([4]), nnet.tensor(np.array(2, np.int8))
    y = t[first:last, ::step]
    np.testing.assert_array_equal(y.data, array[1:4, ::2])
    first.fill_(3)  # the gradient goes where the numbers were read
    y.sum().backward()
    assert t.grad.data.sum(1).tolist() == [0, 3, 3, 3]
    assert t[nnet.tensor(True) :, ::True].shape == (3, 5)
    assert t.sum(nnet.tensor(1)).shape == (4,) and t.reshape(nnet.tensor(2), 10).shape == (2, 10)
    assert list(range(nnet.tensor(3))) == [0, 1, 2] and "abc"[nnet.tensor(1)] == "b"
    for wrong in (nnet.tensor(1.0), nnet.tensor([1, 2])):
        with pytest.raises(TypeError, match="dim must be an integer"):
            t.sum(wrong)


def test_errors(rng):
    t = nnet.tensor(rng.standard_normal((2, 3, 4)))
    with pytest.raises(ValueError, match="start_dim must not come after end_dim"):
        F.flatten(t, 2, 1)
    with pytest.raises(ValueError, match="dims must name each of 3 dimensions once"):
        F.permute(t, (0, 1))
    with pytest.raises(ValueError, match="sizes .* does not fit the 4 elements"):
        F.unflatten(t, 2, (3, -1))
    with pytest.raises(ValueError, match="tensors must have equal shapes"):
        F.stack([t, t[:1]])
    with pytest.raises(TypeError, match="tensors must be a sequence"):
        F.cat(t)
    with pytest.raises(ValueError, match="dim must be between -4 and 3"):
        F.unsqueeze(t, 4)


def test_scalars():
    t = nnet.tensor(np.float32(2.0))
    assert F.flatten(t).shape == (1,) and F.reshape(t, (1, 1)).shape == (1, 1)
    assert F.squeeze(t).shape == () and F.permute(t, ()).shape == () and F.transpose(t, 0, -1).shape == ()
    assert F.pad(t, ()).item() == 2.0


def test_layers(rng):
    x = nnet.tensor(rng.standard_normal((2, 3, 4, 5)))
    assert nn.Flatten()(x).shape == (2, 60)
    assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert nn.Unflatten(1, (3, 1))(x).shape == (2, 3, 1, 4, 5)
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    assert repr(nn.Unflatten(1, [2, 5])) == "Unflatten(dim=1, unflattened_size=[2, 5])"
