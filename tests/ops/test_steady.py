"""Calls that come again give what a call that decides everything anew gives, whatever has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory, nn, ops, optim
from numbanet import functional as F
from numbanet.cpu import parallel
from numbanet.moments import Moments
from numbanet.ops import activation, loss, norm, pool
from numbanet.ops.group_norm import group_norm_backward, group_norm_forward, layer_norm_backward, layer_norm_forward
from numbanet.ops.softmax import _backward as softmax_backward
from numbanet.ops.softmax import _forward as softmax_forward
from numbanet.ops.steady import steady
from numbanet.watch import Watch, constant, watching
from tests.ops.steadiness import CONV, copied, images, labels, matrix, same, settle, vector, weight

ENTROPY = (False, False, "mean", -100, 0.1)
CALLS: dict[str, tuple[Any, Callable[[], tuple[Any, ...]]]] = {
    "matmul": (ops.matmul, lambda: (matrix(), matrix())),
    "matmul, b turned": (ops.matmul, lambda: (matrix(5, 7), matrix(9, 7).T)),
    "linear": (ops.linear, lambda: (matrix(), matrix(), vector())),
    "linear without bias": (ops.linear, lambda: (matrix(), matrix(), None)),
    "conv2d": (ops.conv2d, lambda: (images(), weight(), vector(), *CONV)),
    "conv2d of one image": (ops.conv2d, lambda: (images()[0], weight(), vector(), *CONV)),
    "conv2d of row-major images": (ops.conv2d, lambda: (np.ascontiguousarray(images()), weight(), None, *CONV)),
    "conv2d_backward_input": (ops.conv2d_backward_input, lambda: (images(), weight(), (2, 8, 6, 6), *CONV)),
    "conv2d_backward_weight": (ops.conv2d_backward_weight, lambda: (images(), images(), (8, 8, 3, 3), *CONV)),
    "conv2d by Winograd": (ops.conv2d, lambda: (images(32, 16), weight(32, 32), vector(32), *CONV)),
    "its gradients, of the input": (
        ops.conv2d_backward_input, lambda: (images(32, 16), weight(32, 32), (2, 32, 16, 16), *CONV)
    ),
    "of a small weight": (
        ops.conv2d_backward_weight, lambda: (images(32, 16), images(32, 16), (32, 32, 3, 3), *CONV)
    ),
    "of a large weight": (
        ops.conv2d_backward_weight, lambda: (images(128, 8), images(128, 8), (128, 128, 3, 3), *CONV)
    ),
    "softmax": (softmax_forward, lambda: (matrix(), False, 1)),
    "log_softmax_backward": (softmax_backward, lambda: (matrix(), matrix(), True, 1)),
    "cross_entropy": (loss._cross_entropy, lambda: (matrix(), labels(), vector(), *ENTROPY)),
    "cross_entropy_backward": (
        loss._cross_entropy_backward,
        lambda: (vector(1), matrix(), labels(), vector(), vector(16), np.ones(1), (8, 8), *ENTROPY),
    ),
    "nll_loss": (loss._nll_loss, lambda: (matrix(), labels(), vector(), False, "sum", 3)),
    "nll_loss_backward": (
        loss._nll_loss_backward,
        lambda: (vector(1), labels(), vector(), np.ones(1), (2, 8, 2, 2), True, "mean", 3),
    ),
    "mse_loss": (loss._mse_loss, lambda: (images(), images(), "mean")),
    "mse_loss_backward": (loss._mse_loss_backward, lambda: (vector(1), images(), images(), np.ones(1), "mean")),
    "relu": (activation._forward, lambda: (images(), "relu")),
    "relu_backward": (activation._backward, lambda: (images(), images(), "relu")),
    "max_pool2d": (ops.max_pool2d, lambda: (images(), 2)),
    "max_pool2d_offsets": (pool.max_pool2d_offsets, lambda: (images(), (2, 2))),
    "avg_pool2d": (ops.avg_pool2d, lambda: (images(), 2)),
    "adaptive_avg_pool2d": (ops.adaptive_avg_pool2d, lambda: (images(), 1)),
    "add": (ops.add, lambda: (images(), images())),
    "add, broadcast": (ops.add, lambda: (images(), vector().reshape(8, 1, 1))),
    "sum": (ops.sum, lambda: (images(), (0, 2, 3))),
    "layer_norm": (layer_norm_forward, lambda: (matrix(), (8,), vector(), vector(), 1e-5)),
    "layer_norm without weight": (layer_norm_forward, lambda: (matrix(), (8, 8))),
    "layer_norm_backward": (
        layer_norm_backward, lambda: (matrix(), matrix(), (8,), vector(), matrix(8, 1), matrix(8, 1))
    ),
    "group_norm": (group_norm_forward, lambda: (images(), 4, vector(), vector(), 1e-5)),
    "group_norm_backward": (
        group_norm_backward, lambda: (images(), images(), 4, vector(), matrix(2, 4), matrix(2, 4))
    ),
    "batch_norm": (norm._forward, lambda: (images(), *(vector() for _ in range(4)), None, True, 0.1, 1e-5, None)),
    "batch_norm_backward": (
        norm._backward, lambda: (images(), images(), vector(), vector(), vector(), None, True, None, False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_steady_calls_give_the_same(name: str, asked: list[Any]) -> None:
    function, make = CALLS[name]
    settle(function, make)
    asked.clear()
    earlier = []
    for _ in range(3):
        args = make()
        again = copied(args)
        found = function(*args)
        assert not asked
        expected = function.__wrapped__(*again)
        asked.clear()
        same(found, expected)
        same(args, again)  # what is changed in place, such as running statistics, is changed alike
        earlier.append((found, expected))
    for pair in earlier:
        same(*pair)  # a later call has not written to an earlier result


def test_arguments_by_name(asked: list[Any]) -> None:
    def conv(residual: Any, activation: Any) -> Any:
        x, w, b = images(32, 16), weight(32, 32), vector(32)
        call = (x, w), {"bias": b, "padding": 1, "residual": residual, "activation": activation}
        return call, np.maximum(ops.conv2d.__wrapped__(x, w, b, 1, 1) + (0 if residual is None else residual), 0)

    def linear(residual: Any, activation: Any) -> Any:
        x, w = matrix(), matrix()
        call = (x,), {"weight": w, "residual": residual, "activation": activation}
        return call, np.maximum(x @ w.T + (0 if residual is None else residual), 0)

    for function, make, residual in ((ops.conv2d, conv, lambda: images(32, 16)), (ops.linear, linear, matrix)):
        for added in (residual, lambda: None):
            for turn in range(8):
                (args, named), expected = make(added(), "relu")
                asked.clear()
                np.testing.assert_allclose(function(*args, **named), expected, rtol=1e-4, atol=1e-4)
                assert turn < 5 or not asked
                same(function(*args, **named), function.__wrapped__(*args, **named))
    x, w = images(), weight()
    for _ in range(3):
        with pytest.raises(TypeError, match="bogus"):
            ops.conv2d(x, w, bogus=1)
        with pytest.raises(TypeError, match="multiple values"):
            ops.conv2d(x, w, weight=w)
        with pytest.raises(TypeError, match="positional"):
            ops.conv2d(x, w, None, 1, 1, 1, 1, None, activation="relu")
        with pytest.raises(TypeError, match="weight"):
            ops.conv2d(x, padding=1)


def test_moments_are_no_options() -> None:
    for _ in range(6):
        taken = Moments()
        y = ops.conv2d(images(32, 16), weight(32, 32), None, *CONV, moments=taken)
        assert taken.parts is not None and np.isclose(taken.parts[:, 0].sum(0), y.size / 32).all()


def test_other_layouts_dtypes_and_types() -> None:
    settle(ops.add, lambda: (matrix(), matrix()))
    settle(ops.matmul, lambda: (matrix(), matrix()))

    class Sub(np.ndarray):
        pass

    wide = matrix(16, 16)
    others = [
        matrix().T, matrix()[::-1], matrix()[:, ::-1], wide[::2, ::2], wide[4:12, 4:12], matrix().view(Sub),
        matrix().astype(">f4"), np.broadcast_to(matrix(1, 8), (8, 8)),
    ]  # fmt: skip
    others[0].flags.writeable = False
    for function in (ops.add, ops.matmul):
        for x in others:
            for _ in range(5):
                same(function(x, matrix() * 0 + 2), function.__wrapped__(x, matrix() * 0 + 2))
        for _ in range(5):
            a, b = matrix(dtype=np.float64), matrix(dtype=np.float64)
            same(function(a, b), function.__wrapped__(a, b))
        with pytest.raises(TypeError):
            ops.matmul(matrix(), matrix(dtype=np.float64))


def test_settings_that_change(asked: list[Any]) -> None:
    args = images(32, 16), weight(32, 32), None, *CONV
    default, strict = {}, {}
    for _ in range(6):
        default["y"] = ops.conv2d(*args)
        with nnet.precision("strict"):
            strict["y"] = ops.conv2d(*args)
        with nnet.use("reference"):
            asked.clear()
            reference = ops.conv2d(*args)
            assert asked  # what it computes are no launches
        same(default["y"], ops.conv2d.__wrapped__(*args))
        with nnet.precision("strict"):
            same(strict["y"], ops.conv2d.__wrapped__(*args))
    assert (default["y"] != strict["y"]).any() and (strict["y"] != reference).any()
    small = images(), weight(), None, *CONV
    settle(ops.conv2d, lambda: small)
    asked.clear()
    ops.conv2d(*small)
    assert not asked
    dispatch.renew()
    ops.conv2d(*small)
    assert asked  # what was measured may have changed the choice


def test_who_wraps_choices_sees_each_call() -> None:
    runs: list[str] = []

    def wrap(problem: Any, fit: Any, chosen: Any) -> Any:
        from dataclasses import replace

        return replace(chosen, run=lambda *call: (runs.append(chosen.name), chosen.run(*call)))

    with dispatch.wrapped(wrap):
        for _ in range(8):
            ops.matmul(matrix(), matrix())
    assert len(runs) == 8


def test_who_takes_note_sees_each_call() -> None:
    settle(ops.matmul, lambda: (matrix(), matrix()))
    launches, watch = parallel.Launches(), Watch()
    with parallel.recording(launches), watching(watch):
        ops.matmul(matrix(), matrix())
    assert len(launches.calls) == 1
    with parallel.recording(parallel.Launches()) as _, memory.arena() as arena:
        y = ops.matmul(matrix(), matrix())
        assert memory.leased(y) is not None and arena.used


def test_options_that_are_equal_but_not_the_same() -> None:
    x, w = images(), weight()
    settle(ops.conv2d, lambda: (images(), weight(), None, 1, 1, 1, 1))
    for bad in ((1.0, 1, 1, 1), (1, (True, 1), 1, 1), (1, 1, 1, True)):
        for _ in range(4):
            with pytest.raises(TypeError):
                ops.conv2d(x, w, None, *bad)
    for good in ((1, 1, 1, 1), ([1, 1], 1, 1, 1), (np.int64(1), (1, 1), 1, 1)):
        same(ops.conv2d(x, w, None, *good), ops.conv2d.__wrapped__(x, w, None, 1, 1, 1, 1))


def test_weights_that_change_in_place() -> None:
    for layer, x in ((nn.Conv2d(8, 8, 3, padding=1), images()), (nn.Linear(8, 8), matrix())):
        step = optim.SGD(layer.parameters(), lr=0.5)

        def expected(layer: Any = layer, x: np.ndarray = x) -> np.ndarray:
            w, b = (p.detach().numpy().copy("K") for p in (layer.weight, layer.bias))
            return ops.conv2d.__wrapped__(x, w, b, *CONV) if w.ndim == 4 else ops.linear.__wrapped__(x, w, b)

        for turn in range(8):
            with nnet.no_grad():
                for _ in range(5):
                    np.testing.assert_allclose(layer(nnet.tensor(x)).numpy(), expected(), rtol=1e-5, atol=1e-5)
            if turn % 2:
                layer.weight.data[...] *= 2
            else:
                layer(nnet.tensor(x)).sum().backward()
                step.step()
                step.zero_grad()


def test_running_statistics_must_be_writeable() -> None:
    x, mean, var = images(), vector(), vector()
    for _ in range(5):
        ops.batch_norm(x, mean, var, training=True)
    mean.flags.writeable = False
    with pytest.raises(ValueError, match="running_mean"):
        ops.batch_norm(x, mean, var, training=True)
    wide = np.ones(16, np.float32)
    for _ in range(5):  # it is copied back, by NumPy
        wide[...] = 1
        ops.batch_norm(x, wide[::2], vector(), training=True)
        assert (wide[::2] != 1).all() and (wide[1::2] == 1).all()


def test_layers_that_are_captured_after_they_were_steady() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    with nnet.no_grad():
        for _ in range(5):
            net(nnet.tensor(images()))
        captured = nnet.capture(net)
        for _ in range(5):
            x = nnet.tensor(images())
            np.testing.assert_array_equal(captured(x).numpy(), net(x).numpy())


def test_what_is_not_the_same_for_kernels() -> None:
    @steady(1)
    def plus_one_more(x: np.ndarray) -> np.ndarray:
        turns.append(None)
        return ops.add(x, constant(np.full(x.shape, np.float32(len(turns)))))

    turns: list[None] = []
    for _ in range(8):
        x = matrix()
        same(plus_one_more(x), x + np.float32(len(turns)))
    assert len(turns) == 8


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_of_both_signs(zero: float) -> None:
    x = nnet.tensor(np.float32([-1, -2]))
    for sign in (zero, -zero, zero):
        for _ in range(4):
            expected = np.signbit(np.float64(sign))
            assert (np.signbit(F.leaky_relu(x, sign).numpy()) != expected).all()
            assert (np.signbit(activation.leaky_relu_backward(x.numpy(), x.numpy(), sign)) != expected).all()
            assert (np.signbit(F.hardtanh(x, sign, 1.0).numpy()) == expected).all()


def test_labels_are_looked_at_each_time(asked: list[Any]) -> None:
    for function in (F.nll_loss, F.cross_entropy):
        for _ in range(5):
            x = nnet.tensor(matrix(), requires_grad=True)
            asked.clear()
            function(x, nnet.tensor(labels())).backward()
        assert not asked
        for wrong in (8, -1):
            with pytest.raises(IndexError, match=str(wrong)):
                function(x, nnet.tensor(np.full(8, wrong)))
        for weight_ in (None, nnet.tensor(vector())):
            for ignored in (0, 1):
                found = function(x, nnet.tensor(np.full(8, ignored)), weight_, ignore_index=ignored, reduction="sum")
                assert found.item() == 0


def test_what_python_makes_of_values_is_made_each_time() -> None:
    @steady(1)
    def scaled(x: np.ndarray, label: str) -> np.ndarray:
        return ops.mul(x, np.full(x.shape, x[0, 0]))

    @steady(1)
    def emptied(x: np.ndarray) -> np.ndarray:
        y = memory.empty(x.shape, x.dtype)
        y[...] = ops.add(x, x)
        return y

    @steady(1)
    def added(x: np.ndarray) -> np.ndarray:
        y = memory.empty(x.shape, x.dtype)
        ops.shape.copy_into(y, x)
        return ops.add(y, y)

    @steady(1)
    def squared(x: np.ndarray) -> np.ndarray:
        y = memory.empty(x.shape, x.dtype)
        y[...] = x * x  # which a kernel reads
        return ops.add(y, y)

    @steady(1)
    def halved(x: np.ndarray) -> np.ndarray:
        y = ops.add(x, x)
        y[...] = y / 4
        return y

    for _ in range(10):
        x = matrix()
        same(squared(x), 2 * x * x)
        same(halved(x), x / 2)
        same(scaled(x, "a"), x * x[0, 0])
        same(emptied(x), x + x)
        same(added(x), x + x)
        same(added(x.T), np.ascontiguousarray(x.T + x.T))


def test_a_weight_that_was_an_operand_as_well() -> None:
    w = matrix(8, 8)
    prepared = ops.prepare_linear(w, rows=8)
    for _ in range(6):
        ops.linear(w, prepared, None)
    x = matrix(8, 8)
    np.testing.assert_allclose(ops.linear(x, prepared, None), x @ w.T, atol=1e-5)


def test_options_of_another_type_become_steady_as_well(asked: list[Any]) -> None:
    x, w = images(), weight()
    for stride in (np.int64(1), 1):
        for _ in range(5):
            ops.conv2d(x, w, None, stride, 1, 1, 1)
        asked.clear()
        ops.conv2d(x, w, None, stride, 1, 1, 1)
        assert not asked
