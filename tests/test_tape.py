"""The tape: what is recorded, in which order gradients flow, what is kept alive, and the errors."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet.tape import record
from numbanet.tensor import Tensor


def leaf(*values: float) -> Tensor:
    return nnet.tensor(np.array(values), requires_grad=True)


def scale(x: Tensor, factor: float, calls: list[str] | None = None, name: str = "") -> Tensor:
    """factor * x, written out so that these tests rest on the tape alone."""

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        if calls is not None:
            calls.append(name)
        return (grad * factor,)

    return record(x.data * factor, (x,), backward)


def product(x: Tensor, y: Tensor) -> Tensor:
    a, b = x.data, y.data
    return record(a * b, (x, y), lambda grad: (grad * b, grad * a))


def test_gradients_accumulate_over_backwards() -> None:
    x = leaf(1.0, 2.0)
    scale(x, 3.0).backward(np.ones(2))
    first = x.grad
    scale(x, 4.0).backward(np.array([1.0, 10.0]))
    assert x.grad is first, "the same Tensor grows"
    np.testing.assert_array_equal(x.grad.data, [7, 43])


def test_one_tensor_as_both_operands() -> None:
    x = leaf(3.0)
    product(x, x).backward()
    np.testing.assert_array_equal(x.grad.data, [6])


def test_shared_subexpressions_run_once_and_in_order() -> None:
    calls: list[str] = []
    x = leaf(1.0)
    a = scale(x, 2.0, calls, "a")
    b = scale(a, 3.0, calls, "b")
    c = scale(a, 5.0, calls, "c")
    d = product(b, c)
    e = product(d, a)  # a is reached over paths of different lengths: x -> 2 * 3 * 2 * 5 * 2 * x^3
    e.backward()
    assert calls == ["c", "b", "a"]
    np.testing.assert_array_equal(x.grad.data, [3 * 2 * 6 * 10])


def test_deep_tapes_need_no_recursion() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = scale(y, 1.0)
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [1])
    z = x
    for _ in range(50_000):
        z = scale(z, 1.0)
    del z  # never differentiated: must go without recursion, too
    gc.collect()


def test_a_freed_tape_says_so() -> None:
    x = leaf(2.0)
    a = scale(x, 3.0)
    y, z = scale(a, 1.0), scale(a, 1.0)
    y.backward()
    with pytest.raises(RuntimeError, match="tape was freed.*retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="tape was freed"):
        z.backward()
    np.testing.assert_array_equal(x.grad.data, [3])


def test_retain_graph() -> None:
    x = leaf(2.0)
    y = scale(x, 3.0)
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [9])
    with pytest.raises(RuntimeError, match="tape was freed"):
        y.backward()


def test_values_that_nothing_needs_go_while_the_tape_lives() -> None:
    x = leaf(*map(float, range(10)))
    a = scale(x, 2.0)
    died = weakref.ref(a.data)
    y = scale(a, 3.0)
    del a
    gc.collect()
    assert died() is None
    y.backward(np.ones(10))
    np.testing.assert_array_equal(x.grad.data, np.full(10, 6.0))


def test_a_freed_tape_keeps_nothing_alive() -> None:
    x, y = leaf(1.0), leaf(2.0)
    z = product(x, y)
    values = weakref.ref(y.data)
    del y
    gc.collect()
    assert values() is not None, "the backward function needs it"
    z.backward()
    gc.collect()
    assert values() is None


def test_inputs_without_gradient_are_not_held() -> None:
    x, w = nnet.tensor(np.ones(3)), leaf(1.0, 2.0, 3.0)
    y = record(x.data * w.data, (x, w), lambda grad: (None, grad))
    died = weakref.ref(x)
    del x
    gc.collect()
    assert died() is None and y.requires_grad


def test_in_place_change_is_an_error() -> None:
    x, y = leaf(2.0), leaf(3.0)
    z = product(x, y)
    y.data[...] = 7.0
    y.bump_version()
    with pytest.raises(RuntimeError, match="changed in place"):
        z.backward()
    product(x, y).backward()
    np.testing.assert_array_equal(x.grad.data, [7])


def test_retain_grad() -> None:
    x = leaf(1.0)
    a = scale(x, 2.0)
    y = scale(a, 3.0)
    total = product(y, a)
    for tensor in (a, y, total, x):
        tensor.retain_grad()
    total.backward()
    np.testing.assert_array_equal(total.grad.data, [1])
    np.testing.assert_array_equal(y.grad.data, [2])
    np.testing.assert_array_equal(a.grad.data, [12])
    np.testing.assert_array_equal(x.grad.data, [24])
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        nnet.tensor([1.0]).retain_grad()
    assert scale(leaf(1.0), 2.0).grad is None


def test_backward_of_a_leaf() -> None:
    x = leaf(5.0)
    x.backward()
    np.testing.assert_array_equal(x.grad.data, [1])


def test_backward_wants_a_fitting_gradient() -> None:
    x = leaf(1.0, 2.0)
    y = scale(x, 2.0)
    with pytest.raises(RuntimeError, match=r"needs a tensor with one element, got shape \(2,\)"):
        y.backward()
    with pytest.raises(ValueError, match=r"grad must have the tensor's shape \(2,\), got \(3,\)"):
        y.backward(np.ones(3))
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        nnet.tensor([1.0]).backward()
    y.backward(nnet.tensor([1.0, 2.0]))
    np.testing.assert_array_equal(x.grad.data, [2, 4])
    assert x.grad.dtype == np.float64


def test_wrong_backward_functions_are_noticed() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0)
    with pytest.raises(RuntimeError, match=r"gradient of shape \(1,\) for shape \(2,\)"):
        record(x.data, (x,), lambda grad: (np.ones(1),)).backward(np.ones(2))
    with pytest.raises(ValueError, match="gave 1 gradients for 2 operands"):
        record(x.data, (x, y), lambda grad: (grad,)).backward(np.ones(2))


def adding(x: Tensor, factor: float, calls: list[float | None], other: Tensor | None = None) -> Tensor:
    """factor * x, whose backward adds what is known of the gradient of x itself; with `other` the sum of both."""

    def backward(grad: np.ndarray, known: np.ndarray | None = None, into: bool = False) -> tuple[np.ndarray, ...]:
        calls.append(None if known is None else known.item())
        return (grad * factor + (0.0 if known is None else known), grad)[: 1 if other is None else 2]

    data = x.data * factor if other is None else x.data * factor + other.data
    return record(data, (x,) if other is None else (x, other), backward, adds=True)


def test_what_is_known_of_a_gradient_is_handed_on() -> None:
    x, calls = leaf(1.0), list[float | None]()
    a = scale(x, 2.0)
    a.retain_grad()
    total = adding(adding(a, 10.0, calls), 1.0, calls, adding(a, 100.0, calls))
    for times in (1, 2):
        calls.clear()
        total.backward(retain_graph=True)
        assert calls == [None, None, 100.0], "the last first; what it gives is known to the first"
        np.testing.assert_array_equal(x.grad.data, [220 * times])
        np.testing.assert_array_equal(a.grad.data, [110 * times])


def test_both_operands_of_one_that_adds() -> None:
    x, calls = leaf(1.0), list[float | None]()
    a = scale(x, 2.0)
    product(adding(a, 10.0, calls, a), a).backward()
    assert calls == [22.0]
    np.testing.assert_array_equal(x.grad.data, [88])


def test_a_leaf_and_what_has_another_dtype_is_added_apart() -> None:
    x, calls = leaf(1.0), list[float | None]()
    product(adding(x, 3.0, calls), adding(x, 5.0, calls)).backward()
    np.testing.assert_array_equal(x.grad.data, [30])
    a = scale(x, 1.0)
    b = adding(a, 3.0, calls)
    product(b, record(a.data, (a,), lambda grad: (grad.astype(np.float32),))).backward()
    np.testing.assert_array_equal(x.grad.data, [36])
    assert calls == [None] * 3


def test_parents_that_are_none_or_need_nothing() -> None:
    x, constant = leaf(1.0), nnet.tensor(np.array([2.0]))
    y = record(x.data * 2, (None, x, constant), lambda grad: (None, grad * 2, None))
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [2])
    assert constant.grad is None
    assert not record(constant.data, (None, constant), lambda grad: (None, grad)).requires_grad


def test_gradients_do_not_share_memory() -> None:
    x, y, seed = leaf(1.0), leaf(2.0), np.ones(1)
    record(x.data + y.data, (x, y), lambda grad: (grad, grad)).backward(seed)
    x.grad.data[...] = 5.0
    np.testing.assert_array_equal(y.grad.data, [1])
    np.testing.assert_array_equal(seed, [1])
    z = leaf(1.0)
    z.backward(seed)
    z.grad.data[...] = 5.0
    np.testing.assert_array_equal(seed, [1])


def test_broadcast_and_read_only_gradients() -> None:
    x = nnet.tensor(np.zeros((2, 3, 4, 5)).transpose(0, 3, 1, 2), requires_grad=True)
    frozen = np.broadcast_to(2.0, x.shape)
    for _ in range(2):
        record(x.data, (x,), lambda grad: (frozen,)).backward(np.ones(x.shape))
    np.testing.assert_array_equal(x.grad.data, np.full(x.shape, 4.0))
    y = nnet.tensor(x.data, requires_grad=True)
    record(y.data, (y,), lambda grad: (frozen,)).backward(np.ones(x.shape))
    assert y.grad.data.strides == y.data.strides and y.grad.data.flags.writeable


def test_detached_and_dropped() -> None:
    x = leaf(2.0)
    y = product(x, scale(x, 3.0).detach())
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [6])
    with pytest.raises(RuntimeError, match="leaves only"):
        scale(x, 2.0).requires_grad_(False)


# ---------------------------------------------------------------------------------------------------------------------
# no_grad and enable_grad


def test_no_grad_as_context_and_decorator() -> None:
    x = leaf(1.0)
    with nnet.no_grad():
        assert not nnet.is_grad_enabled() and not scale(x, 2.0).requires_grad
        with nnet.enable_grad():
            assert nnet.is_grad_enabled() and scale(x, 2.0).requires_grad
        assert not nnet.is_grad_enabled()
    assert nnet.is_grad_enabled()

    @nnet.no_grad()
    def with_parentheses(factor: float) -> Tensor:
        return scale(x, factor)

    @nnet.no_grad
    def without(factor: float) -> Tensor:
        return scale(x, factor)

    @nnet.enable_grad()
    def enabled() -> Tensor:
        return scale(x, 2.0)

    for function in (with_parentheses, without):
        assert not function(2.0).requires_grad and nnet.is_grad_enabled()
    with nnet.no_grad():
        assert enabled().requires_grad and not nnet.is_grad_enabled()
    assert without.__name__ == "without"


def test_no_grad_ends_with_an_exception_and_can_be_entered_again() -> None:
    mode = nnet.no_grad()
    for _ in range(2):
        with pytest.raises(KeyError), mode:
            raise KeyError
        assert nnet.is_grad_enabled()
    with mode, mode:
        assert not nnet.is_grad_enabled()
    assert nnet.is_grad_enabled()


def test_recursive_decorated_function() -> None:
    @nnet.no_grad()
    def down(depth: int) -> bool:
        return not nnet.is_grad_enabled() and (depth == 0 or down(depth - 1))

    assert down(5) and nnet.is_grad_enabled()


def test_modes_belong_to_their_thread() -> None:
    seen: dict[str, Any] = {}
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        seen["fresh"] = nnet.is_grad_enabled()
        with nnet.no_grad():
            inside.set()
            leave.wait(10)
            seen["within"] = nnet.is_grad_enabled()

    with nnet.no_grad():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
    assert nnet.is_grad_enabled(), "the other thread's block is still open"
    leave.set()
    thread.join()
    assert seen == {"fresh": True, "within": False}


def test_threads_record_and_differentiate_at_once() -> None:
    x = np.random.default_rng(0).standard_normal(5000)
    failures: list[str] = []

    def work(seed: int) -> None:
        for _ in range(20):
            tensor = nnet.tensor(x, requires_grad=True)
            y = F.relu(scale(F.relu(tensor), float(seed)))
            y.backward(np.ones_like(x))
            if not np.array_equal(tensor.grad.data, np.where(x > 0, seed, 0)):
                failures.append("wrong gradient")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    "alias",
    [lambda w: w.detach(), lambda w: w.reshape(-1).reshape(w.shape), lambda w: w[:, ::2], lambda w: w.permute(1, 0)],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_change_through_another_view_of_the_memory_is_seen(alias, recorded):
    weight = nnet.tensor(np.eye(3), requires_grad=True)
    x = nnet.tensor(np.ones((3, 3)), requires_grad=True)
    if recorded:
        view = alias(weight)
    else:
        with nnet.no_grad():
            view = alias(weight)
    y = nnet.functional.matmul(x, view).sum()
    weight.data *= 2
    weight.bump_version()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_copy_is_not_the_memory_that_changed():
    weight = nnet.tensor(np.eye(3), requires_grad=True)
    x = nnet.tensor(np.ones((3, 3)), requires_grad=True)
    y = nnet.functional.matmul(x, weight.detach().clone()).sum()
    weight.data *= 2
    weight.bump_version()
    y.backward()
    np.testing.assert_array_equal(x.grad.data, np.ones((3, 3)))


def test_no_grad_holds_inside_a_generator_between_its_values() -> None:
    seen: list[Any] = []

    @nnet.no_grad()
    def numbers(stop: int) -> Any:
        """Count."""
        try:
            for number in range(stop):
                seen.append(nnet.is_grad_enabled())
                try:
                    seen.append((yield number))
                except KeyError:
                    yield "caught"
            return nnet.is_grad_enabled()
        finally:
            seen.append(nnet.is_grad_enabled())

    assert numbers.__doc__ == "Count."
    for _ in numbers(2):
        assert nnet.is_grad_enabled()
    assert seen == [False, None, False, None, False]
    seen.clear()
    generator = numbers(3)
    assert next(generator) == 0 and generator.send("sent") == 1 and generator.throw(KeyError) == "caught"
    assert nnet.is_grad_enabled()
    generator.close()
    assert seen == [False, "sent", False, False] and nnet.is_grad_enabled()
    generator = numbers(1)
    next(generator)
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value is False
