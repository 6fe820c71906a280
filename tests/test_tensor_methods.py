"""Tensor: the checked gradient, formatting, operators on integers, and methods that forward to functions."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F


def test_grad_is_checked() -> None:
    x = nnet.tensor([1.0, 2.0], requires_grad=True)
    good = nnet.tensor([3.0, 4.0])
    x.grad = good
    assert x.grad is good and copy.deepcopy(x).grad.tolist() == [3.0, 4.0]
    with pytest.raises(TypeError, match="grad must be a Tensor or None, got ndarray"):
        x.grad = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"grad must have the tensor's shape \(2,\), got \(3,\)"):
        x.grad = nnet.tensor([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="grad must have the tensor's dtype float32, got float64"):
        x.grad = good.double()
    assert x.grad is good
    x.grad = None
    assert x.grad is None


def test_format() -> None:
    loss = nnet.tensor(1.23456, requires_grad=True)
    assert f"{loss:.2f}" == "1.23" and f"{nnet.tensor([[7]]):03d}" == "007" and f"{nnet.tensor(2.5)}" == "2.5"
    assert f"{nnet.tensor([1.0, 2.0])}" == repr(nnet.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"format '.2f' needs a tensor with one element, got shape \(2,\)"):
        f"{nnet.tensor([1.0, 2.0]):.2f}"


@pytest.mark.parametrize("convert", [bool, int, float])
def test_conversions_name_themselves(convert: type) -> None:
    with pytest.raises(ValueError, match=rf"^{convert.__name__}\(\) needs a tensor with one element"):
        convert(nnet.tensor([1.0, 2.0]))


def test_contains() -> None:
    x = nnet.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert 3.0 in x and 5 not in x and nnet.tensor(4.0) in x and np.float32(2) in x
    with pytest.raises(TypeError, match="element must be a Tensor or a number, got str"):
        assert "a" in x


def test_products_with_arrays() -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0], [6.0]])
    x = nnet.tensor(b, requires_grad=True)
    y = a @ x
    assert y.tolist() == [[17.0], [39.0]] == (nnet.tensor(a) @ b).tolist() == nnet.tensor(a).matmul(b).tolist()
    y.sum().backward()
    assert x.grad.tolist() == [[4.0], [6.0]]


def test_to() -> None:
    x = nnet.tensor([1.5])
    assert x.to("cpu", np.float64).dtype == x.to(dtype=np.float64, device="cpu").dtype == np.float64
    assert x.to(np.float32) is x and x.to("cpu:0") is x and x.to(x.double()).dtype == np.float64
    copied = x.to("cpu", copy=True)
    assert copied is not x and not np.shares_memory(copied.data, x.data)
    assert x.long().dtype == np.int64 and x.long().tolist() == [1]
    for target in ("cuda:0", "cuda"):
        with pytest.raises(RuntimeError, match=f"device '{target}' can't be used"):
            x.to(target)
    with pytest.raises(TypeError):
        x.to("gpu")


def test_to_takes_one_device_and_one_dtype() -> None:
    x, model = nnet.tensor([1.5]), nnet.nn.Linear(1, 1)
    for moved in (x, model):
        for args, options, word in (
            ((np.float64, np.float32), {}, "dtype"), ((np.uint8,), {"dtype": 1}, "dtype"),
            (("cpu", "cuda"), {}, "device"), (("cuda",), {"device": "cpu"}, "device"), ((x, np.float64), {}, "dtype"),
        ):  # fmt: skip
            with pytest.raises(TypeError, match=f"takes one {word}, got"):
                moved.to(*args, **options)
    assert model.weight.dtype == np.float32
    with pytest.raises(TypeError, match="dtype must be .* got True"):
        x.to(True)
    assert x.to("cpu", np.float64, True).dtype == x.to(np.float64, non_blocking=True).dtype == np.float64
    assert model.to(x.double(), non_blocking=True).weight.dtype == np.float64
    for args in ((np.float32, False, True), ("cpu", np.float32, False, True)):
        assert x.to(*args) is not x and x.to(*args[:-1]) is x
        with pytest.raises(TypeError, match="takes no copy"):
            model.to(*args)
    for number in (np.float64(1), np.int64(0)):
        with pytest.raises(TypeError, match="dtype"):
            x.to(number)


def test_bits() -> None:
    a, b = nnet.tensor([True, True, False]), nnet.tensor([True, False, False])
    assert (a & b).tolist() == [True, False, False] and (a | b).tolist() == [True, True, False]
    assert (a ^ b).tolist() == [False, True, False] and (~a).tolist() == [False, False, True]
    assert (a & b).dtype == np.bool_
    n = nnet.tensor([6, 3])
    assert (n & 2).tolist() == (2 & n).tolist() == [2, 2] and (~n).tolist() == [-7, -4]
    assert (n | np.array([1, 4])).tolist() == [7, 7] == (np.array([1, 4]) | n).tolist()
    assert (1 ^ n).tolist() == [7, 2] and (a[:2] & 3).dtype == np.int64
    for wrong in (lambda: n & 1.0, lambda: ~nnet.tensor(1.0), lambda: nnet.tensor(1.0) | n):
        with pytest.raises(TypeError, match="must be booleans or integers, got dtype float32"):
            wrong()


def test_argmax() -> None:
    x = nnet.tensor([[1.0, 5.0, 5.0], [9.0, 2.0, 3.0]])
    assert x.argmax().item() == 3 and x.argmax(1).tolist() == [1, 0]
    assert x.argmax(-1, keepdim=True).tolist() == [[1], [0]]
    assert x.argmax(keepdim=True).shape == (1, 1) and x.argmax().dtype == np.int64
    assert nnet.tensor(3.0).argmax(0).item() == 0
    with pytest.raises(ValueError, match="dim"):
        x.argmax(2)
    with pytest.raises(ValueError, match=r"input must have elements to choose from, got shape \(0, 3\)"):
        x[:0].argmax(0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("squeeze", ()), ("squeeze", (0,)), ("unsqueeze", (1,)), ("unflatten", (1, (2, 3))), ("relu", ()), ("sigmoid", ()),
     ("tanh", ()), ("softmax", (1,)), ("log_softmax", (1,)), ("add", (2.0,)), ("sub", (2.0,)), ("mul", (2.0,)),
     ("div", (2.0,)), ("neg", ()), ("eq", (1.0,)), ("ne", (1.0,)), ("lt", (1.0,)), ("le", (1.0,)), ("gt", (1.0,)),
     ("ge", (1.0,)), ("maximum", (nnet.tensor([0.5]),)), ("minimum", (nnet.tensor([0.5]),)), ("contiguous", ()),
     ("expand", ((4, 6),)), ("argmax", (1,))],
)  # fmt: skip
def test_methods_are_the_functions(name: str, arguments: tuple) -> None:
    x = nnet.tensor(np.linspace(-1, 2, 6).reshape(1, 6))
    found, expected = getattr(x, name)(*arguments), getattr(F, name)(x, *arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.data, expected.data)


def test_shapes() -> None:
    x = nnet.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    assert x.dim() == 2 and x.t().shape == (3, 2) and x[0].t().tolist() == [0, 1, 2]
    assert x.contiguous() is x and x.t().contiguous().data.flags.c_contiguous
    with pytest.raises(ValueError, match=r"t\(\) needs a tensor with at most 2 dimensions, got 3"):
        x.unsqueeze(0).t()
    assert x.add(x, alpha=2).tolist() == (3 * x).tolist() and x.sub(x, alpha=2).tolist() == (-x).tolist()


def test_expand() -> None:
    x = nnet.tensor([[1.0], [2.0]], requires_grad=True)
    y = x.expand(4, -1, 3)
    assert y.shape == (4, 2, 3) and x.expand((2, 1)).tolist() == x.tolist()
    y.sum().backward()
    assert x.grad.tolist() == [[12.0], [12.0]]
    for sizes in ((3, 3), (2,), (-1, 2, 1), (2, -2)):
        with pytest.raises(ValueError, match="sizes must be those of the shape"):
            x.expand(*sizes)
    with pytest.raises(ValueError, match="sizes must be those of an array, got"):
        x.expand(2**40, 2**40, 2, 1)


def test_sizes_by_their_names() -> None:
    x = nnet.tensor(np.arange(6.0).reshape(2, 3))
    assert x.reshape(shape=(3, 2)).tolist() == x.view(size=(3, 2)).tolist() == x.reshape(3, 2).tolist()
    assert x.permute(dims=(1, 0)).shape == (3, 2) and x.expand(size=(4, 2, 3)).shape == (4, 2, 3)
    for wrong in (lambda: x.reshape(size=(6,)), lambda: x.reshape(6, shape=(6,)), lambda: x.permute(dims=(1, 0), x=1)):
        with pytest.raises(TypeError, match=r"(shape|dims) must be given once and alone, got also"):
            wrong()
