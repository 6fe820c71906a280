"""Tensor: construction, conversion, Python's protocols."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet.tensor import Tensor


def test_dtypes_of_new_tensors() -> None:
    assert nnet.tensor(1.5).dtype == nnet.tensor([1.5, 2.0]).dtype == np.float32
    assert nnet.tensor(1).dtype == nnet.tensor([[1, 2]]).dtype == np.int64
    assert nnet.tensor(True).dtype == np.bool_
    assert nnet.tensor(np.float64(1)).dtype == nnet.tensor(np.zeros(2)).dtype == np.float64
    assert nnet.tensor(nnet.tensor(np.zeros(2))).dtype == np.float64
    assert nnet.tensor([1, 2], dtype=np.float64).dtype == np.float64


def test_new_tensors_copy_and_keep_the_memory_order() -> None:
    array = np.zeros((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    x = nnet.tensor(array)
    array[...] = 1.0
    assert not x.data.any() and x.data.strides == array.strides
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    assert nnet.tensor(frozen).data.flags.writeable
    assert nnet.tensor(np.broadcast_to(1.0, (3, 4))).data.flags.writeable


def test_new_tensors_refuse() -> None:
    with pytest.raises(TypeError, match="dtype must be .* got 7"):
        nnet.tensor(1, dtype=7)
    with pytest.raises(TypeError, match="array must hold real numbers"):
        nnet.tensor(["a"])
    with pytest.raises(TypeError, match="got dtype complex128"):
        nnet.tensor([1j])
    with pytest.raises(TypeError, match="array must hold real numbers"):
        nnet.tensor([None])
    with pytest.raises(RuntimeError, match="only floating-point tensors can require a gradient, got dtype int64"):
        nnet.tensor([1], requires_grad=True)
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used: "):
        nnet.tensor([1.0], device="cuda")
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', 'cuda' or .*, got 'gpu'"):
        nnet.tensor([1.0], device="gpu")
    assert nnet.tensor([1.0], device="auto").device in ("cpu", "cuda")


def test_what_it_is() -> None:
    x = nnet.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    assert x.shape == (2, 3) and x.size() == (2, 3) and x.size(-1) == 3 and x.ndim == 2 and x.numel() == 6
    assert len(x) == 2 and x.is_leaf and x.device == "cpu"
    assert [row.shape for row in x] == [(3,), (3,)]
    assert "requires_grad=True" in repr(x) and "float32" in repr(x)
    for call in (len, iter):
        with pytest.raises(TypeError, match="0-dimensional tensor"):
            call(nnet.tensor(1.0))


def test_python_numbers() -> None:
    x = nnet.tensor([[2.5]])
    assert x.item() == 2.5 and type(x.item()) is float and float(x) == 2.5 and int(x) == 2 and bool(x)
    assert type(nnet.tensor([3]).item()) is int and nnet.tensor([[1, 2]]).tolist() == [[1, 2]]
    assert not nnet.tensor(0.0)
    for convert in (float, int, bool):
        with pytest.raises(ValueError, match=r"needs a tensor with one element, got shape \(2,\)"):
            convert(nnet.tensor([1.0, 2.0]))
    assert nnet.tensor([1.0], requires_grad=True).item() == 1.0


def test_numpy_is_a_read_only_view() -> None:
    x = nnet.tensor([1.0, 2.0])
    view = x.numpy()
    x.data[0] = 5.0
    assert view[0] == 5.0
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0
    tracked = nnet.tensor([1.0], requires_grad=True)
    for function in (Tensor.numpy, np.asarray):
        with pytest.raises(RuntimeError, match=r"call detach\(\).numpy\(\)"):
            function(tracked)
    assert tracked.detach().numpy() == 1.0


def test_arrays_from_tensors() -> None:
    x = nnet.tensor([1.0, 2.0])
    assert np.asarray(x).dtype == np.float32 and np.asarray(x, np.float64).dtype == np.float64
    copied = np.array(x)
    copied[0] = 7.0
    assert x.data[0] == 1.0 and np.shares_memory(np.asarray(x), x.data)


def test_detach_shares_memory_and_history_ends() -> None:
    x = nnet.tensor([1.0, 2.0], requires_grad=True)
    y = nnet.functional.relu(x)
    z = y.detach()
    assert z.data is y.data and z.is_leaf and not z.requires_grad and not y.is_leaf


def test_deepcopy_and_pickle_of_leaves() -> None:
    x = nnet.tensor(np.arange(24.0).reshape(2, 4, 1, 3).transpose(0, 3, 1, 2), requires_grad=True)
    x.backward(np.ones(x.shape))
    for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(again) is type(x) and again.requires_grad and again.is_leaf
        np.testing.assert_array_equal(again.data, x.data)
        np.testing.assert_array_equal(again.grad.data, x.grad.data)
        again.data[...] = 0.0
        assert x.data.any()


def test_hash_is_identity() -> None:
    x, y = nnet.tensor([1.0]), nnet.tensor([1.0])
    assert len({x, y}) == 2 and {x: 1}[x] == 1


def test_to() -> None:
    x = nnet.tensor([1.5, -2.5])
    assert x.to("cpu") is x and x.cpu() is x and x.float() is x
    assert x.double().dtype == np.float64 and x.double().tolist() == [1.5, -2.5]
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used"):
        x.to("cuda")


def test_requires_grad() -> None:
    x = nnet.tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad
    assert not x.requires_grad_(False).requires_grad
    with pytest.raises(RuntimeError, match="only floating-point tensors"):
        nnet.tensor([1]).requires_grad_()


@pytest.mark.parametrize(
    "operation", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b]
)
@pytest.mark.parametrize("other", [2, 2.5, np.float32(2.5), np.array([2.0, 4.0], np.float32)])
def test_arithmetic_with_numbers_and_arrays_on_both_sides(operation: Any, other: Any) -> None:
    values = np.array([1.5, -3.0], np.float32)
    x = nnet.tensor(values)
    for found, expected in (
        (operation(x, other), operation(values, other)),
        (operation(other, x), operation(other, values)),
    ):
        assert isinstance(found, Tensor) and found.dtype == np.float32
        np.testing.assert_array_equal(found.data, expected.astype(np.float32))


def test_copies_of_a_result_keep_no_surprise() -> None:
    x = nnet.tensor([1.0, 2.0], requires_grad=True)
    y = x.clone()
    y.data[...] = 9.0
    assert x.tolist() == [1.0, 2.0] and y.requires_grad and not y.is_leaf


def test_new_tensors_have_the_byte_order_of_the_machine() -> None:
    made = nnet.tensor(np.arange(3, dtype=np.dtype("f4").newbyteorder("S")), requires_grad=True)
    assert made.dtype.isnative and made.dtype == np.float32 and made.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("array", "dtype", "error"),
    [({}, np.float32, TypeError), ("x", np.float32, TypeError), ([[1], [2, 3]], None, ValueError),
     ([2**70], np.int32, ValueError), ([2**70], None, ValueError), ("5", np.float32, TypeError),
     ([1, "6"], np.int64, TypeError), (b"5", np.float32, TypeError), (None, np.float32, TypeError),
     (np.array([1, None], object), np.float32, TypeError), (np.datetime64("2020-01-01"), np.float32, TypeError),
     (np.array([1j]), np.float32, TypeError), ([np.complex64(1), 2**70], np.float32, TypeError),
     ([np.str_("5"), 2**70], np.float32, TypeError), ([np.array(1 + 2j), None], np.float32, TypeError),
     (2**63, None, ValueError), ([2**63, -1], None, ValueError), (np.longdouble([1]), None, TypeError)],
)  # fmt: skip
def test_what_is_no_array_of_a_dtype_is_refused_by_name(array: Any, dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="array must hold real numbers"):
        nnet.tensor(array, dtype=dtype)


def test_numbers_of_any_type_become_those_of_a_dtype() -> None:
    assert nnet.tensor([Fraction(1, 2), 2**70], dtype=np.float32).tolist() == [0.5, 2.0**70]
    assert nnet.tensor([2**63, 1], dtype=np.uint64).tolist() == [2**63, 1]
    assert nnet.tensor([2**53 + 1, True], dtype=np.int64).tolist() == [2**53 + 1, 1]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(300.0, np.uint8), (np.nan, np.int64), (np.inf, np.int32), (-1.5, np.uint8), (1e20, np.int64), ([2**63], np.int64),
     (2.0**63, np.int64), (np.int64(300), np.uint8), ([np.int64(300)], np.uint8), ([np.float32(300)], np.int8),
     (np.float32(np.nan), np.int8), (np.float32(2.0**63), np.int64), (np.float64(2.0**63), np.int64),
     (np.float32(2.0**31), np.int32), (np.float16(np.inf), np.int64), (np.uint64(2**63), np.int64),
     ([[-256], [0]], np.uint8), ([np.array([300.0])], np.uint8), ([0.5, -129], np.int8),
     (255.9, np.uint8), (-0.5, np.uint8), ([127.9], np.int8), (-128.9, np.int8), ([-0.9], np.uint8),
     ([1, -0.5], np.uint8), ([254.9, 255.5], np.uint8), (np.float32(255.9), np.uint8), ([np.float64(-0.5)], np.uint8),
     ([True, -0.5], np.uint8), ([0.5, -256], np.uint8), ([0.5, 2**63], np.int64)],
    ids=str,
)  # fmt: skip
def test_what_an_integer_dtype_does_not_hold_is_refused(array: Any, dtype: Any) -> None:
    with pytest.raises(ValueError, match="array must hold real numbers that fit its dtype"):
        nnet.tensor(array, dtype=dtype)


@pytest.mark.parametrize(
    ("array", "expected"),
    [(-1, 255), ([-1, -255, 255], [255, 1, 255]), ([[np.int64(-128)], [1]], [[128], [1]]), (1.7, 1),
     ([True, 2], [1, 2]), (np.array([-1, 256]), [255, 0]), ([0.5, -1], [0, 255]), ([[0.5], [-129]], [[0], [127]]),
     ([254.9, True, 255], [254, 1, 255]), ([0.9], [0]), (np.array([255.9]), [255])],
    ids=str,
)  # fmt: skip
def test_uint8_takes_what_pytorch_takes(array: Any, expected: Any) -> None:
    assert nnet.tensor(array, dtype=np.uint8).tolist() == expected


@pytest.mark.parametrize(
    ("array", "dtype"),
    [([1, 2], np.int64), ([], np.float32), ([[], []], np.float32), ([True], np.bool_), ([1, 2.5], np.float32),
     ([2**70, 1.0], np.float32), (1e300, np.float32), ([np.float64(1.5)], np.float64),
     ([np.float32(1), 2.5], np.float32), ([np.array([1.0, 2.0])], np.float64),
     ([nnet.tensor(1.5, requires_grad=True), 2.5], np.float32),
     (((1, 2), [3, 4.5]), np.float32), (range(3), np.int64), (np.float16(3), np.float16)],
    ids=str,
)  # fmt: skip
def test_values_without_a_dtype_get_the_one_of_pytorch(array: Any, dtype: Any) -> None:
    assert nnet.tensor(array).dtype == dtype


def test_a_flag_of_a_new_tensor_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="requires_grad must be True or False, got 'x'"):
        nnet.tensor(1.0, requires_grad="x")  # type: ignore[arg-type]
