"""Optimizer steps, norms and clipping of many arrays in one launch, and dropout's random bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import numbanet as nnet
from numbanet import amp, functional, ops, optim
from numbanet.cuda.launch import executor
from numbanet.cuda.optim import CANDIDATES
from numbanet.problem.dropout import DropoutProblem
from numbanet.problem.optim import RULES, ClipProblem, VectorNormProblem, optimizer_problem
from numbanet.reference.dropout import random_words
from tests.cuda.ptx.executor import HostDevice, Interpreter
from tests.cuda.twins import compare, poison, run

SIZES = (5, 4096, 1, 0, 4500)  # a tail, one whole piece, more than a piece
# (rule, state that is used, options, coefficients)
STEPS = [
    ("sgd", (), (), (1.0, 0.01, 0.1, 0.9, 0.8)),
    ("sgd", ("momentum_buffer",), ("first",), (1.0, 0.0, 0.1, 0.9, 0.8)),
    ("sgd", ("momentum_buffer",), ("nesterov",), (-1.0, 0.01, 0.1, 0.9, 0.8)),
    ("adam", ("exp_avg", "exp_avg_sq"), (), (1.0, 0.01, 0.99, 0.1, 0.999, 0.001, 0.01, 1.3, 1e-8)),
    ("adam", ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), (), (1.0, 0.0, 1.0, 0.1, 0.999, 0.001, 0.01, 1.3, 1e-8)),
    ("rmsprop", ("square_avg",), (), (1.0, 0.01, 0.1, 0.9, 0.1, 0.0, 1e-3)),
    ("rmsprop", ("square_avg", "grad_avg", "momentum_buffer"), (), (1.0, 0.0, 0.1, 0.9, 0.1, 0.7, 1e-3)),
    ("adagrad", ("sum",), (), (1.0, 0.01, 0.1, 1e-10)),
    ("adadelta", ("square_avg", "acc_delta"), (), (1.0, 0.01, 0.5, 0.9, 0.1, 1e-6)),
]


def arrays(seed: int, dtype: str, positive: bool = False, sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal(size).astype(dtype) for size in sizes]
    return [np.abs(x) + np.dtype(dtype).type(0.5) for x in found] if positive else found


@pytest.mark.parametrize(("rule", "used", "options", "coefficients"), STEPS)
def test_every_rule(
    rule: str, used: tuple[str, ...], options: tuple[str, ...], coefficients: tuple[float, ...]
) -> None:
    for dtype, sizes in (("float32", SIZES), ("float64", (5, 7))) if rule == "adam" else (("float32", SIZES),):
        problem = optimizer_problem(rule, dtype, sizes, used, options)
        signed = ("grad_avg", "momentum_buffer", "exp_avg")
        state = [arrays(9 + k, dtype, name not in signed, sizes) if name in used else None
                 for k, name in enumerate(RULES[rule])]  # fmt: skip
        if rule == "rmsprop" and state[1] is not None:  # the square of the mean is no more than the mean of the squares
            state[1] = [x / 10 for x in state[1]]
        outputs = (arrays(1, dtype, False, sizes), *state)
        compare(problem, (arrays(2, dtype, False, sizes), np.array(coefficients)), outputs, 2)


def test_a_step_is_one_launch_and_takes_unaligned_arrays() -> None:
    params = [np.ones(size + 1, np.float32)[1:] for size in SIZES]
    problem = optimizer_problem("sgd", "float32", SIZES, ())
    device = Interpreter()
    with executor(device):
        grads = arrays(3, "float32")
        CANDIDATES["optimizer_step", "step"][0].run(problem, (grads, np.array([1, 0, 0.5, 0, 0.0])), (params,), None)
    assert len(device.launched) == 1
    for param, grad in zip(params, grads):
        np.testing.assert_allclose(param, 1 - 0.5 * grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [2.0, 1.0, math.inf, -math.inf, 0.0, 2.5])
def test_norms(order: float) -> None:
    given = arrays(4, "float32")
    given[4][100] = 0
    problem = VectorNormProblem("forward", "float32", SIZES, order)
    outputs = (poison((len(SIZES),), "float64"),)
    compare(problem, (given,), outputs, 1e-6)
    given[1][50] = np.nan
    compare(problem, (given,), outputs, 1e-6)


@pytest.mark.parametrize("function", ["scale", "clamp", "fill"])
def test_clips(function: str) -> None:
    given = arrays(5, "float32")
    given[0][2] = np.nan if function != "fill" else 0
    problem = ClipProblem("forward", "float32", function, SIZES)
    compare(problem, (np.array([-0.25, 0.5]),), (given,))


@pytest.mark.parametrize("order", [2.0, 1.0, math.inf, -math.inf, 0.0, 3.0, -1.0])
def test_clipping_by_the_norm_waits_for_nothing(order: float) -> None:
    device = HostDevice()
    for scale, value in ((1.0, None), (1e-3, None), (1.0, np.nan)):
        given = [scale * x for x in arrays(7, "float32", sizes=(5, 4500, 0, 3))] + arrays(8, "float64", sizes=(7,))
        given[0][2] = 0 if value is None else value
        expected = [x.copy() for x in given]
        with np.errstate(invalid="ignore"):
            norm = ops.clip_norm_(expected, 2.0, order)
        with executor(device):
            there = [device.upload(x) for x in given]
            device.downloads = 0
            found = ops.clip_norm_(there, 2.0, order)
            assert device.downloads == 0 and found.shape == ()
            np.testing.assert_allclose(device.download(found), norm, rtol=1e-6)
            for x, wanted in zip(there, expected):
                np.testing.assert_allclose(device.download(x), wanted, rtol=1e-6)


def test_a_norm_that_is_not_finite_is_found_before_anything_is_scaled() -> None:
    device, values = HostDevice(), arrays(7, "float32", sizes=(5, 3))
    values[1][2] = np.inf
    with executor(device):
        there = [device.upload(x) for x in values]
        device.downloads = 0
        with pytest.raises(RuntimeError, match="norm of order 2.0 of the gradients is inf"):
            ops.clip_norm_(there, 1.0, error_if_nonfinite=True)
        assert device.downloads == 1
        assert all(np.array_equal(device.download(x), kept) for x, kept in zip(there, values))
        assert ops.clip_norm_(there[:1], 1e-3, error_if_nonfinite=True).shape == ()
        assert np.linalg.norm(device.download(there[0])) == pytest.approx(1e-3, rel=1e-2)


def test_gradients_on_the_gpu_are_clipped_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full(4, -3, np.float32)]
    found = []
    with executor(HostDevice()):
        for place in ("cpu", "cuda"):
            tensors = [nnet.tensor(v, device=place, requires_grad=True) for v in values]
            for t in tensors:
                (t * t).sum().backward()
            norm = optim.clip_grad_norm_(tensors, 1.5)
            assert norm.device == place and norm.dtype == np.float32 and norm.shape == ()
            found.append((norm.item(), [t.grad.tolist() for t in tensors]))  # type: ignore[union-attr]
            with pytest.raises(RuntimeError, match="norm of order 2.0 of the gradients is nan"):
                tensors[0].grad = tensors[0].grad * float("nan")  # type: ignore[operator]
                optim.clip_grad_norm_(tensors, 1.5, error_if_nonfinite=True)
    assert found[0][0] == pytest.approx(found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_has_the_bits_of_every_other_device(size: int, dtype: str) -> None:
    x = np.random.default_rng(6).standard_normal(size + 1).astype(dtype)
    key = np.array([0xDEADBEEF12345678, 0xFEDCBA9800000003], np.uint64)
    problem = DropoutProblem("forward", dtype, size, 0.3)
    (y,) = run(problem, (x[:-1], key), (poison((size,), dtype),))
    dropped = random_words(size, key) < problem.threshold
    np.testing.assert_array_equal(y == 0, dropped)
    compare(problem, (x[:-1], key), (poison((size,), dtype),))
    compare(problem, (x[1:], key), (poison((size,), dtype),))
    everything = DropoutProblem("forward", dtype, size, 1.0)
    compare(everything, (x[:-1], key), (poison((size,), dtype),))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 65, 5000, 5003])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout_sends_gradients_back_by_the_flags_that_it_wrote(size: int, dtype: str, p: float) -> None:
    x = np.random.default_rng(7).standard_normal(size + 4).astype(dtype)
    x[0] = np.inf  # times zero is NaN
    key = np.array([0xDEADBEEF12345678, 0xFEDCBA9800000003], np.uint64)
    forward, backward = (DropoutProblem(which, dtype, size, p) for which in ("forward", "backward_input"))
    for values in (x[:size], x[1 : size + 1]):  # the second are not aligned
        outputs = poison((size,), dtype), poison((size,), "uint8")
        with np.errstate(invalid="ignore"):
            compare(forward, (values, key), outputs)
        flags = run(forward, (values, key), outputs)[1]
        np.testing.assert_array_equal(flags, random_words(size, key) < forward.threshold)
        shifted = np.concatenate([flags[:1], flags])[1:]
        for given in (flags, shifted):
            with np.errstate(invalid="ignore"):
                compare(backward, (values, given), outputs[:1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_dropout_and_its_gradient_on_the_gpu_are_those_of_the_cpu(dtype: str, order: tuple[int, ...]) -> None:
    values = np.random.default_rng(8).standard_normal((2, 3, 5, 7)).transpose(order).astype(dtype, order="C")
    values = values.transpose(np.argsort(order))
    seed = np.random.default_rng(9).standard_normal(values.shape).astype(dtype)  # in row-major order
    state, found = nnet.random.get_state(), []
    try:
        with executor(HostDevice()):
            for place in ("cpu", "cuda"):
                nnet.manual_seed(5)
                x = nnet.Tensor(values).to(place).requires_grad_()
                y = functional.dropout(x, 0.3)
                y.backward(nnet.tensor(seed, device=place))
                found.append([y.detach().to("cpu").numpy(), x.grad.to("cpu").numpy()])  # type: ignore[union-attr]
    finally:
        nnet.random.set_state(state)
    assert (found[0][0] == 0).any()
    for ours, theirs in zip(*found):
        assert ours.strides == theirs.strides
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_gradients_on_the_gpu_are_unscaled_as_others() -> None:
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full(4, -3, np.float32)]
    found = []
    device = HostDevice()
    with executor(device):
        assert amp.GradScaler("cuda").is_enabled()
        for place in ("cpu", "cuda"):
            tensors = [nnet.tensor(v, device=place, requires_grad=True) for v in values]
            scaler, optimizer = amp.GradScaler(growth_interval=1), optim.SGD(tensors, lr=0.1)
            for factor in (1.0, 1e38, 2.0):
                optimizer.zero_grad()
                scaler.scale(sum((t * t).sum() * factor for t in tensors)).backward()
                device.downloads = 0
                scaler.step(optimizer)
                assert device.downloads == (place == "cuda")
                scaler.update()
            found.append([t.tolist() for t in tensors])
            assert scaler.get_scale() == 2.0**17
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
