"""Activations: kernels against the definitions, gradients against finite differences, memory order, edges, inplace."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.cpu import activation as kernels
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.dispatch import run
from numbanet.problem.activation import ActivationProblem
from numbanet.reference import activation as reference
from tests.gradcheck import gradcheck

FUNCTIONS = tuple(reference.FORWARD)
CALLS = {
    "relu": F.relu,
    "leaky_relu": lambda t: F.leaky_relu(t, 0.2),
    "leaky_relu, negative slope": lambda t: F.leaky_relu(t, -0.5),
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
    "silu": F.silu,
}
SIZES = (0, 1, 15, 16, 17, 33, 3 * kernels._CHUNK + 5)


def compute(function, which, dtype, *inputs):
    """Run one candidate on flat arrays; the output starts as NaN and is followed by guard elements."""
    size = inputs[0].size
    buffer = np.full(size + 32, np.nan, dtype)
    run(ActivationProblem(which, dtype, function, size, 0.25), inputs, (buffer[:size],))
    assert np.isnan(buffer[size:]).all(), "wrote beyond the end"
    return buffer[:size]


def test_kernels_cover_every_function():
    assert set(kernels._FORWARD) == set(kernels._BACKWARD) == set(FUNCTIONS) == set(reference.BACKWARD)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_kernel_against_definition(function, dtype, tolerance, rng):
    for size in SIZES:
        x = (rng.standard_normal(size) * 4).astype(dtype)
        grad = rng.standard_normal(size).astype(dtype)
        for which, inputs in (("forward", (x,)), ("backward_input", (grad, x))):
            got = compute(function, which, dtype, *inputs)
            with nnet.use("reference"):
                want = compute(function, which, "float64", *(a.astype(np.float64) for a in inputs))
            scale = np.abs(want).max(initial=1)
            assert np.abs(got - want).max(initial=0) <= tolerance * scale, (which, size)


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name, rng):
    x = rng.standard_normal((3, 7)) * 2
    gradcheck(CALLS[name], np.where(np.abs(x) < 0.05, 0.5, x))  # away from the kinks


@pytest.mark.parametrize("name", CALLS)
def test_nan_and_infinity(name):
    x = nnet.tensor(np.array([np.nan, np.inf, 1e30, 1.0], np.float32), requires_grad=True)
    y = CALLS[name](x)
    assert np.isnan(y.data[0])
    limit = 1 if name in ("sigmoid", "tanh") else np.inf
    assert y.data[1] == limit and y.data[3] == CALLS[name](x.detach()).data[3]
    y.backward(np.ones(4, np.float32))
    assert np.isfinite(x.grad.data[1:]).all()
    assert x.grad.data[1] == x.grad.data[2] == (0 if limit == 1 else 1)


def test_relu_gradient_at_zero_and_nan():
    x = nnet.tensor(np.array([0.0, -0.0, np.nan, 2.0, -3.0]), requires_grad=True)
    F.relu(x).backward(np.arange(1.0, 6.0))
    assert x.grad.data.tolist() == [0, 0, 3, 4, 0]


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "sigmoid"])
def test_lower_tail_keeps_relative_accuracy(name):
    x = np.linspace(-9, -3, 50)
    single = CALLS[name](nnet.tensor(x.astype(np.float32))).data
    with nnet.use("reference"):
        if name == "gelu_tanh":  # the definition itself loses the tail: write it as x sigmoid(2 u)
            want = x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        else:
            want = CALLS[name](nnet.tensor(x.astype(np.float32).astype(np.float64))).data
    tolerance = 2e-4 if name == "gelu_tanh" else 2e-6  # x itself, rounded to float32, is off by up to 1e-7 * x * slope
    assert np.abs(single / want - 1).max() < tolerance


@pytest.mark.parametrize("name", CALLS)
def test_memory_orders(name, rng):
    base = rng.standard_normal((2, 5, 6, 7))
    views = {
        "channels last": np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "transposed": base.transpose(3, 1, 0, 2),
        "strided": base[:, ::2, 1:],
        "reversed": base[:, ::-1],
        "scalar": base[0, 0, 0, 0],
        "empty": base[:0],
    }
    for word, view in views.items():
        view = np.asarray(view)
        view.flags.writeable = False
        x = nnet.Tensor(view, requires_grad=True)
        plain = nnet.Tensor(np.array(view, order="C"), requires_grad=True)
        grad = np.asarray(rng.standard_normal(view.shape))
        results = []
        for t in (x, plain):
            results.append(CALLS[name](t))
            results[-1].backward(grad)
        assert results[0].shape == view.shape, word
        assert np.array_equal(results[0].data, results[1].data), word
        assert np.array_equal(x.grad.data, plain.grad.data), word
    channels_last = views["channels last"]
    assert CALLS[name](nnet.Tensor(channels_last)).data.strides == channels_last.strides


def test_thread_count_does_not_matter(rng):
    threads = get_num_threads()
    x = rng.standard_normal(5 * kernels._CHUNK + 3).astype(np.float32)
    try:
        results = []
        for count in (1, threads):
            set_num_threads(count)
            results.append(F.gelu(nnet.tensor(x)).data)
    finally:
        set_num_threads(threads)
    assert np.array_equal(*results)


def test_inplace_replaces_the_value_and_continues_the_tape():
    leaf = nnet.tensor(np.array([-1.0, 2.0, -3.0, 4.0]), requires_grad=True)
    x = leaf * 3
    same = F.relu(x, inplace=True)
    assert same is x
    assert x.data.tolist() == [0, 6, 0, 12]
    F.leaky_relu(x, 0.5, inplace=True)
    (x * 2).sum().backward()
    assert leaf.grad.data.tolist() == [0, 6, 0, 6]


def test_inplace_on_a_leaf_is_refused_only_where_it_would_be_recorded():
    leaf = nnet.tensor(np.array([-1.0, 2.0]), requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        F.relu(leaf, inplace=True)
    with nnet.no_grad():
        F.relu(leaf, inplace=True)
    assert leaf.requires_grad and leaf.data.tolist() == [0, 2]
    plain = nnet.tensor(np.array([-1.0, 2.0]))
    F.silu(plain, inplace=True)
    assert np.array_equal(plain.data, F.silu(nnet.tensor(np.array([-1.0, 2.0]))).data)


def test_backward_through_the_old_value_is_right():
    leaf = nnet.tensor(np.array([-1.0, 2.0]), requires_grad=True)
    x = leaf * 3
    before = x * x
    F.relu(x, inplace=True)
    before.sum().backward()
    assert leaf.grad.data.tolist() == [-18, 36]


def test_negative_slopes_in_place_have_no_gradient():
    for call, name in ((F.leaky_relu, "negative_slope"), (F.elu, "alpha")):
        for slope in (-0.5, 0.0, 0.5):
            leaf = nnet.tensor([-1.0, 2.0], requires_grad=True)
            y, want = call(leaf * 1, slope, True), call(leaf, slope)
            assert y.tolist() == want.tolist()
            want.sum().backward()
            expected, leaf.grad = leaf.grad, None
            if slope < 0:
                with pytest.raises(RuntimeError, match=f"{name} must not be negative .*inplace=True, got -0.5"):
                    y.sum().backward()
            else:
                y.sum().backward()
                assert leaf.grad.tolist() == expected.tolist()
        with nnet.no_grad():
            assert call(nnet.tensor([-1.0, 2.0]), -0.5, True)[1].item() == 2


def test_integers():
    x = nnet.tensor([-2, 0, 3])
    assert F.relu(x).dtype == np.int64 and F.relu(x).tolist() == [0, 0, 3]
    for function in (F.sigmoid, F.tanh):
        for integers in (x, nnet.tensor([True, False])):
            assert function(integers).dtype == np.float32
            assert np.array_equal(function(integers).data, function(integers.float()).data)


def test_bad_arguments():
    with pytest.raises(ValueError, match="approximate.*'tanh'.*'erf'"):
        F.gelu(nnet.tensor([1.0]), approximate="erf")
    with pytest.raises(TypeError, match="float32 or float64"):
        F.gelu(nnet.tensor([1, 2]))
    with pytest.raises(TypeError, match="float32 or float64"):
        F.relu(nnet.tensor([True]))
    with pytest.raises(ValueError, match="shape"):
        nnet.ops.relu_backward(np.zeros(3), np.zeros(4))


def test_layers(rng):
    x = nnet.tensor(rng.standard_normal((2, 3)))
    layers = {
        "ReLU()": (nn.ReLU(), F.relu(x)),
        "LeakyReLU(negative_slope=0.2)": (nn.LeakyReLU(0.2), F.leaky_relu(x, 0.2)),
        "Sigmoid()": (nn.Sigmoid(), F.sigmoid(x)),
        "Tanh()": (nn.Tanh(), F.tanh(x)),
        "GELU(approximate='tanh')": (nn.GELU("tanh"), F.gelu(x, approximate="tanh")),
        "SiLU()": (nn.SiLU(), F.silu(x)),
    }
    for text, (layer, want) in layers.items():
        assert repr(layer) == text
        assert np.array_equal(layer(x).data, want.data)
    clone = x.detach()
    assert nn.ReLU(inplace=True)(clone) is clone
    assert repr(nn.ReLU(True)) == "ReLU(inplace=True)"
