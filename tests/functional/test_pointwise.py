"""Activations with parameters: kernels against the definitions, gradients, edges, layers."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.cpu import pointwise as kernels
from numbanet.cpu.parallel import get_num_threads, set_num_threads
from numbanet.dispatch import run
from numbanet.problem.pointwise import PointwiseProblem
from numbanet.reference import pointwise as reference
from tests.gradcheck import gradcheck

CALLS = {
    "relu6": F.relu6,
    "hardtanh": lambda t: F.hardtanh(t, -0.5, 1.5),
    "elu": lambda t: F.elu(t, 0.7),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softplus": lambda t: F.softplus(t, 1.5, 6.0),
    "mish": F.mish,
}
OPERANDS = {name: sum(1 for p in f.__code__.co_varnames[: f.__code__.co_argcount]) - 2
            for name, f in reference.FUNCTIONS.items()}  # fmt: skip
SIZES = (0, 1, 15, 16, 17, 33, 2 * kernels._CHUNK + 5)


def operands_of(name, size, dtype, rng):
    x = rng.standard_normal(size) * 2
    if name.startswith("binary"):
        x = rng.random(size) * 0.98 + 0.01
    target = rng.random(size)
    chosen = (x, target, rng.random(size) + 0.5, rng.random(size) + 0.5)
    if "_backward" in name:
        chosen = (rng.standard_normal(size), target, x) if name == "kl_div_log_backward" else (x * 0 + 0.5, *chosen)
    return [np.asarray(a, dtype) for a in chosen[: OPERANDS[name]]]


def compute(which, function, dtype, operands, dense=None):
    size = max(a.size for a in operands)
    dense = dense or (True,) * len(operands)
    buffer = np.full((size if which == "forward" else 1) + 32, np.nan, dtype)
    out = buffer[:-32]
    parameters = np.array([0.8, 1.7])
    run(PointwiseProblem(which, dtype, function, size, dense, True), (*operands, parameters), (out,))
    assert np.isnan(buffer[-32:]).all(), "wrote beyond the end"
    return out


def test_kernels_cover_every_function():
    assert set(kernels._MAPS) == set(reference.FUNCTIONS)


@pytest.mark.parametrize("function", reference.FUNCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("float64", 1e-13)])
def test_kernel_against_definition(function, dtype, tolerance, rng):
    for size in SIZES:
        operands = operands_of(function, size, dtype, rng)
        wide = [a.astype(np.float64) for a in operands]
        for which in ("forward", "sum") if function in kernels._SUMS and size else ("forward",):
            got = compute(which, function, dtype, operands)
            with nnet.use("reference"):
                want = compute(which, function, "float64", wide)
            assert np.abs(got - want).max(initial=0) <= tolerance * np.abs(want).max(initial=1), (which, size)


def test_single_numbers_serve_all_elements(rng):
    x = rng.standard_normal(37)
    dense = compute("forward", "huber_backward", "float64", [np.full(37, 2.0), x, np.full(37, 0.25)])
    single = compute("forward", "huber_backward", "float64", [np.array([2.0]), x, np.array([0.25])],
                     (False, True, False))  # fmt: skip
    assert np.array_equal(dense, single)


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name, rng):
    x = rng.standard_normal((3, 7)) * 3
    for corner in (-3.0, -0.5, 0.0, 1.5, 3.0, 4.0, 6.0):
        x = np.where(np.abs(x - corner) < 0.01, x + 0.05, x)
    gradcheck(CALLS[name], x)


@pytest.mark.parametrize("name", CALLS)
def test_nan_and_infinity(name):
    x = nnet.tensor(np.array([np.nan, np.inf, -np.inf, 1e30, 1.0], np.float32), requires_grad=True)
    y = CALLS[name](x)
    assert np.isnan(y.data[0])
    top = {"relu6": 6, "hardtanh": 1.5, "hardsigmoid": 1}.get(name, np.inf)
    assert y.data[1] == top
    y.backward(np.ones(5, np.float32))
    assert np.isfinite(x.grad.data[1:]).all()
    assert x.grad.data[1] == x.grad.data[3] == (1 if top == np.inf else 0)


@pytest.mark.parametrize("name", ["elu", "softplus", "mish"])
def test_small_results_keep_their_digits(name):
    x = np.array([-1e-7, -1e-4, -8.0, -30.0], np.float32)
    x = x[x > -9] if name == "softplus" else x[2:] if name == "mish" else x
    call = {"elu": F.elu, "softplus": F.softplus, "mish": F.mish}[name]
    want = {"elu": np.expm1, "softplus": lambda x: np.log1p(np.exp(x)), "mish": reference.mish}[name]
    arguments = () if name != "mish" else (0, 0)
    want = want(x.astype(np.float64), *arguments)
    assert np.abs(call(nnet.tensor(x)).data / want - 1).max() < 1e-6


@pytest.mark.parametrize("name", CALLS)
def test_memory_orders(name, rng):
    base = rng.standard_normal((2, 5, 6, 7))
    views = [
        np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), base.transpose(3, 1, 0, 2),
        base[:, ::2, 1:], base[:, ::-1], base[0, 0, 0, 0], base[:0],
    ]  # fmt: skip
    for view in map(np.asarray, views):
        view.flags.writeable = False
        x, plain = nnet.Tensor(view, requires_grad=True), nnet.Tensor(np.array(view, order="C"), requires_grad=True)
        grad = np.asarray(rng.standard_normal(view.shape))
        y, want = CALLS[name](x), CALLS[name](plain)
        y.backward(grad)
        want.backward(grad)
        assert y.shape == view.shape and np.array_equal(y.data, want.data)
        assert np.array_equal(x.grad.data, plain.grad.data)
    assert CALLS[name](nnet.Tensor(views[0])).data.strides == views[0].strides


def test_thread_count_does_not_matter(rng):
    threads = get_num_threads()
    x = rng.standard_normal(5 * kernels._CHUNK + 3).astype(np.float32)
    results = []
    for count in (1, threads):
        set_num_threads(count)
        results.append(F.mish(nnet.tensor(x)).data)
    assert np.array_equal(*results)


def test_inplace():
    leaf = nnet.tensor(np.array([-1.0, 2.0, 9.0]), requires_grad=True)
    x = leaf * 1
    assert F.relu6(x, inplace=True) is x
    x.sum().backward()
    assert x.data.tolist() == [0, 2, 6] and leaf.grad.data.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("shape", "weights"), [((2, 3, 4, 5), (3,)), ((2, 3), (3,)), ((2, 3, 4), (1,)), ((4,), ()),
                                                ((), (1,)), ((0, 3), (3,))])  # fmt: skip
def test_prelu(shape, weights, rng):
    x, w = rng.standard_normal(shape), rng.random(weights)
    slope = w.reshape((-1,) + (1,) * (len(shape) - 2)) if len(shape) > 1 else w.reshape(())
    y = F.prelu(nnet.tensor(x), nnet.tensor(w))
    assert np.array_equal(y.data, np.where(x > 0, x, slope * x))
    gradcheck(F.prelu, np.asarray(np.where(np.abs(x) < 0.01, 0.5, x)), w)
    swapped = F.prelu(nnet.Tensor(x.astype(">f8")), nnet.Tensor(w.astype(">f8")))
    assert np.array_equal(swapped.data, y.data)


def test_bad_arguments():
    x = nnet.tensor([[1.0, 2.0]])
    with pytest.raises(ValueError, match="min_val.*2.*1"):
        F.hardtanh(x, 2, 1)
    with pytest.raises(TypeError, match="alpha must be a number, got 'a'"):
        F.elu(x, "a")
    with pytest.raises(TypeError, match="float32 or float64"):
        F.mish(nnet.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"weight must have shape .* got \(3,\)"):
        F.prelu(x, nnet.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="one dtype"):
        F.prelu(x, nnet.tensor(np.ones(2)))
    with pytest.raises(ValueError, match="max_val must be above"):
        nn.Hardtanh(1, 1)
    with pytest.raises(TypeError, match="init must be a number, got 'mean'"):
        nn.PReLU(1, "mean")
    assert nn.PReLU(2, True).weight.data.tolist() == [1.0, 1.0]


def test_layers(rng):
    x = nnet.tensor((rng.standard_normal((2, 3)) * 4).astype(np.float32))
    layers = {
        "ReLU6()": (nn.ReLU6(), F.relu6(x)),
        "Hardtanh(min_val=-2.0, max_val=0.5)": (nn.Hardtanh(-2.0, 0.5), F.hardtanh(x, -2, 0.5)),
        "ELU(alpha=0.3)": (nn.ELU(0.3), F.elu(x, 0.3)),
        "Hardsigmoid()": (nn.Hardsigmoid(), F.hardsigmoid(x)),
        "Hardswish()": (nn.Hardswish(), F.hardswish(x)),
        "Softplus(beta=2.0, threshold=5.0)": (nn.Softplus(2.0, 5.0), F.softplus(x, 2, 5)),
        "Mish()": (nn.Mish(), F.mish(x)),
        "PReLU(num_parameters=3)": (nn.PReLU(3), F.prelu(x, nnet.tensor([0.25] * 3))),
    }
    for text, (layer, want) in layers.items():
        assert repr(layer) == text
        assert np.array_equal(layer(x).data, want.data)
    clone = x.clone()
    assert nn.ReLU6(inplace=True)(clone) is clone and repr(nn.ReLU6(True)) == "ReLU6(inplace=True)"
    layer = nn.PReLU(2, 0.5)
    layer.weight.data[...] = 3
    layer.reset_parameters()
    assert layer.weight.data.tolist() == [0.5, 0.5] and list(layer.state_dict()) == ["weight"]
